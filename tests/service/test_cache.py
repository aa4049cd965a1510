"""Task states in slots."""

import asyncio
import mmap
from collections.abc import AsyncIterator, Hashable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from handful_service.bundle.parts import TensorSpec
from handful_service.cache import MIN_SLOTS, Budget, Held, Load, Pins, StateCache
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
async def pinned(states: StateCache, key: Hashable, how: Load, revision: int = 0) -> AsyncIterator[Held]:
    with states.pins() as pins:
        yield await pins.pin(key, how, revision)


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
        async with pinned(states, "a", load(1), 1) as old:
            async with pinned(states, "a", load(2), 2) as new:
                assert (held_by(tables, old), held_by(tables, new)) == (1, 2)
            assert held_by(tables, old) == 1

    asyncio.run(go())


def test_of_a_key_the_newest_revision_stays_and_an_older_one_is_given_its_own_slot_for_a_while() -> None:
    async def go() -> None:
        states, tables = cache(2)
        async with pinned(states, "a", load(1), 1) as first:
            with states.pins() as pins:
                newest = pins.hold("a", state(2), 2)
                assert pins.newest("a") is pins.find("a", 2) is newest
                assert (newest.revision, held_by(tables, newest), held_by(tables, first)) == (2, 2, 1)
                assert pins.find("a", 1) is pins.find("a") is pins.newest("b") is None
        with states.pins() as pins:
            older = pins.hold("a", state(1), 1)
            assert (older.revision, held_by(tables, older)) == (1, 1)
            kept = pins.newest("a")
            assert kept is newest
            assert held_by(tables, kept) == 2
            with pytest.raises(Overloaded, match="all 2 slots"):
                pins.borrow(state(5))
        loads: list[float] = []
        async with pinned(states, "a", load(9, loads), 2) as again, borrowed(states, state(5)) as other:
            assert (again, held_by(tables, other), loads) == (newest, 5, [])
        assert len(states) == 1

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


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.sampled_from(["hold", "pin", "unpin"])), max_size=60)
)
def test_after_any_history_a_revision_has_its_own_state(steps: list[tuple[int, int, str]]) -> None:
    states, tables = cache(8)
    kept: list[tuple[float, Held, Pins]] = []
    for key, revision, what in steps:
        if what == "unpin":
            if kept:
                kept.pop(revision % len(kept))[2].release()
            continue
        pins, number = states.pins(), 10.0 * key + revision
        held = pins.find(key, revision) or pins.hold(key, state(number), revision)
        assert (held.revision, held_by(tables, held)) == (revision, number)
        newest = pins.newest(key)
        assert newest is not None
        assert newest.revision >= revision
        assert held_by(tables, newest) == 10.0 * key + newest.revision
        if what == "pin" and len(kept) < 3:
            kept.append((number, held, pins))
        else:
            pins.release()
        assert [held_by(tables, one) for _, one, _ in kept] == [number for number, _, _ in kept]
    for _, _, pins in kept:
        pins.release()
    with states.pins() as pins:  # nothing leaked: all slots can be in use at once
        assert [held_by(tables, pins.borrow(state(n))) for n in range(8)] == list(range(8))


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


LARGER = 2 * MIN_SLOTS
"""Slots that a shared budget has in these tests."""


def sharing(
    count: int, *, slots: int = LARGER, widths: Sequence[int] = (2,)
) -> tuple[list[StateCache], list[SlotTables]]:
    """Caches that share a budget of some slots of the first width."""
    budget = Budget(slots * widths[0] * 4)
    tables = [
        SlotTables({"v": TensorSpec(dtype="float32", axes=(widths[at % len(widths)],))}, slots) for at in range(count)
    ]
    return [StateCache(one, budget, 4 * widths[at % len(widths)]) for at, one in enumerate(tables)], tables


def fill(states: StateCache, keys: Iterable[int], width: int = 2) -> None:
    for number in keys:
        with states.pins() as pins:
            of = TaskState({"v": np.full(width, number, np.float32)}, Labels(()), 0)
            pins.hold(number, of)


def known(states: StateCache, tables: SlotTables, keys: Iterable[int]) -> list[int]:
    """The keys that are there, each of which must have its own state."""
    found = []
    for number in keys:
        with states.pins() as pins:
            held = pins.find(number)
            if held is not None:
                assert held_by(tables, held) == number
                found.append(number)
    return found


def test_a_cache_that_is_alone_in_use_has_the_whole_budget() -> None:
    (busy, idle), (tables, _) = sharing(2)
    fill(busy, range(LARGER))
    assert known(busy, tables, range(LARGER)) == list(range(LARGER))
    fill(busy, [LARGER])
    assert known(busy, tables, range(LARGER + 1)) == list(range(1, LARGER + 1))
    assert idle.slots == 0


def test_a_slot_comes_from_whatever_was_not_used_for_the_longest_time() -> None:
    (first, second), (of_first, of_second) = sharing(2)
    fill(first, range(LARGER))
    fill(second, range(MIN_SLOTS))  # which it has in any case
    fill(first, [LARGER])
    assert (first.slots, second.slots) == (MIN_SLOTS, MIN_SLOTS)
    assert known(first, of_first, range(LARGER + 1)) == list(range(MIN_SLOTS + 1, LARGER + 1))
    fill(second, range(MIN_SLOTS, LARGER))
    assert (first.slots, second.slots) == (MIN_SLOTS, MIN_SLOTS), "neither gives up what it has at least"
    assert known(second, of_second, range(LARGER)) == list(range(MIN_SLOTS, LARGER))


def test_what_is_used_often_stays_and_what_is_in_use_is_neither_given_up_nor_moved() -> None:
    (first, second), (of_first, of_second) = sharing(2, slots=4 * MIN_SLOTS)
    fill(first, range(3 * MIN_SLOTS))
    with first.pins() as pins:
        last = pins.find(3 * MIN_SLOTS - 1)
        assert last is not None
        slot = last.slot
        fill(second, range(2 * MIN_SLOTS))
        assert (last.slot, held_by(of_first, last)) == (slot, 3 * MIN_SLOTS - 1)
    assert first.slots == 3 * MIN_SLOTS, "the last slot stood in the way"
    assert second.slots == MIN_SLOTS
    fill(second, range(1000, 1000 + MIN_SLOTS))
    assert (first.slots, second.slots) == (2 * MIN_SLOTS, 2 * MIN_SLOTS)
    assert known(first, of_first, range(3 * MIN_SLOTS)) == list(range(MIN_SLOTS, 3 * MIN_SLOTS))
    assert len(known(second, of_second, [*range(2 * MIN_SLOTS), *range(1000, 1000 + MIN_SLOTS)])) == 2 * MIN_SLOTS


def test_a_large_state_takes_the_place_of_many_small_ones() -> None:
    (small, large), (of_small, of_large) = sharing(2, slots=100 * MIN_SLOTS, widths=(2, 40))
    fill(small, range(100 * MIN_SLOTS))
    for _ in range(40):  # a part each time
        fill(large, range(MIN_SLOTS + 10), width=40)
    assert known(large, of_large, range(MIN_SLOTS + 10)) == list(range(MIN_SLOTS + 10))
    assert 2 * small.slots + 40 * large.slots <= 200 * MIN_SLOTS
    assert known(small, of_small, range(100 * MIN_SLOTS)) == list(range(100 * MIN_SLOTS - small.slots, 100 * MIN_SLOTS))


@given(
    st.lists(
        st.tuples(
            st.integers(0, 2), st.sampled_from(["use", "use", "use", "pin", "unpin", "borrow"]), st.integers(0, 400)
        ),
        max_size=300,
    ),
    st.integers(0, 2**31),
)
def test_after_any_history_caches_that_share_have_their_own_states_within_the_budget(
    steps: list[tuple[int, str, int]], seed: int
) -> None:
    caches, tables = sharing(3, slots=3 * MIN_SLOTS + 20, widths=(2, 2, 2))
    for at in np.random.default_rng(seed).integers(0, 3, 10):  # so that the budget is in use
        fill(caches[at], range(1000, 1000 + 3 * MIN_SLOTS))
    pinned_by: list[tuple[int, int, Held, Pins]] = []
    for at, what, number in steps:
        if what == "unpin" and pinned_by:
            pinned_by.pop(number % len(pinned_by))[3].release()
            continue
        pins = caches[at].pins()
        of = TaskState({"v": np.full(2, number, np.float32)}, Labels(()), 0)
        held = pins.borrow(of) if what == "borrow" else pins.hold(number, of)
        assert held_by(tables[at], held) == number
        if what == "pin" and len(pinned_by) < 20:
            pinned_by.append((at, number, held, pins))
        else:
            pins.release()
        for other, key, one, _ in pinned_by:
            assert held_by(tables[other], one) == key
        assert pinned_by or sum(cache.slots for cache in caches) <= 3 * MIN_SLOTS + 20
    for _, _, _, pins in pinned_by:
        pins.release()
    for cache_ in caches:
        fill(cache_, range(2000, 2010))
    assert sum(cache.slots for cache in caches) <= 3 * MIN_SLOTS + 20
    for at, cache_ in enumerate(caches):
        known(cache_, tables[at], range(1000 + 3 * MIN_SLOTS))


def test_memory_behind_the_slots_in_use_is_given_back() -> None:
    width = 2**16
    tables = SlotTables({"v": TensorSpec(dtype="float32", axes=(width,)), "w": TensorSpec(dtype="int64", axes=())}, 300)
    for number in range(200):
        tables.write(tables.add(), {"v": np.full(width, number, np.float32), "w": np.array(number)})
    before = resident_bytes()
    for _ in range(150):
        tables.drop()
    assert before - resident_bytes() > 120 * 4 * width
    found = tables.gather(range(50))
    assert found["w"].tolist() == list(range(50))
    assert found["v"][:, 0].tolist() == found["v"][:, -1].tolist() == list(range(50))
    assert tables.add() == 50
    tables.write(50, {"v": np.full(width, 7, np.float32), "w": np.array(7)})
    assert tables.gather([50, 49])["v"][:, -1].tolist() == [7, 49]


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE
