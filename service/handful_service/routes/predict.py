"""`POST /v1/models/{model}/predict`."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Any, cast

from fastapi import APIRouter, Depends, Request, Response

from ..answers import PredictAnswer
from ..assembly import Service
from ..engine.calls import CALL, Call
from ..predictor.direct import Direct
from ..predictor.models import Served
from ..predictor.outcomes import Outcome
from ..predictor.predicting import PredictOptions
from ..predictor.refs import Ask, BySupport
from ..schemas import PredictRequest
from ..task import Caller
from .answering import answer_json
from .asking import USUAL, asks_of, options_of, refuse_too_many, task_of
from .bodies import parsed
from .common import ModelName, PredictCaller, ServiceDep
from .usual import fields_of, support_in, usual_ask
from .wire import (
    Wire,
    check_media,
    check_query,
    is_tensor,
    predict_schema,
    request_of_query,
    rows_of_tensor,
)

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
    return Response(await prepared(service, caller, CALL.get(), model, wire).answer(), media_type="application/json")


@dataclass(slots=True)
class Prepared:
    """A call that was read, and can be answered.

    Attributes:
        call: What the engine knows of it.
        model: As the path names it.
    """

    service: Service
    caller: Caller
    call: Call | None
    model: str
    served: Served
    asks: Sequence[Ask]
    options: PredictOptions

    def direct(self) -> Direct | None:
        """The call on its way, where all that it needs is a run; its predictions are then to be written.

        Raises:
            HandfulError: the call is not valid, or too much is waiting.
        """
        return self.service.predictor.direct(self.caller, self.call, self.served, self.asks, self.options)

    async def answer(self) -> bytes:
        """The answer to a call, on its way or not.

        Raises:
            HandfulError: the call is not valid, or cannot be answered.
        """
        direct = self.direct()
        return await self.answered() if direct is None else self.written([await direct.answered()])

    async def answered(self) -> bytes:
        """The answer to a call that is not on its way.

        Raises:
            HandfulError: the call is not valid, or cannot be answered.
        """
        return self.written(await self.service.predictor.answers(self.caller, self.served, self.asks, self.options))

    def written(self, outcomes: Sequence[Outcome]) -> bytes:
        """The outcomes of the asks as JSON."""
        return answer_json(self.model, self.served.manifest.version, self.asks, outcomes)


def prepared(service: Service, caller: Caller, call: Call | None, model: str, wire: Wire) -> Prepared:
    """A call as whoever took it off the wire has it.

    Raises:
        HandfulError: it is not valid.
    """
    if is_tensor(wire.content_type):
        return _of_tensor(service, caller, call, model, wire)
    if wire.query:
        check_query(wire.query)
    served = service.models.newest(model)
    usual = None if served is None else served.usual
    if served is not None and usual is not None:
        recalled = partial(service.predictor.recalled, caller, served)
        ask = usual_ask(wire.content, usual, service.most_inputs, recalled)
        if ask is not None:
            return Prepared(service, caller, call, model, served, (ask,), USUAL)
    request = parsed(PredictRequest, wire.content)
    asks = asks_of(request, service.max_rows_per_call)
    refuse_too_many(asks, service.max_queued_rows)
    if usual is not None and request.support:
        asks = [_to_recall(asks[0], wire.content)]
    options = options_of(request.options, partial=request.partial)
    return Prepared(service, caller, call, model, service.models.version(model, request.version), asks, options)


def _to_recall(ask: Ask, content: bytes) -> Ask:
    """An ask with its support set as it came, by which it is recalled if it comes again."""
    if not isinstance(ask.task, BySupport) or ask.task.named is not None:
        return ask
    return replace(ask, task=replace(ask.task, content=support_in(content)))


def _of_tensor(service: Service, caller: Caller, call: Call | None, model: str, wire: Wire) -> Prepared:
    asked = request_of_query(wire.query)
    served = service.models.version(model, asked.version)
    rows = rows_of_tensor(wire.content, served.manifest, service.max_rows_per_call)
    asks = (Ask(cast(Sequence[Any], rows), fields_of(len(rows)), task_of(asked, "")),)  # an array is read as it is
    refuse_too_many(asks, service.max_queued_rows)
    return Prepared(service, caller, call, model, served, asks, USUAL)
