"""Batches of tasks as training draws them, and the loss of a learner on them."""

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .learner import Learner, Tensors


@dataclass(frozen=True, slots=True)
class Examples:
    """Labelled inputs of several tasks, padded to one length.

    Attributes:
        x: Inputs by name, each `[task, example, *input]`.
        y: int64 `[task, example]` for classes, float32 `[task, example, 1]` for numbers.
        weight: float32 `[task, example]`, 0 for absent examples.
    """

    x: Tensors
    y: Tensor
    weight: Tensor


@dataclass(frozen=True, slots=True)
class Episodes:
    """A batch of tasks: what each learns from, and what it is asked."""

    support: Examples
    query: Examples


@dataclass(frozen=True, slots=True)
class EpisodeShape:
    """The sizes of a batch of episodes; way and shot are drawn anew for each batch, between both bounds.

    Attributes:
        tasks: Episodes of a batch.
        way: Least and most classes; (1, 1) where a task has none.
        shot: Least and most support examples, of a class where there are classes, else of the task.
        query: Query examples, of a class where there are classes, else of the task.
    """

    tasks: int
    way: tuple[int, int]
    shot: tuple[int, int]
    query: int


class TaskSource(Protocol):
    """Where episodes come from."""

    def draw(self, generator: np.random.Generator, shape: EpisodeShape) -> Episodes:
        """A batch of episodes; the same generator state gives the same batch."""
        ...


def encode(learner: Learner, x: Tensors) -> Tensors:
    """Features `[task, example, *feature]` of inputs `[task, example, *input]`."""
    sizes = next(iter(x.values())).shape[:2]
    features = learner.encode({name: value.flatten(0, 1) for name, value in x.items()})
    return {name: value.reshape(*sizes, *value.shape[1:]) for name, value in features.items()}


def beside_queries(state: Tensors) -> dict[str, Tensor]:
    """A state `[task, *state]` with an axis for the queries: `[task, 1, *state]`."""
    return {name: value.unsqueeze(1) for name, value in state.items()}


def answers(learner: Learner, episodes: Episodes) -> Tensor:
    """What a learner answers to the queries: `[task, query, member, width]`."""
    support, query = episodes.support, episodes.query
    state = learner.state(encode(learner, support.x), support.y, support.weight)
    return learner.predict(encode(learner, query.x), beside_queries(state))


def log_likelihood(answer: Tensor, y: Tensor) -> Tensor:
    """The logarithm of the probability (or density) of what came, mixed over members.

    Args:
        answer: `[..., member, width]`: logits, or mean and log-variance where `y` is float32.
        y: int64 `[...]`, or float32 `[..., 1]`.
    """
    members = answer.shape[-2]
    if y.dtype == torch.int64:
        index = y.unsqueeze(-1).unsqueeze(-1).expand(*answer.shape[:-1], 1)
        each = F.log_softmax(answer, -1).gather(-1, index).squeeze(-1)
    else:
        mean, log_variance = answer[..., 0], answer[..., 1]
        each = -0.5 * (math.log(2 * math.pi) + log_variance + (y - mean).square() * torch.exp(-log_variance))
    return each.logsumexp(-1) - math.log(members) if members > 1 else each.squeeze(-1)


def episode_loss(learner: Learner, episodes: Episodes) -> Tensor:
    """The negative log-likelihood of the queries, a weighted mean; a scalar."""
    found = log_likelihood(answers(learner, episodes), episodes.query.y)
    weight = episodes.query.weight
    return -(found * weight).sum() / weight.sum().clamp_min(1)
