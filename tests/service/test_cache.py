"""Task states in slots."""

import asyncio
from collections.abc import AsyncIterator, Hashable
from contextlib import AsyncExitStack, asynccontextmanager

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from handful_service.bundle.parts import TensorSpec
from handful_service.cache import Held, Load, StateCache
from handful_service.engine.slots import SlotTables
from handful_service.errors import Overloaded
from handful_service.task import Labels, TaskState


def cache(capacity: int) -> tuple[StateCache, SlotTables]:
    tables = SlotTables({"v": TensorSpec(dtype="float32", axes=(2,))}, capacity)
    return StateCache(tables), tables


def state(number: float) -> TaskState:
    return TaskState({"v": np.full(2, number, np.float32)}, Labels((str(number),)), number)


def load(number: float, loads: list[float] | None = None) -> Load:
    async def loading() -> TaskState:
        if loads is not None:
            loads.append(number)
        return state(number)

    return loading


def held_by(tables: SlotTables, held: Held) -> float:
    return float(tables.gather([held.slot])["v"][0, 0])


@asynccontextmanager
async def pinned(states: StateCache, key: Hashable, how: Load) -> AsyncIterator[Held]:
    with states.pins() as pins:
        yield await pins.pin(key, how)


@asynccontextmanager
async def borrowed(states: StateCache, of: TaskState) -> AsyncIterator[Held]:
    with states.pins() as pins:
        yield pins.borrow(of)


async def use(states: StateCache, key: Hashable, how: Load) -> Held:
    async with pinned(states, key, how) as held:
        return held


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


def test_many_who_ask_at_once_cause_one_load_and_later_ones_none() -> None:
    async def go() -> None:
        states, tables = cache(3)
        loads: list[float] = []
        found = await asyncio.gather(*(use(states, "a", load(7, loads)) for _ in range(10)))
        found.append(await use(states, "a", load(7, loads)))
        assert loads == [7]
        assert {held.slot for held in found} == {found[0].slot}
        assert (held_by(tables, found[0]), found[0].labels, found[0].shots) == (7, Labels(("7",)), 7)

    asyncio.run(go())


def test_the_least_recently_used_goes_first() -> None:
    async def go() -> None:
        states, _ = cache(3)
        loads: list[float] = []
        for number in (1, 2, 3, 1, 4, 1, 3, 2):
            await use(states, number, load(number, loads))
        assert loads == [1, 2, 3, 4, 2]  # 4 took the slot of 2

    asyncio.run(go())


def test_a_pinned_state_is_never_evicted_and_with_all_pinned_a_call_is_refused() -> None:
    async def go() -> None:
        states, tables = cache(2)
        async with pinned(states, "a", load(1)) as first:
            for number in range(10, 20):
                await use(states, number, load(number))
            assert held_by(tables, first) == 1
            async with pinned(states, "a", load(99)) as again, borrowed(states, state(5)) as other:
                assert (again.slot, held_by(tables, other)) == (first.slot, 5)
                with pytest.raises(Overloaded, match="all 2 slots"):
                    await use(states, "b", load(2))
                with pytest.raises(Overloaded, match="all 2 slots"):
                    async with borrowed(states, state(6)):
                        pass
        assert held_by(tables, await use(states, "b", load(2))) == 2

    asyncio.run(go())


def test_another_revision_is_another_state_even_while_the_old_one_is_in_use() -> None:
    async def go() -> None:
        states, tables = cache(3)
        async with pinned(states, ("a", 1), load(1)) as old:
            async with pinned(states, ("a", 2), load(2)) as new:
                assert (held_by(tables, old), held_by(tables, new)) == (1, 2)
            assert held_by(tables, old) == 1

    asyncio.run(go())


def test_a_slot_that_is_used_again_holds_the_new_state_alone() -> None:
    async def go() -> None:
        states, tables = cache(1)
        for number in range(5):
            held = await use(states, number, load(number))
            assert (held.slot, held_by(tables, held), held.shots) == (0, number, number)

    asyncio.run(go())


def test_a_load_that_fails_is_told_to_all_who_wait_and_tried_again_by_the_next() -> None:
    async def go() -> None:
        states, tables = cache(2)

        async def failing() -> TaskState:
            raise ValueError("no such state")

        results = await asyncio.gather(*(use(states, "a", failing) for _ in range(3)), return_exceptions=True)
        assert [type(result) for result in results] == [ValueError] * 3
        assert held_by(tables, await use(states, "a", load(4))) == 4

    asyncio.run(go())


@pytest.mark.parametrize("leaving", [[0], [1], [0, 2], [0, 1, 2]])
def test_one_who_goes_away_takes_the_load_from_no_one(leaving: list[int]) -> None:
    async def go() -> None:
        states, tables = cache(2)
        gate, loads = asyncio.Event(), []

        async def slow() -> TaskState:
            loads.append(1)
            await gate.wait()
            return state(1)

        waiting = [asyncio.create_task(use(states, "a", slow)) for _ in range(3)]
        await settle()
        for number in leaving:
            waiting[number].cancel()
        await settle()
        gate.set()
        results = await asyncio.gather(*waiting, return_exceptions=True)
        left = [result for result in results if isinstance(result, Held)]
        assert [held_by(tables, held) for held in left] == [1] * (3 - len(leaving))
        assert all(held.pins == 0 for held in left)
        assert loads == [1]

    asyncio.run(go())


def test_a_state_of_the_wrong_shape_costs_no_slot() -> None:
    async def go() -> None:
        states, tables = cache(1)
        for _ in range(3):
            with pytest.raises(ValueError, match="broadcast"):
                async with borrowed(states, TaskState({"v": np.zeros(5)}, Labels(()), 0)):
                    pass
        assert held_by(tables, await use(states, "a", load(1))) == 1

    asyncio.run(go())


class Failed(Exception):
    """Raised inside a block."""


@given(st.lists(st.tuples(st.sampled_from(["use", "borrow", "fail", "pin", "unpin"]), st.integers(0, 5)), max_size=40))
def test_after_any_history_every_key_has_its_own_state(steps: list[tuple[str, int]]) -> None:
    async def go() -> None:
        states, tables = cache(4)
        pins: dict[int, tuple[AsyncExitStack, Held]] = {}
        for what, number in steps:
            if what == "unpin" and number in pins:
                await pins.pop(number)[0].aclose()
            elif what == "pin" and number not in pins and len(pins) < 3:
                stack = AsyncExitStack()
                pins[number] = (stack, await stack.enter_async_context(pinned(states, number, load(number))))
            elif what == "borrow":
                async with borrowed(states, state(100 + number)) as held:
                    assert held_by(tables, held) == 100 + number
            elif what == "fail":
                with pytest.raises(Failed):
                    async with pinned(states, number, load(number)):
                        raise Failed
            else:
                assert held_by(tables, await use(states, number, load(number))) == number
            assert [held_by(tables, held) for _, held in pins.values()] == list(pins)
            assert len(states) <= 4
        for stack, _ in pins.values():
            await stack.aclose()
        async with AsyncExitStack() as stack:  # nothing leaked: all slots can be in use at once
            found = [await stack.enter_async_context(borrowed(states, state(n))) for n in range(4)]
            assert [held_by(tables, held) for held in found] == [0, 1, 2, 3]

    asyncio.run(go())
