"""The load test itself: what it sends, what it measures, and what it refuses to pass."""

import asyncio
import json
import math
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from loadtests.client import Request, pool
from loadtests.generating import closed_loop, departures, open_loop, percentiles_ms
from loadtests.thresholds import missed
from loadtests.workloads import every
from tests.serving import ROOT

ASK = Request("predict", "POST", "/")


@given(st.lists(st.floats(1e-6, 10), min_size=1, max_size=300))
def test_a_percentile_is_a_latency_that_was_there_and_as_many_as_it_says_were_no_longer(seconds: list[float]) -> None:
    found = percentiles_ms(seconds)
    for q in (50, 95, 99):
        value = found[f"p{q}"]
        assert any(math.isclose(value, 1e3 * one, abs_tol=1e-3) for one in seconds)
        assert sum(1e3 * one <= value + 1e-3 for one in seconds) >= q / 100 * len(seconds)
    assert math.isclose(found["max"], 1e3 * max(seconds), abs_tol=1e-3)


def test_departures_come_at_the_rate_on_average_and_the_same_seed_gives_the_same() -> None:
    one, other = (list(departures(random.Random(7), 100, 50)) for _ in range(2))
    assert one == other == sorted(one)
    assert one != list(departures(random.Random(8), 100, 50))
    assert len(one) == pytest.approx(5000, rel=0.1)


def test_a_server_that_stalls_is_charged_for_everyone_who_should_have_been_sent_meanwhile() -> None:
    """One at a time, and the first takes 0.5 s: the calls behind it took 1 ms each, but were not answered sooner."""
    turn = None

    async def send(request: Request) -> tuple[int, bytes]:
        nonlocal turn
        turn = turn or asyncio.Lock()
        async with turn:
            await asyncio.sleep(0.5 if not seen else 0.001)
            seen.append(time.perf_counter())
        return 200, b""

    seen: list[float] = []
    opened = asyncio.run(open_loop(send, lambda rng: ASK, rate=100, seconds=0.5, seed=1))
    late = opened.latencies["predict"]
    assert len(late) == len(seen) > 25
    assert sum(seconds > 0.2 for seconds in late) > len(late) / 3
    turn, seen = None, []
    closed = asyncio.run(closed_loop(send, lambda rng: ASK, connections=1, seconds=1.0, seed=1))
    assert sum(seconds > 0.2 for seconds in closed.latencies["predict"]) == 1, "the closed loop does not see it"


def test_calls_that_fail_are_counted_by_status_and_their_latency_counts_nowhere() -> None:
    async def send(request: Request) -> tuple[int, bytes]:
        return 503, b""

    async def hardly(request: Request) -> tuple[int, bytes]:
        await asyncio.sleep(0.01)
        return 0, b""

    opened = asyncio.run(open_loop(send, lambda rng: ASK, rate=200, seconds=0.2, seed=1))
    assert opened.answered == 0
    assert set(opened.statuses) == {503}
    assert opened.as_dict()["latency_ms"] == {}
    assert asyncio.run(closed_loop(hardly, lambda rng: ASK, connections=2, seconds=0.1, seed=1)).statuses[0] > 2


@pytest.mark.parametrize("work", every(50), ids=lambda work: work.name)
def test_a_workload_is_the_same_for_the_same_seed(work: Any) -> None:
    draws = [[work.draw(rng) for _ in range(20)] for rng in (random.Random(3), random.Random(3), random.Random(4))]
    assert draws[0] == draws[1] != draws[2] or work.name == "drawings"
    for request in draws[0]:
        assert request.path.startswith("/v1/models/")
        if request.content_type == "application/json":
            json.loads(request.body)


def test_the_workloads_ask_for_the_users_that_they_are_named_after() -> None:
    works = {work.name: work for work in every(50)}

    def users(name: str) -> Counter[str]:
        rng = random.Random(0)
        return Counter(json.loads(works[name].draw(rng).body)["adaptation"] for _ in range(2000))

    assert set(users("one user")) == {"user-0"}
    uniform, zipf = users("uniform users"), users("zipf users")
    assert len(uniform) == 50
    assert max(uniform.values()) < 3 * min(uniform.values())
    assert zipf["user-0"] > zipf["user-9"] > zipf["user-49"] > 0
    assert zipf["user-0"] == pytest.approx(2**1.1 * zipf["user-1"], rel=0.3)
    mixed = Counter(works["adapts among predictions"].draw(random.Random(seed)).kind for seed in range(500))
    assert mixed["adapt"] / 500 == pytest.approx(0.2, abs=0.06)
    rows = json.loads(works["mixed rows"].draw(random.Random(0)).body)["rows"]
    assert len({row["adaptation"] for row in rows}) > 8


def run_of(rate: float, p99: float, failed: Mapping[int, int] | None = None) -> dict[str, Any]:
    return {"requests_per_s": rate, "failed": failed or {}, "latency_ms": {"p99": p99}}


def found(rate: float, p99: float, beside: str | None, *, cpu_us: float = 100.0, **more: Any) -> dict[str, Any]:
    closed = {**run_of(rate, p99), "cpu_us_per_request": cpu_us}
    return {"closed": closed, "open": {**run_of(rate / 2, p99), **more}, "beside": beside}


def test_thresholds_are_missed_by_failures_by_latency_and_by_ratios_and_by_nothing_else() -> None:
    mixed = {"predict": {"p99": 30.0}, "adapt": {"p99": 200.0}}
    good = {
        "base": found(1000, 10, None),
        "base, bytes": found(980, 10, "base", cpu_us=105),
        "one user": found(1000, 10, None),
        "uniform users": found(900, 10, "one user"),
        "adapts among predictions": found(300, 100, "uniform users", latency_ms_by_kind=mixed),
    }
    assert list(missed(good)) == []
    assert len(list(missed({**good, "uniform users": found(700, 10, "one user")}))) == 1
    assert len(list(missed({**good, "one user": found(1000, 10_000, None)}))) == 1
    assert len(list(missed({**good, "base, bytes": found(1000, 10, "base", cpu_us=115)}))) == 1
    assert len(list(missed({**good, "base, bytes": found(900, 10, "base")}))) == 1
    worse = {**mixed, "predict": {"p99": 100.0}}
    slow = found(300, 100, "uniform users", latency_ms_by_kind=worse)
    assert len(list(missed({**good, "adapts among predictions": slow}))) == 1
    for loop in ("closed", "open"):
        broken = found(1000, 10, None)
        broken[loop]["failed"] = {503: 1}
        assert len(list(missed({**good, "one user": broken}))) == 1
    nothing = found(0, 10, None)
    nothing["open"]["latency_ms"] = {}
    assert list(missed({"one user": nothing}))


async def _served_by(handle: Any, ask: Any) -> Any:
    at_work: list[asyncio.Task[None]] = []

    async def tracked(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        at_work.append(task)
        await handle(reader, writer)
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(tracked, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        async with pool(f"http://127.0.0.1:{port}", most=2, key="k") as send:
            answers = await ask(send)
        await asyncio.gather(*at_work)
    return answers


def test_the_client_reads_answers_in_pieces_and_sends_its_key() -> None:
    heads: list[bytes] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await next_head(reader):
            heads.append(head)
            for piece in (b"HTTP/1.1 200 OK\r\nContent-", b"Length: 4\r\n\r", b"\nab", b"cd"):
                writer.write(piece)
                await asyncio.sleep(0.01)

    answers = asyncio.run(_served_by(handle, three))
    assert answers == [(200, b"abcd")] * 3
    assert all(b"Authorization: Bearer k" in head for head in heads)


def test_a_call_over_a_kept_connection_that_breaks_is_sent_once_more_and_one_over_a_new_one_is_not() -> None:
    opened = 0

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal opened
        opened += 1
        if opened < 3:  # answers once, and hangs up on the second call; the third connection answers nothing
            await next_head(reader)
            writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        await next_head(reader)

    answers = asyncio.run(_served_by(handle, three))
    assert [status for status, _ in answers] == [204, 204, 0]
    assert opened == 3


async def three(send: Any) -> list[tuple[int, bytes]]:
    return [await send.send(Request("predict", "GET", "/x")) for _ in range(3)]


async def next_head(reader: asyncio.StreamReader) -> bytes:
    """The head of the next call; empty where the client has hung up."""
    try:
        return await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return b""


def test_a_short_run_against_a_real_server_writes_figures_and_a_chart(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "loadtests.load", "--users", "3", "--seconds", "0.3", "--json", "load.json"]
    names = ["base", "zipf users", "mixed rows"]
    command += [part for name in names for part in ("--only", name)] + ["--chart", "load.png", "--page", "load.md"]
    files = [str(tmp_path / part) if part.startswith("load.") else part for part in command]
    ended = subprocess.run(files, cwd=ROOT, capture_output=True, text=True, check=False, timeout=100)
    result = json.loads((tmp_path / "load.json").read_bytes())
    assert ended.returncode == (1 if result["missed"] else 0), ended.stderr
    assert list(result["workloads"]) == names
    for measured in result["workloads"].values():
        for loop in ("closed", "open"):
            assert measured[loop]["failed"] == {}
            assert measured[loop]["requests"] > 0
        assert measured["closed"]["cpu_us_per_request"] > 0
    assert (tmp_path / "load.png").read_bytes().startswith(b"\x89PNG")
    page = (tmp_path / "load.md").read_text(encoding="utf-8")
    assert all(f"| {name} |" in ended.stdout and f"| {name} |" in page for name in names)
    assert "![load.png](load.png)" in page
    assert ("missed:" in ended.stderr) is ("Thresholds that are missed:" in page)
