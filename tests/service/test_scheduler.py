"""Which graph runs next, and who is refused."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest
from tests.scheduling import LONG, Graph, Threads, batcher, calling, settle, start, submit

from handful_service.engine.scheduler import ALWAYS_WAITING, SHARES, STOOD_S, Kind, Scheduler
from handful_service.errors import DeadlineExceeded, Overloaded


class Endless:
    """A graph with work at any time, each batch of which takes some seconds by a clock of its own."""

    def __init__(self, kind: Kind, seconds: float, left: int = 10**6) -> None:
        self.kind, self.seconds, self.left = kind, seconds, left
        self.clock, self.listed, self.running, self.more_waiting = 0.0, False, 0, False
        self.served_s, self.crowded_since = 0.0, 0.0
        self.end: Callable[[], None] = lambda: None

    @property
    def waiting(self) -> int:
        return self.left

    @property
    def queued_s(self) -> float:
        return self.left * self.seconds

    def cost_s(self, rows: int) -> float:
        return rows * self.seconds

    def plan(self, short_s: float) -> float:
        return self.seconds

    def take(self) -> None:
        self.left -= 1

    def run_now(self, batch: None) -> float:
        self.served_s += self.seconds
        return self.seconds

    def run_in(self, executor: Any, batch: None, done: Callable[[float], None]) -> None:
        self.served_s += self.seconds
        self.end = lambda: done(self.seconds)


def served(graphs: list[Endless], total_s: float, runners: int = 1, inline_s: float = 0.005) -> list[float]:
    """The share of the time that each graph got, of some seconds in all, while all of them had work."""

    async def go() -> list[float]:
        scheduler = Scheduler(Threads(), runners, inline_s=inline_s)
        for graph in graphs:
            scheduler.wake(graph)
        while sum(graph.served_s for graph in graphs) < total_s:
            await asyncio.sleep(0)
            running = [graph for graph in graphs if graph.running]
            if running:
                min(running, key=lambda graph: graph.seconds).end()
        for graph in graphs:
            graph.left = 0
        return [graph.served_s / sum(other.served_s for other in graphs) for graph in graphs]

    return asyncio.run(go())


@pytest.mark.parametrize(("predict_s", "learn_s"), [(0.001, 0.00015), (0.0001, 0.00015), (0.0015, 0.0001)])
def test_of_the_loop_learning_gets_its_share_while_both_wait_and_predicting_the_rest(
    predict_s: float, learn_s: float
) -> None:
    found = served([Endless(Kind.PREDICT, predict_s), Endless(Kind.LEARN, learn_s)], 2)
    assert found == pytest.approx(SHARES, abs=0.02)


def test_long_runs_of_learning_have_threads_of_their_own() -> None:
    async def go() -> None:
        threads, others = Threads(), Threads()
        threads.shut = others.shut = True
        scheduler = Scheduler(threads, 2, learner=others)
        learns = [batcher(Graph(), scheduler, kind=Kind.LEARN) for _ in range(2)]
        predicts = [batcher(Graph(), scheduler) for _ in range(2)]
        calls = [start(submit(shared, ("one", 1))) for shared in (*learns, *predicts)]
        await settle()
        assert (len(threads.held), len(others.held)) == (2, 1)
        others.open()
        threads.open()
        await asyncio.gather(*calls)

    asyncio.run(go())


def test_what_is_short_for_a_prediction_is_long_for_learning() -> None:
    async def go() -> None:
        threads, others = Threads(), Threads()
        scheduler = Scheduler(threads, learner=others, inline_s=0.005)
        for seconds, kind, inside in (
            (0.004, Kind.PREDICT, 0), (0.004, Kind.LEARN, 1), (0.0004, Kind.LEARN, 0), (0.006, Kind.PREDICT, 1),
        ):  # fmt: skip
            shared = batcher(Graph(), scheduler, kind=kind, fixed_s=seconds)
            threads.shut = others.shut = True
            call = start(submit(shared, ("one", 1)))
            await settle()
            assert len(threads.held) + len(others.held) == inside
            threads.open()
            others.open()
            await call

    asyncio.run(go())


def test_while_several_wait_only_shorter_runs_hold_the_loop() -> None:
    async def go() -> None:
        threads = Threads()
        shared = batcher(Graph(), Scheduler(threads, inline_s=0.005), fixed_s=0.004, max_rows=1)
        threads.shut = True
        one = start(submit(shared, ("alone", 1)))
        await settle()
        assert not threads.held
        two = [start(submit(shared, (f"{place} of two", 1))) for place in range(2)]
        await settle()
        assert threads.held
        threads.open()
        await asyncio.gather(one, *two)

    asyncio.run(go())


@pytest.mark.parametrize(("seconds", "ahead"), [(0.004, True), (0.006, False)])
def test_a_run_that_is_not_too_long_follows_the_one_before_it_where_more_waits_than_it_takes(
    seconds: float, ahead: bool
) -> None:
    async def go() -> None:
        graph, threads = Graph(), Threads()
        shared = batcher(graph, Scheduler(threads, inline_s=0.005), max_rows=4, fixed_s=seconds)
        threads.shut = True
        calls = [start(submit(shared, (name, 4))) for name in ("first", "second")]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert graph.batches == [["first"]]
        calls.pop().cancel()
        await settle()
        calls += [start(submit(shared, (f"call {place}", 1))) for place in range(4)]
        await settle()
        assert graph.batches == [["first"]]  # a batch that may still grow waits
        calls += [start(submit(shared, (f"more {place}", 1))) for place in range(8)]
        await settle()
        assert graph.batches[1:] == ([[f"call {place}" for place in range(4)]] if ahead else [])
        threads.give()
        await settle()
        assert (
            graph.batches[1:] == [[f"{name} {place}" for place in range(4)] for name in ("call", "more")][: 1 + ahead]
        )
        threads.open()
        await asyncio.gather(*calls)
        assert len(graph.batches) == 4

    asyncio.run(go())


def test_graphs_of_a_kind_get_the_same_time_however_long_their_runs_are() -> None:
    found = served([Endless(Kind.PREDICT, seconds) for seconds in (0.01, 0.05, 0.2)], 60)
    assert found == pytest.approx([1 / 3] * 3, abs=0.02)


def test_what_comes_after_others_were_busy_for_long_neither_waits_for_them_nor_they_for_it() -> None:
    async def go() -> None:
        old, new = Endless(Kind.PREDICT, 0.1), Endless(Kind.PREDICT, 0.1, left=0)
        scheduler = Scheduler(Threads())
        scheduler.wake(old)

        async def run(batches: int) -> None:
            for _ in range(batches):
                await asyncio.sleep(0)
                (running,) = [graph for graph in (old, new) if graph.running]
                running.end()

        await run(100)
        new.left = 100
        scheduler.wake(new)
        await run(42)
        assert new.served_s == pytest.approx(2.1, abs=0.25)
        old.left = new.left = 0

    asyncio.run(go())


def test_of_several_runners_one_is_always_left_to_predictions() -> None:
    async def go() -> None:
        learns = [Endless(Kind.LEARN, 1) for _ in range(3)]
        predicts = Endless(Kind.PREDICT, 1)
        scheduler = Scheduler(Threads(), 2)
        for graph in learns:
            scheduler.wake(graph)
        await settle()
        assert sum(graph.running for graph in learns) == 1
        scheduler.wake(predicts)
        await settle()
        assert predicts.running
        next(graph for graph in learns if graph.running).end()
        await settle()
        assert sum(graph.running for graph in learns) == 1

    asyncio.run(go())


def test_short_runs_hold_the_loop_for_no_longer_than_one_may() -> None:
    async def go() -> None:
        graphs = [Endless(Kind.PREDICT, 0.002) for _ in range(5)]
        scheduler = Scheduler(Threads(), inline_s=0.005)
        for graph in graphs:
            scheduler.wake(graph)
        for turn in range(1, 20):
            await asyncio.sleep(0)
            assert sum(graph.served_s for graph in graphs) <= turn * 0.005
        assert min(graph.served_s for graph in graphs) > 0
        for graph in graphs:
            graph.left = 0

    asyncio.run(go())


def test_a_burst_of_one_tenant_does_not_keep_another_waiting() -> None:
    async def go() -> None:
        graph, threads = Graph(), Threads()
        shared = batcher(graph, Scheduler(threads), max_rows=64, max_queued_rows=10**6)
        threads.shut = True
        with calling("many"):
            burst = [start(submit(shared, *((f"{call}/{place}", 1) for place in range(100)))) for call in range(100)]
        await settle()
        with calling("one"):
            one = start(submit(shared, ("the one", 1)))
        await settle()
        threads.give()
        await settle()
        assert "the one" in graph.batches[1]
        threads.open()
        await asyncio.gather(one, *burst)

    asyncio.run(go())


def busy(max_queued_s: float, row_s: float, waiting: int) -> tuple[Threads, Any, list[Any]]:
    """A batcher with one item in a thread and others waiting, one row each."""
    threads = Threads()
    shared = batcher(Graph(), Scheduler(threads, max_queued_s=max_queued_s), row_s=row_s, max_queued_rows=10**6)
    threads.shut = True
    return threads, shared, [start(submit(shared, (str(number), 1))) for number in range(waiting + 4)]


def test_a_call_is_refused_where_more_work_waits_than_may_and_told_when_to_come_again() -> None:
    async def go() -> None:
        threads, shared, waiting = busy(max_queued_s=2.0, row_s=0.1, waiting=30)
        await settle()
        with calling(), pytest.raises(Overloaded, match="3000 ms of work") as refused:
            shared.submit(("late", 1), 1)
        assert refused.value.allowed == "at most 2000 ms"
        assert refused.value.retry_after_s == pytest.approx(3.0)
        threads.open()
        await asyncio.gather(*waiting)
        with calling():
            assert await submit(shared, ("later", 1)) == ["later"]

    asyncio.run(go())


def test_a_queue_that_does_not_empty_for_long_takes_a_tenth_of_what_a_burst_may_be() -> None:
    async def go() -> None:
        threads, shared, waiting = busy(max_queued_s=5.0, row_s=0.1, waiting=30)
        await settle()
        with calling():
            waiting.append(start(submit(shared, ("in a burst", 1))))
            await settle()
        await asyncio.sleep(STOOD_S + 0.01)
        with calling(), pytest.raises(Overloaded) as refused:
            shared.submit(("while it stands", 1), 1)
        assert refused.value.allowed == "at most 500 ms"
        threads.open()
        await asyncio.gather(*waiting)
        threads.shut = True
        waiting = [start(submit(shared, (str(number), 1))) for number in range(34)]
        await settle()
        with calling():
            waiting.append(start(submit(shared, ("in the next burst", 1))))
            await settle()
        threads.open()
        await asyncio.gather(*waiting)

    asyncio.run(go())


def test_a_few_calls_may_wait_however_long_their_runs_take_and_what_the_server_does_by_itself() -> None:
    async def go() -> None:
        threads, shared, waiting = busy(max_queued_s=0.001, row_s=10, waiting=ALWAYS_WAITING - 1)
        await settle()
        with calling():
            waiting.append(start(submit(shared, ("the last", 1))))
            await settle()
        with calling(), pytest.raises(Overloaded):
            shared.submit(("one too many", 1), 1)
        waiting.append(start(submit(shared, ("of the server", 1))))
        threads.open()
        await asyncio.gather(*waiting)

    asyncio.run(go())


def test_a_call_is_let_in_once_and_then_never_refused_for_the_time() -> None:
    async def go() -> None:
        threads, shared, waiting = busy(max_queued_s=2.0, row_s=0.1, waiting=10)
        await settle()
        with calling() as call:
            waiting.append(start(submit(shared, ("encode", 1))))
            await settle()
            assert call.admitted
            waiting += [start(submit(shared, (f"more {number}", 1))) for number in range(20)]
            await settle()
            waiting.append(start(submit(shared, ("predict", 1))))
            await settle()
        threads.open()
        await asyncio.gather(*waiting)

    asyncio.run(go())


def test_a_deadline_that_cannot_be_met_is_refused_at_once() -> None:
    async def go() -> None:
        threads, shared, waiting = busy(max_queued_s=100, row_s=0.1, waiting=30)
        await settle()
        with calling(deadline_s=time.monotonic() + 2.9), pytest.raises(DeadlineExceeded, match="3100 ms") as refused:
            shared.submit(("late", 1), 1)
        assert refused.value.field == "X-Deadline-Ms"
        with calling(deadline_s=time.monotonic() + 4):
            waiting.append(start(submit(shared, ("patient", 1))))
            await settle()
        threads.open()
        await asyncio.gather(*waiting)
        with calling(deadline_s=time.monotonic() + 0.5), pytest.raises(DeadlineExceeded):
            shared.submit(("long by itself", 6), 6)

    asyncio.run(go())


def test_the_wait_counts_what_others_have_waiting_but_not_all_of_it() -> None:
    async def go() -> None:
        threads = Threads()
        threads.shut = True
        scheduler = Scheduler(threads)
        large, small = (batcher(Graph(), scheduler, row_s=0.1, fixed_s=LONG, max_queued_rows=10**6) for _ in range(2))
        calls = [start(submit(large, (str(number), 1))) for number in range(100)]
        calls += [start(submit(small, (str(number), 1))) for number in range(5)]
        await settle()
        assert scheduler.wait_s(large) == pytest.approx(10.1, abs=0.5)
        assert scheduler.wait_s(small) == pytest.approx(1.0, abs=0.1)
        threads.open()
        await asyncio.gather(*calls)

    asyncio.run(go())
