"""An environment for each peer, of exactly the versions that its requirements file locks."""

import hashlib
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

REQUIREMENTS = Path(__file__).parent / "requirements"


class NotInstalled(Exception):
    """The environment of a peer could not be made; the message is pip's last line."""


def python(root: Path, peer: str) -> Path:
    """The Python of a peer's environment, which is made where it is missing or of other versions.

    Args:
        root: The folder of all environments.
        peer: The name of a requirements file.

    Raises:
        NotInstalled: pip could not.
    """
    locked = REQUIREMENTS / f"{peer}.txt"
    folder, stamp = root / peer, hashlib.sha256(locked.read_bytes()).hexdigest()
    mark, found = folder / ".locked", folder / "bin" / "python"
    if mark.exists() and mark.read_text(encoding="ascii") == stamp:
        return found
    print(f"installing {peer} into {folder}", file=sys.stderr)
    _run([sys.executable, "-m", "venv", "--clear", str(folder)])
    quiet = ["--quiet", "--disable-pip-version-check", "--no-deps"]
    _run([str(found), "-m", "pip", "install", *quiet, "--requirement", str(locked)])
    mark.write_text(stamp, encoding="ascii")
    return found


def _run(command: Sequence[str]) -> None:
    ended = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 (pip and venv)
    if ended.returncode:
        lines = ended.stderr.strip().splitlines() or [f"ended with {ended.returncode}"]
        raise NotInstalled(lines[-1])


def version(peer: str) -> str:
    """The locked version of the peer itself."""
    for line in (REQUIREMENTS / f"{peer}.txt").read_text(encoding="utf-8").splitlines():
        name, _, found = line.partition("==")
        if name.lower() == peer:
            return found
    raise ValueError(f"{peer} is not in its requirements file")
