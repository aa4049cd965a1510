"""A multilayer perceptron over a vector of numbers."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Mlp(nn.Module):
    """Features `[batch, width]`, float32, of vectors `[batch, inputs]`, float32 in the caller's units.

    The inputs are standardised first, by the constants `mean` and `scale`, which are saved with the weights.

    Attributes:
        mean: float32 `[inputs]`; 0 unless given.
        scale: float32 `[inputs]`, positive; 1 unless given.
    """

    mean: Tensor
    scale: Tensor

    def __init__(
        self,
        inputs: int,
        width: int,
        *,
        hidden: Sequence[int] = (64, 64),
        mean: Tensor | None = None,
        scale: Tensor | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.width = width
        self.register_buffer("mean", torch.zeros(inputs) if mean is None else mean.float().reshape(inputs))
        self.register_buffer("scale", torch.ones(inputs) if scale is None else scale.float().reshape(inputs))
        layers: list[nn.Module] = []
        before = inputs
        for size in hidden:
            layers += [nn.Linear(before, size), nn.ReLU(), *([nn.Dropout(dropout)] if dropout else [])]
            before = size
        self.layers = nn.Sequential(*layers, nn.Linear(before, width))

    def forward(self, x: Tensor) -> Tensor:
        """Features of the vectors; see the class."""
        features: Tensor = self.layers((x - self.mean) / self.scale)
        return features
