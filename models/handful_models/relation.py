"""The relation head.

Sung, Yang, Zhang, Xiang, Torr, Hospedales, "Learning to Compare: Relation Network for Few-Shot Learning" (2018).
A small network g compares a query with the mean of each way, in place of a fixed distance:

    logit_k(x) = g(|f(x) - c_k|, f(x) * c_k)
"""

from typing import Self

import torch
from torch import Tensor, nn

from .head import width_of
from .learner import Options, Target, Tensors
from .prototypes import Prototypes
from .ways import as_member

HIDDEN = 32


class Relation(Prototypes):
    """The state is that of prototypes; the comparison is learned, beginning at a scaled squared distance."""

    def __init__(self, encoder: nn.Module, *, width: int, ways: int) -> None:
        super().__init__(encoder, ways=ways)
        self.relation = nn.Sequential(nn.Linear(2 * width, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 1))
        self.log_scale = nn.Parameter(torch.tensor(0.0))

    @classmethod
    def make(
        cls, encoder: nn.Module, *, ways: int, examples: int, target: Target, fixed: bool, options: Options
    ) -> Self:
        """See `Learner`."""
        cls.require(target, fixed=fixed)
        return cls(encoder, width=width_of(encoder), ways=ways)

    def predict(self, features: Tensors, state: Tensors) -> Tensor:
        """Logits `[..., 1, ways]`: one member."""
        query, prototypes = features["features"].unsqueeze(-2), state["prototypes"]
        difference = query - prototypes
        pair = torch.cat([difference.abs(), query * prototypes], -1)
        learned = self.relation(pair).squeeze(-1)
        return as_member(learned - self.log_scale.exp() * difference.square().sum(-1), state["present"])
