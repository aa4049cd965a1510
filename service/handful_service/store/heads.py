"""Revisions of SQLite's adaptations, read where the caller stands: a change of threads costs many times the look-up."""

import sqlite3
import time
from collections.abc import Sequence

from .generation import Generation
from .sqlite_reading import reading
from .tables import ADAPTATIONS
from .values import Key

_HEADS = f"SELECT id, revision FROM {ADAPTATIONS.name} WHERE tenant = ? AND model = ? AND id IN "  # noqa: S608 (a constant)

_VERSION = "PRAGMA data_version"
"""Another number than before if any other connection, of whatever process, has committed something since."""

ASK_S = 0.05
"""SQLite itself is asked so often, for what others than Handful commit."""

MOST = 64
"""Keys of one call that are looked up here: more would hold the event loop up."""


class SqliteHeads:
    """A connection of its own, which only reads. Each look-up sees all that was committed before it, by whomever.

    In WAL mode a reader never waits for a writer. Where SQLite says that it cannot answer at once, whatever the reason,
    the caller has to ask the store itself, which waits, and tells what is wrong.

    Args:
        path: The file of the database.
        generation: What every commit by Handful moves; None: SQLite is asked each time.
    """

    def __init__(self, path: str, generation: Generation | None = None) -> None:
        self._path = path
        self._generation = generation
        self._connection: sqlite3.Connection | None = None
        self._as_of = 0
        self._seen: tuple[int, int] | None = None
        self._number = 0
        self._ask_at = 0.0

    def as_of(self) -> int:
        """A number, above 0, that stays the same for as long as nothing is committed.

        It moves at once with what Handful commits, whichever process, and within `ASK_S` with what other programs do.
        0 where SQLite cannot answer at once.
        """
        number = 0 if self._generation is None else self._generation.number
        now = time.monotonic()
        if number == self._number and now < self._ask_at:
            return self._as_of
        try:
            seen = number, self._connected().execute(_VERSION).fetchone()[0]
        except sqlite3.Error:
            self.close()
            return 0
        if seen != self._seen:
            self._seen = seen
            self._as_of += 1
        if self._generation is not None:
            self._number, self._ask_at = number, now + ASK_S
        return self._as_of

    def find(self, keys: Sequence[Key]) -> dict[Key, int] | None:
        """The current revisions of those adaptations that exist; None where SQLite cannot answer at once."""
        if len(keys) > MOST:
            return None
        try:
            return _read(self._connected(), keys)
        except sqlite3.Error:
            self.close()
            return None

    def close(self) -> None:
        """Give the connection back; the next look-up makes a new one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self._seen = None  # numbers of one connection say nothing about those of another
        self._ask_at = 0.0

    def _connected(self) -> sqlite3.Connection:
        if self._connection is None:
            self._connection = reading(self._path)
        return self._connection


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
