"""The work-conserving batcher."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handful_service.engine.batcher import Batcher, BatchMismatch
from handful_service.errors import Overloaded

Item = tuple[str, int]  # a name, and its rows


class Runner:
    """Runs batches one after the other, each only when it is let; remembers them. The answer of an item is its name."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.open = asyncio.Event()
        self.open.set()
        self.answer: Callable[[Sequence[Item]], list[str]] = lambda items: [name for name, _ in items]

    async def __call__(self, items: Sequence[Item]) -> list[str]:
        self.batches.append([name for name, _ in items])
        await self.open.wait()
        return self.answer(items)


def batcher(run: Callable[[Sequence[Item]], Awaitable[list[str]]], **options: Any) -> Batcher[Item, str]:
    return Batcher(run, rows=lambda item: item[1], **{"max_rows": 4, "max_queued_rows": 100, **options})


async def settle() -> None:
    """Let everything run that can run."""
    for _ in range(20):
        await asyncio.sleep(0)


def start(coroutine: Coroutine[Any, Any, list[str]]) -> "asyncio.Task[list[str]]":
    return asyncio.get_running_loop().create_task(coroutine)


@given(st.lists(st.lists(st.integers(1, 4), max_size=5), max_size=12), st.integers(4, 9))
def test_everyone_gets_the_answers_of_their_own_items_in_order(calls: list[list[int]], max_rows: int) -> None:
    async def go() -> None:
        runner = Runner()
        shared = batcher(runner, max_rows=max_rows, max_queued_rows=1000)
        items = [[(f"{call}/{place}", rows) for place, rows in enumerate(call_)] for call, call_ in enumerate(calls)]
        results = await asyncio.gather(*(shared.submit(*call) for call in items))
        assert results == [[name for name, _ in call] for call in items]
        rows = {name: count for call in items for name, count in call}
        assert all(sum(rows[name] for name in batch) <= max_rows for batch in runner.batches)
        assert sorted(name for batch in runner.batches for name in batch) == sorted(rows)

    asyncio.run(go())


def test_an_item_that_finds_the_runner_idle_starts_at_once_and_those_that_come_meanwhile_form_batches() -> None:
    async def go() -> None:
        runner, sizes = Runner(), []
        shared = batcher(runner, on_batch=sizes.append)
        runner.open.clear()
        waiting = [start(shared.submit(("first", 1)))]
        await settle()
        assert runner.batches == [["first"]]
        for number in range(6):
            waiting.append(start(shared.submit((f"item {number}", 1))))
            await settle()
        assert runner.batches == [["first"]]
        runner.open.set()
        assert await asyncio.gather(*waiting) == [["first"], *([f"item {number}"] for number in range(6))]
        assert [len(batch) for batch in runner.batches] == sizes == [1, 4, 2]

    asyncio.run(go())


def test_only_one_batch_runs_at_a_time() -> None:
    async def go() -> None:
        at_work, most = 0, 0

        async def run(items: Sequence[Item]) -> list[str]:
            nonlocal at_work, most
            at_work += 1
            most = max(most, at_work)
            await settle()
            at_work -= 1
            return [name for name, _ in items]

        shared = batcher(run)
        await asyncio.gather(*(shared.submit((str(number), 3)) for number in range(5)))
        assert most == 1

    asyncio.run(go())


def test_a_call_beyond_the_queues_bound_is_refused_whole() -> None:
    async def go() -> None:
        runner = Runner()
        shared = batcher(runner, max_queued_rows=3)
        runner.open.clear()
        running = start(shared.submit(("running", 1)))
        await settle()
        waiting = start(shared.submit(("waiting", 2)))
        await settle()
        with pytest.raises(Overloaded, match="2 rows are waiting") as refused:
            await shared.submit(("one", 1), ("too many", 1))
        assert refused.value.allowed == "at most 3"
        fitting = start(shared.submit(("fitting", 1)))
        await settle()
        runner.open.set()
        assert await asyncio.gather(running, waiting, fitting) == [["running"], ["waiting"], ["fitting"]]
        assert runner.batches == [["running"], ["waiting", "fitting"]]

    asyncio.run(go())


def test_the_queue_is_empty_again_after_any_history_of_calls() -> None:
    async def go() -> None:
        runner = Runner()
        shared = batcher(runner, max_queued_rows=4)
        for _ in range(10):
            runner.open.clear()
            calls = [start(shared.submit((str(number), 2))) for number in range(2)]
            await settle()
            calls += [start(shared.submit((str(number), 1))) for number in range(4)]
            await settle()
            calls[3].cancel()
            await settle()
            runner.open.set()
            await asyncio.gather(*calls, return_exceptions=True)
        assert await shared.submit(*((str(number), 1) for number in range(4))) == ["0", "1", "2", "3"]
        assert shared._queued_rows == 0

    asyncio.run(go())


def test_an_item_whose_caller_is_gone_is_dropped_before_its_batch() -> None:
    async def go() -> None:
        runner = Runner()
        shared = batcher(runner)
        runner.open.clear()
        first = start(shared.submit(("first", 1)))
        await settle()
        gone, stays = start(shared.submit(("gone", 4), ("gone, too", 1))), start(shared.submit(("stays", 4)))
        await settle()
        gone.cancel()
        await settle()
        runner.open.set()
        assert await asyncio.gather(first, stays) == [["first"], ["stays"]]
        assert gone.cancelled()
        assert runner.batches == [["first"], ["stays"]]

    asyncio.run(go())


def test_a_caller_that_goes_while_its_batch_runs_takes_nothing_from_the_others() -> None:
    async def go() -> None:
        runner = Runner()
        shared = batcher(runner)
        runner.open.clear()
        gone, stays = start(shared.submit(("gone", 1))), start(shared.submit(("stays", 1)))
        await settle()
        assert runner.batches == [["gone", "stays"]]
        gone.cancel()
        await settle()
        runner.open.set()
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
        runner = Runner()
        shared = batcher(runner)
        runner.answer = answer
        failed = await asyncio.gather(*(shared.submit((str(n), 1)) for n in range(3)), return_exceptions=True)
        assert [type(result) for result in failed] == [error] * 3
        runner.answer = Runner().answer
        assert await shared.submit(("next", 1)) == ["next"]

    asyncio.run(go())


def test_an_observer_that_fails_leaves_no_one_waiting() -> None:
    async def go() -> None:
        shared = batcher(Runner(), on_batch=lambda rows: 1 // 0)
        with pytest.raises(ZeroDivisionError):
            await asyncio.wait_for(shared.submit(("a", 1)), 5)

    asyncio.run(go())


class OnLoop:
    """Runs batches at once; remembers them with the thread that ran them."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []

    def __call__(self, items: Sequence[Item]) -> list[str]:
        self.batches.append([name for name, _ in items])
        return [name for name, _ in items]


def test_short_batches_run_on_the_loop_and_long_ones_off_it_and_all_get_their_own() -> None:
    async def go() -> None:
        off, on = Runner(), OnLoop()
        shared = batcher(off, run_now=on, is_short=lambda rows: rows <= 2)
        assert await shared.submit(("a", 1)) == ["a"]
        assert await asyncio.gather(*(shared.submit((name, 1)) for name in "bcd")) == [["b"], ["c"], ["d"]]
        assert await asyncio.gather(shared.submit(("e", 4)), shared.submit(("f", 1))) == [["e"], ["f"]]
        assert (on.batches, off.batches) == ([["a"], ["f"]], [["b", "c", "d"], ["e"]])

    asyncio.run(go())


def test_between_two_short_batches_others_have_their_turn() -> None:
    async def go() -> None:
        seen: list[int] = []
        on = OnLoop()
        shared = batcher(Runner(), run_now=on, max_rows=1)

        async def watch() -> None:
            while len(on.batches) < 5:
                seen.append(len(on.batches))
                await asyncio.sleep(0)

        await asyncio.gather(watch(), *(shared.submit((str(number), 1)) for number in range(5)))
        assert len(set(seen)) >= 4

    asyncio.run(go())


def test_a_short_batch_that_fails_fails_for_those_who_wait_and_no_one_else() -> None:
    async def go() -> None:
        def fail(items: Sequence[Item]) -> list[str]:
            if items[0][0] == "bad":
                raise ValueError("a graph")
            return [] if items[0][0] == "short" else [name for name, _ in items]

        shared = batcher(Runner(), run_now=fail, max_rows=1)
        bad, short, good = await asyncio.gather(
            *(shared.submit((name, 1)) for name in ("bad", "short", "good")), return_exceptions=True
        )
        assert isinstance(bad, ValueError)
        assert isinstance(short, BatchMismatch)
        assert good == ["good"]

    asyncio.run(go())
