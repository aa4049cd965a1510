"""A feed-forward network on the mean of what the examples say: deep sets, conditional neural processes.

Zaheer, Kottur, Ravanbakhsh, Póczos, Salakhutdinov, Smola, "Deep Sets" (2017); Garnelo, Rosenbaum, Maddison, Ramalho,
Saxton, Shanahan, Teh, Rezende, Eslami, "Conditional Neural Processes" (2018):

    c = (sum_i w_i r(x_i, y_i)) / (sum_i w_i),    y = g(x, c)

With classes there is a context for each way, c_k, the mean of r over its examples, and their mean over ways, c:

    logit_k(x) = g(q(x), c_k, c) - α |q(x) - c_k|^2

The distance is where the learning begins, as g begins at 0.
"""

from typing import ClassVar, Self

import torch
from pydantic import Field
from torch import Tensor, nn

from .head import Head, orthogonal, perceptron, standard, variance, width_of
from .learner import AdditiveLearner, Options, Target, Tensors
from .ways import as_member, open_ways

LEAST_DEVIATION = 0.01
"""The least standard deviation of a number, in standard units."""


class MeanContext(Head, AdditiveLearner):
    """A learner whose state comes from means of `embed` over the examples: of each way, or of all for a number.

    Where labels are open, the mean is of the examples alone. For fixed labels and numbers it is drawn towards a
    learned context, which stands alone when there are no examples: (κ c0 + sum) / (κ + count).
    """

    targets = ("class", "number")

    def __init__(
        self, encoder: nn.Module, embed: nn.Module, *, ways: int, target: Target, fixed: bool, context: int
    ) -> None:
        super().__init__(encoder, ways=ways, target=target, fixed=fixed)
        self.embed = embed
        self.context_size = context
        if self.target == "number" or self.fixed:
            self.prior = nn.Parameter(0.1 * torch.randn(self.ways, context))
            self.log_strength = nn.Parameter(torch.tensor(-1.0))

    def summarise(self, features: Tensors, y: Tensor, weight: Tensor) -> Tensors:
        """`sums [task, ways, context]` and `counts [task, ways]`; the one way of a number is all examples."""
        x, labels = self.support(features, weight), self.label_vectors(y, weight)
        if self.target == "number":
            x, labels = torch.cat([x, labels], -1), weight.unsqueeze(-1)
        return {"sums": labels.transpose(1, 2) @ self.embed(x), "counts": labels.sum(1)}

    def means(self, statistics: Tensors) -> tuple[Tensor, Tensor]:
        """Contexts `[task, ways, context]`, and in 0..1 how far they rest on examples `[task, ways, 1]`."""
        sums, counts = statistics["sums"], statistics["counts"].unsqueeze(-1)
        if self.target == "number" or self.fixed:
            strength = self.log_strength.exp()
            return (strength * self.prior + sums) / (strength + counts), counts / (strength + counts)
        return sums / torch.where(counts > 0, counts, torch.ones_like(counts)), counts / (1 + counts)

    def open(self, statistics: Tensors) -> Tensor:
        """1 for each way that may be answered, and for the one way of a number: `[task, ways]`."""
        return open_ways(statistics["counts"], fixed=self.fixed or self.target == "number")


def mean_of_open(contexts: Tensor, present: Tensor) -> Tensor:
    """The mean `[task, context]` of the contexts of those ways that may be answered, 0 where there are none."""
    return (contexts * present.unsqueeze(-1)).sum(1) / present.sum(1, keepdim=True).clamp_min(1)


class Residual(nn.Module):
    """A linear map and, beginning at 0, what a network of one hidden layer adds to it."""

    def __init__(self, before: int, hidden: int, after: int) -> None:
        super().__init__()
        self.straight = orthogonal(before, after)
        self.bent = perceptron(before, hidden, after, silent=True)

    def forward(self, x: Tensor) -> Tensor:
        """`[..., after]` of `x [..., before]`."""
        found: Tensor = self.straight(x) + self.bent(x)
        return found


class ContextOptions(Options):
    """The settings of the mean context."""

    context: int = Field(32, ge=1, le=256, description="Numbers in the context of a way, or of a task with numbers.")
    hidden: int = Field(64, ge=1, le=512, description="Units of each hidden layer.")


class Context(MeanContext):
    """State: `contexts [ways, context]`, `evidence [ways, 1]`, `whole [context]`, `present [ways]`.

    For a number: `context [context]`, `evidence [1]`.
    """

    options: ClassVar[type[Options]] = ContextOptions

    def __init__(
        self, encoder: nn.Module, *, ways: int, target: Target, fixed: bool, context: int, hidden: int
    ) -> None:
        width, number = width_of(encoder), target == "number"
        embed = perceptron(width + 1, hidden, hidden, context) if number else Residual(width, hidden, context)
        super().__init__(encoder, embed, ways=ways, target=target, fixed=fixed, context=context)
        if number:
            self.decoder = perceptron(width + context + 1, hidden, hidden, 2)
            return
        self.query = Residual(width, hidden, context)
        self.query.load_state_dict(embed.state_dict())
        self.decoder = perceptron(4 * context + 1, hidden // 2, 1, silent=True)
        self.log_scale = nn.Parameter(torch.tensor(-1.5))
        if fixed:
            self.base = nn.Linear(width, ways)

    @classmethod
    def make(
        cls, encoder: nn.Module, *, ways: int, examples: int, target: Target, fixed: bool, options: ContextOptions
    ) -> Self:
        """See `Learner`."""
        return cls(encoder, ways=ways, target=target, fixed=fixed, context=options.context, hidden=options.hidden)

    def adapt(self, statistics: Tensors) -> Tensors:
        """See the class."""
        contexts, evidence = self.means(statistics)
        if self.target == "number":
            return {"context": contexts.squeeze(1), "evidence": evidence.squeeze(1)}
        present = self.open(statistics)
        whole = mean_of_open(contexts, present)
        return {"contexts": contexts, "evidence": evidence, "whole": whole, "present": present}

    def predict(self, features: Tensors, state: Tensors) -> Tensor:
        """See `Learner`; one member."""
        x = standard(features["features"])
        if self.target == "number":
            return self._number(x, state)
        query, contexts = self.query(x).unsqueeze(-2), state["contexts"]
        difference = query - contexts
        shape = torch.zeros_like(difference)
        parts = [query + shape, contexts + shape, difference.square(), state["whole"].unsqueeze(-2) + shape]
        learned = self.decoder(torch.cat([*parts, state["evidence"] + shape[..., :1]], -1)).squeeze(-1)
        logits = learned - self.log_scale.exp() * difference.square().sum(-1)
        return as_member(logits + self.base(x) if self.fixed else logits, state["present"])

    def _number(self, x: Tensor, state: Tensors) -> Tensor:
        both = torch.zeros_like(x[..., :1]) + torch.zeros_like(state["evidence"])
        parts = [x + both, state["context"] + both, state["evidence"] + both]
        found = self.decoder(torch.cat(parts, -1))
        return self.gaussian(found[..., 0], variance(found[..., 1], LEAST_DEVIATION)).unsqueeze(-2)
