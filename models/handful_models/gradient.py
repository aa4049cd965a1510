"""What the methods that adapt by steps of gradient descent share.

A task has weights of its own: a linear head `[ways, width + 1]`, the last column a bias, and, for some methods, all the
weights W of the network under it. With features f = f(x; W) and a 1 behind them, one step on the support set is

    W <- W - α ∂L/∂W,    L = (Σ_i w_i l_i) / (Σ_i w_i),
    l = -log softmax(H f)_y over the ways that are present, or ½ (H f - y)² for numbers.

Where labels are open, all rows of the head begin as one learned row (Ye, Chao, "How to Train Your MAML to Excel in
Few-Shot Classification", 2022), so that no answer depends on which way stands for which label, and a task may have any
number of ways.
"""

from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from .fast_networks import FastNetwork
from .learner import IterativeLearner, Law, Options, Target, Tensors
from .tasks import Episodes, beside_queries, log_likelihood
from .ways import ABSENT_LOGIT, as_member, one_hot, present_ways

HEAD = "head"


class GradientOptions(Options):
    """Options of all these methods."""

    steps: int = Field(5, ge=1, le=100, description="Steps of an adaptation.")
    rate: float = Field(0.1, gt=0, le=100, description="Rate of a step; where rates are learned, what they begin as.")
    first_order: bool = Field(False, description="Treat the gradients of the steps as constants in training.")
    centre: float = Field(0.0, description="For numbers: what lies in the middle of them.")
    unit: float = Field(1.0, gt=0, description="For numbers: how far they typically lie from it.")


class GradientLearner(IterativeLearner):
    """A learner with the state `head [rows, width + 1]`, the weights of its network, and `present [ways]` for classes.

    Args:
        network: What the head stands on.
        ways: Ways that a state holds; 1 for numbers.
        target: What it predicts.
        fixed: Whether labels mean the same in every task: then each way has its own first row, and none is absent.
        options: The settings.
    """

    targets = ("class", "number")
    labels = ("open", "fixed")

    def __init__(
        self, network: FastNetwork, *, ways: int, target: Target, fixed: bool, options: GradientOptions
    ) -> None:
        super().__init__()
        self.network = network
        self.ways = 1 if target == "number" else ways
        self.target = target
        self.fixed = fixed
        self.invariant: tuple[Law, ...] = ("order",) if fixed or target == "number" else ("order", "labels")
        self.steps = options.steps
        self.first_order = options.first_order
        self.centre, self.unit = options.centre, options.unit
        self.row = nn.Parameter(torch.zeros(self.ways if fixed else 1, network.width + 1))
        if target == "number":
            self.log_variance = nn.Parameter(torch.zeros(1))

    def rates(self) -> Tensors:
        """The rate of each weight tensor of a task, by name: a scalar, or of the tensor's own shape."""
        raise NotImplementedError

    def initial(self) -> dict[str, Tensor]:
        """The weights that every task begins with: `head` and those of the network."""
        return {HEAD: self.row.expand(self.ways, -1), **self.network.initial()}

    def encode(self, inputs: Tensors) -> Tensors:
        """The inputs themselves."""
        return dict(inputs)

    def begin(self, features: Tensors, y: Tensor, weight: Tensor) -> Tensors:
        """The weights before the first step; see `IterativeLearner`."""
        del features
        task = torch.zeros_like(weight[:, 0])
        state = {name: value + task.reshape(-1, *[1] * value.dim()) for name, value in self.initial().items()}
        if self.target == "number":
            return state
        counts = one_hot(y, weight, self.ways).sum(1)
        return {**state, "present": torch.ones_like(counts) if self.fixed else present_ways(counts)}

    def step(self, features: Tensors, y: Tensor, weight: Tensor, state: Tensors) -> Tensors:
        """See `IterativeLearner`."""
        return self.descend(features, y, weight, state, self.network.statistics())

    def descend(
        self, features: Tensors, y: Tensor, weight: Tensor, state: Tensors, statistics: Sequence[Tensor]
    ) -> dict[str, Tensor]:
        """`step`, under given statistics of the network."""
        return self.moved(state, self.gradients(features, y, weight, state, statistics))

    def moved(self, state: Tensors, gradients: Tensors) -> dict[str, Tensor]:
        """The state a step down the gradients."""
        rates = self.rates()
        return {
            name: value - rates[name] * gradients[name] if name in gradients else value for name, value in state.items()
        }

    def gradients(
        self, features: Tensors, y: Tensor, weight: Tensor, state: Tensors, statistics: Sequence[Tensor]
    ) -> dict[str, Tensor]:
        """The gradient of each task's own loss by its weights: through it in training, unless of first order."""
        (x,) = features.values()
        through = self.training and not self.first_order and torch.is_grad_enabled()
        with torch.enable_grad():
            weights = {name: state[name] for name in self.network.names}
            if not through:
                weights = {name: value.detach().requires_grad_() for name, value in weights.items()}
            found = self.network(x, weights, statistics)
            head = state[HEAD]
            outward = self._outward(_values(found, head), y, weight, state)
            gradients = {HEAD: outward.transpose(1, 2) @ F.pad(found, (0, 1), value=1.0)}
            if weights:
                backward = outward @ head[..., :-1]
                parts = torch.autograd.grad(found, list(weights.values()), backward, create_graph=through)
                gradients |= zip(weights, parts, strict=True)
        return gradients if through else {name: value.detach() for name, value in gradients.items()}

    def _outward(self, values: Tensor, y: Tensor, weight: Tensor, state: Tensors) -> Tensor:
        """The gradient of the loss by the head's values `[task, example, ways]`."""
        total = weight.sum(1, keepdim=True)
        share = (weight / torch.where(total > 0, total, torch.ones_like(total))).unsqueeze(-1)
        if self.target == "number":
            # Where the weight is 0, y has no meaning.
            wanted = torch.where(share > 0, (y - self.centre) / self.unit, torch.zeros_like(y))
            return (values - wanted) * share
        chances = (values + ABSENT_LOGIT * (1 - state["present"]).unsqueeze(1)).softmax(-1)
        return chances * share - one_hot(y, share.squeeze(-1), self.ways)

    def predict(self, features: Tensors, state: Tensors) -> Tensor:
        """See `Learner`."""
        return self.answer(features, state, self.network.statistics())

    def answer(self, features: Tensors, state: Tensors, statistics: Sequence[Tensor]) -> Tensor:
        """`predict`, under given statistics of the network."""
        names = {HEAD, "present", *self.network.names}
        x = next(features[name] for name in features if name not in names)
        state = {name: value for name, value in state.items() if name in names}
        lead = x.dim() - self.network.axes
        axes = {name: value.dim() - lead for name, value in state.items()}
        if lead == 2 and all(value.shape[1] == 1 for value in state.values()):
            return self._rows(x, {name: value.squeeze(1) for name, value in state.items()}, statistics)
        if lead > 1 or state[HEAD].shape[0] != x.shape[0]:  # `len` would freeze the axis
            sizes = _common([x.shape[:lead], *(value.shape[:lead] for value in state.values())])
            wide = {name: value.expand(*sizes, *value.shape[lead:]) for name, value in state.items()}
            flat = {name: value.reshape(-1, *value.shape[value.dim() - axes[name] :]) for name, value in wide.items()}
            each = x.expand(*sizes, *x.shape[lead:]).reshape(-1, *x.shape[lead:])
            return self._rows(each.unsqueeze(1), flat, statistics).reshape(*sizes, 1, -1)
        return self._rows(x.unsqueeze(1), state, statistics).squeeze(1)

    def _rows(self, x: Tensor, state: Tensors, statistics: Sequence[Tensor]) -> Tensor:
        """Answers `[task, query, 1, width]` to queries `[task, query, *input]` under states `[task, *state]`."""
        values = _values(self.network(x, state, statistics), state[HEAD])
        if self.target == "class":
            return as_member(values, state["present"].unsqueeze(1))
        mean = self.centre + self.unit * values
        log_variance = self.log_variance + 2 * torch.log(torch.tensor(self.unit)) + torch.zeros_like(mean)
        return torch.cat([mean, log_variance], -1).unsqueeze(-2)

    def loss(self, episodes: Episodes) -> Tensor:
        """The loss of the queries after adaptation, under the statistics of the batch in training."""
        support, query = episodes.support, episodes.query
        features, asked = self.encoded(support.x), self.encoded(query.x)
        statistics = self.statistics_of(features, support.weight)
        state = self.begin(features, support.y, support.weight)
        for _ in range(self.steps):
            state = self.descend(features, support.y, support.weight, state, statistics)
        found = log_likelihood(self.answer(asked, beside_queries(state), statistics), query.y)
        return -(found * query.weight).sum() / query.weight.sum().clamp_min(1)

    def statistics_of(self, features: Tensors, weight: Tensor) -> list[Tensor]:
        """Those of a batch in training, else the running ones."""
        (x,) = features.values()
        return self.network.observed(x, weight) if self.training else self.network.statistics()

    def encoded(self, x: Tensors) -> Tensors:
        """Features `[task, example, *feature]` of inputs `[task, example, *input]`."""
        sizes = next(iter(x.values())).shape[:2]
        features = self.encode({name: value.flatten(0, 1) for name, value in x.items()})
        return {name: value.reshape(*sizes, *value.shape[1:]) for name, value in features.items()}


def _common(sizes: Sequence[torch.Size]) -> tuple[int, ...]:
    """The sizes that all broadcast to."""
    return tuple(max(axis) for axis in zip(*sizes, strict=True))


def _values(features: Tensor, head: Tensor) -> Tensor:
    """What the head says, `[task, example, ways]`."""
    return features @ head[..., :-1].transpose(1, 2) + head[..., -1].unsqueeze(1)
