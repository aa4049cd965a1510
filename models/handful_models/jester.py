"""Jester: what anonymous people thought of the same 100 jokes; a person is a task.

Goldberg, Roeder, Gupta, Perkins, "Eigentaste: A Constant Time Collaborative Filtering Algorithm" (2001). A joke is
liked when its rating is above 0.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from . import digests
from .errors import DataUnknown
from .learner import Learner
from .paired import Row, check_room, row
from .tasks import Episodes, EpisodeShape, Examples, answers

JOKES = 100
LABELS = ("dislike", "like")
FILE = "jester_users_public.npz"
DIGESTS = {FILE: "18c7d3c08b86e682496020fb930d8661374bff6c104e576d7cd158f8f97ff3aa"}
LEAST_RATINGS = 30
SPLITS = {
    "train": "65 % of the users with 30 ratings or more (2,600)",
    "selection": "10 % of them (400)",
    "report": "the other 25 % (1,000)",
}
SHOTS = (0, 1, 2, 3, 5, 10, 20)
SUPPORT = max(SHOTS)
SELECTION_DRAWS = 5

_SHARES = (0.65, 0.75)
_SPLIT_SEED = 2001
_NOT_RATED = -32768
_PENALTIES = (0.25, 0.5, 1.0, 1.5, 2.5, 4.0, 6.0)
_NEWTON_STEPS = 20


@dataclass(frozen=True, slots=True)
class Users:
    """What some people thought of the jokes.

    Attributes:
        liked: bool `[user, 100]`; False where not rated.
        rated: bool `[user, 100]`.
    """

    liked: NDArray[np.bool_]
    rated: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.rated)


def load(folder: Path, split: str) -> Users:
    """The users of a split.

    Args:
        folder: The data folder, which holds `jester/`.
        split: A key of `SPLITS`.

    Raises:
        DataMissing: the file is not there.
        DataDamaged: the file is not the published one.
        DataUnknown: no such split.
    """
    if split not in SPLITS:
        raise DataUnknown("split", split, sorted(SPLITS))
    path = digests.check(folder / "jester" / FILE, DIGESTS)
    with np.load(path, allow_pickle=False) as file:
        ratings = file["rating_x100"]
    ratings = ratings[(ratings != _NOT_RATED).sum(1) >= LEAST_RATINGS]
    order = np.random.default_rng(_SPLIT_SEED).permutation(len(ratings))
    parts = np.split(order, [round(share * len(order)) for share in _SHARES])
    chosen = ratings[dict(zip(SPLITS, parts, strict=True))[split]]
    return Users(liked=chosen > 0, rated=chosen != _NOT_RATED)


@dataclass(frozen=True, slots=True)
class JesterUsers:
    """The source of tasks; input `x` int64 `[1]`, the joke's number in 0..99, target class of `LABELS`.

    A shot is a rated joke, whichever its label. A user with fewer ratings than the shape asks for keeps one for the
    query, and what is not there has weight 0.
    """

    users: Users

    def draw(self, generator: np.random.Generator, shape: EpisodeShape) -> Episodes:
        """See `TaskSource`."""
        chosen = generator.integers(len(self.users), size=shape.tasks)
        shot = int(generator.integers(shape.shot[0], shape.shot[1], endpoint=True))
        users = Users(self.users.liked[chosen], self.users.rated[chosen])
        return episodes(users, shuffled(generator, users), shot, first=shot, count=shape.query)


def shuffled(generator: np.random.Generator, users: Users) -> NDArray[np.int64]:
    """The jokes of each user in random order, rated ones first: int64 `[user, 100]`."""
    return np.argsort(generator.random(users.rated.shape) + ~users.rated, axis=1)


def episodes(users: Users, order: NDArray[np.int64], shot: int, *, first: int, count: int) -> Episodes:
    """A task for each user: the first `shot` jokes in their order as support, `count` from place `first` as queries."""
    ratings = users.rated.sum(1, keepdims=True)
    support = np.arange(max(shot, 1))
    present = (support < shot) & (support < ratings - 1)
    query = np.minimum(first, ratings - 1) + np.arange(count)
    return Episodes(
        _examples(users, order[:, support], present),
        _examples(users, np.take_along_axis(order, np.minimum(query, JOKES - 1), 1), query < ratings),
    )


def _examples(users: Users, jokes: NDArray[np.int64], present: NDArray[np.bool_]) -> Examples:
    return Examples(
        {"x": torch.from_numpy(jokes).unsqueeze(-1)},
        torch.from_numpy(np.take_along_axis(users.liked, jokes, 1)).long(),
        torch.from_numpy(present).float(),
    )


def evaluate(learner: Learner, folder: Path, *, seed: int) -> list[Row]:
    """The accuracy on the report's users, at each of `SHOTS` labels, beside both baselines.

    Each user's rated jokes are put in an order that the seed fixes. The queries are the same at every number of
    labels: all beyond the first 20.

    Args:
        learner: A learner of two ways.
        folder: The data folder, which holds `jester/`.
        seed: Of the orders.

    Raises:
        ConfigInvalid: the learner's state holds fewer than 20 examples.
        DataMissing: the file is not there.
        DataDamaged: the file is not the published one.
    """
    check_room(learner, SUPPORT)
    train, users = load(folder, "train"), load(folder, "report")
    order = shuffled(np.random.default_rng(seed), users)
    log_odds = joke_log_odds(train)
    rows = []
    for shot in SHOTS:
        penalty = fit_penalty(train, log_odds, shot)
        tasks = episodes(users, order, shot, first=SUPPORT, count=JOKES - SUPPORT)
        baselines = {
            "joke log-odds": baseline_accuracy(log_odds, tasks, penalty=None),
            "joke log-odds and the user's offset": baseline_accuracy(log_odds, tasks, penalty=penalty),
        }
        rows.append(row(f"{shot} labels", "accuracy", accuracy(learner, tasks), baselines))
    return rows


def select(learner: Learner, folder: Path, *, seed: int) -> float:
    """The accuracy on selection users at 20 labels, over five orders of each user's jokes; higher is better."""
    check_room(learner, SUPPORT)
    users = load(folder, "selection")
    generator = np.random.default_rng(seed)
    found = [
        accuracy(learner, episodes(users, shuffled(generator, users), SUPPORT, first=SUPPORT, count=JOKES - SUPPORT))
        for _ in range(SELECTION_DRAWS)
    ]
    return float(np.mean(found))


@torch.no_grad()
def accuracy(learner: Learner, tasks: Episodes, *, at_once: int = 100) -> NDArray[np.float64]:
    """The share of each task's queries that the learner gets right: `[task]`."""
    learner.eval()
    parts = []
    for start in range(0, len(tasks.query.y), at_once):
        part = slice(start, start + at_once)
        some = Episodes(_cut(tasks.support, part), _cut(tasks.query, part))
        guess = answers(learner, some).softmax(-1).mean(-2).argmax(-1)
        parts.append(_share(guess.numpy() == some.query.y.numpy(), some.query))
    return np.concatenate(parts)


def _cut(examples: Examples, part: slice) -> Examples:
    return Examples({name: x[part] for name, x in examples.x.items()}, examples.y[part], examples.weight[part])


def _share(right: NDArray[np.bool_], query: Examples) -> NDArray[np.float64]:
    weight = query.weight.double().numpy()
    return np.asarray((right * weight).sum(1) / weight.sum(1))


def joke_log_odds(train: Users) -> NDArray[np.float64]:
    """The log-odds that a joke is liked `[100]`, each of both counts raised by 1."""
    likes, ratings = train.liked.sum(0) + 1.0, train.rated.sum(0) + 2.0
    return np.asarray(np.log(likes / (ratings - likes)))


def user_offset(log_odds: NDArray[np.float64], support: Examples, penalty: float) -> NDArray[np.float64]:
    """What a user likes more than others do, in log-odds `[user, 1]`: the most likely offset under a normal prior.

    Args:
        log_odds: Of the jokes, `[100]`.
        support: The user's labels.
        penalty: One over the prior's variance.
    """
    known, y, weight = log_odds[support.x["x"].squeeze(-1).numpy()], support.y.numpy(), support.weight.double().numpy()
    offset = np.zeros((len(y), 1))
    for _ in range(_NEWTON_STEPS):
        chance = 1 / (1 + np.exp(-known - offset))
        slope = (weight * (y - chance)).sum(1, keepdims=True) - penalty * offset
        offset = offset + slope / ((weight * chance * (1 - chance)).sum(1, keepdims=True) + penalty)
    return offset


def baseline_accuracy(log_odds: NDArray[np.float64], tasks: Episodes, *, penalty: float | None) -> NDArray[np.float64]:
    """The share of each task's queries that the jokes' log-odds get right `[task]`, with the user's offset or not."""
    offset = 0.0 if penalty is None else user_offset(log_odds, tasks.support, penalty)
    guess = log_odds[tasks.query.x["x"].squeeze(-1).numpy()] + offset > 0
    return _share(guess == (tasks.query.y.numpy() == 1), tasks.query)


def fit_penalty(
    train: Users, log_odds: NDArray[np.float64], shot: int, candidates: Sequence[float] = _PENALTIES
) -> float:
    """The candidate of best accuracy on training users at that many labels."""
    order = shuffled(np.random.default_rng(_SPLIT_SEED), train)
    tasks = episodes(train, order, shot, first=SUPPORT, count=JOKES - SUPPORT)
    return max(candidates, key=lambda penalty: float(baseline_accuracy(log_odds, tasks, penalty=penalty).mean()))
