"""Accuracy on episodes of classes that training never saw, with confidence intervals.

Everything is inductive: the encoder's normalisation is frozen, so no query sees another.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .episodes import Episode, draw_episode
from .errors import ConfigInvalid
from .learner import Learner, Tensors
from .omniglot import Characters, rotated

Z_95 = 1.959964
"""Two-sided 95 % quantile of the normal distribution."""


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
def encode_all(learner: Learner, images: NDArray[np.uint8], *, rows: int = 512) -> Tensor:
    """Features `[class, image, width]`, float32, of drawings `[class, image, 28, 28]`."""
    flat = torch.from_numpy(np.ascontiguousarray(images)).reshape(-1, 1, *images.shape[2:])
    parts = [learner.encode({"x": part.float() / 255})["features"] for part in torch.split(flat, rows)]
    return torch.cat(parts).reshape(*images.shape[:2], -1)


@torch.no_grad()
def episode_logits(learner: Learner, features: Tensor, episode: Episode) -> Tensor:
    """Logits `[way, query, member, ways]` of the queries, given features `[class, image, width]`."""
    of_class = features[torch.from_numpy(episode.classes)]
    support = of_class.gather(1, _index(episode.support, of_class))
    query = of_class.gather(1, _index(episode.query, of_class))
    way, shot = episode.support.shape
    y = torch.arange(way).repeat_interleave(shot).unsqueeze(0)
    flat: Tensors = {"features": support.flatten(0, 1).unsqueeze(0)}
    state = learner.state(flat, y, torch.ones(1, way * shot))
    return learner.predict({"features": query}, {name: value.unsqueeze(1) for name, value in state.items()})


def _index(images: NDArray[np.int64], like: Tensor) -> Tensor:
    return torch.from_numpy(images).unsqueeze(-1).expand(-1, -1, like.shape[-1])


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
        ConfigInvalid: a protocol has more examples than the learner's state holds.
    """
    for protocol in protocols:
        if learner.examples is not None and protocol.way * protocol.shot > learner.examples:
            raise ConfigInvalid(
                f"{protocol.title} has {protocol.way * protocol.shot} examples, "
                f"but the learner's state holds at most learner.examples = {learner.examples}"
            )
    learner.eval()
    features = {
        rotations: encode_all(learner, rotated(characters.small) if rotations else characters.small)
        for rotations in {protocol.rotations for protocol in protocols}
    }
    return [
        _accuracy(learner, features[protocol.rotations], class_pools(characters, protocol), protocol, seed)
        for protocol in protocols
    ]


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


def _accuracy(
    learner: Learner, features: Tensor, pools: list[NDArray[np.int64]], protocol: Protocol, seed: int
) -> Accuracy:
    scores = []
    for episode in draw_episodes(pools, features.shape[1], protocol, seed=seed):
        logits = episode_logits(learner, features, episode)
        guess = logits.softmax(-1).mean(-2).argmax(-1)
        scores.append((guess == torch.arange(protocol.way).unsqueeze(1)).float().mean().item())
    return Accuracy(protocol, seed, float(np.mean(scores)), interval_95(scores), tuple(scores))


def interval_95(values: Sequence[float]) -> float:
    """The half-width of the 95 % confidence interval of a mean of independent values."""
    return float(Z_95 * np.std(values, ddof=1) / np.sqrt(len(values)))
