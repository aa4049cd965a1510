"""The work-conserving batcher."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.scheduling import LONG, Graph, Item, Threads, batcher, settle, start, submit

from handful_service.engine.batcher import BatchMismatch
from handful_service.engine.scheduler import Scheduler
from handful_service.errors import Overloaded


@given(st.lists(st.lists(st.integers(1, 4), max_size=5), max_size=12), st.integers(4, 9))
def test_everyone_gets_the_answers_of_their_own_items_in_order(calls: list[list[int]], max_rows: int) -> None:
    async def go() -> None:
        graph, threads = Graph(), Threads()
        shared = batcher(graph, Scheduler(threads), max_rows=max_rows, max_queued_rows=1000)
        items = [[(f"{call}/{place}", rows) for place, rows in enumerate(call_)] for call, call_ in enumerate(calls)]
        results = await asyncio.gather(*(submit(shared, *call) for call in items))
        assert results == [[name for name, _ in call] for call in items]
        rows = {name: count for call in items for name, count in call}
        assert all(sum(rows[name] for name in batch) <= max_rows for batch in graph.batches)
        assert sorted(name for batch in graph.batches for name in batch) == sorted(rows)

    asyncio.run(go())


def test_an_item_that_finds_the_runner_idle_starts_at_once_and_those_that_come_meanwhile_form_batches() -> None:
    async def go() -> None:
        graph, threads, sizes = Graph(), Threads(), []
        shared = batcher(graph, Scheduler(threads), on_batch=sizes.append)
        threads.shut = True
        waiting = [start(submit(shared, ("first", 1)))]
        await settle()
        assert graph.batches == [["first"]]
        for number in range(6):
            waiting.append(start(submit(shared, (f"item {number}", 1))))
            await settle()
        assert graph.batches == [["first"]]
        threads.open()
        assert await asyncio.gather(*waiting) == [["first"], *([f"item {number}"] for number in range(6))]
        assert [len(batch) for batch in graph.batches] == sizes == [1, 4, 2]

    asyncio.run(go())


def test_only_one_batch_of_a_graph_runs_at_a_time() -> None:
    async def go() -> None:
        graph, threads = Graph(), Threads()
        shared = batcher(graph, Scheduler(threads, 4))
        threads.shut = True
        calls = [start(submit(shared, (str(number), 3))) for number in range(5)]
        for done in range(5):
            await settle()
            assert len(graph.batches) == done + 1
            assert len(threads.held) == 1
            threads.give()
        assert await asyncio.gather(*calls) == [[str(number)] for number in range(5)]

    asyncio.run(go())


def test_a_call_beyond_the_queues_bound_is_refused_whole() -> None:
    async def go() -> None:
        graph, threads = Graph(), Threads()
        shared = batcher(graph, Scheduler(threads), max_queued_rows=3)
        threads.shut = True
        running = start(submit(shared, ("running", 1)))
        await settle()
        waiting = start(submit(shared, ("waiting", 2)))
        await settle()
        with pytest.raises(Overloaded, match="2 rows are waiting") as refused:
            await submit(shared, ("one", 1), ("too many", 1))
        assert refused.value.allowed == "at most 3"
        fitting = start(submit(shared, ("fitting", 1)))
        await settle()
        threads.open()
        assert await asyncio.gather(running, waiting, fitting) == [["running"], ["waiting"], ["fitting"]]
        assert graph.batches == [["running"], ["waiting", "fitting"]]

    asyncio.run(go())


def test_the_queue_is_empty_again_after_any_history_of_calls() -> None:
    async def go() -> None:
        graph, threads = Graph(), Threads()
        shared = batcher(graph, Scheduler(threads), max_queued_rows=4)
        for _ in range(10):
            threads.shut = True
            calls = [start(submit(shared, (str(number), 2))) for number in range(2)]
            await settle()
            calls += [start(submit(shared, (str(number), 1))) for number in range(4)]
            await settle()
            calls[3].cancel()
            await settle()
            threads.open()
            await asyncio.gather(*calls, return_exceptions=True)
        assert await submit(shared, *((str(number), 1) for number in range(4))) == ["0", "1", "2", "3"]
        assert shared._queue.rows == shared._queue.calls == 0

    asyncio.run(go())


def test_an_item_whose_caller_is_gone_is_dropped_before_its_batch() -> None:
    async def go() -> None:
        graph, threads = Graph(), Threads()
        shared = batcher(graph, Scheduler(threads))
        threads.shut = True
        first = start(submit(shared, ("first", 1)))
        await settle()
        gone, stays = start(submit(shared, ("gone", 4), ("gone, too", 1))), start(submit(shared, ("stays", 4)))
        await settle()
        gone.cancel()
        await settle()
        threads.open()
        assert await asyncio.gather(first, stays) == [["first"], ["stays"]]
        assert gone.cancelled()
        assert graph.batches == [["first"], ["stays"]]

    asyncio.run(go())


def test_a_caller_that_goes_while_its_batch_runs_takes_nothing_from_the_others() -> None:
    async def go() -> None:
        graph, threads = Graph(), Threads()
        shared = batcher(graph, Scheduler(threads))
        threads.shut = True
        gone, stays = start(submit(shared, ("gone", 1))), start(submit(shared, ("stays", 1)))
        await settle()
        assert graph.batches == [["gone", "stays"]]
        gone.cancel()
        await settle()
        threads.open()
        assert await stays == ["stays"]

    asyncio.run(go())


def failing(items: Sequence[Item]) -> list[str]:
    raise ValueError(f"{len(items)} items")


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (failing, ValueError),
        (lambda items: [name for name, _ in items][1:], BatchMismatch),
        (lambda items: [name for name, _ in items] * 2, BatchMismatch),
        (lambda items: [], BatchMismatch),
    ],
)
def test_a_batch_that_goes_wrong_fails_all_of_its_callers_and_none_of_the_next(
    answer: Callable[[Sequence[Item]], list[str]], error: type[Exception]
) -> None:
    async def go() -> None:
        graph, threads = Graph(), Threads()
        shared = batcher(graph, Scheduler(threads))
        graph.answer = answer
        failed = await asyncio.gather(*(submit(shared, (str(n), 1)) for n in range(3)), return_exceptions=True)
        assert [type(result) for result in failed] == [error] * 3
        graph.answer = Graph().answer
        assert await submit(shared, ("next", 1)) == ["next"]

    asyncio.run(go())


def test_an_observer_that_fails_leaves_no_one_waiting() -> None:
    async def go() -> None:
        for fixed_s in (0.0, LONG):
            shared = batcher(Graph(), Scheduler(Threads()), fixed_s=fixed_s, on_batch=lambda rows: 1 // 0)
            with pytest.raises(ZeroDivisionError):
                await asyncio.wait_for(submit(shared, ("a", 1)), 5)

    asyncio.run(go())


def test_threads_that_take_no_more_work_leave_no_one_waiting() -> None:
    async def go() -> None:
        threads = ThreadPoolExecutor(1)
        threads.shutdown()
        shared = batcher(Graph(), Scheduler(threads))
        for _ in range(2):
            with pytest.raises(RuntimeError, match="shutdown"):
                await asyncio.wait_for(submit(shared, ("a", 1)), 5)

    asyncio.run(go())


def test_short_batches_run_on_the_loop_and_long_ones_off_it_and_all_get_their_own() -> None:
    async def go() -> None:
        graph, threads = Graph(), Threads()
        shared = batcher(graph, Scheduler(threads, inline_s=0.002), row_s=0.001, fixed_s=0.0)
        threads.shut = True
        assert await submit(shared, ("a", 1)) == ["a"]
        long = start(submit(shared, ("b", 3)))
        await settle()
        assert graph.batches == [["a"], ["b"]]
        assert not long.done()
        threads.open()
        assert await asyncio.gather(long, submit(shared, ("c", 4)), submit(shared, ("d", 1))) == [["b"], ["c"], ["d"]]

    asyncio.run(go())


def test_a_short_run_never_holds_more_rows_on_the_loop_than_were_counted_though_callers_go() -> None:
    async def go() -> None:
        graph, threads = Graph(), Threads()
        shared = batcher(graph, Scheduler(threads, inline_s=0.002), row_s=0.001, fixed_s=0.0)
        threads.shut = True
        gone, large = start(submit(shared, ("gone", 1))), start(submit(shared, ("large", 4)))
        await asyncio.sleep(0)
        gone.cancel()
        await settle()
        assert graph.batches == [["large"]]
        assert len(threads.held) == 1
        threads.open()
        assert await large == ["large"]

    asyncio.run(go())


def test_between_two_short_batches_others_have_their_turn() -> None:
    async def go() -> None:
        seen: list[int] = []
        graph = Graph()
        shared = batcher(graph, Scheduler(Threads()), fixed_s=0.0, max_rows=1)

        async def watch() -> None:
            while len(graph.batches) < 5:
                seen.append(len(graph.batches))
                await asyncio.sleep(0)

        await asyncio.gather(watch(), *(submit(shared, (str(number), 1)) for number in range(5)))
        assert len(set(seen)) >= 4

    asyncio.run(go())


def test_a_short_batch_that_fails_fails_for_those_who_wait_and_no_one_else() -> None:
    async def go() -> None:
        def answer(items: Sequence[Item]) -> list[str]:
            if items[0][0] == "bad":
                raise ValueError("a graph")
            return [] if items[0][0] == "short" else [name for name, _ in items]

        graph = Graph()
        graph.answer = answer
        shared = batcher(graph, Scheduler(Threads()), fixed_s=0.0, max_rows=1)
        bad, short, good = await asyncio.gather(
            *(submit(shared, (name, 1)) for name in ("bad", "short", "good")), return_exceptions=True
        )
        assert isinstance(bad, ValueError)
        assert isinstance(short, BatchMismatch)
        assert good == ["good"]

    asyncio.run(go())
