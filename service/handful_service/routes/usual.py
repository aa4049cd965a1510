"""Predict calls as most of them are: inputs of one task, read in one go, which costs less than the wire model.

What is read here is a part of what `schemas.PredictRequest` reads, and means the same; the tests hold the two to that.
Everything else, and whatever is wrong, is the wire model's, which says what is wrong.
"""

from collections.abc import Callable
from typing import Annotated, Any

import msgspec

from ..predictor.models import Usual
from ..predictor.refs import Ask, Base, ByAdaptation, ByTask, Named, TaskRef
from ..task import ID

_Id = Annotated[str, msgspec.Meta(pattern=ID.removesuffix("$") + r"\Z")]
_SOME = msgspec.Meta(min_length=1)


class _Task(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """A known task."""

    id: _Id


class _Call(msgspec.Struct, forbid_unknown_fields=True, gc=False, kw_only=True):
    """A call, all of whose inputs are of one task."""

    inputs: list[Any]
    adaptation: _Id | None = None
    task: _Task | None = None
    support: msgspec.Raw = msgspec.Raw()


class _Numbers(_Call, forbid_unknown_fields=True, gc=False, kw_only=True):
    inputs: Annotated[list[list[float]], _SOME]


class _Strings(_Call, forbid_unknown_fields=True, gc=False, kw_only=True):
    inputs: Annotated[list[str], _SOME]


class _Support(msgspec.Struct, gc=False):
    """A call with a support set."""

    support: msgspec.Raw


_DECODERS = {"numbers": msgspec.json.Decoder(_Numbers).decode, "strings": msgspec.json.Decoder(_Strings).decode}
_decode_support = msgspec.json.Decoder(_Support).decode

_NOT_READ = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

_FIELDS = tuple(f"inputs[{place}]" for place in range(64))
"""The places of the first inputs of a request: most calls have no more."""


def fields_of(count: int) -> tuple[str, ...]:
    """The places of so many inputs in a request."""
    return _FIELDS[:count] if count <= len(_FIELDS) else tuple(f"inputs[{place}]" for place in range(count))


def usual_ask(content: bytes, usual: Usual, most: int, recalled: Callable[[Ask, bytes], Ask | None]) -> Ask | None:
    """What the body of a usual call asks; None where it is another, or not valid.

    Args:
        content: The body.
        usual: What its inputs are.
        most: Inputs that a call may have.
        recalled: Tells an ask of inputs and a support set, as it stands in a body, which was read and learned before;
            None where it was not.
    """
    try:
        found = _DECODERS[usual](content)
    except _NOT_READ:
        return None
    count = len(found.inputs)
    given = (found.adaptation is not None) + (found.task is not None) + bool(found.support)
    if count > most or given > 1:
        return None
    task: TaskRef
    if found.adaptation is not None:
        task = ByAdaptation(found.adaptation)
    elif found.task is not None:
        task = ByTask((Named(found.task.id),))
    else:
        task = Base("support")
    ask = Ask(found.inputs, fields_of(count), task, floats=usual == "numbers")
    return recalled(ask, bytes(found.support)) if found.support else ask


def support_in(content: bytes) -> bytes | None:
    """The support set as it stands in the body of a valid call that has one; None where no usual call can have it."""
    try:
        return bytes(_decode_support(content).support)
    except _NOT_READ:  # such as a NaN, which the wire model lets through for the codecs to refuse
        return None
