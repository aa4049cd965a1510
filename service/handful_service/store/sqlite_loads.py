"""What a prediction needs of a stored adaptation, read from SQLite in one statement without an engine around it.

Where the cache holds fewer states than there are users, many calls read one, and building the statements, connections
and rows of the general path takes several times as long as SQLite does.
"""

import json
import sqlite3
import threading
from functools import lru_cache

from .changes import whole
from .sqlite_reading import reading
from .tables import ADAPTATIONS, STATES
from .values import Key, Loaded, State

_LOAD = (
    "SELECT a.revision, s.phi, s.checksum, s.labels, s.shots, s.task, s.described "  # noqa: S608 (constants)
    f"FROM {ADAPTATIONS.name} a LEFT JOIN {STATES.name} s ON s.tenant = a.tenant AND s.model = a.model AND s.id = a.id "
    "AND s.revision = a.revision AND s.digest = ? WHERE a.tenant = ? AND a.model = ? AND a.id = ?"
)


@lru_cache(maxsize=4096)
def _labels(text: str) -> tuple[str | None, ...]:
    """The labels in a column. Users who have the same share them: ten names take half a kilobyte."""
    return tuple(json.loads(text))


class SqliteLoads:
    """Connections that only read, one for each thread that asks.

    Args:
        path: The file of the database.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._own = threading.local()
        self._all: list[sqlite3.Connection] = []

    def load(self, key: Key, digest: str) -> Loaded | None:
        """As `Store.load`.

        Raises:
            sqlite3.Error: SQLite cannot answer at once, whatever the reason: the general path waits, and tells.
        """
        row = self._connection().execute(_LOAD, (digest, *key)).fetchone()
        if row is None:
            return None
        revision, phi, checksum, labels, shots, task, described = row
        if phi is None or not whole(key, digest, phi, checksum):
            return Loaded(revision, None)
        return Loaded(revision, State(digest, phi, _labels(labels), shots, task, bool(described)))

    def _connection(self) -> sqlite3.Connection:
        found: sqlite3.Connection | None = getattr(self._own, "connection", None)
        if found is None:
            found = self._own.connection = reading(self._path)
            self._all.append(found)
        return found

    def close(self) -> None:
        """Give all connections back; nobody may be reading."""
        for connection in self._all:
            connection.close()
        self._all.clear()
        self._own = threading.local()
