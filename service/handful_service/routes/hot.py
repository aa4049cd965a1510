"""The hot path: predict calls answered ahead of FastAPI's router, which costs more than a small model does.

What the router would do is done here in the same order, by the same functions: a call gets the same answer and the
same problem either way. Whatever is not exactly a predict call goes on to the router.
"""

import re
from dataclasses import dataclass

from starlette.datastructures import State
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Receive, Scope, Send

from ..assembly import Service
from ..auth import Guard
from ..engine.calls import identify
from ..errors import NotReady
from .common import LOADING, MAX_MODEL_NAME
from .predict import PATH, predicted
from .wire import Wire, check_media

_PREDICT = re.compile(rf"/v1/models/([^/]{{1,{MAX_MODEL_NAME}}})/predict")


@dataclass(frozen=True, slots=True)
class _Route:
    """What the door reads of a matched route."""

    path: str


_ROUTE = _Route(PATH)


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
        content = await self._answer(found[1], scope, receive)
        headers = [(b"content-length", b"%d" % len(content)), (b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": content})

    async def _answer(self, model: str, scope: Scope, receive: Receive) -> bytes:
        guard: Guard = self._state.guard
        caller = guard.caller(scope["headers"], "predict")
        identify(caller.tenant, learns=False)
        service: Service | None = self._state.service
        if service is None:
            raise NotReady(LOADING)
        service.models.refuse_if_saturated(model)
        content_type = _header(scope, b"content-type")
        check_media(content_type)
        wire = Wire(content_type, scope["query_string"], await _body(receive))
        return await predicted(service, caller, model, wire)


def _header(scope: Scope, name: bytes) -> str:
    """The first header of a name; empty where there is none."""
    return next((value.decode("latin-1") for key, value in scope["headers"] if key == name), "")


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
