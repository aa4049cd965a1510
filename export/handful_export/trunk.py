"""The encoder of a bundle, read back: a trunk for training, where the run that made it is not at hand."""

import re
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor

from handful_service.bundle.bundle import Bundle

from .errors import TrunkMissing

_NAME = re.compile(r"^learner\.encoder\.(blocks\.\d+\.0)\.(weight|bias)$")
_PARTS = ("weight", "bias")


def read_trunk(folder: Path) -> dict[str, Tensor]:
    """The weights of a bundle's convolutions, with normalisation folded into them.

    Args:
        folder: A version of a bundle whose encoder is `Conv4`.

    Returns:
        `blocks.<i>.0.weight [filters, channels, 3, 3]` and `blocks.<i>.0.bias [filters]`, float32, of each block.

    Raises:
        BundleInvalid: the folder holds no valid bundle.
        TrunkMissing: its encoder is of another form.
    """
    bundle = Bundle.open(folder)
    model = onnx.load_from_string(bundle.graph("encode")) if "encode" in bundle.manifest.graphs else onnx.ModelProto()
    found = {}
    for tensor in model.graph.initializer:
        if match := _NAME.match(tensor.name):
            array = numpy_helper.to_array(tensor)
            found[f"{match[1]}.{match[2]}"] = torch.from_numpy(np.array(array))
    blocks = {name.rpartition(".")[0] for name in found}
    if not blocks or found.keys() != {f"{block}.{part}" for block in blocks for part in _PARTS}:
        raise TrunkMissing(f"{folder}: the encoder is no stack of convolutions with normalisation folded into them")
    return dict(sorted(found.items()))
