"""The named tensors that each graph takes and gives, as the manifest declares them."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..errors import SignatureMismatch
from ..task import Arrays
from .manifest import DESCRIBE_ID, GraphName, Manifest
from .parts import Axis, TensorSpec

BATCH = "batch"
EXAMPLE = "example"
INDEX = "index"


@dataclass(frozen=True, slots=True)
class Signature:
    """Named tensors with their whole axes: those of the batch before those of an item."""

    tensors: Mapping[str, TensorSpec]

    def check(self, arrays: Arrays) -> dict[str, int]:
        """The sizes of the named axes.

        Raises:
            SignatureMismatch: a name is missing or unknown, or a dtype, a number of axes or a size differs.
        """
        if arrays.keys() != self.tensors.keys():
            raise SignatureMismatch(f"tensors are {sorted(self.tensors)}, got {sorted(arrays)}")
        sizes: dict[str, int] = {}
        for name, spec in self.tensors.items():
            _check_tensor(name, spec, arrays[name], sizes)
        return sizes


def _check_tensor(name: str, spec: TensorSpec, array: np.ndarray, sizes: dict[str, int]) -> None:
    if array.dtype != np.dtype(spec.dtype):
        raise SignatureMismatch(f"{name}: dtype is {spec.dtype}, got {array.dtype}")
    if array.ndim != len(spec.axes):
        raise SignatureMismatch(f"{name}: axes are {list(spec.axes)}, got shape {list(array.shape)}")
    for axis, size in zip(spec.axes, array.shape, strict=True):
        expected = sizes.setdefault(axis, size) if isinstance(axis, str) else axis
        if size != expected:
            raise SignatureMismatch(f"{name}: {axis} is {expected}, got {size}")


def _after(leading: tuple[str, ...], tensors: Mapping[str, TensorSpec], suffix: str = "") -> dict[str, TensorSpec]:
    return {name + suffix: TensorSpec(dtype=spec.dtype, axes=(*leading, *spec.axes)) for name, spec in tensors.items()}


def _tensor(dtype: str, *axes: Axis) -> TensorSpec:
    return TensorSpec.model_validate({"dtype": dtype, "axes": axes})


def graph_signatures(manifest: Manifest) -> dict[GraphName, tuple[Signature, Signature]]:
    """What each graph of the bundle takes and gives.

    The names of a support set's feature tensors end in `_s`; beside them stand `y_s`, which is int64
    `[batch, example]` for classes and float32 `[batch, example, 1]` for numbers, and `weight_s`, float32
    `[batch, example]`.
    """
    y_s = {"class": _tensor("int64", BATCH, EXAMPLE), "number": _tensor("float32", BATCH, EXAMPLE, 1)}
    support = {
        **_after((BATCH, EXAMPLE), manifest.features, "_s"),
        "y_s": y_s[manifest.output.kind],
        "weight_s": _tensor("float32", BATCH, EXAMPLE),
    }
    features = _after((BATCH,), manifest.features)
    state = _after((BATCH,), manifest.state)
    y = {"y": _tensor("float32", BATCH, manifest.output.members, manifest.width)}
    inputs = {name: TensorSpec(dtype=spec.dtype, axes=(BATCH, *spec.axes)) for name, spec in manifest.inputs.items()}
    statistics = None if manifest.statistics is None else _after((BATCH,), manifest.statistics)
    edges: dict[GraphName, tuple[Mapping[str, TensorSpec], Mapping[str, TensorSpec]]] = {
        "encode": (inputs, features),
        DESCRIBE_ID: ({INDEX: _tensor("int64", BATCH)}, state),
        "adapt": (support if statistics is None else statistics, state),
        "predict": ({**features, **state}, y),
    }
    if statistics is not None:
        edges["summarise"] = (support, statistics)
    return {
        name: (Signature(takes), Signature(gives)) for name, (takes, gives) in edges.items() if name in manifest.graphs
    }
