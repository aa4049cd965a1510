"""Ridge regression to one-hot labels, solved in closed form inside the graph.

Bertinetto, Henriques, Torr, Vedaldi, "Meta-learning with differentiable closed-form solvers" (2019), the head R2-D2.
With unit-norm features x, a constant 1 beside them, and one-hot labels Y:

    W = (X'X + λI)^-1 X'Y,    logit_k(x) = α (x'W)_k,    α and λ learned, λ at least 0.1
"""

from typing import ClassVar

import torch
from torch import Tensor

from .learner import AdditiveLearner, Tensors
from .linear_head import LinearHead
from .solve import solve_positive
from .ways import one_hot, open_ways

LEAST_LAMBDA = 0.1


class Ridge(LinearHead, AdditiveLearner):
    """State: `weights [width + 1, ways]`, `present [ways]`."""

    start: ClassVar[tuple[float, float]] = (3.0, -1.0)

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
        penalty = self.penalty(LEAST_LAMBDA) * torch.eye(gram.shape[-1])
        weights = solve_positive(gram + penalty, statistics["moment"])
        return {"weights": weights, "present": open_ways(statistics["counts"], fixed=self.fixed)}
