"""A bundle on disk: one trained model, checked before it is trusted."""

import hashlib
import io
import json
import os
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import BundleInvalid
from ..npz import unpack
from ..task import Arrays
from .manifest import FILE_NAME, GraphName, Manifest, parse_manifest
from .onnx_file import check_graph
from .signature import Signature, graph_signatures
from .tasks import TASKS as TASKS  # noqa: PLC0414 (beside the names of the other files)
from .tasks import KnownTask, parse_tasks

MANIFEST = "manifest.json"
GOLDEN = "golden.npz"
GOLDEN_REQUESTS = "golden_requests.json"
CARD = "card.md"
TOKENIZER = "assets/tokenizer.json"
"""Where a bundle reads texts."""

REQUIRED = (TASKS, GOLDEN, GOLDEN_REQUESTS, CARD)

MAX_FILE_BYTES = 2**31
MAX_GOLDEN_BYTES = 2**28


@dataclass(frozen=True, slots=True)
class Golden:
    """Inputs of one graph and the outputs that it must give."""

    inputs: Arrays
    outputs: Arrays


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle whose files are whole and whose graphs are what the manifest declares.

    Attributes:
        digest: sha256 of `manifest.json`, in hex: the identity of states, caches and ETags.
        signatures: What each graph takes and gives.
        files: The checked content of every listed file: what was checked is what runs.
        tasks: What `tasks.json` holds.
        known_tasks: Those that a request may name, by id.
    """

    folder: Path
    manifest: Manifest
    digest: str
    signatures: Mapping[GraphName, tuple[Signature, Signature]]
    files: Mapping[str, bytes] = field(repr=False)
    tasks: list[dict[str, Any]] = field(repr=False)
    known_tasks: Mapping[str, KnownTask] = field(repr=False)

    @classmethod
    def open(cls, folder: Path) -> "Bundle":
        """Read and check a bundle.

        Raises:
            BundleInvalid: a file is missing, changed or a link out of the folder; the manifest breaks the format.
            GraphRefused: a graph holds what is not allowed, or is not what the manifest declares.
        """
        _refuse_links(folder)
        document = _read(folder, MANIFEST)
        manifest = parse_manifest(document)
        _check_listing(manifest)
        files = {name: _checked(folder, name, digest) for name, digest in manifest.digests.items()}
        signatures = graph_signatures(manifest)
        for name, graph in manifest.graphs.items():
            check_graph(graph.file, files[graph.file], *signatures[name])
        tasks, known = parse_tasks(files[TASKS], manifest)
        return cls(folder, manifest, hashlib.sha256(document).hexdigest(), signatures, files, tasks, known)

    @property
    def name(self) -> str:
        """The model's name."""
        return self.manifest.name

    @property
    def version(self) -> int:
        """The model's version."""
        return self.manifest.version

    def graph(self, name: GraphName) -> bytes:
        """The ONNX file of a graph."""
        return self.files[self.manifest.graphs[name].file]

    @property
    def card(self) -> str:
        """The card, in Markdown."""
        return self.files[CARD].decode("utf-8", "replace")

    def golden(self) -> dict[GraphName, Golden]:
        """The golden inputs and outputs of every graph.

        Raises:
            BundleInvalid: they are missing or unreadable.
        """
        arrays = _golden_arrays(self.files[GOLDEN])
        vectors: dict[GraphName, Golden] = {}
        for name, (takes, gives) in self.signatures.items():
            try:
                inputs = {tensor: arrays[f"{name}.in.{tensor}"] for tensor in takes.tensors}
                outputs = {tensor: arrays[f"{name}.out.{tensor}"] for tensor in gives.tensors}
            except KeyError as error:
                raise BundleInvalid(f"{error.args[0]} missing", field=GOLDEN) from None
            vectors[name] = Golden(inputs, outputs)
        return vectors

    def golden_requests(self) -> list[dict[str, Any]]:
        """Raw requests, with the answers of the training pipeline.

        Raises:
            BundleInvalid: there are none, or they are not JSON.
        """
        requests = _json(self.files[GOLDEN_REQUESTS], GOLDEN_REQUESTS)
        if not isinstance(requests, list) or not requests:
            raise BundleInvalid("holds no request", field=GOLDEN_REQUESTS)
        return requests


def _refuse_links(folder: Path) -> None:
    if not folder.is_dir():
        raise BundleInvalid(f"{folder} is no folder")
    root = os.path.realpath(folder)
    for place, folders, names in os.walk(folder):
        for name in (*folders, *names):
            path = os.path.join(place, name)
            if os.path.islink(path) and os.path.commonpath([root, os.path.realpath(path)]) != root:
                raise BundleInvalid("is a link out of the bundle's folder", field=os.path.relpath(path, folder))


def _read(folder: Path, name: str) -> bytes:
    path = folder / name
    try:
        if not path.is_file():
            raise BundleInvalid("missing", field=name)
        if (size := path.stat().st_size) > MAX_FILE_BYTES:
            raise BundleInvalid(f"has {size} bytes", field=name, allowed=f"at most {MAX_FILE_BYTES}")
        return path.read_bytes()
    except OSError as error:
        raise BundleInvalid(f"cannot be read: {error.strerror}", field=name) from None


def _check_listing(manifest: Manifest) -> None:
    needed = {*REQUIRED, *(graph.file for graph in manifest.graphs.values())}
    needed |= {TOKENIZER} if manifest.reads_text else set()
    if missing := needed - manifest.digests.keys():
        raise BundleInvalid(f"no digest of {', '.join(sorted(missing))}", field="manifest.json.digests")
    for name in manifest.digests:
        if not re.fullmatch(FILE_NAME, name):
            raise BundleInvalid(
                f"{name!r} is not a file of the bundle",
                field="manifest.json.digests",
                allowed="NAME or assets/NAME",
            )


def _checked(folder: Path, name: str, digest: str) -> bytes:
    content = _read(folder, name)
    found = hashlib.sha256(content).hexdigest()
    if found != digest:
        raise BundleInvalid(f"the sha256 is {found}", field=name, allowed=digest)
    return content


def _json(content: bytes, name: str) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        raise BundleInvalid("is not JSON", field=name) from None


def _golden_arrays(content: bytes) -> dict[str, np.ndarray]:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            if (size := sum(item.file_size for item in archive.infolist())) > MAX_GOLDEN_BYTES:
                raise BundleInvalid(f"unpacks to {size} bytes", field=GOLDEN, allowed=f"at most {MAX_GOLDEN_BYTES}")
        return dict(unpack(content))
    except BundleInvalid:
        raise
    except Exception:  # zip, zlib and numpy may raise anything on hostile bytes
        raise BundleInvalid("is not an npz file of plain arrays", field=GOLDEN) from None
