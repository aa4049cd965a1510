"""What predicts a pupil's score without learning across schools: pooled ridge, and a school's shrunken offset."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

PENALTIES = (0.1, 1.0, 10.0, 100.0)
RATIOS = (2.0, 4.0, 6.0, 8.0, 10.0, 13.0, 16.0, 20.0, 26.0, 32.0, 48.0)
FOLDS = 5


def pooled(x: Array, y: Array, penalty: float) -> Callable[[Array], Array]:
    """Ridge regression of `y [n]` on standardised `x [n, columns]`, the level not penalised."""
    mean, scale = x.mean(0), x.std(0)
    scale = np.where(scale > 0, scale, 1.0)
    weights, level = ridge((x - mean) / scale, y, penalty)
    return lambda other: np.asarray(level + ((other - mean) / scale) @ weights)


def ridge(x: Array, y: Array, penalty: float | Array) -> tuple[Array, float]:
    """Weights `[columns]` and level of ridge regression of `y [n]` on `x [n, columns]`, the level not penalised.

    Args:
        x: Regressors.
        y: Numbers.
        penalty: Of all columns, or `[columns]`.
    """
    mean, level = x.mean(0), y.mean()
    centred = x - mean
    weights = np.linalg.solve(
        centred.T @ centred + np.diag(np.broadcast_to(penalty, x.shape[1])), centred.T @ (y - level)
    )
    return weights, float(level - mean @ weights)


def shrunken_offset(residuals: Array, ratio: float) -> float:
    """A school's offset from residuals `[n]`: their mean, drawn to 0 as if by `ratio` pupils more of residual 0."""
    return float(residuals.sum() / (len(residuals) + ratio))


def folds(schools: int) -> list[NDArray[np.int64]]:
    """The places of schools, in `FOLDS` parts of a fixed random order."""
    return np.array_split(np.random.default_rng(0).permutation(schools), FOLDS)


def fit_penalty(columns: Sequence[Array], y: Sequence[Array]) -> float:
    """The penalty with the least squared error on schools left out."""
    return min(PENALTIES, key=lambda penalty: float(np.mean(np.concatenate(left_out(columns, y, penalty)) ** 2)))


def left_out(columns: Sequence[Array], y: Sequence[Array], penalty: float) -> list[Array]:
    """Each school's residuals under the pooled regression of the folds that it is not in."""
    found: list[Array] = [np.empty(0)] * len(y)
    for fold in folds(len(y)):
        others = sorted(set(range(len(y))) - set(fold.tolist()))
        guess = pooled(
            np.concatenate([columns[at] for at in others]), np.concatenate([y[at] for at in others]), penalty
        )
        for at in fold.tolist():
            found[at] = y[at] - guess(columns[at])
    return found


def fit_ratio(residuals: Sequence[Array], shot: int, draws: int = 10) -> float:
    """The ratio of `RATIOS` with the least squared error after `shot` random pupils of training schools.

    Args:
        residuals: Of schools left out; see `left_out`.
        shot: Pupils known.
        draws: Random choices of them per school.
    """
    generator = np.random.default_rng(shot)
    orders = [(each[generator.permutation(len(each))]) for each in residuals for _ in range(draws)]

    def error(ratio: float) -> float:
        return float(np.mean([np.mean((r[shot:] - shrunken_offset(r[:shot], ratio)) ** 2) for r in orders]))

    return min(RATIOS, key=error)


class Baselines:
    """Both baselines, fitted on training schools.

    Args:
        columns: Of each school, the file's columns `[pupil, 28]`.
        y: Of each school, scores `[pupil]`.
        shots: Numbers of pupils for which an offset will be asked.
    """

    def __init__(self, columns: Sequence[Array], y: Sequence[Array], shots: Sequence[int]) -> None:
        penalty = fit_penalty(columns, y)
        self.pooled = pooled(np.concatenate(columns), np.concatenate(y), penalty)
        residuals = left_out(columns, y, penalty)
        self.ratios = {shot: fit_ratio(residuals, shot) for shot in shots if shot}

    def offset(self, residuals: Array) -> float:
        """The shrunken offset of a school with these residuals `[shot]`; 0 without any."""
        return shrunken_offset(residuals, self.ratios[len(residuals)]) if len(residuals) else 0.0
