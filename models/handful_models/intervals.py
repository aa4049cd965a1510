"""Predictive intervals of numbers: members mixed to one Gaussian, widened by conformal quantiles.

Angelopoulos, Bates, "A Gentle Introduction to Conformal Prediction" (2021), §2.3.2: with the score
`s = |y - mean| / sd` on tasks never trained on, the interval at confidence c is `mean ± quantile_c(s) · sd`.
"""

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .learner import Learner
from .paired import check_room
from .tasks import EpisodeShape, TaskSource, answers

CONFIDENCE = (0.5, 0.8, 0.9, 0.95, 0.98, 0.99)
SHOTS = (0, 1, 2, 3, 5, 10, 20)


class NumberCalibration(TypedDict):
    """The calibration table of numbers in a bundle's manifest; a cell is the nearest lower number of shots.

    Attributes:
        quantile: `[shot][confidence]`, in standard deviations.
    """

    shots: list[int]
    confidence: list[float]
    quantile: list[list[float]]


def mixed(answer: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation `[...]` of the mixture of the members' Gaussians.

    Args:
        answer: `[..., member, 2]`: mean and log-variance.
    """
    means, variances = answer[..., 0], answer[..., 1].exp()
    mean = means.mean(-1)
    return mean, (variances.mean(-1) + (means - mean.unsqueeze(-1)).square().mean(-1)).sqrt()


def quantile(confidence: float, shots: int, calibration: NumberCalibration | None = None) -> float:
    """How many standard deviations the interval reaches to each side: the table's cell, or the normal quantile.

    Raises:
        ValueError: the table has no such confidence.
    """
    if calibration is None:
        return NormalDist().inv_cdf((1 + confidence) / 2)
    below = [place for place, shot in enumerate(calibration["shots"]) if shot <= shots]
    return calibration["quantile"][max(below, default=0)][calibration["confidence"].index(confidence)]


@torch.no_grad()
def calibrate_numbers(
    learner: Learner,
    source: TaskSource,
    shots: Sequence[int] = SHOTS,
    confidences: Sequence[float] = CONFIDENCE,
    *,
    seed: int,
    tasks: int = 1000,
    query: int = 20,
) -> NumberCalibration:
    """The conformal quantiles of a learner on tasks of a source, which must not be those it was trained on.

    Args:
        learner: A trained learner of numbers.
        source: Where the tasks come from.
        shots: Cells of the table, rising; 0 is the base model.
        confidences: Rising.
        seed: Of the tasks.
        tasks: Per cell.
        query: Queries of a task.
    """
    learner.eval()
    table = []
    for shot in shots:
        shape = EpisodeShape(tasks=tasks, way=(1, 1), shot=(shot, shot), query=query)
        episodes = source.draw(np.random.default_rng([seed, shot]), shape)
        check_room(learner, int(episodes.support.weight.sum(1).max()))
        mean, sd = mixed(answers(learner, episodes))
        score = (episodes.query.y.squeeze(-1) - mean).abs() / sd
        table.append(score_quantiles(score[episodes.query.weight > 0].double().numpy(), confidences))
    return {"shots": list(shots), "confidence": list(confidences), "quantile": table}


def score_quantiles(scores: NDArray[np.float64], confidences: Sequence[float]) -> list[float]:
    """The quantile of scores `[n]` at each confidence, corrected for finite samples; at most the largest score."""
    ordered = np.sort(scores)
    places = [min(math.ceil((len(ordered) + 1) * level), len(ordered)) - 1 for level in confidences]
    return [round(float(ordered[place]), 6) for place in places]
