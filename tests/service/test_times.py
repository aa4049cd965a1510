"""Estimates of how long graph runs take."""

import math

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
