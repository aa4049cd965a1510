"""Multinomial logistic regression by a fixed number of steps on a quadratic bound.

Böhning, "Multinomial logistic regression algorithm" (1992): the Hessian of the loss is at most ½ X'X in each way, so
steps with that fixed matrix always lower the loss, and it is inverted once. With unit-norm features x and a constant 1:

    W <- W - (½ X'X + λI)^-1 (X'(P - Y) + λW),    P = softmax(XW) over the ways that are present

and the logit of a way is α (x'W)_k, α learned.

Bertinetto et al. (2019) use the same idea, for two ways, in the head LR-D2.
"""

from typing import ClassVar, Self

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from .head import projection, width_of
from .learner import Learner, Options, Target, Tensors
from .solve import invert_positive
from .ways import ABSENT_LOGIT, as_member, one_hot, open_ways

STEPS = 10
LEAST_LAMBDA = 0.02


def bounded_steps(
    x: Tensor, labels: Tensor, weight: Tensor, present: Tensor, *, penalty: Tensor | float, steps: int
) -> Tensor:
    """Weights `[task, d, ways]` of multinomial logistic regression after some steps from zero.

    Args:
        x: `[task, example, d]`.
        labels: One-hot `[task, example, ways]`, 0 for absent examples.
        weight: `[task, example]`.
        present: 1 for the ways that share the probability: `[task, ways]`.
        penalty: λ.
        steps: How many.
    """
    gram = (x * weight.unsqueeze(-1)).transpose(1, 2) @ x
    inverse = invert_positive(gram / 2, penalty)
    absent = ABSENT_LOGIT * (1 - present).unsqueeze(1)
    weights = torch.zeros_like(x.transpose(1, 2) @ labels)
    for _ in range(steps):
        chances = (x @ weights + absent).softmax(-1) * weight.unsqueeze(-1)
        gradient = x.transpose(1, 2) @ (chances - labels) + penalty * weights
        weights = weights - inverse @ gradient
    return weights


class LogisticOptions(Options):
    """The settings of logistic regression."""

    projection: int = Field(0, ge=0, le=64, description="Width of a learned projection of the features; 0: none.")


class Logistic(Learner):
    """State: `weights [width + 1, ways]`, `present [ways]`."""

    options: ClassVar[type[Options]] = LogisticOptions
    labels = ("open", "fixed")

    def __init__(
        self, encoder: nn.Module, *, ways: int, fixed: bool = False, projection: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.ways = ways
        self.fixed = fixed
        self.encoder = encoder
        self.projection = projection or nn.Identity()
        self.log_scale = nn.Parameter(torch.tensor(2.0))
        self.raw_lambda = nn.Parameter(torch.tensor(-2.0))

    @classmethod
    def make(
        cls, encoder: nn.Module, *, ways: int, examples: int, target: Target, fixed: bool, options: LogisticOptions
    ) -> Self:
        """See `Learner`."""
        cls.require(target, fixed=fixed)
        mapped = projection(width_of(encoder), options.projection)
        return cls(encoder, ways=ways, fixed=fixed, projection=mapped)

    def encode(self, inputs: Tensors) -> Tensors:
        """`features [batch, width + 1]`: projected, of unit norm, and a constant 1."""
        return {"features": F.pad(F.normalize(self.projection(self.encoder(inputs["x"])), dim=-1), (0, 1), value=1.0)}

    def state(self, features: Tensors, y: Tensor, weight: Tensor) -> Tensors:
        """See the class."""
        labels = one_hot(y, weight, self.ways)
        present = open_ways(labels.sum(1), fixed=self.fixed)
        penalty = LEAST_LAMBDA + F.softplus(self.raw_lambda)
        weights = bounded_steps(features["features"], labels, weight, present, penalty=penalty, steps=STEPS)
        return {"weights": weights, "present": present}

    def predict(self, features: Tensors, state: Tensors) -> Tensor:
        """Logits `[..., 1, ways]`."""
        values = (features["features"].unsqueeze(-2) @ state["weights"]).squeeze(-2)
        return as_member(self.log_scale.exp() * values, state["present"])
