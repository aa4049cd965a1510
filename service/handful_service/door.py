"""The door of the server: the porter as a pure ASGI middleware."""

from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .engine.calls import CALL
from .patience import Passage
from .porter import UNMATCHED, Porter, Refusal

_OFFLINE = b"default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:"
"""The pages about the API fetch nothing from elsewhere: ReDoc's script would load a logo from its makers' CDN."""


class Door:
    """The middleware.

    Args:
        app: What lies behind.
        porter: Lets requests in and out.
        exempt: Tells paths that are never refused for load, such as health checks.
    """

    def __init__(self, app: ASGIApp, porter: Porter, exempt: Callable[[str], bool]) -> None:
        self._app = app
        self._porter = porter
        self._exempt = exempt

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        # Nothing is given in parts, and Starlette refuses an odd range in plain text.
        scope["headers"] = [pair for pair in scope["headers"] if pair[0] != b"range"]
        headers = dict(scope["headers"])
        passage = self._porter.enter(headers)
        scope.setdefault("state", {})["request_id"] = passage.request_id
        token = CALL.set(passage.call)
        sending, receiving = _sender(send, passage), self._limited(receive, passage)
        try:
            refusal = await self._porter.guard(
                passage,
                headers,
                lambda: self._app(scope, receiving, sending),
                exempt=self._exempt(scope["path"]),
                receive=receive,
            )
            if isinstance(refusal, Refusal) and not passage.answered:
                start = {"type": "http.response.start", "status": refusal.status, "headers": refusal.headers}
                await sending(start)
                await sending({"type": "http.response.body", "body": refusal.content})
        finally:
            CALL.reset(token)
            route = getattr(scope.get("route"), "path", None) or UNMATCHED
            self._porter.leave(passage, scope["method"], route)

    def _limited(self, receive: Receive, passage: Passage) -> Receive:
        received = 0

        async def receiving() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            self._porter.check_size(received)
            passage.complete = not message.get("more_body", False)
            return message

        return receiving


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
