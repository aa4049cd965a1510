"""A trained encoder, frozen: heads train on what it gives, which is computed once."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from .conv4 import BLOCKS
from .errors import ConfigInvalid, DataMissing
from .runs import load

_PREFIX = "encoder."


class Trunk(nn.Module):
    """The four blocks of `Conv4` with their normalisation folded in, and without gradients.

    Takes images `[batch, 1, 28, 28]`, or, in training, what `frozen` gave for them, `[batch, width]`.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        layers: list[nn.Module] = []
        for channels in (1, *(width for _ in range(BLOCKS - 1))):
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.MaxPool2d(2), nn.ReLU()]
        self.blocks = nn.Sequential(*layers).requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        """Features `[batch, width]`."""
        return x if x.dim() == 2 else self.frozen(x)

    def frozen(self, images: Tensor) -> Tensor:
        """Features `[batch, width]` of images `[batch, 1, 28, 28]`."""
        features: Tensor = self.blocks(images.contiguous(memory_format=torch.channels_last))
        return features.flatten(1)

    def take(self, weights: Mapping[str, Tensor]) -> None:
        """Take the weights of a `Conv4`, with or without batch normalisation; names begin at its blocks.

        Raises:
            ConfigInvalid: they are of another form.
        """
        try:
            for place, (weight, bias) in enumerate(_folded(weights, block) for block in range(BLOCKS)):
                layer = self.blocks[3 * place]
                layer.load_state_dict({"weight": weight, "bias": bias})
        except (KeyError, RuntimeError) as error:
            raise ConfigInvalid(f"encoder.weights: not four blocks of width {self.width}: {error}") from error


def _folded(weights: Mapping[str, Tensor], block: int) -> tuple[Tensor, Tensor]:
    """The weight and bias of a convolution that does its normalisation, too."""
    convolution = {name: weights[f"blocks.{block}.0.{name}"] for name in ("weight", "bias")}
    if f"blocks.{block}.1.running_var" not in weights:
        return convolution["weight"], convolution["bias"]
    norm = {name: weights[f"blocks.{block}.1.{name}"] for name in ("weight", "bias", "running_mean", "running_var")}
    scale = norm["weight"] / torch.sqrt(norm["running_var"] + nn.BatchNorm2d(1).eps)
    return (
        convolution["weight"] * scale.reshape(-1, 1, 1, 1),
        (convolution["bias"] - norm["running_mean"]) * scale + norm["bias"],
    )


def read_trunk(path: Path, width: int) -> Trunk:
    """The trunk in a weights file, that of a run or of `handful trunk`.

    Raises:
        DataMissing: no such file.
        ConfigInvalid: its encoder has another form.
    """
    if not path.is_file():
        raise DataMissing(path, "train it, or take it from a bundle with `handful trunk`")
    trunk = Trunk(width)
    trunk.take({name.removeprefix(_PREFIX): value for name, value in load(path).items()})
    return trunk
