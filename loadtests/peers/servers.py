"""A server at work, a peer's or our own: started, found to answer rightly, and stopped with all that it started."""

import os
import signal
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from loadtests.peers.catalogue import OURS, WIDTHS, Setting, body_of, path_of, scores_of
from loadtests.peers.graphs import Array
from loadtests.process import free_port, server, worker_flags
from loadtests.tree import cpu_s, descendants

PROGRAMS = Path(__file__).parent / "servers"
READY_WITHIN_S = 120
STOPPED_WITHIN_S = 2
SETTLED_WITHIN_S = 60
WINDOW_S, QUIET_WINDOWS, QUIET_SHARE = 0.25, 3, 0.3
"""A server is idle when it used less than this share of one core in so many windows on end."""

TOLERANCE = 1e-3
"""Of probabilities: what float32 in another order of rows makes of them is far less."""


class ServerFailed(Exception):
    """A server did not start, or did not answer as it should."""


@dataclass(frozen=True, slots=True)
class Up:
    """A server that answers.

    Attributes:
        url: Of its predictions.
        pid: The root of its tree of processes.
    """

    peer: str
    url: str
    pid: int
    key: str | None = None

    def scores(self, rows: Array, user: int | None) -> Array:
        """Probabilities `[n, 10]` that the server answers with for rows `[n, width]`.

        Raises:
            ServerFailed: it answers with an error, or with something else.
        """
        body = body_of(self.peer, [[round(float(value), 4) for value in row] for row in rows], user)
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {self.key}"} if self.key else {})
        request = urllib.request.Request(self.url, body, headers)  # noqa: S310 (loopback)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 (loopback)
                return scores_of(self.peer, answer.read())
        except urllib.error.HTTPError as error:
            raise ServerFailed(f"{self.peer} answers {error.code}: {error.read()[:300]!r}") from None
        except (OSError, KeyError, ValueError) as error:
            raise ServerFailed(f"{self.peer}: {error}") from None

    def check(self, rows: Array, expected: Array, user: int | None) -> None:
        """Hold the server's answers to what they must be.

        Raises:
            ServerFailed: they differ.
        """
        found = self.scores(rows, user)
        if found.shape != expected.shape or not np.allclose(found, expected, atol=TOLERANCE):
            raise ServerFailed(f"{self.peer} answers {found[:1]}, {expected[:1]} is right")


@contextmanager
def peer(setting: Setting, python: Path, graphs: Path, model: str) -> Iterator[Up]:
    """A peer's server on a free port, stopped after the block.

    Raises:
        ServerFailed: it ended before it answered, or did not answer in time.
    """
    port, program = free_port(), PROGRAMS / f"{setting.peer}_server.py"
    with tempfile.TemporaryDirectory(prefix="peer-", ignore_cleanup_errors=True) as scratch:
        told = {
            "PEER_GRAPHS": str(graphs.absolute()),
            "PEER_MODEL": model,
            "PEER_WAY": setting.way,
            "PEER_PORT": str(port),
            "PEER_SCRATCH": scratch,
        }
        log = Path(scratch) / "log"
        with log.open("wb") as out:
            command = [str(python.absolute()), str(program), *_flags(setting, port)]
            process = subprocess.Popen(  # noqa: S603 (a program of this folder)
                command,
                cwd=PROGRAMS,
                env=_environment(python) | told | dict(setting.environment),
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        up = Up(setting.peer, f"http://127.0.0.1:{port}{path_of(setting.peer, model)}", process.pid)
        try:
            _wait(up, process, model, log)
            settle(process.pid)
            yield up
        finally:
            stop(process)


def _flags(setting: Setting, port: int) -> list[str]:
    return ["--port", str(port), "--address", "127.0.0.1"] if setting.peer == "mosec" else []


def _environment(python: Path) -> Mapping[str, str]:
    """Ours without what is meant for our own server; one thread for whatever else a library may start."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HANDFUL_", "PYTHONPATH"))}
    quiet = {"BENTOML_DO_NOT_TRACK": "True", "RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1"}
    return {**kept, **quiet, "PATH": f"{python.parent.absolute()}:{kept.get('PATH', '')}"}


def _wait(up: Up, process: "subprocess.Popen[bytes]", model: str, log: Path) -> None:
    until, rows = time.monotonic() + READY_WITHIN_S, np.zeros((1, WIDTHS[model]), np.float32)
    while process.poll() is None and time.monotonic() < until:
        try:
            up.scores(rows, 0)
        except ServerFailed as error:
            said = str(error)
            time.sleep(0.1)
        else:
            return
    tail = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
    ended = f"ended with {process.returncode}" if process.poll() is not None else f"is not ready: {said}"
    raise ServerFailed(f"{up.peer} {ended}; its log ends with {tail}")


def settle(pid: int) -> None:
    """Return when the tree is idle: the first worker answers while others may still be loading. Waits for a minute."""
    until, quiet = time.monotonic() + SETTLED_WITHIN_S, 0
    while quiet < QUIET_WINDOWS and time.monotonic() < until:
        before = cpu_s(pid)
        time.sleep(WINDOW_S)
        quiet = quiet + 1 if cpu_s(pid) - before < QUIET_SHARE * WINDOW_S else 0


def stop(process: "subprocess.Popen[bytes]") -> None:
    """End a server and every process that it started."""
    started = descendants(process.pid)
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(STOPPED_WITHIN_S)
    for pid in started:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()


@contextmanager
def ours(bundles: Path, model: str, home: Path, *, flags: tuple[str, ...] = (), workers: int = 2) -> Iterator[Up]:
    """Our own server with the one bundle, an API key, and the store of a folder.

    Args:
        bundles: The folder with the bundles of all models.
        home: Where the store is kept.
        flags: Beside the defaults.
    """
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / model).symlink_to((bundles / model).absolute())
        every = [*worker_flags(workers), *flags]
        with server(bundles=folder, key=True, flags=every, home=home) as running:
            settle(running.pid)
            yield Up(OURS, f"{running.url}{path_of(OURS, model)}", running.pid, running.key)
