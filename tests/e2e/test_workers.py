"""Two real workers that share a port: what a client, an operator and a signal see of them."""

import asyncio
import os
import re
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.postgres import Postgres
from tests.serving import Process, process
from tests.soak import QUERIES
from tests.tiny import Tiny, build
from tests.two import METRICS, MODEL, PREDICT, READY, TINY, Two, eventually, listening, pids, sample, support
from tests.wire import Answer, Connection, run

from handful_service.auth import append_key


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("bundles")
    build(root, TINY)
    return root


@pytest.fixture(scope="module")
def two(bundles: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Two]:
    folder = tmp_path_factory.mktemp("two")
    key = append_key(folder / "keys", "ann", "ann", "predict,adapt,admin")
    with process(folder, bundles, workers=2, keys=folder / "keys") as server:
        yield Two(server, folder / "keys", key)


def test_kept_connections_are_divided_evenly(two: Two) -> None:
    async def work(count: int) -> Counter[int]:
        connections = await two.connections(count)
        found = [await two.worker(one, f"even-{count}-{place}") for place, one in enumerate(connections)]
        for one in connections:
            one.close()
        return Counter(found)

    for count in (16, 64):
        assert run(work(count)) == {0: count // 2, 1: count // 2}


def test_ready_and_metrics_are_the_same_whichever_worker_answers(two: Two) -> None:
    async def work() -> None:
        ends = await two.one_each("same")
        ready = [(await one.call("GET", READY)).json() for one in ends]
        assert ready[0] == ready[1]
        assert list(ready[0]["bundles"]) == [f"{TINY.name}/1"]
        asked = {"inputs": QUERIES[:3], "support": support("a", "b", "c")}
        predicts = 'handful_requests_total{method="POST",route="/v1/models/{model}/predict",status="200"}'

        async def scrape(one: Connection) -> str:
            return (await two.ask(one, "GET", METRICS)).content.decode()

        def counted(text: str) -> float:
            return sum(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(predicts))

        before = counted(await scrape(ends[0]))
        for one in ends * 5:
            assert (await two.ask(one, "POST", PREDICT, asked)).status == 200
        for one in ends:
            text = await eventually(lambda one=one: scrape(one), lambda text: counted(text) >= before + 10)
            assert counted(text) == before + 10
            assert sample(text, "handful_batch_rows_sum") >= 10 * 3
            assert sample(text, "handful_workers_ready") == 2
            assert sample(text, "handful_worker_restarts_total") == 0
            assert sample(text, "handful_bundle") == 1
            assert not set(re.findall(r'[{,]([a-z_]+)="', text)) & {"pid", "worker", "tenant", "adaptation"}

    run(work())


def check_that_what_one_worker_writes_the_other_reads_at_once(two: Two) -> None:
    """Written through one, read through the other, and never an answer of before, deletions and new starts included."""

    async def work() -> None:
        ends = await two.one_each("writes")
        path, ask = f"{MODEL}/adaptations/shared", {"inputs": QUERIES[:1], "adaptation": "shared"}
        for number in range(40):
            writer, reader = ends[number % 2], ends[1 - number % 2]
            names = {f"{number}-{way}" for way in "abc"}
            put = (await two.ask(writer, "PUT", path, {"support": support(*sorted(names))})).json()
            read = await two.ask(reader, "POST", PREDICT, ask | {"options": {"min_revision": put["revision"]}})
            assert read.json()["predictions"][0]["revision"] == put["revision"]
            assert set(read.json()["predictions"][0]["scores"]) == names
            assert set((await two.ask(reader, "GET", path)).json()["labels"]) == names
            if number % 3 == 2:
                assert (await two.ask(reader, "DELETE", path)).status == 204
                assert (await two.ask(writer, "POST", PREDICT, ask)).status == 404
                assert (await two.ask(writer, "GET", path)).status == 404

    run(work())


def test_what_one_worker_writes_the_other_reads_at_once(two: Two) -> None:
    check_that_what_one_worker_writes_the_other_reads_at_once(two)


def test_nor_is_there_a_wait_with_postgresql(tmp_path: Path, bundles: Path, postgres: Postgres) -> None:
    with listening(tmp_path, bundles, store=postgres.create("two_workers")) as server:
        check_that_what_one_worker_writes_the_other_reads_at_once(Two(server, tmp_path, "none"))


def test_writers_of_both_workers_wait_for_each_other(two: Two) -> None:
    async def work() -> None:
        connections = await two.connections(8)

        async def write(place: int) -> list[int]:
            path = f"{MODEL}/adaptations/writer-{place}"
            answers = [await two.ask(connections[place], "PUT", path, {"support": support("a", "b", "c")})
                       for _ in range(25)]  # fmt: skip
            return [answer.status for answer in answers]

        for statuses in await asyncio.gather(*map(write, range(8))):
            assert statuses == [201] + [200] * 24

    run(work())


def test_a_changed_file_of_keys_reaches_every_worker(two: Two) -> None:
    async def work() -> None:
        ends = await two.one_each("keys")
        before = two.keys.read_text(encoding="utf-8")
        new = append_key(two.keys, "bob", "bob", "predict")
        for one in ends:
            await eventually(lambda one=one: two.ask(one, "GET", MODEL, key=new), lambda answer: answer.status == 200)
        two.keys.write_text(before, encoding="utf-8")
        for one in ends:
            await eventually(lambda one=one: two.ask(one, "GET", MODEL, key=new), lambda answer: answer.status == 401)

    run(work())


async def _calls(url: str, over: asyncio.Event, kept: bool, failures: list[str]) -> int:
    """Calls one after the other until it is over: over one connection, or each over a new one; how many there were."""
    made, connection = 0, await Connection.open(url)
    while not over.is_set():
        try:
            answer = await connection.call("POST", PREDICT, {"inputs": QUERIES[:1], "support": support("a", "b", "c")})
        except ConnectionError as error:
            failures.append(f"{'kept' if kept else 'new'}: {error}")
            return made
        made += 1
        if answer.status != 200:
            failures.append(answer.content.decode())
        if not kept:
            connection.close()
            connection = await Connection.open(url)
    connection.close()
    return made


def test_a_killed_worker_is_replaced_and_the_calls_of_the_other_go_on(tmp_path: Path, bundles: Path) -> None:
    async def work(server: Process) -> None:
        two = Two(server, tmp_path, "none")
        ends = await two.one_each("kill")
        for one in ends * 3:
            assert (await one.call("GET", MODEL)).status == 200
        dies = next(line["pid"] for line in server.log() if line["event"] == "worker started" and line["number"] == 0)
        survivor = ends[0] if await two.worker(ends[0], "which") == 1 else ends[1]
        over, failures = asyncio.Event(), list[str]()
        # The busy connections come after those of `ends`, by turns: every second one is the survivor's.
        load = [asyncio.create_task(_calls(server.url, over, False, failures)) for _ in range(4)]
        await asyncio.sleep(0.3)
        before = sample((await survivor.call("GET", METRICS)).content.decode(), "handful_requests_total")
        os.kill(dies, signal.SIGKILL)
        refused = await eventually(lambda: survivor.call("GET", READY), lambda answer: answer.status == 503)
        assert "1 of 2 workers" in refused.json()["detail"]
        text = (await survivor.call("GET", METRICS)).content.decode()
        assert sample(text, "handful_requests_total") >= before, "what the dead one counted stays"
        assert sample(text, "handful_workers_ready") == 1
        ready = await eventually(lambda: survivor.call("GET", READY), lambda answer: answer.status == 200)
        assert ready.json()["bundles"]
        over.set()
        made = sum(await asyncio.gather(*load))
        assert made > 20
        # A call that the dead worker had at that moment may be lost, at most one for each of the four; no other.
        assert len(failures) <= 4, failures
        assert all(failure.startswith("new: ") for failure in failures), failures
        text = (await survivor.call("GET", METRICS)).content.decode()
        assert sample(text, "handful_worker_restarts_total") == 1
        assert sample(text, "handful_workers_ready") == 2
        again = await two.connections(8)
        numbers = [await two.worker(one, f"again-{place}") for place, one in enumerate(again)]
        assert set(numbers) == {0, 1}, "the new worker gets connections, too"

    with listening(tmp_path, bundles) as server:
        run(work(server))
        ended = server.event("worker ended")
        assert (ended["number"], ended["by"], ended["level"]) == (0, "SIGKILL", "WARNING")


def test_a_worker_that_is_told_to_end_by_itself_finishes_its_calls_and_is_replaced(
    tmp_path: Path, bundles: Path
) -> None:
    async def work(server: Process) -> None:
        over, failures = asyncio.Event(), list[str]()
        load = [asyncio.create_task(_calls(server.url, over, False, failures)) for _ in range(4)]
        await asyncio.sleep(0.2)
        os.kill(next(line["pid"] for line in server.log() if line["event"] == "worker started"), signal.SIGTERM)
        await asyncio.to_thread(server.event, "worker ended")
        other = await Connection.open(server.url)
        await eventually(lambda: other.call("GET", READY), lambda answer: answer.status == 200)
        over.set()
        await asyncio.gather(*load)
        assert failures == []

    with listening(tmp_path, bundles, drain_ms=300) as server:
        run(work(server))


async def _until_refused(url: str, answered: list[int], broken: list[str]) -> None:
    """Calls over kept connections until none is taken any more; a connection that the server closes is made anew."""
    connection: Connection | None = None
    while True:
        if connection is None:
            try:
                connection = await Connection.open(url)
            except ConnectionError:
                return
        try:
            answer = await connection.call("POST", PREDICT, {"inputs": QUERIES[:1], "support": support("a", "b", "c")})
        except ConnectionError as error:
            broken.append(str(error))
            return
        answered.append(answer.status)
        if answer.closes:
            connection.close()
            connection = None


def test_a_drain_under_load_loses_no_call(tmp_path: Path, bundles: Path) -> None:
    async def work(server: Process) -> tuple[list[int], list[str]]:
        answered, broken = list[int](), list[str]()
        load = [asyncio.create_task(_until_refused(server.url, answered, broken)) for _ in range(16)]
        watching = await Connection.open(server.url)
        await asyncio.sleep(0.5)
        assert (await watching.call("GET", READY)).status == 200
        server.popen.send_signal(signal.SIGTERM)
        for _ in range(2):  # one for each worker, as the connections go by turns
            fresh = await Connection.open(server.url)
            refused = await eventually(
                lambda fresh=fresh: _anew(fresh, server.url), lambda answer: answer.status == 503
            )
            assert "shutting down" in refused.json()["detail"]
        await asyncio.gather(*load)
        return answered, broken

    with listening(tmp_path, bundles, drain_ms=1000) as server:
        workers = pids(server)
        answered, broken = run(work(server))
        assert server.exit_code() == 0
        assert (set(answered), broken) == ({200}, [])
        assert len(answered) > 100
        assert not any(Path(f"/proc/{pid}").exists() for pid in workers)


async def _anew(first: Connection, url: str) -> Answer:
    """What readiness says, over a connection that may have been closed since."""
    try:
        return await first.call("GET", READY)
    except ConnectionError:
        return await (await Connection.open(url)).call("GET", READY)


def test_an_invalid_bundle_ends_all_with_exit_code_1(tmp_path: Path) -> None:
    folder = build(tmp_path / "bundles", TINY)
    (folder / "card.md").write_text("changed", encoding="utf-8")
    with process(tmp_path, tmp_path / "bundles", ready=False, workers=2) as server:
        assert server.exit_code() == 1
        assert "card.md" in server.event("cannot start")["error"]
        events = [line["event"] for line in server.log()]
        assert "ready" not in events
        assert "worker ended" not in events, "it is not tried again"


def test_a_worker_with_other_bundles_gets_no_calls_and_makes_all_unready(tmp_path: Path) -> None:
    build(tmp_path / "bundles", TINY)

    async def work(server: Process) -> None:
        two = Two(server, tmp_path, "none")
        build(tmp_path / "bundles", Tiny(open_ways=4, version=2))
        os.kill(next(line["pid"] for line in server.log() if line["event"] == "worker started"), signal.SIGKILL)
        connection = await Connection.open(server.url)
        look = await eventually(
            lambda: connection.call("GET", READY), lambda answer: "different bundles" in answer.content.decode()
        )
        assert look.status == 503
        for _ in range(6):
            one = await Connection.open(server.url)
            assert [
                item["version"] for item in (await two.ask(one, "GET", f"{MODEL}/versions")).json()["versions"]
            ] == [1]

    with process(tmp_path, tmp_path / "bundles", workers=2) as server:
        run(work(server))


def test_workers_end_when_their_supervisor_is_killed(tmp_path: Path, bundles: Path) -> None:
    with listening(tmp_path, bundles) as server:
        workers = pids(server)
        assert len(workers) == 2
        server.popen.kill()
        assert server.exit_code() == -signal.SIGKILL
        until = time.monotonic() + 20
        while any(_lives(pid) for pid in workers):
            assert time.monotonic() < until
            time.sleep(0.02)


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_port_in_use_ends_with_exit_code_1(two: Two, tmp_path: Path, bundles: Path) -> None:
    port = two.server.url.rpartition(":")[2]
    with process(tmp_path, bundles, ready=False, workers=2, port=port) as server:
        assert server.exit_code() == 1
        assert "in use" in server.event("cannot listen")["error"]
