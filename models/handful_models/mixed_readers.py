"""One text and several readers of mixed kinds: a page count, a rating, a decision, key words.

Caruana, "Multitask Learning" (1997). One encoder serves all. Key words read its averaged embeddings, and what venue and
year add. The three others have too few papers, or too weak a signal, for that: they read the encoder's guesses, which
are linear in the pieces, and mend them with a few numbers fitted on papers that the guesses never saw. The decision
reads the guessed rating, too. The level and spread of the page count come from venue and year, and a support set of
page counts moves them (see `described_bayes`):

    pages = level + spread (g w + b + e),    w, b ~ N((w0, 0), diag),    e ~ N(0, v),    g the guess

How far levels jump is known of the usual year only. So b's variance grows by what the support set's mean surprise has
beyond what it should (empirical Bayes; Morris, "Parametric Empirical Bayes Inference", 1983).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from .described_bayes import LEAST_VARIANCE, posterior, spread
from .errors import ConfigInvalid
from .head import masked, width_of
from .learner import DescribedLearner, Descriptor, Options, Reader, Target, Tensors
from .records import Expanded
from .tasks import Episodes
from .venue_years import VenueYears

PAGES, RATING, ACCEPT, KEYWORDS = range(4)
GUESSES = 3
IDS = ("pages", "rating", "accept", "keywords")
FIRST_KEYWORD = 6


class MixedReadersOptions(Options):
    """The settings of the mixed readers."""

    keywords: int = Field(1, ge=1, le=4096, description="Key words.")
    venues: int = Field(13, ge=1, le=256, description="Categories of the first field of metadata.")
    venue_years: int = Field(80, ge=1, le=4096, description="Room for known venue-years.")
    hidden: int = Field(128, ge=1, le=1024)
    dropout: float = Field(0.3, ge=0, lt=1)
    slope_deviation: float = Field(0.2, gt=0, description="Of a venue-year's own weight of the guessed pages.")


@dataclass(frozen=True, slots=True)
class MixedBatch(Episodes):
    """A batch of texts with what is known of each.

    The query's `x` is int64 `[1, batch, tokens]`; its `y` stands for nothing.

    Attributes:
        metadata: float32 `[batch, 2]`.
        targets: `pages`, `rating`, `accept` `[batch]`, `keywords` `[batch, label]`; NaN is missing.
    """

    metadata: Tensor
    targets: Tensors


class MixedReaders(DescribedLearner):
    """State: `mean [d]`, `covariance [d, d]`, `units [2]` (level, spread) of pages, d = 2; `context
    [label]`, what is added to key words' logits; `learns [1]`, 1 where a support set counts.

    Columns: mean and log-variance of pages, then of the rating; logits of reject and accept; one of each key word.

    Attributes:
        labels_of_keywords: By column.
        shots: Buffer float32 `[4]`, training examples of each reader.
        slopes: Buffer float32 `[2]`, of the guessed pages and rating.
        noise: Buffer float32 `[2]`, the variances that both leave, in standard units.
        decision: Buffer float32 `[3]`, weights of the guessed rating and decision, and the level, of accept's logit.
        threshold: Buffer float32 `[1]`, the probability from which a key word is answered.
    """

    options: ClassVar[type[Options]] = MixedReadersOptions
    targets = ("number",)
    invariant = ("order",)
    descriptors = ("id", "metadata")
    beside_id = True
    learns = True
    shots: Tensor
    threshold: Tensor
    slopes: Tensor
    noise: Tensor
    decision: Tensor

    def __init__(self, encoder: nn.Module, options: MixedReadersOptions) -> None:
        super().__init__()
        self.encoder, self.target, self.ways, self.settings = encoder, "number", 1, options
        self.context = Expanded((options.venues, 0))
        self.years = VenueYears(options.venue_years)
        context, width = self.context.width + 1, width_of(encoder) - GUESSES
        self.shared = nn.Sequential(nn.Dropout(options.dropout), nn.Linear(width, options.hidden), nn.ReLU())
        self.words = nn.Linear(options.hidden + width, options.keywords)
        self.words_by_context = nn.Linear(context, options.keywords, bias=False)
        self.words_by_year = nn.Parameter(torch.zeros(options.venue_years, options.keywords))
        self.drop = nn.Dropout(options.dropout)
        self.register_buffer("slopes", torch.tensor([1.0, 1.0]))
        self.register_buffer("noise", torch.tensor([1.0, 1.0]))
        self.register_buffer("decision", torch.tensor([1.0, 1.0, 0.0]))
        self.register_buffer("shots", torch.zeros(len(IDS)))
        self.register_buffer("threshold", torch.full((1,), 0.5))
        self.labels_of_keywords: tuple[str, ...] = tuple(str(place) for place in range(options.keywords))

    @classmethod
    def make(
        cls, encoder: nn.Module, *, ways: int, examples: int, target: Target, fixed: bool, options: MixedReadersOptions
    ) -> Self:
        """See `Learner`."""
        cls.require(target, fixed=fixed)
        return cls(encoder, options)

    def name_keywords(self, labels: Sequence[str]) -> None:
        """Give the columns of key words their labels.

        Raises:
            ConfigInvalid: there are more or fewer.
        """
        if len(labels) != self.settings.keywords:
            raise ConfigInvalid(f"learner.options.keywords: {len(labels)} in the data, got {self.settings.keywords}")
        self.labels_of_keywords = tuple(labels)

    @property
    def readers(self) -> tuple[Reader, ...]:  # type: ignore[override]  # they follow from labels and buffers
        """The four."""
        pages, rating, accept, keywords = self.shots.tolist()
        last = FIRST_KEYWORD + self.settings.keywords
        return (
            Reader("pages", "number", (0, 2), shots=pages, description="Printed pages."),
            Reader(
                "rating", "number", (2, 4), shots=rating, description="Mean rating within venue and year, standard."
            ),
            Reader("accept", "class", (4, 6), ("reject", "accept"), accept, description="Whether ICLR takes it."),
            Reader("keywords", "labels", (FIRST_KEYWORD, last), self.labels_of_keywords, keywords),
        )

    def encode(self, inputs: Tensors) -> Tensors:
        """`features [batch, width]` of `x [batch, tokens]`, the encoder's."""
        return {"features": self.encoder(inputs["x"])}

    def describe(self, kind: Descriptor, descriptor: Tensors) -> Tensors:
        """See `DescribedLearner`: an id alone leaves venue and year open.

        Raises:
            ConfigInvalid: another kind.
        """
        index = descriptor["index"]
        if kind == "id":
            nowhere = torch.tensor([float(self.settings.venues), 0.0])
            metadata = nowhere.expand(index.shape[0], 2)
        elif kind == "metadata":
            metadata = descriptor["metadata"]
        else:
            raise ConfigInvalid(f"MixedReaders is described by {' or '.join(self.descriptors)}, not {kind}")
        level, unit, open_level = self.years(metadata)
        own = torch.full_like(open_level, self.settings.slope_deviation**2)
        variances = torch.stack([own, LEAST_VARIANCE + open_level], 1)
        return {
            "mean": F.pad(self.slopes[:1], (0, 1)).expand(index.shape[0], 2),
            "covariance": torch.diag_embed(variances),
            "units": torch.stack([level, unit], 1),
            "context": self.context_of(metadata),
            "learns": (index == PAGES).float().unsqueeze(1),
        }

    def context_of(self, metadata: Tensor) -> Tensor:
        """What venue and year say of key words, logits `[batch, label]`; the list of the nearest known year counts."""
        known = (metadata[:, :1] < self.settings.venues).float()
        record = torch.cat([self.context(metadata) * known, known], 1)
        words: Tensor = self.words_by_context(record)
        return words + self.years.nearest(metadata, self.years.table[:, 0] >= 0) @ self.words_by_year

    def adapted(self, prior: Tensors, features: Tensors, y: Tensor, weight: Tensor) -> Tensors:
        """See `DescribedLearner`: page counts move the level and the weights of pages; other readers learn nothing."""
        weight = weight * prior["learns"]
        level, unit = prior["units"].unbind(1)
        x = masked(self.regressors(features), weight)
        standard = masked((y - level[:, None, None]) / unit[:, None, None], weight).squeeze(-1)
        noise = LEAST_VARIANCE + self.noise[0]
        widened = self._widened(prior, x, standard, noise)
        present = (weight > 0).to(x.dtype)
        found = posterior({"mean": prior["mean"], "covariance": widened}, x, standard, present / noise)
        return {**prior, **found}

    def _widened(self, prior: Tensors, x: Tensor, y: Tensor, noise: Tensor) -> Tensor:
        """The prior's covariance, its level freer by what the mean surprise has beyond its variance."""
        count = x[..., -1].sum(1)
        middle = x.sum(1) / count.clamp_min(1).unsqueeze(1)
        surprise = y.sum(1) / count.clamp_min(1) - (middle * prior["mean"]).sum(1)
        expected = spread(middle, prior["covariance"]) + noise / count.clamp_min(1)
        extra = torch.where(count > 0, F.relu(surprise.square() - expected), torch.zeros_like(count))
        level = F.pad(torch.ones(1, 1), (x.shape[-1] - 1, 0, x.shape[-1] - 1, 0))
        return prior["covariance"] + extra[:, None, None] * level

    def regressors(self, features: Tensors) -> Tensor:
        """Inputs `[..., 2]` of the regression of pages: the guess and a constant 1."""
        return F.pad(self.guesses(features)[..., :1], (0, 1), value=1.0)

    def guesses(self, features: Tensors) -> Tensor:
        """The encoder's guesses `[..., 3]`: pages and rating in standard units, the decision."""
        return features["features"][..., -GUESSES:]

    def predict(self, features: Tensors, state: Tensors) -> Tensor:
        """See `DescribedLearner`; one member."""
        x, guess = self.regressors(features), self.guesses(features)
        level, unit = state["units"].unbind(-1)
        noise = LEAST_VARIANCE + self.noise
        pages = level + unit * (x * state["mean"]).sum(-1)
        variance = noise[0] + spread(x, state["covariance"])
        rating = self.slopes[1] * guess[..., 1]
        accept = 0.5 * ((guess[..., 1:] * self.decision[:2]).sum(-1) + self.decision[2])
        numbers = [pages, variance.log() + 2 * unit.log(), rating, torch.zeros_like(rating) + noise[1].log()]
        few = torch.stack([*numbers, -accept, accept], -1)
        added = state["context"].expand(*few.shape[:-1], self.settings.keywords)
        return torch.cat([few, self.keywords(features) + added], -1).unsqueeze(-2)

    def keywords(self, features: Tensors) -> Tensor:
        """What a text says of key words, logits `[..., label]`."""
        text = features["features"][..., :-GUESSES]
        logits: Tensor = self.words(torch.cat([self.drop(self.shared(text)), self.drop(text)], -1))
        return logits

    def loss(self, episodes: Episodes) -> Tensor:
        """The cross-entropy of key words, a mean over the texts that have a list; all else is fitted, not trained."""
        if not isinstance(episodes, MixedBatch):
            return super().loss(episodes)
        logits = self.keywords(self.encode({"x": episodes.query.x["x"][0]})) + self.context_of(episodes.metadata)
        truth = episodes.targets["keywords"]
        return masked_mean(_words(logits, truth), truth[:, 0])


def masked_mean(values: Tensor, target: Tensor) -> Tensor:
    """The mean of `values [batch]` where `target [batch]` is known; 0 where it never is."""
    known = ~target.isnan()
    return torch.where(known, values, torch.zeros_like(values)).sum() / known.sum().clamp_min(1)


def _words(logits: Tensor, y: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, y.nan_to_num(), reduction="none").sum(1)
