"""Tensors in JSON: nested lists, or `{"dtype", "shape", "b64"}` of little-endian bytes; and those that are arrays."""

import base64
import binascii
from typing import Any

import numpy as np

from ..bundle.inputs import InputSpec
from ..errors import InputInvalid
from ..task import Array

MAX_AXES = 32
"""More than any model takes, fewer than numpy refuses."""

_KEYS = {"dtype", "shape", "b64"}


def decode_tensor(value: Any, spec: InputSpec, *, norm: float | None, field: str) -> Array:
    """The array of one item, `[*axes]` of the declared dtype.

    Args:
        value: What stood in the request, or an array, where the request was the tensor's bytes.
        spec: The input's declaration.
        norm: The largest Euclidean norm allowed, if any.
        field: The place in the request, for messages.

    Raises:
        InputInvalid: not a tensor of the declared dtype and shape, not finite, or beyond the norm.
    """
    if isinstance(value, np.ndarray):
        array: Array = value
    else:
        array = _from_bytes(value, spec, field) if isinstance(value, dict) else _from_lists(value, field)
    _check_shape(array.shape, spec, field)
    array = _cast(array, spec, field)
    if not np.isfinite(array).all():
        raise InputInvalid("holds a value that is not finite", field=field, allowed="finite numbers")
    if norm is not None and (found := float(np.linalg.norm(array.astype(np.float64)))) > norm:
        raise InputInvalid(f"the norm is {found:.6g}", field=field, allowed=f"at most {norm:.6g}")
    return array


def _from_lists(value: Any, field: str) -> Array:
    if not isinstance(value, list | int | float) or isinstance(value, bool):
        raise InputInvalid(
            f"is {type(value).__name__}",
            field=field,
            allowed="nested lists of numbers, or {dtype, shape, b64}",
        )
    try:
        array = np.array(value)
    except (ValueError, OverflowError):
        raise InputInvalid("is a ragged list", field=field, allowed="nested lists of equal lengths") from None
    if array.size and (array.dtype.kind not in "iuf" or _holds_bool(value)):
        raise InputInvalid("holds a value that is not a number", field=field, allowed="numbers only")
    return array


def _holds_bool(value: Any) -> bool:
    """Whether true or false stands among numbers, where numpy reads it as 1 or 0."""
    kinds = set(map(type, value)) if isinstance(value, list) else set()
    return bool in kinds or (list in kinds and any(map(_holds_bool, value)))


def _from_bytes(value: dict[str, Any], spec: InputSpec, field: str) -> Array:
    if value.keys() != _KEYS:
        raise InputInvalid(f"has the keys {sorted(value)}", field=field, allowed=f"{sorted(_KEYS)}")
    dtype, shape, text = value["dtype"], value["shape"], value["b64"]
    if dtype not in ("float32", "int64"):
        raise InputInvalid(f"dtype is {dtype!r}", field=f"{field}.dtype", allowed="float32 or int64")
    if not isinstance(shape, list) or not all(type(size) is int and 0 <= size < 2**31 for size in shape):
        raise InputInvalid("is not a list of sizes", field=f"{field}.shape", allowed="a list of integers")
    if len(shape) > MAX_AXES:
        raise InputInvalid(f"has {len(shape)} axes", field=f"{field}.shape", allowed=f"at most {MAX_AXES}")
    _check_shape(tuple(shape), spec, f"{field}.shape")  # before numpy sees sizes that it cannot multiply
    try:
        content = base64.b64decode(text, validate=True)
    except (TypeError, ValueError, binascii.Error):
        raise InputInvalid("is not base64", field=f"{field}.b64", allowed="base64 of little-endian bytes") from None
    expected = int(np.prod(shape, dtype=object)) * np.dtype(dtype).itemsize
    if len(content) != expected:
        raise InputInvalid(f"holds {len(content)} bytes", field=f"{field}.b64", allowed=f"{expected} bytes")
    return np.frombuffer(content, np.dtype(dtype).newbyteorder("<")).reshape(shape)


def _check_shape(shape: tuple[int, ...], spec: InputSpec, field: str) -> None:
    if shape != spec.shape:
        raise InputInvalid(f"the shape is {list(shape)}", field=field, allowed=f"{list(spec.shape)}")


def _cast(array: Array, spec: InputSpec, field: str) -> Array:
    if spec.dtype == "int64":
        if array.dtype.kind == "f":
            raise InputInvalid("holds fractions", field=field, allowed="int64")
        if array.dtype == np.uint64:
            raise InputInvalid("holds a number that is too large", field=field, allowed="int64")
        return array.astype(np.int64)
    with np.errstate(over="ignore"):
        return array.astype(np.float32)
