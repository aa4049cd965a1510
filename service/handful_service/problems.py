"""Errors to RFC 9457 problem documents: the one table of HTTP statuses."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from starlette.responses import Response

from . import errors

MEDIA_TYPE = "application/problem+json"
TYPE_PREFIX = "urn:handful:problem:"
RETRY_AFTER_S = 1

_json = json.JSONEncoder(ensure_ascii=False).encode


@dataclass(frozen=True, slots=True)
class Problem:
    """How one class of error is told."""

    status: int
    slug: str
    title: str


PROBLEMS: Mapping[type[errors.HandfulError], Problem] = {
    errors.NotHttp: Problem(400, "not-http", "This is no HTTP request"),
    errors.NotJson: Problem(400, "not-json", "The body is not JSON"),
    errors.RequestInvalid: Problem(422, "request-invalid", "The request breaks the schema"),
    errors.InputInvalid: Problem(422, "input-invalid", "An input cannot be read"),
    errors.SignatureMismatch: Problem(422, "signature-mismatch", "A tensor does not fit the model"),
    errors.SupportSetInvalid: Problem(422, "support-set-invalid", "The support set breaks a limit"),
    errors.LabelUnknown: Problem(422, "label-unknown", "A label is not in the model's list"),
    errors.NotAccepted: Problem(422, "not-accepted", "The model does not take this"),
    errors.TooLarge: Problem(413, "too-large", "Something is larger than its limit"),
    errors.UnsupportedMedia: Problem(415, "unsupported-media", "The body is of another type"),
    errors.Unauthenticated: Problem(401, "unauthenticated", "An API key is needed"),
    errors.Forbidden: Problem(403, "forbidden", "The API key may not do this"),
    errors.ModelNotFound: Problem(404, "model-not-found", "No such model or version"),
    errors.AdaptationNotFound: Problem(404, "adaptation-not-found", "No such adaptation"),
    errors.ExampleNotFound: Problem(404, "example-not-found", "No such example"),
    errors.TaskNotFound: Problem(404, "task-not-found", "No such task"),
    errors.NotFound: Problem(404, "not-found", "Nothing is here"),
    errors.EventConflict: Problem(409, "event-conflict", "The event id stands for another change"),
    errors.TaskConflict: Problem(409, "task-conflict", "The adaptation is not in the needed state"),
    errors.PreconditionFailed: Problem(412, "precondition-failed", "The revision is another"),
    errors.Overloaded: Problem(503, "overloaded", "Too much is waiting"),
    errors.NotReady: Problem(503, "not-ready", "The server is not ready"),
    errors.DeadlineExceeded: Problem(504, "deadline-exceeded", "The answer was not ready in time"),
    errors.KeysInvalid: Problem(500, "keys-invalid", "The file of API keys is not valid"),
    errors.BundleError: Problem(500, "bundle-invalid", "A bundle is not valid"),
}
METHOD_NOT_ALLOWED = Problem(405, "method-not-allowed", "The resource has no such method")
INTERNAL = Problem(500, "internal", "The server failed")


def problem_of(error: errors.HandfulError) -> Problem:
    """The problem of an error: that of its class, or of the nearest class above it."""
    for kind in type(error).__mro__:
        if kind in PROBLEMS:
            return PROBLEMS[kind]
    return INTERNAL


def problem_body(error: errors.HandfulError) -> dict[str, Any]:
    """The members of an error's problem document, without the request's id."""
    place = {"field": error.field, "detail": error.detail, "allowed": error.allowed}
    return {
        **body(problem_of(error), explained(error)),
        "errors": [{key: value for key, value in place.items() if value is not None}],
    }


def explained(error: BaseException) -> str:
    """What is wrong, and what would have been accepted, in one line."""
    allowed = error.allowed if isinstance(error, errors.HandfulError) else None
    return f"{error} (allowed: {allowed})" if allowed else str(error)


def body(problem: Problem, detail: str) -> dict[str, Any]:
    """The members that every problem document has."""
    return {"type": TYPE_PREFIX + problem.slug, "title": problem.title, "status": problem.status, "detail": detail}


def retry_after_s(error: errors.HandfulError) -> int:
    """Whole seconds after which to try again: until what waits is done, where that is known."""
    known = error.retry_after_s if isinstance(error, errors.Overloaded) else None
    return max(RETRY_AFTER_S, math.ceil(known or 0))


def problem_answer(
    members: Mapping[str, Any], request_id: str, retry_s: int = RETRY_AFTER_S
) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and content of the answer that a problem document is."""
    status = int(members["status"])
    headers = {"retry-after": str(retry_s)} if status in (429, 503) else {}
    if status == 401:
        headers["www-authenticate"] = "Bearer"
    content = _json({**members, "request_id": request_id}).encode("utf-8", "replace")
    return status, headers | {"content-length": str(len(content)), "content-type": MEDIA_TYPE}, content


def problem_response(members: Mapping[str, Any], request_id: str, retry_s: int = RETRY_AFTER_S) -> Response:
    """A problem document as a response."""
    status, headers, content = problem_answer(members, request_id, retry_s)
    return Response(content, status, headers, MEDIA_TYPE)
