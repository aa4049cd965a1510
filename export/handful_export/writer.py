"""Writes a bundle: whole or not at all, and only through the gate."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from handful_models.learner import Learner
from handful_service.bundle.bundle import CARD, GOLDEN, GOLDEN_REQUESTS, MANIFEST, TASKS, Bundle
from handful_service.bundle.manifest import FORMAT, GRAPHS, Calibration, GraphName, Manifest
from handful_service.task import Arrays

from .errors import SpecInvalid, VersionExists
from .gate import Gate, Report, Sample
from .golden import RawEpisode, golden_requests, golden_vectors
from .graphs import edges, export_graphs
from .runner import OnnxRunner, TorchRunner
from .spec import ExportSpec

GATE_REPORT = "assets/gate.json"
GOLDEN_ROWS = 6


@dataclass(frozen=True, slots=True)
class Material:
    """What an export needs beside the learner and the config.

    Attributes:
        sample: Real inputs as training sees them.
        episodes: Small tasks as clients send them.
        card: The card, in Markdown.
        calibration: The manifest's table, if any.
    """

    sample: Sample
    episodes: Sequence[RawEpisode]
    card: str
    calibration: Mapping[str, Any] | None = None


def export_bundle(learner: Learner, root: Path, *, spec: ExportSpec, material: Material) -> tuple[Path, Report]:
    """Write `<root>/<name>/<version>/`.

    Everything is written beside it, opened as the service opens it, and put through the gate before it gets its
    name.

    Raises:
        VersionExists: the version is there.
        SpecInvalid: the limits allow more examples than the learner's state holds.
        GateRefused: a law of serving does not hold.
        BundleInvalid: a graph is not what the manifest declares, such as one with a frozen axis.
    """
    final = root / spec.name / str(spec.version)
    if final.exists():
        raise VersionExists(f"{final} is there, and a published version never changes: raise `version`")
    if learner.examples is not None and spec.limits.examples > learner.examples:
        raise SpecInvalid(
            f"limits.examples: at most {learner.examples}, which a state holds, got {spec.limits.examples}"
        )
    root.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=root, prefix=f".{spec.name}-{spec.version}-"))
    try:
        report = _write(learner, temporary, spec, material)
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
    sample = material.sample
    inputs = sample.take(np.arange(GOLDEN_ROWS) % sample.classes, np.arange(GOLDEN_ROWS) // sample.classes)
    graphs = export_graphs(learner, {name: torch.from_numpy(array[:2]) for name, array in inputs.items()})
    parts = _manifest_parts(learner, inputs, spec, material.calibration)
    manifest = Manifest.model_validate({**parts, "digests": {}})
    reference, exported = TorchRunner(learner), OnnxRunner(graphs)
    files = _files(reference, graphs, manifest, inputs, material)
    _put(folder, files, parts)
    Bundle.open(folder)  # refuses frozen axes and whatever else the service would refuse
    report = Gate(manifest, reference, exported, sample).run(margin=spec.margin)
    files[GATE_REPORT] = (json.dumps(report.figures, indent=1, sort_keys=True) + "\n").encode()
    _put(folder, files, parts)
    Bundle.open(folder)
    return report


def _files(
    reference: TorchRunner, graphs: Mapping[GraphName, bytes], manifest: Manifest, inputs: Arrays, material: Material
) -> dict[str, bytes]:
    ways, calibration = manifest.limits.ways, manifest.output.calibration
    requests = golden_requests(reference, material.episodes, ways, calibration)
    return {
        **{manifest.graphs[name].file: content for name, content in graphs.items()},
        TASKS: b"[]\n",
        GOLDEN: golden_vectors(reference, inputs, ways),
        GOLDEN_REQUESTS: (json.dumps(requests, indent=1) + "\n").encode(),
        CARD: material.card.encode(),
    }


def _put(folder: Path, files: Mapping[str, bytes], parts: Mapping[str, Any]) -> None:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in sorted(files.items())}
    document = json.dumps({**parts, "digests": digests}, indent=1, ensure_ascii=False) + "\n"
    (folder / MANIFEST).write_bytes(document.encode())


def _manifest_parts(
    learner: Learner, inputs: Arrays, spec: ExportSpec, calibration: Mapping[str, Any] | None
) -> dict[str, Any]:
    found = edges(learner, {name: torch.from_numpy(array[:2]) for name, array in inputs.items()})
    state = {name: _tensor(value) for name, value in found["state"].items()}
    _, members, ways = found["y"]["y"].shape
    fixed = spec.output.labels != "open"
    table = None if calibration is None else Calibration.model_validate(calibration).model_dump(mode="json")
    return {
        "format": FORMAT,
        "name": spec.name,
        "version": spec.version,
        "description": spec.description,
        "inputs": {name: {**_tensor(value), **spec.input_options(name)} for name, value in found["inputs"].items()},
        "features": {name: _tensor(value) for name, value in found["features"].items()},
        "statistics": {name: _tensor(value) for name, value in found["statistics"].items()} or None,
        "state": state,
        "state_bytes": sum(value[0].numel() * value.element_size() for value in found["state"].values()),
        "accepts": ["base", "support"] if fixed else ["support"],
        "base": "empty-support" if fixed else None,
        "support": {"kind": "class", "weights": "binary"},
        "output": {
            "kind": "class",
            "members": members,
            "labels": spec.output.labels,
            "calibration": table,
        },
        "limits": {"ways": ways, **spec.limits.model_dump(exclude_none=True)},
        "invariant": list(spec.invariants.hold),
        "graphs": {
            name: {"file": f"{name}.onnx", "tolerance": spec.tolerance}
            for name in GRAPHS
            if name != "summarise" or found["statistics"]
        },
    }


def _tensor(value: torch.Tensor) -> dict[str, Any]:
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
