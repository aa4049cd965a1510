"""The values that everything else passes around. All are frozen; arrays in them are never written to."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Arrays = Mapping[str, Array]
"""Named arrays: the inputs, features, statistics or state of some rows."""

ID = r"^[A-Za-z0-9][A-Za-z0-9._~@+-]{0,127}$"
"""What names adaptations, examples, events and known tasks."""

Label = str | float
"""What an example says of its input: a name where the model tells classes apart, else a number."""


Scope = Literal["predict", "adapt", "admin"]
"""What a caller may do: predict; read and change adaptations; see the metrics of the server."""

SCOPES: tuple[Scope, ...] = get_args(Scope)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks.

    Attributes:
        tenant: The owner of all adaptations that this caller can see. Never part of a URL or a body.
        scopes: What the caller may do.
    """

    tenant: str = "default"
    scopes: frozenset[Scope] = frozenset(SCOPES)


@dataclass(frozen=True, slots=True)
class Labels:
    """Which label each slot of a task state stands for.

    Attributes:
        slots: One entry per slot; None is a free slot. Where labels are numbers there are no slots.
    """

    slots: tuple[str | None, ...]

    @property
    def present(self) -> tuple[tuple[int, str], ...]:
        """The slots in use, with their labels."""
        return tuple((slot, label) for slot, label in enumerate(self.slots) if label is not None)


@dataclass(frozen=True, slots=True)
class SupportSet:
    """The examples that define a task, as arrays.

    Attributes:
        features: Arrays `[example, *feature]`.
        y: The labels: slots, int64 `[example]`, or numbers, float32 `[example, 1]`.
        weight: float32 `[example]`, above 0.
    """

    features: Arrays
    y: Array
    weight: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.y)


@dataclass(frozen=True, slots=True)
class TaskState:
    """φ, and what reading its predictions needs.

    Attributes:
        arrays: The state, each `[*state]`.
        labels: The label of each slot.
        shots: The effective shots of calibration: the smallest sum of weights over the labels in use, or, where
            labels are numbers, the sum of all weights.
        task: The id of the known task whose columns it reads, if it comes of one.
        described: Whether a descriptor stands behind it, so that it answers without any example.
    """

    arrays: Arrays
    labels: Labels
    shots: float
    task: str | None = None
    described: bool = False

    @property
    def ways(self) -> int:
        """Labels in use."""
        return len(self.labels.present)
