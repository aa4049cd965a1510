"""Temperatures and conformal quantiles over ways and shots, fitted on classes neither trained on nor reported on.

Guo, Pleiss, Sun, Weinberger, "On Calibration of Modern Neural Networks" (2017) for the temperature; Angelopoulos,
Bates, "A Gentle Introduction to Conformal Prediction" (2021), §1 for the quantile of the score `1 - p(true label)`.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .evaluation import Protocol, class_pools, draw_episodes, encode_all, episode_logits
from .learner import Learner
from .omniglot import Characters, rotated

WAYS = (2, 3, 5, 10, 20, 40, 64)
SHOTS = (1, 2, 5, 10)
CONFIDENCE = (0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995)
QUERIES = 10
_GOLDEN = (math.sqrt(5) - 1) / 2
_STEPS = 40


def calibrate(learner: Learner, characters: Characters, *, seed: int, episodes: int = 200) -> dict[str, object]:
    """The calibration table of a bundle's manifest.

    Args:
        learner: A trained learner.
        characters: Classes it never saw.
        seed: Of the episodes.
        episodes: Per cell.
    """
    features = encode_all(learner.eval(), rotated(characters.small))
    temperatures, quantiles = [], []
    for way in (way for way in WAYS if way <= learner.ways):
        cells = [_cell(learner, characters, features, way, shot, seed, episodes) for shot in SHOTS]
        temperatures.append([temperature for temperature, _ in cells])
        quantiles.append([quantile for _, quantile in cells])
    return {
        "ways": [way for way in WAYS if way <= learner.ways],
        "shots": SHOTS,
        "confidence": CONFIDENCE,
        "temperature": temperatures,
        "quantile": quantiles,
    }


def _cell(
    learner: Learner, characters: Characters, features: Tensor, way: int, shot: int, seed: int, episodes: int
) -> tuple[float, list[float]]:
    protocol = Protocol(way, shot, query=QUERIES, episodes=episodes)
    drawn = draw_episodes(class_pools(characters, protocol), features.shape[1], protocol, seed=seed)
    logits = torch.cat(
        [episode_logits(learner, features, episode)[..., :way].mean(-2).flatten(0, 1) for episode in drawn]
    )
    targets = torch.arange(way).repeat_interleave(QUERIES).repeat(episodes)
    temperature = fit_temperature(logits, targets)
    truth = (logits / temperature).softmax(-1).gather(1, targets.unsqueeze(1)).squeeze(1)
    return round(temperature, 4), conformal_quantiles(1 - truth.double().numpy(), CONFIDENCE)


def fit_temperature(logits: Tensor, targets: Tensor) -> float:
    """The temperature of least cross-entropy, by golden-section search over its logarithm in e^-4..e^4.

    Args:
        logits: `[n, way]`.
        targets: int64 `[n]`.
    """

    def loss(log_temperature: float) -> float:
        return F.cross_entropy(logits / math.exp(log_temperature), targets).item()

    low, high = -4.0, 4.0
    for _ in range(_STEPS):
        left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
        if loss(left) < loss(right):
            high = right
        else:
            low = left
    return math.exp((low + high) / 2)


def conformal_quantiles(scores: np.ndarray, confidence: Sequence[float]) -> list[float]:
    """The quantile of nonconformity scores `[n]` at each confidence, with the correction for finite samples."""
    ordered = np.sort(scores)
    places = [math.ceil((len(ordered) + 1) * level) - 1 for level in confidence]
    return [round(float(np.clip(ordered[place], 0, 1)), 6) if place < len(ordered) else 1.0 for place in places]
