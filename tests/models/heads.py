"""Learners simple enough to know the right answer of, for the tests of data and evaluation."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from handful_models.embedding import Embedding
from handful_models.learner import AdditiveLearner, Tensors


class MeanOfSupport(AdditiveLearner):
    """Answers every query with the mean of the support set's numbers, shrunk to 0, and a fixed standard deviation."""

    target = "number"
    ways = 1

    def __init__(self, sd: float = 1.0, examples: int | None = None) -> None:
        super().__init__()
        self.log_variance, self.examples = 2 * math.log(sd), examples

    @classmethod
    def make(cls, encoder: nn.Module, **settings: Any) -> "MeanOfSupport":
        return cls()

    def encode(self, inputs: Tensors) -> Tensors:
        return {"features": inputs["x"]}

    def summarise(self, features: Tensors, y: Tensor, weight: Tensor) -> Tensors:
        return {"sum": (y * weight.unsqueeze(-1)).sum(1), "count": weight.sum(1, keepdim=True)}

    def adapt(self, statistics: Tensors) -> Tensors:
        return {"mean": statistics["sum"] / statistics["count"].clamp_min(1)}

    def predict(self, features: Tensors, state: Tensors) -> Tensor:
        mean = state["mean"].unsqueeze(-2) + 0 * features["features"][..., :1].unsqueeze(-1)
        return torch.cat([mean, torch.full_like(mean, self.log_variance)], -1)


class Taste(AdditiveLearner):
    """Knows that even and odd jokes are opposites, and takes the side of most labels."""

    ways = 2

    def __init__(self) -> None:
        super().__init__()
        self.encoder = Embedding(100, 1)
        with torch.no_grad():
            self.encoder.table.weight[:100, 0] = torch.arange(100) % 2 * 2.0 - 1

    @classmethod
    def make(cls, encoder: nn.Module, **settings: Any) -> "Taste":
        return cls()

    def encode(self, inputs: Tensors) -> Tensors:
        return {"features": self.encoder(inputs["x"])}

    def summarise(self, features: Tensors, y: Tensor, weight: Tensor) -> Tensors:
        return {"votes": (features["features"].squeeze(-1) * (2 * y - 1) * weight).sum(1, keepdim=True)}

    def adapt(self, statistics: Tensors) -> Tensors:
        return {"side": statistics["votes"]}

    def predict(self, features: Tensors, state: Tensors) -> Tensor:
        logit = features["features"] * state["side"]
        return torch.cat([-logit, logit], -1).unsqueeze(-2)
