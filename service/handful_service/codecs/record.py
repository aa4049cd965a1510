"""Records in JSON: an object of the declared fields."""

import unicodedata
from typing import Any

import numpy as np

from ..bundle.records import CategoryField, NumberField, RecordField, RecordOptions
from ..errors import InputInvalid
from ..task import Array
from .kinds import kind_of

MAX_RAW_CHARACTERS = 1024
"""Of a category; normalising a long run of combining marks takes quadratic time."""

NAMED = 8
"""Names that a refusal lists."""


def decode_record(value: Any, options: RecordOptions, *, field: str) -> tuple[Array, tuple[str, ...]]:
    """The array of one record, float32 `[fields]`, and the fields whose category was folded to «other».

    Args:
        value: What stood in the request.
        options: The fields, in order.
        field: The place in the request, for messages.

    Raises:
        InputInvalid: not an object; a field is unknown, or missing without a default; a value has another type, is out
            of range, or is a category that is refused.
    """
    if not isinstance(value, dict):
        raise InputInvalid(
            f"is {kind_of(value)}", field=field, allowed=f"an object of the fields {_some(options.names)}"
        )
    for key in value.keys() - set(options.names):
        raise InputInvalid(f"has an unknown field {key!r:.80}", field=field, allowed=_some(options.names))
    numbers, folded = [], []
    for spec in options.fields:
        number = _read(value, spec, f"{field}.{spec.name}")
        numbers.append(number)
        if isinstance(spec, CategoryField) and number == len(spec.categories):
            folded.append(spec.name)
    return np.array(numbers, np.float32), tuple(folded)


def _read(record: dict[str, Any], spec: RecordField, place: str) -> float:
    if spec.name not in record:
        if spec.default is None:
            raise InputInvalid("missing", field=place, allowed=_allowed(spec))
        return spec.default if isinstance(spec, NumberField) else spec.categories.index(spec.default)
    value = record[spec.name]
    return _number(value, spec, place) if isinstance(spec, NumberField) else _category(value, spec, place)


def _number(value: Any, spec: NumberField, place: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputInvalid(f"is {kind_of(value)}", field=place, allowed=_allowed(spec))
    if not spec.holds(value):
        raise InputInvalid(f"is {value!r:.40}", field=place, allowed=_allowed(spec))
    return float(value)


def _category(value: Any, spec: CategoryField, place: str) -> int:
    """The index of a category; the one after the last for one that is folded."""
    if not isinstance(value, str):
        raise InputInvalid(f"is {kind_of(value)}", field=place, allowed=_allowed(spec))
    if len(value) <= MAX_RAW_CHARACTERS:
        value = unicodedata.normalize("NFC", value)
    if value in spec.categories:
        return spec.categories.index(value)
    if spec.unseen == "refuse":
        raise InputInvalid(f"is {value!r:.80}", field=place, allowed=_allowed(spec))
    return len(spec.categories)


def _allowed(spec: RecordField) -> str:
    if isinstance(spec, CategoryField):
        return f"a string: one of {_some(spec.categories)}" if spec.unseen == "refuse" else "a string"
    low = "" if spec.minimum is None else f" from {spec.minimum:g}"
    high = "" if spec.maximum is None else f" up to {spec.maximum:g}"
    return f"a number{low}{high}"


def _some(names: Any) -> str:
    more = f", and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"{list(names[:NAMED])}{more}"
