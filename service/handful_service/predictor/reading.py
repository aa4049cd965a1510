"""From `y` to answers: the one place for softmax, members, calibration, conformal sets and intervals."""

import math
from bisect import bisect_left
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from ..bundle.outputs import Calibration, ClassOutput, LabelsOutput, NumberOutput, TaskReader
from ..errors import InputInvalid, NotAccepted
from ..task import Array, Labels

DEFAULT_CONFIDENCE = 0.95


@dataclass(slots=True)
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


@dataclass(slots=True)
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


@dataclass(slots=True)
class LabelsAnswer:
    """The prediction of one row: any of several labels.

    Attributes:
        labels: Those that hold, by falling score.
        scores: By label, highest first; each by itself in 0..1; None unless asked for.
    """

    labels: tuple[str, ...]
    scores: dict[str, float] | None


@dataclass(slots=True)
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

FEW = 64
"""Logits up to which plain Python is faster than numpy, whose every call costs as much as some of them."""


@dataclass(frozen=True, slots=True)
class _Cell:
    temperature: float
    confidence: float
    quantile: float | None


class Reading:
    """How the columns of a task state are read.

    Args:
        output: Says the kind of the answer, and holds the calibration.
        labels: The label of each column of logits; those without one are left out.
        shots: The task's effective shots.
        columns: The columns of the task in the whole of `y`.
    """

    __slots__ = ("_cells", "_readers", "columns", "names", "output", "places", "shots")

    def __init__(self, output: TaskReader, labels: Labels, shots: float, columns: slice = slice(None)) -> None:
        self.output, self.shots, self.columns = output, shots, columns
        self.places = [place for place, label in enumerate(labels.slots) if label is not None]
        self.names = tuple(label for label in labels.slots if label is not None)
        self._cells: dict[float | None, _Cell] = {}
        self._readers: dict[Hashable, Reader] = {}

    def reader(self, options: ReadOptions) -> "Reader":
        """`read` with this and some options: the same one whenever these are the same."""
        key = (options.confidence, options.top, options.scores)
        found = self._readers.get(key)
        if found is None:
            found = partial(read, reading=self, options=options)
            if len(self._readers) < MOST_CELLS:
                self._readers[key] = found
        return found

    @property
    def known(self) -> bool:
        """Whether it is known what the columns stand for: classes need labels."""
        return bool(self.names) or self.output.kind != "class"

    def cell(self, confidence: float | None) -> _Cell:
        """The temperature and the quantile of a conformal set at a confidence; None means the default."""
        found = self._cells.get(confidence)
        if found is None:
            table = self.output.calibration if isinstance(self.output, ClassOutput) else None
            found = _cell(table, len(self.names), self.shots, confidence)
            if len(self._cells) < MOST_CELLS:
                self._cells[confidence] = found
        return found


Reader = Callable[[Array], "list[Answer | None]"]

MOST_CELLS = 16
"""Confidences whose cell is kept, and options whose reader is: callers choose them."""


def read(y: Array, reading: Reading, options: ReadOptions) -> list[Answer | None]:
    """The answers of some rows of one task; None for a row whose columns are not finite: its input is too large.

    Args:
        y: Float32 `[n, member, column]`: logits, or the means and log-variances of numbers.
        reading: How they are read.
        options: What the caller wants, and the output can serve: see `check_options`.
    """
    y = y[:, :, reading.columns]
    if isinstance(reading.output, NumberOutput):
        return _numbers(y.astype(np.float64), reading.shots, reading.output, options)
    if isinstance(reading.output, LabelsOutput):
        return _any_of(y, reading.output, options)
    return _classes(y, reading, options)


def not_finite(reading: Reading, field: str) -> InputInvalid:
    """The error of a row for which `read` has no answer."""
    what = "a number that is" if reading.output.kind == "number" else "scores that are"
    return InputInvalid(f"gives {what} not finite", field=field, allowed="smaller numbers")


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


def _classes(y: Array, reading: Reading, options: ReadOptions) -> list[Answer | None]:
    cell = reading.cell(options.confidence)
    if len(y) * y.shape[1] * len(reading.places) <= FEW:
        return [_class_of_few(row, reading, cell, options) for row in y.tolist()]
    logits = y if y.shape[2] == len(reading.places) else y[:, :, reading.places]
    scores = _softmax(logits.astype(np.float64) / cell.temperature).mean(axis=1)
    orders = np.argsort(-scores, axis=1, kind="stable").tolist()  # which keeps the order of equal ones
    finite = np.isfinite(scores).all(axis=1).tolist()
    return [
        _answer(row, order, reading.names, cell, options) if good else None
        for row, order, good in zip(scores.tolist(), orders, finite, strict=True)
    ]


def _class_of_few(
    members: list[list[float]], reading: Reading, cell: _Cell, options: ReadOptions
) -> ClassAnswer | None:
    """The same as with numpy, for one row: a softmax for each member, their mean, and the answer."""
    scores = _softmax_of_few(members[0], reading.places, cell.temperature)
    if len(members) > 1:
        every = [scores, *(_softmax_of_few(row, reading.places, cell.temperature) for row in members[1:])]
        scores = [sum(of_label) / len(members) for of_label in zip(*every, strict=True)]
    if not math.isfinite(sum(scores)):
        return None
    order = sorted(range(len(scores)), key=scores.__getitem__, reverse=True)  # which keeps the order of equal ones
    return _answer(scores, order, reading.names, cell, options)


def _softmax_of_few(row: list[float], places: Sequence[int], temperature: float) -> list[float]:
    logits = row if len(row) == len(places) else [row[place] for place in places]
    most = max(logits)
    raised = [math.exp((logit - most) / temperature) for logit in logits]  # of what is infinite, NaN
    total = sum(raised)
    return [part / total for part in raised]


def _any_of(y: Array, output: LabelsOutput, options: ReadOptions) -> list[Answer | None]:
    """A sigmoid for each label, its mean over the members, and the labels whose mean reaches their threshold."""
    names, table = output.labels, output.calibration
    logits = y.astype(np.float64) / (1.0 if table is None else table.temperature)
    with np.errstate(over="ignore"):  # of a very low logit, whose score is 0
        scores = (1 / (1 + np.exp(-logits))).mean(axis=1)
    threshold = np.full(len(names), DEFAULT_THRESHOLD) if table is None else np.array(table.threshold)
    found: list[Answer | None] = []
    for row, good in zip(scores, np.isfinite(scores).all(axis=1), strict=True):
        order = np.argsort(-row, kind="stable")
        shown = {names[place]: float(row[place]) for place in order[: options.top]} if options.scores else None
        labels = tuple(names[place] for place in order if row[place] >= threshold[place])
        found.append(LabelsAnswer(labels, shown) if good else None)
    return found


def _numbers(y: NDArray[np.float64], shots: float, output: NumberOutput, options: ReadOptions) -> list[Answer | None]:
    """The members' Gaussians mixed into one: the law of total variance."""
    means, log_variances = y[..., 0], y[..., 1]
    value = means.mean(axis=1)
    with np.errstate(over="ignore", invalid="ignore"):  # what is not finite has no answer
        deviation = np.sqrt(np.exp(log_variances).mean(axis=1) + means.var(axis=1))
        half = output.half_width(shots, options.confidence or DEFAULT_CONFIDENCE) * deviation
        finite = np.isfinite(y).all(axis=(1, 2)) & np.isfinite(value - half) & np.isfinite(value + half)
    rows = zip(value.tolist(), half.tolist(), finite.tolist(), strict=True)
    return [NumberAnswer(v, (v - h, v + h)) if good else None for v, h, good in rows]


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


def _answer(
    scores: list[float], order: list[int], names: tuple[str, ...], cell: _Cell, options: ReadOptions
) -> ClassAnswer:
    """The answer of a row, given its scores and their places from the highest on."""
    chosen = None
    if cell.quantile is not None:
        size = _set_size([scores[place] for place in order], cell.confidence, cell.quantile)
        chosen = tuple([names[place] for place in order[:size]])
    shown = {names[place]: scores[place] for place in order[: options.top]} if options.scores else None
    best = order[0]
    return ClassAnswer(names[best], scores[best], shown, chosen, None if chosen is None else len(chosen) != 1)


def _set_size(falling: list[float], confidence: float, quantile: float) -> int:
    """How many of the highest scores are in the set.

    The conformal set alone is empty where no score reaches its threshold, which is where doubt is greatest. So the
    set also holds the highest scores up to a sum of the confidence; a larger set covers no less.
    """
    conformal = 0
    while conformal < len(falling) and falling[conformal] >= 1 - quantile:
        conformal += 1
    credible, total = 1, falling[0]
    while credible < len(falling) and total < confidence:
        total += falling[credible]
        credible += 1
    return max(conformal, credible)
