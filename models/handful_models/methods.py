"""The methods of learning, by the names that configs use, and the loss that trains them."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from .config import LearnerConfig
from .conv4 import Conv4
from .learner import Learner
from .logistic import Logistic
from .matching import Matching
from .prototypes import Prototypes
from .relation import Relation
from .ridge import Ridge

METHODS: dict[str, Callable[[LearnerConfig], Learner]] = {
    "prototypes": lambda config: Prototypes(Conv4(config.width), ways=config.ways),
    "relation": lambda config: Relation(Conv4(config.width), width=config.width, ways=config.ways),
    "matching": lambda config: Matching(Conv4(config.width), ways=config.ways, examples=config.examples),
    "ridge": lambda config: Ridge(Conv4(config.width), ways=config.ways),
    "logistic": lambda config: Logistic(Conv4(config.width), ways=config.ways),
}


def build(config: LearnerConfig, *, seed: int) -> Learner:
    """The learner that a config names, with fresh weights."""
    torch.manual_seed(seed)
    return METHODS[config.method](config)


def rotating_support_loss(learner: Learner, features: Tensor) -> Tensor:
    """The mean loss of the episodes in which each image of a class serves in turn as its one shot.

    One forward pass gives as many episodes as there are images per class, all the others being queries.

    Args:
        learner: Whose `features` have the last axis of the argument.
        features: `[ways, images, width]`, float32, with `ways` at most `learner.ways`.

    Returns:
        A scalar: cross-entropy, averaged over episodes and queries.
    """
    ways, images, width = features.shape
    support = features.transpose(0, 1)
    y = torch.arange(ways).expand(images, ways)
    state = learner.state({"features": support}, y, torch.ones(images, ways))
    queries = torch.stack([support[torch.arange(images) != turn].reshape(-1, width) for turn in range(images)])
    logits = learner.predict({"features": queries}, {name: value.unsqueeze(1) for name, value in state.items()})
    targets = torch.arange(ways).repeat(images, images - 1)
    return F.cross_entropy(logits.flatten(0, 2), targets.flatten())
