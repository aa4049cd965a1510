"""UCI Adult, the census of 1994: income, weekly hours and occupation of a person, from 11 attributes.

Becker, Kohavi (1996). None of the three stands among the inputs, nor `fnlwgt`, the weight of a row in the census: what
it says of a person is where others like them live. The official split; the last tenth of its training part selects.
An unknown occupation («?») is missing, and masked in its loss.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .errors import DataMissing
from .learner import Reader
from .record_encoder import RecordEncoder, RecordField, rows_of
from .task_sampling import TaskBatch, TaskRows, chosen_tasks, drawn_places

NUMBERS = {"age": (0, 130), "education_num": (1, 16), "capital_gain": (0, None), "capital_loss": (0, None)}
"""Fields that are numbers, with the least and the most that is accepted."""

CATEGORIES = (
    "workclass", "education", "marital_status", "relationship", "race", "sex", "native_country",
)  # fmt: skip
MISSING = "?"
INCOME = ("at most 50K", "above 50K")
TASKS = ("income", "hours", "occupation")
FILE = Path("uci_adult") / "adult.parquet"


class AdultTasks:
    """See `KnownTasks`: every row belongs to all three tasks.

    Args:
        data: The data folder.
        only: Ids of the tasks that are wanted; all if none.

    Raises:
        DataMissing: the file is not there.
        ConfigInvalid: no such task.
    """

    def __init__(self, data: Path, only: Sequence[str] = ()) -> None:
        columns = _read(data)
        train = np.flatnonzero(columns["split"] == "train")
        kept = len(train) - len(train) // 10
        places = {"train": train[:kept], "select": train[kept:], "report": np.flatnonzero(columns["split"] == "test")}
        self.fields = fields_of({name: column[train] for name, column in columns.items()})
        x = rows_of(self.fields, {field.name: columns[field.name].tolist() for field in self.fields})
        jobs = [str(job) for job in np.unique(columns["occupation"]) if job != MISSING]
        y = _labels(columns, jobs)
        chosen = chosen_tasks(TASKS, only)
        self._rows = {
            split: [TaskRows({"x": x[where]}, y[task][0][where], y[task][1][where]) for task in chosen]
            for split, where in places.items()
        }
        self.readers = tuple(_reader(task, jobs, rows)
                             for task, rows in zip(chosen, self._rows["train"], strict=True))  # fmt: skip

    def sizes(self) -> list[int]:
        """See `KnownTasks`: rows whose label is known."""
        return [int(rows.weight.sum()) for rows in self._rows["train"]]

    def draw(self, generator: np.random.Generator, counts: Sequence[int]) -> TaskBatch:
        """See `KnownTasks`."""
        drawn = [(task, count) for task, count in enumerate(counts) if count]
        return TaskBatch(
            tuple(task for task, _ in drawn),
            tuple(self._rows["train"][task].at(drawn_places(generator, len(self._rows["train"][task]), count))
                  for task, count in drawn),
        )  # fmt: skip

    def rows(self, split: str) -> list[TaskRows]:
        """The rows of `train`, `select` or `report`, by task."""
        return self._rows[split]

    def fit(self, learner: Any) -> None:
        """Standardise records and numbers by the training rows."""
        if isinstance(learner.encoder, RecordEncoder):
            learner.encoder.fit(self._rows["train"][0].x["x"])
        for task, (reader, rows) in enumerate(zip(self.readers, self._rows["train"], strict=True)):
            if reader.kind == "number":
                learner.fit_units(task, rows.y.mean().item(), rows.y.std(correction=0).item())


def _read(data: Path) -> dict[str, np.ndarray]:
    from pyarrow import parquet  # noqa: PLC0415 (only data in this form needs it)

    path = data / FILE
    if not path.is_file():
        raise DataMissing(path)
    table = parquet.read_table(path)
    return {name: np.array(table[name].to_pylist()) for name in table.column_names}


def fields_of(columns: dict[str, np.ndarray]) -> tuple[RecordField, ...]:
    """The fields of a record, from training columns: an unknown country or class of work folds into «other»."""
    numbers = (RecordField(name, "number", minimum=low, maximum=high, default=_default(name))
               for name, (low, high) in NUMBERS.items())  # fmt: skip
    categories = (
        RecordField(
            name, "category", tuple(str(value) for value in np.unique(columns[name])),
            default=MISSING if MISSING in columns[name] else None,
            unseen="other" if name in ("native_country", "workclass") else "refuse",
        )
        for name in CATEGORIES
    )  # fmt: skip
    return (*numbers, *categories)


def _default(name: str) -> float | None:
    """Most people have neither gains nor losses; their age and education must be given."""
    return 0.0 if name in ("capital_gain", "capital_loss") else None


def _labels(columns: dict[str, np.ndarray], jobs: Sequence[str]) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Of each task, the labels and the weights of all rows."""
    ones = torch.ones(len(columns["income"]))
    place = {job: number for number, job in enumerate(jobs)}
    occupation = np.array([place.get(job, 0) for job in columns["occupation"].tolist()])
    return {
        "income": (torch.from_numpy(columns["income"].astype(np.int64)), ones),
        "hours": (torch.from_numpy(columns["hours_per_week"].astype(np.float32))[:, None], ones),
        "occupation": (
            torch.from_numpy(occupation.astype(np.int64)),
            torch.from_numpy((columns["occupation"] != MISSING).astype(np.float32)),
        ),
    }


def _reader(task: str, jobs: Sequence[str], rows: TaskRows) -> Reader:
    if task == "hours":
        words = "Hours that the person works in a week."
        return Reader(task, "number", (0, 2), shots=float(rows.weight.sum()), description=words)
    labels = INCOME if task == "income" else tuple(jobs)
    words = "Whether the person earns above 50,000 dollars a year." if task == "income" else "What the person works as."
    rarest = torch.bincount(rows.y[rows.weight > 0], minlength=len(labels)).min()
    return Reader(task, "class", (0, len(labels)), labels, float(rarest), description=words)
