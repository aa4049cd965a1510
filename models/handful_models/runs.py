"""The run directory: config, machine, checkpoints, log, curves, weights and results of one training run."""

import csv
import json
import os
import platform
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from .config import TrainConfig
from .errors import ConfigInvalid, RunConflict

LOG_FIELDS = ("step", "rate", "loss", "selection", "selection_interval", "seconds")


@dataclass(frozen=True, slots=True)
class Run:
    """A run directory and the paths in it."""

    folder: Path

    @property
    def config(self) -> Path:
        """The settings, as JSON."""
        return self.folder / "config.json"

    @property
    def checkpoint(self) -> Path:
        """All that resuming needs."""
        return self.folder / "checkpoint.pt"

    @property
    def weights(self) -> Path:
        """The averaged weights that the run ends with."""
        return self.folder / "weights.pt"

    @property
    def log(self) -> Path:
        """A CSV line per logged step."""
        return self.folder / "log.csv"

    @property
    def curves(self) -> Path:
        """The picture of the log."""
        return self.folder / "curves.png"

    @property
    def result(self) -> Path:
        """Steps, minutes, best step and score, as JSON."""
        return self.folder / "result.json"

    @property
    def tasks(self) -> Path:
        """The known tasks and the fields of their inputs, as JSON, where the learner has such."""
        return self.folder / "tasks.json"

    @property
    def task_losses(self) -> Path:
        """A CSV line per logged step, with the training loss of each known task."""
        return self.folder / "task_losses.csv"

    @property
    def notes(self) -> Path:
        """What a bundle says of each known task, as JSON by its id: `evaluation` and `advice`."""
        return self.folder / "notes.json"

    @property
    def calibration(self) -> Path:
        """Temperature and conformal quantiles, as JSON."""
        return self.folder / "calibration.json"

    @property
    def evaluation(self) -> Path:
        """The table of accuracies, as JSON."""
        return self.folder / "evaluation.json"

    def open(self, config: TrainConfig) -> None:
        """Make the folder, or take up the one that is there.

        Raises:
            RunConflict: the folder belongs to a run with other settings.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        wanted = config.model_dump(mode="json")
        if self.config.exists():
            if json.loads(self.config.read_text(encoding="utf-8")) != wanted:
                raise RunConflict(f"{self.folder} holds a run with other settings; choose another --run")
            return
        write_json(self.folder / "environment.json", _environment())
        write_json(self.config, wanted)

    @property
    def episodes(self) -> Path:
        """The accuracy of every episode, as CSV."""
        return self.folder / "episodes.csv"

    @property
    def members(self) -> Path:
        """The run directories of an ensemble's members, as JSON, where this is an ensemble."""
        return self.folder / "members.json"

    def read_members(self) -> list[Path] | None:
        """The runs of an ensemble, or None where this is a run of its own."""
        if not self.members.exists():
            return None
        return [Path(name) for name in json.loads(self.members.read_text(encoding="utf-8"))]

    def read_config(self) -> TrainConfig:
        """The settings that the run was started with."""
        try:
            return TrainConfig.model_validate_json(self.config.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise ConfigInvalid(f"{self.folder} is no run directory: it has no config.json") from error


def _environment() -> dict[str, Any]:
    git = ["git", "rev-parse", "--verify", "HEAD"]
    commit = subprocess.run(git, capture_output=True, text=True, check=False)  # noqa: S603 (the git of the PATH)
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "commit": commit.stdout.strip() if commit.returncode == 0 else None,
    }


def write_json(path: Path, value: object) -> None:
    """Write a JSON file whole or not at all."""
    _replace(path, lambda temporary: temporary.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8"))


def save(path: Path, value: Mapping[str, Any]) -> None:
    """Write tensors and plain values, whole or not at all."""
    _replace(path, lambda temporary: torch.save(dict(value), temporary))


def load(path: Path) -> dict[str, Any]:
    """What `save` wrote."""
    loaded: dict[str, Any] = torch.load(path, weights_only=True)
    return loaded


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=path.name + ".")
    os.close(descriptor)
    temporary = Path(name)
    try:
        write(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


class Log:
    """The CSV of a run, cut back to the checkpoint it resumes from."""

    def __init__(self, path: Path, *, from_step: int) -> None:
        self.path = path
        kept = [row for row in read_log(path) if int(row["step"]) <= from_step] if path.exists() else []
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, LOG_FIELDS)
            writer.writeheader()
            writer.writerows(kept)

    def append(self, row: Mapping[str, object]) -> None:
        """Add one line; it is on disk when this returns."""
        with self.path.open("a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, LOG_FIELDS).writerow(row)


def read_log(path: Path) -> list[dict[str, str]]:
    """The lines of a log."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def draw_curves(log: Path, picture: Path) -> None:
    """A PNG of the loss and of the score on the selection tasks, over steps."""
    from matplotlib.figure import Figure  # noqa: PLC0415 (a second of import that only this needs)

    rows = read_log(log)
    figure = Figure(figsize=(9, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot([int(row["step"]) for row in rows], [float(row["loss"]) for row in rows])
    left.set(xlabel="step", ylabel="loss (mean since the last line)")
    looks = [row for row in rows if row["selection"]]
    right.errorbar(
        [int(row["step"]) for row in looks],
        [float(row["selection"]) for row in looks],
        [float(row["selection_interval"] or 0) for row in looks],
    )
    right.set(xlabel="step", ylabel="score on selection tasks")
    figure.savefig(picture, dpi=100)
