"""From the outcomes of a predict call to its answer, as bytes.

The answer is written straight from the outcomes, in the order of the fields of `answers.PredictAnswer`, which OpenAPI
shows and the tests hold every answer to: building that model first would cost more than all the rest of this.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from ..errors import HandfulError
from ..predictor.outcomes import Outcome, Prediction
from ..predictor.reading import Answer, ClassAnswer, LabelsAnswer, NumberAnswer
from ..predictor.refs import Ask
from ..problems import problem_body

_encode = msgspec.json.Encoder().encode


def answer_json(model: str, version: int, asks: Sequence[Ask], outcomes: Sequence[Outcome]) -> bytes:
    """A `PredictAnswer` as JSON, without what is None."""
    predictions = [part for ask, found in zip(asks, outcomes, strict=True) for part in _parts(ask, found)]
    return _encode({"model": model, "version": version, "predictions": predictions})


def _parts(ask: Ask, outcome: Outcome) -> list[dict[str, Any]]:
    if isinstance(outcome, HandfulError):  # once for each answer that it stands for
        return [{"problem": problem_body(outcome)}] * ask.answers
    return [_prediction(prediction) for prediction in outcome]


def _prediction(prediction: Prediction) -> dict[str, Any]:
    found = _read(prediction.answer)
    found["used"] = prediction.used
    if prediction.task is not None:
        found["task"] = prediction.task
    if prediction.adaptation is not None:
        found["adaptation"] = prediction.adaptation
    if prediction.revision is not None:
        found["revision"] = prediction.revision
    if prediction.folded:
        found["folded"] = prediction.folded
    return found


def _read(answer: Answer) -> dict[str, Any]:
    if isinstance(answer, NumberAnswer):
        return {"kind": "number", "value": answer.value, "interval": answer.interval}
    found: dict[str, Any]
    if isinstance(answer, LabelsAnswer):
        found = {"kind": "labels", "labels": answer.labels}
    else:
        found = {"kind": "class", "label": answer.label, "score": answer.score}
    if answer.scores is not None:
        found["scores"] = answer.scores
    if isinstance(answer, ClassAnswer) and answer.set is not None:
        found["set"], found["abstained"] = answer.set, answer.abstained
    return found
