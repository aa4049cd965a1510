"""The pages of an evaluation, in Markdown: of one run, and of several side by side."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .config import Conv4Config, OmniglotConfig, TrainConfig, TrunkConfig
from .evaluation import Protocol, interval_95
from .measuring import read_episodes
from .omniglot import SPLITS
from .paired import Row, paired_interval
from .runs import Run

WRITTEN = "Written by the command below; nothing here is copied by hand."


def page(run: Run, found: Mapping[str, Any], command: str) -> str:
    """A page with the accuracies of one run, the command that made it, and the seeds."""
    config = run.read_config()
    lines = [
        f"# Accuracy of `{config.name}`", "", WRITTEN, "", f"    {command}", "",
        f"Trained on: {_trained_on(config)} (seed {config.seed}, {config.optimizer.steps} steps). "
        f"Reported on: {found['description']}, none of which was trained on or used to choose anything.",
        f"Initialisation: {initialisation(config)}.",
        f"Inductive (no query sees another), 95 % confidence intervals over episodes, episode seed {found['seed']}.",
        "",
        "| protocol | accuracy, % | ± | episodes | queries per class |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]  # fmt: skip
    lines += [
        f"| {row['title']} | {100 * row['mean']:.2f} | {100 * row['interval']:.2f} "
        f"| {row['episodes']} | {row['query']} |"
        for row in found["rows"]
    ]
    ending = [
        "",
        "Without «no rotations», quarter rotations count as classes of their own.",
        *notes(found["learner"]),
        "",
    ]
    return "\n".join([*lines, *ending])


def notes(figures: Mapping[str, Any]) -> list[str]:
    """What a reader must know of a learner beside its accuracy; no line where there is nothing."""
    found = []
    if "order_deviation" in figures:
        found.append(
            f"Over 20 random orders of the support set, 5-way 1-shot accuracy has a standard deviation of "
            f"{100 * figures['order_deviation']:.2f} and a range of {100 * figures['order_range']:.2f} points."
        )
    if "calibration_error" in figures:
        found.append(
            f"Expected calibration error with the bundle's own table, 15 bins, "
            f"{figures['calibration_ways']}-way 1-shot: {100 * figures['calibration_error']:.2f} %."
        )
    return ["", " ".join(found)] if found else []


def initialisation(config: TrainConfig) -> str:
    """Where a run's encoder comes from."""
    if isinstance(config.encoder, TrunkConfig):
        return f"the frozen encoder of `{config.encoder.weights}`"
    return "random"


def method(run: Run) -> str:
    """The method of a run in words."""
    members = run.read_members()
    if members is None:
        return run.read_config().learner.method
    return "ensemble of " + ", ".join(Run(member).read_config().learner.method for member in members)


def _trained_on(config: TrainConfig) -> str:
    return (
        SPLITS[config.data.train]
        if isinstance(config.data, OmniglotConfig)
        else f"the training tasks of {config.data.set}"
    )


@dataclass(frozen=True, slots=True)
class Group:
    """The runs of one config with several seeds, and what was measured of each."""

    name: str
    runs: Sequence[Run]
    found: Sequence[Mapping[str, Any]]

    @property
    def config(self) -> TrainConfig:
        """Of the first run."""
        return self.runs[0].read_config()

    @property
    def seeds(self) -> list[int]:
        """Of training."""
        return [run.read_config().seed for run in self.runs]

    @property
    def minutes(self) -> list[float]:
        """Of training; none for an ensemble."""
        results = [run.result for run in self.runs if run.result.exists()]
        return [json.loads(path.read_text(encoding="utf-8"))["minutes"] for path in results]

    def accuracy(self, title: str) -> tuple[float, float, float] | None:
        """The mean over seeds, the half-width of its interval over episodes, and the deviation between seeds."""
        episodes = [read_episodes(run).get(title) for run in self.runs]
        if any(scores is None for scores in episodes):
            return None
        scores = np.array(episodes)
        deviation = float(scores.mean(1).std(ddof=1)) if len(scores) > 1 else 0.0
        return float(scores.mean()), interval_95(scores.mean(0).tolist()), deviation


def grouped(runs: Sequence[Run], found: Sequence[Mapping[str, Any]]) -> list[Group]:
    """Runs by the name of their config, in the order given."""
    groups: dict[str, list[tuple[Run, Mapping[str, Any]]]] = {}
    for run, measured in zip(runs, found, strict=True):
        groups.setdefault(run.read_config().name, []).append((run, measured))
    return [Group(name, [run for run, _ in rows], [each for _, each in rows]) for name, rows in groups.items()]


ABOUT = """
Minutes: of one training run, on one core unless said otherwise. Context: numbers of φ that a context vector has, where
the method has one. Spread over orders: the standard deviation of 5-way 1-shot accuracy over 20 random orders of the
support set, in points, where the method is not order-invariant. Calibration error: expected calibration error in %, 15
bins, 20-way 1-shot (or the most ways that a state holds, in brackets), with the bundle's own table, fitted on the
selection characters alone.
"""
COLUMNS = (
    "model", "method", "initialisation", "filters", "minutes", "seeds", "context", "spread over orders",
    "calibration error",
)  # fmt: skip


def comparison(title: str, groups: Sequence[Group], protocols: Sequence[Protocol], command: str) -> str:
    """A page with several learners side by side, and each group's mean over its seeds."""
    first = groups[0].found[0]
    lines = [
        f"# {title}", "", WRITTEN, "", f"    {command}", "",
        f"Accuracy in %, on {first['description']}, none of which was trained on. What was chosen after a look at them",
        "stands in docs/training.md.",
        "Inductive. The mean over the training seeds, ± the half-width of its 95 % interval over episodes; in brackets",
        f"the standard deviation between seeds. Episode seed {first['seed']}, {protocols[0].episodes} episodes, "
        f"{protocols[0].query} queries per class. «—»: a state does not hold so many ways or examples.",
        "",
        "| model | " + " | ".join(protocol.title for protocol in protocols) + " |",
        "| --- |" + " ---: |" * len(protocols),
    ]  # fmt: skip
    for group in groups:
        cells = [_cell(group.accuracy(protocol.title)) for protocol in protocols]
        lines.append(f"| `{group.name}` | " + " | ".join(cells) + " |")
    lines += ["", "| " + " | ".join(COLUMNS) + " |", "| --- | --- | --- |" + " ---: |" * (len(COLUMNS) - 3)]
    return "\n".join([*lines, *(_about(group) for group in groups), ABOUT])


def paired_with_best(runs: Sequence[Run], title: str) -> str:
    """The first run's accuracy less that of the best of the others on the same episodes, with its paired interval."""
    first, *others = ((run.read_config().name, read_episodes(run)[title]) for run in runs)
    name, best = max(others, key=lambda pair: float(np.mean(pair[1])))
    difference, interval = paired_interval(first[1], best)
    return (
        f"At {title}, `{first[0]}` less its best member here, `{name}`, on the same episodes: "
        f"{100 * difference:+.3f} ± {100 * interval:.3f} points."
    )


def _cell(accuracy: tuple[float, float, float] | None) -> str:
    if accuracy is None:
        return "—"
    mean, interval, deviation = accuracy
    return f"{100 * mean:.2f} ± {100 * interval:.2f}" + (f" ({100 * deviation:.2f})" if deviation else "")


def _about(group: Group) -> str:
    config, figures = group.config, group.found[0]["learner"]
    minutes = group.minutes
    width = (
        config.encoder.width
        if isinstance(config.encoder, Conv4Config | TrunkConfig)
        else config.learner.options.get("filters", "—")
    )
    error = "—"
    if "calibration_error" in figures:
        ways = figures["calibration_ways"]
        error = f"{100 * figures['calibration_error']:.2f}" + ("" if ways == 20 else f" ({ways})")
    spread = f"{100 * figures['order_deviation']:.2f}" if "order_deviation" in figures else "—"
    cells = [
        f"`{group.name}`", method(group.runs[0]), initialisation(config), str(width),
        f"{np.mean(minutes):.1f}" if minutes else "—", ", ".join(map(str, group.seeds)),
        str(figures.get("context", "—")), spread, error,
    ]  # fmt: skip
    return "| " + " | ".join(cells) + " |"


def rows_page(title: str, groups: Sequence[tuple[str, Sequence[Row]]], notes: Sequence[str], command: str) -> str:
    """A page with figures over tasks, each learner's beside the baselines on the same tasks."""
    lines = [f"# {title}", "", WRITTEN, "", f"    {command}", "", *notes]
    for name, rows in groups:
        baselines = list(dict.fromkeys(each.baseline for row in rows for each in row.comparisons))
        lines += [
            "", f"## {name}", "",
            "| what | figure | mean | ± | tasks | " + "".join(f"{each} | difference, paired | " for each in baselines),
            "| --- | --- | ---: | ---: | ---: |" + " ---: | ---: |" * len(baselines),
            *(_figures_line(row, baselines) for row in rows),
        ]  # fmt: skip
    return "\n".join([*lines, ""])


def _figures_line(row: Row, baselines: Sequence[str]) -> str:
    cells = [row.title, row.metric, f"{row.mean:.4f}", f"{row.interval:.4f}", str(row.n)]
    found = {each.baseline: each for each in row.comparisons}
    for name in baselines:
        if name in found:
            cells += [f"{found[name].mean:.4f}", f"{found[name].difference:+.4f} ± {found[name].interval:.4f}"]
        else:
            cells += ["", ""]
    return "| " + " | ".join(cells) + " |"


def write_page(path: Path, text: str) -> None:
    """Write a page."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
