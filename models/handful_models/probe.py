"""A linear probe: logistic regression from scratch on the features, the baseline of every learned head.

Chen, Liu, Kira, Wang, Huang, "A Closer Look at Few-shot Classification" (2019), the baseline; Tian, Wang, Krishnan,
Tenenbaum, Isola, "Rethinking Few-Shot Image Classification: a Good Embedding Is All You Need?" (2020). Nothing is
meta-learned but the features: with them at unit norm and a constant 1 beside them, some steps on

    sum_i w_i CE(x_i'W, y_i) + λ/2 |W|^2

from W = 0, by the bound of `logistic.py`.
"""

from typing import ClassVar, Self

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from .head import Head, masked
from .learner import Options, Target, Tensors
from .logistic import bounded_steps
from .ways import as_member, open_ways


class ProbeOptions(Options):
    """The settings of the probe."""

    penalty: float = Field(0.05, ge=0.01, le=100, description="λ; less than 0.01 costs digits in float32.")
    steps: int = Field(20, ge=1, le=100, description="Steps from 0; each lowers the loss.")


class Probe(Head):
    """State: `weights [width + 1, ways]`, `present [ways]`."""

    options: ClassVar[type[Options]] = ProbeOptions

    def __init__(self, encoder: nn.Module, *, ways: int, target: Target, fixed: bool, options: ProbeOptions) -> None:
        super().__init__(encoder, ways=ways, target=target, fixed=fixed)
        self.invariant = ("order", "labels")  # with fixed labels too: no way begins with weights of its own
        self.penalty = options.penalty
        self.steps = options.steps

    @classmethod
    def make(
        cls, encoder: nn.Module, *, ways: int, examples: int, target: Target, fixed: bool, options: ProbeOptions
    ) -> Self:
        """See `Learner`."""
        return cls(encoder, ways=ways, target=target, fixed=fixed, options=options)

    def state(self, features: Tensors, y: Tensor, weight: Tensor) -> Tensors:
        """See the class."""
        labels = self.label_vectors(y, weight)
        present = open_ways(labels.sum(1), fixed=self.fixed)
        x = masked(_regressors(features), weight)
        weights = bounded_steps(x, labels, weight, present, penalty=self.penalty, steps=self.steps)
        return {"weights": weights, "present": present}

    def predict(self, features: Tensors, state: Tensors) -> Tensor:
        """Logits `[..., 1, ways]`."""
        values = (_regressors(features).unsqueeze(-2) @ state["weights"]).squeeze(-2)
        return as_member(values, state["present"])


def _regressors(features: Tensors) -> Tensor:
    """`[..., width + 1]`: features of unit norm, and a constant 1."""
    return F.pad(F.normalize(features["features"], dim=-1), (0, 1), value=1.0)
