"""Multinomial logistic regression by a fixed number of steps on a quadratic bound.

Böhning, "Multinomial logistic regression algorithm" (1992): the Hessian of the loss is at most ½ X'X in each way, so
steps with that fixed matrix always lower the loss, and it is inverted once. With unit-norm features x and a constant 1:

    W <- W - (½ X'X + λI)^-1 (X'(P - Y) + λW),    P = softmax(XW) over the ways that are present

and the logit of a way is α (x'W)_k, α learned.

Bertinetto et al. (2019) use the same idea, for two ways, in the head LR-D2.
"""

from typing import ClassVar

import torch
from torch import Tensor

from .learner import Tensors
from .linear_head import LinearHead
from .solve import invert_positive
from .ways import ABSENT_LOGIT, one_hot, open_ways

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


class Logistic(LinearHead):
    """State: `weights [width + 1, ways]`, `present [ways]`."""

    start: ClassVar[tuple[float, float]] = (2.0, -2.0)

    def state(self, features: Tensors, y: Tensor, weight: Tensor) -> Tensors:
        """See the class."""
        labels = one_hot(y, weight, self.ways)
        present = open_ways(labels.sum(1), fixed=self.fixed)
        penalty = self.penalty(LEAST_LAMBDA)
        weights = bounded_steps(features["features"], labels, weight, present, penalty=penalty, steps=STEPS)
        return {"weights": weights, "present": present}
