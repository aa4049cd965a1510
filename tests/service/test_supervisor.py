"""Supervision, with workers that are cheap scripts."""

import asyncio
import errno
import os
import signal
import sys
import textwrap
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from handful_service.settings import Settings
from handful_service.workers.handing import Gate, Lane, listen
from handful_service.workers.supervisor import Supervisor
from handful_service.workers.worker import Worker

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
