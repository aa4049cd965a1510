"""Supervision with workers that are cheap scripts, connections that are handed out, and the plan of a machine."""

import asyncio
import contextlib
import errno
import os
import signal
import socket
import sys
import textwrap
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import values

from handful_service.metrics import Metrics
from handful_service.settings import Settings
from handful_service.workers import folder as folders
from handful_service.workers.folder import metrics_folder
from handful_service.workers.handing import MOST_ON_THE_WAY, Gate, Lane, Taker, listen
from handful_service.workers.planning import Machine, share, worker_count
from handful_service.workers.restarting import MOST_S, STEADY_S, Backoff
from handful_service.workers.supervisor import Supervisor
from handful_service.workers.worker import Worker

GIB = 2**30

CHEAP = """
import json, socket, sys, threading, time
channel, lane = (socket.socket(fileno=int(number)) for number in sys.argv[1:])
reader = channel.makefile("r")
start = json.loads(reader.readline())
def send(kind, **more):
    channel.sendall(json.dumps({"kind": kind, **more}).encode() + b"\\n")
def serve():
    taken = 0
    while True:
        data, fds, _, _ = socket.recv_fds(lane, 1, 1)
        if not data:
            return
        taken += 1
        lane.sendall(taken.to_bytes(8, "big") + (taken - 1).to_bytes(8, "big"))
        with socket.socket(fileno=fds[0]) as connection:
            connection.setblocking(True)
            connection.sendall(b"%d" % start["number"])
threading.Thread(target=serve, daemon=True).start()
"""
TO_THE_END = """
for line in reader:
    if json.loads(line)["kind"] == "stop":
        sys.exit(0)
"""
GOOD = CHEAP + 'send("ready", digests={"tiny/1": "d"})' + TO_THE_END


@pytest.fixture
def metrics_in_memory() -> Iterator[None]:
    """Metrics that are kept in files change what later ones do: not beyond the test."""
    before = values.ValueClass
    yield
    for file in values.ValueClass._files.values():
        file._f.close()
    values.ValueClass = before


class Server:
    """A supervisor in this process, of workers that are scripts."""

    def __init__(self, tmp_path: Path, script: str, **settings: Any) -> None:
        (tmp_path / "worker.py").write_text(textwrap.dedent(script), encoding="utf-8")
        (tmp_path / "metrics").mkdir()
        given = Settings(**{"drain_ms": 0, "shutdown_ms": 1000, **settings})
        lanes: list[Lane] = []
        self.gate = Gate(listen("127.0.0.1", 0), lanes)
        self.supervisor = Supervisor(
            given, given, count=2, gate=self.gate, lanes=lanes, folder=tmp_path / "metrics",
            command=(sys.executable, str(tmp_path / "worker.py")),
        )  # fmt: skip
        self.running: asyncio.Task[int] = asyncio.get_running_loop().create_task(self.supervisor.run())

    async def answer(self) -> bytes:
        """What the worker says that gets a new connection."""
        host, port = self.gate.addresses[0].split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        try:
            return await asyncio.wait_for(reader.read(), 10)
        finally:
            writer.close()
            await writer.wait_closed()

    async def until(self, holds: Callable[[], bool], within_s: float = 20) -> None:
        end = time.monotonic() + within_s
        while not holds():
            assert time.monotonic() < end
            assert not self.running.done() or holds()
            await asyncio.sleep(0.01)

    @property
    def pids(self) -> dict[int, int]:
        return {number: worker.process.pid for number, worker in self.supervisor._workers.items()}

    @property
    def blocked(self) -> str | None:
        return self.supervisor._blocked

    @property
    def restarts(self) -> float:
        return self.supervisor._metrics.restarts._value.get()


@asynccontextmanager
async def serving(tmp_path: Path, script: str, **settings: Any) -> AsyncIterator[Server]:
    server = Server(tmp_path, script, **settings)
    try:
        yield server
    finally:
        while not server.running.done():
            os.kill(os.getpid(), signal.SIGINT)
            await asyncio.sleep(0.05)
        await asyncio.gather(server.running, return_exceptions=True)


@pytest.mark.usefixtures("metrics_in_memory")
def test_workers_get_connections_by_turns_and_end_together(tmp_path: Path) -> None:
    async def run() -> None:
        async with serving(tmp_path, GOOD) as server:
            await server.until(lambda: server.blocked is None)
            assert Counter([await server.answer() for _ in range(10)]) == {b"0": 5, b"1": 5}
            os.kill(os.getpid(), signal.SIGTERM)
            assert await asyncio.wait_for(server.running, 10) == 0
            with pytest.raises(ConnectionRefusedError):
                await server.answer()

    asyncio.run(run())


@pytest.mark.usefixtures("metrics_in_memory")
def test_a_worker_that_dies_is_replaced_and_counted(tmp_path: Path) -> None:
    async def run() -> None:
        async with serving(tmp_path, GOOD) as server:
            await server.until(lambda: server.blocked is None)
            before = server.pids
            os.kill(before[1], signal.SIGKILL)
            await server.until(lambda: server.blocked == "1 of 2 workers are ready")
            assert {await server.answer() for _ in range(4)} == {b"0"}
            await server.until(lambda: server.blocked is None)
            assert server.pids[0] == before[0]
            assert server.pids[1] != before[1]
            assert server.restarts == 1
            assert {await server.answer() for _ in range(4)} == {b"0", b"1"}

    asyncio.run(run())


@pytest.mark.usefixtures("metrics_in_memory")
def test_connections_wait_for_the_ready_and_go_to_the_others_only_where_none_is(tmp_path: Path) -> None:
    slow = CHEAP + 'time.sleep(60 if start["number"] else 0.5)\nsend("ready", digests={})' + TO_THE_END

    async def run() -> None:
        async with serving(tmp_path, slow, shutdown_ms=0) as server:
            await server.until(lambda: len(server.pids) == 2)
            assert {await server.answer() for _ in range(2)} == {b"0", b"1"}, "nobody is ready, and both answer that"
            await server.until(lambda: server.blocked == "1 of 2 workers are ready")
            assert {await server.answer() for _ in range(6)} == {b"0"}
            for pid in server.pids.values():
                os.kill(pid, signal.SIGKILL)

    asyncio.run(run())


@pytest.mark.usefixtures("metrics_in_memory")
@pytest.mark.parametrize(
    ("end", "tried_again"),
    [
        ('send("failed", mends=False)\nsys.exit(1)', False),
        ('send("failed", mends=True)\nsys.exit(1)', False),
        ("sys.exit(3)", False),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", True),
    ],
    ids=["for good", "for now", "without a word", "killed"],
)
def test_a_first_start_that_fails_ends_all_unless_it_was_killed(tmp_path: Path, end: str, tried_again: bool) -> None:
    async def run() -> None:
        async with serving(tmp_path, CHEAP + (f'if start["number"] == 1:\n{textwrap.indent(end, "    ")}\n')
                           + 'send("ready", digests={})' + TO_THE_END) as server:  # fmt: skip
            if tried_again:
                await server.until(lambda: server.restarts >= 2)
            else:
                assert await asyncio.wait_for(server.running, 20) == 1
                assert server.restarts == 0

    asyncio.run(run())


@pytest.mark.usefixtures("metrics_in_memory")
@pytest.mark.parametrize("mends", [True, False])
def test_a_later_start_that_fails_ends_all_unless_it_may_mend(tmp_path: Path, mends: bool) -> None:
    mark = tmp_path / "broken"
    script = CHEAP + textwrap.dedent(f"""
        import os
        if os.path.exists({str(mark)!r}):
            os.remove({str(mark)!r})
            send("failed", mends={mends})
            sys.exit(1)
        send("ready", digests={{}})
        """)

    async def run() -> None:
        async with serving(tmp_path, script + TO_THE_END) as server:
            await server.until(lambda: server.blocked is None)
            mark.touch()
            os.kill(server.pids[0], signal.SIGKILL)
            if mends:
                await server.until(lambda: server.restarts == 2 and server.blocked is None)
            else:
                assert await asyncio.wait_for(server.running, 20) == 1

    asyncio.run(run())


@pytest.mark.usefixtures("metrics_in_memory")
def test_workers_with_different_bundles_are_not_ready(tmp_path: Path) -> None:
    script = CHEAP + 'send("ready", digests={"tiny/1": str(start["number"])})' + TO_THE_END

    async def run() -> None:
        async with serving(tmp_path, script) as server:
            await server.until(lambda: "different bundles" in (server.blocked or ""))

    asyncio.run(run())


@pytest.mark.usefixtures("metrics_in_memory")
def test_a_worker_that_does_not_end_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("handful_service.workers.supervisor.GRACE_S", 0.1)

    async def run() -> None:
        async with serving(tmp_path, CHEAP + 'send("ready", digests={})\ntime.sleep(60)') as server:
            await server.until(lambda: server.blocked is None)
            os.kill(os.getpid(), signal.SIGTERM)
            assert await asyncio.wait_for(server.running, 10) == 0

    asyncio.run(run())


def pair() -> tuple[socket.socket, socket.socket]:
    return socket.socketpair()


@contextlib.contextmanager
def connections(count: int) -> Iterator[list[socket.socket]]:
    """Sockets that may be handed over, and are closed by whoever gets them."""
    made = [socket.socketpair() for _ in range(count)]
    try:
        yield [one for one, _ in made]
    finally:
        for one, other in made:
            one.close()
            other.close()


def test_what_a_dead_worker_has_not_taken_comes_back() -> None:
    async def run() -> None:
        ours, its = pair()
        lane = Lane(ours, lambda: None)
        with its, connections(3) as some:
            assert all(lane.hand(one) for one in some)
            assert (lane.load, lane.on_the_way) == (3, 3)
            data, taken, _, _ = socket.recv_fds(its, 1, 1)
            its.sendall((1).to_bytes(8, "big") + (0).to_bytes(8, "big"))
            await asyncio.sleep(0.01)
            assert (data, lane.load, lane.on_the_way) == (b"c", 3, 2)
            os.close(taken[0])
            its.sendall((1).to_bytes(8, "big") + (1).to_bytes(8, "big"))
            await asyncio.sleep(0.01)
            assert lane.load == 2
            assert lane.close() == some[1:]

    asyncio.run(run())


def test_a_worker_that_takes_nothing_gets_no_more_than_a_bound() -> None:
    async def run() -> None:
        ours, its = pair()
        lane = Lane(ours, lambda: None)
        with its, connections(MOST_ON_THE_WAY) as some:
            for one in some:
                assert lane.has_room
                assert lane.hand(one)
            assert not lane.has_room
            for one in lane.close():
                one.close()

    asyncio.run(run())


def test_a_worker_tells_what_it_took_before_it_reads_and_what_is_closed_later() -> None:
    async def run() -> None:
        ours, its = pair()
        told: list[tuple[int, int]] = []
        held = 0

        async def adopt(connection: socket.socket) -> None:
            nonlocal held
            ours.setblocking(False)
            told.append((int.from_bytes(ours.recv(8)), int.from_bytes(ours.recv(8))))
            await asyncio.sleep(0)
            held += 1
            connection.close()

        tasks: list[asyncio.Task[None]] = []

        def adopting(connection: socket.socket) -> asyncio.Task[None]:
            tasks.append(asyncio.get_running_loop().create_task(adopt(connection)))
            return tasks[-1]

        taker = Taker(its, adopting, lambda: held)
        with ours, connections(1) as (one,):
            socket.send_fds(ours, [b"c"], [one.fileno()])
            await asyncio.sleep(0.05)
            assert told == [(1, 0)]
            held = 0
            taker.tell()
            assert ours.recv(16) == (1).to_bytes(8, "big") + (1).to_bytes(8, "big")
        taker.close()

    asyncio.run(run())


def test_a_long_life_forgives_short_ones() -> None:
    now = 0.0
    backoff = Backoff(lambda: now)
    waits = [backoff.wait_s() for _ in range(12)]
    assert waits[:5] == [0.0, 0.5, 1.0, 2.0, 4.0]
    assert max(waits) == waits[-1] == MOST_S
    backoff.started()
    now = STEADY_S
    assert backoff.wait_s() == 0.0


@pytest.mark.parametrize(
    ("machine", "workers", "expected"),
    [
        (Machine(1, 4 * GIB, cuda=False), 0, 1),
        (Machine(2, 4 * GIB, cuda=False), 0, 2),
        (Machine(16, 64 * GIB, cuda=False), 0, 16),
        (Machine(16, None, cuda=False), 0, 16),
        (Machine(16, 64 * GIB, cuda=True), 0, 1),
        (Machine(16, 64 * GIB, cuda=True), 3, 3),
        (Machine(2, GIB // 2, cuda=False), 0, 1),
        (Machine(8, 2 * GIB, cuda=False), 0, 6),
        (Machine(1, GIB // 2, cuda=False), 4, 4),
    ],
)
def test_there_are_as_many_workers_as_cores_and_memory_allow(
    tmp_path: Path, machine: Machine, workers: int, expected: int
) -> None:
    assert worker_count(Settings(workers=workers, bundles=tmp_path), machine) == expected


def test_large_bundles_make_fewer_workers(tmp_path: Path) -> None:
    graph = tmp_path / "model" / "1" / "encode.onnx"
    graph.parent.mkdir(parents=True)
    with graph.open("wb") as file:
        file.truncate(200 * 2**20)
    assert worker_count(Settings(bundles=tmp_path), Machine(8, 4 * GIB, cuda=False)) == 3


def test_what_is_meant_for_the_machine_is_divided() -> None:
    each = share(Settings(cache_bytes=2**28, max_in_flight=511, deadline_ms=77), 2, 5)
    assert (each.workers, each.threads, each.cache_bytes, each.max_in_flight) == (1, 2, 2**27, 256)
    assert each.deadline_ms == 77
    assert share(Settings(threads=1), 4, 4).threads == 1
    assert share(Settings(threads=8), 2, 2).threads == 4
    assert Settings(**each.model_dump(mode="json")) == each, "as it reaches a worker"


def test_the_folder_of_metrics_is_private_and_goes_and_so_do_those_that_are_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(folders, "_YOUNG_S", -1)
    left = tmp_path / "handful-metrics-left"
    left.mkdir()
    (left / "lock").touch()
    with metrics_folder() as first:
        assert not left.exists()
        assert first.stat().st_mode & 0o777 == 0o700
        with metrics_folder() as second:
            assert first.exists()
            assert second != first
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("metrics_in_memory")
def test_metrics_of_processes_are_summed_and_those_of_dead_ones_stay(tmp_path: Path) -> None:
    dead = os.fork()
    if dead == 0:  # a process of its own, since its number names its files
        metrics = Metrics(tmp_path)
        for _ in range(60):
            metrics.answered("GET", "/a", 200, 0.02)
            metrics.batch_observer(f"model-{_}")("encode", 4)  # the file grows, and the former cells are true
        metrics.in_flight.inc(5)
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(dead, 0)
    here = Metrics(tmp_path)
    here.answered("GET", "/a", 200, 3.0)
    here.in_flight.inc()
    assert sample(here, 'handful_requests_total{method="GET",route="/a",status="200"}') == 61
    assert sample(here, 'handful_request_seconds_count{route="/a"}') == 61
    assert sample(here, 'handful_request_seconds_sum{route="/a"}') == pytest.approx(4.2)
    assert sample(here, 'handful_request_seconds_bucket{le="0.025",route="/a"}') == 60
    assert sample(here, 'handful_batch_rows_sum{graph="encode",model="model-59"}') == 4
    assert sample(here, "handful_requests_in_flight") == 6
    here.forget(dead)
    assert sample(here, "handful_requests_in_flight") == 1
    assert sample(here, 'handful_requests_total{method="GET",route="/a",status="200"}') == 61


def sample(metrics: Metrics, name: str) -> float:
    lines = metrics.text().decode().splitlines()
    return float(next(line.rpartition(" ")[2] for line in lines if line.startswith(f"{name} ")))


@pytest.mark.usefixtures("metrics_in_memory")
def test_a_worker_that_cannot_be_started_for_now_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = Worker.start
    refused = []

    async def start(worker: Worker, command: Any, message: Any) -> None:
        if len(refused) < 2:
            refused.append(worker.number)
            raise OSError(errno.ENOMEM, "no memory")
        await started(worker, command, message)

    async def run() -> None:
        async with serving(tmp_path, GOOD) as server:
            await server.until(lambda: server.blocked is None)
            monkeypatch.setattr(Worker, "start", start)
            os.kill(server.pids[1], signal.SIGKILL)
            await server.until(lambda: server.restarts == 1 and server.blocked is None)
            assert refused == [1, 1]

    asyncio.run(run())
