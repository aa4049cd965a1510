"""Revisions of SQLite's adaptations, read where the caller stands: a change of threads costs many times the look-up."""

import sqlite3
from collections.abc import Sequence
from pathlib import Path

from .tables import ADAPTATIONS
from .values import Key

_HEADS = f"SELECT id, revision FROM {ADAPTATIONS.name} WHERE tenant = ? AND model = ? AND id IN "  # noqa: S608 (a constant)

MOST = 64
"""Keys of one call that are looked up here: more would hold the event loop up."""


class SqliteHeads:
    """A connection of its own, which only reads. Each look-up sees all that was committed before it, by whomever.

    In WAL mode a reader never waits for a writer. Where SQLite says that it cannot answer at once, whatever the reason,
    the caller has to ask the store itself, which waits, and tells what is wrong.

    Args:
        path: The file of the database.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._connection: sqlite3.Connection | None = None

    def find(self, keys: Sequence[Key]) -> dict[Key, int] | None:
        """The current revisions of those adaptations that exist; None where SQLite cannot answer at once."""
        if len(keys) > MOST:
            return None
        try:
            if self._connection is None:
                self._connection = self._connect()
            found: dict[Key, int] = {}
            for (tenant, model), ids in _by_model(keys).items():
                marks = ",".join("?" * len(ids))
                for name, revision in self._connection.execute(f"{_HEADS}({marks})", (tenant, model, *ids)).fetchall():
                    found[Key(tenant, model, name)] = int(revision)
        except sqlite3.Error:
            self.close()
            return None
        return found

    def _connect(self) -> sqlite3.Connection:
        # Python's lock on threads is off since `close` may come from another one; there is one caller at a time.
        uri = f"{Path(self._path).absolute().as_uri()}?mode=rw"  # a missing file is not made
        connection = sqlite3.connect(uri, timeout=0, isolation_level=None, check_same_thread=False, uri=True)
        connection.execute("PRAGMA query_only=ON")
        return connection

    def close(self) -> None:
        """Give the connection back; the next look-up makes a new one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _by_model(keys: Sequence[Key]) -> dict[tuple[str, str], list[str]]:
    """The ids of each tenant's model: those of a call are all of one."""
    found: dict[tuple[str, str], list[str]] = {}
    for key in keys:
        found.setdefault((key.tenant, key.model), []).append(key.id)
    return found
