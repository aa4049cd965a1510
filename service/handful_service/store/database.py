"""The database behind the store: opening it, its kinds of transaction, its migrations, and its failures."""

import logging
import sqlite3
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, exc, inspect, make_url, text
from sqlalchemy.engine import URL

from .. import errors
from .generation import Generation
from .tables import HEAD_REVISION
from .turns import Turns

LOG = logging.getLogger(__name__)
MAX_LOCK_WAIT_MS = 5000

PRAGMAS = (
    # An acknowledged write is on the disk: in WAL mode NORMAL may lose the last ones in a power cut.
    "PRAGMA synchronous=FULL",
    "PRAGMA foreign_keys=ON",
    # What is deleted is overwritten, so that "deleted with all its data" is true of the file.
    "PRAGMA secure_delete=ON",
)

# Errors of ours. What remains is the database's: disk full, locked, read-only, damaged, connection lost.
OURS = (exc.IntegrityError, exc.DataError, exc.ProgrammingError, exc.NotSupportedError)


@contextmanager
def available() -> Iterator[None]:
    """A block in which a failing database is `NotReady`; the log says why, the caller is not told."""
    try:
        yield
    except OURS:
        raise
    except (exc.DBAPIError, exc.TimeoutError) as error:
        LOG.warning("the store cannot be used: %s", getattr(error, "orig", None) or error)
        raise errors.NotReady("the store cannot be read or written at the moment") from error


class Database:
    """One engine, seen as the three kinds of transaction that the store needs.

    Attributes:
        writer: Takes SQLite's write lock at the start, so that no transaction fails to get it halfway.
        snapshot: Several reads of one moment.
        single: One statement, without a transaction around it.
        file: The path of the database, where it is a file of SQLite and the URL says no more than that.
        generation: What is moved after each commit, where there is such a file.
    """

    def __init__(self, url: str) -> None:
        # `hide_parameters` below: an error that reaches the log must not carry people's inputs there.
        parsed = _checked(url)
        self._engine = _sqlite(parsed) if parsed.get_backend_name() == "sqlite" else _postgresql(parsed)
        plain = parsed.get_backend_name() == "sqlite" and not parsed.query
        self.file = parsed.database if plain else None
        self._turns = None if self.file is None else _turns(self.file)
        self.generation = None if self.file is None else _generation(self.file)
        self.writer: Engine = self._engine
        self.single: Engine = self._engine
        self.snapshot: Engine
        if self._engine.dialect.name == "sqlite":
            self.writer = self._engine.execution_options(begin="BEGIN IMMEDIATE")
            self.snapshot = self._engine.execution_options(begin="BEGIN")
        else:
            self.snapshot = self._engine.execution_options(isolation_level="REPEATABLE READ")
            self.single = self._engine.execution_options(isolation_level="AUTOCOMMIT")

    def forget(self) -> None:
        """Empties SQLite's write-ahead log, where what was deleted would lie until the log is used again.

        Where others read or write at this moment the log is left, and emptied by the next call or the last close.
        """
        if self._engine.dialect.name == "sqlite":
            with self.single.connect() as connection:
                connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")

    def turn(self) -> AbstractContextManager[None]:
        """A block in which this process may write, in its turn; PostgreSQL lets several write at once."""
        return nullcontext() if self._turns is None else self._turns.turn()

    def tell(self) -> None:
        """Tells all processes that something was committed, or may have been."""
        if self.generation is not None:
            self.generation.move()

    def close(self) -> None:
        """Gives all connections back."""
        self._engine.dispose()
        if self.generation is not None:
            self.generation.close()
            self.generation = None
        if self._turns is not None:
            self._turns.close()
            self._turns = None


def _checked(url: str) -> URL:
    try:
        parsed = make_url(url)
    except exc.ArgumentError:
        raise errors.NotReady("the store's URL cannot be read", allowed="sqlite:/// or postgresql://") from None
    if parsed.drivername in ("postgresql", "postgres", "postgresql+psycopg"):
        return parsed.set(drivername="postgresql+psycopg")
    if parsed.drivername != "sqlite":
        raise errors.NotReady(
            f"the store's URL starts with {parsed.drivername}://", allowed="sqlite:/// or postgresql://"
        )
    if parsed.database in (None, "", ":memory:"):
        raise errors.NotReady("the store's URL names no file", allowed="sqlite:////folder/handful.db")
    return parsed


def _sqlite(url: URL) -> Engine:
    folder = Path(str(url.database)).absolute().parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise errors.NotReady(f"the store's folder {folder} cannot be made: {error.strerror}") from error
    engine = create_engine(url, hide_parameters=True)
    event.listen(engine, "connect", _prepare)
    event.listen(engine, "begin", _begin)
    return engine


def _turns(file: str) -> Turns | None:
    try:
        return Turns(f"{file}-turns", MAX_LOCK_WAIT_MS / 1000)
    except OSError as error:  # what it is for is fairness only
        LOG.warning("%s-turns cannot be opened: %s", file, error.strerror)
        return None


def _generation(file: str) -> Generation | None:
    try:
        return Generation(f"{file}-generation")
    except OSError as error:  # SQLite itself can tell, too
        LOG.warning("%s-generation cannot be used: %s", file, error.strerror)
        return None


def _prepare(connection: sqlite3.Connection, _record: Any) -> None:
    connection.isolation_level = None  # `_begin` opens transactions, not the driver, which would open them too late
    connection.execute(f"PRAGMA busy_timeout={MAX_LOCK_WAIT_MS}")
    _use_wal(connection)
    for pragma in PRAGMAS:
        connection.execute(pragma)


def _use_wal(connection: sqlite3.Connection) -> None:
    """Turns the write-ahead log on; waits, as SQLite does not, while others do so to the same new file."""
    give_up = time.monotonic() + MAX_LOCK_WAIT_MS / 1000
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL").fetchone()
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > give_up:
                raise
            time.sleep(0.01)
        else:
            return


def _begin(connection: Connection) -> None:
    statement = connection.get_execution_options().get("begin")
    if statement is not None:
        connection.exec_driver_sql(statement)


def _postgresql(url: URL) -> Engine:
    options = {"connect_timeout": MAX_LOCK_WAIT_MS // 1000, "options": f"-c lock_timeout={MAX_LOCK_WAIT_MS}"}
    try:
        connect_args = {name: value for name, value in options.items() if name not in url.query}
        return create_engine(url, connect_args=connect_args, hide_parameters=True)
    except ModuleNotFoundError as error:
        raise errors.NotReady("PostgreSQL needs an extra: pip install 'handful[postgres]'") from error


def upgrade(engine: Engine) -> None:
    """Brings a database to `HEAD_REVISION`, in one transaction; several processes may do so at once.

    Raises:
        NotReady: The database was written by a server that is newer than this one.
    """
    with engine.connect() as connection:
        version = _version(connection)
    if version == HEAD_REVISION:
        return
    with engine.begin() as connection:
        if connection.dialect.name == "postgresql":  # SQLite's writer holds the write lock already
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": 0x68616E6466756C})
        _migrate(connection, _version(connection))


def _version(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    version: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
    return version


def _migrate(connection: Connection, version: str | None) -> None:
    from alembic import command  # noqa: PLC0415 (0.3 s, for a start that has something to migrate only)
    from alembic.script import ScriptDirectory  # noqa: PLC0415

    config = alembic_config(connection)
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if version is not None and version not in known:
        raise errors.NotReady(
            f"the store is at version {version}, this server knows up to {HEAD_REVISION}: "
            "start the newer server again, or restore a copy of the store"
        )
    command.upgrade(config, "head")


def alembic_config(connection: Connection | None = None) -> Any:
    """Alembic's configuration for the migrations in this package."""
    from alembic.config import Config  # noqa: PLC0415

    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config
