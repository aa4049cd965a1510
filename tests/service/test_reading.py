"""From logits to answers."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tests.tiny import CALIBRATION, Tiny, manifest

from handful_service.bundle.manifest import Manifest
from handful_service.errors import NotAccepted
from handful_service.predictor.reading import (
    FEW,
    Answer,
    ClassAnswer,
    Reading,
    ReadOptions,
    check_options,
    not_finite,
    read,
)
from handful_service.task import Labels

LOGITS = st.floats(-50, 50, width=32)
NAMES = ("a", None, "c", "d", None, "f", None, "h")
LABELS = Labels(NAMES)
PRESENT = [0, 2, 3, 5, 7]


def described(**options: Any) -> Manifest:
    return Manifest.model_validate(manifest(Tiny(**options)))


PLAIN, CALIBRATED = described(), described(calibration=CALIBRATION)


def logits(rows: int | None = None, members: int = 1) -> st.SearchStrategy[np.ndarray]:
    shape = st.tuples(st.integers(0, 4) if rows is None else st.just(rows), st.just(members), st.just(8))
    return hnp.arrays(np.float32, shape, elements=LOGITS)


def softmax(y: np.ndarray) -> np.ndarray:
    raised = np.exp(y.astype(np.float64) - y.max(-1, keepdims=True).astype(np.float64))
    return raised / raised.sum(-1, keepdims=True)


def one(y: np.ndarray, where: Manifest = CALIBRATED, shots: float = 1, **options: Any) -> ClassAnswer:
    check_options(where.output, ReadOptions(**options))
    (answer,) = answers(y, where, shots, **options)
    assert isinstance(answer, ClassAnswer)
    return answer


def answers(y: np.ndarray, where: Manifest = PLAIN, shots: float = 1, **options: Any) -> list[Answer | None]:
    return read(y, Reading(where.output, LABELS, shots), ReadOptions(**options))


@given(logits(members=3))
def test_scores_are_the_mean_of_the_members_softmax_over_the_labels_that_are_there(y: np.ndarray) -> None:
    found = answers(y)
    assert len(found) == len(y)
    for row, answer in zip(y, found, strict=True):
        assert isinstance(answer, ClassAnswer)
        want = dict(zip("acdfh", softmax(row[:, PRESENT]).mean(0), strict=True))
        assert answer.scores == pytest.approx(want)
        assert sum(want.values()) == pytest.approx(1)
        assert answer.score == max(answer.scores.values()) == answer.scores[answer.label]


def test_members_are_averaged_as_probabilities_and_not_as_logits() -> None:
    y = np.zeros((1, 2, 8), np.float32)
    y[0, 0, 0], y[0, 1, 2] = 100, 1
    mean = softmax(y[0][:, PRESENT]).mean(0)
    assert one(y, PLAIN).scores == pytest.approx(dict(zip("acdfh", mean, strict=True)))
    assert one(y, PLAIN).score < 0.8  # the mean of the logits would give 1.0


@given(logits(1), st.integers(1, 10))
def test_a_slot_without_a_label_changes_nothing_whatever_its_logit(y: np.ndarray, top: int) -> None:
    other = y.copy()
    other[..., [1, 4, 6]] = 1e30
    assert one(other, top=top) == one(y, top=top)


@given(logits(1), st.integers(1, 10))
def test_top_gives_the_highest_scores_first(y: np.ndarray, top: int) -> None:
    full, cut = one(y).scores, one(y, top=top).scores
    assert full is not None
    assert cut is not None
    assert list(full.values()) == sorted(full.values(), reverse=True)
    assert list(cut.items()) == list(full.items())[:top]
    assert one(y, scores=False).scores is None
    assert one(y, scores=False, top=top).label == one(y).label


def test_equal_scores_are_decided_by_the_slot() -> None:
    assert one(np.zeros((1, 1, 8), np.float32)).label == "a"


@pytest.mark.parametrize(
    ("ways", "shots", "temperature"),
    [(1, 0.5, 1), (2, 1, 1), (3, 2.9, 1), (3, 3, 2), (4, 0, 3), (4, 1, 3), (8, 3, 4), (8, 1000, 4)],
)
def test_the_cell_of_the_calibration_is_the_nearest_lower_one_or_the_first(
    ways: int, shots: float, temperature: float
) -> None:
    names = tuple("abcdefgh"[:ways]) + (None,) * (8 - ways)
    y = np.arange(8, dtype=np.float32)[None, None]
    (answer,) = read(y, Reading(CALIBRATED.output, Labels(names), shots), ReadOptions())
    assert isinstance(answer, ClassAnswer)
    want = softmax(y[0, 0, :ways] / np.float32(temperature))
    assert answer.scores == pytest.approx(dict(zip("abcdefgh", want, strict=False)))


@given(logits(1), st.floats(0.01, 0.99), st.floats(0.01, 0.99), st.sampled_from([0.5, 1, 3, 9]))
def test_the_set_holds_the_best_label_and_grows_with_the_confidence(
    y: np.ndarray, one_level: float, other_level: float, shots: float
) -> None:
    less, more = sorted((one_level, other_level))
    narrow, wide = (one(y, confidence=level, shots=shots) for level in (less, more))
    assert narrow.set is not None
    assert wide.set is not None
    assert narrow.label in narrow.set
    assert set(narrow.set) <= set(wide.set)
    for answer in (narrow, wide):
        assert answer.abstained == (len(answer.set or ()) != 1)


def test_the_set_holds_the_scores_that_reach_one_minus_the_quantile_and_the_highest_up_to_the_confidence() -> None:
    temperature = np.float32(3)
    y = np.log(np.array([[[0.45, 9, 0.25, 0.22, 9, 0.05, 9, 0.03]]], np.float32)) * temperature
    assert one(y, confidence=0.5).set == ("a", "c")  # none reaches 0.5, but the two sum to 0.7
    assert one(y, confidence=0.6).set == ("a", "c", "d")  # 0.2 is reached: the quantile is of the next level, 0.9
    assert one(y, confidence=0.9).set == ("a", "c", "d")
    assert one(y, confidence=0.91).set == ("a", "c", "d", "f", "h")  # beyond what was fitted
    assert one(y).set == ("a", "c", "d", "f", "h")  # the default is 0.95


def test_without_calibration_there_is_no_set_and_a_confidence_is_refused() -> None:
    y = np.zeros((1, 1, 8), np.float32)
    assert (one(y, PLAIN).set, one(y, PLAIN).abstained) == (None, None)
    with pytest.raises(NotAccepted, match=r"options\.confidence"):
        one(y, PLAIN, confidence=0.9)


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("members", [1, FEW])
def test_logits_that_are_no_numbers_have_no_answer(broken: float, members: int) -> None:
    y = np.zeros((4, members, 8), np.float32)
    y[2] = broken
    assert [answer is None for answer in answers(y)] == [False, False, True, False]
    error = not_finite(Reading(PLAIN.output, LABELS, 1), "inputs[2]")
    assert str(error).startswith("inputs[2]: gives scores that are not finite")


@given(logits(members=2), st.sampled_from([PLAIN, CALIBRATED]), st.integers(1, 9), st.floats(0.01, 0.99))
def test_rows_of_few_logits_and_of_many_are_read_alike(
    y: np.ndarray, where: Manifest, top: int, confidence: float
) -> None:
    many = np.tile(y, (1, FEW, 1))  # as many members as make numpy read them, with the same mean
    options = {"top": top, "confidence": None if where is PLAIN else confidence}
    for few, same in zip(answers(y, where, **options), answers(many, where, **options), strict=True):
        assert isinstance(few, ClassAnswer)
        assert isinstance(same, ClassAnswer)
        assert sorted((few.scores or {}).values()) == pytest.approx(sorted((same.scores or {}).values()), abs=1e-12)
        assert few.score == pytest.approx(same.score)
        gap = np.diff(np.sort(list((answers(y, where)[0] or few).scores.values())))  # type: ignore[union-attr]
        if len(y) == 1 and gap.size and gap.min() > 1e-9:
            assert (few.label, list(few.scores or {})) == (same.label, list(same.scores or {}))


def test_a_label_with_a_logit_of_minus_infinity_has_the_score_0() -> None:
    y = np.zeros((1, 1, 8), np.float32)
    y[..., 0] = -np.inf
    assert (one(y).scores or {})["a"] == 0
