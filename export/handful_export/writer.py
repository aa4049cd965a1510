"""Writes a bundle: whole or not at all, and only through the gate."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from handful_models.learner import Learner
from handful_service.bundle.bundle import CARD, GOLDEN, GOLDEN_REQUESTS, MANIFEST, TASKS, Bundle
from handful_service.bundle.manifest import FORMAT, GRAPHS, GraphName, Manifest
from handful_service.bundle.outputs import Calibration, NumberCalibration

from .closeness import Report
from .errors import SpecInvalid, VersionExists
from .gate import Gate
from .golden import RawEpisode, golden_requests, golden_vectors
from .graphs import TRACE_BATCH, edges, encodes, export_graphs
from .known import DESCRIBE_ID, KnownTasks, describe_graph
from .runner import OnnxRunner, TorchRunner
from .sample import Labelled, Sample
from .spec import ExportSpec

GATE_REPORT = "assets/gate.json"
EVALUATION = "assets/evaluation.json"
GOLDEN_ROWS = 3


@dataclass(frozen=True, slots=True)
class Material:
    """What an export needs beside the learner and the config.

    Attributes:
        sample: Real inputs as training sees them.
        episodes: Small tasks as clients send them.
        card: The card, in Markdown.
        calibration: The manifest's table, if any.
        known: The tasks that the bundle knows without examples, if any.
        evaluation: What `handful evaluate` measured of the run, if it did: kept beside the card, for programs.
    """

    sample: Sample
    episodes: Sequence[RawEpisode]
    card: str
    calibration: Mapping[str, Any] | None = None
    known: KnownTasks | None = None
    evaluation: Mapping[str, Any] | None = None


def export_bundle(learner: Learner, root: Path, *, spec: ExportSpec, material: Material) -> tuple[Path, Report]:
    """Write `<root>/<name>/<version>/`.

    Everything is written beside it, opened as the service opens it, and put through the gate before it gets its
    name.

    Raises:
        VersionExists: the version is there.
        SpecInvalid: the config does not suit the learner, such as limits beyond what its state holds.
        GateRefused: a law of serving does not hold.
        BundleInvalid: a graph is not what the manifest declares, such as one with a frozen axis.
    """
    return published(root, spec, learner, lambda folder: _write(learner, folder, spec, material))


def published(root: Path, spec: ExportSpec, learner: Learner, write: Callable[[Path], Report]) -> tuple[Path, Report]:
    """What `write` puts into a temporary folder, under the bundle's name, or not at all.

    Raises:
        VersionExists: the version is there.
        SpecInvalid: the config does not suit the learner.
    """
    final = root / spec.name / str(spec.version)
    if final.exists():
        raise VersionExists(f"{final} is there, and a published version never changes: raise `version`")
    spec.check(learner)
    root.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=root, prefix=f".{spec.name}-{spec.version}-"))
    try:
        report = write(temporary)
        for path in sorted(temporary.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
        temporary.chmod(0o755)
        _sync(temporary)
        final.parent.mkdir(exist_ok=True)  # only now: a model without a version would keep a server from starting
        temporary.rename(final)
        _sync_folder(final.parent)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return final, report


def _write(learner: Learner, folder: Path, spec: ExportSpec, material: Material) -> Report:
    learner.eval()
    rows = material.sample.draw(np.random.default_rng(0), GOLDEN_ROWS)
    example = {
        name: torch.from_numpy(np.resize(array, (TRACE_BATCH, *array.shape[1:]))) for name, array in rows.inputs.items()
    }
    known = _known_rows(material) if spec.limits.examples is None else None
    found, graphs = edges(learner, example, known), export_graphs(learner, example, known)
    if material.known is not None:
        graphs[DESCRIBE_ID] = describe_graph(material.known.states)
    parts = _manifest_parts(learner, found, spec, material)
    manifest = Manifest.model_validate({**parts, "digests": {}})
    reference, exported = TorchRunner(learner, encodes=encodes(found)), OnnxRunner(graphs)
    files = _files(reference, graphs, manifest, rows, material)
    put(folder, files, parts)
    Bundle.open(folder)  # refuses frozen axes and whatever else the service would refuse
    report = Gate(manifest, reference, exported, material.sample, material.known).run(margin=spec.margin)
    files[GATE_REPORT] = document(report.figures)
    put(folder, files, parts)
    Bundle.open(folder)
    return report


def _known_rows(material: Material) -> dict[str, torch.Tensor]:
    """Two states of known tasks, as the states of a learner that makes none itself."""
    if material.known is None:
        raise SpecInvalid("limits.examples: missing; only a model of known tasks takes no support sets")
    states = material.known.states
    return {name: torch.from_numpy(np.resize(array, (TRACE_BATCH, *array.shape[1:]))) for name, array in states.items()}


def _files(
    reference: TorchRunner, graphs: Mapping[GraphName, bytes], manifest: Manifest, rows: Labelled, material: Material
) -> dict[str, bytes]:
    of_class, known = manifest.output.kind == "class", material.known
    y = np.arange(GOLDEN_ROWS) % min(manifest.ways, GOLDEN_ROWS) if of_class else rows.y
    tasks = [] if known is None else [dict(entry) for entry in known.entries]
    requests = golden_requests(reference, material.episodes, manifest.output, known)
    measured = {} if material.evaluation is None else {EVALUATION: document(material.evaluation)}
    return {
        **{manifest.graphs[name].file: content for name, content in graphs.items()},
        **measured,
        TASKS: (json.dumps(tasks, ensure_ascii=False, indent=1 if tasks else None) + "\n").encode(),
        GOLDEN: golden_vectors(reference, rows.inputs, y, known, learns=manifest.learns),
        GOLDEN_REQUESTS: (json.dumps(requests) + "\n").encode(),
        CARD: material.card.encode(),
    }


def document(value: object) -> bytes:
    """A value as a JSON file."""
    return (json.dumps(value, sort_keys=True) + "\n").encode()


def put(folder: Path, files: Mapping[str, bytes], parts: Mapping[str, Any]) -> None:
    """Write files, and the manifest of `parts` with their digests."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in sorted(files.items())}
    document = json.dumps({**parts, "digests": digests}, indent=1, ensure_ascii=False) + "\n"
    (folder / MANIFEST).write_bytes(document.encode())


def _manifest_parts(
    learner: Learner, found: Mapping[str, Mapping[str, torch.Tensor]], spec: ExportSpec, material: Material
) -> dict[str, Any]:
    tensors = {edge: {name: tensor(value) for name, value in found[edge].items()} for edge in found}
    of_class = learner.target == "class"
    base = spec.output.labels != "open" and spec.limits.examples is not None
    learns = spec.limits.examples is not None
    absent = {
        *(() if encodes(found) else ("encode",)),
        *(() if found["statistics"] else ("summarise",)),
        *(() if learns else ("adapt",)),
    }
    graphs = [name for name in GRAPHS if name not in absent] + ([DESCRIBE_ID] if material.known is not None else [])
    return {
        "format": FORMAT,
        "name": spec.name,
        "version": spec.version,
        "description": spec.description,
        "inputs": {name: {**value, **spec.input_options(name)} for name, value in tensors["inputs"].items()},
        "features": tensors["features"],
        "statistics": tensors["statistics"] or None,
        "state": tensors["state"],
        "state_bytes": sum(value[0].numel() * value.element_size() for value in found["state"].values()),
        "accepts": [
            *(["base"] if base else []),
            *(["task"] if material.known is not None else []),
            *(["support"] if learns else []),
        ],
        "base": "empty-support" if base else None,
        "support": {"kind": learner.target, "weights": "binary"} if learns else None,
        "output": _output(learner, found["y"]["y"].shape[1], spec, material.calibration),
        "limits": {**({"ways": learner.ways} if of_class else {}), **spec.limits.model_dump(exclude_none=True)},
        "invariant": list(learner.invariant) if learns else [],
        "graphs": {name: {"file": f"{name}.onnx", "tolerance": spec.tolerance} for name in graphs},
    }


def _output(learner: Learner, members: int, spec: ExportSpec, calibration: Mapping[str, Any] | None) -> dict[str, Any]:
    kind: type[Calibration | NumberCalibration] = Calibration if learner.target == "class" else NumberCalibration
    table = None if calibration is None else kind.model_validate(calibration).model_dump(mode="json")
    labels = {"labels": spec.output.labels} if learner.target == "class" else {}
    return {"kind": learner.target, "members": members, **labels, "calibration": table}


def tensor(value: torch.Tensor) -> dict[str, Any]:
    """How a manifest declares a tensor `[batch, …]`."""
    return {"dtype": str(value.dtype).removeprefix("torch."), "axes": list(value.shape[1:])}


def _sync(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
    _sync_folder(folder)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def set_label(root: Path, model: str, label: str, version: int) -> None:
    """Let a label such as `stable` name a version; the others stay."""
    path = root / model / "labels.json"
    labels = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps({**labels, label: version}, indent=1) + "\n", encoding="utf-8")
    temporary.replace(path)
