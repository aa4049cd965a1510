"""Ridge regression to one-hot labels, solved in closed form inside the graph.

Bertinetto, Henriques, Torr, Vedaldi, "Meta-learning with differentiable closed-form solvers" (2019), the head R2-D2.
With unit-norm features x, a constant 1 beside them, and one-hot labels Y:

    W = (X'X + λI)^-1 X'Y,    logit_k(x) = α (x'W)_k,    α and λ learned, λ at least 0.1
"""

from typing import ClassVar, Self

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from .head import projection, width_of
from .learner import AdditiveLearner, Options, Target, Tensors
from .solve import solve_positive
from .ways import as_member, one_hot, open_ways

LEAST_LAMBDA = 0.1


class RidgeOptions(Options):
    """The settings of ridge regression."""

    projection: int = Field(0, ge=0, le=64, description="Width of a learned projection of the features; 0: none.")


class Ridge(AdditiveLearner):
    """State: `weights [width + 1, ways]`, `present [ways]`."""

    options: ClassVar[type[Options]] = RidgeOptions
    labels = ("open", "fixed")

    def __init__(
        self, encoder: nn.Module, *, ways: int, fixed: bool = False, projection: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.ways = ways
        self.fixed = fixed
        self.encoder = encoder
        self.projection = projection or nn.Identity()
        self.log_scale = nn.Parameter(torch.tensor(3.0))
        self.raw_lambda = nn.Parameter(torch.tensor(-1.0))

    @classmethod
    def make(
        cls, encoder: nn.Module, *, ways: int, examples: int, target: Target, fixed: bool, options: RidgeOptions
    ) -> Self:
        """See `Learner`."""
        cls.require(target, fixed=fixed)
        mapped = projection(width_of(encoder), options.projection)
        return cls(encoder, ways=ways, fixed=fixed, projection=mapped)

    def encode(self, inputs: Tensors) -> Tensors:
        """`features [batch, width + 1]`: projected, of unit norm, and a constant 1."""
        return {"features": F.pad(F.normalize(self.projection(self.encoder(inputs["x"])), dim=-1), (0, 1), value=1.0)}

    def summarise(self, features: Tensors, y: Tensor, weight: Tensor) -> Tensors:
        """`gram [task, d, d]` = X'X, `moment [task, d, ways]` = X'Y, `counts [task, ways]`, with d = width + 1."""
        x = features["features"]
        labels = one_hot(y, weight, self.ways)
        return {
            "gram": (x * weight.unsqueeze(-1)).transpose(1, 2) @ x,
            "moment": x.transpose(1, 2) @ labels,
            "counts": labels.sum(1),
        }

    def adapt(self, statistics: Tensors) -> Tensors:
        """See the class."""
        gram = statistics["gram"]
        penalty = (LEAST_LAMBDA + F.softplus(self.raw_lambda)) * torch.eye(gram.shape[-1])
        weights = solve_positive(gram + penalty, statistics["moment"])
        return {"weights": weights, "present": open_ways(statistics["counts"], fixed=self.fixed)}

    def predict(self, features: Tensors, state: Tensors) -> Tensor:
        """Logits `[..., 1, ways]`."""
        values = (features["features"].unsqueeze(-2) @ state["weights"]).squeeze(-2)
        return as_member(self.log_scale.exp() * values, state["present"])
