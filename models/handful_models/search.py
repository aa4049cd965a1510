"""Random search over settings, log-uniform between two bounds.

Bergstra, Bengio, "Random Search for Hyper-Parameter Optimization" (2012): of the same number of trials, random ones
look at more values of the settings that matter than those of a grid.
"""

import csv
import json
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from .config import SearchConfig, TrainConfig, changed
from .errors import ConfigInvalid, TrainingDiverged
from .runs import Run
from .training import train


def trials(search: SearchConfig, *, seed: int) -> list[dict[str, float]]:
    """The settings of each trial, by their dotted names; a range between whole numbers gives whole numbers."""
    generator = np.random.default_rng(seed)
    found = []
    for _ in range(search.trials):
        drawn = {
            name: math.exp(generator.uniform(math.log(low), math.log(high)))
            for name, (low, high) in search.ranges.items()
        }
        found.append({name: _rounded(value, search.ranges[name]) for name, value in drawn.items()})
    return found


def _rounded(value: float, bounds: tuple[float, float]) -> float:
    whole = all(float(bound).is_integer() for bound in bounds)
    return round(value) if whole else float(f"{value:.4g}")


def search(config: TrainConfig, folder: Path, data: Path) -> tuple[Mapping[str, float], float]:
    """Train each trial in a folder of its own, and write `search.csv`; the best trial and its score.

    A search that is started again goes on: a finished trial is not trained twice.

    Raises:
        ConfigInvalid: the config has no `[search]`, or does not look at selection tasks.
    """
    if config.search is None:
        raise ConfigInvalid("search: the section with `ranges` is missing")
    if not config.data.select:
        raise ConfigInvalid("data.select: a search needs selection tasks to choose by")
    rows = []
    for place, values in enumerate(trials(config.search, seed=config.seed)):
        run = Run(folder / f"trial-{place:03}")
        rows.append({**values, "selection": _score(changed(config, values), run, data)})
        _write(folder / "search.csv", rows)
    best = max(rows, key=lambda row: row["selection"])
    return {name: value for name, value in best.items() if name != "selection"}, best["selection"]


def _score(config: TrainConfig, run: Run, data: Path) -> float:
    if not run.result.exists():
        try:
            train(config, run.folder, data)
        except TrainingDiverged:
            return -math.inf
    return float(json.loads(run.result.read_text(encoding="utf-8"))["selection"])


def _write(path: Path, rows: list[dict[str, float]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(sorted(rows, key=lambda row: -row["selection"]))
