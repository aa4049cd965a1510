"""Exam scores of the pupils of 139 London schools; a school is a task, described by a record of what is known of it.

Nuttall, Goldstein, Prosser, Rasbash, "Differential school effectiveness" (1989); as a multi-task set since Bakker,
Heskes, "Task clustering and gating for Bayesian multitask learning" (2003). The file names no columns: their order is
that paper's, the names of sex and of the bands are read off the scores (girls and band 1 have higher ones).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from . import digests
from .described_bayes import DescribedBayes, DescribedEpisodes
from .errors import ConfigInvalid
from .learner import Learner
from .records import RecordMlp
from .school_baselines import ridge
from .school_splits import SCHOOLS, numbers
from .tasks import EpisodeShape, Examples

FILE = "school.npz"
DIGESTS = {FILE: "021e11d5b591c4a8c48b58506881c12bc166060e0f61386de231f462f6ec29e4"}
ANY = "any-school"
GUESS_PENALTY = 1.0
CROSSED_PENALTY = 1000.0

PUPIL: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("year", ("1985", "1986", "1987")),
    ("free_meals", ()),
    ("band_1", ()),
    ("sex", ("girl", "boy")),
    ("band", ("3", "1", "2")),
    ("ethnic_group", tuple(str(number) for number in range(1, 12))),
)
"""The fields of a pupil's record: categories, or none for a number. Free meals and band 1: % of the school's year."""

SCHOOL: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("sexes", ("mixed", "boys", "girls")),
    ("denomination", ("maintained", "church-of-england", "roman-catholic")),
    ("free_meals", ()),
    ("band_1", ()),
)
"""The fields of a school's record; free meals and band 1 are means over its pupils, in %."""


def sizes(fields: Sequence[tuple[str, tuple[str, ...]]]) -> tuple[int, ...]:
    """The number of categories of each field, 0 for a number."""
    return tuple(len(categories) for _, categories in fields)


@dataclass(frozen=True, slots=True)
class School:
    """The pupils of one school.

    Attributes:
        number: As in the file.
        x: float32 `[pupil, 6]`, records of `PUPIL`.
        y: float32 `[pupil]`, scores of 1 to 70 points.
        columns: float64 `[pupil, 28]`, the file's columns, for the baselines.
        metadata: float32 `[4]`, the record of `SCHOOL`.
    """

    number: int
    x: NDArray[np.float32]
    y: NDArray[np.float32]
    columns: NDArray[np.float64]
    metadata: NDArray[np.float32]


def load(folder: Path, split: int, part: str) -> list[School]:
    """The schools of a part of a split, in the order of their numbers.

    Args:
        folder: The data folder, which holds `school_ilea/`.
        split: 0..29.
        part: As in `school_splits.numbers`.

    Raises:
        DataMissing: the file is not there.
        DataDamaged: the file is not the published one.
        DataUnknown: no such split or part.
    """
    chosen = numbers(split, part)
    schools = _schools(digests.check(folder / "school_ilea" / FILE, DIGESTS))
    return [schools[number] for number in chosen]


@lru_cache(maxsize=2)
def _schools(path: Path) -> tuple[School, ...]:
    with np.load(path, allow_pickle=False) as file:
        columns, y, school = file["x"].astype(np.float64), file["y"].astype(np.float32), file["school"]
    return tuple(_school(number, columns[school == number], y[school == number]) for number in range(SCHOOLS))


def _school(number: int, columns: NDArray[np.float64], y: NDArray[np.float32]) -> School:
    index = {
        first: _index(columns[:, first:end]) for first, end in ((0, 3), (5, 7), (7, 10), (10, 21), (21, 24), (24, 27))
    }
    x = np.stack([index[0], columns[:, 3], columns[:, 4], index[5], index[7], index[10]], 1)
    metadata = np.array([index[21][0], index[24][0], columns[:, 3].mean(), columns[:, 4].mean()])
    return School(number, x.astype(np.float32), y, columns, metadata.astype(np.float32))


def _index(dummies: NDArray[np.float64]) -> NDArray[np.int64]:
    """The category of each row; the index after the last where there is none."""
    return np.asarray(np.where(dummies.any(1), dummies.argmax(1), dummies.shape[1]))


def examples(chosen: Sequence[tuple[School, NDArray[np.int64]]]) -> Examples:
    """A task for each (school, pupils), padded to one length with pupils of weight 0."""
    length = max(1, *(len(pupils) for _, pupils in chosen))
    weight = np.zeros((len(chosen), length), np.float32)
    x, y = np.zeros((*weight.shape, len(PUPIL)), np.float32), np.zeros((*weight.shape, 1), np.float32)
    for place, (school, pupils) in enumerate(chosen):
        x[place, : len(pupils)], y[place, : len(pupils), 0] = school.x[pupils], school.y[pupils]
        weight[place, : len(pupils)] = 1
    return Examples({"x": torch.from_numpy(x)}, torch.from_numpy(y), torch.from_numpy(weight))


def metadata_of(schools: Sequence[School]) -> Tensor:
    """Records of schools, float32 `[school, 4]`."""
    return torch.from_numpy(np.stack([school.metadata for school in schools]))


@dataclass(frozen=True, slots=True)
class Schools:
    """The source of tasks: a shot is a random pupil (0: none), the query other pupils of the school."""

    schools: Sequence[School]

    def draw(self, generator: np.random.Generator, shape: EpisodeShape) -> DescribedEpisodes:
        """See `TaskSource`."""
        shot = int(generator.integers(shape.shot[0], shape.shot[1], endpoint=True))
        support, query = [], []
        for place in generator.integers(len(self.schools), size=shape.tasks).tolist():
            school = self.schools[place]
            pupils = generator.permutation(len(school.y))
            support.append((school, pupils[:shot]))
            query.append((school, pupils[shot : shot + shape.query]))
        described = {"metadata": metadata_of([school for school, _ in support])}
        return DescribedEpisodes(examples(support), examples(query), described)


def prepare(learner: Learner, schools: Sequence[School]) -> None:
    """Standardise records and scores by the training schools, and give the pooled regression as the guess to mend."""
    learner, encoder = _described(learner)
    pupils, y = (np.concatenate([getattr(school, name) for school in schools]) for name in ("x", "y"))
    encoder.expanded.fit(torch.from_numpy(pupils))
    learner.metadata.fit(metadata_of(schools))
    learner.fit_units(float(y.mean()), float(y.std()))
    records = torch.from_numpy(np.repeat(metadata_of(schools).numpy(), [len(school.y) for school in schools], 0))
    parts = [encoder.terms(torch.from_numpy(pupils)), learner.metadata(records)]
    penalty = np.full(sum(part.shape[1] for part in parts), GUESS_PENALTY)
    penalty[encoder.expanded.width : parts[0].shape[1]] = CROSSED_PENALTY
    weights, level = ridge(torch.cat(parts, 1).double().numpy(), (y - y.mean()) / y.std(), penalty)
    with torch.no_grad():
        found, terms = torch.from_numpy(weights).float(), parts[0].shape[1]
        encoder.direct.weight.copy_(found[:terms])
        encoder.direct.bias.fill_(level)
        learner.direct.weight.copy_(found[terms:])


def finish(learner: Learner, schools: Sequence[School]) -> None:
    """Keep the state of `ANY`, which is that of no school in particular, and the posterior of each training school."""
    learner, _ = _described(learner)
    learner.remember(0, any_school(schools), None)
    for place, school in enumerate(schools, 1):
        everyone = np.arange(len(school.y))
        learner.remember(place, metadata_of([school]), examples([(school, everyone)]))


def any_school(schools: Sequence[School]) -> Tensor:
    """A record `[1, 4]` of no school in particular: the commonest categories, the mean of numbers."""
    records = metadata_of(schools)
    middle = [
        records[:, place].mode().values if size else records[:, place].mean()
        for place, size in enumerate(sizes(SCHOOL))
    ]
    return torch.stack(middle).unsqueeze(0)


def known_ids(split: int, *, select: bool) -> tuple[str, ...]:
    """The ids of the known tasks of a split: `ANY`, then the schools that train."""
    return (ANY, *(f"school-{number}" for number in numbers(split, "fit" if select else "train")))


def _described(learner: Learner) -> tuple[DescribedBayes, RecordMlp]:
    encoder = getattr(learner, "encoder", None)
    if isinstance(learner, DescribedBayes) and isinstance(encoder, RecordMlp):
        return learner, encoder
    raise ConfigInvalid("learner.method: 'described-bayes' for data.set = 'schools'")
