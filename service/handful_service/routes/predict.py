"""`POST /v1/models/{model}/predict`."""

from collections.abc import Sequence
from typing import Annotated, TypedDict

from fastapi import APIRouter, Depends, Response

from ..answers import (
    ClassPrediction,
    FailedAnswer,
    LabelsPrediction,
    NumberPrediction,
    PredictAnswer,
    PredictionAnswer,
    ProblemDocument,
)
from ..errors import HandfulError, RequestInvalid, TooLarge
from ..predictor.predicting import Outcome, Prediction, PredictOptions, Used
from ..predictor.reading import LabelsAnswer, NumberAnswer, ReadOptions
from ..predictor.refs import Ask, Base, ByAdaptation, BySupport, ByTask, Named, TaskRef
from ..predictor.supports import Labelled
from ..problems import problem_body
from ..schemas import PredictOptionsRequest, PredictRequest, RowRequest, SupportExample, TaskName
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
    folded: list[str] | None


@router.post("/v1/models/{model}/predict", response_model=PredictAnswer, openapi_extra=body_schema(PredictRequest))
async def predict(
    model: ModelName,
    request: Annotated[PredictRequest, Depends(json_body(PredictRequest))],
    service: ServiceDep,
    caller: CallerDep,
) -> Response:
    """Predict: with a described task, an adaptation, a support set, or the base; rows of many tasks in one call."""
    asks = _asks(request, service.max_rows_per_call)
    _refuse_too_many(asks, service.max_queued_rows)
    options = _options(request.options, partial=request.partial)
    served, outcomes = await service.predictor.predict(caller, model, request.version, asks, options)
    predictions = [answer for ask, found in zip(asks, outcomes, strict=True) for answer in _answers(ask, found)]
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
    if inputs and request.partial:
        raise RequestInvalid("is for `rows`", field="partial", allowed="`rows` beside it")
    for key in _NAMES:
        if rows and getattr(request, key) is not None:
            raise RequestInvalid("stands beside `rows`", field=key, allowed="a task in each row")
    name, count = ("inputs", len(inputs)) if inputs else ("rows", len(rows))
    if count > most:
        raise TooLarge(f"there are {count}", field=name, allowed=f"at most {most}")
    fields = tuple(f"inputs[{place}]" for place in range(len(inputs)))
    asks = [Ask(tuple(inputs), fields, _task(request, ""))] if inputs else []
    asks += [_ask(row, f"rows[{place}]") for place, row in enumerate(rows)]
    if (answers := sum(ask.answers for ask in asks)) > most:
        raise TooLarge(f"there are {answers} answers to give", field=name, allowed=f"at most {most}")
    return asks


def _refuse_too_many(asks: Sequence[Ask], most: int) -> None:
    """Refuse a call that no queue could ever take, however long its caller tries again."""
    supports = sum(len(ask.task.examples) for ask in asks if isinstance(ask.task, BySupport))
    total = supports + sum(ask.answers for ask in asks)
    if total > most:
        raise TooLarge(f"there are {total} inputs and support examples", field="rows", allowed=f"at most {most}")


def _ask(row: RowRequest, place: str) -> Ask:
    return Ask((row.input,), (f"{place}.input",), _task(row, f"{place}."))


def _task(request: PredictRequest | RowRequest, prefix: str) -> TaskRef:
    given = [name for name in _NAMES if getattr(request, name) is not None]
    if len(given) > 1 and given != ["task", "support"]:
        one_of = ", ".join(f"`{name}`" for name in _NAMES)
        raise RequestInvalid(
            f"stands beside `{given[0]}`", field=f"{prefix}{given[-1]}", allowed=f"one of {one_of}; or task and support"
        )
    if request.adaptation is not None:
        return ByAdaptation(request.adaptation, f"{prefix}adaptation")
    names = () if request.task is None else _names(request.task, f"{prefix}task")
    if request.support is None:
        return ByTask(names, f"{prefix}task") if names else Base(f"{prefix}support")
    if request.task is not None and request.task.ids is not None:
        raise RequestInvalid("stands beside `ids`", field=f"{prefix}support", allowed="a task of one `id`")
    examples = _labelled(request.support, f"{prefix}support")
    return BySupport(examples, f"{prefix}support", names[0] if names else None)


def _names(task: TaskName, place: str) -> tuple[Named, ...]:
    if task.ids is None:
        return (Named(task.id, task.metadata, task.text, place),)
    return tuple(Named(name, task.metadata, field=place) for name in task.ids)


def _labelled(examples: list[SupportExample], prefix: str) -> tuple[Labelled, ...]:
    return tuple(
        Labelled(example.input, example.label, example.weight, f"{prefix}[{place}]")
        for place, example in enumerate(examples)
    )


def _options(options: PredictOptionsRequest, *, partial: bool) -> PredictOptions:
    read = ReadOptions(confidence=options.confidence, top=options.top, scores=options.scores)
    return PredictOptions(read, options.on_missing, options.min_revision, partial)


def _answers(ask: Ask, outcome: Outcome) -> list[PredictionAnswer | FailedAnswer]:
    if isinstance(outcome, HandfulError):  # once for each answer that it stands for
        return [FailedAnswer(problem=ProblemDocument.model_validate(problem_body(outcome)))] * ask.answers
    return [_answer(prediction) for prediction in outcome]


def _answer(prediction: Prediction) -> PredictionAnswer:
    task = _TaskParts(
        used=prediction.used,
        task=prediction.task,
        adaptation=prediction.adaptation,
        revision=prediction.revision,
        folded=list(prediction.folded) or None,
    )
    answer = prediction.answer
    if isinstance(answer, NumberAnswer):
        return NumberPrediction(kind="number", value=answer.value, interval=answer.interval, **task)
    if isinstance(answer, LabelsAnswer):
        return LabelsPrediction(kind="labels", labels=list(answer.labels), scores=answer.scores, **task)
    return ClassPrediction(
        kind="class",
        label=answer.label,
        score=answer.score,
        scores=answer.scores,
        set=None if answer.set is None else list(answer.set),
        abstained=answer.abstained,
        **task,
    )
