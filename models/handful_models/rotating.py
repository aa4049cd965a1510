"""A loss for one-shot learning that uses every image of a class as the support in turn."""

import torch
from torch import Tensor
from torch.nn import functional as F

from .learner import Learner


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
