"""The model repository: `<root>/<model>/<version>/`, with `<model>/labels.json` naming versions."""

import json
import re
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ..errors import BundleInvalid
from .bundle import Bundle
from .manifest import MODEL_NAME

VERSION_LABELS = "labels.json"
_VERSION = re.compile(r"^[1-9][0-9]{0,8}$")
_LABEL = re.compile(r"^[a-z][a-z0-9_-]{0,63}$")


@dataclass(frozen=True, slots=True)
class Published:
    """All versions of one model.

    Attributes:
        bundles: By version.
        labels: Names of versions, such as `stable`.
    """

    name: str
    bundles: dict[int, Bundle]
    labels: dict[str, int]


def open_repository(root: Path, workers: Executor | None = None) -> dict[str, Published]:
    """Every model under a folder, checked.

    Args:
        root: The model repository.
        workers: Threads that open bundles beside each other; the first that is not valid, by name, is the one told.

    Raises:
        BundleInvalid: the folder is missing or empty, or any bundle or label in it is not valid.
    """
    if not root.is_dir():
        raise BundleInvalid(f"no folder {root}", field="bundles")
    folders = sorted(path for path in root.iterdir() if path.is_dir() and re.match(MODEL_NAME, path.name))
    places = [(folder, version) for folder in folders for version in _versions(folder)]
    if not places:
        raise BundleInvalid(f"{root} holds no model", field="bundles", allowed="<model>/<version>/manifest.json")
    opened = (workers.map if workers else map)(_open_version, *zip(*places, strict=True))
    found: dict[Path, dict[int, Bundle]] = {folder: {} for folder in folders}
    for (folder, version), bundle in zip(places, opened, strict=True):
        found[folder][version] = bundle
    return {folder.name: Published(folder.name, bundles, _labels(folder, bundles)) for folder, bundles in found.items()}


def _versions(folder: Path) -> list[int]:
    versions = sorted(int(path.name) for path in folder.iterdir() if path.is_dir() and _VERSION.match(path.name))
    if not versions:
        raise BundleInvalid(f"{folder} holds no version", allowed="a folder named by a positive integer")
    return versions


@contextmanager
def naming(folder: Path) -> Iterator[None]:
    """Lets a refusal of a bundle name its folder: one of many is at fault."""
    try:
        yield
    except BundleInvalid as error:
        raise type(error)(error.detail, field=f"{folder}: {error.field or 'bundle'}", allowed=error.allowed) from error


def _open_version(folder: Path, version: int) -> Bundle:
    path = folder / str(version)
    with naming(path):
        bundle = Bundle.open(path)
    if (bundle.name, bundle.version) != (folder.name, version):
        raise BundleInvalid(f"{path} holds {bundle.name} version {bundle.version}", field="manifest.json.name")
    return bundle


def _labels(folder: Path, bundles: dict[int, Bundle]) -> dict[str, int]:
    path = folder / VERSION_LABELS
    if not path.exists():
        return {}
    try:
        labels = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        raise BundleInvalid("is not JSON", field=str(path)) from None
    valid = isinstance(labels, dict) and all(
        _LABEL.match(label) and isinstance(version, int) and version in bundles for label, version in labels.items()
    )
    if not valid:
        raise BundleInvalid(
            f"is {labels}", field=str(path), allowed=f"names of versions, each one of {sorted(bundles)}"
        )
    return dict(labels)
