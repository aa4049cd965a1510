"""The named tensors that each graph takes and gives, as the manifest declares them."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..errors import SignatureMismatch
from ..task import Arrays
from .contradictions import PRIOR
from .manifest import DESCRIBE_ID, DESCRIBE_METADATA, DESCRIBE_TEXT, GraphName, Manifest
from .parts import Axis, TensorSpec

BATCH = "batch"
EXAMPLE = "example"
INDEX = "index"
METADATA = "metadata"
TEXT = "text"


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


def _after(
    leading: tuple[str, ...], tensors: Mapping[str, TensorSpec], suffix: str = "", *, prefix: str = ""
) -> dict[str, TensorSpec]:
    return {
        prefix + name + suffix: TensorSpec(dtype=spec.dtype, axes=(*leading, *spec.axes))
        for name, spec in tensors.items()
    }


def _tensor(dtype: str, *axes: Axis) -> TensorSpec:
    return TensorSpec.model_validate({"dtype": dtype, "axes": axes})


def graph_signatures(manifest: Manifest) -> dict[GraphName, tuple[Signature, Signature]]:
    """What each graph of the bundle takes and gives.

    The names of a support set's feature tensors end in `_s`; beside them stand `y_s`, which is int64
    `[batch, example]` for classes and float32 `[batch, example, 1]` for numbers, and `weight_s`, float32
    `[batch, example]`. Where adapt starts from the state of a descriptor, its tensors stand there as `prior_<name>`.
    """
    support = _support(manifest)
    features = _after((BATCH,), manifest.features)
    state = _after((BATCH,), manifest.state)
    y = {"y": _tensor("float32", BATCH, manifest.output.members, manifest.width)}
    inputs = {name: TensorSpec(dtype=spec.dtype, axes=(BATCH, *spec.axes)) for name, spec in manifest.inputs.items()}
    statistics = None if manifest.statistics is None else _after((BATCH,), manifest.statistics)
    prior = _after((BATCH,), manifest.state, prefix=PRIOR) if manifest.takes_prior else {}
    edges: dict[GraphName, tuple[Mapping[str, TensorSpec], Mapping[str, TensorSpec]]] = {
        "encode": (inputs, features),
        **{name: (takes, state) for name, takes in _descriptions(manifest).items()},
        "adapt": ({**(support if statistics is None else statistics), **prior}, state),
        "predict": ({**features, **state}, y),
    }
    if statistics is not None:
        edges["summarise"] = (support, statistics)
    return {
        name: (Signature(takes), Signature(gives)) for name, (takes, gives) in edges.items() if name in manifest.graphs
    }


def _support(manifest: Manifest) -> dict[str, TensorSpec]:
    numbers = manifest.support is not None and manifest.support.kind == "number"
    return {
        **_after((BATCH, EXAMPLE), manifest.features, "_s"),
        "y_s": _tensor("float32", BATCH, EXAMPLE, 1) if numbers else _tensor("int64", BATCH, EXAMPLE),
        "weight_s": _tensor("float32", BATCH, EXAMPLE),
    }


def _descriptions(manifest: Manifest) -> dict[GraphName, dict[str, TensorSpec]]:
    """What each describe graph takes."""
    index = {INDEX: _tensor("int64", BATCH)}
    found: dict[GraphName, dict[str, TensorSpec]] = {DESCRIBE_ID: index}
    if manifest.descriptors is not None and (metadata := manifest.descriptors.metadata) is not None:
        record = {METADATA: _tensor("float32", BATCH, len(metadata.record.fields))}
        found[DESCRIBE_METADATA] = {**index, **record} if metadata.beside_id else record
    if manifest.descriptors is not None and (text := manifest.descriptors.text) is not None:
        found[DESCRIBE_TEXT] = {TEXT: _tensor("int64", BATCH, text.tokens)}
    return found
