"""Model-agnostic meta-learning.

Finn, Abbeel, Levine, "Model-Agnostic Meta-Learning for Fast Adaptation of Deep Networks" (2017). All weights of the
network take steps of gradient descent on the support set, and training moves θ, where they begin, downhill on the loss
of the queries after the steps, with rates α that are learned too, one for each weight tensor:

    φ_0 = θ,    φ_{j+1} = φ_j - α ∂L(D_tr, φ_j)/∂φ,    min_{θ, α} Σ_tasks L(D_te, φ_K)
"""

from typing import ClassVar, Literal, Self

import torch
from pydantic import Field
from torch import Tensor, nn

from .fast_conv import FastConv
from .fast_networks import FastMlp, FastNetwork
from .gradient import HEAD, GradientLearner, GradientOptions
from .learner import Options, Target, Tensors


class NetworkOptions(GradientOptions):
    """Options of the methods that adapt all weights."""

    network: Literal["conv", "mlp"] = Field("conv", description="`conv`: images of 28 x 28; `mlp`: numbers.")
    filters: int = Field(32, ge=4, le=128, description="Filters of each convolution.")
    inputs: int = Field(1, ge=1, le=4096, description="Numbers of an input of `mlp`.")
    hidden: tuple[int, ...] = Field((40, 40), min_length=1, description="Units of each layer of `mlp`.")
    input_scale: float = Field(1.0, gt=0, description="What the inputs of `mlp` are divided by.")

    def build(self) -> FastNetwork:
        """The network, with fresh weights."""
        if self.network == "conv":
            return FastConv(self.filters)
        return FastMlp(self.inputs, self.hidden, self.input_scale)


class NetworkLearner(GradientLearner):
    """All weights adapt; the network stands on the raw input."""

    options: ClassVar[type[Options]] = NetworkOptions
    encodes = False

    @classmethod
    def make(
        cls, encoder: nn.Module, *, ways: int, examples: int, target: Target, fixed: bool, options: NetworkOptions
    ) -> Self:
        """The learner of a config. The encoder is not used: the network that adapts is an option of the method."""
        del encoder, examples
        cls.require(target, fixed=fixed)
        return cls(options.build(), ways=ways, target=target, fixed=fixed, options=options)


class MAML(NetworkLearner):
    """A network with a learned rate for each weight tensor."""

    def __init__(
        self, network: FastNetwork, *, ways: int, target: Target, fixed: bool, options: GradientOptions
    ) -> None:
        super().__init__(network, ways=ways, target=target, fixed=fixed, options=options)
        start = torch.tensor(options.rate).log()
        self.log_rates = nn.ParameterDict({name: nn.Parameter(start.clone()) for name in (HEAD, *network.names)})

    def rates(self) -> Tensors:
        """See `GradientLearner`."""
        found: dict[str, Tensor] = {name: value.exp() for name, value in self.log_rates.items()}
        return found
