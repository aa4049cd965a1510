"""A Bayesian linear head whose prior is described: what a task is known by says what to expect of it.

Harrison, Sharma, Pavone, "Meta-Learning Priors for Efficient Online Bayesian Regression" (ALPaCA, 2018), with a prior
mean that is a function of the descriptor m, as in Gelman, Hill, "Data Analysis Using Regression and
Multilevel/Hierarchical Models" (2006), ch. 13 (group-level predictors), and noise that depends on the input:

    y = g(x) + x'w + e,    w ~ N(K0 + A m, S0),    e ~ N(0, v(x)),    x = sqrt(v(x)) (f(x), 1)
    S = (S0^-1 + X' V^-1 X)^-1,    K = S (S0^-1 (K0 + A m) + X' V^-1 (Y - g))
    y | x ~ N(g(x) + x'K, v(x) + x'S x)

A task moves answers in deviations of the noise: where scores spread more, tasks differ more. The guess g is 0, or the
encoder's first feature, which the head then only mends. The state of a known task is that posterior, given all its
training examples. A posterior is again a prior: a support set adapts whichever state was described.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from .errors import ConfigInvalid
from .head import masked, width_of
from .learner import DescribedLearner, Descriptor, Options, Reader, Target, Tensors
from .records import Expanded, frozen_guess
from .solve import invert_positive
from .tasks import Episodes, Examples, beside_queries, encode, log_likelihood

LEAST_VARIANCE = 1.0e-4
"""Of the prior and of the noise, in standard units."""


class DescribedBayesOptions(Options):
    """The settings of the described Bayesian head."""

    known: int = Field(1, ge=1, le=4096, description="Tasks that have an id.")
    fields: tuple[int, ...] = Field((0,), description="Of a record of metadata: categories of each, 0 for a number.")
    guess: bool = Field(False, description="The encoder's first feature is a guess of the answer, in standard units.")
    slope_deviation: float = Field(0.1, gt=0, description="Of a task's weights, before training; standard units.")
    level_deviation: float = Field(0.3, gt=0, description="Of a task's level, before training; standard units.")


@dataclass(frozen=True, slots=True)
class DescribedEpisodes(Episodes):
    """A batch of tasks with what describes each.

    Attributes:
        descriptor: See `DescribedLearner.describe`; axis `[task]` first.
        kind: Which descriptor.
    """

    descriptor: Tensors
    kind: Descriptor = "metadata"


def described_answers(learner: DescribedLearner, episodes: DescribedEpisodes) -> Tensor:
    """What a learner answers to the queries from descriptor and support set: `[task, query, member, columns]`."""
    support, query = episodes.support, episodes.query
    prior = learner.describe(episodes.kind, episodes.descriptor)
    state = learner.adapted(prior, encode(learner, support.x), support.y, support.weight)
    return learner.predict(encode(learner, query.x), beside_queries(state))


def posterior(prior: Tensors, x: Tensor, y: Tensor, precision: Tensor) -> dict[str, Tensor]:
    """Mean and covariance of weights given examples.

    Args:
        prior: `mean [task, d]`, `covariance [task, d, d]`.
        x: Regressors `[task, example, d]`, finite.
        y: Numbers `[task, example]`, finite.
        precision: One over the noise's variance `[task, example]`, 0 for absent examples.

    Returns:
        `mean` and `covariance` of the prior's shapes.
    """
    # In float64: labels of any size add up to the same, in whatever order they come.
    mean, given, x, y, precision = (value.double() for value in (*_parts(prior), x, y, precision))
    weighted = (x * precision.unsqueeze(-1)).transpose(1, 2)
    covariance = invert_positive(invert_positive(given) + weighted @ x)
    # The mean moves by what the prior leaves unexplained: nothing at all where there are no examples.
    surprise = y - (x @ mean.unsqueeze(-1)).squeeze(-1)
    moved = covariance @ (weighted @ surprise.unsqueeze(-1))
    return {"mean": (mean + moved.squeeze(-1)).float(), "covariance": covariance.float()}


def _parts(prior: Tensors) -> tuple[Tensor, Tensor]:
    return prior["mean"], prior["covariance"]


def spread(x: Tensor, covariance: Tensor) -> Tensor:
    """The quadratic form x'S x `[...]` of regressors `[..., d]` and covariances `[..., d, d]`; axes broadcast."""
    return ((x.unsqueeze(-2) @ covariance).squeeze(-2) * x).sum(-1).clamp_min(0)


class DescribedBayes(DescribedLearner):
    """State: `mean [d]`, `covariance [d, d]` of the weights, d = width + 1; y and noise in standard units.

    Attributes:
        y_mean: Buffer, the level of standard units; 0 or what `fit_units` set.
        y_scale: Buffer, their unit; 1 or what `fit_units` set.
        shots: Buffer float32 `[known]`, training examples of each known task.
    """

    options: ClassVar[type[Options]] = DescribedBayesOptions
    targets = ("number",)
    invariant = ("order",)
    descriptors = ("id", "metadata")
    learns = True
    y_mean: Tensor
    y_scale: Tensor
    first_deviation: Tensor
    shots: Tensor
    known_mean: Tensor
    known_covariance: Tensor

    def __init__(self, encoder: nn.Module, options: DescribedBayesOptions) -> None:
        super().__init__()
        self.encoder, self.target, self.ways = encoder, "number", 1
        self.guesses = int(options.guess)
        width = width_of(encoder) - self.guesses
        self.metadata = Expanded(options.fields)
        self.direct = frozen_guess(self.metadata.width)
        self.prior_mean = nn.Linear(self.metadata.width, width + 1)
        deviation = torch.full((width + 1,), options.slope_deviation)
        deviation[-1] = options.level_deviation
        self.register_buffer("first_deviation", deviation)
        self.log_deviation = nn.Parameter(torch.zeros(width + 1))
        self.log_noise = nn.Linear(width, 1)
        for layer in (self.prior_mean, self.log_noise):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        self._add_buffers(options.known, width + 1)
        self.ids: tuple[str, ...] = tuple(str(place) for place in range(options.known))

    def _add_buffers(self, known: int, size: int) -> None:
        self.register_buffer("y_mean", torch.tensor(0.0))
        self.register_buffer("y_scale", torch.tensor(1.0))
        self.register_buffer("shots", torch.zeros(known))
        self.register_buffer("known_mean", torch.zeros(known, size))
        self.register_buffer("known_covariance", torch.eye(size).repeat(known, 1, 1))

    @classmethod
    def make(
        cls, encoder: nn.Module, *, ways: int, examples: int, target: Target, fixed: bool,
        options: DescribedBayesOptions,
    ) -> Self:  # fmt: skip
        """See `Learner`."""
        cls.require(target, fixed=fixed)
        return cls(encoder, options)

    def name_known(self, ids: Sequence[str]) -> None:
        """Give the known tasks their ids.

        Raises:
            ConfigInvalid: there are more or fewer.
        """
        if len(ids) != len(self.shots):
            raise ConfigInvalid(f"learner.options.known: {len(ids)}, the tasks of the data, got {len(self.shots)}")
        self.ids = tuple(ids)

    @property
    def readers(self) -> tuple[Reader, ...]:  # type: ignore[override]  # they follow from ids and buffers
        """The known tasks, each a number."""
        shots = self.shots.tolist()
        return tuple(Reader(name, "number", (0, 2), shots=count) for name, count in zip(self.ids, shots, strict=True))

    def fit_units(self, mean: float, scale: float) -> None:
        """Learn numbers in units of `scale`, from `mean`; answers stay in the caller's units."""
        self.y_mean.fill_(mean)
        self.y_scale.fill_(scale)

    def encode(self, inputs: Tensors) -> Tensors:
        """`features [batch, width]` of `x [batch, *input]`."""
        return {"features": self.encoder(inputs["x"])}

    def describe(self, kind: Descriptor, descriptor: Tensors) -> Tensors:
        """See `DescribedLearner`: of an id the posterior of a known task, of metadata the prior.

        Raises:
            ConfigInvalid: another kind.
        """
        if kind == "id":
            index = descriptor["index"]
            return {"mean": self.known_mean[index], "covariance": self.known_covariance[index]}
        if kind == "metadata":
            record = self.metadata(descriptor["metadata"])
            mean = self.prior_mean(record) + F.pad(self.direct(record), (self.known_mean.shape[1] - 1, 0))
            variance = LEAST_VARIANCE + (self.first_deviation * self.log_deviation.exp()).square()
            return {"mean": mean, "covariance": torch.diag(variance).expand(mean.shape[0], -1, -1)}
        raise ConfigInvalid(f"DescribedBayes is described by {' or '.join(self.descriptors)}, not {kind}")

    def adapted(self, prior: Tensors, features: Tensors, y: Tensor, weight: Tensor) -> Tensors:
        """See `DescribedLearner`."""
        guess, mended = self.parts(masked(features["features"], weight))
        x = masked(self.regressors(mended), weight)
        left = masked((y - self.y_mean) / self.y_scale, weight).squeeze(-1) - guess
        noise = self.noise(mended)
        return posterior(prior, x, left, (weight > 0).to(noise.dtype) / noise)

    def parts(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """The guess `[...]`, 0 where the encoder makes none, and the features that the head works on."""
        guess, mended = features[..., : self.guesses], features[..., self.guesses :]
        return guess.sum(-1), mended

    def regressors(self, features: Tensor) -> Tensor:
        """Inputs `[..., d]` of the regression: features `[..., width]` and a constant 1, in deviations of the noise."""
        return F.pad(features, (0, 1), value=1.0) * self.noise(features).sqrt().unsqueeze(-1)

    def noise(self, features: Tensor) -> Tensor:
        """The variance `[...]` of the noise at inputs with such features `[..., width]`, without the guess."""
        log_noise: Tensor = self.log_noise(features)
        return LEAST_VARIANCE + log_noise.squeeze(-1).exp()

    def predict(self, features: Tensors, state: Tensors) -> Tensor:
        """See `Learner`; one member."""
        guess, mended = self.parts(features["features"])
        x = self.regressors(mended)
        mean = guess + (x * state["mean"]).sum(-1)
        variance = self.noise(mended) + spread(x, state["covariance"])
        units = [mean * self.y_scale + self.y_mean, variance.log() + 2 * self.y_scale.log()]
        return torch.stack(units, -1).unsqueeze(-2)

    def loss(self, episodes: Episodes) -> Tensor:
        """The negative log-likelihood of the queries, after descriptor and support set, a weighted mean."""
        if not isinstance(episodes, DescribedEpisodes):
            return super().loss(episodes)
        found = log_likelihood(described_answers(self, episodes), episodes.query.y)
        weight = episodes.query.weight
        return -(found * weight).sum() / weight.sum().clamp_min(1)

    @torch.no_grad()
    def remember(self, place: int, metadata: Tensor, examples: Examples | None) -> None:
        """Keep the posterior of a known task.

        Args:
            place: Its index.
            metadata: float32 `[1, fields]`.
            examples: Its training examples, one task; None: the prior is the state.
        """
        state = self.describe("metadata", {"metadata": metadata})
        if examples is not None:
            state = self.adapted(state, encode(self, examples.x), examples.y, examples.weight)
        self.known_mean[place], self.known_covariance[place] = state["mean"][0], state["covariance"][0]
        self.shots[place] = 0 if examples is None else examples.weight.sum()
