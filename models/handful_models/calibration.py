"""Temperatures and conformal quantiles over ways and shots, fitted on classes neither trained on nor reported on.

Guo, Pleiss, Sun, Weinberger, "On Calibration of Modern Neural Networks" (2017) for the temperature; Angelopoulos,
Bates, "A Gentle Introduction to Conformal Prediction" (2021), §1 for the quantile of the score `1 - p(true label)`.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .evaluation import Encoded, Protocol, class_pools, draw_episodes, encode_all, episode_logits, in_batches
from .learner import Learner, Tensors
from .omniglot import DRAWERS, Characters, rotated

WAYS = (2, 3, 5, 10, 20, 40, 64)
SHOTS = (1, 2, 5, 10)
CONFIDENCE = (0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995)
QUERIES = 10
_GOLDEN = (math.sqrt(5) - 1) / 2
_STEPS = 40


def calibrate(
    learners: Sequence[Learner], characters: Characters, *, seed: int, episodes: int = 200
) -> dict[str, object]:
    """The calibration table of a bundle's manifest.

    Args:
        learners: One trained learner, or several that differ by their seeds: what they answer is pooled.
        characters: Classes it never saw.
        seed: Of the episodes.
        episodes: Per cell and learner.
    """
    encoded = [(learner, encode_all(learner.eval(), rotated(characters.small))) for learner in learners]
    most = learners[0].examples or WAYS[-1] * SHOTS[-1]
    ways = [way for way in WAYS if way <= min(learners[0].ways, most)]
    shots = [shot for shot in SHOTS if ways[0] * shot <= most]
    temperatures, quantiles = [], []
    for way in ways:
        # A cell that no state can hold is that of the most shots that it can.
        fitting = [shot for shot in shots if way * shot <= most]
        cells = [_cell(encoded, characters, way, shot, seed, episodes) for shot in fitting]
        cells += [cells[-1]] * (len(shots) - len(cells))
        temperatures.append([temperature for temperature, _ in cells])
        quantiles.append([quantile for _, quantile in cells])
    return {
        "ways": ways,
        "shots": shots,
        "confidence": CONFIDENCE,
        "temperature": temperatures,
        "quantile": quantiles,
    }


def expected_calibration_error(encoded: Encoded, table: Mapping[str, Any], *, seed: int, episodes: int = 1000) -> float:
    """The mean distance of confidence and accuracy at 20-way 1-shot, over 15 bins of equal width, a fraction.

    Guo et al. (2017), eq. 3. The temperature is that of the table's cell. A learner of fewer ways is asked with those.
    """
    learner = encoded.learner
    protocol = Protocol(min(20, learner.ways), 1, query=15, episodes=episodes)
    column = list(table["shots"]).index(1)
    row = max(place for place, way in enumerate(table["ways"]) if way <= protocol.way)
    temperature = table["temperature"][row][column]
    features = encoded.features(rotations=True)
    drawn = draw_episodes(class_pools(encoded.characters, protocol), DRAWERS, protocol, seed=seed)
    confidence, right = [], []
    for part in in_batches(drawn):
        chances = (episode_logits(learner, features, part)[..., : protocol.way] / temperature).softmax(-1).mean(-2)
        best = chances.max(-1)
        confidence.append(best.values.flatten())
        right.append((best.indices == torch.arange(protocol.way).unsqueeze(-1)).flatten())
    return binned_error(torch.cat(confidence).numpy(), torch.cat(right).numpy())


def binned_error(confidence: np.ndarray, right: np.ndarray, *, bins: int = 15) -> float:
    """The expected calibration error of predictions `[n]`, over bins of equal width, a fraction."""
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = np.bincount(place, confidence.astype(np.float64) - right, minlength=bins)
    return float(np.abs(gaps).sum() / len(confidence))


def _cell(
    encoded: Sequence[tuple[Learner, Tensors]], characters: Characters, way: int, shot: int, seed: int, episodes: int
) -> tuple[float, list[float]]:
    protocol = Protocol(way, shot, query=QUERIES, episodes=episodes)
    drawn = draw_episodes(class_pools(characters, protocol), DRAWERS, protocol, seed=seed)
    logits = torch.cat(
        [
            episode_logits(learner, features, part)[..., :way].flatten(0, 2)
            for learner, features in encoded
            for part in in_batches(drawn)
        ]
    )
    targets = torch.arange(way).repeat_interleave(QUERIES).repeat(episodes * len(encoded))
    temperature = fit_temperature(logits, targets)
    truth = (logits / temperature).softmax(-1).mean(-2).gather(1, targets.unsqueeze(1)).squeeze(1)
    return round(temperature, 4), conformal_quantiles(1 - truth.double().numpy(), CONFIDENCE)


def fit_temperature(logits: Tensor, targets: Tensor) -> float:
    """The temperature of least cross-entropy, by golden-section search over its logarithm in e^-4..e^4.

    Args:
        logits: `[n, member, way]`, of which the probabilities are averaged over members.
        targets: int64 `[n]`.
    """

    def loss(log_temperature: float) -> float:
        chances = F.log_softmax(logits / math.exp(log_temperature), -1).logsumexp(1) - math.log(logits.shape[1])
        return F.nll_loss(chances, targets).item()

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
