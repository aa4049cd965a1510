"""The hot path: predict calls answered ahead of FastAPI's router, which costs more than a small model does.

What the router would do is done here in the same order, by the same functions: a call gets the same answer and the
same problem either way. Whatever is not exactly a predict call goes on to the router.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from starlette.datastructures import State
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Receive, Scope, Send

from ..assembly import Service
from ..auth import Guard
from ..engine.calls import CALL, Call, identify
from ..errors import NotReady
from ..task import Caller
from .common import LOADING, MAX_MODEL_NAME
from .predict import PATH, Prepared, prepared
from .wire import Wire, check_media

_PREDICT = re.compile(rf"/v1/models/([^/]{{1,{MAX_MODEL_NAME}}})/predict")

MEDIA = (b"content-type", b"application/json")
"""The header of every answer."""


@dataclass(frozen=True, slots=True)
class _Route:
    """What the door reads of a matched route."""

    path: str


_ROUTE = _Route(PATH)


@dataclass(frozen=True, slots=True)
class Admitted:
    """What the head of a call comes to: a caller who may predict, and what is asked.

    Attributes:
        keys: What the caller was found in; see `Guard.known`.
    """

    service: Service
    caller: Caller
    keys: object
    model: str
    content_type: str
    query: bytes

    def holds(self, state: State) -> bool:
        """Whether all this is still so."""
        return state.service is self.service and state.guard.known() is self.keys

    def begin(self, call: Call | None) -> None:
        """Let a call begin.

        Raises:
            Overloaded: too much is waiting.
        """
        identify(call, self.caller.tenant, learns=False)
        self.refuse_if_saturated()

    def refuse_if_saturated(self) -> None:
        """Refuse a call for which too much is waiting.

        Raises:
            Overloaded: it is.
        """
        self.service.models.refuse_if_saturated(self.model)

    def refuse_if_full(self) -> None:
        """Refuse a large call before its body came, for which too much is waiting, or being decoded.

        Raises:
            Overloaded: it is.
        """
        self.refuse_if_saturated()
        served = self.service.models.newest(self.model)
        if served is not None and served.slowly_decoded:
            self.service.decoders.refuse_if_full()

    def prepared(self, call: Call | None, content: bytes) -> Prepared:
        """A call with its body.

        Raises:
            HandfulError: it is not valid.
        """
        return prepared(self.service, self.caller, call, self.model, Wire(self.content_type, self.query, content))


def admit(state: State, model: str, query: bytes, headers: Sequence[tuple[bytes, bytes]]) -> Admitted:
    """What can be said of a call before its body is read.

    Raises:
        HandfulError: the caller may not predict, or the body is of another kind.
    """
    guard: Guard = state.guard
    caller = guard.caller(headers, "predict")
    service: Service | None = state.service
    if service is None:
        raise NotReady(LOADING)
    content_type = _header(headers, b"content-type")
    check_media(content_type)
    return Admitted(service, caller, guard.known(), model, content_type, query)


class HotPredict:
    """The middleware. It stands behind the door.

    Args:
        app: Takes every other call.
        state: The app's state, whose `guard` tells who calls and whose `service` answers.
    """

    def __init__(self, app: ASGIApp, state: State) -> None:
        self._app = app
        self._state = state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection; errors are the door's to tell."""
        found = None
        if scope["type"] == "http" and scope["method"] == "POST" and not scope.get("root_path"):
            found = _PREDICT.fullmatch(scope["path"])
        if found is None:
            await self._app(scope, receive, send)
            return
        scope["route"] = _ROUTE
        call, admitted = CALL.get(), admit(self._state, found[1], scope["query_string"], scope["headers"])
        admitted.begin(call)
        content = await admitted.prepared(call, await _body(receive)).answer()
        headers = [(b"content-length", b"%d" % len(content)), MEDIA]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": content})


def _header(headers: Sequence[tuple[bytes, bytes]], name: bytes) -> str:
    """The first header of a name; empty where there is none."""
    for key, value in headers:
        if key == name:
            return value.decode("latin-1")
    return ""


async def _body(receive: Receive) -> bytes:
    """The whole body.

    Raises:
        ClientDisconnect: the client went while it sent.
    """
    parts = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return parts[0] if len(parts) == 1 else b"".join(parts)
