"""Very many users, learning among predictions, overload: what is made of the figures, and users made by cloning."""

import asyncio
import json
import math
import random
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from loadtests import adapts, overload, users
from loadtests.client import Request, pool
from loadtests.cloning import clone, user_name
from loadtests.generating import Measured
from loadtests.holding import Figure, finish, held_table, missed, number, ratio, table
from loadtests.peers.bundles import USERS_WIDTH, decimals, queries, write_users
from loadtests.process import TENANT, Running, server
from loadtests.tree import cpu_s, descendants, pss_mb


def test_a_figure_is_reached_missed_or_not_known() -> None:
    held = [Figure("a", 1.0, 1.0), Figure("b", 2.0, 1.0, at_most=True), Figure("c", None, 1.0)]
    assert [one.reached for one in held] == [True, False, None]
    assert missed(held) == ["b: 2, at most 1"]
    lines = list(held_table(held))
    assert lines[2:] == [
        "| a | 1.00 | ≥ 1.00 | reached |",
        "| b | 2.00 | ≤ 1.00 | **not reached** |",
        "| c | not measured | ≥ 1.00 |  |",
    ]
    assert ratio(3.0, 2.0) == 1.5
    assert ratio(None, 2.0) is ratio(3.0, None) is ratio(3.0, 0.0) is None
    assert [number(value) for value in (1234.5, 12.34, 1.234)] == ["1,234", "12.3", "1.23"]


def test_a_page_says_what_was_run_and_is_written_with_its_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = {"command": "python -m x", "machine": "m", "processor": "p", "commit": "c", "started_at": "t"}
    out = tmp_path / "page"
    held = [Figure("a", 1.0, 2.0)]
    assert finish("Title", {**result, "load_average_at_start": 0.5}, ["part"], held, out) == 1
    text = out.with_suffix(".md").read_text(encoding="utf-8")
    assert "`python -m x`" in text
    assert "| a | 1.00 | ≥ 2.00 | **not reached** |" in text
    assert json.loads(out.with_suffix(".json").read_bytes())["held_to"][0]["reached"] is False
    assert "missed: a: 1, at least 2" in capsys.readouterr().err
    assert finish("Title", {**result, "load_average_at_start": 0.5}, [], [Figure("a", 2.0, 2.0)], None) == 0


def test_a_table_has_a_cell_for_every_column() -> None:
    rows = [{"what": "x", "rate": 1234.5, "failed": 0}, {"what": "y", "rate": None, "failed": 2}]
    lines = list(table(rows, {"what": "w", "rate": "r", "failed": "f"}))
    assert lines == ["| w | r | f |", "| --- | --- | --- |", "| x | 1,234 | 0 |", "| y | None | 2 |"]


def test_a_tree_has_the_children_of_children_and_their_cost() -> None:
    program = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]])"
    busy = "sum(range(3_000_000)); print('done', flush=True); import time; time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", program, busy], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"done\n"
            found = descendants(process.pid)
            assert len(found) == 2
            assert found[0] == process.pid
            assert cpu_s(process.pid) > cpu_s(found[1]) > 0
            assert pss_mb(process.pid) > pss_mb(found[1]) > 1
        finally:
            for pid in reversed(descendants(process.pid)):
                subprocess.run(["kill", str(pid)], check=False)
    assert descendants(process.pid) == [process.pid], "of a process that is gone nothing is found but itself"
    assert cpu_s(process.pid) == pss_mb(process.pid) == 0


def rate(requests_per_s: float, p99_ms: float) -> dict[str, float]:
    return {"requests_per_s": requests_per_s, "p99_ms": p99_ms}


def test_users_are_held_to_ratios_with_one_user_and_to_the_bytes_of_their_states() -> None:
    found = {"users": 100, "state_bytes": 5000, "bytes_a_user": 6000.0, "one": rate(1000, 4.0), "all": rate(950, 5.0)}
    stored = {"users": 1000, "slots": 100, "one": rate(1000, 4.0), "all": rate(500, 9.0)}
    held = users.held_to(found, stored)
    assert [one.value for one in held] == [0.95, 1.25, 1.2, 0.5]
    assert [one.reached for one in held] == [True, True, True, False]
    assert len(users.held_to(found, None)) == 3
    replaced = users.replacing(users=50, times=200)
    assert 0 < replaced["p50_us"] <= replaced["p99_us"]
    assert [one.asked for one in users.held_to(found, None, replaced)][3:] == [50.0]
    several = [{**rate(value, 1.0), "failed": 1} for value in (1.0, 5.0, 2.0)]
    assert users.medians(several) == {"requests_per_s": 2.0, "p99_ms": 1.0, "failed": 3}


async def _scores(running: Running, names: list[str]) -> list[Any]:
    row = decimals(queries(1, USERS_WIDTH)[0])
    body = json.dumps({"rows": [{"input": row, "adaptation": name} for name in names]}).encode()
    async with pool(running.url, most=1, key=running.key) as send:
        status, answer = await send.send(Request("predict", "POST", f"{users.PATH}/predict", body))
    assert status == 200, answer
    return list(json.loads(answer)["predictions"])


def test_clones_answer_as_their_originals_and_are_changed_alone(tmp_path: Path) -> None:
    """A server takes what was cloned as its own: it reads it, finds each at a revision of its own, and goes on."""
    state_bytes = write_users(tmp_path / "bundles")
    assert state_bytes == json.loads((tmp_path / "bundles/users/1/manifest.json").read_bytes())["state_bytes"]
    bundles, store = str(tmp_path / "bundles"), tmp_path / "handful.db"
    with server(bundles=bundles, key=True, home=tmp_path) as running:
        asyncio.run(users.make_originals(running, 3))
        before = asyncio.run(_scores(running, [user_name(user) for user in range(3)]))
    clone(store, TENANT, users.MODEL, originals=3, users=11)
    with pytest.raises(ValueError, match="11 adaptations"):
        clone(store, TENANT, users.MODEL, originals=3, users=20)
    with server(bundles=bundles, key=True, home=tmp_path) as running:
        asyncio.run(users.ask_each(running, 11))
        after = asyncio.run(_scores(running, [user_name(user) for user in range(11)]))
        asyncio.run(_replaced(running, user_name(10)))
        changed = asyncio.run(_scores(running, [user_name(1), user_name(10)]))
    assert [one["scores"] for one in after] == [before[user % 3]["scores"] for user in range(11)]
    assert len({one["revision"] for one in after}) == 11
    assert changed[0] == after[1]
    assert changed[1]["scores"] != after[10]["scores"]
    assert changed[1]["revision"] > max(one["revision"] for one in after)
    with sqlite3.connect(store) as connection:
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
        assert connection.execute("SELECT count(*) FROM examples").fetchone()[0] == 11 * users.EXAMPLES - 1
    connection.close()


async def _replaced(running: Running, name: str) -> None:
    body = json.dumps({"support": [{"input": [0.5] * USERS_WIDTH, "label": "label-7"}]}).encode()
    async with pool(running.url, most=1, key=running.key) as send:
        status, answer = await send.send(Request("adapt", "PUT", f"{users.PATH}/adaptations/{name}", body))
    assert status == 200, answer


def test_overload_counts_answers_by_what_became_of_them() -> None:
    seen, now = overload.Seen(seconds=2.0), time.perf_counter()
    for _ in range(4):
        seen.take(200, b"HTTP/1.1 200 OK", now - 1.0, now - 0.1)
    seen.take(503, b"HTTP/1.1 503 x\r\nRetry-After: 1", now - 1.0, now - 0.001)
    seen.take(503, b"HTTP/1.1 503 x\r\nX: 1", now - 1.0, now - 0.001)
    seen.take(0, b"", now, now)
    found = seen.figures()
    assert found["goodput_per_s"] == 2.0
    assert found["p50_ms"] == pytest.approx(1000, abs=100), "from the time at which it should have left"
    assert found["refused_p50_ms"] == pytest.approx(1, abs=100), "from the time at which it was sent"
    assert found["without_retry_after"] == 1
    assert found["statuses"] == {200: 4, 503: 2, 0: 1}
    assert overload.Seen(seconds=1.0).figures()["p99_ms"] is None


def overloaded(peak: float, goodput: float, statuses: dict[int, int]) -> dict[str, Any]:
    late = {"p50_ms": 1.0, "p99_ms": 20.0, "refused_p50_ms": 1.0, "refused_p99_ms": 4.0, "without_retry_after": 0}
    beyond = {"goodput_per_s": goodput, **late, "statuses": statuses}
    below = {**beyond, "p99_ms": 10.0, "refused_p50_ms": None, "refused_p99_ms": None, "statuses": {200: 9}}
    return {"peak_per_s": peak, "below": below, "beyond": beyond}


def test_overload_is_held_to_goodput_latency_and_the_right_refusals() -> None:
    runs = [overloaded(100.0, goodput, {200: 5, 503: 9}) for goodput in (95.0, 50.0, 92.0)]
    result: dict[str, Any] = {"runs": runs}
    for name in ("below", "beyond"):
        result[name] = overload.together([run[name] for run in runs])
    assert result["beyond"]["statuses"] == {200: 15, 503: 27}
    assert result["below"]["refused_p99_ms"] is None
    held = overload.held_to(result)
    assert [one.value for one in held] == [0.92, 2.0, 4.0, 0.0, 0.0]
    assert all(one.reached for one in held)
    result["beyond"]["statuses"] = {200: 15, 429: 2, 0: 1}
    assert [one.value for one in overload.held_to(result) if one.reached is False] == [3.0]


def test_a_deadline_goes_with_every_call_that_is_to_have_one() -> None:
    assert all(b"X-Deadline-Ms: 50" in request.wire("h", None) for request in overload.calls(50))
    plain = overload.calls(None)
    assert all(b"Deadline" not in request.wire("h", None) for request in plain)
    assert len({request.body for request in plain}) == overload.BODIES


def test_learning_is_held_to_one_and_the_same_names() -> None:
    names = list(adapts.one_by_one())
    run = {"requests_per_s": 1.0, "failed": 0}
    one = {name: {**run, "p50_ms": p50, "cpu_us": 10 * p50} for name, p50 in zip(names, (12.0, 2.6, 2.0), strict=True)}
    mixed = {"m": {"rate_per_s": 1.0, "without_ms": 2.0, "among_ms": 5.0, "failed": 0}}
    held = adapts.held_to(one, mixed)
    assert [one.value for one in held] == [12.0, 1.3, 1.3, 2.5]
    assert [one.reached for one in held] == [True, True, True, False]


def test_fresh_support_sets_differ_and_the_repeated_one_does_not() -> None:
    fresh, same, stored = (list(map(draw, map(random.Random, range(20)))) for draw in adapts.one_by_one().values())
    supports = [[json.dumps(json.loads(request.body)["support"]) for request in requests] for requests in (fresh, same)]
    assert [len(set(found)) for found in supports] == [20, 1]
    assert len(json.loads(supports[0][0])) == adapts.WAYS * adapts.SHOTS
    assert all(json.loads(request.body)["adaptation"] == "drawer-0" for request in stored)
    kinds = Counter(adapts.drawn_by(5, adapts.ADAPT_SHARE)(random.Random(seed)).kind for seed in range(1000))
    assert kinds["adapt"] / 1000 == pytest.approx(adapts.ADAPT_SHARE, abs=0.05)


def test_the_p99_of_predictions_leaves_adapts_out() -> None:
    run = Measured(seconds=1.0, latencies={"predict": [0.001] * 99 + [0.002], "adapt": [5.0] * 50})
    assert 1.0 <= adapts.predictions_p99(run) <= 2.0
    assert adapts.predictions_p99(Measured()) == math.inf
