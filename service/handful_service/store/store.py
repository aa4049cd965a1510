"""The store: adaptations by (tenant, model, id), and its face for coroutines."""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from typing import Any, ParamSpec, TypeVar

from sqlalchemy import Connection, Engine, and_, delete, func, select, text
from sqlalchemy.exc import DBAPIError

from .. import errors
from .changes import add_state, checksum, chunks, lock, of, put_features, write
from .database import Database, available, upgrade
from .tables import ADAPTATIONS, EVENTS, EXAMPLES, FEATURES, STATES
from .values import Adaptation, Change, Event, Example, Key, NewState, RevisionMoved, State, Summary, text_label

LOG = logging.getLogger(__name__)
P = ParamSpec("P")
T = TypeVar("T")

# Statements that never change are built once; building one costs more than SQLite takes to answer it.
PING = text("SELECT version_num FROM alembic_version")
SUMMARY = select(
    ADAPTATIONS,
    select(func.count())
    .select_from(EXAMPLES)
    .where(*(EXAMPLES.c[name] == ADAPTATIONS.c[name] for name in ("tenant", "model", "id")))
    .scalar_subquery()
    .label("examples"),
)
STATE = select(STATES.c.digest, STATES.c.revision, STATES.c.statistics, STATES.c.phi, STATES.c.checksum).join(
    ADAPTATIONS,
    and_(*(STATES.c[name] == ADAPTATIONS.c[name] for name in ("tenant", "model", "id", "revision"))),
)


class Store:
    """Adaptations in a database. Every method is one transaction, and may be called from any thread.

    Every method raises `NotReady` while the database cannot be used.
    """

    def __init__(self, url: str) -> None:
        """Opens the database, and makes or migrates its tables.

        Args:
            url: `sqlite:////folder/handful.db` (the folder is made) or `postgresql://user@host/name`.

        Raises:
            NotReady: The database cannot be reached, or a newer server wrote it.
        """
        self._database = Database(url)
        try:
            with available():
                upgrade(self._database.writer)
        except BaseException:
            self.close()
            raise

    def heads(self, keys: Sequence[Key]) -> dict[Key, int]:
        """The current revisions of those adaptations that exist."""
        groups: dict[tuple[str, str], list[str]] = defaultdict(list)
        for key in keys:
            groups[key.tenant, key.model].append(key.id)
        found: dict[Key, int] = {}
        with self._connected(self._database.single) as connection:
            for (tenant, model), ids in groups.items():
                for part in chunks(ids):
                    query = select(ADAPTATIONS.c.id, ADAPTATIONS.c.revision).where(
                        ADAPTATIONS.c.tenant == tenant,
                        ADAPTATIONS.c.model == model,
                        ADAPTATIONS.c.id.in_(part),
                    )
                    found |= {Key(tenant, model, name): revision for name, revision in connection.execute(query)}
        return found

    def get(self, key: Key) -> Adaptation | None:
        """The adaptation with its examples, all of one revision."""
        with self._connected(self._database.snapshot) as connection:
            head = connection.execute(select(ADAPTATIONS).where(of(ADAPTATIONS, key))).one_or_none()
            if head is None:
                return None
            rows = connection.execute(select(EXAMPLES).where(of(EXAMPLES, key)).order_by(EXAMPLES.c.position)).all()
        return Adaptation(
            key=key,
            revision=head.revision,
            labels=tuple(head.labels),
            created_at=head.created_at,
            updated_at=head.updated_at,
            examples=tuple(_example(row) for row in rows),
            descriptor=head.descriptor,
        )

    def state(self, key: Key, digest: str) -> State | None:
        """φ of the current revision for a bundle, if it is stored and undamaged."""
        query = STATE.where(of(STATES, key), STATES.c.digest == digest)
        with self._connected(self._database.single) as connection:
            row = connection.execute(query).one_or_none()
        if row is None:
            return None
        if checksum(row.statistics, row.phi) != row.checksum:
            LOG.warning("the state of %s for bundle %s is damaged and will be rebuilt", key, digest)
            return None
        return State(row.digest, row.revision, row.statistics, row.phi)

    def features(self, key: Key, digest: str) -> dict[str, bytes]:
        """The stored features of the examples for a bundle, by example id; damaged ones are left out."""
        query = select(FEATURES.c.example_id, FEATURES.c.value, FEATURES.c.checksum).where(
            of(FEATURES, key), FEATURES.c.digest == digest
        )
        with self._connected(self._database.single) as connection:
            rows = connection.execute(query).all()
        whole = {row.example_id: row.value for row in rows if checksum(row.value) == row.checksum}
        if len(whole) < len(rows):
            LOG.warning("%d features of %s for bundle %s are damaged", len(rows) - len(whole), key, digest)
        return whole

    def events(self, key: Key, event_ids: Sequence[str]) -> dict[str, Event]:
        """Those of the events that are stored, by their ids."""
        query = select(EVENTS.c.event_id, EVENTS.c.fingerprint, EVENTS.c.result).where(of(EVENTS, key))
        found: dict[str, Event] = {}
        with self._connected(self._database.single) as connection:
            for part in chunks(event_ids):
                rows = connection.execute(query.where(EVENTS.c.event_id.in_(part)))
                found |= {row.event_id: Event(row.event_id, row.fingerprint, row.result) for row in rows}
        return found

    def commit(self, change: Change, *, expected: int | None) -> int:
        """The new revision, with the whole change stored; on any error nothing is.

        Args:
            change: What to write.
            expected: The revision that the change was worked out from; None: the adaptation is new.

        Raises:
            RevisionMoved: The adaptation is at another revision, or an event of the change is stored already.
        """
        with self._writing() as connection:
            revision = write(connection, change, expected, datetime.now(UTC))
        if change.remove or (change.replace and expected is not None):
            self._forget()
        return revision

    def save_state(self, key: Key, revision: int, state: NewState, features: Mapping[str, bytes]) -> bool:
        """Stores a rebuilt φ, and features of its examples, without a new revision.

        Returns:
            False, with nothing stored, if the revision is no longer the current one.
        """
        with self._writing() as connection:
            if lock(connection, key) != revision:
                return False
            connection.execute(delete(STATES).where(of(STATES, key), STATES.c.digest == state.digest))
            add_state(connection, key, state, revision)
            put_features(connection, key, state.digest, features)
        return True

    def delete(self, key: Key, *, expected: int | None) -> bool:
        """Deletes an adaptation with its examples, features, states and events.

        Args:
            key: Which one.
            expected: The revision it must be at; None: any.

        Returns:
            False if there was none.

        Raises:
            RevisionMoved: It is at another revision.
        """
        with self._writing() as connection:
            found = lock(connection, key)
            if found is not None and expected not in (None, found):
                raise RevisionMoved(found)
            connection.execute(delete(ADAPTATIONS).where(of(ADAPTATIONS, key)))
        if found is not None:
            self._forget()
        return found is not None

    def list(self, tenant: str, model: str, *, after: str | None, limit: int) -> Sequence[Summary]:
        """Up to `limit` adaptations by id, in byte order, beginning behind the id `after`."""
        mine = SUMMARY.where(ADAPTATIONS.c.tenant == tenant, ADAPTATIONS.c.model == model)
        rest = mine if after is None else mine.where(ADAPTATIONS.c.id > after)
        with self._connected(self._database.single) as connection:
            rows = connection.execute(rest.order_by(ADAPTATIONS.c.id).limit(limit)).all()
        return [_summary(row) for row in rows]

    def ping(self) -> None:
        """Returns if the database answers."""
        with self._connected(self._database.single) as connection:
            connection.execute(PING)

    def close(self) -> None:
        """Gives the connections back."""
        self._database.close()

    @contextmanager
    def _connected(self, engine: Engine) -> Iterator[Connection]:
        with available(), engine.connect() as connection:
            yield connection

    def _forget(self) -> None:
        try:
            self._database.forget()
        except DBAPIError as error:  # the deletion itself is committed, so this is no failure of the call
            LOG.warning("the write-ahead log could not be emptied: %s", error.orig)

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        with available(), self._database.writer.begin() as connection:
            yield connection


def _example(row: Any) -> Example:
    return Example(
        example_id=row.example_id,
        label=text_label(row.label),
        weight=row.weight,
        position=row.position,
        source=row.source,
        created_at=row.created_at,
        input=row.input,
    )


def _summary(row: Any) -> Summary:
    return Summary(
        key=Key(row.tenant, row.model, row.id),
        revision=row.revision,
        labels=tuple(row.labels),
        examples=row.examples,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )


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
        self._reads = _Lane("store-read", readers, max_waiting)
        self._writes = _Lane("store-write", 1, max_waiting)

    async def heads(self, keys: Sequence[Key]) -> dict[Key, int]:
        """As `Store.heads`."""
        return await self._reads.run(self._store.heads, keys)

    async def get(self, key: Key) -> Adaptation | None:
        """As `Store.get`."""
        return await self._reads.run(self._store.get, key)

    async def state(self, key: Key, digest: str) -> State | None:
        """As `Store.state`."""
        return await self._reads.run(self._store.state, key, digest)

    async def features(self, key: Key, digest: str) -> dict[str, bytes]:
        """As `Store.features`."""
        return await self._reads.run(self._store.features, key, digest)

    async def events(self, key: Key, event_ids: Sequence[str]) -> dict[str, Event]:
        """As `Store.events`."""
        return await self._reads.run(self._store.events, key, event_ids)

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
        self._store.close()
