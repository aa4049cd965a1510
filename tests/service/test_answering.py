"""What calls of one run get: rows that are read alike are read together, and nobody gets another's."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from handful_service.engine.answering import FeaturesNotFinite, answers
from handful_service.task import Array


class Reader:
    """Reads the first column, and notes how many rows it was given."""

    def __init__(self, name: str, *, fails: bool = False) -> None:
        self.name, self.fails, self.given = name, fails, list[int]()

    def __call__(self, y: Array) -> Sequence[Any]:
        self.given.append(len(y))
        if self.fails:
            raise ValueError(self.name)
        return [(self.name, float(row[0, 0])) for row in y]


def numbered(counts: Sequence[int]) -> Array:
    return np.arange(sum(counts), dtype=np.float32).reshape(-1, 1, 1)


def features(counts: Sequence[int]) -> dict[str, Array]:
    return {"f": np.zeros((sum(counts), 2), np.float32)}


@given(st.lists(st.tuples(st.integers(1, 4), st.integers(0, 3)), min_size=1, max_size=20), st.sets(st.integers(0, 3)))
def test_every_call_gets_its_own_rows_read_in_its_own_way(calls: list[tuple[int, int]], failing: set[int]) -> None:
    readers = [Reader(f"reader {number}", fails=number in failing) for number in range(4)]
    counts, which = [count for count, _ in calls], [number for _, number in calls]
    found = answers(numbered(counts), features(counts), counts, [readers[number] for number in which])
    assert len(found) == len(calls)
    row = 0
    for part, count, number in zip(found, counts, which, strict=True):
        if number in failing:
            assert isinstance(part, ValueError)
            assert str(part) == f"reader {number}"
        else:
            assert part == [(f"reader {number}", float(row + place)) for place in range(count)]
        row += count
    for number, reader in enumerate(readers):
        rows = sum(count for count, of in calls if of == number)
        assert reader.given == ([rows] if rows else []), "rows that are read alike are read together"


@pytest.mark.parametrize("alike", [True, False])
def test_an_input_without_finite_features_is_told_to_its_own_call(alike: bool) -> None:
    counts = [2, 3, 1]
    one, other = Reader("one"), Reader("other")
    lost = features(counts)
    lost["f"][3, 1] = np.inf
    found = answers(numbered(counts), lost, counts, [one, one if alike else other, one])
    assert found[0] == [("one", 0.0), ("one", 1.0)]
    assert isinstance(found[1], FeaturesNotFinite)
    assert found[1].row == 1
    assert found[2] == [("one", 5.0)]
