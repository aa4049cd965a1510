"""Records as vectors: a number stands as itself, a category as its index, as requests carry them."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .mlp import Mlp


class Expanded(nn.Module):
    """A vector `[batch, width]` of records `[batch, fields]`, float32: standard numbers, one-hot categories.

    The index after a category's last, or any other, gives zeros: a category that training never saw.

    Attributes:
        width: Of the vector.
        mean: float32 `[fields]`, 0 unless `fit` set it; not used for categories.
        scale: float32 `[fields]`, 1 unless `fit` set it; not used for categories.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, fields: Sequence[int]) -> None:
        """Fields: for each the number of its categories, 0 for a number."""
        super().__init__()
        self.fields = tuple(fields)
        self.width = sum(max(1, size) for size in self.fields)
        self.register_buffer("mean", torch.zeros(len(self.fields)))
        self.register_buffer("scale", torch.ones(len(self.fields)))

    def fit(self, records: Tensor) -> None:
        """Standardise numbers by the mean and deviation of `records [n, fields]`; a constant one only to mean 0."""
        number = torch.tensor([size == 0 for size in self.fields])
        deviation = records.std(0, correction=0)
        self.mean.copy_(torch.where(number, records.mean(0), 0.0))
        self.scale.copy_(torch.where(number & (deviation > 0), deviation, 1.0))

    def forward(self, records: Tensor) -> Tensor:
        """See the class."""
        standard = (records - self.mean) / self.scale
        parts = []
        for place, size in enumerate(self.fields):
            column = standard[:, place : place + 1]
            parts.append((column.round() == torch.arange(size)).float() if size else column)
        return torch.cat(parts, -1)


class RecordMlp(nn.Module):
    """Features `[batch, 1 + width]` of records `[batch, fields]`: a linear guess, then a multilayer perceptron's.

    Attributes:
        direct: The guess; given, not trained.
        width: Of the features, the guess among them.
    """

    def __init__(self, fields: Sequence[int], width: int, *, hidden: Sequence[int], crossed: int | None = None) -> None:
        """Crossed: the place of a category whose products with all else the guess may use."""
        super().__init__()
        self.expanded = Expanded(fields)
        self.crossed = slice(0, 0)
        if crossed is not None:
            first = sum(max(1, size) for size in fields[:crossed])
            self.crossed = slice(first, first + fields[crossed])
        self.direct = frozen_guess(self.expanded.width * (1 + self.crossed.stop - self.crossed.start))
        self.mlp = Mlp(self.expanded.width, width, hidden=hidden)
        self.width = width + 1

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        return torch.cat([self.direct(self.terms(x)), self.mlp(self.expanded(x))], -1)

    def terms(self, x: Tensor) -> Tensor:
        """What the guess is linear in: `Expanded`, then its products with each column of the crossed category."""
        expanded = self.expanded(x)
        columns = expanded[:, self.crossed]
        return torch.cat([expanded, (columns.unsqueeze(-1) * expanded.unsqueeze(1)).flatten(1)], -1)


def frozen_guess(width: int) -> nn.Linear:
    """A linear map of `width` numbers to one, 0 until it is given, that training leaves alone."""
    layer = nn.Linear(width, 1)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer.requires_grad_(False)
