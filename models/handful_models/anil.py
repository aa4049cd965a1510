"""Almost no inner loop: only the head adapts.

Raghu, Raghu, Bengio, Vinyals, "Rapid Learning or Feature Reuse? Towards Understanding the Effectiveness of MAML"
(2020). MAML with the steps taken by the last layer alone, on features f(x) that all tasks share:

    H_{j+1} = H_j - α (Σ_i w_i (p_i - y_i) f(x_i)') / (Σ_i w_i),    p = softmax(H f), or H f for numbers

Features are of unit norm, after a learned projection if there is one and less their running mean, times a learned
scale. What all features share would make steps of any useful rate unstable.
"""

from typing import ClassVar, Self

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from .fast_networks import MOMENTUM, Through
from .gradient import HEAD, GradientLearner, GradientOptions
from .head import projection
from .learner import Options, Target, Tensors


class HeadOptions(GradientOptions):
    """Options of the methods that adapt a head."""

    rate: float = Field(1.0, gt=0, le=100, description="The rate that training begins with.")
    scale: float = Field(4.0, gt=0, le=100, description="The norm of features that training begins with.")
    projection: int = Field(0, ge=0, le=1024, description="Width of a learned projection of the features; 0: none.")


class Anil(GradientLearner):
    """The head adapts; the encoder, whose features it stands on, is the same for all tasks."""

    options: ClassVar[type[Options]] = HeadOptions
    feature_mean: Tensor
    updates: Tensor

    def __init__(
        self, encoder: nn.Module, *, width: int, ways: int, target: Target, fixed: bool, options: HeadOptions
    ) -> None:
        inner = options.projection or width
        super().__init__(Through(inner), ways=ways, target=target, fixed=fixed, options=options)
        self.encoder = encoder
        self.projection = projection(width, options.projection)
        self.register_buffer("feature_mean", torch.zeros(inner))
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))
        self.log_scale = nn.Parameter(torch.tensor(options.scale).log())
        self.begin_rates(options.rate)

    @classmethod
    def make(
        cls, encoder: nn.Module, *, ways: int, examples: int, target: Target, fixed: bool, options: Options
    ) -> Self:
        """The learner of a config."""
        del examples
        cls.require(target, fixed=fixed)
        settings = HeadOptions.model_validate(options.model_dump())
        width = int(encoder.width)  # type: ignore[arg-type]  # an encoder has it; nn.Module's attributes are untyped
        return cls(encoder, width=width, ways=ways, target=target, fixed=fixed, options=settings)

    def begin_rates(self, rate: float) -> None:
        """The parameters that `rates` reads: one rate."""
        self.log_rate = nn.Parameter(torch.tensor(rate).log())

    def rates(self) -> Tensors:
        """See `GradientLearner`."""
        return {HEAD: self.log_rate.exp()}

    def encode(self, inputs: Tensors) -> Tensors:
        """`features [batch, width]`, all of one norm; in training the running mean moves towards that of the batch."""
        found = self.projection(self.encoder(inputs["x"]))
        if self.training:
            with torch.no_grad():
                self.feature_mean.lerp_(found.mean(0), MOMENTUM if self.updates > 0 else 1.0)
                self.updates += 1
        return {"features": self.log_scale.exp() * F.normalize(found - self.feature_mean, dim=-1)}
