"""Random search over settings: log-uniform between two bounds, or one of a list.

Bergstra, Bengio, "Random Search for Hyper-Parameter Optimization" (2012): of the same number of trials, random ones
look at more values of the settings that matter than those of a grid.
"""

import csv
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .config import SearchConfig, TrainConfig, changed
from .errors import ConfigInvalid, TrainingDiverged
from .runs import Run
from .training import train


def trials(search: SearchConfig, *, seed: int) -> list[dict[str, Any]]:
    """The settings of each trial, by their dotted names; a range between whole numbers gives whole numbers.

    A value depends on the seed, the trial and the setting's name alone: searches of one seed try the same values of the
    settings that they have in common.
    """
    found = []
    for place in range(search.trials):
        draws = {name: np.random.default_rng([seed, place, *name.encode()]) for name in search.names}
        between = {name: _between(bounds, draws[name]) for name, bounds in search.ranges.items()}
        chosen = {name: known[draws[name].integers(len(known))] for name, known in search.choices.items()}
        found.append({**between, **chosen})
    return found


def _between(bounds: tuple[float, float], generator: np.random.Generator) -> float:
    low, high = bounds
    value = math.exp(generator.uniform(math.log(low), math.log(high)))
    whole = all(float(bound).is_integer() for bound in bounds)
    return round(value) if whole else float(f"{value:.4g}")


def search(config: TrainConfig, folder: Path, data: Path) -> tuple[Mapping[str, Any], float]:
    """Train each trial in a folder of its own, and write `search.csv`; the best trial and its score.

    A search that is started again goes on: a finished run of a trial is not trained twice.

    Raises:
        ConfigInvalid: the config has no `[search]`, or does not look at selection tasks.
    """
    if config.search is None:
        raise ConfigInvalid("search: the section with `ranges` is missing")
    if not config.data.select:
        raise ConfigInvalid("data.select: a search needs selection tasks to choose by")
    rows = []
    for place, values in enumerate(trials(config.search, seed=config.seed)):
        scores = [_score(trial, run, data) for trial, run in runs_of(config, values, folder / f"trial-{place:03}")]
        rows.append({**values, "selection": float(np.mean(scores))})
        _write(folder / "search.csv", rows)
    best = max(rows, key=lambda row: row["selection"])
    return {name: value for name, value in best.items() if name != "selection"}, best["selection"]


def runs_of(config: TrainConfig, values: Mapping[str, Any], folder: Path) -> list[tuple[TrainConfig, Run]]:
    """The config and the run directory of each seed of a trial, from the config's seed on."""
    seeds = range(config.seed, config.seed + (config.search.seeds if config.search else 1))
    return [(changed(config, {**values, "seed": seed, "search": None}), Run(folder / f"seed-{seed}")) for seed in seeds]


def _score(config: TrainConfig, run: Run, data: Path) -> float:
    if not run.result.exists():
        try:
            train(config, run.folder, data)
        except TrainingDiverged:
            return -math.inf
    return float(json.loads(run.result.read_text(encoding="utf-8"))["selection"])


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(sorted(rows, key=lambda row: -row["selection"]))
