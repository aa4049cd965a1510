"""From a predict request to asks: tasks with their inputs, and the options of the call."""

from collections.abc import Sequence
from typing import Any

from ..errors import RequestInvalid, TooLarge
from ..predictor.predicting import PredictOptions
from ..predictor.reading import ReadOptions
from ..predictor.refs import Ask, Base, ByAdaptation, BySupport, ByTask, Named, TaskRef
from ..predictor.supports import Labelled
from ..schemas import PredictOptionsRequest, PredictRequest, RowRequest, SupportExample, TaskName
from .usual import fields_of

_NAMES = ("task", "adaptation", "support")
"""The keys that name a task."""


def asks_of(request: PredictRequest, most: int) -> list[Ask]:
    """The request as tasks with their inputs.

    Raises:
        RequestInvalid: keys are missing, or contradict each other.
        TooLarge: more inputs or rows than a call may have.
    """
    if (request.inputs is None) == (request.rows is None):
        both = "stands beside `rows`" if request.rows else "missing"
        raise RequestInvalid(both, field="inputs", allowed="either `inputs` or `rows`")
    if request.rows is not None:
        return _asks_of_rows(request, request.rows, most)
    inputs: Sequence[Any] = () if request.inputs is None else request.inputs
    if request.partial:
        raise RequestInvalid("is for `rows`", field="partial", allowed="`rows` beside it")
    count = len(inputs)
    ask = Ask(inputs, fields_of(count), task_of(request, ""))
    _refuse_beyond(most, "inputs", count, ask.answers)
    return [ask]


def _asks_of_rows(request: PredictRequest, rows: Sequence[RowRequest], most: int) -> list[Ask]:
    for key in _NAMES:
        if getattr(request, key) is not None:
            raise RequestInvalid("stands beside `rows`", field=key, allowed="a task in each row")
    if len(rows) > most:  # before anything is made of them
        raise TooLarge(f"there are {len(rows)}", field="rows", allowed=f"at most {most}")
    asks = [
        Ask((row.input,), (f"rows[{place}].input",), task_of(row, f"rows[{place}].")) for place, row in enumerate(rows)
    ]
    _refuse_beyond(most, "rows", len(rows), sum([ask.answers for ask in asks]))
    return asks


def _refuse_beyond(most: int, name: str, count: int, answers: int) -> None:
    if count > most:
        raise TooLarge(f"there are {count}", field=name, allowed=f"at most {most}")
    if answers > most:
        raise TooLarge(f"there are {answers} answers to give", field=name, allowed=f"at most {most}")


def refuse_too_many(asks: Sequence[Ask], most: int) -> None:
    """Refuse a call that no queue could ever take, however long its caller tries again."""
    name = "inputs" if len(asks) == 1 else "rows"
    total = 0
    for ask in asks:
        total += ask.answers + (len(ask.task.examples) if isinstance(ask.task, BySupport) else 0)
    if total > most:
        raise TooLarge(f"there are {total} inputs and support examples", field=name, allowed=f"at most {most}")


def task_of(request: PredictRequest | RowRequest, prefix: str) -> TaskRef:
    """The task that a request names.

    Raises:
        RequestInvalid: it names several.
    """
    if request.adaptation is not None or (request.task is not None and request.support is not None):
        _refuse_contradicting(request, prefix)
    if request.adaptation is not None:
        return ByAdaptation(request.adaptation, f"{prefix}adaptation")
    names = () if request.task is None else _names(request.task, f"{prefix}task")
    if request.support is None:
        return ByTask(names, f"{prefix}task") if names else Base(f"{prefix}support")
    if request.task is not None and request.task.ids is not None:
        raise RequestInvalid("stands beside `ids`", field=f"{prefix}support", allowed="a task of one `id`")
    examples = _labelled(request.support, f"{prefix}support")
    return BySupport(examples, f"{prefix}support", names[0] if names else None)


def _refuse_contradicting(request: PredictRequest | RowRequest, prefix: str) -> None:
    given = [name for name in _NAMES if getattr(request, name) is not None]
    if len(given) > 1 and given != ["task", "support"]:
        one_of = ", ".join(f"`{name}`" for name in _NAMES)
        raise RequestInvalid(
            f"stands beside `{given[0]}`", field=f"{prefix}{given[-1]}", allowed=f"one of {one_of}; or task and support"
        )


def _names(task: TaskName, place: str) -> tuple[Named, ...]:
    if task.ids is None:
        return (Named(task.id, task.metadata, task.text, place),)
    return tuple(
        Named(name, task.metadata, field=place, place=f"ids[{number}]") for number, name in enumerate(task.ids)
    )


def _labelled(examples: list[SupportExample], prefix: str) -> tuple[Labelled, ...]:
    return tuple(
        Labelled(example.input, example.label, example.weight, f"{prefix}[{place}]")
        for place, example in enumerate(examples)
    )


def options_of(options: PredictOptionsRequest, *, partial: bool) -> PredictOptions:
    """The options of a call."""
    if options is _USUAL_REQUEST and not partial:
        return USUAL
    read = ReadOptions(confidence=options.confidence, top=options.top, scores=options.scores)
    return PredictOptions(read, options.on_missing, options.min_revision, partial)


_USUAL_REQUEST = PredictRequest.model_fields["options"].default
USUAL = PredictOptions()
"""Those of a request that names none: nobody writes to them."""
