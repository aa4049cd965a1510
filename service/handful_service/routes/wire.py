"""A predict call off the wire: a JSON document, or the bytes of one tensor whose task the query names."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

import numpy as np
from pydantic import ValidationError

from ..bundle.inputs import InputSpec
from ..bundle.manifest import Manifest
from ..errors import InputInvalid, RequestInvalid, TooLarge, UnsupportedMedia
from ..schemas import PredictRequest
from ..task import Array
from .bodies import body_schema, is_json, media_type

JSON = "application/json"
TENSOR = "application/octet-stream"

QUERY: Mapping[str, str] = {
    "task": "Beside a tensor: the id of a known task.",
    "adaptation": "Beside a tensor: the id of a stored adaptation.",
    "version": "Beside a tensor: a number, or a label such as `stable`; default: the newest.",
}


@dataclass(slots=True)
class Wire:
    """What a call says beside its path.

    Attributes:
        content_type: The header as it came.
        query: Of the URL, as it came.
        content: The body.
    """

    content_type: str
    query: bytes
    content: bytes


def check_media(content_type: str) -> None:
    """Refuse a body that is neither JSON nor a tensor.

    Raises:
        UnsupportedMedia: it is another.
    """
    if content_type == JSON:
        return
    media = media_type(content_type)
    if not is_json(media) and media != TENSOR:
        raise UnsupportedMedia(
            f"the content type is {media!r}",
            field="Content-Type",
            allowed=f"application/json, or {TENSOR} for a tensor",
        )


def is_tensor(content_type: str) -> bool:
    """Whether a body is the bytes of a tensor."""
    return content_type != JSON and (content_type == TENSOR or media_type(content_type) == TENSOR)


def check_query(query: bytes) -> None:
    """Refuse what the query of a call says that has a JSON body.

    Raises:
        RequestInvalid: it names a task or a version.
    """
    for name, _ in _pairs(query):
        if name in QUERY:
            raise RequestInvalid("stands beside a JSON body", field=f"query.{name}", allowed="the same key in the body")


def predict_schema() -> dict[str, Any]:
    """What OpenAPI says of the body and of the query."""
    schema = body_schema(PredictRequest)
    schema["requestBody"]["content"][TENSOR] = {
        "schema": {
            "type": "string",
            "format": "binary",
            "description": "Rows `[n, *axes]`, one or more, of the model's one input, of kind `tensor`: its declared "
            "dtype, little-endian, in C order.",
        }
    }
    text = {"type": "string", "maxLength": 128}
    schema["parameters"] = [
        {"name": name, "in": "query", "required": False, "schema": text, "description": description}
        for name, description in QUERY.items()
    ]
    return schema


_NOTHING = PredictRequest()


def request_of_query(query: bytes) -> PredictRequest:
    """A request without inputs: the task and the version that the query of a tensor names.

    Raises:
        RequestInvalid: it says something else.
    """
    if not query:
        return _NOTHING
    given: dict[str, Any] = {}
    for name, value in _pairs(query):
        if name not in QUERY:
            raise RequestInvalid(f"unknown key {name!r}", field="query", allowed=", ".join(QUERY))
        if name in given:
            raise RequestInvalid("stands there twice", field=f"query.{name}", allowed="once")
        given[name] = value
    if "task" in given:
        given["task"] = {"id": given["task"]}
    if (version := given.get("version", "")).isascii() and version.isdigit():
        given["version"] = int(version) if len(version) < 10 else 0
    try:
        return PredictRequest.model_validate(given)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise RequestInvalid(first["msg"], field=f"query.{first['loc'][0]}") from None


def _pairs(query: bytes) -> list[tuple[str, str]]:
    try:
        return parse_qsl(query.decode("ascii"), keep_blank_values=True, errors="strict")
    except ValueError:
        raise RequestInvalid("is not percent-encoded UTF-8", field="query", allowed="percent-encoded UTF-8") from None


def _spec(manifest: Manifest) -> InputSpec:
    """The one input of a model, where it is a tensor.

    Raises:
        UnsupportedMedia: the model takes something else.
    """
    specs = list(manifest.inputs.values())
    if len(specs) != 1 or specs[0].kind != "tensor":
        takes = " and ".join(f"{name} of kind {spec.kind}" for name, spec in manifest.inputs.items())
        raise UnsupportedMedia(f"the model takes {takes}", field="Content-Type", allowed="application/json")
    return specs[0]


def rows_of_tensor(content: bytes, manifest: Manifest, most: int) -> Array:
    """The rows of a tensor, `[n, *axes]`.

    Raises:
        UnsupportedMedia: the model takes something else.
        InputInvalid: the bytes are not those of some rows.
        TooLarge: there are more rows than a call may have.
    """
    spec = _spec(manifest)
    dtype = np.dtype(spec.dtype).newbyteorder("<")
    size = math.prod(spec.shape) * dtype.itemsize
    count, rest = divmod(len(content), size)
    if rest or not count:
        what = f"{spec.dtype} of shape {list(spec.shape)}"
        raise InputInvalid(f"has {len(content)} bytes", field="body", allowed=f"{size} bytes for each row: {what}")
    if count > most:
        raise TooLarge(f"has {count} rows", field="body", allowed=f"at most {most}")
    rows: Array = np.frombuffer(content, dtype).reshape(count, *spec.shape)
    return rows
