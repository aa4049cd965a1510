"""Accuracy on episodes of classes that training never saw, with confidence intervals.

Everything is inductive: the encoder's normalisation is frozen, so no query sees another.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .episodes import Episode, draw_episode
from .errors import ConfigInvalid
from .learner import Learner, Tensors
from .omniglot import DRAWERS, Characters, rotated
from .tasks import beside_queries

Z_95 = 1.959964
"""Two-sided 95 % quantile of the normal distribution."""

QUERIES_AT_ONCE = 1500
"""Of episodes that are answered together; more take more memory than they save time."""

ORDERS = 20
ORDER_EPISODES = 200


@dataclass(frozen=True, slots=True)
class Protocol:
    """How a line of the table is measured.

    Attributes:
        rotations: Whether quarter rotations count as classes of their own.
        within_alphabet: Whether all ways of an episode come from one alphabet (then without rotations).
    """

    way: int
    shot: int
    query: int = 15
    episodes: int = 1000
    rotations: bool = True
    within_alphabet: bool = False

    @property
    def title(self) -> str:
        """A short name of the line."""
        place = ", within an alphabet" if self.within_alphabet else "" if self.rotations else ", no rotations"
        return f"{self.way}-way {self.shot}-shot{place}"


PUBLISHED = (
    *(Protocol(way, shot, rotations=rotations) for rotations in (True, False) for way in (5, 20) for shot in (1, 5)),
    Protocol(20, 1, rotations=False, within_alphabet=True),
)


@dataclass(frozen=True, slots=True)
class Accuracy:
    """A mean over episodes, with its 95 % interval's half-width; both are fractions."""

    protocol: Protocol
    seed: int
    mean: float
    interval: float
    per_episode: tuple[float, ...]

    def row(self) -> dict[str, object]:
        """The line of the table, without the episodes."""
        return {"title": self.protocol.title, **asdict(self.protocol), "seed": self.seed,
                "mean": self.mean, "interval": self.interval}  # fmt: skip


@torch.no_grad()
def encode_all(learner: Learner, images: NDArray[np.uint8], *, rows: int = 512) -> dict[str, Tensor]:
    """Features by name, each `[class, image, *feature]`, of drawings `[class, image, 28, 28]`."""
    flat = torch.from_numpy(np.ascontiguousarray(images)).reshape(-1, 1, *images.shape[2:])
    parts = [learner.encode({"x": part.float() / 255}) for part in torch.split(flat, rows)]
    return {
        name: torch.cat([part[name] for part in parts]).reshape(*images.shape[:2], *parts[0][name].shape[1:])
        for name in parts[0]
    }


@torch.no_grad()
def episode_logits(
    learner: Learner, features: Tensors, episodes: Sequence[Episode], order: NDArray[np.int64] | None = None
) -> Tensor:
    """Logits `[episode, way, query, member, ways]` of the queries of episodes of one size.

    Args:
        learner: In evaluation mode.
        features: By name, `[class, image, *feature]`.
        episodes: All of one way, shot and number of queries.
        order: int64 `[episode, way * shot]`, the order in which the support set is given; class by class if none.
    """
    classes = torch.from_numpy(np.stack([episode.classes for episode in episodes])).unsqueeze(-1)
    supports = torch.from_numpy(np.stack([episode.support for episode in episodes]))
    queries = torch.from_numpy(np.stack([episode.query for episode in episodes]))
    count, way, shot = supports.shape
    y = torch.arange(way).repeat_interleave(shot).expand(count, -1)
    support = {name: value[classes, supports].flatten(1, 2) for name, value in features.items()}
    if order is not None:
        turn, rows = torch.from_numpy(order), torch.arange(count).unsqueeze(-1)
        y, support = y[rows, turn], {name: value[rows, turn] for name, value in support.items()}
    state = learner.state(support, y, torch.ones(y.shape))
    asked = {name: value[classes, queries].flatten(1, 2) for name, value in features.items()}
    logits = learner.predict(asked, beside_queries(state))
    return logits.reshape(*queries.shape, *logits.shape[2:])


def in_batches(episodes: Sequence[Episode]) -> Iterator[Sequence[Episode]]:
    """The episodes, a few at a time: about `QUERIES_AT_ONCE` queries."""
    size = max(1, QUERIES_AT_ONCE // episodes[0].query.size) if episodes else 1
    for at in range(0, len(episodes), size):
        yield episodes[at : at + size]


class Encoded:
    """Characters as a learner sees them, encoded once for everything that is measured."""

    def __init__(self, learner: Learner, characters: Characters) -> None:
        self.learner = learner.eval()
        self.characters = characters
        self._features: dict[bool, dict[str, Tensor]] = {}

    def features(self, *, rotations: bool) -> dict[str, Tensor]:
        """By name, `[class, image, *feature]`; with rotations each quarter turn is a class."""
        if rotations not in self._features:
            small = self.characters.small
            self._features[rotations] = encode_all(self.learner, rotated(small) if rotations else small)
        return self._features[rotations]


def class_pools(characters: Characters, protocol: Protocol) -> list[NDArray[np.int64]]:
    """The sets of classes that an episode may be drawn from; each episode takes one of them at random."""
    if not protocol.within_alphabet:
        classes = len(characters) * (4 if protocol.rotations else 1)
        return [np.arange(classes)]
    alphabets = [np.flatnonzero(characters.alphabet == number) for number in np.unique(characters.alphabet)]
    return [pool for pool in alphabets if len(pool) >= protocol.way]


def evaluate(learner: Learner, characters: Characters, protocols: Sequence[Protocol], *, seed: int) -> list[Accuracy]:
    """The accuracy of a learner by every protocol, over episodes drawn from the seed.

    Raises:
        ConfigInvalid: a protocol has more ways or examples than the learner's state holds.
    """
    return evaluate_encoded(Encoded(learner, characters), protocols, seed=seed)


def evaluate_encoded(encoded: Encoded, protocols: Sequence[Protocol], *, seed: int) -> list[Accuracy]:
    """`evaluate` on characters that are encoded."""
    for protocol in protocols:
        if (reason := _too_large(encoded.learner, protocol)) is not None:
            raise ConfigInvalid(f"{protocol.title} {reason}")
    return [_accuracy(encoded, protocol, seed) for protocol in protocols]


def protocols_that_fit(learner: Learner, protocols: Sequence[Protocol]) -> list[Protocol]:
    """The protocols whose ways and examples a state of the learner holds."""
    return [protocol for protocol in protocols if _too_large(learner, protocol) is None]


def _too_large(learner: Learner, protocol: Protocol) -> str | None:
    examples = protocol.way * protocol.shot
    if protocol.way > learner.ways:
        return f"has {protocol.way} ways, but a state holds at most learner.ways = {learner.ways}"
    if learner.examples is not None and examples > learner.examples:
        return f"has {examples} examples, but a state holds at most learner.examples = {learner.examples}"
    return None


def order_spread(encoded: Encoded, *, seed: int) -> tuple[float, float]:
    """The standard deviation and the range of 5-way 1-shot accuracy over 20 random orders of the support sets."""
    protocol = Protocol(5, 1, episodes=ORDER_EPISODES)
    learner, features = encoded.learner, encoded.features(rotations=True)
    drawn = draw_episodes(class_pools(encoded.characters, protocol), DRAWERS, protocol, seed=seed)
    means = []
    for turn in range(ORDERS):
        generator = np.random.default_rng([seed, turn])
        right = [
            _right(episode_logits(learner, features, part, np.argsort(generator.random((len(part), 5)), axis=-1)))
            for part in in_batches(drawn)
        ]
        means.append(torch.cat(right).mean().item())
    return float(np.std(means, ddof=1)), float(np.ptp(means))


COMPARED = tuple(Protocol(way, shot) for way in (5, 20) for shot in (1, 5))
"""What a comparison of learners shows."""


def draw_episodes(pools: Sequence[NDArray[np.int64]], images: int, protocol: Protocol, *, seed: int) -> list[Episode]:
    """The episodes of a protocol: the same seed gives the same episodes for every learner."""
    generator = np.random.default_rng([seed, protocol.way, protocol.shot])
    return [
        draw_episode(
            generator,
            classes=pools[int(generator.integers(len(pools)))],
            images=images,
            way=protocol.way,
            shot=protocol.shot,
            query=protocol.query,
        )
        for _ in range(protocol.episodes)
    ]


def _accuracy(encoded: Encoded, protocol: Protocol, seed: int) -> Accuracy:
    features = encoded.features(rotations=protocol.rotations)
    drawn = draw_episodes(class_pools(encoded.characters, protocol), DRAWERS, protocol, seed=seed)
    found = torch.cat([_right(episode_logits(encoded.learner, features, part)) for part in in_batches(drawn)])
    scores = found.flatten(1).mean(1).tolist()
    return Accuracy(protocol, seed, float(np.mean(scores)), interval_95(scores), tuple(scores))


def _right(logits: Tensor) -> Tensor:
    """Whether each query of `[episode, way, query, member, ways]` is answered right, as 0 or 1."""
    guess = logits.softmax(-1).mean(-2).argmax(-1)
    return (guess == torch.arange(guess.shape[1]).unsqueeze(-1)).float()


def interval_95(values: Sequence[float]) -> float:
    """The half-width of the 95 % confidence interval of a mean of independent values."""
    return float(Z_95 * np.std(values, ddof=1) / np.sqrt(len(values)))
