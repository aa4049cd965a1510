"""Ways as columns: one-hot labels, and logits of those that no example stands for."""

import torch
from torch import Tensor

ABSENT_LOGIT = -1.0e4
"""Logit of a way without examples: its probability is 0 in float32, and the loss stays finite."""


def one_hot(y: Tensor, weight: Tensor, ways: int) -> Tensor:
    """`weight` in the column of each example's way: float32 `[task, example, ways]`, 0 for absent examples."""
    columns = torch.arange(ways, device=y.device)
    return (y.unsqueeze(-1) == columns).to(weight.dtype) * weight.unsqueeze(-1)


def present_ways(counts: Tensor) -> Tensor:
    """1 for each way with examples, else 0: float32 `[task, ways]`."""
    return (counts > 0).to(counts.dtype)


def open_ways(counts: Tensor, *, fixed: bool) -> Tensor:
    """1 for each way that may be answered, else 0: every fixed one, or those with examples; float32 `[task, ways]`."""
    return torch.ones_like(counts) if fixed else present_ways(counts)


def as_member(logits: Tensor, present: Tensor) -> Tensor:
    """Logits `[..., 1, ways]`: those of one member, with `ABSENT_LOGIT` where `present` is 0."""
    return (logits * present + ABSENT_LOGIT * (1 - present)).unsqueeze(-2)
