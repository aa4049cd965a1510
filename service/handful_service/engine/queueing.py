"""A queue that is fair between tenants, and earliest deadline first within each.

Fairness is that of start-time fair queueing (Goyal, Vin, Cheng: Start-time Fair Queueing, 1996): each tenant has a
clock that its rows move on, and the tenant whose clock is behind comes next. One that comes anew starts at the clock
of the tenant that was served last, so that nobody saves up turns, and nobody waits behind another's burst.
"""

from bisect import insort
from collections import deque
from heapq import heappop, heappush, heapreplace, nlargest
from operator import itemgetter
from typing import Generic, Protocol, TypeVar

T = TypeVar("T")
R = TypeVar("R")
Result_contra = TypeVar("Result_contra", contravariant=True)


class Reply(Protocol[Result_contra]):
    """Where a result goes: an `asyncio.Future`, or whatever else takes it."""

    def done(self) -> bool:
        """Whether nobody waits for it any more."""
        ...

    def set_result(self, result: Result_contra) -> None:
        """Take the result."""
        ...

    def set_exception(self, exception: Exception) -> None:
        """Take the error in its place."""
        ...


REMEMBERED = 1024
"""Absent tenants whose clocks are kept; beyond it the half is forgotten that is least ahead of the others."""


class Waiting(Generic[T, R]):
    """An item that waits for its batch."""

    __slots__ = ("deadline_s", "item", "reply", "rows")

    def __init__(self, item: T, rows: int, reply: Reply[R], deadline_s: float) -> None:
        self.item = item
        self.rows = rows
        self.reply = reply
        self.deadline_s = deadline_s


def _deadline_s(entry: Waiting[T, R]) -> float:
    return entry.deadline_s


class FairQueue(Generic[T, R]):
    """Items of one graph that wait. All cost the same for each row, so that clocks count rows.

    Attributes:
        rows: Of all items that wait, those included whose caller is gone.
        calls: Items that wait.
    """

    def __init__(self) -> None:
        self.rows = 0
        self.calls = 0
        self._lanes: dict[str, deque[Waiting[T, R]]] = {}
        self._turns: list[tuple[float, int, str]] = []  # a heap: clock, order of coming, tenant
        self._clocks: dict[str, float] = {}  # of tenants whose lane is empty
        self._now = 0.0  # the clock of the tenant that was served last
        self._came = 0

    def push(self, tenant: str, entry: Waiting[T, R]) -> None:
        """Put an item behind those of its tenant that are due no later."""
        self.rows += entry.rows
        self.calls += 1
        lane = self._lanes.get(tenant)
        if lane is None:
            self._lanes[tenant] = deque((entry,))
            self._came += 1
            clock = self._clocks.pop(tenant, 0.0) if self._clocks else 0.0
            heappush(self._turns, (max(clock, self._now), self._came, tenant))
        elif entry.deadline_s < lane[-1].deadline_s:
            insort(lane, entry, key=_deadline_s)
        else:
            lane.append(entry)

    def first_rows(self) -> int:
        """The rows of the item that is next, once those are dropped whose caller is gone; 0 where nobody waits."""
        while self._turns:
            clock, _, tenant = self._turns[0]
            lane = self._lanes[tenant]
            while lane:
                entry = lane[0]
                if not entry.reply.done():
                    return entry.rows
                self._drop(lane)
            self._leave(clock, tenant)
        return 0

    def _drop(self, lane: "deque[Waiting[T, R]]") -> Waiting[T, R]:
        entry = lane.popleft()
        self.calls -= 1
        self.rows -= entry.rows
        return entry

    def take(self, most_rows: int) -> list[Waiting[T, R]]:
        """The next batch: at least one item, else no more than some rows; items whose caller is gone are dropped."""
        batch: list[Waiting[T, R]] = []
        rows = 0
        while self._turns:
            clock, came, tenant = self._turns[0]
            lane, alone, before = self._lanes[tenant], len(self._turns) == 1, self.calls
            self._now = clock
            while lane and (not batch or rows + lane[0].rows <= most_rows):
                entry = self._drop(lane)
                if not entry.reply.done():
                    batch.append(entry)
                    rows += entry.rows
                    clock += entry.rows
                if not alone:
                    break
            if lane:
                if self.calls == before:  # the next item does not fit
                    break
                heapreplace(self._turns, (clock, came, tenant))
            else:
                self._leave(clock, tenant)
        return batch

    def _leave(self, clock: float, tenant: str) -> None:
        heappop(self._turns)
        del self._lanes[tenant]
        if not self._turns:  # nobody waits: everyone starts alike
            self._clocks.clear()
            self._now = 0.0
            return
        self._clocks[tenant] = clock
        if len(self._clocks) > REMEMBERED:
            self._clocks = dict(nlargest(REMEMBERED // 2, self._clocks.items(), key=itemgetter(1)))
