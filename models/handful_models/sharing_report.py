"""The sharing report: a page, its pictures, and what bundles say of each task."""

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import ConfigInvalid
from .runs import Run, write_json
from .sharing import ArmSharing, TaskSharing, advice, compare, cosines
from .task_data import open_tasks
from .task_evaluation import Measured, measure_known
from .trunk_widths import sweep, width_section

Matrix = NDArray[np.float64]


def sharing_report(
    shared: Sequence[Run],
    single: Sequence[Run],
    data: Path,
    *,
    page: Path | None,
    command: str,
    widths: Sequence[Run] = (),
) -> str:
    """Measure runs, compare every arm with the single-task models, and write what bundles say.

    Each shared run gets its own arm's comparison in `evaluation.json`, and advice for each task in `notes.json`.

    Args:
        shared: Runs of models that do several tasks: an arm is all runs of one config, with different seeds.
        single: Runs of single-task models with the same seeds: `independent` ones, or some for each task.
        data: The data folder.
        page: Where the page will stand; pictures are written beside it. None: no pictures.
        command: What wrote it.
        widths: Runs of one of the arms with other widths of its trunk, and the same name and seeds.

    Returns:
        The page, in Markdown.

    Raises:
        RunUnfinished: a run has no weights yet.
        ConfigInvalid: the runs are of different data sets, a single-task model is missing, or a run of `widths`
            differs from its arm in more than the width.
    """
    if len(sets := {run.read_config().data.set for run in (*shared, *single, *widths)}) > 1:
        raise ConfigInvalid(f"the runs are of different data sets: {', '.join(sorted(sets))}")
    alone = [measure_known(run, data) for run in single]
    groups: dict[str, list[Measured]] = {}
    for run in shared:
        groups.setdefault(run.read_config().name, []).append(measure_known(run, data))
    arms = {name: compare(group, alone, name=name, selection=_selection(group)) for name, group in groups.items()}
    found = {name: _mean_cosines(group, data) for name, group in groups.items()}
    for name, group in groups.items():
        for each in group:
            _keep(each.run, arms[name], found[name])
    best = max(arms.values(), key=lambda arm: -np.inf if arm.selection is None else arm.selection)
    pictures = _pictures(best, groups[best.name], found[best.name], page) if page else []
    text = _page(list(arms.values()), best, found[best.name], pictures, command)
    if widths:
        text += width_section(sweep(groups, [measure_known(run, data) for run in widths], alone))
    return text


def _selection(group: Sequence[Measured]) -> float | None:
    results = [json.loads(each.run.result.read_text(encoding="utf-8")) for each in group if each.run.result.exists()]
    scores = [result["selection"] for result in results if "selection" in result]
    return float(np.mean(scores)) if scores else None


def _mean_cosines(group: Sequence[Measured], data: Path) -> Matrix | None:
    rows = open_tasks(group[0].run.read_config(), data).rows("select")
    found = [cosines(each.learner, rows) for each in group]
    known = [matrix for matrix in found if matrix is not None]
    return np.mean(known, axis=0) if known else None


def _with_others(matrix: Matrix | None, place: int) -> float | None:
    """The mean cosine of a task with the others."""
    if matrix is None or len(matrix) < 2:
        return None
    return float((matrix[place].sum() - matrix[place, place]) / (len(matrix) - 1))


def _keep(run: Run, arm: ArmSharing, matrix: Matrix | None) -> None:
    kept: dict[str, Any] = json.loads(run.evaluation.read_text(encoding="utf-8"))
    write_json(run.evaluation, {**kept, "sharing": asdict(arm)})
    notes: dict[str, dict[str, Any]] = json.loads(run.notes.read_text(encoding="utf-8"))
    for place, line in enumerate(arm.tasks):
        note = notes[line.task]
        note["evaluation"] |= {
            "single": round(line.single, 4), "sharing": line.verdict, "delta_percent": round(line.delta, 2),
            "delta_interval": [round(line.low, 2), round(line.high, 2)], "seeds": len(arm.seeds),
        }  # fmt: skip
        note["advice"] = advice(line, _with_others(matrix, place))
    write_json(run.notes, notes)


def _page(arms: Sequence[ArmSharing], best: ArmSharing, matrix: Matrix | None, pictures: Sequence[str],
          command: str) -> str:  # fmt: skip
    lines = [
        "# Does sharing help?", "", "Written by the command below; nothing here is copied by hand.", "",
        f"    {command}", "",
        "Each task of a shared model against a model of its own that had as many updates of that task, the same "
        "augmentation and the same early stopping. Δm is the mean over tasks of the gain in % of the single-task "
        "figure; above 0 is better, whatever the figure. Intervals are of 95 %, by a bootstrap over seeds and rows, "
        "the same rows for both. A task «gains» or «loses» where its p, with Holm's correction over the tasks, is "
        "below 0.05. Rows of the report chose nothing; the arm in bold is best on selection rows.", "",
        "| arm | Δm, % | interval | gain | lose | no evidence | selection | trained numbers | seeds |",
        "| --- | ---: | --- | ---: | ---: | ---: | ---: | ---: | --- |",
        *(_arm_line(arm, arm is best) for arm in arms), "",
        f"## Tasks of {best.name}, by size", "",
        "| task | training rows | figure | shared | single | gain, % | interval | p | verdict | cosine |",
        "| --- | ---: | --- | ---: | ---: | ---: | --- | ---: | --- | ---: |",
        *(_task_line(line, _with_others(matrix, place)) for place, line in _by_size(best)), "",
        _of_size(best), "", *(f"![{name}]({name})" for name in pictures), "",
        "## Advice", "",
        *(f"- {line.task}: {advice(line, _with_others(matrix, place))}" for place, line in _by_size(best)), "",
    ]  # fmt: skip
    return "\n".join(lines)


def _by_size(arm: ArmSharing) -> list[tuple[int, TaskSharing]]:
    return sorted(enumerate(arm.tasks), key=lambda pair: pair[1].size)


def _arm_line(arm: ArmSharing, best: bool) -> str:
    counts = [sum(line.verdict == verdict for line in arm.tasks) for verdict in ("gains", "loses", "no evidence")]
    name = f"**{arm.name}**" if best else arm.name
    score = "—" if arm.selection is None else f"{arm.selection:.4f}"
    cells = [name, f"{arm.delta:+.2f}", f"{arm.low:+.2f} to {arm.high:+.2f}", *map(str, counts), score,
             str(arm.trained), ", ".join(map(str, arm.seeds))]  # fmt: skip
    return "| " + " | ".join(cells) + " |"


def _task_line(line: TaskSharing, cosine: float | None) -> str:
    cells = [line.task, str(line.size), line.metric, f"{line.shared:.4f}", f"{line.single:.4f}", f"{line.delta:+.2f}",
             f"{line.low:+.2f} to {line.high:+.2f}", f"{line.p:.3g}", line.verdict,
             "—" if cosine is None else f"{cosine:+.2f}"]  # fmt: skip
    return "| " + " | ".join(cells) + " |"


def _of_size(arm: ArmSharing) -> str:
    """The long tail in one sentence."""
    ordered = [line for _, line in _by_size(arm)]
    if len(ordered) < 4 or len({line.size for line in ordered}) < 2:
        return "There are too few tasks, or sizes of them, to tell whether small ones gain more."
    half = len(ordered) // 2
    small, large = (float(np.mean([line.delta for line in part])) for part in (ordered[:half], ordered[half:]))
    ranks = [np.argsort(np.argsort(values)) for values in ([each.size for each in ordered],
                                                           [each.delta for each in ordered])]  # fmt: skip
    relation = float(np.corrcoef(ranks[0].astype(np.float64), ranks[1].astype(np.float64))[0, 1])
    return (
        f"The {half} smallest tasks gain {small:+.2f} % on average, the others {large:+.2f} %; the rank correlation of "
        f"size and gain is {relation:+.2f}."
    )


def _pictures(best: ArmSharing, group: Sequence[Measured], matrix: Matrix | None, page: Path) -> list[str]:
    page.parent.mkdir(parents=True, exist_ok=True)
    names = [line.task for line in best.tasks]
    written = []
    if matrix is not None:
        written.append(f"{page.stem}-cosines.png")
        draw_matrix(matrix, names, page.parent / written[-1], title=f"{best.name}: cosine of the tasks' gradients")
    curves = read_curves(group[0].run.task_losses)
    if curves:
        written.append(f"{page.stem}-losses.png")
        draw_losses(curves, page.parent / written[-1], title=f"{best.name}: training loss of each task")
    return written


def read_curves(path: Path) -> Mapping[str, list[tuple[int, float]]]:
    """The logged training losses of each task, `(step, loss)`; none where the run has no such log."""
    if not path.exists():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    tasks = [name for name in rows[0] if name != "step"] if rows else []
    return {task: [(int(row["step"]), float(row[task])) for row in rows if row[task]] for task in tasks}


def draw_matrix(matrix: Matrix, names: Sequence[str], picture: Path, *, title: str) -> None:
    """A PNG of tasks by tasks, from -1 (blue) to 1 (red)."""
    from matplotlib.figure import Figure  # noqa: PLC0415 (a second of import that only this needs)

    side = max(4.0, 0.28 * len(names) + 2.5)
    figure = Figure(figsize=(side + 0.8, side), layout="constrained")
    axes = figure.subplots()
    drawn = axes.imshow(matrix, cmap="coolwarm", vmin=-1, vmax=1)
    axes.set_xticks(range(len(names)), names, rotation=90, fontsize="small")
    axes.set_yticks(range(len(names)), names, fontsize="small")
    axes.set_title(title)
    figure.colorbar(drawn, shrink=0.8)
    figure.savefig(picture, dpi=90)


def draw_losses(curves: Mapping[str, Sequence[tuple[int, float]]], picture: Path, *, title: str) -> None:
    """A PNG of the loss of each task over steps."""
    from matplotlib.figure import Figure  # noqa: PLC0415 (see draw_matrix)

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for task, points in curves.items():
        axes.plot([step for step, _ in points], [loss for _, loss in points], label=task, linewidth=1)
    axes.set(xlabel="step", ylabel="loss, since the last line", title=title)
    axes.legend(fontsize="x-small", ncols=1 + len(curves) // 12)
    figure.savefig(picture, dpi=90)
