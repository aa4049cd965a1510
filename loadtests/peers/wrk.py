"""Runs wrk, which costs less CPU than any generator in Python, and reads what it counted."""

import json
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

SCRIPT = Path(__file__).parent / "replay.lua"
MARK = "wrk: "
TIMEOUT_S = 10


class WrkMissing(Exception):
    """There is no wrk on this machine."""

    def __init__(self) -> None:
        super().__init__("wrk is not installed: `apt-get install wrk` (Debian, Ubuntu) or `brew install wrk` (macOS)")


@dataclass(frozen=True, slots=True)
class Counted:
    """What wrk counted in one run.

    Attributes:
        seconds: How long it sent.
        failed: Calls that were answered with another status than 2xx or 3xx, or not at all.
    """

    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float
    max_ms: float
    failed: int

    @property
    def requests_per_s(self) -> float:
        """Answered calls a second; those that failed count as nothing."""
        return max(0, self.requests - self.failed) / self.seconds if self.seconds else 0.0


@dataclass(frozen=True, slots=True)
class Target:
    """Where and what to send.

    Attributes:
        bodies: A file as `write_bodies` writes it.
        order: `round`, one after the other, `random`, each as likely as the others, or `users`.
        users: With `users`: the only body is sent with the id of a user, `user-0000000` on, drawn for each request.
        exponent: The share of a user falls with the rank to this power; 0: all are asked alike often.
    """

    url: str
    bodies: Path
    content_type: str = "application/json"
    key: str | None = None
    order: str = "round"
    users: int = 1
    exponent: float = 0.0


def require() -> str:
    """The path of wrk.

    Raises:
        WrkMissing: it is not there.
    """
    found = shutil.which("wrk")
    if found is None:
        raise WrkMissing
    return found


def write_bodies(path: Path, bodies: Sequence[bytes]) -> None:
    """Write bodies, each behind its length."""
    path.write_bytes(b"".join(b"%d\n%b" % (len(body), body) for body in bodies))


def send(target: Target, *, connections: int, seconds: float, seed: int = 0) -> Counted:
    """What became of the calls over so many connections, in whole seconds of at least one."""
    script = [str(target.bodies), target.content_type, target.key or "-", target.order, str(seed)]
    script += [str(target.users), str(target.exponent)]
    whole = max(1, round(seconds))
    shape = ["--threads", "1", "--connections", str(connections), "--duration", f"{whole}s"]
    command = [require(), *shape, "--timeout", f"{TIMEOUT_S}s", "--latency", "--script", str(SCRIPT), target.url]
    ended = subprocess.run([*command, "--", *script], capture_output=True, text=True, check=False)  # noqa: S603 (wrk)
    if ended.returncode:
        raise RuntimeError(f"wrk ended with {ended.returncode}: {ended.stderr.strip()}")
    return parse(ended.stdout)


def parse(output: str) -> Counted:
    """The figures in what wrk printed.

    Raises:
        ValueError: the line of `replay.lua` is not there, or there are several.
    """
    lines = [line.removeprefix(MARK) for line in output.splitlines() if line.startswith(MARK)]
    if len(lines) != 1:
        raise ValueError(f"wrk printed {len(lines)} lines of figures, 1 is expected")
    found = json.loads(lines[0])
    return Counted(
        requests=found["requests"],
        seconds=found["duration_us"] / 1e6,
        p50_ms=found["p50_us"] / 1e3,
        p99_ms=found["p99_us"] / 1e3,
        max_ms=found["max_us"] / 1e3,
        failed=sum(found[name] for name in ("connect", "read", "write", "status", "timeout")),
    )
