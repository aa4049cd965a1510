"""A learned rate for every weight.

Li, Zhou, Chen, Li, "Meta-SGD: Learning to Learn Quickly for Few-Shot Learning" (2017). As MAML, but α has the shape of
the weights, and may become negative: it says in which direction a weight moves, too.

    φ_{j+1} = φ_j - α ∘ ∂L(D_tr, φ_j)/∂φ

A head's rates are one for each feature, the same for all ways, so that no answer depends on which way stands for which
label.
"""

import torch
from torch import nn

from .anil import Anil
from .fast_networks import FastNetwork
from .gradient import HEAD, GradientOptions
from .learner import Target, Tensors
from .maml import MAML


class MetaSGD(Anil):
    """A head with a rate for each feature."""

    def begin_rates(self, rate: float) -> None:
        """See `Anil`."""
        self.feature_rates = nn.Parameter(torch.full((self.row.shape[-1],), rate))

    def rates(self) -> Tensors:
        """See `GradientLearner`."""
        return {HEAD: self.feature_rates}


class MetaSGDNetwork(MAML):
    """A network, all of whose weights adapt, with a rate for each."""

    def __init__(
        self, network: FastNetwork, *, ways: int, target: Target, fixed: bool, options: GradientOptions
    ) -> None:
        super().__init__(network, ways=ways, target=target, fixed=fixed, options=options)
        del self.log_rates
        shapes = {HEAD: self.row.shape[-1:], **{name: value.shape for name, value in network.initial().items()}}
        parts = {name: nn.Parameter(torch.full(shape, options.rate)) for name, shape in shapes.items()}
        self.weight_rates = nn.ParameterDict(parts)

    def rates(self) -> Tensors:
        """See `GradientLearner`."""
        found: dict[str, nn.Parameter] = dict(self.weight_rates.items())
        return found
