"""Reptile.

Nichol, Achiam, Schulman, "On First-Order Meta-Learning Algorithms" (2018). In training, each task's weights take some
steps on small batches of all its examples, and θ moves towards where they end:

    φ_0 = θ,    φ_{j+1} = φ_j - α ∂L(B_j, φ_j)/∂φ,    θ <- θ + ε (mean over tasks of φ_K - θ)

No gradient is taken through the steps. `backward` leaves θ - mean φ_K as the gradient of θ, so that ε is the rate of
any optimizer. The rate α is a constant, the same in training and afterwards; or, as in the paper's own code, a step of
Adam without momentum (β_1 = 0) whose squares v all tasks share, so that each weight has a rate of its own:

    α = α_0 / (√v + 10^-8),    v <- v + (1 - β_2) (mean over tasks of (∂L/∂φ)² - v)

v moves in training alone, and is a constant of the bundle.
"""

from collections.abc import Iterator, Sequence
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from .fast_networks import FastNetwork
from .gradient import HEAD
from .learner import Options, Target, Tensors
from .maml import NetworkLearner, NetworkOptions
from .tasks import Episodes, beside_queries, log_likelihood

SQUARES = 0.999
"""β_2 of Adam."""

EPSILON = 1.0e-8


class ReptileOptions(NetworkOptions):
    """Options of Reptile."""

    inner: Literal["sgd", "adam"] = Field("sgd", description="How a task's weights step.")
    steps: int = Field(20, ge=1, le=100, description="Steps of an adaptation, on the whole support set.")
    train_steps: int = Field(8, ge=1, le=100, description="Steps of a task in training.")
    train_batch: int = Field(10, ge=1, le=1000, description="Examples of such a step.")


class Reptile(NetworkLearner):
    """A network whose weights begin where the steps of earlier tasks ended, on average."""

    options: ClassVar[type[Options]] = ReptileOptions
    updates: Tensor
    steps_taken: Tensor

    def __init__(
        self, network: FastNetwork, *, ways: int, target: Target, fixed: bool, options: ReptileOptions
    ) -> None:
        super().__init__(network, ways=ways, target=target, fixed=fixed, options=options)
        self.first_order = True
        self.rate = options.rate
        self.train_steps, self.train_batch = options.train_steps, options.train_batch
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))
        self.adam = options.inner == "adam"
        if self.adam:
            self.register_buffer("steps_taken", torch.zeros((), dtype=torch.int64))
            for name, value in self.initial().items():
                self.register_buffer(f"square_{name}", torch.ones_like(value))

    def rates(self) -> Tensors:
        """See `GradientLearner`."""
        names = (HEAD, *self.network.names)
        if self.adam:
            return {name: self.rate / (self.get_buffer(f"square_{name}").sqrt() + EPSILON) for name in names}
        return dict.fromkeys(names, torch.tensor(self.rate))

    def backward(self, episodes: Episodes) -> float:
        """θ - mean φ_K, added to `grad` of θ; the loss of the queries at φ_K, which trained on some of them."""
        support, query = episodes.support, episodes.query
        features = {name: torch.cat([value, query.x[name]], 1) for name, value in self.encode(support.x).items()}
        y = torch.cat([support.y, query.y], 1)
        weight = torch.cat([support.weight, query.weight], 1)
        with torch.no_grad():
            statistics = self.statistics_of(features, weight)
            state = self.begin(features, y, weight)
            for chosen in self._batches(weight):
                part = {name: _rows(value, chosen) for name, value in features.items()}
                state = self._step(part, _rows(y, chosen), _rows(weight, chosen), state, statistics)
            for name, start in {HEAD: self.row, **self.network.initial()}.items():
                end = state[name].mean(0)
                pull = start - (end.mean(0, keepdim=True) if name == HEAD and not self.fixed else end)
                start.grad = pull if start.grad is None else start.grad + pull
            found = log_likelihood(self.answer(query.x, beside_queries(state), statistics), query.y)
            return (-(found * query.weight).sum() / query.weight.sum().clamp_min(1)).item()

    def _step(
        self, features: Tensors, y: Tensor, weight: Tensor, state: Tensors, statistics: Sequence[Tensor]
    ) -> dict[str, Tensor]:
        """`descend`, after which the squares have moved."""
        gradients = self.gradients(features, y, weight, state, statistics)
        if self.adam:
            self.steps_taken += 1
            share = max(1 - SQUARES, 1 / int(self.steps_taken))
            for name, value in gradients.items():
                self.get_buffer(f"square_{name}").lerp_(value.square().mean(0), share)
        return self.moved(state, gradients)

    def _batches(self, weight: Tensor) -> Iterator[Tensor]:
        """int64 `[task, batch]` for each step of training: all examples in a random order, again and again."""
        generator = torch.Generator().manual_seed(int(self.updates))
        self.updates += 1
        order = torch.rand(weight.shape, generator=generator).argsort(1)
        size = min(self.train_batch, order.shape[1])
        for step in range(self.train_steps):
            places = torch.arange(step * size, (step + 1) * size).remainder(order.shape[1])
            yield order[:, places]


def _rows(value: Tensor, chosen: Tensor) -> Tensor:
    """The chosen examples of each task: `[task, batch, …]` of `[task, example, …]`."""
    return value[torch.arange(len(value)).unsqueeze(1), chosen]
