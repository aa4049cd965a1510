"""Liveness, readiness and metrics."""

from fastapi import APIRouter, Request, Response

from ..answers import HealthAnswer
from ..errors import NotReady
from ..metrics import CONTENT_TYPE
from .common import AdminCaller, ServiceDep

router = APIRouter(tags=["health"])

LIVE, READY, METRICS = "/health/live", "/health/ready", "/metrics"


@router.get(LIVE, response_model_exclude_none=True)
async def live() -> HealthAnswer:
    """The process runs."""
    return HealthAnswer(status="live")


@router.get(READY)
async def ready(request: Request, service: ServiceDep) -> HealthAnswer:
    """Every bundle passed its golden vectors and requests, the graphs are warm, the store answers; in every worker."""
    if request.app.state.draining:
        raise NotReady("the server is shutting down")
    if request.app.state.blocked is not None:
        raise NotReady(request.app.state.blocked)
    await service.store.ping()
    return HealthAnswer(status="ready", bundles=service.digests)


@router.get(METRICS, response_class=Response, responses={200: {"content": {"text/plain": {}}}})
async def metrics(caller: AdminCaller, request: Request) -> Response:
    """Counters, gauges and histograms of all workers, in Prometheus' form."""
    if request.app.state.service is not None:
        request.app.state.service.observe_caches()
    return Response(request.app.state.metrics.text(), media_type=CONTENT_TYPE)
