"""Bundles whose labels and outputs are numbers: the manifest, labels, intervals, golden requests."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.broken import edit_requests
from tests.tiny_number import INTERVALS, TinyNumber, build, manifest

from handful_service.bundle.bundle import Bundle
from handful_service.bundle.manifest import Manifest, parse_manifest
from handful_service.checking import check
from handful_service.engine.slots import SlotTables
from handful_service.errors import (
    BundleInvalid,
    NotAccepted,
    RequestInvalid,
    SupportSetInvalid,
    TaskConflict,
)
from handful_service.predictor.labelling import labelling
from handful_service.predictor.reading import NumberAnswer, Reading, ReadOptions, check_options, not_finite, read
from handful_service.store.values import label_text, text_label
from handful_service.task import Labels

VARIANTS = [
    TinyNumber(),
    TinyNumber(statistics=False, base=False),
    TinyNumber(members=3, calibration=INTERVALS, weights="real"),
]
PLAIN = Manifest.model_validate(manifest(TinyNumber()))
CALIBRATED = Manifest.model_validate(manifest(TinyNumber(calibration=INTERVALS)))
FLOAT32 = st.floats(width=32, allow_nan=False, allow_infinity=False)


def one(y: Any, where: Manifest = PLAIN, shots: float = 1, **options: Any) -> NumberAnswer:
    check_options(where.output, ReadOptions(**options))
    reading = Reading(where.output, Labels(()), shots)
    (answer,) = read(np.array([y], np.float32), reading, ReadOptions(**options))
    assert isinstance(answer, NumberAnswer)
    return answer


@pytest.mark.parametrize("tiny", VARIANTS)
def test_a_good_bundle_passes_whatever_its_parts(tmp_path: Path, tiny: TinyNumber) -> None:
    result = asyncio.run(check(build(tmp_path, tiny)))
    assert (result["ok"], result["output"]) == (True, {"kind": "number", "members": tiny.members})
    assert "ways" not in result["limits"]


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda parts: parts["output"].update(labels=["a"]), "output"),
        (lambda parts: parts["output"].update(labels="open"), "output"),
        (lambda parts: parts["output"].update(kind="class", labels="open", calibration=None), "limits.ways"),
        (lambda parts: parts["support"].update(kind="class"), "support.kind: class, but the output is of kind number"),
        (lambda parts: parts["limits"].update(ways=3), "limits.ways"),
        (lambda parts: parts["limits"].update(shots=3), "limits.shots"),
        (lambda parts: parts.update(invariant=["order", "labels"]), "invariant"),
        (lambda parts: parts.update(format="1.0"), "came with 1.1"),
        (lambda parts: parts["output"]["calibration"].update(confidence=[0.9, 0.5]), "confidence must rise"),
        (lambda parts: parts["output"]["calibration"].update(confidence=[0.9, 1.0]), "less than 1"),
        (lambda parts: parts["output"]["calibration"].update(shots=[1]), "a cell for each"),
        (lambda parts: parts["output"]["calibration"].update(quantile=[[2, 1], [1, 2]]), "must not fall"),
        (lambda parts: parts["output"]["calibration"].update(quantile=[[0, 1], [1, 2]]), "greater than 0"),
        (lambda parts: parts["output"]["calibration"].update(temperature=[[1], [1]]), "temperature"),
    ],
)
def test_parts_that_do_not_fit_numbers_are_refused(edit: Callable[[dict[str, Any]], object], words: str) -> None:
    parts = manifest(TinyNumber(calibration=INTERVALS))
    parse_manifest(json.dumps(parts).encode())
    edit(parts)
    with pytest.raises(BundleInvalid) as refused:
        parse_manifest(json.dumps(parts).encode())
    assert words in str(refused.value)


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda found: found[0]["answers"][0].update(value=9.0), "answered"),
        (lambda found: found[0]["answers"][1].update(interval=[-1.0, 5.0]), "answered"),
        (lambda found: found[0]["answers"][0].update(interval=[1.0]), "cannot be read"),
        (lambda found: found[0].update(answers=[{"scores": {"a": 1.0}}] * 2), "of another kind"),
        (lambda found: found[0]["support"][0].update(label="three"), "support[0].label"),
        (lambda found: found[0]["support"][0].update(label=True), "support[0].label"),
    ],
)
def test_golden_requests_hold_the_value_and_the_interval(
    tmp_path: Path, edit: Callable[[Any], Any], words: str
) -> None:
    folder = build(tmp_path)
    edit_requests(folder, edit)
    assert Bundle.open(folder).name == "numbers"
    with pytest.raises(BundleInvalid, match=r"golden_requests\.json\[0\]") as refused:
        asyncio.run(check(folder))
    assert words in str(refused.value)


@given(st.lists(st.tuples(st.floats(-100, 100), st.floats(-5, 5)), min_size=1, max_size=5), st.floats(0.01, 0.999))
def test_members_are_mixed_as_gaussians(members: list[tuple[float, float]], confidence: float) -> None:
    y = np.array(members, np.float32)
    found = one(y, confidence=confidence)
    means, variances = y[:, 0].astype(float), np.exp(y[:, 1].astype(float))
    half = NormalDist().inv_cdf((1 + confidence) / 2) * np.sqrt(variances.mean() + means.var())
    assert found.value == pytest.approx(means.mean())
    assert found.interval == pytest.approx((means.mean() - half, means.mean() + half), abs=1e-9)


@pytest.mark.parametrize(
    ("shots", "confidence", "half"),
    [
        (0, 0.3, 1), (1, 0.5, 1), (2.9, 0.51, 3), (1, 0.9, 3), (1, 0.95, 3), (3, 0.5, 0.5), (99, 0.9, 1.5),
        (3, 0.95, NormalDist().inv_cdf(0.975)), (3, 0.99, NormalDist().inv_cdf(0.995)), (1, 0.99, 3),
        (1, 0.9999, NormalDist().inv_cdf(0.99995)),
    ],
)  # fmt: skip
def test_the_interval_is_that_of_the_nearest_lower_shots_and_never_less_sure_than_asked(
    shots: float, confidence: float, half: float
) -> None:
    found = one([[10, np.log(4)]], CALIBRATED, shots, confidence=confidence)
    assert found.interval == pytest.approx((10 - 2 * half, 10 + 2 * half), rel=1e-6)
    assert one([[10, np.log(4)]], CALIBRATED, shots) == one([[10, np.log(4)]], CALIBRATED, shots, confidence=0.95)


def test_the_highest_confidence_there_is_gives_a_finite_interval() -> None:
    low, high = one([[0, 0]], confidence=float(np.nextafter(1, 0))).interval
    assert 8 < high == -low < 10


@pytest.mark.parametrize(("options", "place"), [({"top": 1}, "options.top"), ({"scores": False}, "options.scores")])
def test_options_of_scores_are_refused(options: dict[str, Any], place: str) -> None:
    with pytest.raises(NotAccepted) as refused:
        one([[0, 0]], **options)
    assert refused.value.field == place


@pytest.mark.parametrize("broken", [[np.nan, 0], [np.inf, 0], [0, np.nan], [0, -np.inf], [0, 1000], [3e38, 705]])
def test_what_is_not_finite_is_refused_and_never_answered(broken: list[float]) -> None:
    y = np.array([[[0, 0]], [broken]], np.float32)
    if np.isfinite(broken).all() and broken[1] < 709:
        assert np.isfinite(one([broken]).interval).all()
        return
    reading = Reading(PLAIN.output, Labels(()), 1)
    first, second = read(y, reading, ReadOptions())
    assert (first is None, second is None) == (False, True)
    assert str(not_finite(reading, "inputs[1]")).startswith("inputs[1]: gives a number that is not finite")


@pytest.mark.parametrize("label", ["7", "", True, False, None, [1.0]])
def test_a_label_that_is_no_number_is_refused_with_what_to_send(label: Any) -> None:
    with pytest.raises(RequestInvalid, match=r"^support\[3\]\.label") as refused:
        labelling(PLAIN).read(label, 1, "support[3]")
    assert "a JSON number" in str(refused.value.allowed)


@pytest.mark.parametrize("label", [float("nan"), float("inf"), 3.5e38, -1e300, 10**400])
def test_a_number_that_float32_cannot_hold_is_refused(label: float) -> None:
    with pytest.raises(SupportSetInvalid, match=r"^support\[3\]\.label") as refused:
        labelling(PLAIN).read(label, 1, "support[3]")
    assert "e+38" in str(refused.value.allowed)


@given(st.lists(st.tuples(FLOAT32, st.floats(0.1, 10)), max_size=10))
def test_a_support_set_has_its_numbers_and_the_sum_of_its_weights_as_shots(examples: list[tuple[float, float]]) -> None:
    rules, labels, weights = labelling(PLAIN), [label for label, _ in examples], [weight for _, weight in examples]
    found = rules.support({"x": np.zeros((len(labels), 4), np.float32)}, labels, weights, rules.slots(labels))
    assert (found.y.dtype, found.y.shape) == (np.float32, (len(labels), 1))
    assert found.y[:, 0].tolist() == labels
    assert rules.shots(labels, weights) == pytest.approx(sum(weights))


@given(st.floats(allow_nan=False, allow_infinity=False) | st.text(st.characters(exclude_categories=("Cc",))))
def test_a_label_comes_out_of_the_store_as_it_went_in(label: float | str) -> None:
    found = text_label(label_text(label))
    assert (type(found), repr(found)) == (type(label), repr(label))


def test_labels_of_the_other_kind_are_a_conflict() -> None:
    with pytest.raises(TaskConflict, match="labels of the adaptation are names"):
        labelling(PLAIN).slots([1.0, "a"])


def test_a_state_of_whole_numbers_stays_one_in_the_slots() -> None:
    tables = SlotTables(PLAIN.state, 3)
    for slot in range(3):
        tables.write(slot, {"slope": np.full(4, slot, np.float32), "seen": np.array([2**53 + slot], np.int64)})
    found = tables.gather([2, 0, 2])
    assert found["seen"].dtype == np.int64
    assert found["seen"][:, 0].tolist() == [2**53 + 2, 2**53, 2**53 + 2]
