"""The table of an evaluation: as JSON for programs, CSV by episode, Markdown for people."""

import csv
from collections.abc import Sequence
from pathlib import Path

from .evaluation import Accuracy
from .omniglot import SPLITS
from .runs import Run, write_json


def write_report(run: Run, split: str, rows: Sequence[Accuracy], seed: int) -> None:
    """Put `evaluation.json` and `episodes.csv` into a run directory."""
    write_json(
        run.evaluation,
        {"split": split, "description": SPLITS[split], "seed": seed, "rows": [row.row() for row in rows]},
    )
    with (run.folder / "episodes.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("protocol", "episode", "accuracy"))
        for row in rows:
            writer.writerows((row.protocol.title, place, f"{score:.6f}") for place, score in enumerate(row.per_episode))


def markdown(run: Run, split: str, rows: Sequence[Accuracy], seed: int, command: str) -> str:
    """A page with the table, the command that made it, and the seeds."""
    config = run.read_config()
    lines = [
        f"# Accuracy of `{config.name}`",
        "",
        "Written by the command below; nothing here is copied by hand.",
        "",
        f"    {command}",
        "",
        f"Trained on: {SPLITS[config.data.train]} (seed {config.seed}, {config.optimizer.steps} steps). "
        f"Reported on: {SPLITS[split]}, none of which was trained on or used to choose anything.",
        *([f"Initialisation: the encoder of {config.learner.trunk}."] if config.learner.trunk else []),
        f"Inductive (no query sees another), 95 % confidence intervals over episodes, episode seed {seed}.",
        "",
        "| protocol | accuracy, % | ± | episodes | queries per class |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    lines += [
        f"| {row.protocol.title} | {100 * row.mean:.2f} | {100 * row.interval:.2f} "
        f"| {row.protocol.episodes} | {row.protocol.query} |"
        for row in rows
    ]
    return "\n".join([*lines, "", "Without «no rotations», quarter rotations count as classes of their own.", ""])


def write_markdown(path: Path, text: str) -> None:
    """Write the page."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
