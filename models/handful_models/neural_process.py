"""Latent neural processes: several answers, each consistent in itself, where a few examples leave a task open.

Garnelo, Schwarz, Rosenbaum, Viola, Rezende, Eslami, Teh, "Neural Processes" (2018). The mean context c of the examples
gives a Gaussian over a latent z, and each draw of z gives an answer:

    q(z | c) = N(μ(c), σ(c)^2),    y_m = g(x, μ + σ ε_m),    m = 1..members

With classes each way has its latent, a distribution over where its prototype lies, and with the projection h

    logit_k,m(x) = -α |h(x) - μ_k - σ_k ε_m|^2

ε_m are the same quasi-random draws for all ways, so no way is preferred, and they are a table of the graph, so the same
request has the same answer.

The loss is the likelihood of the mixture over members (as in Foong et al., "Meta-Learning Stationary Stochastic
Process Prediction with Convolutional Neural Processes", 2020), not the evidence lower bound of the paper: the mixture
is what is served, and the bound needs the latent of support and query together, which nothing else uses.
"""

from typing import ClassVar, Self

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from .context import LEAST_DEVIATION, MeanContext, Residual
from .head import perceptron, standard, variance, width_of
from .learner import Options, Target, Tensors
from .ways import ABSENT_LOGIT

LEAST_SPREAD = 0.01
"""The least standard deviation of a latent."""


class NeuralProcessOptions(Options):
    """The settings of the latent neural process."""

    latent: int = Field(32, ge=1, le=256, description="Numbers in the latent of a way, or of a task with numbers.")
    hidden: int = Field(64, ge=1, le=512, description="Units of each hidden layer.")
    members: int = Field(16, ge=2, le=256, description="Draws of the latent, each a member of the answer.")


class NeuralProcess(MeanContext):
    """State: `mean`, `scale [ways, latent]`, with classes `present [ways]`; the one way of a number is the task."""

    options: ClassVar[type[Options]] = NeuralProcessOptions
    draws: Tensor

    def __init__(
        self, encoder: nn.Module, *, ways: int, target: Target, fixed: bool, options: NeuralProcessOptions
    ) -> None:
        width, number, hidden, latent = width_of(encoder), target == "number", options.hidden, options.latent
        embed = perceptron(width + 1, hidden, hidden, latent) if number else Residual(width, hidden, latent)
        super().__init__(encoder, embed, ways=ways, target=target, fixed=fixed, context=latent)
        self.shift = perceptron(latent + 1, hidden // 2, latent, silent=True)
        self.spread = perceptron(latent + 1, hidden // 2, latent)
        self.register_buffer("draws", normal_draws(options.members, latent))
        if number:
            self.decoder = perceptron(width + latent, hidden, hidden, 2)
            return
        self.query = Residual(width, hidden, latent)
        self.query.load_state_dict(embed.state_dict())
        self.log_scale = nn.Parameter(torch.tensor(-1.5))
        if fixed:
            self.base = nn.Linear(width, ways)

    @classmethod
    def make(
        cls, encoder: nn.Module, *, ways: int, examples: int, target: Target, fixed: bool, options: NeuralProcessOptions
    ) -> Self:
        """See `Learner`."""
        return cls(encoder, ways=ways, target=target, fixed=fixed, options=options)

    def adapt(self, statistics: Tensors) -> Tensors:
        """See the class."""
        contexts, evidence = self.means(statistics)
        given = torch.cat([contexts, evidence], -1)
        ways = {} if self.target == "number" else {"present": self.open(statistics)}
        scale = LEAST_SPREAD + F.softplus(self.spread(given) - 1)
        return {"mean": contexts + self.shift(given), "scale": scale} | ways

    def predict(self, features: Tensors, state: Tensors) -> Tensor:
        """See `Learner`."""
        x = standard(features["features"])
        # [..., member, ways, latent]
        latent = state["mean"].unsqueeze(-3) + state["scale"].unsqueeze(-3) * self.draws.unsqueeze(-2)
        if self.target == "number":
            latent, x = latent.squeeze(-2), x.unsqueeze(-2)
            shape = torch.zeros_like(latent[..., :1]) + torch.zeros_like(x[..., :1])
            found = self.decoder(torch.cat([x + shape, latent + shape], -1))
            return self.gaussian(found[..., 0], variance(found[..., 1], LEAST_DEVIATION))
        distance = (self.query(x).unsqueeze(-2).unsqueeze(-2) - latent).square().sum(-1)
        logits = -self.log_scale.exp() * distance
        if self.fixed:
            logits = logits + self.base(x).unsqueeze(-2)
        present = state["present"].unsqueeze(-2)
        answer: Tensor = logits * present + ABSENT_LOGIT * (1 - present)
        return answer


def normal_draws(count: int, dims: int) -> Tensor:
    """A table `[count, dims]` that covers a standard normal more evenly than random draws: Sobol, by quantiles."""
    engine = torch.quasirandom.SobolEngine(dims, scramble=True, seed=0)  # type: ignore[no-untyped-call]
    uniform: Tensor = engine.draw(count).clamp(1e-4, 1 - 1e-4)
    return torch.erfinv(2 * uniform - 1) * 2**0.5
