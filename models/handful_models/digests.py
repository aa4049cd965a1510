"""Digests of the published data files: numbers in a report come from these bytes and no others."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

from .errors import DataDamaged, DataMissing


def sha256(path: Path) -> str:
    """The SHA-256 digest of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check(path: Path, digests: Mapping[str, str]) -> Path:
    """The path, once its file is known to be whole; a name without a digest needs only to be there.

    Args:
        path: A data file.
        digests: SHA-256 digests by file name.

    Raises:
        DataMissing: no such file.
        DataDamaged: the file has another digest.
    """
    if not path.is_file():
        raise DataMissing(path)
    expected = digests.get(path.name)
    if expected is not None and (found := sha256(path)) != expected:
        raise DataDamaged(path, found, expected)
    return path
