"""Alphabets as known tasks: each fine-tuned offline, kept as a row of weights with an id."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field

from . import omniglot
from .config import read_toml
from .errors import ConfigInvalid
from .finetuning import FinetuneSettings, accuracy, cross_validated_rate, finetune
from .gradient import GradientLearner
from .runs import Run, write_json
from .tasks import Examples
from .training import load_trained

STATES = "states.npz"
ENTRIES = "tasks.json"


class AlphabetsConfig(BaseModel):
    """Which alphabets become tasks; the characters of one are its labels."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    split: Literal["evaluation", "background"] = "evaluation"
    count: int = Field(3, ge=1, le=50, description="The first alphabets of the split that a state has the ways for.")
    drawers: int = Field(10, ge=1, le=omniglot.DRAWERS - 1, description="Drawings of a character to train on.")


class CrossValidationConfig(BaseModel):
    """How the rate is chosen: on alphabets that were trained on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    count: int = Field(3, ge=1, le=30, description="The first background alphabets that a state has the ways for.")
    trials: int = Field(6, ge=2, le=100)
    seed: int = Field(0, ge=0)


class KnownConfig(BaseModel):
    """A whole config of `handful finetune`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    run: Path
    alphabets: AlphabetsConfig = AlphabetsConfig()
    finetune: FinetuneSettings = FinetuneSettings()
    cross_validation: CrossValidationConfig | Literal[False] = CrossValidationConfig()


@dataclass(frozen=True, slots=True)
class Alphabet:
    """A task: which characters, and their examples.

    Attributes:
        support: The first drawings of each character, drawer by drawer.
        query: The others.
    """

    number: int
    labels: tuple[str, ...]
    support: Examples
    query: Examples


def alphabets(characters: omniglot.Characters, chosen: AlphabetsConfig, *, ways: int) -> list[Alphabet]:
    """The first alphabets of at most `ways` characters."""
    found = []
    for number in np.unique(characters.alphabet).tolist():
        places = np.flatnonzero(characters.alphabet == number)
        if len(places) <= ways:
            labels = tuple(f"character {characters.character_id[place]:04}" for place in places)
            x = torch.from_numpy(characters.small[places]).float().div(255).transpose(0, 1).unsqueeze(2)
            cut = chosen.drawers
            found.append(Alphabet(number, labels, _examples(x[:cut]), _examples(x[cut:])))
    return found[: chosen.count]


def _examples(x: torch.Tensor) -> Examples:
    """One task of `x [drawer, way, 1, 28, 28]`."""
    drawers, ways = x.shape[:2]
    y = torch.arange(ways).repeat(drawers).unsqueeze(0)
    return Examples({"x": x.flatten(0, 1).unsqueeze(0)}, y, torch.ones(y.shape))


def make_known(config_path: Path, folder: Path, data: Path) -> list[dict[str, Any]]:
    """Fine-tune every alphabet of a config, and write the states and the entries of `tasks.json` into a folder.

    Raises:
        ConfigInvalid: the run's learner has no weights of a task, or no alphabet is small enough.
    """
    config = read_toml(config_path, KnownConfig, ConfigInvalid)
    learner = load_trained(Run(config.run))
    if not isinstance(learner, GradientLearner) or learner.target != "class":
        raise ConfigInvalid("run: fine-tuning needs a method that adapts by gradient steps, such as maml or anil")
    tasks = alphabets(omniglot.load(data, config.alphabets.split), config.alphabets, ways=learner.ways)
    if not tasks:
        raise ConfigInvalid(f"run: no alphabet has at most {learner.ways} characters, which a state holds")
    settings = _chosen_settings(learner, config, data)
    entries, states = [], []
    for task in tasks:
        tuned = finetune(learner, task.support, settings)
        states.append({name: value.numpy() for name, value in tuned.state.items()})
        entries.append(_entry(learner, task, states[-1], settings, config))
    folder.mkdir(parents=True, exist_ok=True)
    rows = {name: np.concatenate([state[name] for state in states]) for name in states[0]}
    np.savez(folder / STATES, **rows)  # type: ignore[arg-type]  # numpy's stub knows allow_pickle among the keywords only
    write_json(folder / ENTRIES, entries)
    return entries


def _chosen_settings(learner: GradientLearner, config: KnownConfig, data: Path) -> FinetuneSettings:
    if config.cross_validation is False:
        return config.finetune
    chosen = AlphabetsConfig(split="background", count=config.cross_validation.count, drawers=config.alphabets.drawers)
    training = alphabets(omniglot.load(data, "background"), chosen, ways=learner.ways)
    rate, _ = cross_validated_rate(
        learner, [task.support for task in training], config.finetune,
        trials=config.cross_validation.trials, seed=config.cross_validation.seed,
    )  # fmt: skip
    return config.finetune.model_copy(update={"rate": rate})


@torch.no_grad()
def _entry(
    learner: GradientLearner,
    task: Alphabet,
    state: dict[str, np.ndarray],
    settings: FinetuneSettings,
    config: KnownConfig,
) -> dict[str, Any]:
    tuned = {name: torch.from_numpy(value) for name, value in state.items()}
    adapted = learner.state(learner.encoded(task.support.x), task.support.y, task.support.weight)
    return {
        "id": f"alphabet-{task.number}",
        "labels": list(task.labels),
        "shots": config.alphabets.drawers,
        "description": f"The {len(task.labels)} characters of alphabet {task.number}, fine-tuned on "
        f"{config.alphabets.drawers} drawings of each.",
        "evaluation": {
            "drawings": omniglot.DRAWERS - config.alphabets.drawers,
            "fine-tuned": round(accuracy(learner, tuned, task.query), 4),
            "adapted in one request": round(accuracy(learner, adapted, task.query), 4),
            "rate": float(f"{settings.rate:.3g}"),
        },
    }


def read_known(folder: Path) -> tuple[Sequence[dict[str, Any]], dict[str, np.ndarray]]:
    """The entries and the states that `make_known` wrote.

    Raises:
        ConfigInvalid: they are not there.
    """
    try:
        entries: list[dict[str, Any]] = json.loads((folder / ENTRIES).read_text(encoding="utf-8"))
        with np.load(folder / STATES, allow_pickle=False) as arrays:
            return entries, dict(arrays)
    except OSError as error:
        raise ConfigInvalid(f"{folder}: {error.strerror}: run `handful finetune`") from error
