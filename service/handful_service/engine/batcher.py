"""A work-conserving batcher: an idle runner starts at once with what is there, and while it runs, calls queue up.

There is no waiting time to tune: at low load the latency is that of one run, and under load batches grow by
themselves. A batch that will be short runs on the event loop itself, where no thread has to take it over.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from ..errors import Overloaded

T = TypeVar("T")
R = TypeVar("R")


class BatchMismatch(RuntimeError):
    """A batch gave another number of results than it had items: nobody gets any of them."""


@dataclass(slots=True)
class _Waiting(Generic[T, R]):
    item: T
    rows: int
    future: "asyncio.Future[R]"


class Batcher(Generic[T, R]):
    """Runs items together that arrive together.

    Args:
        run: Runs a batch off the event loop, one result per item, in order.
        run_now: Runs a batch on the event loop.
        is_short: Whether a batch of some rows is short enough for that.
        rows: The rows of an item; at most `max_rows`.
        max_rows: Rows of a batch.
        max_queued_rows: Rows that may wait; beyond it items are refused.
        on_batch: Told the rows of every batch.
    """

    def __init__(
        self,
        run: Callable[[Sequence[T]], Awaitable[Sequence[R]]],
        *,
        rows: Callable[[T], int],
        max_rows: int,
        max_queued_rows: int,
        on_batch: Callable[[int], None] = lambda rows: None,
        run_now: Callable[[Sequence[T]], Sequence[R]] | None = None,
        is_short: Callable[[int], bool] = lambda rows: True,
    ) -> None:
        self._run = run
        self._run_now = run_now
        self._is_short = is_short
        self._rows = rows
        self._max_rows = max_rows
        self._max_queued_rows = max_queued_rows
        self._on_batch = on_batch
        self._queue: deque[_Waiting[T, R]] = deque()
        self._queued_rows = 0
        self._at_work: asyncio.Handle | asyncio.Task[None] | None = None

    async def submit(self, *items: T) -> list[R]:
        """The results of some items, all of which are queued or none.

        An item whose caller is gone (cancelled) before its batch starts is dropped.

        Raises:
            Overloaded: the queue is full.
        """
        self._refuse_if_full(items)
        waiting = [self._enqueue(item) for item in items]
        if self._at_work is None and waiting:
            self._soon()
        if len(waiting) == 1:
            return [await waiting[0].future]
        return list(await asyncio.gather(*(entry.future for entry in waiting)))

    def _refuse_if_full(self, items: Sequence[T]) -> None:
        rows = sum(map(self._rows, items))
        if self._queued_rows and self._queued_rows + rows > self._max_queued_rows:
            raise Overloaded(f"{self._queued_rows} rows are waiting", allowed=f"at most {self._max_queued_rows}")

    def _enqueue(self, item: T) -> _Waiting[T, R]:
        entry = _Waiting[T, R](item, self._rows(item), asyncio.get_running_loop().create_future())
        self._queue.append(entry)
        self._queued_rows += entry.rows
        return entry

    def _soon(self) -> None:
        """Look for a batch at the loop's next turn, when everyone has submitted whose request came with this one."""
        self._at_work = asyncio.get_running_loop().call_soon(self._start)

    def _start(self) -> None:
        """Run the next batch, if anything waits; between two short ones the event loop has its turn."""
        batch = self._next_batch()
        if not batch:
            self._at_work = None
            return
        try:
            rows = sum(entry.rows for entry in batch)
            self._on_batch(rows)
            if self._run_now is None or not self._is_short(rows):
                self._at_work = asyncio.create_task(self._off_loop(batch))
                return
            _settle(batch, self._run_now([entry.item for entry in batch]))
        except Exception as error:  # whatever the run raised belongs to those who wait for it
            _fail(batch, error)
        self._soon()

    async def _off_loop(self, batch: "list[_Waiting[T, R]]") -> None:
        try:
            _settle(batch, await self._run([entry.item for entry in batch]))
        except Exception as error:  # see above
            _fail(batch, error)
        finally:
            self._start()

    def _next_batch(self) -> list[_Waiting[T, R]]:
        batch: list[_Waiting[T, R]] = []
        rows = 0
        while self._queue and (not batch or rows + self._queue[0].rows <= self._max_rows):
            entry = self._queue.popleft()
            self._queued_rows -= entry.rows
            if not entry.future.done():
                batch.append(entry)
                rows += entry.rows
        return batch


def _settle(batch: Sequence[_Waiting[T, R]], results: Sequence[R]) -> None:
    """Give each item its result, or all of them an error where the numbers differ."""
    if len(results) != len(batch):
        _fail(batch, BatchMismatch(f"{len(batch)} items gave {len(results)} results"))
        return
    for entry, result in zip(batch, results, strict=True):
        if not entry.future.done():
            entry.future.set_result(result)


def _fail(batch: Sequence[_Waiting[T, R]], error: Exception) -> None:
    for entry in batch:
        if not entry.future.done():
            entry.future.set_exception(error)
