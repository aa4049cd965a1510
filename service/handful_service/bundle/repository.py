"""The model repository: `<root>/<model>/<version>/`, with `<model>/labels.json` naming versions."""

import json
import re
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


def open_repository(root: Path) -> dict[str, Published]:
    """Every model under a folder, checked.

    Raises:
        BundleInvalid: the folder is missing or empty, or any bundle or label in it is not valid.
    """
    if not root.is_dir():
        raise BundleInvalid(f"no folder {root}", field="bundles")
    folders = sorted(path for path in root.iterdir() if path.is_dir() and re.match(MODEL_NAME, path.name))
    models = {folder.name: _open_model(folder) for folder in folders}
    if not models:
        raise BundleInvalid(f"{root} holds no model", field="bundles", allowed="<model>/<version>/manifest.json")
    return models


def _open_model(folder: Path) -> Published:
    versions = sorted(int(path.name) for path in folder.iterdir() if path.is_dir() and _VERSION.match(path.name))
    if not versions:
        raise BundleInvalid(f"{folder} holds no version", allowed="a folder named by a positive integer")
    bundles = {}
    for version in versions:
        bundles[version] = _open_version(folder, version)
    return Published(folder.name, bundles, _labels(folder, bundles))


def _open_version(folder: Path, version: int) -> Bundle:
    path = folder / str(version)
    try:
        bundle = Bundle.open(path)
    except BundleInvalid as error:
        raise type(error)(error.detail, field=f"{path}: {error.field or 'bundle'}", allowed=error.allowed) from error
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
