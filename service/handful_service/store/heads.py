"""Revisions of SQLite's adaptations, read where the caller stands: a change of threads costs many times the look-up."""

import sqlite3
from collections.abc import Sequence

from .sqlite_reading import reading
from .tables import ADAPTATIONS
from .values import Key

_HEADS = f"SELECT id, revision FROM {ADAPTATIONS.name} WHERE tenant = ? AND model = ? AND id IN "  # noqa: S608 (a constant)

_CHANGES = "PRAGMA data_version"
"""Another number than before if any other connection, of whatever process, has committed something since."""

MOST_KNOWN = 2**17
"""Revisions that are remembered, while nothing is committed."""

MOST = 64
"""Keys of one call that are looked up here: more would hold the event loop up."""


class SqliteHeads:
    """A connection of its own, which only reads. Each look-up sees all that was committed before it, by whomever.

    A revision that was read holds until somebody commits, which SQLite tells in less time than it reads one.

    In WAL mode a reader never waits for a writer. Where SQLite says that it cannot answer at once, whatever the reason,
    the caller has to ask the store itself, which waits, and tells what is wrong.

    Args:
        path: The file of the database.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._connection: sqlite3.Connection | None = None
        self._known: dict[Key, int] = {}
        self._as_of: int | None = None

    def find_one(self, key: Key) -> int | None:
        """The current revision of an adaptation, where it is remembered; None where `find` has to be asked."""
        if self._connection is None:
            return None
        try:
            as_of = self._connection.execute(_CHANGES).fetchone()[0]
        except sqlite3.Error:
            return None
        return self._known.get(key) if as_of == self._as_of else None

    def find(self, keys: Sequence[Key]) -> dict[Key, int] | None:
        """The current revisions of those adaptations that exist; None where SQLite cannot answer at once."""
        if len(keys) > MOST:
            return None
        try:
            if self._connection is None:
                self._connection = reading(self._path)
            as_of = self._connection.execute(_CHANGES).fetchone()[0]
            if as_of != self._as_of or len(self._known) > MOST_KNOWN:
                self._known.clear()
                self._as_of = as_of
            found: dict[Key, int] = {}
            others: list[Key] = []
            for key in keys:
                revision = self._known.get(key)
                if revision is None:
                    others.append(key)
                else:
                    found[key] = revision
            if others:
                read = _read(self._connection, others)  # perhaps what was committed just now: then it is read again
                self._known.update(read)
                found.update(read)
        except sqlite3.Error:
            self.close()
            return None
        return found

    def close(self) -> None:
        """Give the connection back; the next look-up makes a new one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
            self._known.clear()
            self._as_of = None


def _read(connection: sqlite3.Connection, keys: Sequence[Key]) -> dict[Key, int]:
    found: dict[Key, int] = {}
    for (tenant, model), ids in _by_model(keys).items():
        marks = ",".join("?" * len(ids))
        for name, revision in connection.execute(f"{_HEADS}({marks})", (tenant, model, *ids)).fetchall():
            found[Key(tenant, model, name)] = int(revision)
    return found


def _by_model(keys: Sequence[Key]) -> dict[tuple[str, str], list[str]]:
    """The ids of each tenant's model: those of a call are all of one."""
    found: dict[tuple[str, str], list[str]] = {}
    for key in keys:
        found.setdefault((key.tenant, key.model), []).append(key.id)
    return found
