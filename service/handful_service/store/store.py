"""The store: adaptations by (tenant, model, id)."""

import logging
import sqlite3
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Engine, and_, bindparam, delete, func, select, text
from sqlalchemy.exc import DBAPIError

from .changes import checksum, chunks, lock, put_features, put_state, whole, write
from .database import Database, available, upgrade
from .generation import Generation
from .mine import mine, named
from .sqlite_loads import SqliteLoads
from .tables import ADAPTATIONS, EVENTS, EXAMPLES, FEATURES, STATES, STATISTICS
from .values import (
    Adaptation,
    Change,
    Event,
    Example,
    Key,
    Loaded,
    NewState,
    RevisionMoved,
    State,
    Statistics,
    Summary,
    text_label,
)

LOG = logging.getLogger(__name__)

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
CURRENT = and_(*(STATES.c[name] == ADAPTATIONS.c[name] for name in ("tenant", "model", "id", "revision")))
LOAD = (
    select(ADAPTATIONS.c.revision.label("current"), STATES)
    .join_from(ADAPTATIONS, STATES, and_(CURRENT, STATES.c.digest == bindparam("of_digest")), isouter=True)
    .where(mine(ADAPTATIONS))
)
ITS_STATISTICS = (
    select(STATES.c.revision, STATISTICS.c.value, STATISTICS.c.checksum)
    .join(ADAPTATIONS, CURRENT)
    .join(STATISTICS, and_(*(STATES.c[name] == STATISTICS.c[name] for name in ("tenant", "model", "id", "digest"))))
    .where(mine(STATES), STATES.c.digest == bindparam("of_digest"))
)
HEADS = select(ADAPTATIONS.c.id, ADAPTATIONS.c.revision).where(
    ADAPTATIONS.c.tenant == bindparam("key_tenant"),
    ADAPTATIONS.c.model == bindparam("key_model"),
    ADAPTATIONS.c.id.in_(bindparam("ids", expanding=True)),
)
HEAD = select(ADAPTATIONS).where(mine(ADAPTATIONS))
ITS_EXAMPLES = select(EXAMPLES).where(mine(EXAMPLES)).order_by(EXAMPLES.c.position)
ITS_FEATURES = select(FEATURES.c.example_id, FEATURES.c.value, FEATURES.c.checksum).where(
    mine(FEATURES), FEATURES.c.digest == bindparam("of_digest")
)
ITS_EVENTS = select(EVENTS.c.event_id, EVENTS.c.fingerprint, EVENTS.c.result).where(
    mine(EVENTS), EVENTS.c.event_id.in_(bindparam("ids", expanding=True))
)
DROP = delete(ADAPTATIONS).where(mine(ADAPTATIONS))


class Store:
    """Adaptations in a database. Every method is one transaction, and may be called from any thread.

    Every method raises `NotReady` while the database cannot be used.

    Attributes:
        loads: The quick way to what predictions need, where the database is a file of SQLite.
    """

    def __init__(self, url: str) -> None:
        """Opens the database, and makes or migrates its tables.

        Args:
            url: `sqlite:////folder/handful.db` (the folder is made) or `postgresql://user@host/name`.

        Raises:
            NotReady: The database cannot be reached, or a newer server wrote it.
        """
        self._database = Database(url)
        self.loads = None if self._database.file is None else SqliteLoads(self._database.file)
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
                    rows = connection.execute(HEADS, {"key_tenant": tenant, "key_model": model, "ids": part})
                    found |= {Key(tenant, model, name): revision for name, revision in rows}
        return found

    def get(self, key: Key) -> Adaptation | None:
        """The adaptation with its examples, all of one revision."""
        with self._connected(self._database.snapshot) as connection:
            head = connection.execute(HEAD, named(key)).one_or_none()
            if head is None:
                return None
            rows = connection.execute(ITS_EXAMPLES, named(key)).all()
        return Adaptation(
            key=key,
            revision=head.revision,
            labels=tuple(head.labels),
            created_at=head.created_at,
            updated_at=head.updated_at,
            examples=tuple(_example(row) for row in rows),
            descriptor=head.descriptor,
        )

    def load(self, key: Key, digest: str) -> Loaded | None:
        """What a prediction with a bundle needs of an adaptation; None if there is no such adaptation."""
        if self.loads is not None:
            try:
                return self.loads.load(key, digest)
            except sqlite3.Error:
                pass  # it waits below, or is told what is wrong
        with self._connected(self._database.single) as connection:
            row = connection.execute(LOAD, named(key) | {"of_digest": digest}).one_or_none()
        if row is None:
            return None
        if row.phi is None or not whole(key, digest, row.phi, row.checksum):
            return Loaded(row.current, None)
        return Loaded(row.current, State(digest, row.phi, tuple(row.labels), row.shots, row.task, row.described))

    def statistics(self, key: Key, digest: str) -> Statistics | None:
        """What the state of the current revision for a bundle came from, if it is stored and undamaged."""
        with self._connected(self._database.single) as connection:
            row = connection.execute(ITS_STATISTICS, named(key) | {"of_digest": digest}).one_or_none()
        if row is None:
            return None
        if checksum(row.value) != row.checksum:
            LOG.warning("the statistics of %s for bundle %s are damaged and will be summed again", key, digest)
            return None
        return Statistics(row.revision, row.value)

    def features(self, key: Key, digest: str) -> dict[str, bytes]:
        """The stored features of the examples for a bundle, by example id; damaged ones are left out."""
        with self._connected(self._database.single) as connection:
            rows = connection.execute(ITS_FEATURES, named(key) | {"of_digest": digest}).all()
        whole = {row.example_id: row.value for row in rows if checksum(row.value) == row.checksum}
        if len(whole) < len(rows):
            LOG.warning("%d features of %s for bundle %s are damaged", len(rows) - len(whole), key, digest)
        return whole

    def events(self, key: Key, event_ids: Sequence[str]) -> dict[str, Event]:
        """Those of the events that are stored, by their ids."""
        found: dict[str, Event] = {}
        with self._connected(self._database.single) as connection:
            for part in chunks(event_ids):
                rows = connection.execute(ITS_EVENTS, named(key) | {"ids": part})
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
        with self._database.turn():
            with self._writing() as connection:
                revision = write(connection, change, expected, datetime.now(UTC))
            if change.remove or (change.replace and expected is not None):
                self._forget()
        return revision

    def save_state(self, key: Key, revision: int, state: NewState, features: Mapping[str, bytes]) -> bool:
        """Stores a rebuilt state, and features of its examples, without a new revision.

        Returns:
            False, with nothing stored, if the revision is no longer the current one.
        """
        with self._database.turn(), self._writing() as connection:
            if lock(connection, key) != revision:
                return False
            put_state(connection, key, state, revision)
            put_features(connection, key, state.state.digest, features)
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
        with self._database.turn():
            with self._writing() as connection:
                found = lock(connection, key)
                if found is not None and expected not in (None, found):
                    raise RevisionMoved(found)
                connection.execute(DROP, named(key))
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

    @property
    def generation(self) -> Generation | None:
        """What every commit moves, where the database is a file of SQLite."""
        return self._database.generation

    @property
    def file(self) -> str | None:
        """The path of the database, where it is a file of SQLite."""
        return self._database.file

    def ping(self) -> None:
        """Returns if the database answers."""
        with self._connected(self._database.single) as connection:
            connection.execute(PING)

    def close(self) -> None:
        """Gives the connections back."""
        if self.loads is not None:
            self.loads.close()
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
        try:
            with available(), self._database.writer.begin() as connection:
                yield connection
        finally:
            self._database.tell()


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
