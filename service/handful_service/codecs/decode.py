"""Raw inputs to arrays, by the kinds that a bundle declares. Training data passes through here at export, too."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ..bundle.bundle import TOKENIZER
from ..bundle.inputs import InputSpec
from ..bundle.manifest import Manifest
from ..errors import InputInvalid
from ..task import Array, Arrays
from .image import decode_images, pixels_of
from .record import decode_record
from .tensor import decode_tensors
from .text import Tokenizer, decode_text


@dataclass(slots=True)
class Decoded:
    """Raw inputs as arrays.

    Attributes:
        arrays: Each `[n, *axes]`.
        folded: For each input the fields of records whose category was folded to «other».
    """

    arrays: Arrays
    folded: tuple[tuple[str, ...], ...]


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
    values: Sequence[Any],
    fields: Sequence[str],
    manifest: Manifest,
    tokenizer: Tokenizer | None = None,
    *,
    floats: bool = False,
) -> Decoded:
    """Arrays `[n, *axes]` of `n` raw inputs.

    Args:
        values: One raw value per input, or, where the model has several input tensors, an object by name.
        fields: The place of each in the request, for messages.
        manifest: Declares the inputs.
        tokenizer: The bundle's, where it reads texts.
        floats: Whether it is sure that all values are lists of finite floats.

    Raises:
        InputInvalid: a value cannot be read as its kind.
        TooLarge: a picture has too many pixels.
    """
    if len(manifest.inputs) == 1:
        ((name, spec),) = manifest.inputs.items()
        array, folded = _column(values, fields, spec, manifest, tokenizer, floats)
        return Decoded({name: array}, folded)
    for value, field in zip(values, fields, strict=True):
        if not isinstance(value, dict) or value.keys() != manifest.inputs.keys():
            allowed = str(sorted(manifest.inputs))
            raise InputInvalid("is not an object of the model's inputs", field=field, allowed=allowed)
    arrays, names = {}, [()] * len(values)  # type: tuple[dict[str, Array], list[tuple[str, ...]]]
    for name, spec in manifest.inputs.items():
        places = [f"{field}.{name}" for field in fields]
        arrays[name], folded = _column([value[name] for value in values], places, spec, manifest, tokenizer, floats)
        names = [(*before, *(f"{name}.{one}" for one in of)) for before, of in zip(names, folded, strict=True)]
    return Decoded(arrays, tuple(names))


QUICK = 2**16
"""Pixels that are decoded in about a millisecond."""

PORTION = 8 * QUICK
"""What a thread decodes before other calls have their turn."""

_UNTOLD = QUICK + 1
"""What a picture counts as whose size is not told at its start."""

_OF_CHARACTER = 16
"""Pixels that are decoded in the time of a character of a text."""


def is_quick(values: Sequence[Any], manifest: Manifest) -> bool:
    """Whether raw inputs are decoded in less time than it is worth to change threads for.

    Args:
        values: One raw value per input.
        manifest: Declares the inputs.
    """
    left = QUICK
    for value in values:
        left -= _pixels(value, manifest)
        if left < 0:
            return False
    return True


class Portion(NamedTuple):
    """A part of raw inputs that a thread decodes in one go.

    Attributes:
        span: Its places.
        pixels: Of which the decoding takes as long.
    """

    span: slice
    pixels: int


def portions(values: Sequence[Any], manifest: Manifest) -> list[Portion]:
    """The portions of raw inputs, one after the other; see `is_quick`."""
    found, first, before = [], 0, 0
    for place, value in enumerate(values):
        pixels = _pixels(value, manifest)
        if before + pixels > PORTION and place > first:
            found.append(Portion(slice(first, place), before))
            first, before = place, 0
        before += pixels
    return [*found, Portion(slice(first, len(values)), before)]


def _pixels(value: Any, manifest: Manifest) -> int:
    """The pixels of which the decoding takes as long as that of a raw input."""
    pixels = 0
    for name, spec in manifest.inputs.items():
        part = value.get(name) if len(manifest.inputs) > 1 and isinstance(value, dict) else value
        if spec.image is not None:
            of_picture = pixels_of(part)
            pixels += _UNTOLD if of_picture is None else min(of_picture, spec.image.max_pixels)  # others are refused
        elif spec.kind == "text" and isinstance(part, str):
            pixels += _OF_CHARACTER * len(part)
    return pixels


def _column(
    values: Sequence[Any],
    fields: Sequence[str],
    spec: InputSpec,
    manifest: Manifest,
    tokenizer: Tokenizer | None,
    floats: bool,
) -> tuple[Array, tuple[tuple[str, ...], ...]]:
    """The values of one input tensor as an array `[n, *axes]`, and what of each was folded."""
    if spec.record is not None:
        rows = [decode_record(value, spec.record, field=field) for value, field in zip(values, fields, strict=True)]
        return _stack([array for array, _ in rows], spec), tuple([folded for _, folded in rows])
    nothing = ((),) * len(values)
    if spec.kind == "image":
        return decode_images(values, spec, fields), nothing
    if spec.text is not None:
        if tokenizer is None:
            raise TypeError("the bundle reads texts, so its tokenizer is needed")
        size = spec.shape[0]
        found = [
            decode_text(value, spec.text, size, tokenizer, field=field)
            for value, field in zip(values, fields, strict=True)
        ]
        return _stack(found, spec), nothing
    return decode_tensors(values, spec, norm=manifest.limits.norm, fields=fields, floats=floats), nothing


def _stack(items: Sequence[Array], spec: InputSpec) -> Array:
    if not items:
        return np.zeros((0, *spec.shape), spec.dtype)
    return np.stack(items)
