"""How well a learner does each of its known tasks: one figure of a task, as a mean over its rows.

The figures that are no means by nature (area under the curve, micro-F1, root of a mean square) are written as means
of their influence values (Hampel 1974), which have the figure as their mean: resampling rows then means averaging.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .calibration import CONFIDENCE, conformal_quantiles, fit_temperature
from .intervals import score_quantiles
from .learner import Reader
from .multitask import MultiTask
from .task_sampling import TaskBatch, TaskRows

ROWS_AT_ONCE = 512


@dataclass(frozen=True, slots=True)
class TaskFigure:
    """One figure of one task.

    Attributes:
        task: Its id.
        metric: `AUC` of two labels, `accuracy` of more, `micro-F1` of any of several, `RMSE` of numbers, in their
            units.
        higher: Whether more is better.
        values: float64 `[row]`, whose mean is the figure; the rows with a missing label are left out.
    """

    task: str
    metric: str
    higher: bool
    values: NDArray[np.float64]

    @property
    def mean(self) -> float:
        """The figure."""
        return float(self.values.mean())


@torch.no_grad()
def columns_of(learner: MultiTask, task: int, rows: TaskRows) -> Tensor:
    """The columns that a task reads, `[row, column]`, of a learner in evaluation mode."""
    first, last = learner.readers[task].columns
    parts = []
    for start in range(0, len(rows), ROWS_AT_ONCE):
        part = rows.at(torch.arange(start, min(start + ROWS_AT_ONCE, len(rows))))
        batch = TaskBatch((task,), (part,))
        state = learner.describe("id", {"index": batch.index})
        parts.append(learner.predict(learner.encode(part.x), state)[:, 0, first:last])
    return torch.cat(parts)


def figures(learner: MultiTask, rows: Sequence[TaskRows]) -> list[TaskFigure]:
    """The figure of each task on rows of it."""
    learner.eval()
    return [
        figure(reader, part, columns_of(learner, task, part))
        for task, (reader, part) in enumerate(zip(learner.readers, rows, strict=True))
    ]


def figure(reader: Reader, rows: TaskRows, columns: Tensor) -> TaskFigure:
    """The figure of a task, of its columns `[row, column]`."""
    if reader.kind == "labels":
        return TaskFigure(reader.id, "micro-F1", True, _f1(rows, columns))
    kept = rows.weight > 0
    y, found = rows.y[kept].numpy(), columns[kept].double().numpy()
    if reader.kind == "number":
        squares = np.square(found[:, 0] - y[:, 0])
        root = math.sqrt(squares.mean())
        return TaskFigure(reader.id, "RMSE", False, root + (squares - root**2) / (2 * max(root, 1e-12)))
    if len(reader.labels) == 2:
        return TaskFigure(reader.id, "AUC", True, _auc(found[:, 1] - found[:, 0], y))
    return TaskFigure(reader.id, "accuracy", True, (found.argmax(1) == y).astype(np.float64))


def _auc(score: NDArray[np.float64], y: NDArray[np.int64]) -> NDArray[np.float64]:
    """Influence values of the area under the curve: DeLong, DeLong, Clarke-Pearson (1988), placements of each row."""
    positive, negative = np.sort(score[y == 1]), np.sort(score[y == 0])
    if not len(positive) or not len(negative):
        raise ValueError("the area under the curve needs rows of both labels")
    below = np.searchsorted(negative, score, "left") + np.searchsorted(negative, score, "right")
    above = 2 * len(positive) - np.searchsorted(positive, score, "left") - np.searchsorted(positive, score, "right")
    placed = np.where(y == 1, below / (2 * len(negative)), above / (2 * len(positive)))
    area = placed[y == 1].mean()
    share = np.where(y == 1, len(positive), len(negative)) / len(y)
    return np.asarray(area + (placed - area) / share)


def _f1(rows: TaskRows, columns: Tensor) -> NDArray[np.float64]:
    kept = rows.weight.numpy() > 0
    truth, said = (rows.y.numpy() > 0.5) & kept, (columns.numpy() > 0) & kept
    hits, marks = 2.0 * (truth & said).sum(1), (truth.sum(1) + said.sum(1)).astype(np.float64)
    some = kept.any(1)
    hits, marks = hits[some], marks[some]
    value = hits.sum() / max(marks.sum(), 1.0)
    return np.asarray(value + (hits - value * marks) / max(marks.mean(), 1e-12))


def selection_score(learner: MultiTask, rows: Sequence[TaskRows]) -> float:
    """The mean over tasks of the figure, for numbers of the explained part of the variance."""
    found = figures(learner, rows)
    scores = [
        each.mean if each.higher else 1 - each.mean**2 / part.y[part.weight > 0].var(correction=0).item()
        for each, part in zip(found, rows, strict=True)
    ]
    return float(np.mean(scores))


def calibrations(learner: MultiTask, rows: Sequence[TaskRows]) -> dict[str, dict[str, Any]]:
    """The calibration of each task's output, fitted on rows that were not trained on."""
    learner.eval()
    return {
        reader.id: calibration_of(reader, part, columns_of(learner, task, part))
        for task, (reader, part) in enumerate(zip(learner.readers, rows, strict=True))
    }


def calibration_of(reader: Reader, rows: TaskRows, columns: Tensor) -> dict[str, Any]:
    """The calibration of one task's output, of its columns `[row, column]` on rows that were not trained on."""
    shots = [max(reader.shots, 0.0)]
    if reader.kind == "labels":
        return _thresholds(rows, columns)
    kept = rows.weight > 0
    columns, y = columns[kept], rows.y[kept]
    if reader.kind == "number":
        score = (y[:, 0] - columns[:, 0]).abs() * torch.exp(-columns[:, 1] / 2)
        return {"shots": shots, "confidence": list(CONFIDENCE),
                "quantile": [score_quantiles(score.double().numpy(), CONFIDENCE)]}  # fmt: skip
    temperature = round(fit_temperature(columns.unsqueeze(1), y), 4)
    truth = (columns / temperature).softmax(-1).gather(1, y.unsqueeze(1)).squeeze(1)
    return {"ways": [len(reader.labels)], "shots": shots, "confidence": list(CONFIDENCE),
            "temperature": [[temperature]],
            "quantile": [[conformal_quantiles(1 - truth.double().numpy(), CONFIDENCE)]]}  # fmt: skip


def _thresholds(rows: TaskRows, columns: Tensor) -> dict[str, Any]:
    """One temperature for all labels, of least cross-entropy; for each label the threshold of the best F1."""
    kept = rows.weight > 0
    pairs = torch.stack([torch.zeros_like(columns), columns], -1)[kept]
    temperature = round(fit_temperature(pairs.unsqueeze(1), rows.y[kept].long()), 4)
    chances = torch.sigmoid(columns / temperature).double().numpy()
    truth, known = rows.y.numpy() > 0.5, kept.numpy()
    return {"temperature": temperature,
            "threshold": [_best_threshold(chances[known[:, k], k], truth[known[:, k], k])
                          for k in range(columns.shape[1])]}  # fmt: skip


def _best_threshold(chances: NDArray[np.float64], truth: NDArray[np.bool_]) -> float:
    """The chance from which a label is said; a half where none of the rows has it."""
    if not truth.any():
        return 0.5
    order = np.argsort(-chances, kind="stable")
    hits, said = np.cumsum(truth[order]), np.arange(1, len(order) + 1)
    best = int(np.argmax(2 * hits / (said + truth.sum())))
    return round(float(np.clip(chances[order][best], 1e-6, 1 - 1e-6)), 6)
