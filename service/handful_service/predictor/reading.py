"""From `y` to answers: the one place for softmax, members, calibration, conformal sets and intervals."""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..bundle.outputs import Calibration, ClassOutput, LabelsOutput, NumberOutput, TaskReader
from ..errors import InputInvalid, NotAccepted
from ..task import Array, Labels

DEFAULT_CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """What the caller wants of an answer.

    Attributes:
        confidence: Of the conformal set or the interval; None means the default.
        top: How many scores to give, from the highest; None means all.
        scores: Whether to give scores by label at all.
    """

    confidence: float | None = None
    top: int | None = None
    scores: bool = True


@dataclass(frozen=True, slots=True)
class ClassAnswer:
    """The prediction of one row: a label.

    Attributes:
        scores: By label, highest first; None unless asked for.
        set: The labels that hold the truth at the confidence; None for a bundle without calibration.
        abstained: Whether the set does not single out one label; None where there is no set.
    """

    label: str
    score: float
    scores: dict[str, float] | None
    set: tuple[str, ...] | None
    abstained: bool | None


@dataclass(frozen=True, slots=True)
class LabelsAnswer:
    """The prediction of one row: any of several labels.

    Attributes:
        labels: Those that hold, by falling score.
        scores: By label, highest first; each by itself in 0..1; None unless asked for.
    """

    labels: tuple[str, ...]
    scores: dict[str, float] | None


@dataclass(frozen=True, slots=True)
class NumberAnswer:
    """The prediction of one row: a number.

    Attributes:
        interval: The central interval at the confidence, in the units of the value.
    """

    value: float
    interval: tuple[float, float]


Answer = ClassAnswer | LabelsAnswer | NumberAnswer

DEFAULT_THRESHOLD = 0.5
"""Of the score of a label that may hold beside others, where there is no calibration."""


@dataclass(frozen=True, slots=True)
class _Cell:
    temperature: float
    confidence: float
    quantile: float | None


def read(
    y: Array, labels: Labels, shots: float, output: TaskReader, options: ReadOptions, fields: Sequence[str]
) -> list[Answer]:
    """The answers of some rows of one task.

    Args:
        y: Float32 `[n, member, column]`, the columns of the task: logits, or the means and log-variances of numbers.
        labels: The label of each column of logits; those without one are left out.
        shots: The task's effective shots.
        output: Says the kind of the answer, and holds the calibration.
        options: What the caller wants.
        fields: The place of each row's input in the request, for messages.

    Raises:
        NotAccepted: an option that this kind of output, or one without calibration, cannot serve.
        InputInvalid: the columns of a row are not finite, because the input is too large.
    """
    check_options(output, options)
    if isinstance(output, NumberOutput):
        return list(_numbers(y.astype(np.float64), shots, output, options, fields))
    if isinstance(output, LabelsOutput):
        return list(_any_of(y, output, options, fields))
    return list(_classes(y, labels, shots, output, options, fields))


def check_options(output: TaskReader, options: ReadOptions, task: str | None = None) -> None:
    """Refuse an option that an output cannot serve.

    Raises:
        NotAccepted: it cannot.
    """
    who = "the model" if task is None else f"task {task!r}"
    name = "scores" if options.top is None else "top"
    if isinstance(output, NumberOutput) and (options.top is not None or not options.scores):
        raise NotAccepted(
            f"{who} predicts numbers, which have no scores", field=f"options.{name}", allowed="no " + name
        )
    if options.confidence is None or isinstance(output, NumberOutput):
        return
    if isinstance(output, LabelsOutput):
        what = f"{who} predicts any of its labels, each with a score of its own and no set"
        raise NotAccepted(what, field="options.confidence", allowed="no confidence")
    if output.calibration is None:
        raise NotAccepted(f"{who} has no calibration", field="options.confidence", allowed="no confidence")


def _classes(
    y: Array, labels: Labels, shots: float, output: ClassOutput, options: ReadOptions, fields: Sequence[str]
) -> list[ClassAnswer]:
    slots, names = zip(*labels.present, strict=True)
    cell = _cell(output.calibration, len(names), shots, options.confidence)
    scores = _softmax(y[:, :, list(slots)].astype(np.float64) / cell.temperature).mean(axis=1)
    _refuse_infinite(scores, fields)
    return [_answer(row, names, cell, options) for row in scores]


def _any_of(y: Array, output: LabelsOutput, options: ReadOptions, fields: Sequence[str]) -> list[LabelsAnswer]:
    """A sigmoid for each label, its mean over the members, and the labels whose mean reaches their threshold."""
    names, table = output.labels, output.calibration
    logits = y.astype(np.float64) / (1.0 if table is None else table.temperature)
    with np.errstate(over="ignore"):  # of a very low logit, whose score is 0
        scores = (1 / (1 + np.exp(-logits))).mean(axis=1)
    _refuse_infinite(scores, fields)
    threshold = np.full(len(names), DEFAULT_THRESHOLD) if table is None else np.array(table.threshold)
    found = []
    for row in scores:
        order = np.argsort(-row, kind="stable")
        shown = {names[place]: float(row[place]) for place in order[: options.top]} if options.scores else None
        found.append(LabelsAnswer(tuple(names[place] for place in order if row[place] >= threshold[place]), shown))
    return found


def _refuse_infinite(scores: NDArray[np.float64], fields: Sequence[str]) -> None:
    for place in np.flatnonzero(~np.isfinite(scores).all(axis=1)):
        raise InputInvalid("gives scores that are not finite", field=fields[int(place)], allowed="smaller numbers")


def _numbers(
    y: NDArray[np.float64], shots: float, output: NumberOutput, options: ReadOptions, fields: Sequence[str]
) -> list[NumberAnswer]:
    """The members' Gaussians mixed into one: the law of total variance."""
    means, log_variances = y[..., 0], y[..., 1]
    value = means.mean(axis=1)
    with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused below
        deviation = np.sqrt(np.exp(log_variances).mean(axis=1) + means.var(axis=1))
        half = output.half_width(shots, options.confidence or DEFAULT_CONFIDENCE) * deviation
        finite = np.isfinite(y).all(axis=(1, 2)) & np.isfinite(value - half) & np.isfinite(value + half)
    for place in np.flatnonzero(~finite):
        raise InputInvalid("gives a number that is not finite", field=fields[int(place)], allowed="smaller numbers")
    return [NumberAnswer(float(v), (float(v - h), float(v + h))) for v, h in zip(value, half, strict=True)]


def _cell(calibration: Calibration | None, ways: int, shots: float, confidence: float | None) -> _Cell:
    if calibration is None:
        return _Cell(1.0, DEFAULT_CONFIDENCE, None)
    row, column = calibration.cell(ways, shots)
    confidence = confidence or DEFAULT_CONFIDENCE
    level = bisect_left(calibration.confidence, confidence)
    quantiles = calibration.quantile[row][column]
    # Beyond the highest confidence that was fitted, only the set of all labels is sure.
    quantile = quantiles[level] if level < len(quantiles) else 1.0
    return _Cell(calibration.temperature[row][column], confidence, quantile)


def _softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    with np.errstate(invalid="ignore"):  # where all are infinite; `read` refuses the outcome
        raised = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=-1, keepdims=True))


def _answer(scores: NDArray[np.float64], names: tuple[str, ...], cell: _Cell, options: ReadOptions) -> ClassAnswer:
    order = np.argsort(-scores, kind="stable")
    chosen = None
    if cell.quantile is not None:
        chosen = tuple(names[place] for place in order[: _set_size(scores[order], cell.confidence, cell.quantile)])
    shown = {names[place]: float(scores[place]) for place in order[: options.top]} if options.scores else None
    best = int(order[0])
    return ClassAnswer(names[best], float(scores[best]), shown, chosen, None if chosen is None else len(chosen) != 1)


def _set_size(falling: NDArray[np.float64], confidence: float, quantile: float) -> int:
    """How many of the highest scores are in the set.

    The conformal set alone is empty where no score reaches its threshold, which is where doubt is greatest. So the
    set also holds the highest scores up to a sum of the confidence; a larger set covers no less.
    """
    conformal = int((falling >= 1 - quantile).sum())
    credible = int((falling.cumsum() < confidence).sum()) + 1
    return min(len(falling), max(conformal, credible))
