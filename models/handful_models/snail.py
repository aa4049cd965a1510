"""Causal convolutions and causal attention over the labelled examples, the query last.

Mishra, Rohaninejad, Chen, Abbeel, "A Simple Neural Attentive Meta-Learner" (SNAIL, 2018). The sequence is that of the
pairs (x_t, y_t), then the query with no label. Each block adds channels to those before it:

    attention:  [a, softmax(k_s'q_t / sqrt(d) over s < t) v_s]
    convolution with dilation d:  [a, tanh(U (a_t, a_{t-d})) * σ(V (a_t, a_{t-d}))],  d = 1, 2, 4, ...

one attention, all dilations that the sequence has room for, one attention, and a linear map of the query's channels.
Attention is to strictly earlier places: a query that saw itself would see itself best. Learning begins where the first
attention compares features by their product and reads labels, as matching networks do (Vinyals et al., 2016).

The state holds what the query's place needs of the places before it: keys and values of both attentions, and for each
convolution the channels at one place. So a prediction costs one place, however long the support set is. Examples
stand in the last places of `examples`: with absent ones behind them, a convolution would meet the padding first.
"""

from typing import ClassVar, Self

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from .context import LEAST_DEVIATION
from .head import Head, attention, in_places, masked, orthogonal, standard, variance
from .learner import Options, Target, Tensors
from .ways import as_member


class SnailOptions(Options):
    """The settings of SNAIL."""

    embed: int = Field(32, ge=2, le=256, description="Channels of the features.")
    key: int = Field(32, ge=2, le=256, description="Channels of the keys of attention.")
    value: int = Field(16, ge=2, le=256, description="Channels of the values of attention; at least the ways.")
    filters: int = Field(8, ge=1, le=256, description="Channels that each convolution adds.")


class CausalAttention(nn.Module):
    """Adds to the channels of each place what attention to the places before it reads."""

    def __init__(self, channels: int, key: int, value: int) -> None:
        super().__init__()
        self.query, self.key = nn.Linear(channels, key, bias=False), nn.Linear(channels, key, bias=False)
        self.value = nn.Linear(channels, value)
        self.channels = channels + value
        self.scale = key**-0.5

    def forward(self, sequence: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The sequence `[task, place, channels]` with what was read, and the keys and values of its places."""
        keys, values = self.key(sequence), self.value(sequence)
        scores = self.query(sequence) @ keys.transpose(1, 2) * self.scale
        places = torch.arange(sequence.shape[1], device=sequence.device)
        earlier = places.unsqueeze(-1) > places
        weights = attention(scores, earlier & (mask.unsqueeze(1) > 0))
        return torch.cat([sequence, weights @ values], -1), keys, values

    def at_query(self, channels: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
        """The query's channels `[..., channels]` with what was read from `keys` and `values [..., place, *]`."""
        scores = (keys @ self.query(channels).unsqueeze(-1)).squeeze(-1) * self.scale
        weights = attention(scores, (mask > 0) & torch.ones_like(scores, dtype=torch.bool))
        read = (weights.unsqueeze(-2) @ values).squeeze(-2)
        return torch.cat([channels, read], -1)


class CausalConvolution(nn.Module):
    """Adds to the channels of each place a gated function of them and of those a dilation before."""

    def __init__(self, channels: int, filters: int, dilation: int) -> None:
        super().__init__()
        self.dilation = dilation
        self.gated = nn.Linear(2 * channels, 2 * filters)
        self.channels = channels + filters

    def forward(self, sequence: Tensor, mask: Tensor) -> Tensor:
        """The sequence `[task, place, channels]` with the new channels, 0 where `mask [task, place]` is 0."""
        before = F.pad(sequence, (0, 0, self.dilation, 0))[:, : sequence.shape[1]]
        return torch.cat([sequence, masked(self._new(sequence, before), mask)], -1)

    def at_query(self, channels: Tensor, before: Tensor) -> Tensor:
        """The query's channels with the new ones; `before` are those of the place a dilation earlier."""
        shape = torch.zeros_like(channels)
        return torch.cat([channels, self._new(channels, before + shape)], -1)

    def _new(self, here: Tensor, before: Tensor) -> Tensor:
        value: Tensor
        gate: Tensor
        value, gate = self.gated(torch.cat([here, before], -1)).chunk(2, -1)
        return torch.tanh(value) * torch.sigmoid(gate)


class Snail(Head):
    """State: `keys0`, `values0`, `keys1`, `values1 [examples, *]`, `past<dilation> [*]`, `places [examples]`.

    With classes also `present [ways]`.
    """

    options: ClassVar[type[Options]] = SnailOptions
    targets = ("class", "number")
    invariant = ()
    examples: int

    def __init__(
        self, encoder: nn.Module, *, ways: int, examples: int, target: Target, fixed: bool, options: SnailOptions
    ) -> None:
        super().__init__(encoder, ways=ways, target=target, fixed=fixed)
        self.examples = examples
        value = max(options.value, self.ways)
        self.project = orthogonal(self.width, options.embed)
        # The label's channels, and one that says that there is a label.
        self.first = CausalAttention(options.embed + self.ways + 1, options.key, value)
        convolutions, channels = [], self.first.channels
        for power in range(examples.bit_length()):
            convolutions.append(CausalConvolution(channels, options.filters, 2**power))
            channels = convolutions[-1].channels
        self.convolutions = nn.ModuleList(convolutions)
        self.second = CausalAttention(channels, options.key // 2, options.value)
        self.read = nn.Linear(self.second.channels, self.answered)
        if self.target == "class":
            self._begin_with_matching(options.embed)

    @classmethod
    def make(
        cls, encoder: nn.Module, *, ways: int, examples: int, target: Target, fixed: bool, options: SnailOptions
    ) -> Self:
        """See `Learner`."""
        return cls(encoder, ways=ways, examples=examples, target=target, fixed=fixed, options=options)

    @torch.no_grad()
    def _begin_with_matching(self, embed: int) -> None:
        """Let the first attention compare features and read labels, and the answer be what it read."""
        first, ways = self.first, self.ways
        nn.init.orthogonal_(first.key.weight[:, :embed])
        first.key.weight[:, embed:] = 0
        first.query.weight.copy_(1.5 * first.key.weight)
        first.value.weight.mul_(0.1)
        first.value.weight[:ways, embed : embed + ways] += torch.eye(ways)
        self.read.weight.mul_(0.1)
        start = embed + ways + 1
        self.read.weight[:, start : start + ways] += 5 * torch.eye(ways)

    def state(self, features: Tensors, y: Tensor, weight: Tensor) -> Tensors:
        """See the class."""
        x, labels = self.support(features, weight), self.label_vectors(y, weight)
        move = in_places(weight, self.examples, last=True)
        there = move.sum(-1)
        sequence = move @ torch.cat([self.project(x), labels, weight.unsqueeze(-1)], -1)
        state: dict[str, Tensor] = {}
        sequence, state["keys0"], state["values0"] = self.first(sequence, there)
        for convolution in self._convolutions():
            state[f"past{convolution.dilation}"] = sequence[:, self.examples - convolution.dilation]
            sequence = convolution(sequence, there)
        _, state["keys1"], state["values1"] = self.second(sequence, there)
        return {**state, "places": there, **self.ways_open(labels)}

    def _convolutions(self) -> list[CausalConvolution]:
        return [part for part in self.convolutions if isinstance(part, CausalConvolution)]

    def predict(self, features: Tensors, state: Tensors) -> Tensor:
        """See `Learner`; one member."""
        x = self.project(standard(features["features"]))
        channels = F.pad(x, (0, self.ways + 1))
        channels = self.first.at_query(
            channels + torch.zeros_like(state["places"][..., :1]), state["keys0"], state["values0"], state["places"]
        )
        for convolution in self._convolutions():
            channels = convolution.at_query(channels, state[f"past{convolution.dilation}"])
        found = self.read(self.second.at_query(channels, state["keys1"], state["values1"], state["places"]))
        if self.target == "number":
            return self.gaussian(found[..., 0], variance(found[..., 1], LEAST_DEVIATION)).unsqueeze(-2)
        return as_member(found, state["present"])
