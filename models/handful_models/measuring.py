"""The measurements of a run, kept in its directory; those on characters are made again only if something changed."""

import csv
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from . import jester, omniglot, paper_report, parkinsons, school_report, sinusoids
from .calibration import expected_calibration_error
from .config import OtherDataConfig, PapersConfig, SchoolsConfig
from .datasets import tokenized
from .errors import ConfigInvalid
from .evaluation import Accuracy, Encoded, Protocol, evaluate_encoded, order_spread, protocols_that_fit
from .paired import Row
from .runs import Run, write_json
from .training import load_trained


def measure(run: Run, data: Path, protocols: Sequence[Protocol], *, split: str, seed: int) -> dict[str, Any]:
    """What `evaluation.json` holds: a row for each protocol that fits, and the figures of the learner.

    Args:
        run: A finished run on characters.
        data: The data folder.
        protocols: Those that the learner's state cannot hold are left out.
        split: Which characters.
        seed: Of the episodes.

    Raises:
        RunUnfinished: the run has no weights yet.
    """
    learner = load_trained(run)
    fitting = protocols_that_fit(learner, protocols)
    key = {"split": split, "seed": seed, "of": _digest(run), "protocols": [asdict(protocol) for protocol in fitting]}
    if run.evaluation.exists():
        kept: dict[str, Any] = json.loads(run.evaluation.read_text(encoding="utf-8"))
        if all(kept.get(name) == value for name, value in key.items()):
            return kept
    encoded = Encoded(learner, omniglot.load(data, split))
    rows = evaluate_encoded(encoded, fitting, seed=seed)
    found = {
        **key,
        "description": omniglot.SPLITS[split],
        "rows": [row.row() for row in rows],
        "learner": _figures(encoded, run, seed),
    }
    _write_episodes(run, rows)
    write_json(run.evaluation, found)
    return found


UNTOUCHED = "tasks that were neither trained on nor used to choose anything"
CHOSEN = {
    "schools": "schools that were not trained on; the settings were chosen on schools of splits 0 to 19, which other "
    "splits hold out",
    "papers": "papers that were not trained on; one thing was changed after a look at them: that key words begin as "
    "common as they are in the venue and year",
}
"""What the figures of a data set are of, where something was chosen with a look at them."""


def reported_on(name: str) -> str:
    """What the figures of a data set are of, in words that follow «on» or «over»."""
    return CHOSEN.get(name, UNTOUCHED)


def measure_tasks(runs: Sequence[Run], data: Path, *, seed: int) -> list[Row]:
    """The figures of a run on the report's tasks of its data set, which are no characters; kept in `evaluation.json`.

    Args:
        runs: One; for `parkinsons` also all six folds of one config, so that every patient is reported on.
        data: The data folder.
        seed: Of the tasks.

    Raises:
        ConfigInvalid: several runs that are not the folds of one config.
    """
    rows = _task_rows(runs, data, seed)
    for run in runs:
        found = {"seed": seed, "on": reported_on(run.read_config().data.set), "figures": [row.row() for row in rows]}
        write_json(run.evaluation, found)
    return rows


def _task_rows(runs: Sequence[Run], data: Path, seed: int) -> list[Row]:
    config = runs[0].read_config()
    if isinstance(config.data, SchoolsConfig):
        by_split = {each.data.split: run for run in runs if isinstance((each := run.read_config()).data, SchoolsConfig)}
        if len(by_split) < len(runs):
            raise ConfigInvalid(f"{runs[1].folder}: several runs of one name must be of different splits")
        return school_report.evaluate(lambda split: load_trained(by_split[split]), data, sorted(by_split), seed=seed)
    if len(runs) > 1:
        by_fold = {each.data.fold: run for run in runs if isinstance((each := run.read_config()).data, OtherDataConfig)}
        if config.data.set != "parkinsons" or sorted(by_fold) != list(range(parkinsons.FOLDS)):
            raise ConfigInvalid(f"{runs[1].folder}: several runs of one name must be the {parkinsons.FOLDS} folds")
        return parkinsons.evaluate_folds(lambda fold: load_trained(by_fold[fold]), data, seed=seed)
    learner, path = load_trained(runs[0]), runs[0].calibration
    table = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
    if isinstance(config.data, PapersConfig):
        return paper_report.evaluate(learner, tokenized(config, data), seed=seed, calibration=table)
    if config.data.set == "sinusoids":
        return sinusoids.evaluate(learner, data, seed=seed, calibration=table)
    if config.data.set == "jester":
        return jester.evaluate(learner, data, seed=seed)
    fold = config.data.fold if isinstance(config.data, OtherDataConfig) else 0
    return parkinsons.evaluate(learner, data, seed=seed, fold=fold)


def _figures(encoded: Encoded, run: Run, seed: int) -> dict[str, Any]:
    learner = encoded.learner
    figures: dict[str, Any] = {"parameters": sum(value.numel() for value in learner.parameters())}
    size = getattr(learner, "context_size", None)
    if size is not None:
        figures["context"] = size
    if "order" not in learner.invariant:
        deviation, width = order_spread(encoded, seed=seed)
        figures |= {"order_deviation": deviation, "order_range": width}
    if run.calibration.exists():
        table = json.loads(run.calibration.read_text(encoding="utf-8"))
        figures["calibration_error"] = expected_calibration_error(encoded, table, seed=seed)
        figures["calibration_ways"] = min(20, learner.ways)
    return figures


def _digest(run: Run) -> str:
    """sha256 of what the measurements depend on: the weights, those of members, and the calibration."""
    hasher = hashlib.sha256()
    for folder in run.read_members() or []:
        hasher.update(_digest(Run(folder)).encode())
    for path in (run.weights, run.calibration):
        hasher.update(path.read_bytes() if path.exists() else b"-")
    return hasher.hexdigest()


def _write_episodes(run: Run, rows: Sequence[Accuracy]) -> None:
    with run.episodes.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("protocol", "episode", "accuracy"))
        for row in rows:
            writer.writerows((row.protocol.title, place, f"{score:.6f}") for place, score in enumerate(row.per_episode))


def read_episodes(run: Run) -> Mapping[str, list[float]]:
    """The accuracy of every episode, by the protocol's title."""
    found: dict[str, list[float]] = {}
    with run.episodes.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            found.setdefault(row["protocol"], []).append(float(row["accuracy"]))
    return found
