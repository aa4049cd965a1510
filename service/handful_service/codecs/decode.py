"""Raw inputs to arrays, by the kinds that a bundle declares. Training data passes through here at export, too."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..bundle.bundle import TOKENIZER
from ..bundle.inputs import InputSpec
from ..bundle.manifest import Manifest
from ..errors import InputInvalid
from ..task import Array, Arrays
from .image import decode_image
from .record import decode_record
from .tensor import decode_tensor
from .text import Tokenizer, decode_text


@dataclass(frozen=True, slots=True)
class Decoded:
    """Raw inputs as arrays.

    Attributes:
        arrays: Each `[n, *axes]`.
        folded: For each input the fields of records whose category was folded to «other».
    """

    arrays: Arrays
    folded: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class _Value:
    array: Array
    folded: tuple[str, ...] = ()


def tokenizer_of(manifest: Manifest, files: Mapping[str, bytes]) -> Tokenizer | None:
    """The tokenizer of a bundle, where it reads texts.

    Raises:
        BundleInvalid: it cannot be read.
    """
    return Tokenizer(files[TOKENIZER], file=TOKENIZER) if manifest.reads_text else None


def decode_inputs(
    values: Sequence[Any], fields: Sequence[str], manifest: Manifest, tokenizer: Tokenizer | None = None
) -> Arrays:
    """The arrays of `decode_rows`."""
    return decode_rows(values, fields, manifest, tokenizer).arrays


def decode_rows(
    values: Sequence[Any], fields: Sequence[str], manifest: Manifest, tokenizer: Tokenizer | None = None
) -> Decoded:
    """Arrays `[n, *axes]` of `n` raw inputs.

    Args:
        values: One raw value per input, or, where the model has several input tensors, an object by name.
        fields: The place of each in the request, for messages.
        manifest: Declares the inputs.
        tokenizer: The bundle's, where it reads texts.

    Raises:
        InputInvalid: a value cannot be read as its kind.
        TooLarge: a picture has too many pixels.
    """
    rows = [_decode_item(value, field, manifest, tokenizer) for value, field in zip(values, fields, strict=True)]
    arrays = {name: _stack([row[name].array for row in rows], spec, fields) for name, spec in manifest.inputs.items()}
    return Decoded(arrays, tuple(_folded(row) for row in rows))


def _decode_item(value: Any, field: str, manifest: Manifest, tokenizer: Tokenizer | None) -> Mapping[str, _Value]:
    if len(manifest.inputs) == 1:
        ((name, spec),) = manifest.inputs.items()
        return {name: _decode_value(value, spec, manifest, tokenizer, field)}
    if not isinstance(value, dict) or value.keys() != manifest.inputs.keys():
        raise InputInvalid("is not an object of the model's inputs", field=field, allowed=str(sorted(manifest.inputs)))
    return {
        name: _decode_value(value[name], spec, manifest, tokenizer, f"{field}.{name}")
        for name, spec in manifest.inputs.items()
    }


def _decode_value(value: Any, spec: InputSpec, manifest: Manifest, tokenizer: Tokenizer | None, field: str) -> _Value:
    if spec.kind == "image":
        return _Value(decode_image(value, spec, field=field))
    if spec.record is not None:
        return _Value(*decode_record(value, spec.record, field=field))
    if spec.text is not None:
        if tokenizer is None:
            raise TypeError("the bundle reads texts, so its tokenizer is needed")
        return _Value(decode_text(value, spec.text, spec.shape[0], tokenizer, field=field))
    return _Value(decode_tensor(value, spec, norm=manifest.limits.norm, field=field))


def _folded(row: Mapping[str, _Value]) -> tuple[str, ...]:
    """The folded fields of an input; where there are several tensors, behind the name of theirs."""
    if len(row) == 1:
        return next(iter(row.values())).folded
    return tuple(f"{name}.{field}" for name, value in row.items() for field in value.folded)


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
