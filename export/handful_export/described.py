"""What the export of a learner that knows its tasks needs beside it, and how its tasks stand in a bundle."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from handful_models.learner import DescribedLearner, Descriptor, Reader
from handful_service.bundle.outputs import (
    Calibration,
    ClassOutput,
    LabelsCalibration,
    LabelsOutput,
    NumberCalibration,
    NumberOutput,
    TaskReader,
)
from handful_service.task import Arrays

from .errors import SpecInvalid
from .known import INDEX

CALIBRATIONS: Mapping[str, type[Calibration | LabelsCalibration | NumberCalibration]] = {
    "class": Calibration,
    "labels": LabelsCalibration,
    "number": NumberCalibration,
}
OUTPUTS: Mapping[str, type[TaskReader]] = {"class": ClassOutput, "labels": LabelsOutput, "number": NumberOutput}


@dataclass(frozen=True, slots=True)
class RawTask:
    """A small request in both forms: as a client would send it, and as the training pipeline sees it.

    Attributes:
        reader: The known task whose columns are read, and whose calibration holds.
        task: What the request names: `{"id": …}`, `{"metadata": …}`, `{"text": …}`.
        kind: Which describe graph that is.
        descriptor: What the graph takes, each `[1, …]`.
        queries: Raw inputs.
        query_inputs: Arrays `[query, *input]` of the same queries.
        support: Raw inputs with their labels, where the request has a support set, too.
        support_inputs: Arrays `[example, *input]` of it.
    """

    reader: str
    task: Mapping[str, Any]
    kind: Descriptor
    descriptor: Arrays
    queries: Sequence[Any]
    query_inputs: Arrays
    support: Sequence[tuple[Any, str | float]] = ()
    support_inputs: Arrays = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DescribedMaterial:
    """What an export needs beside the learner and the config.

    Attributes:
        inputs: Real inputs as training sees them, each `[n, *input]`, at least 12.
        requests: Small requests as clients send them.
        card: The card, in Markdown.
        fields: Of each input that is a record, its fields as a manifest has them.
        descriptors: The manifest's part on metadata and texts, if the learner takes such.
        described: For those descriptors what the describe graph takes for each known task in order, `[task, …]`;
            where a task's reader holds metadata or a text, that row means the task itself.
        calibrations: By task id; or, where all tasks have the same output, under the empty id.
        notes: By task id, `evaluation` and `advice`, where there are such.
        y: Labels of `inputs`, for support sets: int64 `[n]`, or float32 `[n, 1]`; needed where the learner learns.
        assets: Further files by name, such as `assets/tokenizer.json`.
        evaluation: What `handful evaluate` measured of the run, if it did.
    """

    inputs: Arrays
    requests: Sequence[RawTask]
    card: str
    fields: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    descriptors: Mapping[str, Any] | None = None
    described: Mapping[Descriptor, Arrays] = field(default_factory=dict)
    calibrations: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    notes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    y: np.ndarray | None = None
    assets: Mapping[str, bytes] = field(default_factory=dict)
    evaluation: Mapping[str, Any] | None = None


def by_task(learner: DescribedLearner) -> bool:
    """Whether each task reads columns of its own; a text, or metadata alone, do not say whose they would be."""
    return "text" not in learner.descriptors and ("metadata" not in learner.descriptors or learner.beside_id)


def output_of(reader: Reader, calibration: Mapping[str, Any] | None, members: int) -> TaskReader:
    """How a task's columns are read."""
    table = None if calibration is None else CALIBRATIONS[reader.kind].model_validate(calibration)
    labels = {} if reader.kind == "number" else {"labels": reader.labels}
    return OUTPUTS[reader.kind].model_validate(
        {"kind": reader.kind, "members": members, **labels, "calibration": table}
    )  # fmt: skip


def whole_output(learner: DescribedLearner, material: DescribedMaterial, y: np.ndarray) -> dict[str, Any]:
    """The manifest's `output`, for answers `y [row, member, column]`.

    Raises:
        SpecInvalid: the tasks have different outputs, though a request may describe one without naming it.
    """
    members, columns = y.shape[1], y.shape[2]
    if by_task(learner):
        return {"kind": "task", "members": members, "columns": columns}
    first = learner.readers[0]
    if any((each.kind, each.columns, each.labels) != (first.kind, (0, columns), first.labels)
           for each in learner.readers):  # fmt: skip
        raise SpecInvalid("descriptors: a text, or metadata without an id, need tasks that all have the same output")
    return output_of(first, material.calibrations.get(""), members).model_dump(mode="json")


def entries(learner: DescribedLearner, material: DescribedMaterial, members: int) -> list[dict[str, Any]]:
    """`tasks.json`."""
    return [_entry(learner, reader, material, members) for reader in learner.readers]


def _entry(learner: DescribedLearner, reader: Reader, material: DescribedMaterial, members: int) -> dict[str, Any]:
    output = output_of(reader, material.calibrations.get(reader.id), members).model_dump(mode="json")
    own = {"output": output, "columns": list(reader.columns)} if by_task(learner) else {}
    optional = {
        "metadata": dict(reader.metadata) or None, "text": reader.text, "description": reader.description,
        **material.notes.get(reader.id, {}),
    }  # fmt: skip
    return {"id": reader.id, "shots": reader.shots, **own,
            **{name: value for name, value in optional.items() if value is not None}}  # fmt: skip


def known_descriptors(learner: DescribedLearner, material: DescribedMaterial) -> dict[Descriptor, Arrays]:
    """What each describe graph takes for the known tasks, in order.

    Raises:
        SpecInvalid: the material lacks a kind.
    """
    index: Arrays = {INDEX: np.arange(len(learner.readers), dtype=np.int64)}
    found: dict[Descriptor, Arrays] = {"id": index}
    for kind in learner.descriptors:
        if kind == "id":
            continue
        if kind not in material.described:
            raise SpecInvalid(f"descriptors.{kind}: the learner takes them, but there are none to export it with")
        beside = index if kind == "metadata" and learner.beside_id else {}
        found[kind] = {**beside, **material.described[kind]}
    return found
