"""A scheduler whose threads run only when they are let, and batchers on it: what its tests share."""

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from functools import partial
from typing import Any

from handful_service.engine.batcher import Batcher
from handful_service.engine.calls import CALL, Call
from handful_service.engine.scheduler import Scheduler
from handful_service.engine.times import RunTimes

Item = tuple[str, int]
"""A name, and its rows."""


class Threads(Executor):
    """Threads that do their work at once; while they are shut, what comes of it is held back."""

    def __init__(self) -> None:
        self.shut = False
        self.held: list[Callable[[], None]] = []

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
        future: Future[Any] = Future()
        try:
            result = fn(*args, **kwargs)
            self.held.append(lambda: future.set_result(result))
        except Exception as error:
            self.held.append(partial(future.set_exception, error))
        if not self.shut:
            self.open()
        return future

    def open(self) -> None:
        """Give everything back that is held, and hold nothing from now on."""
        self.shut = False
        self.give(len(self.held))

    def give(self, count: int = 1) -> None:
        """Give the first ones back."""
        given, self.held = self.held[:count], self.held[count:]
        for give in given:
            give()


class Graph:
    """Runs batches; remembers the names in each. The answer of an item is its name."""

    def __init__(self, log: list[tuple[str, list[str]]] | None = None, name: str = "") -> None:
        self.batches: list[list[str]] = []
        self.answer: Callable[[Sequence[Item]], list[str]] = lambda items: [name for name, _ in items]
        self._log, self._name = log, name

    def __call__(self, items: Sequence[Item]) -> list[str]:
        self.batches.append([name for name, _ in items])
        if self._log is not None:
            self._log.append((self._name, self.batches[-1]))
        return self.answer(items)


class Estimates(RunTimes):
    """Estimates that do not change: `fixed_s`, and `row_s` for each row."""

    def __init__(self, row_s: float = 0.0, fixed_s: float = 0.0) -> None:
        super().__init__()
        self.row_s, self._fixed_s = row_s, fixed_s

    def record(self, rows: int, seconds: float) -> None:
        pass

    def predicted_s(self, rows: int) -> float:
        return self._fixed_s + rows * self.row_s


LONG = math.inf
"""The estimate of a run that takes place in a thread."""


def batcher(
    run: Any, scheduler: Scheduler, *, row_s: float = 0.0, fixed_s: float = LONG, **options: Any
) -> Batcher[Item, str]:
    """A batcher whose runs are expected to take some time; by default so long that they are in threads."""
    times = Estimates(row_s, fixed_s)
    return Batcher(run, scheduler=scheduler, times=times, **{"max_rows": 4, "max_queued_rows": 100, **options})


async def submit(to: Batcher[Item, str], *items: Item) -> list[str]:
    """The results of items that are submitted together."""
    if len(items) == 1:
        return [await to.submit(items[0], items[0][1])]
    return await asyncio.gather(*to.submit_all(items, [rows for _, rows in items]))


@contextmanager
def calling(tenant: str = "", deadline_s: float = math.inf, **more: Any) -> Iterator[Call]:
    """What is submitted inside belongs to a call of its own."""
    call = Call(deadline_s, tenant, **more)
    token = CALL.set(call)
    try:
        yield call
    finally:
        CALL.reset(token)


async def settle() -> None:
    """Let everything run that can run."""
    for _ in range(30):
        await asyncio.sleep(0)


def start(work: Awaitable[Any]) -> "asyncio.Future[Any]":
    return asyncio.ensure_future(work)
