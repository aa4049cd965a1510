"""What the learners on one trunk share: standard features, labels as numbers, small networks, masked attention."""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .learner import Law, Learner, Target, Tensors
from .ways import one_hot, open_ways

FAR_BELOW = -1.0e30
"""The score of what must not be attended to."""


class Head(Learner):
    """A learner whose features are those of its encoder, as they are: `features [batch, width]`.

    What is learned on top of them happens in the state and in the answer, so features of a frozen encoder can be
    computed once, for training and for all members of an ensemble.

    Attributes:
        y_mean: Buffer, 0 or what `fit_units` set; numbers are learned in units in which they are about standard.
        y_scale: Buffer, 1 or what `fit_units` set.
    """

    labels = ("open", "fixed")
    y_mean: Tensor
    y_scale: Tensor

    def __init__(self, encoder: nn.Module, *, ways: int, target: Target, fixed: bool) -> None:
        super().__init__()
        self.require(target, fixed=fixed)
        self.encoder = encoder
        self.width = width_of(encoder)
        self.ways = ways if target == "class" else 1
        self.target = target
        self.fixed = fixed and target == "class"
        if self.target == "number" or self.fixed:  # ways that mean something have weights of their own
            kept: tuple[Law, ...] = tuple(law for law in self.invariant if law != "labels")
            self.invariant = kept
        self.register_buffer("y_mean", torch.tensor(0.0))
        self.register_buffer("y_scale", torch.tensor(1.0))

    @property
    def answered(self) -> int:
        """The width of an answer: a logit per way, or the mean and log-variance of a number."""
        return 2 if self.target == "number" else self.ways

    def fit_units(self, mean: float, scale: float) -> None:
        """Learn numbers in units of `scale`, from `mean`; answers stay in the caller's units."""
        self.y_mean.fill_(mean)
        self.y_scale.fill_(scale)

    def encode(self, inputs: Tensors) -> Tensors:
        """`features [batch, width]` of `x [batch, *input]`."""
        return {"features": self.encoder(inputs["x"])}

    def support(self, features: Tensors, weight: Tensor) -> Tensor:
        """Standard features `[task, example, width]` of a support set, 0 for absent examples."""
        return masked(standard(features["features"]), weight)

    def label_vectors(self, y: Tensor, weight: Tensor) -> Tensor:
        """One-hot ways `[task, example, ways]`, or standard numbers `[task, example, 1]`; 0 for absent examples."""
        if self.target == "number":
            return masked((y - self.y_mean) / self.y_scale, weight)
        return one_hot(y, weight, self.ways)

    def ways_open(self, labels: Tensor) -> dict[str, Tensor]:
        """With classes `present [task, ways]`, 1 where a way may be answered; nothing with numbers."""
        if self.target == "number":
            return {}
        return {"present": open_ways(labels.sum(1), fixed=self.fixed)}

    def gaussian(self, mean: Tensor, variance: Tensor) -> Tensor:
        """Mean and log-variance `[..., 2]` in the caller's units, of both `[...]` in standard ones."""
        log_variance = variance.log() + 2 * self.y_scale.log()
        return torch.stack([mean * self.y_scale + self.y_mean, log_variance], -1)


def width_of(encoder: nn.Module) -> int:
    """How many features an encoder gives.

    Raises:
        TypeError: it does not say.
    """
    width = getattr(encoder, "width", None)
    if not isinstance(width, int):
        raise TypeError(f"an encoder states its features as the integer `width`, got {width!r}")
    return width


def standard(features: Tensor) -> Tensor:
    """Features of mean 0 and variance 1 over their last axis: trunks differ in scale, and inputs in contrast."""
    return F.layer_norm(features, features.shape[-1:])


def masked(values: Tensor, weight: Tensor) -> Tensor:
    """`values [task, example, ...]`, 0 where `weight [task, example]` is 0, whatever stands there."""
    present = weight.reshape(*weight.shape, *(1 for _ in values.shape[2:])) > 0
    return torch.where(present, values, torch.zeros_like(values))


def in_places(weight: Tensor, places: int, *, last: bool = False) -> Tensor:
    """The 0-1 matrix `[task, places, example]` that moves present examples together, to the first or last places."""
    present = (weight > 0).to(weight.dtype)
    place = torch.cumsum(present, 1) - 1
    if last:
        place = place + places - present.sum(1, keepdim=True)
    moved = place.unsqueeze(1) == torch.arange(places, device=weight.device).unsqueeze(-1)
    return moved.to(weight.dtype) * present.unsqueeze(1)


def perceptron(*widths: int, silent: bool = False) -> nn.Sequential:
    """Linear layers with ReLU between them; a silent one begins by answering 0, beside what is known to work."""
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), nn.ReLU()]
    last = layers[-2]
    if silent and isinstance(last, nn.Linear):
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
    return nn.Sequential(*layers[:-1])


def orthogonal(before: int, after: int) -> nn.Linear:
    """A linear map without bias that begins by keeping distances, as far as its rank allows."""
    layer = nn.Linear(before, after, bias=False)
    nn.init.orthogonal_(layer.weight)
    return layer


def projection(width: int, projected: int) -> nn.Module:
    """A learned map of features to `projected` ones that begins as the identity, as far as it can; 0: none."""
    if not projected:
        return nn.Identity()
    layer = nn.Linear(width, projected)
    nn.init.eye_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def variance(raw: Tensor, floor: float) -> Tensor:
    """A variance of at least `floor` squared, of any number."""
    return floor**2 + F.softplus(raw).square()


def attention(scores: Tensor, mask: Tensor) -> Tensor:
    """Weights over the last axis that sum to 1 where `mask` holds, all 0 where it holds nowhere."""
    low = torch.full_like(scores, FAR_BELOW)
    return torch.where(mask, scores, low).softmax(-1) * mask.to(scores.dtype)


def square_distance(first: Tensor, second: Tensor) -> Tensor:
    """`|first - second|^2` over the last axis; differences come before squares, so no digits cancel."""
    return (first - second).square().sum(-1)
