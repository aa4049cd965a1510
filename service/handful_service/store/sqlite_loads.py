"""What a prediction needs of a stored adaptation, read from SQLite in two statements without an engine around them.

Where the cache holds fewer states than there are users, many calls read one, and building the statements, connections
and rows of the general path takes several times as long as SQLite does.
"""

import json
import logging
import sqlite3
import threading

from .changes import checksum
from .sqlite_reading import reading
from .tables import ADAPTATIONS, EXAMPLES, STATES
from .values import Key, Loaded, State, text_label

LOG = logging.getLogger(__name__)

_HEAD = (
    "SELECT a.revision, a.labels, a.descriptor, s.statistics, s.phi, s.checksum "  # noqa: S608 (constants)
    f"FROM {ADAPTATIONS.name} a LEFT JOIN {STATES.name} s ON s.tenant = a.tenant AND s.model = a.model AND s.id = a.id "
    "AND s.revision = a.revision AND s.digest = ? WHERE a.tenant = ? AND a.model = ? AND a.id = ?"
)
_EXAMPLES = (
    f"SELECT label, weight FROM {EXAMPLES.name} "  # noqa: S608 (constants)
    "WHERE tenant = ? AND model = ? AND id = ? ORDER BY position LIMIT ?"
)
_ALL = -1


class TooMany(Exception):
    """The adaptation has more examples than were asked for."""


class SqliteLoads:
    """Connections that only read, one for each thread that asks.

    Args:
        path: The file of the database.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._own = threading.local()
        self._all: list[sqlite3.Connection] = []

    def load(self, key: Key, digest: str, most: int | None = None) -> Loaded | None:
        """As `Store.load`.

        Args:
            key: Which adaptation.
            digest: Of the bundle.
            most: Examples that it may have; None: any number.

        Raises:
            sqlite3.Error: SQLite cannot answer at once, whatever the reason: the general path waits, and tells.
            TooMany: it has more examples.
        """
        limit = _ALL if most is None else most + 1
        connection = self._connection()
        try:
            connection.execute("BEGIN")  # both statements see one moment
            head = connection.execute(_HEAD, (digest, key.tenant, key.model, key.id)).fetchone()
            names = key.tenant, key.model, key.id
            rows = [] if head is None else connection.execute(_EXAMPLES, (*names, limit)).fetchall()
        finally:
            if connection.in_transaction:
                connection.execute("COMMIT")
        if head is None:
            return None
        if most is not None and len(rows) > most:
            raise TooMany
        revision, labels, descriptor, statistics, phi, known = head
        whole = phi is not None and checksum(statistics, phi) == known
        if phi is not None and not whole:
            LOG.warning("the state of %s for bundle %s is damaged and will be rebuilt", key, digest)
        return Loaded(
            revision=revision,
            labels=tuple(json.loads(labels)),
            descriptor=None if descriptor is None else json.loads(descriptor),
            examples=tuple([(text_label(label), weight) for label, weight in rows]),
            state=State(digest, revision, statistics, phi) if whole else None,
        )

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
