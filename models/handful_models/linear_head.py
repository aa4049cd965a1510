"""What heads with a closed form share: linear weights on features of unit norm, and a learned scale of the logits."""

from typing import ClassVar, Self

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from .head import projection, width_of
from .learner import Labels, Learner, Options, Target, Tensors
from .ways import as_member


class LinearHeadOptions(Options):
    """The settings of a linear head."""

    projection: int = Field(0, ge=0, le=64, description="Width of a learned projection of the features; 0: none.")


class LinearHead(Learner):
    """State: `weights [width + 1, ways]`, `present [ways]`.

    Attributes:
        start: What training begins with: the logarithm of the scale, and λ before softplus.
    """

    options: ClassVar[type[Options]] = LinearHeadOptions
    labels: ClassVar[tuple[Labels, ...]] = ("open", "fixed")
    start: ClassVar[tuple[float, float]]

    def __init__(
        self, encoder: nn.Module, *, ways: int, fixed: bool = False, projection: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.ways = ways
        self.fixed = fixed
        self.encoder = encoder
        self.projection = projection or nn.Identity()
        self.log_scale, self.raw_lambda = (nn.Parameter(torch.tensor(value)) for value in self.start)

    @classmethod
    def make(
        cls, encoder: nn.Module, *, ways: int, examples: int, target: Target, fixed: bool, options: LinearHeadOptions
    ) -> Self:
        """See `Learner`."""
        cls.require(target, fixed=fixed)
        mapped = projection(width_of(encoder), options.projection)
        return cls(encoder, ways=ways, fixed=fixed, projection=mapped)

    def encode(self, inputs: Tensors) -> Tensors:
        """`features [batch, width + 1]`: projected, of unit norm, and a constant 1."""
        return {"features": F.pad(F.normalize(self.projection(self.encoder(inputs["x"])), dim=-1), (0, 1), value=1.0)}

    def penalty(self, least: float) -> Tensor:
        """λ, a scalar above `least`."""
        return least + F.softplus(self.raw_lambda)

    def predict(self, features: Tensors, state: Tensors) -> Tensor:
        """Logits `[..., 1, ways]`."""
        values = (features["features"].unsqueeze(-2) @ state["weights"]).squeeze(-2)
        return as_member(self.log_scale.exp() * values, state["present"])
