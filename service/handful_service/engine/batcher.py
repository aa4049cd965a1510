"""A work-conserving batcher: an idle runner starts at once with what is there, and while it runs, calls queue up.

There is no waiting time to tune: at low load the latency is that of one run, and under load batches grow by
themselves, as far as larger ones make a row cheaper. When a batch runs, and where, is the scheduler's to say.
"""

import asyncio
import math
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from time import perf_counter
from typing import Generic, TypeVar

from ..errors import Overloaded
from .calls import CALL, Call
from .queueing import FairQueue, Reply, Waiting
from .scheduler import Kind, Scheduler
from .times import RunTimes

T = TypeVar("T")
R = TypeVar("R")


class BatchMismatch(RuntimeError):
    """A batch gave another number of results than it had items: nobody gets any of them."""


class Batcher(Generic[T, R]):
    """Runs items together that arrive together.

    Args:
        run: Runs a batch, one result per item, in order; on the event loop or in a thread.
        scheduler: Says when; shared by all batchers of the process.
        kind: Whether the runs belong to predicting or to learning.
        times: What is known of how long runs take.
        max_rows: Rows of a batch; no item has more.
        max_queued_rows: Rows that may wait; beyond it items are refused.
        on_batch: Told the rows of every batch.

    Attributes:
        kind: See above.
        clock: The scheduler's: the seconds that its runs took.
        listed: The scheduler's: whether it has something to do.
        running: The scheduler's: how many of its batches are in threads.
        crowded_since: The scheduler's: since when something was always waiting; infinity while nobody knows.
    """

    def __init__(
        self,
        run: Callable[[Sequence[T]], Sequence[R | Exception]],
        *,
        scheduler: Scheduler,
        max_rows: int,
        max_queued_rows: int,
        kind: Kind = Kind.PREDICT,
        times: RunTimes | None = None,
        on_batch: Callable[[int], None] = lambda rows: None,
    ) -> None:
        self.kind = kind
        self.clock = 0.0
        self.listed = False
        self.running = 0
        self.crowded_since = math.inf
        self._run = run
        self._scheduler = scheduler
        self._times = times or RunTimes(max_rows)
        self._max_rows = max_rows
        self._max_queued_rows = max_queued_rows
        self._on_batch = on_batch
        self._queue: FairQueue[T, R] = FairQueue()
        self._planned = max_rows

    def submit(self, item: T, rows: int) -> "asyncio.Future[R]":
        """The result of an item of some rows, as a future; cancelled before the batch starts, the item is dropped.

        Raises:
            Overloaded: too much is waiting.
            DeadlineExceeded: the call cannot be answered in time.
        """
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self.submit_for(CALL.get(), item, rows, future)
        return future

    def submit_for(self, call: Call | None, item: T, rows: int, reply: Reply[R]) -> None:
        """As `submit`, for a call that is named instead of the current one, and with the result given to a reply."""
        self.admit(call, rows)
        self._enqueue(call, item, rows, reply)

    def submit_all(self, items: Sequence[T], rows: Sequence[int]) -> "list[asyncio.Future[R]]":
        """The results of some items, all of which are queued or none; see `submit`."""
        call, loop = CALL.get(), asyncio.get_running_loop()
        self.admit(call, sum(rows))
        futures: list[asyncio.Future[R]] = []
        for item, count in zip(items, rows, strict=True):
            futures.append(loop.create_future())
            self._enqueue(call, item, count, futures[-1])
        return futures

    def admit(self, call: Call | None, rows: int) -> None:
        """Let in a call with some rows.

        Raises:
            Overloaded: too much is waiting.
            DeadlineExceeded: the call cannot be answered in time.
        """
        queued = self._queue.rows
        if queued and queued + rows > self._max_queued_rows:
            raise Overloaded(
                f"{queued} rows are waiting",
                allowed=f"at most {self._max_queued_rows}",
                retry_after_s=self._scheduler.wait_s(self),
            )
        if call is not None and not call.admitted:
            self._scheduler.admit(self, rows, call.deadline_s)
            call.admitted = True

    def _enqueue(self, call: Call | None, item: T, rows: int, reply: Reply[R]) -> None:
        if call is None:
            self._queue.push("", Waiting(item, rows, reply, 0.0))
        else:
            self._queue.push(call.tenant, Waiting(item, rows, reply, call.deadline_s))
        if not self.listed or (self.running and self.more_waiting):
            self._scheduler.wake(self)

    @property
    def waiting(self) -> int:
        """Items that wait."""
        return self._queue.calls

    @property
    def more_waiting(self) -> bool:
        """Whether more waits than the planned batch takes."""
        return self._queue.rows > self._planned

    @property
    def queued_s(self) -> float:
        """Seconds of work that waits."""
        return self._queue.rows * self._times.row_s

    def cost_s(self, rows: int) -> float:
        """Seconds of work that some rows are."""
        return rows * self._times.row_s

    def plan(self, short_s: float) -> float:
        """Settle the size of the next batch, and tell its predicted seconds; 0 where nobody waits any more.

        Args:
            short_s: What a run may take, whether or not its size makes rows cheaper.
        """
        first = self._queue.first_rows()
        rows = min(self._queue.rows, self._max_rows)
        seconds = self._times.predicted_s(rows) if first else 0.0
        if seconds > short_s and rows > first:
            rows = max(first, self._times.worthwhile_rows(rows, short_s, first))
            seconds = self._times.predicted_s(rows)
        self._planned = rows
        return seconds

    def take(self) -> list[Waiting[T, R]]:
        """The batch that was planned."""
        batch = self._queue.take(self._planned)
        if not self._queue.calls:
            self.crowded_since = math.inf
        return batch

    def run_now(self, batch: Sequence[Waiting[T, R]]) -> float:
        """Run a batch here, give everyone their result, and tell the seconds that it took."""
        started = perf_counter()
        try:
            _settle(batch, self._compute(batch))
        except Exception as error:  # whatever the run raised belongs to those who wait for it
            _fail(batch, error)
        return perf_counter() - started

    def run_in(self, executor: Executor, batch: Sequence[Waiting[T, R]], done: Callable[[float], None]) -> None:
        """Run a batch in a thread, give everyone their result, and then call `done` with the seconds."""
        started = perf_counter()
        try:
            computing = asyncio.get_running_loop().run_in_executor(executor, self._compute, batch)
        except RuntimeError as error:  # the server ends
            _fail(batch, error)
            done(0.0)
            return

        def settle(computed: "asyncio.Future[Sequence[R | Exception]]") -> None:
            try:
                _settle(batch, computed.result())
            except Exception as error:  # see above
                _fail(batch, error)
            finally:
                done(perf_counter() - started)

        computing.add_done_callback(settle)

    def _compute(self, batch: Sequence[Waiting[T, R]]) -> Sequence[R | Exception]:
        rows = sum([entry.rows for entry in batch])
        self._on_batch(rows)
        started = perf_counter()
        results = self._run([entry.item for entry in batch])
        self._times.record(rows, perf_counter() - started)
        return results


def _settle(batch: Sequence[Waiting[T, R]], results: Sequence[R | Exception]) -> None:
    """Give each item its result, or all of them an error where the numbers differ; an error may be a result, too."""
    if len(results) != len(batch):
        _fail(batch, BatchMismatch(f"{len(batch)} items gave {len(results)} results"))
        return
    for entry, result in zip(batch, results, strict=True):
        if entry.reply.done():
            continue
        if isinstance(result, Exception):
            entry.reply.set_exception(result)
        else:
            entry.reply.set_result(result)


def _fail(batch: Sequence[Waiting[T, R]], error: Exception) -> None:
    for entry in batch:
        if not entry.reply.done():
            entry.reply.set_exception(error)
