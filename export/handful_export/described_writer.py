"""Writes a bundle of a learner that knows its tasks: whole or not at all, and only through the gate."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from handful_models.learner import DescribedLearner, Descriptor
from handful_service.bundle.bundle import CARD, GOLDEN, GOLDEN_REQUESTS, TASKS, Bundle
from handful_service.bundle.manifest import FORMAT, GraphName
from handful_service.task import Arrays

from .closeness import Report
from .described import DescribedMaterial, by_task, entries, known_descriptors, output_of, whole_output
from .described_gate import DescribedGate
from .described_golden import described_request, described_vectors
from .described_graphs import described_edges, export_described_graphs
from .errors import SpecInvalid
from .graphs import TRACE_BATCH, encodes
from .runner import OnnxRunner, TorchRunner
from .spec import ExportSpec
from .writer import EVALUATION, GATE_REPORT, document, published, put, tensor

Found = Mapping[str, Mapping[str, torch.Tensor]]


def export_described(
    learner: DescribedLearner, root: Path, *, spec: ExportSpec, material: DescribedMaterial
) -> tuple[Path, Report]:
    """Write `<root>/<name>/<version>/`; see `export_bundle`, which does so for learners of support sets alone."""
    return published(root, spec, learner, lambda folder: _write(learner, folder, spec, material))


def _write(learner: DescribedLearner, folder: Path, spec: ExportSpec, material: DescribedMaterial) -> Report:
    learner.eval()
    if learner.learns and material.y is None:
        raise SpecInvalid("limits.examples: the learner takes support sets, but the material has no labels for them")
    descriptors = known_descriptors(learner, material)
    example = _tensors(material.inputs)
    described = {kind: _tensors(arrays) for kind, arrays in descriptors.items()}
    found = described_edges(learner, example, described)
    graphs = export_described_graphs(learner, found, described)
    parts = _manifest_parts(learner, found, spec, material, graphs)
    onnx, reference = OnnxRunner(graphs), TorchRunner(learner, encodes=encodes(found))
    files = _files(learner, reference, graphs, found, material, descriptors)
    put(folder, files, parts)
    Bundle.open(folder)  # refuses frozen axes and whatever else the service would refuse
    gate = DescribedGate(
        reference, onnx, learner.readers, material.inputs, descriptors,
        y=material.y if learner.learns else None, limit=spec.limits.examples or 0,
    )  # fmt: skip
    report = gate.run()
    files[GATE_REPORT] = document(report.figures)
    put(folder, files, parts)
    Bundle.open(folder)
    return report


def _tensors(arrays: Arrays) -> dict[str, torch.Tensor]:
    """As many rows as graphs are traced with."""
    return {name: torch.from_numpy(np.resize(array, (TRACE_BATCH, *array.shape[1:]))) for name, array in arrays.items()}


def _files(
    learner: DescribedLearner,
    reference: TorchRunner,
    graphs: Mapping[GraphName, bytes],
    found: Found,
    material: DescribedMaterial,
    descriptors: Mapping[Descriptor, Arrays],
) -> dict[str, bytes]:
    members = found["y"]["y"].shape[1]
    tasks = entries(learner, material, members)
    requests = _requests(learner, reference, material, members)
    measured = {} if material.evaluation is None else {EVALUATION: document(material.evaluation)}
    y = material.y if learner.learns else None
    return {
        **{f"{name}.onnx": content for name, content in graphs.items()},
        **measured,
        **material.assets,
        TASKS: (json.dumps(tasks, ensure_ascii=False, indent=1, allow_nan=False) + "\n").encode(),
        GOLDEN: described_vectors(reference, material.inputs, descriptors, y),
        GOLDEN_REQUESTS: (json.dumps(requests, indent=1, ensure_ascii=False) + "\n").encode(),
        CARD: material.card.encode(),
    }


def _requests(
    learner: DescribedLearner, reference: TorchRunner, material: DescribedMaterial, members: int
) -> list[dict[str, Any]]:
    readers = {reader.id: reader for reader in learner.readers}
    found = []
    for raw in material.requests:
        reader = readers[raw.reader]
        table = material.calibrations.get(raw.reader if by_task(learner) else "")
        output = output_of(reader, table, members)
        found.append(described_request(reference, raw, output, reader.columns, reader.shots))
    return found


def _manifest_parts(
    learner: DescribedLearner,
    found: Found,
    spec: ExportSpec,
    material: DescribedMaterial,
    graphs: Mapping[GraphName, bytes],
) -> dict[str, Any]:
    tensors = {edge: {name: tensor(value) for name, value in found[edge].items()} for edge in found}
    output = whole_output(learner, material, found["y"]["y"].numpy())
    ways = {"ways": len(output["labels"])} if output["kind"] == "class" else {}
    learns = learner.learns
    return {
        "format": FORMAT,
        "name": spec.name,
        "version": spec.version,
        "description": spec.description,
        "inputs": {name: {**value, **_input(spec, material, name)} for name, value in tensors["inputs"].items()},
        "features": tensors["features"],
        "state": tensors["state"],
        "state_bytes": sum(value[0].numel() * value.element_size() for value in found["state"].values()),
        "accepts": [*(["base"] if spec.base else []), "task", *(["task+support"] if learns else []),
                    *(["support"] if learns and spec.base else [])],
        "base": {"task": spec.base} if spec.base else None,
        "descriptors": dict(material.descriptors) if material.descriptors else None,
        "support": {"kind": learner.target, "weights": "binary"} if learns else None,
        "output": output,
        "limits": {**ways, **spec.limits.model_dump(exclude_none=True)},
        "invariant": list(learner.invariant) if learns else [],
        "graphs": {name: {"file": f"{name}.onnx", "tolerance": spec.tolerance} for name in graphs},
    }  # fmt: skip


def _input(spec: ExportSpec, material: DescribedMaterial, name: str) -> dict[str, Any]:
    options = spec.input_options(name)
    if options["kind"] == "record":
        return {**options, "record": {"fields": [dict(each) for each in material.fields[name]]}}
    return options
