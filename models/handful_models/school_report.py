"""The figures on held-out schools: a school counts once, with its mean over the splits that hold it out."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from .described_bayes import DescribedEpisodes, described_answers
from .errors import ConfigInvalid
from .learner import DescribedLearner, Learner
from .paired import Row, row
from .school_baselines import Baselines
from .schools import School, examples, load, metadata_of

SHOTS = (0, 1, 5, 20)
DRAWS = 5
NORMAL_90 = 1.6448536269514722
FIGURES = ("error", "coverage", "pooled", "offset")
POOLED, OFFSET = "pooled ridge", "pooled + shrunken school offset"

Values = dict[str, NDArray[np.float64]]


def evaluate(learner_of: Callable[[int], Learner], folder: Path, splits: Sequence[int], *, seed: int) -> list[Row]:
    """The report on the held-out schools of some splits, each by the learner of that split.

    Rows for each of `SHOTS` random pupils beside the school's metadata: squared error, and the share of scores in the
    90 % interval; at 5 pupils also explained variance. A school's value is its mean over `DRAWS` choices of pupils and
    over splits; the queries are its other pupils.

    Args:
        learner_of: The learner trained on a split's other schools.
        folder: The data folder, which holds `school_ilea/`.
        splits: Of 0..29.
        seed: Of the choices.

    Raises:
        ConfigInvalid: a learner is not described.
        DataMissing: the file is not there.
        DataDamaged: the file is not the published one.
    """
    found: dict[int, dict[int, list[list[float]]]] = {shot: {} for shot in SHOTS}
    variances = []
    for split in splits:
        learner, train = learner_of(split), load(folder, split, "train")
        baselines = baselines_of(train, SHOTS)
        variances.append(np.concatenate([school.y for school in train]).var())
        for school in load(folder, split, "report"):
            for shot in SHOTS:
                figures = _figures(learner, school, shot, baselines, seed=seed + 1000 * split)
                found[shot].setdefault(school.number, []).append(figures)
    rows = [each for shot in SHOTS for each in _rows(shot, _by_school(found[shot]))]
    return [*rows, _explained(_by_school(found[5]), float(np.mean(variances)))]


def select(learner: Learner, folder: Path, split: int, *, seed: int) -> float:
    """Minus the squared error on the selection schools of a split, in points², after 5 random pupils."""
    errors = [_squared(learner, school, 5, seed=seed)[0] for school in load(folder, split, "selection")]
    return -float(np.mean(errors))


def baselines_of(train: Sequence[School], shots: Sequence[int]) -> Baselines:
    """The baselines that training schools give."""
    return Baselines([school.columns for school in train], [school.y.astype(np.float64) for school in train], shots)


def orders(school: School, seed: int) -> list[NDArray[np.int64]]:
    """`DRAWS` random orders of a school's pupils; the first of each are its support set."""
    generator = np.random.default_rng([seed, school.number])
    return [generator.permutation(len(school.y)) for _ in range(DRAWS)]


def _by_school(found: dict[int, list[list[float]]]) -> Values:
    values = np.array([np.mean(found[number], 0) for number in sorted(found)])
    return dict(zip(FIGURES, values.T, strict=True))


def _rows(shot: int, values: Values) -> list[Row]:
    title = f"metadata and {shot} pupil{'s' if shot > 1 else ''}" if shot else "metadata alone"
    baselines = {POOLED: values["pooled"], **({OFFSET: values["offset"]} if shot else {})}
    return [
        row(title, "squared error, points²", values["error"], baselines),
        row(title, "coverage of the 90 % interval", values["coverage"]),
    ]


def _explained(values: Values, variance: float) -> Row:
    share = {name: 1 - values[name] / variance for name in ("error", "pooled", "offset")}
    baselines = {POOLED: share["pooled"], OFFSET: share["offset"]}
    return row("metadata and 5 pupils", "explained share of the scores' variance", share["error"], baselines)


def _figures(learner: Learner, school: School, shot: int, baselines: Baselines, *, seed: int) -> list[float]:
    residuals = school.y - baselines.pooled(school.columns)
    chosen = orders(school, seed)
    level = [np.mean(residuals[order[shot:]] ** 2) for order in chosen]
    left = [np.mean((residuals[order[shot:]] - baselines.offset(residuals[order[:shot]])) ** 2) for order in chosen]
    return [*_squared(learner, school, shot, seed=seed), float(np.mean(level)), float(np.mean(left))]


@torch.no_grad()
def _squared(learner: Learner, school: School, shot: int, *, seed: int) -> tuple[float, float]:
    """The squared error, and the share inside the 90 % interval, over the draws."""
    if not isinstance(learner, DescribedLearner):
        raise ConfigInvalid(f"{type(learner).__name__} takes no description of a school")
    chosen = orders(school, seed)
    support, query = (
        examples([(school, order[part]) for order in chosen]) for part in (slice(shot), slice(shot, None))
    )
    metadata = metadata_of([school]).expand(len(chosen), -1)
    answer = described_answers(learner.eval(), DescribedEpisodes(support, query, {"metadata": metadata}))[..., 0, :]
    distance = (answer[..., 0] - query.y[..., 0]).abs()
    inside = distance <= NORMAL_90 * (0.5 * answer[..., 1]).exp()
    return float(distance.square().mean()), float(inside.float().mean())
