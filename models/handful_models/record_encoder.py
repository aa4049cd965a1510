"""Records of named numbers and categories, and the encoder that turns them into features.

Numbers stand in their own units beside their place between quantiles, a piecewise linear encoding: Gorishniy,
Rubachev, Babenko, "On Embeddings for Numerical Features in Tabular Deep Learning" (2022), §3.2. Categories are one-hot,
or have an embedding.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from .errors import ConfigInvalid

FURTHEST = 10.0
"""Deviations from the mean beyond which a number counts no further: one wild field must not rule an answer."""


@dataclass(frozen=True, slots=True)
class RecordField:
    """One feature of a record.

    Attributes:
        name: What a request calls it.
        kind: A number stands as itself, a category as its place in the list.
        categories: In order; none for a number. Any other has the place after the last.
        minimum: Of a number that is accepted, if there is a bound.
        maximum: Likewise.
        default: What stands for a field that is missing; None: the field is required.
        unseen: What happens to an unknown category.
    """

    name: str
    kind: Literal["number", "category"]
    categories: tuple[str, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    default: str | float | None = None
    unseen: Literal["refuse", "other"] = "refuse"

    def options(self) -> dict[str, Any]:
        """The field as a manifest declares it."""
        if self.kind == "number":
            return {"name": self.name, "kind": "number", "minimum": self.minimum, "maximum": self.maximum,
                    "default": self.default}  # fmt: skip
        return {"name": self.name, "kind": "category", "categories": list(self.categories), "unseen": self.unseen,
                "default": self.default}  # fmt: skip

    def place(self, value: str | float) -> float:
        """What stands for a value in the row.

        Raises:
            ConfigInvalid: the category is unknown and not folded.
        """
        if self.kind == "number":
            return float(value)
        if value in self.categories:
            return float(self.categories.index(str(value)))
        if self.unseen == "refuse":
            raise ConfigInvalid(f"{self.name}: {value!r} is none of {', '.join(self.categories)}")
        return float(len(self.categories))


def rows_of(fields: Sequence[RecordField], columns: Mapping[str, Sequence[str | float]]) -> Tensor:
    """Records in columns as rows: float32 `[record, field]`.

    Raises:
        ConfigInvalid: a category is unknown and not folded.
    """
    found = [[field.place(value) for value in columns[field.name]] for field in fields]
    return torch.tensor(found, dtype=torch.float32).T.contiguous()


class RecordEncoder(nn.Module):
    """Features `[batch, width]`, float32, of records `[batch, field]`, float32.

    Args:
        fields: In the order of the row.
        bins: Quantiles between which a number is placed; 0: only the standardised number.
        embedding: Width of a category's embedding; 0: one-hot.

    Attributes:
        mean: float32 `[number]`, what numbers are standardised by; 0 unless `fit` was called.
        scale: float32 `[number]`; 1 unless `fit` was called.
        edges: float32 `[number, bins + 1]`, rising; where two are equal, the bin between them is always 0 or 1.
    """

    mean: Tensor
    scale: Tensor
    edges: Tensor

    def __init__(self, fields: Sequence[RecordField], *, bins: int = 0, embedding: int = 0) -> None:
        super().__init__()
        self.fields = tuple(fields)
        self.numbers = [place for place, field in enumerate(fields) if field.kind == "number"]
        self.categories = [(place, len(field.categories)) for place, field in enumerate(fields) if field.categories]
        self.bins = bins
        self.register_buffer("mean", torch.zeros(len(self.numbers)))
        self.register_buffer("scale", torch.ones(len(self.numbers)))
        self.register_buffer("edges", torch.arange(bins + 1.0).repeat(len(self.numbers), 1))
        sizes = [size + 1 for _, size in self.categories] if embedding else []
        self.tables = nn.ModuleList(nn.Embedding(size, embedding) for size in sizes)
        of_categories = sum(embedding or size + 1 for _, size in self.categories)
        self.width = len(self.numbers) * (1 + bins) + of_categories

    def fit(self, x: Tensor) -> None:
        """Take means, deviations and quantiles of training records `[record, field]`."""
        numbers = x[:, self.numbers]
        self.mean.copy_(numbers.mean(0))
        deviation = numbers.std(0, correction=0)
        self.scale.copy_(torch.where(deviation > 0, deviation, 1.0))
        if self.bins:
            edges = [quantile_edges(column, self.bins) for column in numbers.double().numpy().T]
            self.edges.copy_(torch.from_numpy(np.stack(edges)))

    def forward(self, x: Tensor) -> Tensor:
        """Features of the records; see the class."""
        numbers = x[:, self.numbers]
        parts = [((numbers - self.mean) / self.scale).clamp(-FURTHEST, FURTHEST)]
        if self.bins:
            parts.append(self._placed(numbers).flatten(1))
        for turn, (place, size) in enumerate(self.categories):
            index = x[:, place].to(torch.int64).clamp(0, size)
            parts.append(self.tables[turn](index) if len(self.tables) else F.one_hot(index, size + 1).to(x.dtype))
        return torch.cat(parts, -1)

    def _placed(self, numbers: Tensor) -> Tensor:
        """How far each bin is filled, 0..1: `[batch, number, bin]`."""
        low, high = self.edges[:, :-1], self.edges[:, 1:]
        width = high - low
        filled = ((numbers.unsqueeze(-1) - low) / width.clamp_min(1e-6)).clamp(0, 1)
        reached = (numbers.unsqueeze(-1) > low).to(numbers.dtype)
        return torch.where(width > 0, filled, reached)


def quantile_edges(values: NDArray[np.float64], bins: int) -> NDArray[np.float64]:
    """Edges `[bins + 1]` that cut values `[n]` into bins of about the same number.

    A value that most rows have, such as no gain at all, would take most edges, so they are those of the other rows; the
    first bin begins at the least value nevertheless.
    """
    found, counts = np.unique(values, return_counts=True)
    most = found[counts.argmax()]
    others = values[values != most] if len(found) > 1 and counts.max() > len(values) / 2 else values
    edges = np.quantile(others, np.linspace(0, 1, bins + 1))
    edges[0], edges[-1] = values.min(), values.max()
    return np.asarray(edges)
