"""Raw inputs to arrays, by the kinds that a bundle declares. Training data passes through here at export, too."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..bundle.manifest import InputSpec, Manifest
from ..errors import InputInvalid
from ..task import Array, Arrays
from .image import decode_image
from .tensor import decode_tensor


def decode_inputs(values: Sequence[Any], fields: Sequence[str], manifest: Manifest) -> Arrays:
    """Arrays `[n, *axes]` of `n` raw inputs.

    Args:
        values: One raw value per input, or, where the model has several input tensors, an object by name.
        fields: The place of each in the request, for messages.
        manifest: Declares the inputs.

    Raises:
        InputInvalid: a value cannot be read as its kind.
        TooLarge: a picture has too many pixels.
    """
    rows = [_decode_item(value, field, manifest) for value, field in zip(values, fields, strict=True)]
    return {name: _stack([row[name] for row in rows], spec, fields) for name, spec in manifest.inputs.items()}


def _decode_item(value: Any, field: str, manifest: Manifest) -> Arrays:
    if len(manifest.inputs) == 1:
        ((name, spec),) = manifest.inputs.items()
        return {name: _decode_value(value, spec, manifest, field)}
    if not isinstance(value, dict) or value.keys() != manifest.inputs.keys():
        raise InputInvalid("is not an object of the model's inputs", field=field, allowed=str(sorted(manifest.inputs)))
    return {
        name: _decode_value(value[name], spec, manifest, f"{field}.{name}") for name, spec in manifest.inputs.items()
    }


def _decode_value(value: Any, spec: InputSpec, manifest: Manifest, field: str) -> Array:
    if spec.kind == "image":
        return decode_image(value, spec, field=field)
    return decode_tensor(value, spec, norm=manifest.limits.norm, field=field)


def _stack(items: Sequence[Array], spec: InputSpec, fields: Sequence[str]) -> Array:
    if not items:
        return np.zeros((0, *(axis if isinstance(axis, int) else 0 for axis in spec.axes)), spec.dtype)
    for item, field in zip(items, fields, strict=True):
        if item.shape != items[0].shape:
            raise InputInvalid(
                f"the shape is {list(item.shape)}",
                field=field,
                allowed=f"one shape in a call: {list(items[0].shape)}",
            )
    return np.stack(items)
