"""Four convolutions of stride 2 whose weights belong to a task.

The network of Finn, Abbeel, Levine (2017) for Omniglot: 3 x 3 convolutions with stride 2, normalisation, ReLU. It is
written twice, with the same numbers: as grouped convolutions, a group for each task, which train fastest; and as
slices and one matrix product for each layer, since the groups of an ONNX `Conv` cannot depend on the batch.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .fast_networks import MOMENTUM, VARIANCE_FLOOR, FastNetwork
from .learner import Tensors

BLOCKS = 4
KERNEL = 3
SIDE = 28
LAST_SIDE = 2
"""28, 14, 7, 4, 2."""


class FastConv(FastNetwork):
    """Features `[task, example, 4 * filters]` of images `[task, example, 1, 28, 28]`.

    Weights: of each block `conv [9 * channels, filters]`, rows by place and then channel, and `shift [filters]`.
    """

    axes = 3

    def __init__(self, filters: int) -> None:
        super().__init__()
        self.width = filters * LAST_SIDE**2
        self.filters = filters
        names = []
        for block in range(1, BLOCKS + 1):
            channels = 1 if block == 1 else filters
            weight = torch.randn(KERNEL**2 * channels, filters) * (2 / (KERNEL**2 * channels)) ** 0.5
            self.register_parameter(f"conv{block}", nn.Parameter(weight))
            self.register_parameter(f"shift{block}", nn.Parameter(torch.zeros(filters)))
            self.register_buffer(f"mean{block}", torch.zeros(filters))
            self.register_buffer(f"variance{block}", torch.ones(filters))
            names += [f"conv{block}", f"shift{block}"]
        self.names = tuple(names)

    def statistics(self) -> list[Tensor]:
        """Mean and variance of each block in turn, `[filters]` each."""
        return [self.get_buffer(f"{what}{block}") for block in range(1, BLOCKS + 1) for what in ("mean", "variance")]

    def observed(self, x: Tensor, weight: Tensor) -> list[Tensor]:
        """See `FastNetwork`; gradients reach the weights through them, as in batch normalisation."""
        images = x.flatten(0, 1)[weight.flatten() > 0]
        found: list[Tensor] = []
        for block in range(1, BLOCKS + 1):
            images = F.conv2d(images, _kernels(self.get_parameter(f"conv{block}")), stride=2, padding=1)
            variance, mean = torch.var_mean(images, (0, 2, 3), correction=0)
            found += [mean, variance]
            images = _normalised(images, mean, variance, self.get_parameter(f"shift{block}")).relu()
        with torch.no_grad():
            for running, value in zip(self.statistics(), found, strict=True):
                running.lerp_(value, MOMENTUM)
        return found

    def forward(self, x: Tensor, weights: Tensors, statistics: Sequence[Tensor]) -> Tensor:
        """See `FastNetwork`."""
        return self.grouped(x, weights, statistics) if self.training else self.sliced(x, weights, statistics)

    def grouped(self, x: Tensor, weights: Tensors, statistics: Sequence[Tensor]) -> Tensor:
        """`forward` by grouped convolutions."""
        tasks = x.shape[0]
        found = x.transpose(0, 1).flatten(1, 2)
        for block in range(1, BLOCKS + 1):
            mean, variance = statistics[2 * block - 2 : 2 * block]
            kernels = _kernels(weights[f"conv{block}"]).flatten(0, 1)
            found = F.conv2d(found, kernels, stride=2, padding=1, groups=tasks)
            shift = weights[f"shift{block}"].flatten()
            found = _normalised(found, mean.repeat(tasks), variance.repeat(tasks), shift).relu()
        by_task = found.reshape(len(found), tasks, self.filters, LAST_SIDE**2).permute(1, 0, 3, 2)
        return by_task.flatten(2)

    def sliced(self, x: Tensor, weights: Tensors, statistics: Sequence[Tensor]) -> Tensor:
        """`forward` by slices and matrix products, which any batch can run."""
        found, side = x.movedim(2, -1), SIDE
        for block in range(1, BLOCKS + 1):
            mean, variance = statistics[2 * block - 2 : 2 * block]
            padded = F.pad(found, (0, 0, 1, 1, 1, 1))
            places = [(row, column) for row in range(KERNEL) for column in range(KERNEL)]
            patches = [padded[:, :, row : row + side : 2, column : column + side : 2] for row, column in places]
            side = (side + 1) // 2
            product = torch.cat(patches, -1).flatten(1, 3) @ weights[f"conv{block}"]
            scale = torch.rsqrt(variance + VARIANCE_FLOOR)
            flat = ((product - mean) * scale + weights[f"shift{block}"].unsqueeze(1)).relu()
            found = flat.reshape(flat.shape[0], -1, side, side, self.filters)
        return found.flatten(2)


def _kernels(weight: Tensor) -> Tensor:
    """`[..., filters, channels, 3, 3]` of `[..., 9 * channels, filters]`."""
    kernels = weight.reshape(*weight.shape[:-2], KERNEL, KERNEL, -1, weight.shape[-1])
    return kernels.movedim((-1, -2), (-4, -3))


def _normalised(images: Tensor, mean: Tensor, variance: Tensor, shift: Tensor) -> Tensor:
    scale = torch.rsqrt(variance + VARIANCE_FLOOR)
    return images * scale[:, None, None] + (shift - mean * scale)[:, None, None]
