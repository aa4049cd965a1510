"""The data sets of known tasks, by the names that configs use, and learners and training steps on them."""

import csv
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from .adult import AdultTasks
from .alphabets_tasks import AlphabetTasks
from .config import KnownTasksConfig, TrainConfig
from .errors import ConfigInvalid, RunUnfinished
from .learner import Learner, Reader
from .multitask import MultiTask, MultiTaskOptions
from .record_encoder import RecordField
from .runs import Run, write_json
from .task_losses import backward
from .task_measuring import selection_score
from .task_sampling import KnownTasks, counts_of, mixture

LOG_EVERY = 50


def open_tasks(config: TrainConfig, data: Path) -> KnownTasks:
    """The data set of a config.

    Raises:
        DataMissing: a file is not there.
        ConfigInvalid: it is no data set of known tasks, or a task is unknown.
    """
    if not isinstance(config.data, KnownTasksConfig):
        raise ConfigInvalid(f"data.set: {config.data.set} has no known tasks")
    if config.data.set == "alphabets":
        return AlphabetTasks(data, config.augment, config.data.only)
    return AdultTasks(data, config.data.only)


def make_multitask(config: TrainConfig, readers: Sequence[Reader], fields: Sequence[RecordField]) -> MultiTask:
    """The learner of a config with fresh weights, for these tasks."""
    return MultiTask(readers, fields, MultiTaskOptions.model_validate(config.learner.options))


def fresh_multitask(config: TrainConfig, data: Path) -> MultiTask:
    """The learner that training begins with, in the units of the training rows."""
    tasks = open_tasks(config, data)
    learner = make_multitask(config, tasks.readers, tasks.fields)
    tasks.fit(learner)
    return learner


def keep_tasks(run: Run, learner: MultiTask) -> None:
    """Write what `read_multitask` needs of the data into the run directory."""
    fields = getattr(learner.encoder, "fields", ())
    write_json(run.tasks, {"readers": [asdict(each) for each in learner.readers],
                           "fields": [asdict(each) for each in fields]})  # fmt: skip


def read_multitask(run: Run) -> MultiTask:
    """The learner of a run, without its weights.

    Raises:
        RunUnfinished: the run has not begun.
    """
    if not run.tasks.exists():
        raise RunUnfinished(run.folder)
    found: dict[str, list[dict[str, Any]]] = json.loads(run.tasks.read_text(encoding="utf-8"))
    readers = [Reader(**{**each, "columns": tuple(each["columns"]), "labels": tuple(each["labels"])})
               for each in found["readers"]]  # fmt: skip
    fields = [RecordField(**{**each, "categories": tuple(each["categories"])}) for each in found["fields"]]
    return make_multitask(run.read_config(), readers, fields)


def task_steps(config: TrainConfig, tasks: KnownTasks, log: Path | None = None) -> Callable[[Learner, int], float]:
    """Steps of training on known tasks; the mean of each task's loss goes into a CSV, if one is named."""
    shares = mixture(tasks.sizes(), config.batches.temperature)
    kept: dict[int, list[float]] = {task: [] for task in range(len(tasks.readers))}

    def step(learner: Learner, number: int) -> float:
        assert isinstance(learner, MultiTask)  # noqa: S101 (for the type checker: the config says so)
        generator = np.random.default_rng([config.seed, number])
        batch = tasks.draw(generator, counts_of(generator, shares, config.batches.rows))
        losses = backward(learner, batch)
        for task, loss in zip(batch.tasks, losses.tolist(), strict=True):
            kept[task].append(loss)
        if log is not None and number % LOG_EVERY == 0:
            _append(log, number, [reader.id for reader in tasks.readers], list(kept.values()))
            for each in kept.values():
                each.clear()
        return float(losses.mean())

    return step


def _append(path: Path, step: int, ids: Sequence[str], losses: Sequence[Sequence[float]]) -> None:
    """Add a line, and take away those of a training that was cut off later than the step that it resumed from."""
    header, kept = ["step", *ids], []
    if path.exists():
        with path.open(newline="", encoding="utf-8") as file:
            kept = [row for row in csv.reader(file) if row[0] != "step" and int(row[0]) < step]
    with path.open("w", newline="", encoding="utf-8") as file:
        means = [f"{np.mean(each):.5g}" if each else "" for each in losses]
        csv.writer(file).writerows([header, *kept, [str(step), *means]])


def look_at(tasks: KnownTasks) -> Callable[[Learner], float]:
    """The score of a learner on the selection rows."""
    rows = tasks.rows("select")

    def look(learner: Learner) -> float:
        assert isinstance(learner, MultiTask)  # noqa: S101 (see task_steps)
        return selection_score(learner, rows)

    return look
