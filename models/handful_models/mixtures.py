"""Conditionings that mix several networks: a task has only the weights of its mixture.

Ma, Zhao, Yi, Chen, Hong, Chi, "Modeling Task Relationships in Multi-task Learning with Multi-gate Mixture-of-Experts"
(2018); Misra, Shrivastava, Gupta, Hebert, "Cross-stitch Networks for Multi-task Learning" (2016).
"""

import torch
from torch import Tensor, nn

from .banks import Bank, Form
from .conditioning import Conditioning
from .learner import Tensors

OWN = 0.9
"""Of a column's own values at the beginning, as in the paper; the others share the rest."""


class MixtureOfExperts(Conditioning):
    """Experts that all tasks share, and a gate for each task, which looks at the input.

    The experts are encoded once for all tasks. φ holds `gate [row, expert, glance + 1]`, the gate's weights and bias.
    """

    def __init__(self, form: Form, tasks: int, experts: int) -> None:
        super().__init__()
        self.bank = Bank(form, experts)
        self.gates = nn.Parameter(torch.zeros(tasks, experts, form.glance + 1))

    def state(self, index: Tensor) -> dict[str, Tensor]:
        """See `Conditioning`."""
        return {"gate": self.gates[index]}

    def encode(self, x: Tensor) -> dict[str, Tensor]:
        """See `Conditioning`: `experts [row, expert, width]`, and `glance [row, glance]` for the gates."""
        begin = _for_all(self.bank.form.begin(x), self.bank.networks)
        experts = self.bank.run(begin, self.bank.everything()).flatten(2)
        return {"experts": experts.transpose(0, 1), "glance": self.bank.form.glanced(x)}

    def forward(self, features: Tensors, state: Tensors) -> Tensor:
        """See `Conditioning`."""
        gate, glance = state["gate"], features["glance"].unsqueeze(-1)
        scores = (gate[..., :-1] @ glance).squeeze(-1) + gate[..., -1]
        return (scores.softmax(-1).unsqueeze(1) @ features["experts"]).squeeze(1)


class CrossStitch(Conditioning):
    """Columns whose values are mixed after every layer, in a way of each task's own.

    With as many columns as tasks, and the same stitches for all, this is the network of the paper, where a task reads
    its own column. A row of any task runs all columns, so here they may be fewer, and a task learns which it reads.
    φ holds `stitches [row, layer, column, column]`, the last layer's reading apart, and `read [row, column]`.
    """

    def __init__(self, form: Form, tasks: int, columns: int) -> None:
        super().__init__()
        self.bank = Bank(form, columns)
        start = torch.full((columns, columns), (1 - OWN) / max(columns - 1, 1))
        start.fill_diagonal_(OWN if columns > 1 else 1.0)
        self.stitches = nn.Parameter(start.repeat(tasks, len(form.layers) - 1, 1, 1))
        self.read = nn.Parameter(start[torch.arange(tasks) % columns])

    def state(self, index: Tensor) -> dict[str, Tensor]:
        """See `Conditioning`."""
        return {"stitches": self.stitches[index], "read": self.read[index]}

    def forward(self, features: Tensors, state: Tensors) -> Tensor:
        """See `Conditioning`."""
        stitches = state["stitches"]

        def stitched(layer: int, values: Tensor) -> Tensor:
            if layer == stitches.shape[1]:
                return values
            by_row = values.transpose(0, 1)
            mixed = stitches[:, layer] @ by_row.flatten(2)
            return mixed.reshape(by_row.shape).transpose(0, 1)

        begin = _for_all(self.bank.form.begin(features["x"]), self.bank.networks)
        found = self.bank.run(begin, self.bank.everything(), between=stitched).flatten(2).transpose(0, 1)
        return (state["read"].unsqueeze(1) @ found).squeeze(1)


def _for_all(begin: Tensor, networks: int) -> Tensor:
    return begin.unsqueeze(0).expand(networks, *(-1 for _ in begin.shape))
