"""From the output of a run to what each call of it gets: rows that are read alike are read together."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..task import Array, Arrays

Read = Callable[[Array], Sequence[Any]]
"""What rows of `y`, float32 `[n, member, column]`, come to, one for each; calls that are read alike share it."""


class FeaturesNotFinite(Exception):
    """An input is so large that its features are not finite.

    Attributes:
        row: Of the first such one.
    """

    def __init__(self, row: int) -> None:
        super().__init__(f"row {row}")
        self.row = row


def answers(
    y: Array, features: Arrays, counts: Sequence[int], reads: Sequence[Read]
) -> list[Sequence[Any] | Exception]:
    """What the rows of each call come to; an error for a call that has an input without finite features.

    Args:
        y: Float32 `[n, member, column]`, the rows of the calls one after the other.
        features: Of the inputs, each `[n, *feature]`.
        counts: The rows of each call.
        reads: How those of each are read.
    """
    first = reads[0]
    alike = len(reads) == 1 or all(read is first for read in reads)
    found = _read(first, y, counts) if alike else _read_apart(y, counts, reads)
    finite = all(np.isfinite(array).all() for array in features.values())
    return found if finite else _without_lost(found, features, counts)


def _read_apart(y: Array, counts: Sequence[int], reads: Sequence[Read]) -> list[Sequence[Any] | Exception]:
    alike: dict[Read, list[int]] = {}
    for place, read in enumerate(reads):
        alike.setdefault(read, []).append(place)
    parts = cut_array(y, counts)
    found: list[Sequence[Any] | Exception] = [()] * len(counts)
    for read, places in alike.items():
        of_read = _read(read, in_one([parts[place] for place in places]), [counts[place] for place in places])
        for place, of_call in zip(places, of_read, strict=True):
            found[place] = of_call
    return found


def _read(read: Read, y: Array, counts: Sequence[int]) -> list[Sequence[Any] | Exception]:
    """What the rows of calls that are read alike come to; where that fails, it fails for these alone."""
    try:
        rows = read(y)
    except Exception as error:
        return [error] * len(counts)
    if len(counts) == 1:
        return [rows]
    found: list[Sequence[Any] | Exception] = []
    at = 0
    for count in counts:
        found.append(rows[at : at + count])
        at += count
    return found


def _without_lost(
    found: Sequence[Sequence[Any] | Exception], features: Arrays, counts: Sequence[int]
) -> list[Sequence[Any] | Exception]:
    """What was found, with an error in place of each part whose features are not all finite."""
    rows = len(next(iter(features.values())))
    finite = np.ones(rows, bool)
    for array in features.values():
        finite &= np.isfinite(array).reshape(rows, -1).all(axis=1)
    good = cut_array(finite, counts)
    return [
        part if of_part.all() else FeaturesNotFinite(int(of_part.argmin()))
        for part, of_part in zip(found, good, strict=True)
    ]


def in_one(arrays: Sequence[Array]) -> Array:
    """Arrays `[n, …]` one after the other; of one, that one itself."""
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


def cut_array(array: Array, counts: Sequence[int]) -> list[Array]:
    """An array `[n, …]` as parts of some rows each, one after the other."""
    if len(counts) == 1:
        return [array]
    parts, at = [], 0
    for count in counts:
        parts.append(array[at : at + count])
        at += count
    return parts
