"""What the routes share: the service behind them, ids in paths, preconditions, problem answers in OpenAPI."""

import re
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from fastapi import Depends, Header, Path, Query, Request

from ..answers import ProblemDocument
from ..assembly import Service
from ..auth import Guard
from ..engine.calls import CALL, identify
from ..errors import NotReady, RequestInvalid
from ..predictor.changes import Precondition
from ..predictor.models import VersionRef
from ..problems import MEDIA_TYPE
from ..task import ID, Caller, Scope

MAX_MODEL_NAME = 64
LOADING = "the bundles are being loaded and checked"

_ETAG = re.compile(r'^"([1-9][0-9]{0,17})"$')


async def service(request: Request) -> Service:
    """The running service.

    Raises:
        NotReady: its bundles are still being checked, or it drains.
    """
    running: Service | None = request.app.state.service
    if running is None:
        raise NotReady(LOADING)
    return running


def caller_with(scope: Scope | None) -> Callable[[Request], Awaitable[Caller]]:
    """A dependency that gives the caller, who has a scope; routes name it first, before anything else is looked at.

    Like all dependencies here it gives a coroutine: FastAPI runs plain functions in threads, a hop each.
    """

    async def caller(request: Request) -> Caller:
        guard: Guard = request.app.state.guard
        found = guard.caller(request.scope["headers"], scope)
        identify(CALL.get(), found.tenant, learns=scope == "adapt")
        return found

    return caller


async def precondition(
    if_match: Annotated[str | None, Header(description='The ETag that must be current, such as `"7"`, or `*`.')] = None,
    if_none_match: Annotated[str | None, Header(description="`*`: it must not exist yet.")] = None,
) -> Precondition:
    """What `If-Match` and `If-None-Match` ask for.

    Raises:
        RequestInvalid: a header is none of what is understood.
    """
    if if_match is not None and if_none_match is not None:
        raise RequestInvalid("stands beside If-None-Match", field="If-Match", allowed="one of the two")
    if if_none_match is not None:
        if if_none_match.strip() != "*":
            raise RequestInvalid(f"is {if_none_match!r}", field="If-None-Match", allowed="*")
        return Precondition(exists=False)
    if if_match is None or if_match.strip() == "*":
        return Precondition(exists=None if if_match is None else True)
    found = _ETAG.match(if_match.strip())
    if not found:
        raise RequestInvalid(f"is {if_match!r}", field="If-Match", allowed='* or an ETag such as "7"')
    return Precondition(revision=int(found[1]))


def etag(revision: int) -> str:
    """The ETag of an adaptation's revision."""
    return f'"{revision}"'


async def version(
    version: Annotated[
        str | None, Query(max_length=64, description="A number, or a label such as `stable`; default: the newest.")
    ] = None,
) -> VersionRef:
    """The version that a query names."""
    return int(version) if version is not None and version.isascii() and version.isdigit() else version


async def deadline(
    x_deadline_ms: Annotated[
        str | None, Header(description="Milliseconds that the caller waits; the door holds calls to it.")
    ] = None,
) -> None:
    """Names the header in the API's pages; `door.py` reads it, before any route."""


ServiceDep = Annotated[Service, Depends(service)]
AnyCaller = Annotated[Caller, Depends(caller_with(None))]
PredictCaller = Annotated[Caller, Depends(caller_with("predict"))]
AdaptCaller = Annotated[Caller, Depends(caller_with("adapt"))]
AdminCaller = Annotated[Caller, Depends(caller_with("admin"))]
PreconditionDep = Annotated[Precondition, Depends(precondition)]
VersionDep = Annotated[VersionRef, Depends(version)]
ModelName = Annotated[str, Path(max_length=MAX_MODEL_NAME, description="The model's name.")]
AdaptationId = Annotated[str, Path(pattern=ID, description="The adaptation's id.")]
ExampleId = Annotated[str, Path(pattern=ID, description="The example's id.")]

PROBLEM_ANSWERS: dict[int | str, dict[str, Any]] = {
    "default": {
        "description": "What went wrong, and what to change.",
        "content": {MEDIA_TYPE: {"schema": {"$ref": f"#/components/schemas/{ProblemDocument.__name__}"}}},
    }
}
