"""The measurements of a run of known tasks, kept in its directory: a figure of each task, and its values by row."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .errors import ConfigInvalid
from .multitask import MultiTask
from .paired import half_width
from .runs import Run, write_json
from .task_data import open_tasks
from .task_measuring import TaskFigure, figures
from .training import load_trained


@dataclass(frozen=True, slots=True)
class Measured:
    """A run, its learner, and the figure of each of its tasks."""

    run: Run
    learner: MultiTask
    figures: tuple[TaskFigure, ...]
    sizes: tuple[int, ...]

    @property
    def by_task(self) -> dict[str, TaskFigure]:
        """The figures by the task's id."""
        return {each.task: each for each in self.figures}


def measure_known(run: Run, data: Path, *, split: str = "report") -> Measured:
    """The figures of a run on the rows that are for the report; they are kept in `evaluation.json` and `notes.json`.

    Raises:
        RunUnfinished: the run has no weights yet.
        ConfigInvalid: it is no run of known tasks.
    """
    learner = load_trained(run)
    if not isinstance(learner, MultiTask):
        raise ConfigInvalid(f"{run.folder}: no run of known tasks")
    tasks = open_tasks(run.read_config(), data)
    found = Measured(run, learner, tuple(figures(learner, tasks.rows(split))), tuple(tasks.sizes()))
    write_json(run.evaluation, {"split": split, "tasks": [_row(each, size) for each, size
                                                         in zip(found.figures, found.sizes, strict=True)]})  # fmt: skip
    write_json(run.notes, {each.task: {"evaluation": _note(each)} for each in found.figures})
    return found


def _row(each: TaskFigure, size: int) -> dict[str, Any]:
    return {"task": each.task, "metric": each.metric, "mean": each.mean, "interval": half_width(each.values),
            "rows": len(each.values), "training_rows": size}  # fmt: skip


def _note(each: TaskFigure) -> dict[str, Any]:
    return {each.metric: round(each.mean, 4), "interval": round(half_width(each.values), 4), "rows": len(each.values)}


def evaluation_page(measured: Sequence[Measured], command: str) -> str:
    """A page with the figures of each task, of one run or of several side by side."""
    lines = ["# Known tasks", "", "Written by the command below; nothing here is copied by hand.", "",
             f"    {command}", "",
             "Figures on rows that were neither trained on nor used to choose anything; ± is the half-width of the "
             "95 % interval over rows.", ""]  # fmt: skip
    for each in measured:
        config = each.run.read_config()
        score = np.mean([figure.mean for figure in each.figures if figure.higher] or [np.nan])
        lines += [f"## {config.name}, seed {config.seed}", "",
                  "| task | figure | mean | ± | rows | training rows |", "| --- | --- | ---: | ---: | ---: | ---: |",
                  *(_line(figure, size) for figure, size in zip(each.figures, each.sizes, strict=True)), "",
                  f"The mean over tasks whose figure is better when higher: {score:.4f}.", ""]  # fmt: skip
    return "\n".join(lines)


def _line(each: TaskFigure, size: int) -> str:
    interval = half_width(each.values)
    return f"| {each.task} | {each.metric} | {each.mean:.4f} | {interval:.4f} | {len(each.values)} | {size} |"
