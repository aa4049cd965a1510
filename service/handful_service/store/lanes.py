"""The store's face for coroutines: its methods, run by threads."""

import asyncio
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar

from .. import errors
from .heads import SqliteHeads
from .store import Store
from .values import Adaptation, Change, Event, Key, Loaded, NewState, Statistics, Summary

P = ParamSpec("P")
T = TypeVar("T")


QUICK_S = 0.0005
"""A load that takes no longer is done where the caller stands, however many there are."""

SHARE = 0.1
"""Of its time that the event loop may wait for loads that are slower: a disk is read, most likely."""

SAVED_S = 0.02
"""Of waiting that may be saved up."""


class _Stalls:
    """How long the event loop may still wait for the store."""

    def __init__(self) -> None:
        self._left = SAVED_S
        self._at = time.monotonic()

    def is_spent(self, now: float) -> bool:
        self._left = min(SAVED_S, self._left + SHARE * (now - self._at))
        self._at = now
        return self._left <= 0

    def spend(self, seconds: float) -> None:
        if seconds > QUICK_S:
            self._left -= seconds


class _Lane:
    """Threads, and a bound on the calls that wait for them."""

    def __init__(self, name: str, threads: int, max_waiting: int) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._max_waiting = max_waiting
        self._waiting = 0

    async def run(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        if self._waiting >= self._max_waiting:
            raise errors.Overloaded(f"{self._waiting} calls wait for the store, the limit is {self._max_waiting}")
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, partial(call, *args, **kwargs))
        finally:
            self._waiting -= 1

    def close(self) -> None:
        self._pool.shutdown()


class AsyncStore:
    """A store for coroutines: `Store`'s methods, run by threads.

    Writes have one thread, which makes it the one writer queue of the process: SQLite takes one writer at a
    time, and a queue here is fair where waiting for its lock is not. A call that is cancelled before its turn
    never happens; one that is cancelled in the middle completes. All calls come from one event loop.
    """

    def __init__(self, store: Store, *, readers: int = 4, max_waiting: int = 1024) -> None:
        """Takes the store over.

        Args:
            store: The store; `close` closes it.
            readers: Threads that read.
            max_waiting: Reads, and as many writes, that run or wait before more are refused (`Overloaded`).
        """
        self._store = store
        self._heads = None if store.file is None else SqliteHeads(store.file, store.generation)
        self._loads = store.loads
        self._stalls = _Stalls()
        self._reads = _Lane("store-read", readers, max_waiting)
        self._writes = _Lane("store-write", 1, max_waiting)

    def as_of(self) -> int:
        """As `SqliteHeads.as_of`; 0 for other databases."""
        return 0 if self._heads is None else self._heads.as_of()

    def head_now(self, key: Key) -> int | None:
        """The current revision of an adaptation in SQLite; None where there is none, or it cannot be told at once."""
        return None if self._heads is None else (self._heads.find([key]) or {}).get(key)

    async def heads(self, keys: Sequence[Key]) -> dict[Key, int]:
        """As `Store.heads`; a few of SQLite are looked up right here."""
        found = None if self._heads is None else self._heads.find(keys)
        return await self._reads.run(self._store.heads, keys) if found is None else found

    async def get(self, key: Key) -> Adaptation | None:
        """As `Store.get`."""
        return await self._reads.run(self._store.get, key)

    async def statistics(self, key: Key, digest: str) -> Statistics | None:
        """As `Store.statistics`."""
        return await self._reads.run(self._store.statistics, key, digest)

    def load_now(self, key: Key, digest: str) -> Loaded | None:
        """As `load`, right here: a change of threads costs more. None where there is nothing, or it cannot be told.

        What SQLite reads is in memory as a rule. Where it is not, this is left to threads before the event loop waits
        for a large part of its time.
        """
        started = time.monotonic()
        if self._loads is None or self._stalls.is_spent(started):
            return None
        try:
            return self._loads.load(key, digest)
        except sqlite3.Error:
            return None
        finally:
            self._stalls.spend(time.monotonic() - started)

    async def load(self, key: Key, digest: str) -> Loaded | None:
        """As `Store.load`."""
        return await self._reads.run(self._store.load, key, digest)

    async def features(self, key: Key, digest: str) -> dict[str, bytes]:
        """As `Store.features`."""
        return await self._reads.run(self._store.features, key, digest)

    async def events(self, key: Key, event_ids: Sequence[str]) -> dict[str, Event]:
        """As `Store.events`."""
        return await self._reads.run(self._store.events, key, event_ids) if event_ids else {}

    async def list(self, tenant: str, model: str, *, after: str | None, limit: int) -> Sequence[Summary]:
        """As `Store.list`."""
        return await self._reads.run(self._store.list, tenant, model, after=after, limit=limit)

    async def ping(self) -> None:
        """As `Store.ping`."""
        await self._reads.run(self._store.ping)

    async def commit(self, change: Change, *, expected: int | None) -> int:
        """As `Store.commit`."""
        return await self._writes.run(self._store.commit, change, expected=expected)

    async def save_state(self, key: Key, revision: int, state: NewState, features: Mapping[str, bytes]) -> bool:
        """As `Store.save_state`."""
        return await self._writes.run(self._store.save_state, key, revision, state, features)

    async def delete(self, key: Key, *, expected: int | None) -> bool:
        """As `Store.delete`."""
        return await self._writes.run(self._store.delete, key, expected=expected)

    async def close(self) -> None:
        """Waits for the calls under way, then closes the store."""
        for lane in (self._writes, self._reads):
            await asyncio.to_thread(lane.close)
        if self._heads is not None:
            self._heads.close()
        self._store.close()
