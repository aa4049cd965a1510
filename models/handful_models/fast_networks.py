"""Networks whose weights belong to a task: arguments of the forward pass, with an axis for the tasks.

A layer normalises by the mean and the standard deviation of each channel *before* any adaptation, so that no example
sees another: in training those of all support sets of the batch, later their running averages. They are constants of
the adaptation.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .learner import Tensors

MOMENTUM = 0.05
VARIANCE_FLOOR = 1.0e-3


class FastNetwork(nn.Module, ABC):
    """Features of inputs under weights that differ by task. The weights it begins with are its parameters.

    Attributes:
        names: The names of the weight tensors, each the name of a parameter.
        width: Features of an input.
        axes: How many axes one input has.
    """

    names: tuple[str, ...] = ()
    width: int
    axes: int

    @abstractmethod
    def forward(self, x: Tensor, weights: Tensors, statistics: Sequence[Tensor]) -> Tensor:
        """Features `[task, example, width]` of inputs `[task, example, *input]` under weights `[task, *weight]`."""

    def initial(self) -> dict[str, Tensor]:
        """The weights before any adaptation, without the axis of the tasks."""
        return {name: self.get_parameter(name) for name in self.names}

    def statistics(self) -> list[Tensor]:
        """The running statistics."""
        return []

    def observed(self, x: Tensor, weight: Tensor) -> list[Tensor]:
        """The statistics of a training batch, which the running ones move towards.

        Args:
            x: `[task, example, *input]`.
            weight: float32 `[task, example]`; absent examples do not count.
        """
        return []


class Through(FastNetwork):
    """No network: what comes are features already, `[task, example, width]`."""

    axes = 1

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, x: Tensor, weights: Tensors, statistics: Sequence[Tensor]) -> Tensor:
        """See `FastNetwork`."""
        return x


class FastMlp(FastNetwork):
    """Fully connected layers with ReLU, without normalisation.

    Args:
        inputs: Numbers of an input.
        hidden: Units of each layer.
        input_scale: What inputs are divided by.
    """

    axes = 1

    def __init__(self, inputs: int, hidden: Sequence[int], input_scale: float) -> None:
        super().__init__()
        self.width = hidden[-1]
        self.input_scale = input_scale
        self.layers = len(hidden)
        names = []
        for layer, (before, after) in enumerate(zip((inputs, *hidden[:-1]), hidden, strict=True), 1):
            bound = (6 / before) ** 0.5
            self.register_parameter(f"dense{layer}", nn.Parameter(torch.empty(before, after).uniform_(-bound, bound)))
            self.register_parameter(f"shift{layer}", nn.Parameter(torch.empty(after).uniform_(-0.5, 0.5)))
            names += [f"dense{layer}", f"shift{layer}"]
        self.names = tuple(names)

    def forward(self, x: Tensor, weights: Tensors, statistics: Sequence[Tensor]) -> Tensor:
        """See `FastNetwork`."""
        found = x / self.input_scale
        for layer in range(1, self.layers + 1):
            found = (found @ weights[f"dense{layer}"] + weights[f"shift{layer}"].unsqueeze(1)).relu()
        return found
