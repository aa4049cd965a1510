"""Labels, slots and the limits of support sets."""

import time
import unicodedata
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.tiny import Tiny, manifest

from handful_service.bundle.manifest import Manifest
from handful_service.errors import LabelUnknown, SupportSetInvalid
from handful_service.predictor.supports import (
    assign_slots,
    check_limits,
    check_weight,
    effective_shots,
    read_label,
    support_set,
)
from handful_service.task import Labels


def described(**options: Any) -> Manifest:
    return Manifest.model_validate(manifest(Tiny(**options)))


OPEN, FIXED = described(open_ways=4), described(labels=("ham", "spam"))
REAL = described(weights="real")
HISTORIES = st.lists(st.tuples(st.booleans(), st.sampled_from("abcdef")), max_size=40)


@given(HISTORIES)
def test_a_label_keeps_its_slot_for_as_long_as_it_has_examples_whatever_comes_and_goes(
    history: list[tuple[bool, str]],
) -> None:
    examples: list[str] = []
    slots = assign_slots([], OPEN)
    for adds, label in history:
        if adds and len({*examples, label}) <= 4:
            examples.append(label)
        elif not adds and label in examples:
            examples.remove(label)
        before, slots = slots, assign_slots(examples, OPEN, slots)
        assert {label for _, label in slots.present} == set(examples)
        assert len(slots.slots) == 4
        for slot, known in before.present:
            assert known not in examples or slots.slots.index(known) == slot


def test_a_new_label_takes_the_lowest_free_slot() -> None:
    slots = assign_slots(["a", "b", "c", "a"], OPEN)
    assert slots.slots == ("a", "b", "c", None)
    slots = assign_slots(["a", "c"], OPEN, slots)
    assert slots.slots == ("a", None, "c", None)
    assert assign_slots(["a", "c", "d", "e"], OPEN, slots).slots == ("a", "d", "c", "e")


def test_slots_beyond_the_ways_of_another_version_are_given_up() -> None:
    before = Labels((None, "a", None, None, None, "b"))
    assert assign_slots(["a", "b"], OPEN, before).slots == ("b", "a", None, None)


def test_fixed_labels_have_the_slots_of_the_list() -> None:
    assert assign_slots(["spam"], FIXED, Labels(("spam", None))).slots == ("ham", "spam")


@given(st.text(min_size=1, max_size=300))
def test_a_label_is_compared_in_nfc_or_refused_with_its_place(label: str) -> None:
    composed = unicodedata.normalize("NFC", label)
    unprintable = any(unicodedata.category(character) in ("Cc", "Cs") for character in composed)
    if len(composed) > 256 or unprintable:
        with pytest.raises(SupportSetInvalid, match=r"^support\[3\]\.label: "):
            read_label(label, OPEN, "support[3].label")
    else:
        assert read_label(label, OPEN, "f") == composed
        assert read_label(unicodedata.normalize("NFD", label), OPEN, "f") == composed


def test_a_label_of_256_characters_is_taken_in_any_form_and_one_of_257_is_not() -> None:
    assert read_label(unicodedata.normalize("NFD", "ᾂ" * 256), OPEN, "f") == "ᾂ" * 256  # four characters each
    with pytest.raises(SupportSetInvalid, match="257 characters") as refused:
        read_label("e\u0301" * 257, OPEN, "f")
    assert refused.value.allowed == "1 to 256"


@pytest.mark.parametrize("label", ["", "a\x00", "a\nb", "\x7f", "\ud800"])
def test_an_empty_label_or_one_with_control_characters_is_refused(label: str) -> None:
    with pytest.raises(SupportSetInvalid):
        read_label(label, OPEN, "f")


def test_a_huge_label_is_refused_without_being_normalised() -> None:
    started = time.monotonic()
    with pytest.raises(SupportSetInvalid, match="2000001 characters"):
        read_label("a" + "\u0315\u0300" * 1_000_000, OPEN, "f")  # sorting these marks would take minutes
    assert time.monotonic() - started < 5


def test_a_label_outside_a_fixed_list_is_refused_with_the_list() -> None:
    assert read_label("spam", FIXED, "f") == "spam"
    with pytest.raises(LabelUnknown, match="'Spam'") as refused:
        read_label("Spam", FIXED, "support[0].label")
    assert refused.value.allowed == "one of ['ham', 'spam']"


@pytest.mark.parametrize(("weight", "good"), [(1.0, True), (0.5, False), (0, False), (2, False)])
def test_binary_weights_are_one(weight: float, good: bool) -> None:
    taken_or_refused(weight, OPEN, good)


@pytest.mark.parametrize(
    ("weight", "good"),
    [(0.5, True), (1e6, True), (0, False), (-1, False), (1.1e6, False), (float("nan"), False), (float("inf"), False)],
)
def test_real_weights_are_above_0_and_bounded(weight: float, good: bool) -> None:
    taken_or_refused(weight, REAL, good)


def taken_or_refused(weight: float, where: Manifest, good: bool) -> None:
    with nullcontext() if good else pytest.raises(SupportSetInvalid, match=r"^support\[0\]\.weight: "):
        check_weight(weight, where, "support[0].weight")


@pytest.mark.parametrize(
    ("labels", "found", "allowed"),
    [
        (list("abcde"), "5 labels", "at most 4 ways"),
        (["a"] * 6, "'a' has 6 examples", "at most 5 shots"),
        (list("abcd") * 3, "12 examples", "at most 10"),
        ([], "empty", "at least one"),
    ],
)
def test_a_limit_that_is_broken_is_told_with_both_numbers(labels: list[str], found: str, allowed: str) -> None:
    limited = described(open_ways=4, shots=5, examples=10)
    with pytest.raises(SupportSetInvalid, match=found) as refused:
        check_limits(labels, limited, "examples")
    assert refused.value.field == "examples"
    assert allowed in str(refused.value.allowed)
    check_limits(["a"] * 5 + ["b"] * 3 + ["c", "d"], limited)  # every limit met exactly


def test_an_empty_support_set_is_fine_where_the_base_is_one() -> None:
    check_limits([], FIXED)


def test_a_support_set_has_the_slots_of_its_labels() -> None:
    slots = Labels((None, "b", "a", None))
    found = support_set({"features": np.zeros((3, 2), np.float32)}, ["a", "b", "a"], [1, 0.5, 2], slots)
    assert (found.y.tolist(), found.y.dtype, found.weight.dtype) == ([2, 1, 2], np.int64, np.float32)
    assert found.weight.tolist() == [1, 0.5, 2]


def test_effective_shots_are_the_smallest_sum_of_weights_over_the_labels_that_are_there() -> None:
    assert effective_shots(["a", "b", "a"], [1, 0.5, 2]) == 0.5
    assert effective_shots(["a", "b", "b", "b"], [2, 1, 1, 1]) == 2
    assert effective_shots([], []) == 0
