"""Very many adaptations in a server's SQLite file, cloned from a few that were made over HTTP.

A clone has what its original has: labels, examples, features and state; only its id and its revision are its own. The
server must not run meanwhile.
"""

import sqlite3
from pathlib import Path

AT_ONCE = 5_000
"""Adaptations of one transaction."""

TABLES = ("adaptations", "examples", "features", "states", "statistics")
"""Parents first."""


def user_name(user: int) -> str:
    """The id of a user's adaptation."""
    return f"user-{user:07d}"


def clone(path: Path, tenant: str, model: str, *, originals: int, users: int) -> None:
    """Make adaptations `originals` to `users - 1` as copies of 0 to `originals - 1`, in turn.

    Raises:
        ValueError: the originals are not there.
    """
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        # A file that a crash spoils is made anew, so nothing waits for the disk.
        connection.executescript("PRAGMA synchronous=OFF; PRAGMA cache_size=-400000; PRAGMA temp_store=MEMORY;")
        owner = (tenant, model)
        count = "SELECT count(*) FROM adaptations WHERE tenant = ? AND model = ?"
        found = connection.execute(count, owner).fetchone()[0]
        if found != originals:
            raise ValueError(f"there are {found} adaptations of {model}, {originals} are expected")
        connection.execute("CREATE TEMP TABLE pairs (original TEXT, id TEXT, number INTEGER)")
        for start in range(originals, users, AT_ONCE):
            pairs = [(user_name(n % originals), user_name(n), n) for n in range(start, min(users, start + AT_ONCE))]
            connection.execute("BEGIN")
            connection.execute("DELETE FROM pairs")
            connection.executemany("INSERT INTO pairs VALUES (?, ?, ?)", pairs)
            for table in TABLES:
                connection.execute(_copy(connection, table), owner)
            connection.execute("COMMIT")
        last = "SELECT max(revision) FROM adaptations WHERE tenant = ? AND model = ?"
        update = f"UPDATE revision_counters SET last = ({last}) WHERE tenant = ? AND model = ?"  # noqa: S608 (constants)
        connection.execute(update, (*owner, *owner))
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    finally:
        connection.close()


def _copy(connection: sqlite3.Connection, table: str) -> str:
    """A statement that copies the rows of the originals in `pairs`.

    A revision is the original's and a million times the clone's number: no two adaptations of the model share one, and
    a state still has that of its adaptation.
    """
    names = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
    own = {"id": "pairs.id", "revision": "rows.revision + 1000000 * pairs.number"}
    values = [own.get(name, f"rows.{name}") for name in names]
    return (
        f"INSERT INTO {table} ({', '.join(names)}) SELECT {', '.join(values)} "  # noqa: S608 (names of tables)
        f"FROM pairs CROSS JOIN {table} AS rows ON rows.id = pairs.original WHERE rows.tenant = ? AND rows.model = ?"
    )
