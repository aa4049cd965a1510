"""What the routes share: the service behind them, ids in paths, preconditions, problem answers in OpenAPI."""

import re
from typing import Annotated, Any

from fastapi import Depends, Path, Query, Request

from ..assembly import Service
from ..auth import caller
from ..errors import NotReady, RequestInvalid
from ..predictor.changes import Precondition
from ..predictor.models import VersionRef
from ..problems import MEDIA_TYPE
from ..schemas import ID, ProblemDocument
from ..task import Caller

_ETAG = re.compile(r'^"([1-9][0-9]{0,17})"$')


def service(request: Request) -> Service:
    """The running service.

    Raises:
        NotReady: its bundles are still being checked, or it drains.
    """
    running: Service | None = request.app.state.service
    if running is None:
        raise NotReady("the bundles are being loaded and checked")
    return running


def precondition(request: Request) -> Precondition:
    """What `If-Match` and `If-None-Match` ask for.

    Raises:
        RequestInvalid: a header is none of what is understood.
    """
    match, none_match = request.headers.get("if-match"), request.headers.get("if-none-match")
    if match is not None and none_match is not None:
        raise RequestInvalid("stands beside If-None-Match", field="If-Match", allowed="one of the two")
    if none_match is not None:
        if none_match.strip() != "*":
            raise RequestInvalid(f"is {none_match!r}", field="If-None-Match", allowed="*")
        return Precondition(exists=False)
    if match is None or match.strip() == "*":
        return Precondition(exists=None if match is None else True)
    found = _ETAG.match(match.strip())
    if not found:
        raise RequestInvalid(f"is {match!r}", field="If-Match", allowed='* or an ETag such as "7"')
    return Precondition(revision=int(found[1]))


def etag(revision: int) -> str:
    """The ETag of an adaptation's revision."""
    return f'"{revision}"'


def version(
    version: Annotated[
        str | None, Query(max_length=64, description="A number, or a label such as `stable`; default: the newest.")
    ] = None,
) -> VersionRef:
    """The version that a query names."""
    return int(version) if version is not None and version.isascii() and version.isdigit() else version


ServiceDep = Annotated[Service, Depends(service)]
CallerDep = Annotated[Caller, Depends(caller)]
PreconditionDep = Annotated[Precondition, Depends(precondition)]
VersionDep = Annotated[VersionRef, Depends(version)]
ModelName = Annotated[str, Path(max_length=64, description="The model's name.")]
AdaptationId = Annotated[str, Path(pattern=ID, description="The adaptation's id.")]
ExampleId = Annotated[str, Path(pattern=ID, description="The example's id.")]

PROBLEM_ANSWERS: dict[int | str, dict[str, Any]] = {
    "default": {
        "description": "What went wrong, and what to change.",
        "content": {MEDIA_TYPE: {"schema": {"$ref": f"#/components/schemas/{ProblemDocument.__name__}"}}},
    }
}
