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
from .sqlite_loads import TooMany
from .store import Store
from .values import Adaptation, Change, Event, Key, Loaded, NewState, State, Summary

P = ParamSpec("P")
T = TypeVar("T")


MOST_EXAMPLES = 256
"""Of an adaptation that is loaded where the caller stands: more would hold the event loop up."""

SLOW_S = 0.002
"""A load that took longer waited for a disk, most likely."""

RESTING = 32
"""Loads that are left to threads after a slow one."""


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
        self._heads = None if store.file is None else SqliteHeads(store.file)
        self._loads = store.loads
        self._resting = 0
        self._reads = _Lane("store-read", readers, max_waiting)
        self._writes = _Lane("store-write", 1, max_waiting)

    def head_now(self, key: Key) -> int | None:
        """The current revision of an adaptation in SQLite; None where there is none, or it cannot be told at once."""
        if self._heads is None:
            return None
        revision = self._heads.find_one(key)
        return (self._heads.find([key]) or {}).get(key) if revision is None else revision

    async def heads(self, keys: Sequence[Key]) -> dict[Key, int]:
        """As `Store.heads`; a few of SQLite are looked up right here."""
        found = None if self._heads is None else self._heads.find(keys)
        return await self._reads.run(self._store.heads, keys) if found is None else found

    async def get(self, key: Key) -> Adaptation | None:
        """As `Store.get`."""
        return await self._reads.run(self._store.get, key)

    async def state(self, key: Key, digest: str) -> State | None:
        """As `Store.state`."""
        return await self._reads.run(self._store.state, key, digest)

    def load_now(self, key: Key, digest: str) -> Loaded | None:
        """As `load`, right here: a change of threads costs more. None where there is nothing, or it cannot be told.

        What SQLite reads is in memory as a rule. Where it is not, this is left to threads for a while.
        """
        if self._loads is None:
            return None
        if self._resting:
            self._resting -= 1
            return None
        started = time.perf_counter()
        try:
            return self._loads.load(key, digest, MOST_EXAMPLES)
        except (sqlite3.Error, TooMany):
            return None
        finally:
            if time.perf_counter() - started > SLOW_S:
                self._resting = RESTING

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
