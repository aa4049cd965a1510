"""Ways in which a task's state reaches a trunk, interchangeable: the state φ stays small in each of them.

Caruana, "Multitask Learning" (1997) for own heads on a shared trunk; Perez, Strub, de Vries, Dumoulin, Courville,
"FiLM: Visual Reasoning with a General Conditioning Layer" (2018). The mixtures stand in `mixtures.py`.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .banks import Bank, Form, Modulation, PictureForm, VectorForm
from .learner import Tensors

INDEX = "task"
"""The tensor of φ that every conditioning has: int64 `[row, 1]`, the place of the task in the list."""


class Conditioning(nn.Module, ABC):
    """A trunk whose features depend on the task. Rows of a batch belong to any tasks.

    Attributes:
        width: Features of a row.
        bank: The networks.
    """

    bank: Bank

    @property
    def width(self) -> int:
        """Features of a row."""
        return self.bank.form.width

    def state(self, index: Tensor) -> dict[str, Tensor]:
        """The tensors of φ beside the index, each `[row, *state]`, of tasks `index [row]`, int64."""
        return {}

    def encode(self, x: Tensor) -> dict[str, Tensor]:
        """What of the trunk no task touches, by name, of inputs `[row, *input]`; the inputs where that is nothing."""
        return {"x": x}

    @abstractmethod
    def forward(self, features: Tensors, state: Tensors) -> Tensor:
        """Features `[row, width]` of what `encode` gave, under states `[row, *state]`."""

    def shared(self) -> list[nn.Parameter]:
        """The parameters that every task uses."""
        return list(self.bank.parameters())


class Independent(Conditioning):
    """One network for each task, behind a switch: the weights of a row are gathered by its index.

    In training rows stand in a grid by task, which gives the same numbers in fewer and larger products.
    """

    def __init__(self, form: Form, tasks: int) -> None:
        super().__init__()
        self.bank = Bank(form, tasks)

    def forward(self, features: Tensors, state: Tensors) -> Tensor:
        """See `Conditioning`."""
        index, begin = state[INDEX][:, 0], self.bank.form.begin(features["x"])
        if self.training:
            return self._in_a_grid(begin, index)
        found = self.bank.run(begin.unsqueeze(1), self.bank.everything(), of=index)
        return found.flatten(1)

    def _in_a_grid(self, begin: Tensor, index: Tensor) -> Tensor:
        counts = torch.bincount(index, minlength=self.bank.networks)
        most, order = int(counts.max()), torch.argsort(index, stable=True)
        rank = torch.empty_like(index)
        rank[order] = torch.arange(len(index)) - (counts.cumsum(0) - counts)[index[order]]
        grid = begin.new_zeros(self.bank.networks, most, *begin.shape[1:]).index_put((index, rank), begin)
        return self.bank.run(grid, self.bank.everything())[index, rank].flatten(1)

    def shared(self) -> list[nn.Parameter]:
        """See `Conditioning`: none."""
        return []


class Shared(Conditioning):
    """One trunk for all tasks, which differ in their heads alone: `multi-head`."""

    def __init__(self, form: Form) -> None:
        super().__init__()
        self.bank = Bank(form, 1)

    def encode(self, x: Tensor) -> dict[str, Tensor]:
        """See `Conditioning`: all layers."""
        return {"features": self.bank.run(self.bank.form.begin(x).unsqueeze(0), self.bank.everything()).flatten(2)[0]}

    def forward(self, features: Tensors, state: Tensors) -> Tensor:
        """See `Conditioning`."""
        return features["features"]


class BeforeTheLast(Conditioning):
    """One trunk for all tasks, whose last layer the task reaches; the layers before it are encoded once."""

    bank: Bank

    def encode(self, x: Tensor) -> dict[str, Tensor]:
        """See `Conditioning`: all layers but the last."""
        return {"features": self.bank.run(self.bank.form.begin(x).unsqueeze(0), self.bank.but_last()).flatten(2)[0]}

    def last(self, values: Tensor, plus: Tensor | None = None) -> Tensor:
        """The last layer on flat values `[row, before_last]`, with `plus [row, width]` added before ReLU."""
        modulation: Modulation = (None, None if plus is None else plus[None, :, None])
        layer = len(self.bank.form.layers) - 1
        return self.bank.layer(layer, values[None, :, None], modulation=modulation).flatten(2)[0]


class Concatenation(BeforeTheLast):
    """A learned vector of the task stands beside the values that the last layer takes."""

    def __init__(self, form: Form, tasks: int, beside: int) -> None:
        super().__init__()
        self.bank = Bank(form, 1)
        self.vectors = nn.Parameter(torch.randn(tasks, beside))

    def state(self, index: Tensor) -> dict[str, Tensor]:
        """See `Conditioning`: `beside [row, beside]`."""
        return {"beside": self.vectors[index]}

    def forward(self, features: Tensors, state: Tensors) -> Tensor:
        """See `Conditioning`."""
        return self.last(torch.cat([features["features"], state["beside"]], -1))


class Addition(BeforeTheLast):
    """A learned vector of the task is added to what the last layer gives, before ReLU."""

    def __init__(self, form: Form, tasks: int) -> None:
        super().__init__()
        self.bank = Bank(form, 1)
        self.vectors = nn.Parameter(torch.zeros(tasks, form.width))

    def state(self, index: Tensor) -> dict[str, Tensor]:
        """See `Conditioning`: `plus [row, width]`."""
        return {"plus": self.vectors[index]}

    def forward(self, features: Tensors, state: Tensors) -> Tensor:
        """See `Conditioning`."""
        return self.last(features["features"], state["plus"])


class Film(Conditioning):
    """Every value of every layer is scaled and shifted by the task, before ReLU; it begins as `Shared`.

    φ holds `times` and `plus`, each `[row, sum of the layers' widths]`.
    """

    def __init__(self, form: Form, tasks: int) -> None:
        super().__init__()
        self.bank = Bank(form, 1)
        self.given = [given for _, given in form.layers]
        self.times = nn.Parameter(torch.zeros(tasks, sum(self.given)))
        self.plus = nn.Parameter(torch.zeros(tasks, sum(self.given)))

    def state(self, index: Tensor) -> dict[str, Tensor]:
        """See `Conditioning`."""
        return {"times": self.times[index], "plus": self.plus[index]}

    def forward(self, features: Tensors, state: Tensors) -> Tensor:
        """See `Conditioning`."""
        times, plus = (_by_layer(state[name], self.given) for name in ("times", "plus"))
        begin = self.bank.form.begin(features["x"]).unsqueeze(0)
        return self.bank.run(
            begin, self.bank.everything(), modulation=lambda layer: (times[layer], plus[layer])
        ).flatten(2)[0]


def _by_layer(values: Tensor, given: Sequence[int]) -> list[Tensor]:
    """`[1, row, 1, given]` of each layer."""
    return [part[None, :, None] for part in torch.split(values, list(given), -1)]


def form_of(inputs: int | None, *, filters: int, hidden: Sequence[int], width: int, beside: int = 0) -> Form:
    """The form of a trunk: on pictures, or on vectors of so many `inputs`."""
    if inputs is None:
        return PictureForm(filters, width, beside)
    return VectorForm(inputs, hidden, width, beside)
