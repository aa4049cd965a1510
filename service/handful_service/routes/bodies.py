"""Request bodies: decoded once from the raw bytes and fully validated; failures name the place and what is allowed."""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic.json_schema import models_json_schema
from starlette.requests import Request

from ..errors import HandfulError, NotJson, RequestInvalid, UnsupportedMedia

B = TypeVar("B", bound=BaseModel)

_UNION_BRANCHES = frozenset({"int", "str", "constrained-int", "constrained-str"})


def json_body(kind: type[B]) -> Callable[[Request], Awaitable[B]]:
    """A dependency that gives the request's body as a wire model.

    The dependency raises:
        UnsupportedMedia: the content type is not JSON.
        NotJson: the body is not a JSON document.
        RequestInvalid: it breaks the model.
    """

    async def parse(request: Request) -> B:
        check_json(request.headers.get("content-type", ""))
        return parsed(kind, await request.body())

    return parse


def check_json(content_type: str) -> None:
    """Refuse a content type that is not JSON.

    Raises:
        UnsupportedMedia: it is another.
    """
    media = media_type(content_type)
    if not is_json(media):
        raise UnsupportedMedia(f"the content type is {media!r}", field="Content-Type", allowed="application/json")


def is_json(media: str) -> bool:
    """Whether a media type is one of JSON."""
    return media == "application/json" or media.endswith("+json")


def media_type(content_type: str) -> str:
    """The type that a `Content-Type` header names, without its parameters, in lower case."""
    return content_type.partition(";")[0].strip().lower()


def parsed(kind: type[B], content: bytes) -> B:
    """A wire model of the raw bytes of a body.

    Raises:
        NotJson: it is not a JSON document.
        RequestInvalid: it breaks the model.
    """
    try:
        return kind.model_validate_json(content)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)
        raise unknown_key(kind, found) or invalid(found) from None


def unknown_key(kind: type[BaseModel], found: Sequence[Any]) -> HandfulError | None:
    """The error of a key that there is not, if pydantic found one: it may be why another is missing."""
    for error in found:
        if error["type"] == "extra_forbidden":
            *path, key = error["loc"]
            allowed = ", ".join(_model_at(kind, path).model_fields)
            return RequestInvalid(f"unknown key {key!r}", field=place(path), allowed=allowed)
    return None


def _model_at(kind: type[BaseModel], path: Sequence[str | int]) -> type[BaseModel]:
    """The wire model at a place in a body."""
    for part in path:
        field = kind.model_fields.get(part) if isinstance(part, str) else None
        kind = next(_models_in(field.annotation), kind) if field is not None else kind
    return kind


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """The models of an annotation such as `list[Model] | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _models_in(inner)


def invalid(found: Sequence[Any]) -> HandfulError:
    """The error of what pydantic found, the first of it."""
    first = found[0]
    if first["type"] == "json_invalid":
        return NotJson(first["ctx"]["error"], field="body", allowed="a JSON document in UTF-8")
    allowed = first.get("ctx", {}).get("allowed")
    return RequestInvalid(first["msg"], field=place(first["loc"]), allowed=allowed)


def place(path: Sequence[str | int]) -> str:
    """A place in a body as people write it: `support[3].label`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        elif part not in _UNION_BRANCHES and "[" not in part and not part.startswith("function-"):
            text += f".{part}" if text else part
    return text or "body"


def body_schema(kind: type[BaseModel]) -> dict[str, Any]:
    """What OpenAPI says of a route whose body is a wire model."""
    reference = {"$ref": f"#/components/schemas/{kind.__name__}"}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": reference}}}}


def add_schemas(document: dict[str, Any], kinds: Sequence[type[BaseModel]]) -> None:
    """Put the schemas that `body_schema` refers to into an OpenAPI document."""
    _, schemas = models_json_schema(
        [(kind, "validation") for kind in kinds], ref_template="#/components/schemas/{model}"
    )
    document.setdefault("components", {}).setdefault("schemas", {}).update(schemas["$defs"])


def add_security(document: dict[str, Any], *, open_paths: Sequence[str]) -> None:
    """Say in an OpenAPI document that calls take an API key, where the server has any, but for the open paths."""
    scheme = {"type": "http", "scheme": "bearer", "description": "Where the server has API keys."}
    document["components"]["securitySchemes"] = {"key": scheme}
    for path, item in document["paths"].items():
        for operation in item.values():
            if path not in open_paths:
                operation["security"] = [{"key": []}, {}]
