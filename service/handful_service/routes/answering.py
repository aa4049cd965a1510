"""From the outcomes of a predict call to its answer, as bytes.

The answer is written straight from the outcomes, in the order of the fields of `answers.PredictAnswer`, which OpenAPI
shows and the tests hold every answer to: building that model first would cost more than all the rest of this.
"""

from collections.abc import Sequence
from typing import Any

from pydantic_core import to_json

from ..errors import HandfulError
from ..predictor.outcomes import Outcome, Prediction
from ..predictor.reading import LabelsAnswer, NumberAnswer
from ..predictor.refs import Ask
from ..problems import problem_body


def answer_json(model: str, version: int, asks: Sequence[Ask], outcomes: Sequence[Outcome]) -> bytes:
    """A `PredictAnswer` as JSON, without what is None."""
    predictions = [part for ask, found in zip(asks, outcomes, strict=True) for part in _parts(ask, found)]
    return to_json({"model": model, "version": version, "predictions": predictions})


def _parts(ask: Ask, outcome: Outcome) -> list[dict[str, Any]]:
    if isinstance(outcome, HandfulError):  # once for each answer that it stands for
        return [{"problem": problem_body(outcome)}] * ask.answers
    return [_prediction(prediction) for prediction in outcome]


def _prediction(prediction: Prediction) -> dict[str, Any]:
    found = _read(prediction)
    found["used"] = prediction.used
    more = (
        ("task", prediction.task),
        ("adaptation", prediction.adaptation),
        ("revision", prediction.revision),
        ("folded", prediction.folded or None),
    )
    for name, value in more:
        if value is not None:
            found[name] = value
    return found


def _read(prediction: Prediction) -> dict[str, Any]:
    answer = prediction.answer
    if isinstance(answer, NumberAnswer):
        return {"kind": "number", "value": answer.value, "interval": answer.interval}
    if isinstance(answer, LabelsAnswer):
        found: dict[str, Any] = {"kind": "labels", "labels": answer.labels}
        if answer.scores is not None:
            found["scores"] = answer.scores
        return found
    found = {"kind": "class", "label": answer.label, "score": answer.score}
    for name, value in (("scores", answer.scores), ("set", answer.set), ("abstained", answer.abstained)):
        if value is not None:
            found[name] = value
    return found
