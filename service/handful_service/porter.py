"""What every request passes and every answer after it, whoever takes it off the wire.

Request ids, admission, the limit of bodies, deadlines, problem documents for whatever goes wrong, the access log and
metrics.
"""

import asyncio
import itertools
import logging
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from secrets import token_hex
from typing import TypeVar

from starlette.requests import ClientDisconnect
from starlette.types import Receive

from . import errors
from .engine.calls import Call
from .metrics import Metrics
from .patience import Passage, Patience
from .problems import INTERNAL, METHOD_NOT_ALLOWED, RETRY_AFTER_S, body, problem_answer, problem_body, retry_after_s

log = logging.getLogger("handful.access")
crash_log = logging.getLogger("handful.crash")

CLIENT_GONE = 499
UNMATCHED = "unmatched"

T = TypeVar("T")
Headers = Mapping[bytes, bytes]
"""Of a request, by their names in lower case."""

_REQUEST_ID = re.compile(rb"^[A-Za-z0-9._~:+/=-]{1,128}$")
_DEADLINE = re.compile(rb"^[0-9]{1,9}$")
_PROCESS = token_hex(10)
_NUMBERS = itertools.count()
"""Of request ids that no client gave: counted behind what is random for the process, as that is cheaper."""


@dataclass(frozen=True, slots=True)
class DoorLimits:
    """What is enforced."""

    max_body_bytes: int
    max_in_flight: int
    deadline_ms: int


@dataclass(frozen=True, slots=True)
class Refusal:
    """A problem document as an answer."""

    status: int
    headers: list[tuple[bytes, bytes]]
    content: bytes


class Porter:
    """Lets requests in and out. One for a server, used from its event loop.

    Args:
        limits: What is enforced.
        metrics: Where requests are counted.
    """

    def __init__(self, limits: DoorLimits, metrics: Metrics) -> None:
        self.limits = limits
        self._metrics = metrics
        self._patience = Patience(limits.deadline_ms / 1000)

    def enter(self, headers: Headers) -> Passage:
        """A request that came; `leave` has to follow, however it goes."""
        started = time.monotonic()
        self._metrics.under_way += 1
        return Passage(_request_id(headers), started, Call(started + self.limits.deadline_ms / 1000))

    async def guard(
        self,
        passage: Passage,
        headers: Headers,
        work: Callable[[], Awaitable[T]],
        *,
        exempt: bool = False,
        receive: Receive | None = None,
    ) -> T | Refusal | None:
        """What the work gives, or a problem document; None where the client went, and nobody is left to answer.

        Args:
            passage: Of the request.
            headers: Of the request.
            work: Does it, in the current task.
            exempt: Whether it is never refused for load, as health checks are.
            receive: Where the client's going is told; None: whoever calls this tells the passage.
        """
        passage.task = asyncio.current_task()
        try:
            self.begin(passage, headers, exempt=exempt, receive=receive)
            return await self.finished(passage, work())
        except Exception as error:
            return self.refusal(passage, error)

    def begin(
        self, passage: Passage, headers: Headers, *, exempt: bool = False, receive: Receive | None = None
    ) -> None:
        """Let a request in, whose work begins now; see `guard`.

        Raises:
            HandfulError: it is refused.
        """
        self._admit(headers, exempt)
        self._patience.begin(passage, self._own_deadline_s(headers), receive)

    async def finished(self, passage: Passage, work: Awaitable[T]) -> T:
        """What work gives; where it was cancelled, the error that says why.

        Raises:
            DeadlineExceeded: it is overdue.
            ClientDisconnect: the client is gone.
        """
        try:
            return await work
        except asyncio.CancelledError:
            passage.explain()
            raise

    def refusal(self, passage: Passage, error: Exception) -> Refusal | None:
        """The answer to a request that failed; None where the client went."""
        retry_s = RETRY_AFTER_S
        if isinstance(error, ClientDisconnect):
            passage.status = CLIENT_GONE  # for the log and the metrics
            return None
        if isinstance(error, errors.HandfulError):
            problem, retry_s = problem_body(error), retry_after_s(error)
        else:  # the last resort: the text goes to the log only
            crash_log.error("request failed", extra={"request_id": passage.request_id}, exc_info=error)
            problem = body(INTERNAL, "an error that is the server's own; the log has it under the request id")
        status, told, content = problem_answer(problem, passage.request_id, retry_s)
        return Refusal(status, [(name.encode("ascii"), text.encode("ascii")) for name, text in told.items()], content)

    def leave(self, passage: Passage, method: str, route: str) -> None:
        """Count and log a request that is over."""
        self._patience.finish(passage)
        self._metrics.under_way -= 1
        seconds = time.monotonic() - passage.started
        # Only methods that a route has are labels: others are the client's invention, without end.
        known = route != UNMATCHED and passage.status != METHOD_NOT_ALLOWED.status
        self._metrics.answered(method if known else "any", route, passage.status, seconds)
        if log.isEnabledFor(logging.INFO):
            more = {"method": method, "route": route, "status": passage.status, "ms": round(1000 * seconds, 2)}
            log.info("request", extra={"request_id": passage.request_id, **more})

    def check_size(self, size: int) -> None:
        """Refuse a body of so many bytes, or more.

        Raises:
            TooLarge: it is beyond the limit.
        """
        limit = self.limits.max_body_bytes
        if size > limit:
            raise errors.TooLarge(f"has {size} bytes or more", field="body", allowed=f"at most {limit} bytes")

    def _admit(self, headers: Headers, exempt: bool) -> None:
        under_way = self._metrics.under_way
        if under_way > self.limits.max_in_flight and not exempt:
            raise errors.Overloaded(f"{under_way} calls are at work", allowed=f"{self.limits.max_in_flight}")
        length = headers.get(b"content-length", b"")
        if length.isdigit():
            self.check_size(int(length))

    def _own_deadline_s(self, headers: Headers) -> float | None:
        value = headers.get(b"x-deadline-ms")
        if value is None:
            return None
        value = value.strip(b" \t")  # which the parser leaves at the end
        if not _DEADLINE.match(value) or not 1 <= int(value) <= self.limits.deadline_ms:
            raise errors.RequestInvalid(
                "is not a number of milliseconds in range",
                field="X-Deadline-Ms",
                allowed=f"1 to {self.limits.deadline_ms}",
            )
        return int(value) / 1000


def _request_id(headers: Headers) -> str:
    given = headers.get(b"x-request-id")
    if given is not None and _REQUEST_ID.match(given):
        return given.decode("ascii")
    return f"{_PROCESS}{next(_NUMBERS):012x}"
