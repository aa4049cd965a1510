"""`POST /v1/models/{model}/predict`."""

from collections.abc import Sequence
from typing import Annotated, TypedDict

from fastapi import APIRouter, Depends, Response

from ..errors import HandfulError, RequestInvalid, TooLarge
from ..predictor.predicting import (
    Ask,
    Base,
    ByAdaptation,
    BySupport,
    ByTask,
    Outcome,
    Prediction,
    PredictOptions,
    TaskRef,
    Used,
)
from ..predictor.reading import NumberAnswer, ReadOptions
from ..predictor.supports import Labelled
from ..problems import problem_body
from ..schemas import (
    ClassPrediction,
    FailedAnswer,
    NumberPrediction,
    PredictAnswer,
    PredictionAnswer,
    PredictOptionsRequest,
    PredictRequest,
    ProblemDocument,
    RowRequest,
    SupportExample,
)
from .bodies import body_schema, json_body
from .common import CallerDep, ModelName, ServiceDep

router = APIRouter(tags=["predict"])

_NAMES = ("task", "adaptation", "support")
"""The keys that name a task."""


class _TaskParts(TypedDict):
    used: Used
    task: str | None
    adaptation: str | None
    revision: int | None


@router.post("/v1/models/{model}/predict", response_model=PredictAnswer, openapi_extra=body_schema(PredictRequest))
async def predict(
    model: ModelName,
    request: Annotated[PredictRequest, Depends(json_body(PredictRequest))],
    service: ServiceDep,
    caller: CallerDep,
) -> Response:
    """Predict, with a known task, an adaptation, a support set, or the base model; rows of many tasks in one call."""
    asks = _asks(request, service.max_rows_per_call)
    _refuse_too_many(asks, service.max_queued_rows)
    options = _options(request.options, partial=request.partial)
    served, outcomes = await service.predictor.predict(caller, model, request.version, asks, options)
    predictions = [answer for outcome in outcomes for answer in _answers(outcome)]
    answer = PredictAnswer(model=model, version=served.manifest.version, predictions=predictions)
    return Response(answer.model_dump_json(exclude_none=True), media_type="application/json")


def _asks(request: PredictRequest, most: int) -> list[Ask]:
    """The request as tasks with their inputs.

    Raises:
        RequestInvalid: keys are missing, or contradict each other.
        TooLarge: more inputs or rows than a call may have.
    """
    if (request.inputs is None) == (request.rows is None):
        both = "stands beside `rows`" if request.rows else "missing"
        raise RequestInvalid(both, field="inputs", allowed="either `inputs` or `rows`")
    inputs, rows = request.inputs or [], request.rows or []
    name, count = ("inputs", len(inputs)) if inputs else ("rows", len(rows))
    if count > most:
        raise TooLarge(f"there are {count}", field=name, allowed=f"at most {most}")
    if inputs:
        if request.partial:
            raise RequestInvalid("is for `rows`", field="partial", allowed="`rows` beside it")
        fields = tuple(f"inputs[{place}]" for place in range(count))
        return [Ask(tuple(inputs), fields, _task(request, ""))]
    for key in _NAMES:
        if getattr(request, key) is not None:
            raise RequestInvalid("stands beside `rows`", field=key, allowed="a task in each row")
    return [_ask(row, f"rows[{place}]") for place, row in enumerate(rows)]


def _refuse_too_many(asks: Sequence[Ask], most: int) -> None:
    """Refuse a call that no queue could ever take, however long its caller tries again."""
    supports = sum(len(ask.task.examples) for ask in asks if isinstance(ask.task, BySupport))
    total = supports + sum(len(ask.inputs) for ask in asks)
    if total > most:
        raise TooLarge(f"there are {total} inputs and support examples", field="rows", allowed=f"at most {most}")


def _ask(row: RowRequest, place: str) -> Ask:
    return Ask((row.input,), (f"{place}.input",), _task(row, f"{place}."))


def _task(request: PredictRequest | RowRequest, prefix: str) -> TaskRef:
    given = [name for name in _NAMES if getattr(request, name) is not None]
    if len(given) > 1:
        one_of = ", ".join(f"`{name}`" for name in _NAMES)
        raise RequestInvalid(f"stands beside `{given[0]}`", field=f"{prefix}{given[-1]}", allowed=f"one of {one_of}")
    if request.task is not None:
        return ByTask(request.task.id, f"{prefix}task")
    if request.adaptation is not None:
        return ByAdaptation(request.adaptation, f"{prefix}adaptation")
    if request.support is not None:
        return BySupport(_labelled(request.support, f"{prefix}support"), f"{prefix}support")
    return Base(f"{prefix}support")


def _labelled(examples: list[SupportExample], prefix: str) -> tuple[Labelled, ...]:
    return tuple(
        Labelled(example.input, example.label, example.weight, f"{prefix}[{place}]")
        for place, example in enumerate(examples)
    )


def _options(options: PredictOptionsRequest, *, partial: bool) -> PredictOptions:
    read = ReadOptions(confidence=options.confidence, top=options.top, scores=options.scores)
    return PredictOptions(read, options.on_missing, options.min_revision, partial)


def _answers(outcome: Outcome) -> list[PredictionAnswer | FailedAnswer]:
    if isinstance(outcome, HandfulError):
        return [FailedAnswer(problem=ProblemDocument.model_validate(problem_body(outcome)))]
    return [_answer(prediction) for prediction in outcome]


def _answer(prediction: Prediction) -> PredictionAnswer:
    task = _TaskParts(
        used=prediction.used, task=prediction.task, adaptation=prediction.adaptation, revision=prediction.revision
    )
    answer = prediction.answer
    if isinstance(answer, NumberAnswer):
        return NumberPrediction(kind="number", value=answer.value, interval=answer.interval, **task)
    return ClassPrediction(
        kind="class",
        label=answer.label,
        score=answer.score,
        scores=answer.scores,
        set=None if answer.set is None else list(answer.set),
        abstained=answer.abstained,
        **task,
    )
