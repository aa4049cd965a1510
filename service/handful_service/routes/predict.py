"""`POST /v1/models/{model}/predict`."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from ..answers import PredictAnswer
from ..assembly import Service
from ..task import Caller
from .answering import answer_json
from .asking import asks_of, options_of, refuse_too_many
from .common import ModelName, PredictCaller, ServiceDep
from .wire import Wire, check_media, predict_request, predict_schema

PATH = "/v1/models/{model}/predict"

router = APIRouter(tags=["predict"])


async def wire(request: Request) -> Wire:
    """What the call says beside its path.

    Raises:
        UnsupportedMedia: the body is neither JSON nor a tensor.
    """
    content_type = request.headers.get("content-type", "")
    check_media(content_type)
    return Wire(content_type, request.scope["query_string"], await request.body())


@router.post(PATH, response_model=PredictAnswer, openapi_extra=predict_schema())
async def predict(
    caller: PredictCaller, model: ModelName, service: ServiceDep, wire: Annotated[Wire, Depends(wire)]
) -> Response:
    """Predict: with a described task, an adaptation, a support set, or the base; rows of many tasks in one call."""
    return Response(await predicted(service, caller, model, wire), media_type="application/json")


async def predicted(service: Service, caller: Caller, model: str, wire: Wire) -> bytes:
    """The answer to a call, as JSON: whoever took the call off the wire gives this back.

    Raises:
        HandfulError: the call is not valid, or cannot be answered.
    """
    request = predict_request(service, model, wire)
    asks = asks_of(request, service.max_rows_per_call)
    refuse_too_many(asks, service.max_queued_rows)
    options = options_of(request.options, partial=request.partial)
    served, outcomes = await service.predictor.predict(caller, model, request.version, asks, options)
    return answer_json(model, served.manifest.version, asks, outcomes)
