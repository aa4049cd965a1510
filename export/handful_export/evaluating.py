"""`handful evaluate`: runs, in torch; bundles, through ONNX Runtime and HTTP."""

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from handful_models.cli import add_data_argument
from handful_models.errors import ModelError
from handful_service.errors import BundleError

from .errors import ExportError

if TYPE_CHECKING:
    from handful_models.runs import Run


def evaluate(argv: Sequence[str]) -> int:
    """Measure trained runs on tasks they never saw, side by side, or bundles as their users see them."""
    parser = argparse.ArgumentParser("handful evaluate", description=evaluate.__doc__)
    parser.add_argument("runs", type=Path, nargs="*", help="run directories; several make a comparison")
    parser.add_argument(
        "--against-single",
        type=Path,
        nargs="+",
        metavar="RUN",
        help="compare runs of known tasks with these, the sharing report",
    )
    parser.add_argument(
        "--widths",
        type=Path,
        nargs="+",
        default=[],
        metavar="RUN",
        help="runs of one arm of the sharing report with other widths of its trunk",
    )
    parser.add_argument("--bundle", type=Path, action="append", default=[], help="a bundle, measured through HTTP")
    parser.add_argument("--split", default="evaluation", help="of the characters (default: evaluation)")
    parser.add_argument("--seed", type=int, default=0, help="of the episodes (default: 0)")
    parser.add_argument("--protocol", default="5x1", help="of bundles: ways x shots (default: 5x1)")
    parser.add_argument("--quiet", action="store_true", help="measure and keep the figures, print no page")
    parser.add_argument("--paired", help="ways x shots: compare the first run with the best of the others, paired")
    parser.add_argument("--title", default="Comparison", help="of the page of a comparison")
    parser.add_argument("--markdown", type=Path, help="also write the table as a page")
    add_data_argument(parser)
    arguments = parser.parse_args(argv)
    if bool(arguments.runs) == bool(arguments.bundle):
        parser.error("name either runs or bundles")
    if arguments.widths and not arguments.against_single:
        parser.error("--widths is for the sharing report: name single-task runs by --against-single")
    try:
        command = shlex.join(["handful", "evaluate", *argv])
        text = _bundles(arguments, command) if arguments.bundle else _runs(arguments, command)
        if not arguments.quiet:
            print(text)
        if arguments.markdown:
            from handful_models.report import write_page  # noqa: PLC0415 (see _runs)

            write_page(arguments.markdown, text)
    except (ExportError, ModelError, BundleError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 1
    return 0


def _runs(arguments: argparse.Namespace, command: str) -> str:
    from handful_models.evaluation import COMPARED, PUBLISHED, Protocol  # noqa: PLC0415 (--help does without torch)
    from handful_models.measuring import measure  # noqa: PLC0415
    from handful_models.methods import DESCRIBED  # noqa: PLC0415
    from handful_models.report import comparison, grouped, page, paired_with_best  # noqa: PLC0415
    from handful_models.runs import Run  # noqa: PLC0415

    runs = [Run(folder) for folder in arguments.runs]
    if arguments.against_single or all(run.read_config().learner.method in DESCRIBED for run in runs):
        return _known(runs, arguments, command)
    if any(run.read_config().data.set != "omniglot" for run in runs):
        return _tasks(runs, arguments, command)
    protocols = PUBLISHED if len(runs) == 1 else COMPARED
    found = [measure(run, arguments.data, protocols, split=arguments.split, seed=arguments.seed) for run in runs]
    if len(runs) == 1:
        return page(runs[0], found[0], command)
    text = comparison(arguments.title, grouped(runs, found), COMPARED, command)
    if arguments.paired:
        text += "\n" + paired_with_best(runs, Protocol(*_sizes(arguments.paired)).title) + "\n"
    return text


def _known(runs: "list[Run]", arguments: argparse.Namespace, command: str) -> str:
    from handful_models.runs import Run  # noqa: PLC0415 (see _runs)
    from handful_models.sharing_report import sharing_report  # noqa: PLC0415
    from handful_models.task_evaluation import evaluation_page, measure_known  # noqa: PLC0415

    if not arguments.against_single:
        return evaluation_page([measure_known(run, arguments.data) for run in runs], command)
    single, widths = ([Run(folder) for folder in folders] for folders in (arguments.against_single, arguments.widths))
    return sharing_report(runs, single, arguments.data, page=arguments.markdown, command=command, widths=widths)


def _tasks(runs: "list[Run]", arguments: argparse.Namespace, command: str) -> str:
    from handful_models.errors import ConfigInvalid  # noqa: PLC0415 (see _runs)
    from handful_models.measuring import measure_tasks, reported_on  # noqa: PLC0415
    from handful_models.report import rows_page  # noqa: PLC0415

    if len(sets := {run.read_config().data.set for run in runs}) > 1:
        raise ConfigInvalid(f"the runs are of different data sets: {', '.join(sorted(sets))}")
    by_name: dict[str, list[Run]] = {}
    for run in runs:
        by_name.setdefault(run.read_config().name, []).append(run)
    groups = [(name, measure_tasks(members, arguments.data, seed=arguments.seed)) for name, members in by_name.items()]
    notes = [
        f"Figures over {reported_on(*sets)} (seed {arguments.seed}); ± is the half-width of the 95 % interval over "
        "tasks, «paired» that of the difference on the same tasks."
    ]
    return rows_page(arguments.title, groups, notes, command)


def _bundles(arguments: argparse.Namespace, command: str) -> str:
    from handful_models import omniglot  # noqa: PLC0415 (see _runs)
    from handful_models.evaluation import Protocol  # noqa: PLC0415
    from handful_models.report import WRITTEN  # noqa: PLC0415

    from .through_http import evaluate_bundle  # noqa: PLC0415

    ways, shots = _sizes(arguments.protocol)
    protocol = Protocol(ways, shots)
    characters = omniglot.load(arguments.data, arguments.split)
    lines = [
        "# Bundles through ONNX Runtime and HTTP", "", WRITTEN, "", f"    {command}", "",
        f"{protocol.title}, {protocol.episodes} episodes of {omniglot.SPLITS[arguments.split]}, {protocol.query} "
        f"queries per class, episode seed {arguments.seed}. Every drawing is sent as a PNG file. «In torch» is the "
        "run's own figure on the same episodes, from the bundle's card.",
        "",
        "| bundle | accuracy, % | ± | in torch, % | calibration error, % |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]  # fmt: skip
    for folder in arguments.bundle:
        accuracy, error = evaluate_bundle(folder, characters, protocol, seed=arguments.seed)
        lines.append(
            f"| `{folder.parent.name}` {folder.name} | {100 * accuracy.mean:.2f} | {100 * accuracy.interval:.2f} "
            f"| {_in_torch(folder, protocol.title, arguments)} | {100 * error:.2f} |"
        )
        print(lines[-1], file=sys.stderr)
    return "\n".join([*lines, ""])


def _in_torch(folder: Path, title: str, arguments: argparse.Namespace) -> str:
    """The run's own accuracy on the same episodes, if the bundle holds it."""
    path = folder / "assets" / "evaluation.json"
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    rows = found.get("rows", []) if (found.get("split"), found.get("seed")) == (arguments.split, arguments.seed) else []
    return next((f"{100 * row['mean']:.2f}" for row in rows if row["title"] == title), "—")


def _sizes(text: str) -> tuple[int, int]:
    ways, _, shots = text.partition("x")
    if not (ways.isdigit() and shots.isdigit() and int(ways) > 1 and int(shots) > 0):
        raise ExportError(f"--protocol {text}: write ways x shots, such as 5x1")
    return int(ways), int(shots)
