"""How long the runs of a graph take, by their rows: a running estimate, to know beforehand which ones are short."""

import math
from typing import NamedTuple

SLOWER, FASTER = 0.1, 0.5
"""Weights of a run that took longer than the estimate, and of one that took less.

A busy machine makes single runs look slow, never fast, so that the estimate follows the faster ones.
"""

PAYS = 0.85
"""A batch of twice the rows pays if each row then takes at most this part of the time."""

TRY_AGAIN = 500
"""Batches that are kept small before a larger one is tried again: the machine may have been busy the last time."""


REFRESH = 16
"""Runs between two looks at what a row takes, once there were as many."""


class _Taken(NamedTuple):
    """What runs of some size take: in all, and for each row."""

    seconds: float
    each: float


class RunTimes:
    """Estimates for each power of two of rows. May be told runs from any thread, while they are asked in another.

    Args:
        most_rows: Of a batch.

    Attributes:
        row_s: Seconds that a row takes in the batches in which it takes least; 0 where nothing ran. While larger
            batches were not tried, they are thought to take no longer than the largest one that was.
    """

    def __init__(self, most_rows: int = 1) -> None:
        self.row_s = 0.0
        self._most_rows = most_rows
        self._runs = 0
        self._taken: dict[int, _Taken] = {}
        self._kept_small = 0

    def record(self, rows: int, seconds: float) -> None:
        """Take in a run of some rows that took some seconds."""
        bucket, each = rows.bit_length(), seconds / max(rows, 1)
        before = self._taken.get(bucket)
        if before is None:
            self._taken[bucket] = _Taken(seconds, each)
            self._runs = 0
        else:
            weight = SLOWER if seconds > before.seconds else FASTER
            moved = before.seconds + weight * (seconds - before.seconds), before.each + weight * (each - before.each)
            self._taken[bucket] = _Taken(*moved)
        if self._runs < REFRESH or self._runs % REFRESH == 0:
            self.row_s = self._least_row_s()
        self._runs += 1

    def _least_row_s(self) -> float:
        taken = dict(self._taken)  # which another thread may change
        top = max(taken)
        least, before = min([known.each for known in taken.values()]), taken.get(top - 1)
        if top >= self._most_rows.bit_length() or (before is not None and taken[top].each > PAYS * before.each):
            return least
        return min(least, taken[top].seconds / self._most_rows)

    def predicted_s(self, rows: int) -> float:
        """Seconds that a run of some rows will take.

        Where nothing of that size ran yet: in proportion to the next smaller one, else as the next larger one;
        infinity where nothing ran at all.
        """
        bucket, taken = rows.bit_length(), self._taken
        found = taken.get(bucket)
        if found is not None:
            return found.seconds
        taken = dict(taken)
        smaller = [known for known in taken if known < bucket]
        if smaller:
            nearest = max(smaller)
            return taken[nearest].seconds * 2.0 ** (bucket - nearest)
        return taken[min(taken)].seconds if taken else math.inf

    def worthwhile_rows(self, rows: int, short_s: float, least: int = 1) -> int:
        """How many of some rows to run at once: all of them, unless fewer take as little for each.

        A graph that gains nothing from larger batches is run in small ones: nobody waits longer than for what helps.

        Args:
            rows: That wait, as many as a batch may hold.
            short_s: What a run may always take.
            least: Rows that no run has fewer of, since those of a call stay together.
        """
        if self.predicted_s(rows) <= short_s or not self._taken:
            return rows
        bucket = self._worthwhile_bucket(least.bit_length(), rows.bit_length(), short_s)
        if bucket == rows.bit_length():
            return rows
        self._kept_small += 1
        if self._kept_small >= TRY_AGAIN:
            self._kept_small = 0
            self._taken.pop(bucket + 1, None)
        return (1 << bucket) - 1

    def _worthwhile_bucket(self, least: int, most: int, short_s: float) -> int:
        for bucket in range(least, most):
            found, larger = self._taken.get(bucket), self._taken.get(bucket + 1)
            if larger is None:  # nobody knows: it is tried, one step at a time
                return bucket if found is None else bucket + 1
            if found is not None and larger.seconds > short_s and larger.each > PAYS * found.each:
                return bucket
        return most
