"""What examples are labelled with: names that get slots, or numbers. The one place where the two differ."""

import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from ..bundle.manifest import Manifest
from ..errors import LabelUnknown, RequestInvalid, SupportSetInvalid, TaskConflict
from ..task import Arrays, Label, Labels, SupportSet
from .supports import (
    assign_slots,
    check_count,
    check_limits,
    check_weight,
    effective_shots,
    read_label,
    support_set,
)

MAX_NUMBER = float(np.finfo(np.float32).max)


class Labelling(Protocol):
    """The rules of a bundle's labels."""

    def read(self, label: Label, weight: float, field: str) -> Label:
        """The label of an example at a place, in the form that is kept; a label or weight may be refused."""
        ...

    def check(self, labels: Sequence[Label], place: str = "support") -> None:
        """Refuse a support set beyond the model's limits, before any work is done."""
        ...

    def slots(self, labels: Sequence[Label], before: Labels | None = None) -> Labels:
        """The slots of the labels that an adaptation has, given those until now."""
        ...

    def support(self, features: Arrays, labels: Sequence[Label], weights: Sequence[float], slots: Labels) -> SupportSet:
        """The arrays of labelled features, each `[example, *feature]`."""
        ...

    def shots(self, labels: Sequence[Label], weights: Sequence[float]) -> float:
        """The effective shots of calibration."""
        ...


class Names:
    """Labels are names, each with a slot."""

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest

    def read(self, label: Label, weight: float, field: str) -> Label:
        """The label in NFC.

        Raises:
            RequestInvalid: it is a number.
            SupportSetInvalid: its length, or the weight, is out of range.
            LabelUnknown: it is not in the model's fixed list.
        """
        check_weight(weight, self._manifest, f"{field}.weight")
        if not isinstance(label, str):
            raise RequestInvalid(
                f"is the number {label!r:.40}",
                field=f"{field}.label",
                allowed="a string: the model tells classes apart",
            )
        return read_label(label, self._manifest, f"{field}.label")

    def check(self, labels: Sequence[Label], place: str = "support") -> None:
        """Refuse too many examples, labels, or examples of a label; none at all where there is no base.

        Raises:
            SupportSetInvalid: a limit is broken.
        """
        check_limits(_names(labels), self._manifest, place)

    def slots(self, labels: Sequence[Label], before: Labels | None = None) -> Labels:
        """The slots of the labels of an adaptation.

        Raises:
            LabelUnknown: an example has a label that this version's fixed list lacks.
            TaskConflict: there are more labels than this version has ways, or they are numbers.
        """
        names = _names(labels)
        fixed, ways = self._manifest.fixed_labels, self._manifest.ways
        if (count := len(set(names))) > ways:
            raise TaskConflict(f"the adaptation has {count} labels", field="version", allowed=f"at most {ways} ways")
        for name in names:
            if fixed and name not in fixed:
                raise LabelUnknown(
                    f"the adaptation has examples of {name!r}", field="version", allowed=f"{list(fixed)}"
                )
        return assign_slots(names, self._manifest, before)

    def support(self, features: Arrays, labels: Sequence[Label], weights: Sequence[float], slots: Labels) -> SupportSet:
        """The arrays, with slots as labels: int64 `[example]`."""
        return support_set(features, _names(labels), weights, slots)

    def shots(self, labels: Sequence[Label], weights: Sequence[float]) -> float:
        """The smallest sum of weights over the labels that have examples; 0 where none has."""
        return effective_shots(_names(labels), weights)


class Numbers:
    """Labels are numbers, without slots."""

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest

    def read(self, label: Label, weight: float, field: str) -> Label:
        """The label as a float.

        Raises:
            RequestInvalid: it is no number.
            SupportSetInvalid: it is larger than the graphs' float32 holds, or the weight is out of range.
        """
        check_weight(weight, self._manifest, f"{field}.weight")
        if isinstance(label, bool) or not isinstance(label, int | float):
            raise RequestInvalid(
                f"is {label!r:.40}", field=f"{field}.label", allowed="a JSON number: the model predicts numbers"
            )
        if not -MAX_NUMBER <= label <= MAX_NUMBER:  # which no NaN is, either
            raise SupportSetInvalid(
                f"the label is {label!r:.40}", field=f"{field}.label", allowed=f"-{MAX_NUMBER:g} to {MAX_NUMBER:g}"
            )
        return float(label)

    def check(self, labels: Sequence[Label], place: str = "support") -> None:
        """Refuse too many examples; none at all where there is no base.

        Raises:
            SupportSetInvalid: a limit is broken.
        """
        check_count(len(labels), self._manifest, place)

    def slots(self, labels: Sequence[Label], before: Labels | None = None) -> Labels:
        """No slots.

        Raises:
            TaskConflict: a label of the adaptation is a name.
        """
        _numbers(labels)
        return Labels(())

    def support(self, features: Arrays, labels: Sequence[Label], weights: Sequence[float], slots: Labels) -> SupportSet:
        """The arrays, with numbers as labels: float32 `[example, 1]`."""
        y = np.array(_numbers(labels), np.float32).reshape(-1, 1)
        return SupportSet(features, y, np.array(weights, np.float32))

    def shots(self, labels: Sequence[Label], weights: Sequence[float]) -> float:
        """The sum of all weights."""
        return math.fsum(weights)


def labelling(manifest: Manifest) -> Labelling:
    """The rules of the labels of a bundle."""
    return Numbers(manifest) if manifest.output.kind == "number" else Names(manifest)


def _names(labels: Sequence[Label]) -> list[str]:
    names = [label for label in labels if isinstance(label, str)]
    if len(names) < len(labels):
        raise _other_kind("numbers", "classes apart")
    return names


def _numbers(labels: Sequence[Label]) -> list[float]:
    numbers = [label for label in labels if not isinstance(label, str)]
    if len(numbers) < len(labels):
        raise _other_kind("names", "numbers")
    return numbers


def _other_kind(found: str, wanted: str) -> TaskConflict:
    return TaskConflict(
        f"the labels of the adaptation are {found}, and this version tells {wanted}",
        field="version",
        allowed="a version that learns from such labels",
    )
