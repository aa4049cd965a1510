"""Predict calls as most of them are: numbers of one task, read in one go, which costs less than the wire model.

What is read here is a part of what `schemas.PredictRequest` reads, and means the same; the tests hold the two to that.
Everything else, and whatever is wrong, is the wire model's, which says what is wrong.
"""

from typing import Annotated

import msgspec

from ..predictor.refs import Ask, Base, ByAdaptation, ByTask, Named, TaskRef
from ..task import ID

_Id = Annotated[str, msgspec.Meta(pattern=ID.removesuffix("$") + r"\Z")]


class _Task(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """A known task."""

    id: _Id


class _Usual(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """A call: lists of numbers, all of one task."""

    inputs: Annotated[list[list[float]], msgspec.Meta(min_length=1)]
    adaptation: _Id | None = None
    task: _Task | None = None


_decode = msgspec.json.Decoder(_Usual).decode

_FIELDS = tuple(f"inputs[{place}]" for place in range(64))
"""The places of the first inputs of a request: most calls have no more."""


def fields_of(count: int) -> tuple[str, ...]:
    """The places of so many inputs in a request."""
    return _FIELDS[:count] if count <= len(_FIELDS) else tuple(f"inputs[{place}]" for place in range(count))


def usual_ask(content: bytes, most: int) -> Ask | None:
    """What the body of a usual call asks; None where it is another, or not valid.

    Args:
        content: The body.
        most: Inputs that a call may have.
    """
    try:
        found = _decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    count = len(found.inputs)
    if count > most or (found.adaptation is not None and found.task is not None):
        return None
    task: TaskRef
    if found.adaptation is not None:
        task = ByAdaptation(found.adaptation)
    elif found.task is not None:
        task = ByTask((Named(found.task.id),))
    else:
        task = Base("support")
    return Ask(found.inputs, fields_of(count), task, floats=True)
