"""`tasks.json`: the tasks that a bundle knows without examples."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any
from unicodedata import is_normalized

from pydantic import Field, StringConstraints, TypeAdapter, ValidationError

from ..errors import BundleInvalid, TaskNotFound
from ..task import ID, Labels
from .manifest import Manifest
from .outputs import Label
from .parts import Part

TASKS = "tasks.json"
NAMED = 5
"""Ids that a refusal names."""


class _Entry(Part):
    """One task as the file has it."""

    id: Annotated[str, StringConstraints(pattern=ID)]
    labels: tuple[Label, ...] | None = Field(None, min_length=1)
    shots: float = Field(ge=0)
    evaluation: dict[str, Any] | None = None
    description: str | None = Field(None, max_length=500)


@dataclass(frozen=True, slots=True)
class KnownTask:
    """A task that a request may name by its id.

    Attributes:
        index: Its place in the file, which `describe.id` takes.
        labels: The label of each slot.
        shots: Its effective shots, which choose the cell of the calibration.
    """

    index: int
    labels: Labels
    shots: float


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
    return tasks, _known(content, manifest) if "task" in manifest.accepts else {}


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
        known[entry.id] = KnownTask(index, _labels(entry, manifest, f"{TASKS}[{index}].labels"), entry.shots)
    return known


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
    if len(set(labels)) < len(labels):
        raise BundleInvalid("one is there twice", field=place)
    if not all(is_normalized("NFC", label) for label in labels):
        raise BundleInvalid("one is not in NFC, the form that labels are compared in", field=place)
    return Labels((*labels, *(None for _ in range(manifest.ways - len(labels)))))


def find_task(known: Mapping[str, KnownTask], task_id: str, field: str) -> KnownTask:
    """The known task of an id.

    Raises:
        TaskNotFound: there is none.
    """
    if task_id not in known:
        more = f", and {len(known) - NAMED} more" if len(known) > NAMED else ""
        raise TaskNotFound(
            f"no task {task_id!r}", field=field, allowed=f"one of {list(known)[:NAMED]}{more}: see the model's tasks"
        )
    return known[task_id]
