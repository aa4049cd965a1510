"""Pictures of accuracy: against the number of training classes, and against shots."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from .config import OmniglotConfig
from .datasets import training_classes
from .evaluation import Accuracy, Protocol, evaluate, protocols_that_fit
from .omniglot import Characters
from .runs import Run
from .training import load_trained

SHOTS = (1, 2, 3, 5)
Line = Sequence[tuple[float, float, float]]
"""Points of a line: x, accuracy and the half-width of its interval, both in %."""


def against_classes(runs: Sequence[Run], characters: Characters, *, seed: int) -> dict[str, Line]:
    """5-way and 20-way 1-shot accuracy of runs that differ in their number of training classes."""
    lines: dict[str, list[tuple[float, float, float]]] = {}
    for run in runs:
        config = run.read_config()
        if not isinstance(config.data, OmniglotConfig):
            raise TypeError(f"{run.folder} did not train on characters")
        for row in _measured(run, characters, [Protocol(5, 1), Protocol(20, 1)], seed):
            lines.setdefault(row.protocol.title, []).append(_point(training_classes(config.data), row))
    return {title: sorted(points) for title, points in lines.items()}


def against_shots(runs: Sequence[Run], characters: Characters, *, ways: int, seed: int) -> dict[str, Line]:
    """Accuracy of runs at 1 to 5 shots."""
    protocols = [Protocol(ways, shot) for shot in SHOTS]
    return {
        run.folder.name: [_point(row.protocol.shot, row) for row in _measured(run, characters, protocols, seed)]
        for run in runs
    }


def _measured(run: Run, characters: Characters, protocols: Sequence[Protocol], seed: int) -> list[Accuracy]:
    learner = load_trained(run)
    return evaluate(learner, characters, protocols_that_fit(learner, protocols), seed=seed)


def _point(x: float, row: Accuracy) -> tuple[float, float, float]:
    return x, 100 * row.mean, 100 * row.interval


def draw(lines: Mapping[str, Line], picture: Path, *, xlabel: str, title: str, logarithmic: bool) -> None:
    """A PNG with a line for each, and its intervals."""
    from matplotlib.figure import Figure  # noqa: PLC0415 (a second of import that only this needs)

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for place, (name, points) in enumerate(lines.items()):
        x, mean, interval = zip(*points, strict=True)
        axes.errorbar(
            x, mean, interval, label=name, capsize=2, marker="os^vD*xP<>"[place % 10], markersize=4, linewidth=1
        )
    axes.set(xlabel=xlabel, ylabel="accuracy, %", title=title)
    if logarithmic:
        axes.set_xscale("log")
        axes.set_xticks(list(dict.fromkeys(x for points in lines.values() for x, _, _ in points)))
        axes.get_xaxis().set_major_formatter("{x:g}")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small", ncols=1 + len(lines) // 8)
    picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(picture, dpi=110)


def table(lines: Mapping[str, Line], xlabel: str) -> str:
    """The points in Markdown."""
    places = sorted({x for points in lines.values() for x, _, _ in points})
    rows = [f"| {xlabel} | " + " | ".join(lines) + " |", "| ---: |" + " ---: |" * len(lines)]
    for place in places:
        found = ({x: (mean, interval) for x, mean, interval in points}.get(place) for points in lines.values())
        cells = ("—" if each is None else f"{each[0]:.2f} ± {each[1]:.2f}" for each in found)
        rows.append(f"| {place:g} | " + " | ".join(cells) + " |")
    return "\n".join(rows)


def page(lines: Mapping[str, Line], picture: str, xlabel: str, title: str, command: str) -> str:
    """A page with the picture, its points, and the command that made both."""
    return "\n".join([
        f"# {title}", "", "Written by the command below; nothing here is copied by hand.", "", f"    {command}", "",
        "Accuracy in % on the public evaluation characters and their quarter turns, 1,000 episodes, 15 queries per "
        "class, inductive, ± the half-width of the 95 % interval over episodes.",
        "", f"![{title}]({picture})", "", table(lines, xlabel), "",
    ])  # fmt: skip
