"""How long the runs of a graph take, by their rows: a running estimate, to know beforehand which ones are short."""

import math

SLOWER, FASTER = 0.1, 0.5
"""Weights of a run that took longer than the estimate, and of one that took less.

A busy machine makes single runs look slow, never fast, so that the estimate follows the faster ones.
"""

PAYS = 0.85
"""A batch of twice the rows pays if each row then takes at most this part of the time."""

TRY_AGAIN = 500
"""Batches that are kept small before a larger one is tried again: the machine may have been busy the last time."""


REFRESH = 16
"""Runs between two looks at what a row takes."""


class RunTimes:
    """Estimates for each power of two of rows. May be told runs from any thread.

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
        self._seconds: dict[int, float] = {}
        self._each: dict[int, float] = {}
        self._kept_small = 0

    def record(self, rows: int, seconds: float) -> None:
        """Take in a run of some rows that took some seconds."""
        bucket, each = rows.bit_length(), seconds / max(rows, 1)
        before = self._seconds.get(bucket)
        if before is None:
            self._seconds[bucket], self._each[bucket] = seconds, each
            self._runs = 0
        else:
            weight = SLOWER if seconds > before else FASTER
            self._seconds[bucket] = before + weight * (seconds - before)
            self._each[bucket] += weight * (each - self._each[bucket])
        if self._runs % REFRESH == 0:
            self.row_s = self._least_row_s()
        self._runs += 1

    def _least_row_s(self) -> float:
        top = max(self._seconds)
        least, before = min(self._each.values()), self._each.get(top - 1)
        if top >= self._most_rows.bit_length() or (before is not None and self._each[top] > PAYS * before):
            return least
        return min(least, self._seconds[top] / self._most_rows)

    def predicted_s(self, rows: int) -> float:
        """Seconds that a run of some rows will take.

        Where nothing of that size ran yet: in proportion to the next smaller one, else as the next larger one;
        infinity where nothing ran at all.
        """
        bucket = rows.bit_length()
        found = self._seconds.get(bucket)
        if found is not None:
            return found
        smaller = [known for known in self._seconds if known < bucket]
        if smaller:
            nearest = max(smaller)
            return self._seconds[nearest] * 2.0 ** (bucket - nearest)
        return self._seconds[min(self._seconds)] if self._seconds else math.inf

    def worthwhile_rows(self, rows: int, short_s: float) -> int:
        """How many of some rows to run at once: all of them, unless fewer take as little for each.

        A graph that gains nothing from larger batches is run in small ones: nobody waits longer than for what helps.

        Args:
            rows: That wait, as many as a batch may hold.
            short_s: What a run may always take.
        """
        if self.predicted_s(rows) <= short_s or not self._each:
            return rows
        bucket = self._worthwhile_bucket(rows.bit_length(), short_s)
        if bucket == rows.bit_length():
            return rows
        self._kept_small += 1
        if self._kept_small >= TRY_AGAIN:
            self._kept_small = 0
            self._seconds.pop(bucket + 1, None)
            self._each.pop(bucket + 1, None)
        return (1 << bucket) - 1

    def _worthwhile_bucket(self, most: int, short_s: float) -> int:
        for bucket in range(1, most):
            larger, each = self._seconds.get(bucket + 1), self._each.get(bucket)
            if larger is None:
                if each is not None:
                    return bucket + 1  # nobody knows: it is tried, one step at a time
            elif larger > short_s and each is not None and self._each[bucket + 1] > PAYS * each:
                return bucket
        return most
