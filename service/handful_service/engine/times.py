"""How long the runs of a graph take, by their rows: a running estimate, to know beforehand which ones are short."""

import math

SLOWER, FASTER = 0.1, 0.5
"""Weights of a run that took longer than the estimate, and of one that took less.

A busy machine makes single runs look slow, never fast, so that the estimate follows the faster ones.
"""


class RunTimes:
    """Estimates for each power of two of rows. May be told runs from any thread."""

    def __init__(self) -> None:
        self._seconds: dict[int, float] = {}

    def record(self, rows: int, seconds: float) -> None:
        """Take in a run of some rows that took some seconds."""
        bucket = rows.bit_length()
        before = self._seconds.get(bucket)
        if before is None:
            self._seconds[bucket] = seconds
            return
        weight = SLOWER if seconds > before else FASTER
        self._seconds[bucket] = before + weight * (seconds - before)

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
