"""`tasks.json`: the tasks that a bundle knows without examples."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Annotated, Any
from unicodedata import is_normalized

from pydantic import Field, StringConstraints, TypeAdapter, ValidationError

from ..errors import BundleInvalid, TaskNotFound
from ..task import ID, Labels
from .manifest import Manifest
from .outputs import Label, Reader, TaskOutput, TaskReader
from .parts import Part

TASKS = "tasks.json"
NAMED = 5
"""Ids that a refusal names."""

COMPARED = 1000
"""Ids that an unknown one is compared with; of more tasks the first few are named instead."""


class _Entry(Part):
    """One task as the file has it."""

    id: Annotated[str, StringConstraints(pattern=ID)]
    labels: tuple[Label, ...] | None = Field(None, min_length=1)
    shots: float = Field(ge=0)
    output: Reader | None = None
    columns: tuple[Annotated[int, Field(ge=0)], int] | None = None
    metadata: dict[str, Any] | None = None
    text: str | None = None
    evaluation: dict[str, Any] | None = None
    advice: str | None = Field(None, max_length=2000)
    description: str | None = Field(None, max_length=500)


@dataclass(frozen=True, slots=True)
class KnownTask:
    """A task that a request may name by its id.

    Attributes:
        index: Its place in the file, which `describe.id` takes.
        labels: The label of each slot; none where it answers a number.
        shots: Its effective shots, which choose the cell of the calibration.
        output: How its columns are read.
        columns: The columns of `y` that it reads: the first, and the one past the last.
        metadata: The record that means the same task, if any.
        text: The words that mean the same task, if any.
    """

    index: int
    labels: Labels
    shots: float
    output: TaskReader
    columns: tuple[int, int]
    metadata: Mapping[str, Any] | None = None
    text: str | None = None


def parse_tasks(content: bytes, manifest: Manifest) -> tuple[list[dict[str, Any]], dict[str, KnownTask]]:
    """The tasks as they stand in the file, and those that a request may name, by id.

    Raises:
        BundleInvalid: the file is no list of tasks, or a task does not fit the manifest.
    """
    try:
        tasks = json.loads(content)
        json.dumps(tasks, allow_nan=False)
    except (ValueError, RecursionError):
        raise BundleInvalid("is not JSON", field=TASKS) from None
    if not isinstance(tasks, list) or not all(isinstance(task, dict) and "id" in task for task in tasks):
        raise BundleInvalid("is not a list of tasks with an id each", field=TASKS)
    return tasks, _known(content, manifest) if manifest.describes else {}


def _known(content: bytes, manifest: Manifest) -> dict[str, KnownTask]:
    try:
        entries = TypeAdapter(list[_Entry]).validate_json(content, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"])
        raise BundleInvalid(first["msg"], field=TASKS + place) from None
    if not entries:
        raise BundleInvalid("holds no task, though `accepts` holds task", field=TASKS)
    known: dict[str, KnownTask] = {}
    for index, entry in enumerate(entries):
        if entry.id in known:
            raise BundleInvalid(f"{entry.id!r} is there twice", field=f"{TASKS}[{index}].id")
        known[entry.id] = _task(index, entry, manifest)
    _check_base(known, manifest)
    return known


def _task(index: int, entry: _Entry, manifest: Manifest) -> KnownTask:
    place = f"{TASKS}[{index}]"
    _refuse_others(entry, manifest, place)
    output, columns = _reader(entry, manifest, place)
    labels = Labels(output.labels or ()) if manifest.by_task else _labels(entry, manifest, f"{place}.labels")  # type: ignore[arg-type]  # of one task they are never open
    return KnownTask(index, labels, entry.shots, output, columns, entry.metadata, entry.text)


def _refuse_others(entry: _Entry, manifest: Manifest, place: str) -> None:
    """Refuse what this bundle's tasks do not have."""
    descriptors = manifest.descriptors
    taken = {
        "output": manifest.by_task,
        "columns": manifest.by_task,
        "labels": not manifest.by_task,
        "metadata": descriptors is not None and descriptors.metadata is not None,
        "text": descriptors is not None and descriptors.text is not None,
        "advice": int(manifest.format.partition(".")[2]) >= 2,
    }
    for key, allowed in taken.items():
        if not allowed and getattr(entry, key) is not None:
            raise BundleInvalid("does not belong to a task of this bundle", field=f"{place}.{key}", allowed="none")


def _reader(entry: _Entry, manifest: Manifest, place: str) -> tuple[TaskReader, tuple[int, int]]:
    """How a task's columns are read, and which they are.

    Raises:
        BundleInvalid: with an output by task, it has none of its own, or one that does not fit its columns.
    """
    whole = manifest.output
    if not isinstance(whole, TaskOutput):
        return whole, (0, manifest.width)
    if entry.output is None or entry.columns is None:
        raise BundleInvalid("missing", field=f"{place}.{'output' if entry.output is None else 'columns'}")
    if "members" in entry.output.model_fields_set and entry.output.members != whole.members:
        raise BundleInvalid(
            f"is {entry.output.members}", field=f"{place}.output.members", allowed=f"{whole.members}, the manifest's"
        )
    _check_own_labels(entry.output, f"{place}.output.labels")
    (first, end), width = entry.columns, entry.output.width(len(entry.output.labels or ()))
    if end - first != width or end > whole.columns:
        allowed = f"{width} columns within 0 to {whole.columns}"
        raise BundleInvalid(f"are {first} to {end}", field=f"{place}.columns", allowed=allowed)
    return entry.output, entry.columns


def _check_own_labels(output: TaskReader, place: str) -> None:
    if output.labels is None:
        return
    if output.labels == "open":
        raise BundleInvalid("are open", field=place, allowed="the labels of the task")
    _check_names(output.labels, place)


def _check_names(labels: Sequence[str], place: str) -> None:
    if len(set(labels)) < len(labels):
        raise BundleInvalid("one is there twice", field=place)
    if not all(is_normalized("NFC", label) for label in labels):
        raise BundleInvalid("one is not in NFC, the form that labels are compared in", field=place)


def _check_base(known: Mapping[str, KnownTask], manifest: Manifest) -> None:
    base = manifest.base_task
    if base is None:
        return
    if base not in known:
        raise BundleInvalid(f"no task {base!r}", field="manifest.json.base.task", allowed=f"one of {TASKS}")
    kind, support = known[base].output.kind, manifest.support
    if "support" in manifest.accepts and support is not None and kind != support.kind:
        raise BundleInvalid(
            f"the task {base!r} is of kind {kind}", field="manifest.json.base.task", allowed=f"kind {support.kind}"
        )


def _labels(entry: _Entry, manifest: Manifest, place: str) -> Labels:
    """The label of each slot.

    Raises:
        BundleInvalid: they do not fit those of the bundle.
    """
    fixed = manifest.fixed_labels
    if not manifest.open_labels:
        if entry.labels not in (None, fixed or None):
            allowed = f"none, or the bundle's: {list(fixed)}" if fixed else "none: the model predicts numbers"
            raise BundleInvalid(f"are {list(entry.labels or ())}", field=place, allowed=allowed)
        return Labels(fixed)
    labels = entry.labels or ()
    if not 1 <= len(labels) <= manifest.ways:
        raise BundleInvalid(f"there are {len(labels)}", field=place, allowed=f"1 to {manifest.ways}, the ways")
    _check_names(labels, place)
    return Labels((*labels, *(None for _ in range(manifest.ways - len(labels)))))


def find_task(known: Mapping[str, KnownTask], task_id: str, field: str) -> KnownTask:
    """The known task of an id.

    Raises:
        TaskNotFound: there is none; the ids nearest to it are told, or the first few.
    """
    if task_id not in known:
        by_lower = {name.lower(): name for name in known} if len(known) <= COMPARED else {}
        near = [by_lower[name] for name in get_close_matches(task_id.lower(), by_lower, NAMED)] or list(known)[:NAMED]
        more = f", and {len(known) - len(near)} more" if len(known) > len(near) else ""
        raise TaskNotFound(f"no task {task_id!r}", field=field, allowed=f"one of {near}{more}: see the model's tasks")
    return known[task_id]
