"""Labelled examples: what a label may be, which slot it gets, and the limits of a support set."""

import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..bundle.manifest import Manifest
from ..errors import LabelUnknown, SupportSetInvalid
from ..task import Arrays, Label, Labels, SupportSet

MAX_LABEL_CHARACTERS = 256
MAX_RAW_CHARACTERS = 4 * MAX_LABEL_CHARACTERS
"""NFC makes at most 4 characters one; normalising a long run of combining marks takes quadratic time."""

MIN_WEIGHT, MAX_WEIGHT = 1.0e-6, 1.0e6
"""Of real weights: sums of them keep their digits in float32."""

_UNPRINTABLE = ("Cc", "Cs")


@dataclass(frozen=True, slots=True)
class Labelled:
    """A labelled example as it came.

    Attributes:
        input: The raw input.
        field: Its place in the request, for messages.
    """

    input: Any
    label: Label
    weight: float
    field: str


def read_label(label: str, manifest: Manifest, field: str) -> str:
    """The label in the form that is compared: NFC.

    Raises:
        SupportSetInvalid: it is empty or too long, or holds a control character.
        LabelUnknown: it is not in the model's fixed list.
    """
    if len(label) <= MAX_RAW_CHARACTERS:
        label = unicodedata.normalize("NFC", label)
    if not 1 <= len(label) <= MAX_LABEL_CHARACTERS:
        raise SupportSetInvalid(
            f"the label has {len(label)} characters", field=field, allowed=f"1 to {MAX_LABEL_CHARACTERS}"
        )
    if any(unicodedata.category(character) in _UNPRINTABLE for character in label):
        raise SupportSetInvalid("the label holds a control character", field=field, allowed="text")
    if manifest.fixed_labels and label not in manifest.fixed_labels:
        raise LabelUnknown(f"unknown label {label!r}", field=field, allowed=f"one of {list(manifest.fixed_labels)}")
    return label


def check_weight(weight: float, manifest: Manifest, field: str) -> None:
    """Refuse a weight that the bundle does not take.

    Raises:
        SupportSetInvalid: not 1 where weights are binary, or not in the range of real weights.
    """
    real = manifest.support is not None and manifest.support.weights == "real"
    if not real and weight != 1:
        raise SupportSetInvalid(f"the weight is {weight:g}", field=field, allowed="1")
    if not MIN_WEIGHT <= weight <= MAX_WEIGHT:
        allowed = f"{MIN_WEIGHT:g} to {MAX_WEIGHT:g}"
        raise SupportSetInvalid(f"the weight is {weight:g}", field=field, allowed=allowed)


def assign_slots(labels: Iterable[str], manifest: Manifest, before: Labels | None = None) -> Labels:
    """The label of every slot.

    A label keeps its slot for as long as it has examples; a new one takes the lowest free slot; nothing shifts.
    Fixed labels have the slots of the bundle's list.

    Args:
        labels: The label of every active example, in event order.
        manifest: Says how many ways there are.
        before: The slots until now; those beyond the ways of this bundle are given up.
    """
    if manifest.fixed_labels:
        return Labels(manifest.fixed_labels)
    wanted = dict.fromkeys(labels)
    ways = manifest.ways
    kept = (*(before.slots if before else ()), *(None for _ in range(ways)))[:ways]
    slots = [label if label in wanted else None for label in kept]
    for label in wanted:
        if label not in slots:
            slots[slots.index(None)] = label
    return Labels(tuple(slots))


def check_count(count: int, manifest: Manifest, place: str = "support") -> None:
    """Refuse a support set of too many examples, or of none where there is no base.

    Raises:
        SupportSetInvalid: there are too many, or none.
    """
    if not count and manifest.base is None:
        raise SupportSetInvalid("is empty", field=place, allowed="at least one labelled example")
    most = manifest.limits.examples or 0
    if count > most:
        raise SupportSetInvalid(f"there are {count} examples", field=place, allowed=f"at most {most}")


def check_limits(labels: Sequence[str], manifest: Manifest, place: str = "support") -> None:
    """Refuse a support set of names beyond the model's limits, before any work is done.

    Args:
        labels: The label of every example.
        manifest: Holds the limits.
        place: What the request calls the examples, for messages.

    Raises:
        SupportSetInvalid: too many examples, or too many of one label; none at all where labels are open.
    """
    check_count(len(labels), manifest, place)
    most_ways, most_shots = manifest.ways, manifest.limits.shots or 0
    ways = len(set(labels))
    if ways > most_ways:
        raise SupportSetInvalid(f"there are {ways} labels", field=place, allowed=f"at most {most_ways} ways")
    for label, shots in Counter(labels).most_common(1):
        if shots > most_shots:
            raise SupportSetInvalid(
                f"label {label!r} has {shots} examples", field=place, allowed=f"at most {most_shots} shots"
            )


def support_set(features: Arrays, labels: Sequence[str], weights: Sequence[float], slots: Labels) -> SupportSet:
    """The arrays of labelled features, each `[example, *feature]`."""
    numbers = {label: slot for slot, label in slots.present}
    return SupportSet(
        features,
        np.array([numbers[label] for label in labels], np.int64),
        np.array(weights, np.float32),
    )


def effective_shots(labels: Sequence[str], weights: Sequence[float]) -> float:
    """The smallest sum of weights over the labels that have examples; 0 where none has."""
    sums: dict[str, float] = {}
    for label, weight in zip(labels, weights, strict=True):
        sums[label] = sums.get(label, 0.0) + weight
    return min(sums.values(), default=0.0)
