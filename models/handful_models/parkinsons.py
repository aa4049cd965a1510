"""Parkinson's telemonitoring: the course of a disease from voice recordings made at home; a patient is a task.

Tsanas, Little, McSharry, Ramig, "Accurate telemonitoring of Parkinson's disease progression by noninvasive speech
tests" (2010). The severity (UPDRS) was judged three times in six months and interpolated in time by the authors.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from . import digests
from .errors import DataUnknown
from .learner import Learner
from .paired import Row, check_room, row
from .tasks import Episodes, EpisodeShape, Examples, answers

FILE = "parkinsons_updrs.parquet"
DIGESTS = {FILE: "8fcedfc725a752b05e51e012a351338e550ffd7f42f476a9d3538e99deb7a09d"}
INPUTS = (
    "age", "sex", "test_time", "Jitter_pct", "Jitter_abs", "Jitter_RAP", "Jitter_PPQ5", "Jitter_DDP", "Shimmer",
    "Shimmer(dB)", "Shimmer_APQ3", "Shimmer_APQ5", "Shimmer_APQ11", "Shimmer_DDA", "NHR", "HNR", "RPDE", "DFA", "PPE",
)  # fmt: skip
TIME = INPUTS.index("test_time")
FOLDS = 6
SPLITS = {
    "train": "four of the six folds (28 patients)",
    "selection": "the next fold (7)",
    "report": "the fold itself (7)",
}
DAYS = (1, 2, 4, 8)
RECORDINGS_A_DAY = 6

Scale = Literal["total_UPDRS", "motor_UPDRS"]

_FOLD_SEED = 2010


@dataclass(frozen=True, slots=True)
class Patient:
    """The recordings of one patient, in the order of their time.

    Attributes:
        number: As in the file.
        x: float32 `[recording, 19]`, the columns of `INPUTS`; `test_time` in days since the first visit.
        y: float32 `[recording]`, the points of the severity scale.
        day: int64 `[recording]`: 0 for the first test day, 1 for the second, whatever lies between them.
    """

    number: int
    x: NDArray[np.float32]
    y: NDArray[np.float32]
    day: NDArray[np.int64]

    def before(self, day: int) -> NDArray[np.int64]:
        """The recordings of the first `day` test days."""
        return np.flatnonzero(self.day < day)

    def since(self, day: int) -> NDArray[np.int64]:
        """The recordings after the first `day` test days."""
        return np.flatnonzero(self.day >= day)


def load(folder: Path, split: str, *, fold: int = 0, scale: Scale = "total_UPDRS") -> list[Patient]:
    """The patients of a split.

    Args:
        folder: The data folder, which holds `parkinsons_telemonitoring/`.
        split: A key of `SPLITS`.
        fold: 0..5, the fold of the report; the next one is for selection, the others train.
        scale: The target.

    Raises:
        DataMissing: the file is not there.
        DataDamaged: the file is not the published one.
        DataUnknown: no such split or fold.
    """
    if split not in SPLITS:
        raise DataUnknown("split", split, sorted(SPLITS))
    if fold not in range(FOLDS):
        raise DataUnknown("fold", str(fold), [str(known) for known in range(FOLDS)])
    table = _table(digests.check(folder / "parkinsons_telemonitoring" / FILE, DIGESTS))
    numbers = np.unique(table["subject"])
    place = (np.argsort(np.random.default_rng(_FOLD_SEED).permutation(len(numbers))) - fold) % FOLDS
    chosen = {"report": place == 0, "selection": place == 1, "train": place > 1}[split]
    return [_patient(table, number, scale) for number in numbers[chosen].tolist()]


def _table(path: Path) -> dict[str, NDArray[np.float64]]:
    from pyarrow import parquet  # noqa: PLC0415 — the one place that needs it

    columns = parquet.read_table(path)
    return {name: columns[name].to_numpy().astype(np.float64) for name in columns.column_names}


def _patient(table: dict[str, NDArray[np.float64]], number: float, scale: Scale) -> Patient:
    rows = np.flatnonzero(table["subject"] == number)
    rows = rows[np.argsort(table["test_time"][rows], kind="stable")]
    return Patient(
        number=int(number),
        x=np.stack([table[name][rows] for name in INPUTS], 1).astype(np.float32),
        y=table[scale][rows].astype(np.float32),
        day=np.unique(np.floor(table["test_time"][rows]), return_inverse=True)[1].astype(np.int64),
    )


def input_statistics(patients: list[Patient]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the inputs, float32 `[19]` each; every patient counts alike."""
    mean = np.mean([patient.x.mean(0) for patient in patients], 0)
    variance = np.mean([np.square(patient.x - mean).mean(0) for patient in patients], 0)
    return torch.from_numpy(mean).float(), torch.from_numpy(np.sqrt(variance)).float()


def target_statistics(patients: list[Patient]) -> tuple[float, float]:
    """Mean and standard deviation of the target; every patient counts alike."""
    mean = float(np.mean([patient.y.mean() for patient in patients]))
    return mean, float(np.sqrt(np.mean([np.square(patient.y - mean).mean() for patient in patients])))


@dataclass(frozen=True, slots=True)
class Patients:
    """The source of tasks; input `x` float32 `[19]`, target number.

    A shot is a test day with all its recordings (0: none). The support set is of days in a row, the query is drawn from
    the recordings of later days.

    Attributes:
        anywhere: Whether the days in a row start on any day; else on the first, as in the report.
    """

    patients: list[Patient]
    anywhere: bool = False

    def draw(self, generator: np.random.Generator, shape: EpisodeShape) -> Episodes:
        """See `TaskSource`."""
        shot = int(generator.integers(shape.shot[0], shape.shot[1], endpoint=True))
        tasks = []
        for index in generator.integers(len(self.patients), size=shape.tasks):
            patient = self.patients[index]
            first = int(generator.integers(max(1, patient.day[-1] - shot + 1))) if self.anywhere else 0
            support = np.flatnonzero((patient.day >= first) & (patient.day < first + shot))
            later = patient.since(min(first + shot, int(patient.day[-1])))
            query = generator.choice(later, shape.query, replace=len(later) < shape.query)
            tasks.append((patient, support, query))
        return _episodes(tasks)


def _episodes(tasks: list[tuple[Patient, NDArray[np.int64], NDArray[np.int64]]]) -> Episodes:
    """A batch of (patient, recordings of the support set, recordings of the query)."""
    return Episodes(
        _padded([(patient, rows) for patient, rows, _ in tasks]),
        _padded([(patient, rows) for patient, _, rows in tasks]),
    )


def _padded(chosen: list[tuple[Patient, NDArray[np.int64]]]) -> Examples:
    length = max(1, *(len(rows) for _, rows in chosen))
    x = np.zeros((len(chosen), length, len(INPUTS)), np.float32)
    y, weight = np.zeros((len(chosen), length, 1), np.float32), np.zeros((len(chosen), length), np.float32)
    for place, (patient, rows) in enumerate(chosen):
        x[place, : len(rows)], y[place, : len(rows), 0] = patient.x[rows], patient.y[rows]
        x[place, len(rows) :] = patient.x[0]  # absent, but of a size that no encoder stumbles over
        weight[place, : len(rows)] = 1
    return Examples({"x": torch.from_numpy(x)}, torch.from_numpy(y), torch.from_numpy(weight))


def evaluate(learner: Learner, folder: Path, *, seed: int, fold: int = 0, scale: Scale = "total_UPDRS") -> list[Row]:
    """The report on the patients of one fold; see `evaluate_folds`. Nothing is drawn, so the seed is without effect."""
    return _rows([(learner, patient) for patient in load(folder, "report", fold=fold, scale=scale)])


def evaluate_folds(
    learner_of: Callable[[int], Learner], folder: Path, *, seed: int, scale: Scale = "total_UPDRS"
) -> list[Row]:
    """The report on all patients, each by the learner of the fold that left the patient out.

    A row for each of `DAYS`: the mean absolute error on recordings after the eighth test day, from the recordings of
    the first days as support, beside the baselines. A difference below 0 is in the learner's favour.

    Args:
        learner_of: The learner trained without a fold.
        folder: The data folder, which holds `parkinsons_telemonitoring/`.
        seed: Without effect, since nothing is drawn.
        scale: The target.
    """
    pairs = []
    for fold in range(FOLDS):
        learner = learner_of(fold)
        pairs += [(learner, patient) for patient in load(folder, "report", fold=fold, scale=scale)]
    return _rows(pairs)


def select(learner: Learner, folder: Path, *, seed: int, fold: int = 0, scale: Scale = "total_UPDRS") -> float:
    """Minus the mean absolute error on the selection fold, averaged over `DAYS`; higher is better."""
    patients = load(folder, "selection", fold=fold, scale=scale)
    return -float(np.mean([_error(learner, patient, days) for patient in patients for days in DAYS]))


def _rows(pairs: list[tuple[Learner, Patient]]) -> list[Row]:
    rows = []
    for days in DAYS:
        errors = [_error(learner, patient, days) for learner, patient in pairs]
        baselines = {
            name: [_mean_absolute(guess(patient, days), patient) for _, patient in pairs]
            for name, guess in BASELINES.items()
        }
        title = f"{days} test day{'s' if days > 1 else ''}"
        rows.append(row(title, "mean absolute error, points of UPDRS", errors, baselines))
    return rows


@torch.no_grad()
def _error(learner: Learner, patient: Patient, days: int) -> float:
    support = patient.before(days)
    check_room(learner, len(support))
    answer = answers(learner.eval(), _episodes([(patient, support, patient.since(max(DAYS)))]))
    return _mean_absolute(answer[0, ..., 0].mean(-1).numpy(), patient)


def _mean_absolute(guess: NDArray[np.floating], patient: Patient) -> float:
    return float(np.abs(guess - patient.y[patient.since(max(DAYS))]).mean())


def _support_mean(patient: Patient, days: int) -> NDArray[np.floating]:
    return np.full(len(patient.since(max(DAYS))), patient.y[patient.before(days)].mean())


def _last_value(patient: Patient, days: int) -> NDArray[np.floating]:
    return np.full(len(patient.since(max(DAYS))), patient.y[patient.before(days)][-1])


def _line_in_time(patient: Patient, days: int) -> NDArray[np.floating]:
    """The least-squares line through the support set; its mean where it has one day only."""
    if days < 2:
        return _support_mean(patient, days)
    support = patient.before(days)
    slope, level = np.polyfit(patient.x[support, TIME].astype(np.float64), patient.y[support], 1)
    return np.asarray(level + slope * patient.x[patient.since(max(DAYS)), TIME])


BASELINES = {"support mean": _support_mean, "last value": _last_value, "line in time": _line_in_time}
