"""Several learners on one encoder, each a member of the answer.

Lakshminarayanan, Pritzel, Blundell, "Simple and Scalable Predictive Uncertainty Estimation using Deep Ensembles"
(2017). The answer is the mixture, p(y | x) = 1/M sum_m p_m(y | x): the reader averages probabilities, and mixes
Gaussians. Members differ by their fresh weights; the encoder runs once for all of them.
"""

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field, ValidationError
from torch import Tensor, nn

from .bayes import Bayes
from .context import Context
from .errors import ConfigInvalid
from .head import Head, width_of
from .hypernetwork import Hypernetwork
from .learner import AdditiveLearner, Law, Learner, Options, Target, Tensors
from .lstm import Lstm
from .relation import Relation
from .snail import Snail
from .transformer import Transformer

METHODS: dict[str, type[Learner]] = {
    "bayes": Bayes, "context": Context, "hypernetwork": Hypernetwork, "lstm": Lstm,
    "relation": Relation, "snail": Snail, "transformer": Transformer,
}  # fmt: skip
"""Those that begin at random weights: members of the others would be the same learner."""


class EnsembleOptions(Options):
    """The settings of an ensemble."""

    members: int = Field(4, ge=2, le=32, description="Learners, each with weights of its own.")
    method: Literal["bayes", "context", "hypernetwork", "lstm", "relation", "snail", "transformer"] = Field(
        "context", description="The method of every member."
    )
    settings: dict[str, Any] = Field(default_factory=dict, description="The members' own settings.")


class Features(nn.Module):
    """An encoder of what is encoded already, which stands in a member for the one that all share."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, features: Tensor) -> Tensor:
        """The features as they are."""
        return features


class Ensemble(Head):
    """State: that of member i under the names `m<i>_…`. Its own features are those of the encoder.

    Args:
        encoder: The one that all members share.
        members: Learners on `Features`; what each makes of the shared features is made again for state and answer.
    """

    options: ClassVar[type[Options]] = EnsembleOptions
    targets = ("class", "number")

    def __init__(self, encoder: nn.Module, members: Sequence[Learner]) -> None:
        first = members[0]
        super().__init__(encoder, ways=first.ways, target=first.target, fixed=first.fixed)
        self.members = nn.ModuleList(members)
        held = [member.examples for member in members if member.examples is not None]
        self.examples = min(held) if held else None
        laws: tuple[Law, ...] = ("order", "labels")
        self.invariant = tuple(law for law in laws if all(law in member.invariant for member in members))

    @classmethod
    def make(
        cls, encoder: nn.Module, *, ways: int, examples: int, target: Target, fixed: bool, options: EnsembleOptions
    ) -> "Ensemble":
        """See `Learner`; an `AdditiveEnsemble` where members are additive."""
        method = METHODS[options.method]
        try:
            settings = method.options.model_validate(options.settings)
        except ValidationError as error:
            raise ConfigInvalid(f"learner.options.settings: {error}") from error
        width = width_of(encoder)
        members = [
            method.make(Features(width), ways=ways, examples=examples, target=target, fixed=fixed, options=settings)
            for _ in range(options.members)
        ]
        kind = AdditiveEnsemble if issubclass(method, AdditiveLearner) else Ensemble
        return kind(encoder, members)

    def named_members(self) -> list[tuple[str, Learner]]:
        """The members, each with the prefix of its names."""
        return [(f"m{index}_", part) for index, part in enumerate(self.members) if isinstance(part, Learner)]

    def fit_units(self, mean: float, scale: float) -> None:
        """Also the members': see `Head`."""
        super().fit_units(mean, scale)
        for _, member in self.named_members():
            if isinstance(member, Head):
                member.fit_units(mean, scale)

    def state(self, features: Tensors, y: Tensor, weight: Tensor) -> Tensors:
        """See the class."""
        return {
            prefix + name: value
            for prefix, member in self.named_members()
            for name, value in member.state(_encoded(member, features), y, weight).items()
        }

    def predict(self, features: Tensors, state: Tensors) -> Tensor:
        """See `Learner`: the members' answers, side by side."""
        return torch.cat(
            [
                member.predict(_encoded(member, features), _own(state, prefix))
                for prefix, member in self.named_members()
            ],
            -2,
        )


class AdditiveEnsemble(Ensemble, AdditiveLearner):
    """An ensemble of additive learners; statistics are named as states are."""

    def summarise(self, features: Tensors, y: Tensor, weight: Tensor) -> Tensors:
        """Those of member i, under the names `m<i>_…`."""
        return {
            prefix + name: value
            for prefix, member in self.named_members()
            if isinstance(member, AdditiveLearner)
            for name, value in member.summarise(_encoded(member, features), y, weight).items()
        }

    def adapt(self, statistics: Tensors) -> Tensors:
        """See `Ensemble`."""
        return {
            prefix + name: value
            for prefix, member in self.named_members()
            if isinstance(member, AdditiveLearner)
            for name, value in member.adapt(_own(statistics, prefix)).items()
        }

    def state(self, features: Tensors, y: Tensor, weight: Tensor) -> Tensors:
        """See `Learner`."""
        return self.adapt(self.summarise(features, y, weight))


def joined(members: Sequence[Learner]) -> Ensemble:
    """An ensemble of learners that were trained apart, on encoders that are the same.

    Raises:
        ConfigInvalid: their encoders, targets or ways differ.
    """
    first = members[0]
    encoder, weights = first.get_submodule("encoder"), first.get_submodule("encoder").state_dict()
    for member in members:
        other = member.get_submodule("encoder").state_dict()
        same = weights.keys() == other.keys() and all(torch.equal(weights[name], other[name]) for name in weights)
        if not same or (member.target, member.fixed, member.ways) != (first.target, first.fixed, first.ways):
            raise ConfigInvalid("members of an ensemble need the same encoder, target and ways")
        member.register_module("encoder", Features(width_of(encoder)))
    kind = AdditiveEnsemble if all(isinstance(member, AdditiveLearner) for member in members) else Ensemble
    return kind(encoder, members)


def _own(tensors: Tensors, prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _encoded(member: Learner, features: Tensors) -> Tensors:
    """The member's features `[..., *feature]` of those that all share, `[..., width]`."""
    return member.encode({"x": features["features"]})
