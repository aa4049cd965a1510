"""Matching networks, without full-context embeddings.

Vinyals, Blundell, Lillicrap, Kavukcuoglu, Wierstra, "Matching Networks for One Shot Learning" (2016), eq. 1. A query
attends to the support set by cosine similarity; the attention that falls on a way's examples is its probability:

    p_k(x) = sum_i softmax_i(α cos(f(x), f(x_i))) [y_i = k]

The state holds the support set itself, padded to `examples`.
"""

from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .head import in_places
from .learner import Learner, Options, Target, Tensors
from .ways import as_member, present_ways

LEAST = 1.0e-30
"""The least attention whose logarithm is taken. Added instead, ONNX Runtime would drop it as a zero."""


class Matching(Learner):
    """State: `support [examples, width]`, unit norm, and `slots [examples]`, the way of each, -1 for absent ones."""

    examples: int

    def __init__(self, encoder: nn.Module, *, ways: int, examples: int) -> None:
        super().__init__()
        self.ways = ways
        self.examples = examples
        self.encoder = encoder
        self.log_scale = nn.Parameter(torch.tensor(3.0))

    @classmethod
    def make(
        cls, encoder: nn.Module, *, ways: int, examples: int, target: Target, fixed: bool, options: Options
    ) -> Self:
        """See `Learner`."""
        cls.require(target, fixed=fixed)
        return cls(encoder, ways=ways, examples=examples)

    def encode(self, inputs: Tensors) -> Tensors:
        """`features [batch, width]`, of unit norm."""
        return {"features": F.normalize(self.encoder(inputs["x"]), dim=-1)}

    def state(self, features: Tensors, y: Tensor, weight: Tensor) -> Tensors:
        """See the class: present examples move together, to the first places."""
        move = in_places(weight, self.examples)
        slots = move @ (y.to(weight.dtype) + 1).unsqueeze(-1)
        return {"support": move @ features["features"], "slots": slots.squeeze(-1) - 1}

    def predict(self, features: Tensors, state: Tensors) -> Tensor:
        """Logits `[..., 1, ways]`: the logarithm of the attention on each way."""
        ways = torch.arange(self.ways, device=state["slots"].device)
        labels = (state["slots"].unsqueeze(-1) == ways).to(torch.float32)
        cosine = (state["support"] * features["features"].unsqueeze(-2)).sum(-1)
        raised = torch.exp(self.log_scale.exp() * (cosine - 1))
        attention = (raised.unsqueeze(-1) * labels).sum(-2)
        return as_member(torch.log(attention.clamp_min(LEAST)), present_ways(labels.sum(-2)))
