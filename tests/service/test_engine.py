"""The engine over a tiny bundle, held against numpy."""

import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.tiny import Tiny, build
from tests.tiny_engine import Running, adapt, close, drawn, expected, running

from handful_service.engine.slots import SlotTables
from handful_service.errors import Overloaded, SupportSetInvalid
from handful_service.task import Arrays, Labels, SupportSet, TaskState

KINDS = [Tiny(), Tiny(statistics=False), Tiny(encode=False), Tiny(members=2)]


class Rolled(SlotTables):
    """The bug that must not be: every row gets the state of its neighbour."""

    def gather(self, slots: Sequence[int]) -> Arrays:
        return super().gather(np.roll(slots, 1))


@pytest.fixture(scope="module", params=KINDS, ids=["statistics", "direct", "without encode", "members"])
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Tiny]:
    return build(tmp_path_factory.mktemp("engine"), request.param), request.param


@pytest.fixture(params=[0, 1000], ids=["in threads", "on the loop"])
def one(place: tuple[Path, Tiny], request: pytest.FixtureRequest) -> Iterator[Running]:
    with running(*place, inline_ms=request.param) as found:
        yield found


async def answer(on: Running, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The logits of some inputs, for the task in which input `i` has the label `y[i]`: the way of a request."""
    features = await on.engine.encode({"x": x})
    phi = await adapt(on, SupportSet(features, y, np.ones(len(y), np.float32)))
    with on.cache.pins() as pins:
        held = pins.borrow(TaskState(phi, Labels(()), 1))
        return await on.engine.predict(features, [held.slot] * len(x))


def wrong_of_64_contradictory_tasks(on: Running) -> int:
    """How many of 64 tasks answered otherwise together than numpy does alone: same inputs, other labels each."""
    x = np.random.default_rng(1).normal(size=(8, 4)).astype(np.float32)
    tasks = [np.random.default_rng(seed).permutation(8) for seed in range(64)]

    async def go() -> list[np.ndarray]:
        return list(await asyncio.gather(*(answer(on, x, y) for y in tasks)))

    features, weight = on.tiny.features(x), np.ones(8, np.float32)
    alone = [on.tiny.logits(features, on.tiny.state(features, y, weight)) for y in tasks]
    return sum(not close(*pair) for pair in zip(asyncio.run(go()), alone, strict=True))


def test_contradictory_tasks_batched_together_answer_as_if_alone(one: Running) -> None:
    assert wrong_of_64_contradictory_tasks(one) == 0
    assert max(rows for graph, rows in one.batches if graph == "predict") > 8  # they did share batches


def test_the_comparison_sees_it_when_rows_get_the_state_of_their_neighbour(place: tuple[Path, Tiny]) -> None:
    with running(*place, tables=Rolled) as broken:
        assert wrong_of_64_contradictory_tasks(broken) > 0


def test_states_in_the_cache_answer_as_borrowed_ones(one: Running) -> None:
    supports = [drawn(one.tiny, seed, 5) for seed in range(30)]
    query = drawn(one.tiny, 99, 1).features

    async def predict(number: int) -> np.ndarray:
        async def load() -> TaskState:
            return TaskState(await adapt(one, supports[number]), Labels(()), 1)

        with one.cache.pins() as pins:
            held = await pins.pin(number, load)
            return await one.engine.predict(query, [held.slot])

    async def go() -> list[np.ndarray]:
        return list(await asyncio.gather(*(predict(number % 30) for number in range(90))))

    for number, got in enumerate(asyncio.run(go())):
        assert close(got, one.tiny.logits(query[one.tiny.feature], expected(one.tiny, supports[number % 30])))


def test_inputs_of_many_calls_encoded_together_come_back_to_their_own(one: Running) -> None:
    rng = np.random.default_rng(4)
    calls = [rng.normal(size=(rows, 4)).astype(np.float32) for rows in (1, 5, 2, 7, 3, 0, 1, 300)]

    async def go() -> list[Arrays]:
        return list(await asyncio.gather(*(one.engine.encode({"x": x}) for x in calls)))

    for x, got in zip(calls, asyncio.run(go()), strict=True):
        assert close(got[one.tiny.feature], one.tiny.features(x))


def test_support_sets_of_different_sizes_in_one_batch_do_not_touch_each_other(one: Running) -> None:
    supports = [drawn(one.tiny, size, size) for size in (1, 40, 2, 0, 7, 64, 65, 130)]

    async def go() -> list[Arrays]:
        return list(await asyncio.gather(*(adapt(one, support) for support in supports)))

    for support, got in zip(supports, asyncio.run(go()), strict=True):
        want = expected(one.tiny, support)
        assert close(got["prototypes"], want["prototypes"])
        assert close(got["present"], want["present"])
    assert max(rows for graph, rows in one.batches if graph == "adapt") > 1


def test_an_empty_support_set_is_the_state_without_any_label(one: Running) -> None:
    nothing = SupportSet(one.engine.no_features(), np.zeros(0, np.int64), np.zeros(0, np.float32))

    async def go() -> Arrays:
        return await adapt(one, nothing)

    state = asyncio.run(go())
    assert not state["present"].any()
    assert np.isfinite(state["prototypes"]).all()


def test_a_call_larger_than_a_batch_is_cut_and_rejoined_in_order(place: tuple[Path, Tiny]) -> None:
    x = np.random.default_rng(2).normal(size=(50, 4)).astype(np.float32)
    y = np.arange(50) % 8
    with running(*place, max_rows=7) as small:

        async def go() -> np.ndarray:
            return await answer(small, x, y)

        features = small.tiny.features(x)
        state = small.tiny.state(features, y, np.ones(50, np.float32))
        assert close(asyncio.run(go()), small.tiny.logits(features, state))
        assert max(rows for graph, rows in small.batches if graph in ("encode", "predict")) == 7


def test_a_full_queue_refuses_whole_calls_and_the_next_is_answered(place: tuple[Path, Tiny]) -> None:
    x = np.zeros((8, 4), np.float32)
    with running(*place, max_rows=4, max_queued_rows=8) as small:

        async def go() -> tuple[list[Any], np.ndarray]:
            calls = [answer(small, x, np.arange(8)) for _ in range(20)]
            return await asyncio.gather(*calls, return_exceptions=True), await answer(small, x, np.arange(8))

        results, after = asyncio.run(go())
        kinds = {type(result) for result in results}
        assert kinds <= {np.ndarray, Overloaded}
        assert Overloaded in kinds
        assert after.shape == (8, small.tiny.members, 8)


def test_support_sets_are_batched_by_their_examples_where_those_go_into_adapt(tmp_path: Path) -> None:
    tiny = Tiny(statistics=False)
    with running(build(tmp_path, tiny), tiny, max_rows=50) as small:

        async def go() -> None:
            await asyncio.gather(*(small.engine.adapt(drawn(tiny, seed, 20)) for seed in range(10)))

        asyncio.run(go())
        assert small.batches == [("adapt", 40)] * 5


@pytest.fixture(scope="module")
def with_statistics(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(build(tmp_path_factory.mktemp("additive")), Tiny()) as found:
        yield found


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.integers(0, 150), st.data())
def test_the_statistics_of_the_whole_are_the_sum_of_the_parts(
    with_statistics: Running, seed: int, size: int, data: st.DataObject
) -> None:
    whole, cut = drawn(Tiny(), seed, size), data.draw(st.integers(0, size))
    halves = [slice(0, cut), slice(cut, size)]
    parts = [SupportSet({"features": whole.features["features"][s]}, whole.y[s], whole.weight[s]) for s in halves]

    async def go() -> list[Arrays]:
        return list(await asyncio.gather(*(with_statistics.engine.summarise(item) for item in (whole, *parts))))

    total, one, other = asyncio.run(go())
    want = Tiny().summary(whole.features["features"], whole.y, whole.weight)
    for name in ("sums", "counts"):
        assert total[name].dtype == np.float64
        np.testing.assert_allclose(total[name], want[name], rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(total[name], one[name] + other[name], rtol=1e-5, atol=1e-5)


def test_numbers_too_large_for_a_state_are_the_callers_fault_and_no_ones_else(one: Running) -> None:
    huge, fine = drawn(one.tiny, 0, 4), drawn(one.tiny, 1, 4)
    huge = SupportSet({one.tiny.feature: np.full((4, one.tiny.width), 3e38, np.float32)}, huge.y * 0, huge.weight)

    async def go() -> list[Any]:
        return await asyncio.gather(*(adapt(one, item) for item in (huge, fine)), return_exceptions=True)

    refused, state = asyncio.run(go())
    assert isinstance(refused, SupportSetInvalid)
    assert close(state["prototypes"], expected(one.tiny, fine)["prototypes"])


def test_a_cancelled_call_gives_its_slot_back_and_its_neighbours_their_own_answers(one: Running) -> None:
    x = np.random.default_rng(3).normal(size=(8, 4)).astype(np.float32)
    tasks = [np.random.default_rng(seed).permutation(8) for seed in range(90)]

    async def go() -> list[Any]:
        calls = [asyncio.create_task(answer(one, x, y)) for y in tasks]
        for turn, call in enumerate(calls[::3]):
            for _ in range(turn % 5):
                await asyncio.sleep(0)
            call.cancel()
        results = await asyncio.gather(*calls, return_exceptions=True)
        with one.cache.pins() as pins:  # all 100 slots are free again
            state = TaskState(await adapt(one, drawn(one.tiny, 0, 3)), Labels(()), 1)
            for _ in range(100):
                pins.borrow(state)
        return list(results)

    features, weight = one.tiny.features(x), np.ones(8, np.float32)
    for number, (y, got) in enumerate(zip(tasks, asyncio.run(go()), strict=True)):
        assert number % 3 == 0 or close(got, one.tiny.logits(features, one.tiny.state(features, y, weight)))
