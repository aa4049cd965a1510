"""Labelled rows of known tasks, and batches of them: uniform over tasks whatever their sizes, or by temperature."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from .errors import ConfigInvalid
from .learner import Reader, Tensors
from .record_encoder import RecordField


@dataclass(frozen=True, slots=True)
class TaskRows:
    """Rows of one task.

    Attributes:
        x: Inputs by name, each `[row, *input]`.
        y: int64 `[row]` for `class`; float32 `[row, 1]` for `number`; float32 `[row, label]`, 0 or 1, for `labels`.
        weight: float32 `[row]`, or `[row, label]` for `labels`; 0 where the label is missing.
    """

    x: Tensors
    y: Tensor
    weight: Tensor

    def __len__(self) -> int:
        return len(self.y)

    def at(self, places: Tensor) -> "TaskRows":
        """Some of the rows."""
        return TaskRows({name: value[places] for name, value in self.x.items()}, self.y[places], self.weight[places])


@dataclass(frozen=True, slots=True)
class TaskBatch:
    """Rows of several tasks, task after task.

    Attributes:
        tasks: The index of each part's task.
        parts: Its rows.
    """

    tasks: tuple[int, ...]
    parts: tuple[TaskRows, ...]

    @property
    def x(self) -> dict[str, Tensor]:
        """The inputs of all rows, by name."""
        return {name: torch.cat([part.x[name] for part in self.parts]) for name in self.parts[0].x}

    @property
    def index(self) -> Tensor:
        """int64 `[row]`, the task of each row."""
        return torch.tensor(self.tasks).repeat_interleave(torch.tensor([len(part) for part in self.parts]))


class KnownTasks(Protocol):
    """A data set of known tasks.

    Attributes:
        readers: The tasks, by index.
        fields: Of an input that is a record; none of a picture.
    """

    readers: tuple[Reader, ...]
    fields: tuple[RecordField, ...]

    def sizes(self) -> Sequence[int]:
        """Training rows of each task."""
        ...

    def draw(self, generator: np.random.Generator, counts: Sequence[int]) -> TaskBatch:
        """So many training rows of each task, as training sees them."""
        ...

    def rows(self, split: str) -> Sequence[TaskRows]:
        """The rows of `select` or `report` as clients send them, by task."""
        ...

    def fit(self, learner: Any) -> None:
        """Give a fresh learner the units of the training rows."""
        ...


def mixture(sizes: Sequence[int], temperature: float | None) -> np.ndarray:
    """The share of each task in a batch.

    Args:
        sizes: Rows of each task.
        temperature: None: the same for each. Else sizes to the power `1 / temperature`: 1 is in proportion to sizes,
            and the larger it is, the more alike are the shares.
    """
    if temperature is None:
        return np.full(len(sizes), 1 / len(sizes))
    raised = np.power(np.asarray(sizes, np.float64) / max(sizes), 1 / temperature)
    return np.asarray(raised / raised.sum())


def counts_of(generator: np.random.Generator, shares: np.ndarray, rows: int) -> list[int]:
    """How many rows of each task a batch has: whole numbers as near to the shares as may be, the rest by chance."""
    exact = shares * rows
    counts = np.floor(exact + 1e-9).astype(int)
    left = rows - int(counts.sum())
    rest = np.maximum(exact - counts, 0) + 1e-12
    counts[generator.choice(len(shares), left, replace=False, p=rest / rest.sum())] += 1
    return [int(count) for count in counts]


def drawn_places(generator: np.random.Generator, rows: int, count: int) -> Tensor:
    """Random places among `rows`, none twice as long as there are enough."""
    return torch.from_numpy(generator.choice(rows, count, replace=count > rows))


def chosen_tasks(known: Sequence[str], only: Sequence[str]) -> list[str]:
    """The ids that are wanted, in the order of the data set.

    Raises:
        ConfigInvalid: no such task.
    """
    for name in only:
        if name not in known:
            raise ConfigInvalid(f"data.only: no task {name!r}; known: {', '.join(known)}")
    return [name for name in known if not only or name in only]
