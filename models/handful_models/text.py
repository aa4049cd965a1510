"""A small encoder of texts: subword embeddings, averaged under learned weights.

Shen, Wang, Wang et al., "Baseline Needs More Love: On Simple Word-Embedding-Based Models" (2018), with the weights of
Yang, Yang, Dyer et al., "Hierarchical Attention Networks" (2016), here of a piece and a place alone: a piece that tells
much weighs more, and so does the title, which stands first.
"""

import torch
from torch import Tensor, nn

from .head import attention

PAIRS = 32768
"""Places of the hashed pairs."""

PRIME = 7919


class TextEncoder(nn.Module):
    """Features `[batch, pools * size + guesses]`, float32, of texts `x [batch, tokens]`, int64, 0 where there is none.

    A text without tokens has features 0. Padding beyond a text's end changes nothing. The guesses are linear in the
    counts of pieces and of hashed pairs of neighbours, weighted by rarity, at unit length; given, not trained.

    Attributes:
        guess: Of each term, what it adds to each guess: first the pieces, then the pairs.
        rarity: Of each term.
        width: Of the features.
        tokens: The longest text; what stands beyond has no place.
    """

    def __init__(
        self, pieces: int, tokens: int, *, size: int = 96, pools: int = 4, guesses: int = 0, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.tokens, self.width, self.dropout = tokens, pools * size + guesses, dropout
        self.embedding = nn.Embedding(pieces, size, padding_idx=0)
        self.piece_score = nn.Embedding(pieces, pools)
        self.place_score = nn.Parameter(torch.zeros(tokens, pools))
        self.guess = nn.Embedding(pieces + PAIRS, guesses).requires_grad_(False)
        self.rarity = nn.Embedding(pieces + PAIRS, 1).requires_grad_(False)
        nn.init.zeros_(self.guess.weight)
        nn.init.ones_(self.rarity.weight)
        nn.init.normal_(self.embedding.weight, std=size**-0.5)
        nn.init.normal_(self.piece_score.weight, std=0.1)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        present = kept = x > 0
        if self.training and self.dropout:
            kept = present & (torch.rand(x.shape) >= self.dropout)
        scores = self.piece_score(x) + self.place_score[: x.shape[1]]
        weights = attention(scores.transpose(1, 2), kept.unsqueeze(1))
        pooled = (weights @ self.embedding(x)).flatten(1)
        terms, there = self.terms(x)
        rarity = self.rarity(terms) * there.unsqueeze(-1)
        length = rarity.square().sum(1).clamp_min(1e-12).sqrt()
        return torch.cat([pooled, (rarity * self.guess(terms)).sum(1) / length], -1)

    def terms(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The terms of texts, int64 `[batch, 2 tokens - 1]`, and bool of that shape: which are there."""
        pairs = self.embedding.num_embeddings + (x[:, :-1] * PRIME + x[:, 1:]) % PAIRS
        return torch.cat([x, pairs], 1), torch.cat([x > 0, x[:, 1:] > 0], 1)
