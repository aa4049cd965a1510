"""`create_app`: wiring and lifespan only."""

import asyncio
import importlib.metadata
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from fastapi import Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from fastapi_offline import FastAPIOffline
from starlette.datastructures import State
from starlette.exceptions import HTTPException
from starlette.routing import compile_path

from . import errors
from .assembly import build_service
from .auth import Guard
from .door import Door
from .metrics import Metrics
from .porter import DoorLimits, Porter
from .problems import METHOD_NOT_ALLOWED, body, explained, problem_body, problem_response, retry_after_s
from .routes import adaptations, health, models, predict
from .routes.bodies import add_schemas, add_security, invalid
from .routes.common import PROBLEM_ANSWERS, deadline
from .routes.hot import HotPredict
from .schemas import ExamplesRequest, PredictRequest, PutRequest
from .settings import Settings

log = logging.getLogger("handful.service")

_EXEMPT = frozenset({health.LIVE, health.READY, health.METRICS})


class AppState(State):
    """What the app knows, as attributes like those of any other object: each call reads some, in less time."""

    def __setattr__(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)


def create_app(
    settings: Settings,
    on_failure: Callable[[BaseException], None] | None = None,
    on_ready: Callable[[], None] | None = None,
    *,
    hot: bool = True,
    metrics: Metrics | None = None,
) -> FastAPI:
    """The ASGI application.

    It listens at once and is ready once its bundles are loaded and checked.

    Args:
        settings: All that can be set.
        on_failure: Told the error that keeps the service from ever being ready.
        on_ready: Told once, when the service is ready.
        hot: Whether predict calls are answered ahead of the router; the answers are the same either way.
        metrics: Where is counted what happens; None: in memory.
    """
    metrics = metrics or Metrics()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        loading = asyncio.create_task(_load(app, settings, on_failure, on_ready))
        yield
        loading.cancel()
        await asyncio.gather(loading, return_exceptions=True)
        # FastAPI keeps every app for ever, in a cache of its routes: what is heavy must not hang on it.
        service, app.state.service = app.state.service, None
        if service is not None:
            await service.close()

    app = FastAPIOffline(
        title="Handful",
        version=importlib.metadata.version("handful"),
        summary="One server, many tasks.",
        lifespan=lifespan,
        responses=PROBLEM_ANSWERS,
        redirect_slashes=False,  # a path with a slash too many is a problem like any other unknown one
    )
    app.state = AppState()
    app.state.service, app.state.draining, app.state.metrics = None, False, metrics
    app.state.blocked = None
    app.state.guard = Guard(settings.keys)
    limits = DoorLimits(settings.max_body_bytes, settings.max_in_flight, settings.deadline_ms)
    app.state.porter = Porter(limits, metrics)
    for module in (predict, adaptations, models):
        app.include_router(module.router, dependencies=[Depends(deadline)])
    app.include_router(health.router)
    if hot:
        app.add_middleware(HotPredict, state=app.state)
    app.add_middleware(Door, porter=app.state.porter, exempt=_EXEMPT.__contains__)
    app.add_exception_handler(errors.HandfulError, _handful_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]  # FastAPI's documented way
    return app


async def _load(
    app: FastAPI,
    settings: Settings,
    on_failure: Callable[[BaseException], None] | None,
    on_ready: Callable[[], None] | None,
) -> None:
    try:
        app.state.guard.load()
        app.state.service = await build_service(settings, app.state.metrics)
    except Exception as error:  # whatever it is, the operator must see it, and the process must end
        log.error("cannot start", extra={"error": explained(error), "kind": type(error).__name__})
        if on_failure is not None:
            on_failure(error)
        return
    app.state.metrics.workers.set(1)
    if on_ready is not None:
        on_ready()


def _openapi(app: FastAPI) -> dict[str, Any]:
    if app.openapi_schema is None:
        document = get_openapi(title=app.title, version=app.version, summary=app.summary, routes=app.routes)
        add_schemas(document, (PredictRequest, PutRequest, ExamplesRequest))
        add_security(document, open_paths=(health.LIVE, health.READY))
        app.openapi_schema = document
    return app.openapi_schema


async def _handful_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, errors.HandfulError)  # noqa: S101 (for the type checker)
    return problem_response(problem_body(error), request.state.request_id, retry_after_s(error))


async def _validation_error(request: Request, error: Exception) -> Response:
    """Path and query parameters: bodies are validated by `routes.bodies`."""
    assert isinstance(error, RequestValidationError)  # noqa: S101 (for the type checker)
    return problem_response(problem_body(invalid(error.errors())), request.state.request_id)


def _methods(request: Request) -> list[str]:
    """The methods of the resource at the request's path: the router itself names those of the first route only."""
    paths: dict[str, dict[str, Any]] = request.app.openapi()["paths"]
    at_path = (item for template, item in paths.items() if compile_path(template)[0].match(request.url.path))
    return sorted({method.upper() for item in at_path for method in item})


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 (for the type checker)
    if error.status_code == METHOD_NOT_ALLOWED.status:
        members = body(METHOD_NOT_ALLOWED, f"{request.method} {request.url.path}")
        response = problem_response(members, request.state.request_id)
        response.headers["Allow"] = ", ".join(_methods(request)) or (error.headers or {}).get("Allow", "GET")
        return response
    return problem_response(
        problem_body(errors.NotFound(f"no resource {request.url.path}", allowed="see /docs")), request.state.request_id
    )
