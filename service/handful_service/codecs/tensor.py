"""Tensors in JSON: nested lists, or `{"dtype", "shape", "b64"}` of little-endian bytes; and those that are arrays."""

import base64
import binascii
import math
import struct
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import chain
from typing import Any

import numpy as np

from ..bundle.inputs import InputSpec
from ..errors import InputInvalid
from ..task import Array
from .kinds import kind_of

MAX_AXES = 32
"""More than any model takes, fewer than numpy refuses."""

_KEYS = {"dtype", "shape", "b64"}


def decode_tensors(
    values: Sequence[Any], spec: InputSpec, *, norm: float | None, fields: Sequence[str], floats: bool = False
) -> Array:
    """The array of some items, `[n, *axes]` of the declared dtype.

    Args:
        values: What stood in the request for each item, or an array `[n, *axes]`: the request's bytes.
        spec: The input's declaration.
        norm: The largest Euclidean norm of an item allowed, if any.
        fields: The place of each item in the request, for messages.
        floats: Whether it is sure that all items are lists of finite floats, so that there is less to look at.

    Raises:
        InputInvalid: not a tensor of the declared dtype and shape, not finite, or beyond the norm.
    """
    shape = spec.shape
    array = _packed(values, spec, shape) if floats else None
    if array is None:
        array = _looked_at(values, spec, shape, fields)
    if norm is not None and len(array):
        _check_norms(array, norm, fields)
    return array


def _packed(values: Sequence[Any], spec: InputSpec, shape: tuple[int, ...]) -> Array | None:
    """Lists of finite floats in one go; None where there are too few or too many, or a float32 does not hold one.

    `struct` takes less time than numpy, and refuses what is too large.
    """
    flat = _flat(values, spec, shape)
    if not flat:
        return None
    try:
        content = _packer(len(flat))(*flat)
    except OverflowError:
        return None
    return np.frombuffer(content, "<f4").reshape(len(values), *shape)


@lru_cache(maxsize=256)
def _packer(count: int) -> Callable[..., bytes]:
    """Packs so many floats, and refuses one that is too large, which it does in an order that is named only."""
    return struct.Struct(f"<{count}f").pack


def _looked_at(values: Sequence[Any], spec: InputSpec, shape: tuple[int, ...], fields: Sequence[str]) -> Array:
    """Items of any kind, looked at one by one where they are not all lists of floats."""
    with np.errstate(over="ignore", invalid="ignore"):  # what becomes infinite is refused below
        array = _floats(values, spec, shape)
        if array is None:
            rows = [_row(value, spec, shape, field) for value, field in zip(values, fields, strict=True)]
            array = np.stack(rows)
        sure = _surely_finite(array)
    if not sure and not np.isfinite(array).all():
        finite = np.isfinite(array).reshape(len(array), -1).all(axis=1)
        field = fields[int(finite.argmin())]
        raise InputInvalid("holds a value that is not finite", field=field, allowed="finite numbers")
    return array


def _surely_finite(array: Array) -> bool:
    """Whether a sum of squares is finite: it is told in one go, where `isfinite` takes two."""
    if array.dtype.kind != "f" or not array.flags.c_contiguous:
        return False
    flat = array.reshape(-1)
    return math.isfinite(np.dot(flat, flat))


def _floats(values: Sequence[Any], spec: InputSpec, shape: tuple[int, ...]) -> Array | None:
    """An array, or lists of nothing but floats, as most items are, in one go; None where anything else is there."""
    if isinstance(values, np.ndarray):
        return values.astype(spec.dtype, copy=False)
    if not values:
        return np.zeros((0, *shape), spec.dtype)
    flat = _flat(values, spec, shape)
    return np.array(flat, np.float32).reshape(-1, *shape) if flat and set(map(type, flat)) == {float} else None


def _flat(values: Sequence[Any], spec: InputSpec, shape: tuple[int, ...]) -> list[Any] | None:
    """What stands in lists of the right length, one after the other; None where these are not all there is."""
    if isinstance(values, np.ndarray) or spec.dtype != "float32" or len(shape) != 1:
        return None
    for value in values:
        if type(value) is not list or len(value) != shape[0]:
            return None
    return values[0] if len(values) == 1 else list(chain.from_iterable(values))


def _row(value: Any, spec: InputSpec, shape: tuple[int, ...], field: str) -> Array:
    """An item of the declared shape and dtype."""
    if isinstance(value, np.ndarray):
        array: Array = value
    else:
        array = _from_bytes(value, shape, field) if isinstance(value, dict) else _from_lists(value, field)
    _check_shape(array.shape, shape, field)
    return _cast(array, spec, field)


def _check_norms(array: Array, norm: float, fields: Sequence[str]) -> None:
    norms = np.linalg.norm(array.reshape(len(array), -1).astype(np.float64), axis=1)
    for place in np.flatnonzero(norms > norm):
        raise InputInvalid(f"the norm is {norms[place]:.6g}", field=fields[int(place)], allowed=f"at most {norm:.6g}")


def _from_lists(value: Any, field: str) -> Array:
    if not isinstance(value, list | int | float) or isinstance(value, bool):
        raise InputInvalid(
            f"is {kind_of(value)}",
            field=field,
            allowed="nested lists of numbers, or {dtype, shape, b64}",
        )
    try:
        array = np.array(value)
        if not _leaf_kinds(value) <= {int, float}:
            raise InputInvalid("holds a value that is not a number", field=field, allowed="numbers only")
        return array if array.dtype.kind in "iuf" else np.array(value, np.float64)  # integers of more than 64 bits
    except OverflowError:
        raise InputInvalid("holds a number that is too large", field=field, allowed="finite numbers") from None
    except ValueError:
        raise InputInvalid("is a ragged list", field=field, allowed="nested lists of equal lengths") from None


def _leaf_kinds(value: Any) -> set[type]:
    """The types of what stands in nested lists: numpy reads true as 1, and the text of a number as that number."""
    if not isinstance(value, list):
        return {type(value)}
    kinds = set(map(type, value))
    if list in kinds:
        kinds.remove(list)
        kinds.update(*(_leaf_kinds(part) for part in value if isinstance(part, list)))
    return kinds


def _from_bytes(value: dict[str, Any], wanted: tuple[int, ...], field: str) -> Array:
    if value.keys() != _KEYS:
        raise InputInvalid(f"has the keys {sorted(value)}", field=field, allowed=f"{sorted(_KEYS)}")
    dtype, shape, text = value["dtype"], value["shape"], value["b64"]
    if dtype not in ("float32", "int64"):
        raise InputInvalid(f"dtype is {dtype!r}", field=f"{field}.dtype", allowed="float32 or int64")
    if not isinstance(shape, list) or not all(type(size) is int and 0 <= size < 2**31 for size in shape):
        raise InputInvalid("is not a list of sizes", field=f"{field}.shape", allowed="a list of integers")
    if len(shape) > MAX_AXES:
        raise InputInvalid(f"has {len(shape)} axes", field=f"{field}.shape", allowed=f"at most {MAX_AXES}")
    _check_shape(tuple(shape), wanted, f"{field}.shape")  # before numpy sees sizes that it cannot multiply
    try:
        content = base64.b64decode(text, validate=True)
    except (TypeError, ValueError, binascii.Error):
        raise InputInvalid("is not base64", field=f"{field}.b64", allowed="base64 of little-endian bytes") from None
    expected = int(np.prod(shape, dtype=object)) * np.dtype(dtype).itemsize
    if len(content) != expected:
        raise InputInvalid(f"holds {len(content)} bytes", field=f"{field}.b64", allowed=f"{expected} bytes")
    return np.frombuffer(content, np.dtype(dtype).newbyteorder("<")).reshape(shape)


def _check_shape(shape: tuple[int, ...], wanted: tuple[int, ...], field: str) -> None:
    if shape != wanted:
        raise InputInvalid(f"the shape is {list(shape)}", field=field, allowed=f"{list(wanted)}")


def _cast(array: Array, spec: InputSpec, field: str) -> Array:
    if spec.dtype == "float32":
        return array.astype(np.float32, copy=False)
    if array.dtype.kind == "f" or array.dtype == np.uint64:
        raise InputInvalid("holds a number that is no integer of 64 bits", field=field, allowed="int64")
    return array.astype(np.int64, copy=False)
