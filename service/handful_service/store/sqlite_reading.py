"""A connection to a SQLite file that only reads, and is never told to wait."""

import sqlite3
from pathlib import Path


def reading(path: str) -> sqlite3.Connection:
    """The connection.

    Python's lock on threads is off: whoever closes it may be another thread than its one user.

    Args:
        path: The file of the database; a missing one is not made.

    Raises:
        sqlite3.Error: it cannot be opened.
    """
    uri = f"{Path(path).absolute().as_uri()}?mode=rw"
    connection = sqlite3.connect(uri, timeout=0, isolation_level=None, check_same_thread=False, uri=True)
    connection.execute("PRAGMA query_only=ON")
    return connection
