"""Reading any of several labels: sigmoids, thresholds, members, and what such an answer has not."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from handful_service.bundle.outputs import LabelsOutput
from handful_service.errors import NotAccepted
from handful_service.predictor.reading import LabelsAnswer, Reading, ReadOptions, check_options, read
from handful_service.task import Labels

NAMES = ("a", "b", "c")
PLAIN = LabelsOutput(kind="labels", labels=NAMES)
CALIBRATED = LabelsOutput.model_validate(
    {"kind": "labels", "labels": NAMES, "calibration": {"temperature": 2.0, "threshold": [0.9, 0.1, 0.5]}}
)


def answer(y: Any, output: LabelsOutput = PLAIN, **options: Any) -> LabelsAnswer:
    check_options(output, ReadOptions(**options))
    (found,) = read(np.array([y], np.float32), Reading(output, Labels(NAMES), 1), ReadOptions(**options))
    assert isinstance(found, LabelsAnswer)
    return found


def test_any_none_or_all_of_the_labels_may_hold() -> None:
    assert answer([[0.0, -1.0, 2.0]]).labels == ("c", "a")
    assert answer([[-1.0, -1.0, -2.0]]).labels == ()
    assert answer([[3.0, 1.0, 2.0]]).labels == ("a", "c", "b")


def test_each_label_has_a_threshold_and_all_share_a_temperature() -> None:
    found = answer([[4.0, -4.0, 0.5]], CALIBRATED)
    assert found.scores == pytest.approx(
        {"a": 1 / (1 + np.exp(-2)), "c": 1 / (1 + np.exp(-0.25)), "b": 1 / (1 + np.exp(2))}
    )
    assert found.labels == ("c", "b"), "0.88 is below the threshold of a, 0.12 above that of b"


@given(st.lists(st.lists(st.floats(-30, 30), min_size=3, max_size=3), min_size=1, max_size=4))
def test_probabilities_are_averaged_over_members(members: list[list[float]]) -> None:
    found = answer(members).scores or {}
    mean = (1 / (1 + np.exp(-np.array(members, np.float32).astype(np.float64)))).mean(0)
    assert found == pytest.approx(dict(zip(NAMES, mean, strict=True)))
    assert list(found.values()) == sorted(found.values(), reverse=True)


def test_scores_are_left_out_and_cut_as_asked() -> None:
    assert answer([[1.0, 2.0, 3.0]], scores=False).scores is None
    assert list(answer([[1.0, 2.0, 3.0]], top=2).scores or {}) == ["c", "b"]


def test_what_such_an_answer_has_not_is_refused() -> None:
    with pytest.raises(NotAccepted) as refused:
        answer([[1.0, 2.0, 3.0]], CALIBRATED, confidence=0.9)
    assert refused.value.field == "options.confidence"
    y = np.array([[[1.0, float("nan"), 3.0]]], np.float32)
    assert read(y, Reading(PLAIN, Labels(NAMES), 1), ReadOptions()) == [None]
    assert answer([[-1e30, 1e30, 0.0]]).labels == ("b", "c")


@pytest.mark.parametrize("threshold", [[0.5], [0.5, 0.5, 1.5], []])
def test_thresholds_must_be_one_for_each_label_in_0_to_1(threshold: list[float]) -> None:
    table = {"temperature": 1.0, "threshold": threshold}
    with pytest.raises(ValidationError):
        LabelsOutput.model_validate({"kind": "labels", "labels": NAMES, "calibration": table})
