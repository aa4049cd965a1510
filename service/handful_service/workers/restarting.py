"""When a worker that ended is started again."""

import time
from collections.abc import Callable

FIRST_S = 0.5
MOST_S = 30.0
STEADY_S = 60.0
"""A worker that lived this long starts the count anew."""


class Backoff:
    """The wait before each start of one worker: none after a long life, else twice as long each time.

    Args:
        clock: Seconds, monotonic.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._started = clock()
        self._short_lives = 0

    def started(self) -> None:
        """Note the start."""
        self._started = self._clock()

    def wait_s(self) -> float:
        """How long to wait, now that it has ended."""
        if self._clock() - self._started >= STEADY_S:
            self._short_lives = 0
        self._short_lives += 1
        return 0.0 if self._short_lives == 1 else min(MOST_S, FIRST_S * 2 ** (self._short_lives - 2))
