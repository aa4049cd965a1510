"""A Transformer over the support set.

Vaswani et al., "Attention Is All You Need" (2017); Ye, Hu, Zhan, Sha, "Few-Shot Learning via Embedding Adaptation with
Set-to-Set Functions" (FEAT, 2020); Lee, Lee, Kim, Kosiorek, Choi, Teh, "Set Transformer" (2019).

Classes: the prototype of each way (Snell et al., 2017) attends to all examples, knowing which are its own, and so moves
away from the other ways; a query is answered by the distance to where it went:

    p_k' = p_k + T(p_k, {(x_i, [y_i = k])}),    logit_k(x) = -α |x - p_k'|^2

Numbers: the pairs (x_i, y_i) attend to each other; learned seeds attend to them and pool them to a context.
"""

from typing import ClassVar, Self

import torch
from pydantic import Field
from torch import Tensor, nn

from .context import LEAST_DEVIATION
from .head import Head, attention, perceptron, square_distance, standard, variance
from .learner import Options, Target, Tensors
from .ways import as_member

SEEDS = 4


class Attention(nn.Module):
    """Attention of tokens `[task, n, width]` to others `[task, m, width]`, and a feed-forward layer; both add."""

    def __init__(self, width: int, *, heads: int, hidden: int, owners: bool) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value = (nn.Linear(width, width, bias=False) for _ in range(3))
        self.out = perceptron(width, width, silent=True)
        self.feed = perceptron(width, hidden, width, silent=True)
        if owners:
            self.own = nn.Parameter(torch.zeros(heads, 1, 1))

    def forward(self, tokens: Tensor, others: Tensor, mask: Tensor, own: Tensor | None = None) -> Tensor:
        """Tokens after attention to the others of which `mask [task, m]` is not 0; absent ones count as nothing.

        Args:
            own: `[task, n, m]`, 1 where the other belongs to the token; what that means is learned.
        """
        query, key, value = self.query(standard(tokens)), self.key(standard(others)), self.value(others)
        query, key, value = (self._split(part) for part in (query, key, value))
        scores = query @ key.transpose(-1, -2) * (query.shape[-1] ** -0.5)
        if own is not None:
            scores = scores + self.own * own.unsqueeze(1)
        weights = attention(scores, (mask.unsqueeze(1).unsqueeze(1) > 0).expand_as(scores))
        found = tokens + self.out((weights @ value).transpose(1, 2).flatten(2))
        moved: Tensor = found + self.feed(standard(found))
        return moved

    def _split(self, tokens: Tensor) -> Tensor:
        """`[task, heads, n, width / heads]`."""
        return torch.unflatten(tokens, -1, (self.heads, -1)).transpose(1, 2)


class TransformerOptions(Options):
    """The settings of the Transformer."""

    heads: int = Field(4, ge=1, le=16, description="Heads of attention; a divisor of the width of features.")
    layers: int = Field(1, ge=1, le=4, description="Layers of attention to the examples.")
    hidden: int = Field(48, ge=1, le=512, description="Units of the feed-forward layers.")
    tokens: int = Field(32, ge=4, le=256, description="Width of the tokens of tasks with numbers.")


class Transformer(Head):
    """State: `prototypes [ways, width]`, `present [ways]`; for a number `context [4 tokens]`, `evidence [1]`.

    With fixed labels a way has a learned prototype, which the mean of its examples replaces as they grow in number.
    """

    options: ClassVar[type[Options]] = TransformerOptions
    targets = ("class", "number")

    def __init__(
        self, encoder: nn.Module, *, ways: int, target: Target, fixed: bool, options: TransformerOptions
    ) -> None:
        super().__init__(encoder, ways=ways, target=target, fixed=fixed)
        width = options.tokens if self.target == "number" else self.width
        self.context_size = SEEDS * width if self.target == "number" else width
        heads = options.heads if width % options.heads == 0 else 1
        self.layers = nn.ModuleList(
            Attention(width, heads=heads, hidden=options.hidden, owners=target == "class")
            for _ in range(options.layers)
        )
        if self.target == "number":
            self.token = nn.Linear(self.width + 1, width)
            self.seeds = nn.Parameter(torch.randn(SEEDS, width))
            self.pool = Attention(width, heads=heads, hidden=options.hidden, owners=False)
            self.decoder = perceptron(self.width + SEEDS * width + 1, options.hidden, options.hidden, 2)
            for layer in (*self.layers, self.pool):  # nothing is known to work here: begin as Transformers do
                _awake(layer)
            return
        self.log_scale = nn.Parameter(torch.tensor(2.5))
        if self.fixed:
            self.prior = nn.Parameter(torch.randn(ways, width))
            self.log_strength = nn.Parameter(torch.tensor(0.0))

    @classmethod
    def make(
        cls, encoder: nn.Module, *, ways: int, examples: int, target: Target, fixed: bool, options: TransformerOptions
    ) -> Self:
        """See `Learner`."""
        return cls(encoder, ways=ways, target=target, fixed=fixed, options=options)

    def state(self, features: Tensors, y: Tensor, weight: Tensor) -> Tensors:
        """See the class."""
        x, labels = self.support(features, weight), self.label_vectors(y, weight)
        if self.target == "number":
            return self._pooled(torch.cat([x, labels], -1), weight)
        counts = labels.sum(1)
        tokens = self._prototypes(labels.transpose(1, 2) @ x, counts.unsqueeze(-1))
        for layer in self.layers:
            tokens = layer(tokens, x, weight, labels.transpose(1, 2))
        return {"prototypes": tokens} | self.ways_open(labels)

    def _prototypes(self, sums: Tensor, counts: Tensor) -> Tensor:
        if self.fixed:
            strength = self.log_strength.exp()
            return (sums + strength * self.prior) / (counts + strength)
        return sums / torch.where(counts > 0, counts, torch.ones_like(counts))

    def _pooled(self, pairs: Tensor, weight: Tensor) -> Tensors:
        tokens = self.token(pairs)
        for layer in self.layers:
            tokens = layer(tokens, tokens, weight)
        counts = weight.sum(1, keepdim=True)
        seeds = self.seeds + torch.zeros_like(counts).unsqueeze(-1)  # `expand` by a size would freeze the task axis
        context = self.pool(seeds, tokens, weight).flatten(1)
        return {"context": context, "evidence": counts / (1 + counts)}

    def predict(self, features: Tensors, state: Tensors) -> Tensor:
        """See `Learner`; one member."""
        x = standard(features["features"])
        if self.target == "number":
            both = torch.zeros_like(x[..., :1]) + torch.zeros_like(state["evidence"])
            parts = [x + both, state["context"] + both, state["evidence"] + both]
            found = self.decoder(torch.cat(parts, -1))
            return self.gaussian(found[..., 0], variance(found[..., 1], LEAST_DEVIATION)).unsqueeze(-2)
        distance = square_distance(x.unsqueeze(-2), state["prototypes"]) / self.width
        return as_member(-self.log_scale.exp() * distance, state["present"])


def _awake(layer: nn.Module) -> None:
    for part in layer.modules():
        if isinstance(part, nn.Linear):
            part.reset_parameters()
