"""Networks of one form side by side: the trunks that tasks share, mix, or have each for itself.

Layers are fully connected, or 3 x 3 convolutions of stride 2 (Finn, Abbeel, Levine 2017, the network for Omniglot). The
weights of every network may be gathered by index, also inside an exported graph: a convolution is then slices and one
matrix product, since the groups of an ONNX `Conv` cannot depend on the batch. Convolutions are normalised over the
whole picture of one row (Ba, Kiros, Hinton 2016): no row sees another.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SIDE = 28
LAST_SIDE = 2
BLOCKS = 4
KERNEL = 3
GLANCE = 7
FEW = 8
"""Networks that run one after the other; more are quicker as one product."""

Modulation = tuple[Tensor | None, Tensor | None]
"""What a layer's values are multiplied by less 1, and what is added: `[network, row, 1, given]` each."""


class Form(ABC):
    """What the layers of a network are.

    Attributes:
        layers: Of each layer, the values that one product takes and gives. The last is fully connected.
        normalises: Whether all layers but the last normalise.
        glance: Numbers that a gate sees of an input.
    """

    layers: tuple[tuple[int, int], ...]
    normalises: bool
    glance: int

    @abstractmethod
    def begin(self, x: Tensor) -> Tensor:
        """Inputs `[row, *input]` as the values before the first layer, `[row, place, value]`."""

    @abstractmethod
    def product(self, layer: int, values: Tensor, weight: Tensor, *, gathered: bool) -> Tensor:
        """What a layer gives before shifts, `[network, row, place, given]`.

        Args:
            layer: Which.
            values: `[network, row, place, value]`.
            weight: `[network, taken, given]`.
            gathered: Whether the networks are those of single rows, so that their number is that of a batch.
        """

    @abstractmethod
    def glanced(self, x: Tensor) -> Tensor:
        """What a gate sees of inputs: `[row, glance]`."""

    @property
    def width(self) -> int:
        """Features that the last layer gives."""
        return self.layers[-1][1]

    @property
    def before_last(self) -> int:
        """Values that reach the last layer, flat."""
        return self.layers[-2][1] * (LAST_SIDE**2 if self.normalises else 1)


class PictureForm(Form):
    """Four convolutions of stride 2 on pictures `[row, 1, 28, 28]`, then a fully connected layer.

    Args:
        filters: Of each convolution.
        width: Of the last layer.
        beside: Values that join those which the last layer takes.
    """

    def __init__(self, filters: int, width: int, beside: int = 0) -> None:
        between = ((KERNEL**2 * filters, filters),) * (BLOCKS - 1)
        self.layers = ((KERNEL**2, filters), *between, (LAST_SIDE**2 * filters + beside, width))
        self.normalises = True
        self.glance = GLANCE**2

    def begin(self, x: Tensor) -> Tensor:
        """See `Form`."""
        return x.flatten(1).unsqueeze(-1)

    def product(self, layer: int, values: Tensor, weight: Tensor, *, gathered: bool) -> Tensor:
        """See `Form`: a convolution for each of a few networks; for many, and for gathered ones, slices."""
        if layer == BLOCKS:
            return torch.bmm(values.flatten(2), weight).unsqueeze(2)
        side = (SIDE, 14, 7, 4)[layer]
        square = values.reshape(values.shape[0], values.shape[1], side, side, values.shape[3])
        if gathered or len(weight) > FEW:
            return self._sliced(square, weight)
        return torch.stack([self._convolved(rows, kernels) for rows, kernels in zip(square, weight, strict=True)])

    def _convolved(self, square: Tensor, weight: Tensor) -> Tensor:
        """One network: `[row, place, given]` of `[row, side, side, channel]`; channels stay last in memory."""
        kernels = weight.reshape(KERNEL, KERNEL, -1, weight.shape[1]).permute(3, 2, 0, 1)
        return F.conv2d(square.permute(0, 3, 1, 2), kernels, stride=2, padding=1).flatten(2).transpose(1, 2)

    def _sliced(self, square: Tensor, weight: Tensor) -> Tensor:
        """Pixels two by two, so that what a kernel takes lies together: slices without strides are copied fast."""
        side, channels = square.shape[2], square.shape[4]
        out = (side + 1) // 2
        behind = 2 * (out + 1) - side - 1
        pairs = F.pad(square, (0, 0, 1, behind, 1, behind)).reshape(
            square.shape[0], square.shape[1], out + 1, 2, out + 1, 2 * channels
        )
        rows = (pairs[:, :, :out, 0], pairs[:, :, :out, 1], pairs[:, :, 1:, 0])
        parts = [part for row in rows for part in (row[:, :, :, :out], row[:, :, :, 1:, :channels])]
        taken = torch.cat(parts, -1).flatten(2, 3)
        return torch.bmm(taken.flatten(1, 2), weight).reshape(*taken.shape[:3], weight.shape[2])

    def glanced(self, x: Tensor) -> Tensor:
        """See `Form`: the picture at a side of 7."""
        return F.avg_pool2d(x, SIDE // GLANCE).flatten(1)


class VectorForm(Form):
    """Fully connected layers on vectors `[row, inputs]`.

    Args:
        inputs: Numbers of an input.
        hidden: Widths of the layers before the last, at least one.
        width: Of the last layer.
        beside: Values that join those which the last layer takes.
    """

    def __init__(self, inputs: int, hidden: Sequence[int], width: int, beside: int = 0) -> None:
        sizes = (inputs, *hidden)
        self.layers = (*pairwise(sizes), (sizes[-1] + beside, width))
        self.normalises = False
        self.glance = inputs

    def begin(self, x: Tensor) -> Tensor:
        """See `Form`."""
        return x.unsqueeze(1)

    def product(self, layer: int, values: Tensor, weight: Tensor, *, gathered: bool) -> Tensor:
        """See `Form`."""
        return torch.bmm(values.flatten(1, 2), weight).unsqueeze(2)

    def glanced(self, x: Tensor) -> Tensor:
        """See `Form`."""
        return x


class Bank(nn.Module):
    """So many networks of one form, each with weights of its own.

    Parameters, of layer `i`: `weight<i> [network, taken, given]`, `shift<i> [network, given]`, and `gain<i>` of the
    shape of the shift where the layer normalises.
    """

    def __init__(self, form: Form, networks: int) -> None:
        super().__init__()
        self.form = form
        self.networks = networks
        for layer, (taken, given) in enumerate(form.layers):
            weight = torch.randn(networks, taken, given) * (2 / taken) ** 0.5
            self.register_parameter(f"weight{layer}", nn.Parameter(weight))
            self.register_parameter(f"shift{layer}", nn.Parameter(torch.zeros(networks, given)))
            if self._normalises(layer):
                self.register_parameter(f"gain{layer}", nn.Parameter(torch.ones(networks, given)))

    def _normalises(self, layer: int) -> bool:
        return self.form.normalises and layer < len(self.form.layers) - 1

    def layer(
        self, layer: int, values: Tensor, *, of: Tensor | None = None, modulation: Modulation = (None, None)
    ) -> Tensor:
        """One layer: values `[network, row, place, given]` of values `[network, row, place, value]`.

        Args:
            layer: Which.
            values: What came before; a network each, or one for all.
            of: int64 `[n]`, the networks that are meant, one for each of the leading axis; all in order if none.
            modulation: What a task does to it before ReLU.
        """
        weight, shift = (self._chosen(f"{name}{layer}", of) for name in ("weight", "shift"))
        found = self.form.product(layer, values, weight, gathered=of is not None)
        if self._normalises(layer):
            gain = self._chosen(f"gain{layer}", of)
            found = F.layer_norm(found, found.shape[-2:]) * gain[:, None, None]
        found = found + shift[:, None, None]
        times, plus = modulation
        found = found if times is None else found * (1 + times)
        return (found if plus is None else found + plus).relu()

    def _chosen(self, name: str, of: Tensor | None) -> Tensor:
        value = self.get_parameter(name)
        return value if of is None else value[of]

    def run(
        self,
        values: Tensor,
        layers: range,
        *,
        of: Tensor | None = None,
        between: Callable[[int, Tensor], Tensor] | None = None,
        modulation: Callable[[int], Modulation] | None = None,
    ) -> Tensor:
        """Some layers after each other; `between` has the word after each of them."""
        for layer in layers:
            values = self.layer(layer, values, of=of, modulation=modulation(layer) if modulation else (None, None))
            values = between(layer, values) if between else values
        return values

    def everything(self) -> range:
        """The numbers of all layers."""
        return range(len(self.form.layers))

    def but_last(self) -> range:
        """The numbers of all layers but the last."""
        return range(len(self.form.layers) - 1)
