"""A recurrent network that reads the labelled examples one after the other.

Hochreiter, Younger, Conwell, "Learning to Learn Using Gradient Descent" (2001); Santoro, Bartunov, Botvinick, Wierstra,
Lillicrap, "Meta-Learning with Memory-Augmented Neural Networks" (2016). The cell is that of Hochreiter and Schmidhuber
(1997) with forget gates, its recurrence through a projection R of few numbers (Sak, Senior, Beaufays, 2014):

    (i, f, g, o) = A (P x_t, y_t) + B R h_{t-1} + b,    c_t = σ(f) c_{t-1} + σ(i) tanh(g),    h_t = σ(o) tanh(c_t)

The state is the last h. With classes it is read as a slot for each way: logit_k(x) = -α |tanh(Q x) - V h_k|^2. All
gates see all of y; learning begins where an example opens the input gate of the slot of its own way, and ends anywhere.
"""

from typing import ClassVar, Self

import torch
from pydantic import Field
from torch import Tensor, nn

from .context import LEAST_DEVIATION
from .head import Head, in_places, orthogonal, perceptron, square_distance, standard, variance
from .learner import Options, Target, Tensors
from .ways import as_member

RANK = 16
"""Numbers through which one step's output reaches the gates of the next."""


class LstmOptions(Options):
    """The settings of the recurrent learner."""

    slot: int = Field(20, ge=2, le=128, description="Units of the hidden state for each way.")
    hidden: int = Field(64, ge=4, le=512, description="Units of the hidden state of tasks with numbers.")


class Lstm(Head):
    """State: `hidden [units]`, with classes `present [ways]`."""

    options: ClassVar[type[Options]] = LstmOptions
    targets = ("class", "number")
    invariant = ()
    examples: int

    def __init__(
        self, encoder: nn.Module, *, ways: int, examples: int, target: Target, fixed: bool, options: LstmOptions
    ) -> None:
        super().__init__(encoder, ways=ways, target=target, fixed=fixed)
        number = self.target == "number"
        self.examples = examples
        self.units = options.hidden if number else self.ways * options.slot
        self.context_size = self.units
        self.project = orthogonal(self.width, options.slot)
        self.gates = nn.Linear(options.slot + self.ways, 4 * self.units)
        self.narrow = nn.Linear(self.units, RANK, bias=False)
        self.recur = nn.Linear(RANK, 4 * self.units, bias=False)
        self.start = nn.Parameter(torch.zeros(2, self.units))
        if number:
            self.decoder = perceptron(self.width + self.units, self.units, self.units, 2)
            return
        self.query = orthogonal(self.width, options.slot)
        self.read = nn.Linear(options.slot, options.slot)
        self.log_scale = nn.Parameter(torch.tensor(0.5))
        if self.fixed:
            self.base = nn.Linear(self.width, ways)
        self._begin_with_slots(options.slot)

    @classmethod
    def make(
        cls, encoder: nn.Module, *, ways: int, examples: int, target: Target, fixed: bool, options: LstmOptions
    ) -> Self:
        """See `Learner`."""
        return cls(encoder, ways=ways, examples=examples, target=target, fixed=fixed, options=options)

    @torch.no_grad()
    def _begin_with_slots(self, slot: int) -> None:
        """Let an example's projection enter the slot of its way, stay there, and be compared with a query's."""
        weight = self.gates.weight.view(4, self.ways, slot, slot + self.ways)
        weight.mul_(0.1)
        weight[2, :, :, :slot] += 0.5 * torch.eye(slot)
        weight[0, :, :, slot:] += 6.0 * torch.eye(self.ways).unsqueeze(1)
        self.gates.bias.copy_(torch.tensor([-4.0, 3.0, 0.0, 2.0]).repeat_interleave(self.units))
        self.recur.weight.mul_(0.1)
        self.query.weight.copy_(0.5 * self.project.weight)
        self.read.weight.copy_(1.2 * torch.eye(slot))
        self.read.bias.zero_()

    def state(self, features: Tensors, y: Tensor, weight: Tensor) -> Tensors:
        """See the class: a step for each place, of which those without an example leave everything as it is."""
        labels = self.label_vectors(y, weight)
        pairs = torch.cat([self.project(self.support(features, weight)), labels], -1)
        move = in_places(weight, self.examples)
        driven, present = self.gates(move @ pairs), move.sum(-1, keepdim=True)
        nothing = torch.zeros_like(driven[:, 0, : self.units])
        hidden, cell = self.start[0] + nothing, self.start[1] + nothing
        for place in range(self.examples):
            gates = driven[:, place] + self.recur(self.narrow(hidden))
            enter, keep, candidate, out = gates.chunk(4, -1)
            after = keep.sigmoid() * cell + enter.sigmoid() * candidate.tanh()
            there = present[:, place] > 0
            cell = torch.where(there, after, cell)
            hidden = torch.where(there, out.sigmoid() * after.tanh(), hidden)
        return {"hidden": hidden} | self.ways_open(labels)

    def predict(self, features: Tensors, state: Tensors) -> Tensor:
        """See `Learner`; one member."""
        x, hidden = standard(features["features"]), state["hidden"]
        if self.target == "number":
            shape = torch.zeros_like(x[..., :1]) + torch.zeros_like(hidden[..., :1])
            found = self.decoder(torch.cat([x + shape, hidden + shape], -1))
            return self.gaussian(found[..., 0], variance(found[..., 1], LEAST_DEVIATION)).unsqueeze(-2)
        slots = self.read(torch.unflatten(hidden, -1, (self.ways, -1)))
        logits = -self.log_scale.exp() * square_distance(self.query(x).tanh().unsqueeze(-2), slots)
        return as_member(logits + self.base(x) if self.fixed else logits, state["present"])
