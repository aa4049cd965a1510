"""`POST /v1/models/{model}/predict`."""

from typing import Annotated

from fastapi import APIRouter, Depends, Response

from ..answers import PredictAnswer
from ..assembly import Service
from ..schemas import PredictRequest
from ..task import Caller
from .answering import answer_json
from .asking import asks_of, options_of, refuse_too_many
from .bodies import body_schema, json_body
from .common import CallerDep, ModelName, ServiceDep

PATH = "/v1/models/{model}/predict"

router = APIRouter(tags=["predict"])


@router.post(PATH, response_model=PredictAnswer, openapi_extra=body_schema(PredictRequest))
async def predict(
    model: ModelName,
    request: Annotated[PredictRequest, Depends(json_body(PredictRequest))],
    service: ServiceDep,
    caller: CallerDep,
) -> Response:
    """Predict: with a described task, an adaptation, a support set, or the base; rows of many tasks in one call."""
    return Response(await predicted(service, caller, model, request), media_type="application/json")


async def predicted(service: Service, caller: Caller, model: str, request: PredictRequest) -> bytes:
    """The answer to a valid request, as JSON: whoever took the request off the wire gives this back.

    Raises:
        HandfulError: the call cannot be answered.
    """
    asks = asks_of(request, service.max_rows_per_call)
    refuse_too_many(asks, service.max_queued_rows)
    options = options_of(request.options, partial=request.partial)
    served, outcomes = await service.predictor.predict(caller, model, request.version, asks, options)
    return answer_json(model, served.manifest.version, asks, outcomes)
