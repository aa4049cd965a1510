"""Decides which graph runs next, on the event loop or in a thread, and whom to refuse because too much waits.

Short runs take place on the event loop, for some milliseconds a turn; long ones in a thread, as many at a time as
there are runners. Learning has threads of its own, which the system lets wait for predictions. Predicting and learning
have their shares of the time, and inside each the graph that ran least comes next.
"""

import asyncio
import math
import time
from concurrent.futures import Executor
from enum import IntEnum
from functools import partial
from typing import Any, Protocol

from ..errors import DeadlineExceeded, Overloaded

ALWAYS_WAITING = 16
"""Fewer items than this may wait however long their runs take: else slow graphs would refuse what is no overload."""


RIVALS = 8
"""How many others may have their turns between a graph's own before its wait is looked at closely."""

STOOD_S, STANDING = 0.05, 0.1
"""A queue that was not empty for so many seconds is no burst: only this part of the bound may wait then.

Else a server with more work than it can do answers everyone late. The idea is that of controlled delay (Nichols,
Jacobson: Controlling Queue Delay, 2012).
"""


class Kind(IntEnum):
    """What a run belongs to."""

    PREDICT = 0
    LEARN = 1


SHARES = (0.75, 0.25)
"""Of the time while both kinds wait. Learning can wait for a moment; its share keeps it from waiting for ever."""


LEARNS_INLINE = 0.1
"""Of what is short for a prediction: a run of learning that takes longer is put into a thread, where it can wait."""


AHEAD = (1, 0)
"""Runs of each kind that wait in a thread for the one before, which would stand still until the event loop sees to it.

That pays for runs that are little too long for the event loop, and only where waiting would not make them larger.
"""

CROWDED = 0.6
"""Of what is short, while several wait: whoever comes meanwhile, be it to be refused, waits for a run to end."""


class Source(Protocol):
    """A batcher, as the scheduler sees it."""

    kind: Kind
    clock: float
    listed: bool
    running: int
    crowded_since: float

    @property
    def waiting(self) -> int:
        """Items that wait."""
        ...

    @property
    def more_waiting(self) -> bool:
        """Whether more waits than the planned batch takes."""
        ...

    @property
    def queued_s(self) -> float:
        """Seconds of work that waits."""
        ...

    def cost_s(self, rows: int) -> float:
        """Seconds of work that some rows are."""
        ...

    def plan(self, short_s: float) -> float:
        """Settle the size of the next batch, and tell its predicted seconds."""
        ...

    def take(self) -> Any:
        """The batch that was planned."""
        ...

    def run_now(self, batch: Any) -> float:
        """Run a batch here; the seconds that it took."""
        ...

    def run_in(self, executor: Executor, batch: Any, done: Any) -> None:
        """Run a batch in a thread."""
        ...


class Scheduler:
    """Of one process. Used from one event loop.

    Args:
        executor: The threads of long runs.
        runners: How many of these run at a time.
        learner: The threads of long runs of learning, one less than the runners if there are several; None: those of
            all runs.
        inline_s: The predicted seconds up to which a run is short; 0: none is.
        max_queued_s: Seconds of work that may wait in a burst before calls are refused.
    """

    def __init__(
        self,
        executor: Executor,
        runners: int = 1,
        *,
        learner: Executor | None = None,
        inline_s: float = 0.005,
        max_queued_s: float = math.inf,
    ) -> None:
        self._executors = executor, learner or executor
        self._runners, self._started = (runners, learners_of(runners)), [0, 0]
        self._short_s = inline_s, LEARNS_INLINE * inline_s
        self._inline_s = inline_s
        self._max_queued_s = max_queued_s
        self._clocks = [0.0, 0.0]
        self._listed: list[Source] = []
        self._turn_at: asyncio.Handle | None = None

    def wake(self, source: Source) -> None:
        """Look for a batch at the loop's next turn, when everyone has submitted whose request came with this one."""
        if not source.listed:
            self._set_clocks(source)
            source.listed = True
            self._listed.append(source)
        self._soon()

    def _soon(self) -> None:
        if self._turn_at is None:
            self._turn_at = asyncio.get_running_loop().call_soon(self._turn)

    def wait_s(self, source: Source) -> float:
        """The seconds that what comes to a source now will probably wait.

        It is no more than all the work that waits; and where others wait, too, their turns come between its own.
        """
        own = source.queued_s * self._rivals(source)
        return own if own <= 0 else min(own, sum([other.queued_s for other in self._listed]))

    def refuse_if_full(self, source: Source) -> float:
        """The seconds that what comes to a source now will probably wait, if that is not too long.

        Raises:
            Overloaded: it is.
        """
        own = source.queued_s
        if own * RIVALS < self._max_queued_s * STANDING:  # nothing much, whoever runs between
            return own
        wait, now = self.wait_s(source), time.monotonic()
        source.crowded_since = min(source.crowded_since, now)
        most = self._max_queued_s * (STANDING if now - source.crowded_since > STOOD_S else 1.0)
        if wait > most and source.waiting >= ALWAYS_WAITING:
            raise Overloaded(
                f"{1e3 * wait:.0f} ms of work are waiting", allowed=f"at most {1e3 * most:g} ms", retry_after_s=wait
            )
        return wait

    def admit(self, source: Source, rows: int, deadline_s: float) -> None:
        """Refuse some rows that would wait too long.

        Raises:
            Overloaded: more waits than may.
            DeadlineExceeded: they could not be ready by their deadline, on the clock of `time.monotonic`.
        """
        check_deadline(self.refuse_if_full(source) + source.cost_s(rows), deadline_s)

    def _rivals(self, source: Source) -> float:
        """How many times as long as alone a source takes for its work, since others run between."""
        if len(self._listed) <= 1:
            return 1.0
        rivals = sum([other.kind == source.kind and other is not source for other in self._listed])
        both = any(other.kind != source.kind for other in self._listed)
        return (1 + rivals) / (SHARES[source.kind] if both else 1.0)

    def _set_clocks(self, source: Source) -> None:
        """Let one that comes anew start where the others are: nobody saves up time."""
        if not self._listed:
            source.clock, self._clocks = 0.0, [0.0, 0.0]
            return
        alike = [other.clock for other in self._listed if other.kind == source.kind]
        source.clock = min(alike, default=0.0)
        if not alike:
            self._clocks[source.kind] = max(self._clocks)

    def _order(self, source: Source) -> tuple[float, int, float]:
        return self._clocks[source.kind], source.kind, source.clock

    def _turn(self) -> None:
        """Run what is short, at most one batch of each graph, and start what is long where a runner is free."""
        self._turn_at = None
        if len(self._listed) > 1:
            self._listed.sort(key=self._order)
        part = 1.0 if len(self._listed) == 1 and self._listed[0].waiting <= 1 else CROWDED
        left_s, more = self._inline_s, [False, False]
        for source in self._listed:
            if not source.waiting:
                continue
            short_s = part * self._short_s[source.kind]
            seconds = source.plan(short_s)
            if source.running or seconds > short_s:
                while self._start(source, seconds):
                    seconds = source.plan(short_s)
                continue
            fits = seconds <= left_s or left_s == self._inline_s
            if source.waiting and fits and not self._is_ahead(source.kind, more):
                took = source.run_now(source.take())
                self._charge(source, took)
                left_s -= took
            more[source.kind] = more[source.kind] or source.waiting > 0
        self._unlist()
        if any(more):
            self._soon()

    def _is_ahead(self, kind: Kind, more: list[bool]) -> bool:
        """Whether a kind had more than its share, and the other one has more to run in this turn or the next."""
        return more[1 - kind] and self._clocks[kind] > self._clocks[1 - kind]

    def _start(self, source: Source, seconds: float) -> bool:
        """Start a long run if a runner is free for it, or let one that is not too long follow another in its thread."""
        if not source.waiting or source.running > AHEAD[source.kind]:
            return False
        kind = source.kind
        if source.running or self._started[kind] >= self._runners[kind]:
            full = self._started[kind] >= self._runners[kind] + AHEAD[kind]
            if full or seconds > self._inline_s or not source.more_waiting:
                return False
        self._started[kind] += 1
        source.running += 1
        source.run_in(self._executors[kind], source.take(), partial(self._ended, source))
        return True

    def _ended(self, source: Source, seconds: float) -> None:
        self._started[source.kind] -= 1
        source.running -= 1
        self._charge(source, seconds)
        self._soon()

    def _charge(self, source: Source, seconds: float) -> None:
        source.clock += seconds
        self._clocks[source.kind] += seconds / SHARES[source.kind]

    def _unlist(self) -> None:
        """Forget those that have nothing to do."""
        keep = []
        for source in self._listed:
            source.listed = source.running > 0 or source.waiting > 0
            if source.listed:
                keep.append(source)
        self._listed = keep


def check_deadline(ready_s: float, deadline_s: float) -> None:
    """Refuse a call that cannot be answered in time.

    Args:
        ready_s: Predicted seconds until it would be.
        deadline_s: When it is due, on the clock of `time.monotonic`.

    Raises:
        DeadlineExceeded: it would be too late.
    """
    left_s = deadline_s - time.monotonic()
    if ready_s > left_s:
        raise DeadlineExceeded(
            f"the answer would be ready in {1e3 * ready_s:.0f} ms",
            field="X-Deadline-Ms",
            allowed=f"{1e3 * max(left_s, 0):.0f} ms are left",
        )


def learners_of(runners: int) -> int:
    """How many long runs of learning take place at a time, beside so many of predicting."""
    return max(1, runners - 1)
