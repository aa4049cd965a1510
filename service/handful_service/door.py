"""The door of the server: what every request passes before its route, and every answer after it.

Request ids, admission, the limit of bodies, deadlines, problem documents for whatever goes wrong, the access
log and metrics. A pure ASGI middleware.
"""

import asyncio
import logging
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from uuid import uuid4

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from . import errors
from .engine.calls import CALL, Call
from .metrics import Metrics
from .patience import Passage, Patience
from .problems import INTERNAL, METHOD_NOT_ALLOWED, RETRY_AFTER_S, body, problem_answer, problem_body, retry_after_s

log = logging.getLogger("handful.access")
crash_log = logging.getLogger("handful.crash")

CLIENT_GONE = 499

_REQUEST_ID = re.compile(rb"^[A-Za-z0-9._~:+/=-]{1,128}$")
_DEADLINE = re.compile(rb"^[0-9]{1,9}$")

_OFFLINE = b"default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:"
"""The pages about the API fetch nothing from elsewhere: ReDoc's script would load a logo from its makers' CDN."""


@dataclass(frozen=True, slots=True)
class DoorLimits:
    """What the door enforces."""

    max_body_bytes: int
    max_in_flight: int
    deadline_ms: int


class Door:
    """The middleware.

    Args:
        app: What lies behind.
        limits: What is enforced.
        metrics: Where requests are counted.
        exempt: Tells paths that are never refused for load, such as health checks.
    """

    def __init__(self, app: ASGIApp, limits: DoorLimits, metrics: Metrics, exempt: Callable[[str], bool]) -> None:
        self._app = app
        self._limits = limits
        self._metrics = metrics
        self._exempt = exempt
        self._in_flight = 0
        self._patience = Patience(limits.deadline_ms / 1000)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        # Nothing is given in parts, and Starlette refuses an odd range in plain text.
        scope["headers"] = [pair for pair in scope["headers"] if pair[0] != b"range"]
        headers = dict(scope["headers"])
        started = time.monotonic()
        passage = Passage(_request_id(headers), started, Call(started + self._limits.deadline_ms / 1000))
        scope.setdefault("state", {})["request_id"] = passage.request_id
        token = CALL.set(passage.call)
        self._in_flight += 1
        self._metrics.in_flight.inc()
        try:
            await self._pass(scope, receive, _sender(send, passage), passage, headers)
        finally:
            CALL.reset(token)
            self._patience.finish(passage)
            self._in_flight -= 1
            self._metrics.in_flight.dec()
            self._record(scope, passage)

    async def _pass(
        self, scope: Scope, receive: Receive, send: Send, passage: Passage, headers: dict[bytes, bytes]
    ) -> None:
        retry_s = RETRY_AFTER_S
        try:
            self._admit(scope, headers)
            self._patience.begin(passage, self._own_deadline_s(headers), receive)
            try:
                await self._app(scope, _limited(receive, self._limits.max_body_bytes, passage), send)
            except asyncio.CancelledError:
                passage.explain()
                raise
        except errors.HandfulError as error:
            problem, retry_s = problem_body(error), retry_after_s(error)
        except ClientDisconnect:
            passage.status = CLIENT_GONE  # for the log and the metrics: nobody is left to answer
            return
        except Exception:  # the last resort: the text goes to the log only
            crash_log.exception("request failed", extra={"request_id": passage.request_id})
            problem = body(INTERNAL, "an error that is the server's own; the log has it under the request id")
        else:
            return
        if not passage.answered:
            status, told, content = problem_answer(problem, passage.request_id, retry_s)
            pairs = [(name.encode("ascii"), value.encode("ascii")) for name, value in told.items()]
            await send({"type": "http.response.start", "status": status, "headers": pairs})
            await send({"type": "http.response.body", "body": content})

    def _admit(self, scope: Scope, headers: dict[bytes, bytes]) -> None:
        if self._in_flight > self._limits.max_in_flight and not self._exempt(scope["path"]):
            raise errors.Overloaded(f"{self._in_flight} calls are at work", allowed=f"{self._limits.max_in_flight}")
        length = headers.get(b"content-length", b"")
        if length.isdigit() and int(length) > self._limits.max_body_bytes:
            raise _too_large(int(length), self._limits.max_body_bytes)

    def _own_deadline_s(self, headers: dict[bytes, bytes]) -> float | None:
        value = headers.get(b"x-deadline-ms")
        if value is None:
            return None
        if not _DEADLINE.match(value) or not 1 <= int(value) <= self._limits.deadline_ms:
            raise errors.RequestInvalid(
                "is not a number of milliseconds in range",
                field="X-Deadline-Ms",
                allowed=f"1 to {self._limits.deadline_ms}",
            )
        return int(value) / 1000

    def _record(self, scope: Scope, passage: Passage) -> None:
        seconds = time.monotonic() - passage.started
        route = getattr(scope.get("route"), "path", None) or "unmatched"
        # Only methods that a route has are labels: others are the client's invention, without end.
        known = route != "unmatched" and passage.status != METHOD_NOT_ALLOWED.status
        self._metrics.answered(scope["method"] if known else "any", route, passage.status, seconds)
        if not log.isEnabledFor(logging.INFO):
            return
        log.info(
            "request",
            extra={
                "request_id": passage.request_id,
                "method": scope["method"],
                "route": route,
                "status": passage.status,
                "ms": round(1000 * seconds, 2),
            },
        )


def _request_id(headers: dict[bytes, bytes]) -> str:
    given = headers.get(b"x-request-id", b"")
    return given.decode("ascii") if _REQUEST_ID.match(given) else uuid4().hex


def _sender(send: Send, passage: Passage) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            passage.answered = True
            passage.status = message["status"]
            more = [(b"x-request-id", passage.request_id.encode("ascii"))]
            if any(name == b"content-type" and value.startswith(b"text/html") for name, value in message["headers"]):
                more.append((b"content-security-policy", _OFFLINE))
            message["headers"] = [*message["headers"], *more]
        await send(message)

    return sending


def _limited(receive: Receive, limit: int, passage: Passage) -> Receive:
    received = 0

    async def receiving() -> Message:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        if received > limit:
            raise _too_large(received, limit)
        passage.complete = not message.get("more_body", False)
        return message

    return receiving


def _too_large(size: int, limit: int) -> errors.TooLarge:
    return errors.TooLarge(f"has {size} bytes or more", field="body", allowed=f"at most {limit} bytes")
