"""A network that writes the weights of the task's head, and modulates the features it reads.

Ha, Dai, Le, "HyperNetworks" (2016); Requeima, Gordon, Bronskill, Nowozin, Turner, "Fast and Flexible Multi-Task
Classification Using Conditional Neural Adaptive Processes" (CNAPs, 2019). From the mean c of r over all examples come
a scale and a shift of the features (FiLM), and from the means of each way the weights of its head:

    x' = (1 + γ(c)) x + β(c),    logit_k(x) = w_k'x' + b_k,
    w_k = 2α p_k' + u(r_k, c),    b_k = -α |p_k'|^2 + v(r_k, c),    p_k' the modulated mean of way k

γ, β, u and v begin at 0, where the head is that of prototypes. A number is read by w(c)'ReLU(x') instead.
"""

from typing import ClassVar, Self

import torch
from pydantic import Field
from torch import Tensor, nn

from .context import LEAST_DEVIATION, MeanContext, mean_of_open
from .head import perceptron, standard, variance, width_of
from .learner import Options, Target, Tensors
from .ways import as_member


class HypernetworkOptions(Options):
    """The settings of the hypernetwork."""

    context: int = Field(32, ge=1, le=256, description="Numbers in the learned context.")
    hidden: int = Field(64, ge=1, le=512, description="Units of each hidden layer.")


class Hypernetwork(MeanContext):
    """State: `scale`, `shift [width]`; `weights [outputs, width]`, `bias [outputs]`; with classes `present [ways]`.

    Outputs are the ways, or the mean and the raw deviation of a number. With fixed labels each way has base weights,
    to which the written ones are added as far as there are examples.
    """

    options: ClassVar[type[Options]] = HypernetworkOptions

    def __init__(
        self, encoder: nn.Module, *, ways: int, target: Target, fixed: bool, context: int, hidden: int
    ) -> None:
        width, number = width_of(encoder), target == "number"
        embed = perceptron(width + 1, hidden, hidden, context) if number else _Beside(width, hidden, context)
        size = context if number else width + context
        super().__init__(encoder, embed, ways=ways, target=target, fixed=fixed, context=size)
        self.modulate = perceptron(context, hidden // 2, 2 * width, silent=True)
        if number or fixed:
            self.base = nn.Linear(width, self.answered)
        if number:
            self.hidden = nn.Linear(width, width)
            self.write = perceptron(context + 1, hidden // 2, 2 * width + 2, silent=True)
        else:
            self.write = perceptron(2 * context + 1, hidden // 2, width + 1, silent=True)
            self.log_scale = nn.Parameter(torch.tensor(2.5))

    @classmethod
    def make(
        cls, encoder: nn.Module, *, ways: int, examples: int, target: Target, fixed: bool, options: HypernetworkOptions
    ) -> Self:
        """See `Learner`."""
        return cls(encoder, ways=ways, target=target, fixed=fixed, context=options.context, hidden=options.hidden)

    def adapt(self, statistics: Tensors) -> Tensors:
        """See the class."""
        means, evidence = self.means(statistics)
        ways: dict[str, Tensor] = {}
        if self.target == "number":
            whole = means.squeeze(1)
            written = self.write(torch.cat([whole, evidence.squeeze(1)], -1))
            weights, bias = written[:, :-2].unflatten(-1, (2, self.width)), written[:, -2:]
            scale, shift = self._film(whole)
            weights, bias = weights + self.base.weight, bias + self.base.bias
        else:
            prototypes, contexts = means[..., : self.width], means[..., self.width :]
            ways = {"present": self.open(statistics)}
            whole = mean_of_open(contexts, ways["present"])
            scale, shift = self._film(whole)
            moved = prototypes * scale.unsqueeze(1) + shift.unsqueeze(1) * self.width**-0.5
            weights, bias = self._head(moved, contexts, whole, evidence)
        return {"scale": scale, "shift": shift, "weights": weights, "bias": bias} | ways

    def _film(self, whole: Tensor) -> tuple[Tensor, Tensor]:
        found = self.modulate(whole)
        return 1 + found[..., : self.width], found[..., self.width :]

    def _head(self, moved: Tensor, contexts: Tensor, whole: Tensor, evidence: Tensor) -> tuple[Tensor, Tensor]:
        around = whole.unsqueeze(1) + torch.zeros_like(contexts)
        written = self.write(torch.cat([contexts, around, evidence], -1))
        scale = self.log_scale.exp()
        weights = 2 * scale * moved + written[..., :-1]
        bias = written[..., -1] - scale * moved.square().sum(-1)
        if not self.fixed:
            return weights, bias
        return self.base.weight + evidence * weights, self.base.bias + evidence.squeeze(-1) * bias

    def predict(self, features: Tensors, state: Tensors) -> Tensor:
        """See `Learner`; one member."""
        x = standard(features["features"])
        if self.target == "number":
            hidden = torch.relu(self.hidden(x) * state["scale"] + state["shift"])
            found = (state["weights"] @ hidden.unsqueeze(-1)).squeeze(-1) + state["bias"]
            return self.gaussian(found[..., 0], variance(found[..., 1], LEAST_DEVIATION)).unsqueeze(-2)
        modulated = (x * state["scale"] + state["shift"]) * self.width**-0.5
        values = (state["weights"] @ modulated.unsqueeze(-1)).squeeze(-1) + state["bias"]
        return as_member(values, state["present"])


class _Beside(nn.Module):
    """Features of unit norm, and beside them a learned embedding: the mean of both gives prototypes and contexts."""

    def __init__(self, width: int, hidden: int, context: int) -> None:
        super().__init__()
        self.width = width
        self.learned = perceptron(width, hidden, context)

    def forward(self, x: Tensor) -> Tensor:
        """`[..., width + context]` of `x [..., width]`."""
        return torch.cat([x * self.width**-0.5, self.learned(x)], -1)
