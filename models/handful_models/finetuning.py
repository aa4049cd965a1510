"""Fine-tuning offline: one task's weights, trained on its own examples for longer than a request could.

Howard, Ruder, "Universal Language Model Fine-tuning for Text Classification" (2018), §3.2 and §3.3: layers thaw one
after the other from the last on (gradual unfreezing), and lower layers learn at lower rates (discriminative rates):

    rate of layer l from the top = rate * decay^l,    layer l thaws at step l * unfreeze_every

The last layer begins anew, since a new task has other labels. The outcome is a state φ of the same learner that adapts
in requests: a row of weights, which a bundle keeps under an id as one more known task. It is the baseline of transfer
learning, which meta-learning must beat.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torch.nn import functional as F

from .gradient import HEAD, GradientLearner
from .learner import Tensors
from .tasks import Examples, beside_queries

FOLDS = 5


class FinetuneSettings(BaseModel):
    """How a task's weights are trained."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: int = Field(100, ge=1, le=100_000)
    rate: float = Field(3e-3, gt=0, description="Of the last layer, under AdamW.")
    decay: float = Field(0.6, gt=0, le=1, description="What the rate is multiplied by from layer to layer downwards.")
    unfreeze_every: int = Field(15, ge=0, description="Steps between the thawing of two layers; 0: all thaw at once.")
    frozen: int = Field(0, ge=0, description="Layers, from the first on, that never thaw.")
    fresh_head: bool = Field(True, description="Whether the last layer begins anew, from 0.")
    weight_decay: float = Field(1e-2, ge=0)


@dataclass(frozen=True, slots=True)
class Tuned:
    """One task's weights after fine-tuning.

    Attributes:
        state: The learner's state, each `[1, *state]`.
        loss: On the task's own examples, at the end.
    """

    state: Tensors
    loss: float


def finetune(learner: GradientLearner, examples: Examples, settings: FinetuneSettings) -> Tuned:
    """The state of one task after training on its examples.

    Args:
        learner: Whose weights are the start.
        examples: Of one task, `[1, example, …]`.
        settings: How.
    """
    learner.eval()
    with torch.no_grad():
        features = learner.encoded(examples.x)
        state = {name: value.clone() for name, value in learner.begin(features, examples.y, examples.weight).items()}
    if settings.fresh_head:
        state[HEAD].zero_()
    layers = layers_from_the_top(list(state))
    thawing = layers[: len(layers) - settings.frozen]
    weights = {name: state[name].requires_grad_() for layer in thawing for name in layer}
    optimizer = torch.optim.AdamW(
        [
            {"params": [weights[name] for name in layer], "lr": settings.rate * settings.decay**depth}
            for depth, layer in enumerate(thawing)
        ],
        weight_decay=settings.weight_decay,
    )
    loss = torch.zeros(())
    for step in range(settings.steps):
        loss = _loss(learner, features, examples, state)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch's stub
        for depth, layer in enumerate(thawing):
            if step < depth * settings.unfreeze_every:
                for name in layer:
                    weights[name].grad = None  # AdamW passes over what has no gradient
        optimizer.step()
    return Tuned({name: value.detach() for name, value in state.items()}, loss.item())


def layers_from_the_top(names: Sequence[str]) -> list[list[str]]:
    """The names of weights by layer: the head, then the layers of the network by falling number."""
    numbered: dict[int, list[str]] = {}
    for name in names:
        if found := re.fullmatch(r"[a-z]+(\d+)", name):
            numbered.setdefault(int(found[1]), []).append(name)
    return [[HEAD], *(numbered[number] for number in sorted(numbered, reverse=True))]


def _loss(learner: GradientLearner, features: Tensors, examples: Examples, state: Tensors) -> Tensor:
    answer = learner.predict(features, beside_queries(state))
    if learner.target == "number":
        each = (answer[..., 0].squeeze(-1) - examples.y.squeeze(-1)).square()
    else:
        each = F.cross_entropy(answer.squeeze(-2).flatten(0, 1), examples.y.flatten(), reduction="none")
    return (each.flatten() * examples.weight.flatten()).sum() / examples.weight.sum()


@torch.no_grad()
def accuracy(learner: GradientLearner, state: Mapping[str, Tensor], queries: Examples) -> float:
    """The share of a task's queries that a state answers right."""
    answer = learner.predict(learner.encoded(queries.x), beside_queries(state))
    right = (answer.squeeze(-2).argmax(-1) == queries.y).float() * queries.weight
    return float(right.sum() / queries.weight.sum())


def cross_validated_rate(
    learner: GradientLearner, tasks: Sequence[Examples], settings: FinetuneSettings, *, trials: int, seed: int
) -> tuple[float, list[tuple[float, float]]]:
    """The rate of best accuracy on held-out examples of training tasks, and the accuracy of every rate that was tried.

    Rates are drawn log-uniformly between 3e-4 and 3e-2. Every task's examples are split into `FOLDS` parts, each of
    which is held out in turn.
    """
    generator = np.random.default_rng(seed)
    found = []
    for rate in sorted(float(rate) for rate in np.exp(generator.uniform(np.log(3e-4), np.log(3e-2), trials))):
        tried = settings.model_copy(update={"rate": rate})
        scores = [_held_out(learner, task, tried, fold) for task in tasks for fold in range(FOLDS)]
        found.append((rate, float(np.mean(scores))))
    return max(found, key=lambda pair: pair[1])[0], found


def _held_out(learner: GradientLearner, task: Examples, settings: FinetuneSettings, fold: int) -> float:
    """The accuracy on one part of a task's examples after fine-tuning on the others."""
    place = torch.arange(task.y.shape[1]) % FOLDS  # examples stand drawer by drawer
    kept, left = _part(task, place != fold), _part(task, place == fold)
    return accuracy(learner, finetune(learner, kept, settings).state, left)


def _part(task: Examples, chosen: Tensor) -> Examples:
    x = {name: value[:, chosen] for name, value in task.x.items()}
    return Examples(x, task.y[:, chosen], task.weight[:, chosen])
