"""First checks of a model before a long run: whether it can learn a few tasks by heart, and which rate it bears."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from .config import EpisodeConfig, TrainConfig
from .datasets import open_material
from .errors import ConfigInvalid, NotLearned
from .learner import Learner
from .rates import suggested_rate
from .tasks import Episodes, EpisodeShape, TaskSource, answers, log_likelihood
from .training import fresh_state, on_tasks, on_the_same, shape_of, update

ALMOST_ZERO = 0.02
"""Of the cross-entropy of classes, or of the squared error of numbers over their variance."""

RATES = (1e-6, 1.0)
RATE_STEPS = 120


@dataclass(frozen=True, slots=True)
class Overfit:
    """How a model learned a few tasks by heart."""

    steps: int
    loss: float
    first: float


def overfit(config: TrainConfig, data: Path, *, examples: int, most_steps: int = 2000) -> Overfit:
    """Train on a few queries of one batch of tasks alone, until their loss is almost zero.

    A model that cannot do this has a fault that more data will not mend. Averages, weight decay and the schedule
    are off.

    Args:
        config: The run's settings.
        data: The data folder.
        examples: Queries, of as many tasks as are needed.
        most_steps: After which it is given up.

    Raises:
        NotLearned: the loss stays above `ALMOST_ZERO`.
    """
    constant = {"weight_decay": 0.0, "schedule": "constant", "warmup_steps": 0, "steps": most_steps}
    plain = config.model_copy(update={"optimizer": config.optimizer.model_copy(update=constant)})
    state = fresh_state(plain, data)
    source, shape = _source(plain, data, state.learner)
    batch = _first(source.draw(np.random.default_rng(config.seed), shape), examples)
    first = loss = _error(state.learner.eval(), batch)
    for step in range(1, most_steps + 1):
        update(state, plain.optimizer, on_the_same(batch), step)
        if step % 25 == 0:
            loss = _error(state.learner.eval(), batch)
            if loss <= ALMOST_ZERO:
                return Overfit(step, loss, first)
    raise NotLearned(examples, loss, ALMOST_ZERO, most_steps)


def find_rate(config: TrainConfig, data: Path) -> tuple[list[float], list[float], float]:
    """Rates that rise from step to step, the loss at each, and a suggestion.

    Smith, "Cyclical Learning Rates for Training Neural Networks" (2017), §3.3, on a small sample of tasks.
    """
    low, high = RATES
    rates = [low * (high / low) ** (place / (RATE_STEPS - 1)) for place in range(RATE_STEPS)]
    state = fresh_state(config, data)
    source, shape = _source(config, data, state.learner)
    backward = on_tasks(source, shape, config.seed)
    losses: list[float] = []
    for step, rate in enumerate(rates, 1):
        for group in state.optimizer.param_groups:
            group["lr"] = rate
        state.learner.train()
        torch.manual_seed(step)
        state.optimizer.zero_grad()
        losses.append(backward(state.learner, step))
        if not math.isfinite(losses[-1]) or losses[-1] > 4 * losses[0] + 4:
            break
        state.optimizer.step()
    return rates[: len(losses)], losses, suggested_rate(rates[: len(losses)], losses)


def _source(config: TrainConfig, data: Path, learner: Learner) -> tuple[TaskSource, EpisodeShape]:
    if not isinstance(config.episodes, EpisodeConfig):
        raise ConfigInvalid("episodes.kind: 'tasks' is needed to draw tasks")
    material = open_material(config, data, learner)
    if material.source is None:
        raise ConfigInvalid("data.set: known tasks have no episodes to check a model with")
    return material.source, shape_of(config.episodes)


def _first(episodes: Episodes, examples: int) -> Episodes:
    """The batch with its first queries alone."""
    weight = episodes.query.weight
    kept = (torch.arange(weight.numel()).reshape(weight.shape) < examples).to(weight.dtype) * weight
    query = type(episodes.query)(episodes.query.x, episodes.query.y, kept)
    return Episodes(episodes.support, query)


@torch.no_grad()
def _error(learner: Learner, batch: Episodes) -> float:
    found, weight = answers(learner, batch), batch.query.weight
    if batch.query.y.dtype == torch.int64:
        return float(-(log_likelihood(found, batch.query.y) * weight).sum() / weight.sum())
    y = batch.query.y.squeeze(-1)
    mean = (y * weight).sum() / weight.sum()
    error = ((found[..., 0].mean(-1) - y).square() * weight).sum()
    return float(error / ((y - mean).square() * weight).sum().clamp_min(1e-12))
