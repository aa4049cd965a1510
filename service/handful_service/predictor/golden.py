"""Golden requests: raw inputs whose answers the training pipeline wrote down; the service must give the same."""

from collections.abc import Mapping
from typing import Any

from ..bundle.bundle import GOLDEN_REQUESTS
from ..errors import BundleInvalid
from ..task import Caller
from .models import Served
from .predicting import Ask, Base, BySupport, ByTask, PredictOptions, Predictor, TaskRef
from .reading import Answer, NumberAnswer
from .supports import Labelled

_CALLER = Caller(tenant="golden", scopes=frozenset({"predict"}))


async def check_golden_requests(predictor: Predictor, served: Served) -> None:
    """Answer every golden request of a bundle, and compare: scores, or numbers with their intervals.

    Raises:
        BundleInvalid: a request cannot be read or answered, or an answer differs by more than its tolerance.
    """
    for number, request in enumerate(served.bundle.golden_requests()):
        place = f"{GOLDEN_REQUESTS}[{number}]"
        try:
            ask, expected, tolerance = _read(request)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise BundleInvalid(f"cannot be read: {error!r}", field=place) from error
        try:
            answers = await predictor.answer(_CALLER, served, ask, PredictOptions())
        except Exception as error:  # whatever it is, it is the bundle that brought it
            raise BundleInvalid(f"cannot be answered: {error}", field=place) from error
        if len(expected) != len(answers):
            raise BundleInvalid(f"has {len(expected)} answers", field=place, allowed=str(len(answers)))
        for want, got in zip(expected, answers, strict=True):
            _compare(want, got.answer, tolerance, place)


def _read(request: dict[str, Any]) -> tuple[Ask, list[dict[str, float] | list[float]], float]:
    examples = tuple(
        Labelled(example["input"], example["label"], float(example.get("weight", 1.0)), f"support[{place}]")
        for place, example in enumerate(request.get("support", []))
    )
    inputs = tuple(request["inputs"])
    task: TaskRef = BySupport(examples) if examples else Base()
    if "task" in request:
        if examples:
            raise ValueError("task and support stand beside each other")
        task = ByTask(request["task"]["id"])
    ask = Ask(inputs, tuple(f"inputs[{i}]" for i in range(len(inputs))), task)
    return ask, [_wanted(answer) for answer in request["answers"]], float(request["tolerance"])


def _wanted(answer: dict[str, Any]) -> dict[str, float] | list[float]:
    """Scores by label, or a number with the two ends of its interval."""
    if answer.get("kind", "class") == "number":
        low, high = answer["interval"]
        return [float(answer["value"]), float(low), float(high)]
    return {label: float(score) for label, score in answer["scores"].items()}


def _compare(want: Mapping[str, float] | list[float], got: Answer, tolerance: float, place: str) -> None:
    if isinstance(got, NumberAnswer) != isinstance(want, list):
        kind = "number" if isinstance(got, NumberAnswer) else "class"
        raise BundleInvalid("holds an answer of another kind", field=place, allowed=f"answers of kind {kind}")
    if isinstance(got, NumberAnswer):
        assert isinstance(want, list)  # noqa: S101 (for the type checker)
        _compare_numbers(want, [got.value, *got.interval], tolerance, place)
    else:
        assert isinstance(want, Mapping)  # noqa: S101 (for the type checker)
        _compare_scores(want, got.scores or {}, tolerance, place)


def _compare_numbers(want: list[float], got: list[float], tolerance: float, place: str) -> None:
    for wanted, found in zip(want, got, strict=True):
        if not abs(wanted - found) <= tolerance * (1 + abs(wanted)):
            raise BundleInvalid(f"answered {found:.6g}", field=place, allowed=f"{wanted:.6g} within {tolerance:g}")


def _compare_scores(want: Mapping[str, float], got: Mapping[str, float], tolerance: float, place: str) -> None:
    if want.keys() != got.keys():
        raise BundleInvalid(f"answered with the labels {sorted(got)}", field=place, allowed=f"{sorted(want)}")
    worst = max(abs(want[label] - got[label]) for label in want)
    if not worst <= tolerance:
        raise BundleInvalid(f"a score differs by {worst:.3g}", field=place, allowed=f"{tolerance:g}")
