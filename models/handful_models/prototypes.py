"""Prototypical networks.

Snell, Swersky, Zemel, "Prototypical Networks for Few-shot Learning" (2017). The prototype of a way is the mean
of its support features, and the logit of a way is the negative squared distance to it:

    c_k = (sum_i w_i [y_i = k] f(x_i)) / (sum_i w_i [y_i = k]),    logit_k(x) = -||f(x) - c_k||^2
"""

from typing import Self

import torch
from torch import Tensor, nn

from .learner import AdditiveLearner, Options, Target, Tensors
from .ways import as_member, one_hot, present_ways


class Prototypes(AdditiveLearner):
    """A learner with features `features [width]` and the state `prototypes [ways, width]`, `present [ways]`.

    Args:
        encoder: Gives features `[batch, width]` of an input `x [batch, *input]`.
        ways: Ways that a state holds.
    """

    def __init__(self, encoder: nn.Module, *, ways: int) -> None:
        super().__init__()
        self.ways = ways
        self.encoder = encoder

    @classmethod
    def make(
        cls, encoder: nn.Module, *, ways: int, examples: int, target: Target, fixed: bool, options: Options
    ) -> Self:
        """See `Learner`."""
        cls.require(target, fixed=fixed)
        return cls(encoder, ways=ways)

    def encode(self, inputs: Tensors) -> Tensors:
        """`features [batch, width]` of `x [batch, *input]`."""
        return {"features": self.encoder(inputs["x"])}

    def summarise(self, features: Tensors, y: Tensor, weight: Tensor) -> Tensors:
        """`sums [task, ways, width]` and `counts [task, ways]` of features `[task, example, width]`."""
        labels = one_hot(y, weight, self.ways)
        return {"sums": labels.transpose(1, 2) @ features["features"], "counts": labels.sum(1)}

    def adapt(self, statistics: Tensors) -> Tensors:
        """`prototypes [task, ways, width]`, zero where `present [task, ways]` is 0, else 1."""
        counts = statistics["counts"]
        divisor = torch.where(counts > 0, counts, torch.ones_like(counts))
        return {"prototypes": statistics["sums"] / divisor.unsqueeze(-1), "present": present_ways(counts)}

    def predict(self, features: Tensors, state: Tensors) -> Tensor:
        """Logits `[..., 1, ways]`: one member."""
        # Differences before squares: |f|^2 - 2 f.c + |c|^2 cancels, and loses the digits that the laws compare.
        difference = features["features"].unsqueeze(-2) - state["prototypes"]
        return as_member(-difference.square().sum(-1), state["present"])
