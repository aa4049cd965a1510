"""Golden requests: raw inputs whose answers the training pipeline wrote down; the service must give the same."""

from typing import Any

from ..bundle.bundle import GOLDEN_REQUESTS
from ..errors import BundleInvalid
from ..task import Caller
from .models import Served
from .predicting import Ask, Base, BySupport, PredictOptions, Predictor
from .supports import Labelled

_CALLER = Caller(tenant="golden", scopes=frozenset({"predict"}))


async def check_golden_requests(predictor: Predictor, served: Served) -> None:
    """Answer every golden request of a bundle, and compare.

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
            _compare(want, got.answer.scores or {}, tolerance, place)


def _read(request: dict[str, Any]) -> tuple[Ask, list[dict[str, float]], float]:
    examples = tuple(
        Labelled(example["input"], example["label"], float(example.get("weight", 1.0)), f"support[{place}]")
        for place, example in enumerate(request.get("support", []))
    )
    inputs = tuple(request["inputs"])
    ask = Ask(inputs, tuple(f"inputs[{i}]" for i in range(len(inputs))), BySupport(examples) if examples else Base())
    return ask, [_scores(answer) for answer in request["answers"]], float(request["tolerance"])


def _scores(answer: dict[str, Any]) -> dict[str, float]:
    return {label: float(score) for label, score in answer["scores"].items()}


def _compare(want: dict[str, float], got: dict[str, float], tolerance: float, place: str) -> None:
    if want.keys() != got.keys():
        raise BundleInvalid(f"answered with the labels {sorted(got)}", field=place, allowed=f"{sorted(want)}")
    worst = max(abs(want[label] - got[label]) for label in want)
    if not worst <= tolerance:
        raise BundleInvalid(f"a score differs by {worst:.3g}", field=place, allowed=f"{tolerance:g}")
