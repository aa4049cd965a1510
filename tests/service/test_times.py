"""Estimates of how long graph runs take."""

import math
from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from handful_service.engine.times import RunTimes

ROWS = st.integers(1, 4096)
SECONDS = st.floats(1e-6, 10)


def test_nothing_is_short_before_anything_ran() -> None:
    assert RunTimes().predicted_s(1) == math.inf


@given(ROWS, SECONDS, st.integers(1, 30))
def test_runs_that_all_take_the_same_are_predicted_so(rows: int, seconds: float, runs: int) -> None:
    times = RunTimes()
    for _ in range(runs):
        times.record(rows, seconds)
    assert math.isclose(times.predicted_s(rows), seconds)


@given(ROWS, st.lists(SECONDS, min_size=1))
def test_a_prediction_lies_between_the_fastest_and_the_slowest_run(rows: int, seconds: list[float]) -> None:
    times = RunTimes()
    for one in seconds:
        times.record(rows, one)
    assert min(seconds) * 0.999 <= times.predicted_s(rows) <= max(seconds) * 1.001


def test_more_rows_than_ever_ran_take_longer_in_proportion_and_fewer_no_longer_than_they() -> None:
    times = RunTimes()
    times.record(4, 0.001)
    assert times.predicted_s(64) == 0.016
    assert times.predicted_s(1) == 0.001


def test_one_run_that_the_machine_held_up_does_not_make_a_graph_slow_but_many_do() -> None:
    times = RunTimes()
    times.record(1, 0.001)
    times.record(1, 0.020)
    assert times.predicted_s(1) < 0.005
    for _ in range(10):
        times.record(1, 0.020)
    assert times.predicted_s(1) > 0.010
    for _ in range(5):
        times.record(1, 0.001)
    assert times.predicted_s(1) < 0.005


def test_a_row_takes_what_it_takes_in_the_best_batch_and_no_more_is_claimed_than_was_tried() -> None:
    times = RunTimes(256)
    assert times.row_s == 0
    times.record(4, 0.004)
    assert times.row_s == 0.004 / 256
    times.record(8, 0.008)
    assert times.row_s == 0.001
    fixed = RunTimes(256)
    fixed.record(1, 0.020)
    fixed.record(256, 0.030)
    assert fixed.row_s == 0.030 / 256


def linear(rows: int) -> float:
    return 0.001 * rows


def fixed(rows: int) -> float:
    return 0.02 + 1e-6 * rows


def settled(seconds: Callable[[int], float], waiting: int, most: int = 256) -> tuple[list[int], list[int]]:
    """The rows of the first batches, and those after that, where so many rows always wait."""
    times, sizes = RunTimes(most), []
    times.record(2, seconds(2))
    for _ in range(2000):
        sizes.append(times.worthwhile_rows(min(waiting, most), 0.005))
        times.record(sizes[-1], seconds(sizes[-1]))
    return sizes[:10], sizes[10:]


def test_a_graph_that_gains_nothing_from_larger_batches_is_run_in_short_ones_and_tried_again_now_and_then() -> None:
    first, later = settled(linear, 256)
    assert max(first) <= 7
    assert set(later) == {3, 7}
    assert later.count(7) <= 10


def test_a_graph_whose_rows_become_cheaper_is_run_in_the_largest_batches_after_a_few_tries() -> None:
    first, later = settled(fixed, 1000)
    assert min(later) >= 255
    assert len(first) == 10


def test_a_batch_of_a_long_graph_is_at_least_a_row() -> None:
    times = RunTimes(256)
    times.record(1, 2.0)
    assert times.worthwhile_rows(1, 0.005) == 1
    times.record(2, 4.0)
    assert times.worthwhile_rows(200, 0.005) == 1
