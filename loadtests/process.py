"""A server process for measurements."""

import hashlib
import json
import os
import platform
import secrets
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

TENANT = "load"
"""Whose adaptations the key of a measurement sees."""


@dataclass(frozen=True, slots=True)
class Running:
    """A ready server.

    Attributes:
        url: Where it listens.
        pid: Its process.
        ready_s: Seconds from the start of the process to its first ready answer.
        key: An API key that may do everything, where the server asks for one.
    """

    url: str
    pid: int
    ready_s: float
    key: str | None = None

    def cpu_s(self) -> float:
        """Seconds of CPU time that the process and its workers have used, in the kernel and outside."""
        return sum(_cpu_s(pid) for pid in self._tree())

    def resident_mb(self) -> float:
        """Resident memory of the process and its workers, in MiB; what they share counts for each."""
        return sum(_resident_mb(pid) for pid in self._tree())

    def _tree(self) -> list[int]:
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text(encoding="ascii").split()
        return [self.pid, *map(int, children)]


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _resident_mb(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("no VmRSS")


def machine() -> str:
    """The machine in words."""
    return f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"


def report(title: str, figures: dict[str, object], page: str | None) -> None:
    """Print the figures as JSON, and write them as a page with the command that gave them."""
    text = json.dumps(figures, indent=1)
    print(text)
    if page is not None:
        command = " ".join(["python", *sys.argv])
        lines = [f"# {title}", "", f"Written by `{command}` on {machine()}.", "", "```json", text, "```", ""]
        Path(page).write_text("\n".join(lines), encoding="utf-8")


def console_script() -> str:
    """The console script `handful` of this Python's environment."""
    return str(Path(sys.executable).parent / "handful")


def worker_flags(count: int) -> list[str]:
    """The flags that start so many worker processes."""
    return ["--workers", str(count)]


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port: int = listening.getsockname()[1]
        return port


@contextmanager
def server(
    handful: str | None = None,
    bundles: str = "bundles",
    *,
    key: bool = False,
    workers: int = 0,
    flags: Sequence[str] = (),
    home: Path | None = None,
) -> Iterator[Running]:
    """A server on a free port, stopped after the block.

    Args:
        handful: The console script; by default that of this Python's environment.
        bundles: The model repository.
        key: Whether calls need an API key.
        workers: As in the setting.
        flags: Further flags of `handful serve`.
        home: A folder whose store, `handful.db`, is used and left there; without it the store is a new one.
    """
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    script = handful or console_script()
    with tempfile.TemporaryDirectory() as folder:
        store = f"sqlite:///{home or folder}/handful.db"
        environment = {**os.environ, "HANDFUL_STORE": store, "HANDFUL_LOG_LEVEL": "warning"}
        secret = _write_key(Path(folder) / "keys") if key else None
        if secret is not None:
            environment["HANDFUL_KEYS"] = f"{folder}/keys"
        started = time.monotonic()
        command = [script, "serve", "--port", str(port), "--bundles", bundles, "--workers", str(workers), *flags]
        process = subprocess.Popen(command, env=environment)  # noqa: S603 (our own script)
        try:
            yield Running(url, process.pid, _ready(url, process, started), secret)
        finally:
            process.terminate()
            process.wait()


def _write_key(path: Path) -> str:
    """A new key, whose line is in the file."""
    key = f"load.{secrets.token_urlsafe(32)}"
    digest = hashlib.sha256(key.encode()).hexdigest()
    path.write_text(f"load sha256:{digest} {TENANT} predict,adapt,admin\n", encoding="utf-8")
    return key


def _ready(url: str, process: subprocess.Popen[bytes], started: float) -> float:
    while process.poll() is None:
        try:
            with urllib.request.urlopen(f"{url}/health/ready"):  # noqa: S310 (loopback)
                return time.monotonic() - started
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.01)
    raise RuntimeError(f"the server ended with {process.returncode}")
