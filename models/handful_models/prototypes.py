"""Prototypical networks.

Snell, Swersky, Zemel, "Prototypical Networks for Few-shot Learning" (2017). The prototype of a way is the mean
of its support features, and the logit of a way is the negative squared distance to it:

    c_k = (sum_i w_i [y_i = k] f(x_i)) / (sum_i w_i [y_i = k]),    logit_k(x) = -||f(x) - c_k||^2
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .learner import Learner, Tensors

ABSENT_LOGIT = -1.0e4
"""Logit of a way without examples: its probability is 0 in float32, and the loss stays finite."""


class Prototypes(Learner):
    """A `Learner` with features `features [width]` and the state `prototypes [ways, width]`, `present [ways]`.

    Args:
        encoder: Gives features `[batch, width]` of an input `x [batch, *input]`.
        ways: Ways that a state holds.
    """

    def __init__(self, encoder: nn.Module, *, ways: int) -> None:
        super().__init__()
        self.ways = ways
        self.encoder = encoder

    def encode(self, inputs: Tensors) -> Tensors:
        """`features [batch, width]` of `x [batch, *input]`."""
        return {"features": self.encoder(inputs["x"])}

    def summarise(self, features: Tensors, y: Tensor, weight: Tensor) -> Tensors:
        """`sums [task, ways, width]` and `counts [task, ways]` of features `[task, example, width]`."""
        ways = torch.arange(self.ways, device=y.device)
        assignment = (y.unsqueeze(-1) == ways).to(weight.dtype) * weight.unsqueeze(-1)
        return {
            "sums": assignment.transpose(1, 2) @ features["features"],
            "counts": assignment.sum(1),
        }

    def adapt(self, statistics: Tensors) -> Tensors:
        """`prototypes [task, ways, width]`, zero where `present [task, ways]` is 0, else 1."""
        counts = statistics["counts"]
        present = (counts > 0).to(counts.dtype)
        divisor = torch.where(counts > 0, counts, torch.ones_like(counts))
        return {"prototypes": statistics["sums"] / divisor.unsqueeze(-1), "present": present}

    def predict(self, features: Tensors, state: Tensors) -> Tensor:
        """Logits `[..., 1, ways]`: one member."""
        # Differences before squares: |f|^2 - 2 f.c + |c|^2 cancels, and loses the digits that the laws compare.
        difference = features["features"].unsqueeze(-2) - state["prototypes"]
        logits = -difference.square().sum(-1)
        present = state["present"]
        return (logits * present + ABSENT_LOGIT * (1 - present)).unsqueeze(-2)


def rotating_support_loss(learner: Prototypes, features: Tensor) -> Tensor:
    """The mean loss of the episodes in which each image of a class serves in turn as its one shot.

    One forward pass gives as many episodes as there are images per class, all the others being queries.

    Args:
        features: `[ways, images, width]`, float32, with `ways` at most `learner.ways`.

    Returns:
        A scalar: cross-entropy, averaged over episodes and queries.
    """
    ways, images, width = features.shape
    support = features.transpose(0, 1)
    y = torch.arange(ways).expand(images, ways)
    state = learner.adapt(learner.summarise({"features": support}, y, torch.ones(images, ways)))
    queries = torch.stack([support[torch.arange(images) != turn].reshape(-1, width) for turn in range(images)])
    logits = learner.predict({"features": queries}, {name: value.unsqueeze(1) for name, value in state.items()})
    targets = torch.arange(ways).repeat(images, images - 1)
    return F.cross_entropy(logits.flatten(0, 2), targets.flatten())
