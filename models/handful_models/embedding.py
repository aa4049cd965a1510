"""A learned vector for each of a fixed number of items."""

import torch
from torch import Tensor, nn


class Embedding(nn.Module):
    """Features `[batch, width]`, float32, of item numbers `[batch, 1]`, int64 in `0..items-1`.

    A number outside that range gets features of 0: served beside others, it must not fail their batch.
    """

    def __init__(self, items: int, width: int, *, spread: float = 0.1) -> None:
        super().__init__()
        self.width = width
        self.items = items
        self.table = nn.Embedding(items + 1, width, padding_idx=items)
        with torch.no_grad():
            self.table.weight[:items].normal_(0, spread)

    def forward(self, x: Tensor) -> Tensor:
        """Features of the items; see the class."""
        number = x.squeeze(-1)
        known = (number >= 0) & (number < self.items)
        features: Tensor = self.table(torch.where(known, number, torch.full_like(number, self.items)))
        return features
