"""`handful train`, `search`, `ensemble`, `finetune`, `calibrate` and `plot`."""

import argparse
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import ModelError

if TYPE_CHECKING:
    from .config import TrainConfig

Command = Callable[[argparse.Namespace], None]


def train(argv: Sequence[str]) -> int:
    """Train a learner, or go on with a run that was interrupted."""
    parser = argparse.ArgumentParser("handful train", description=train.__doc__)
    _add_config_arguments(parser)
    parser.add_argument("--run", type=Path, help="the run directory (default: runs/<name of the config>)")
    checks = parser.add_mutually_exclusive_group()
    checks.add_argument(
        "--overfit", type=int, metavar="N", help="only check that N examples can be learned by heart; keeps nothing"
    )
    checks.add_argument(
        "--find-rate", action="store_true", help="only try rising learning rates on a small sample; keeps nothing"
    )

    def command(arguments: argparse.Namespace) -> None:
        from .config import read_config  # noqa: PLC0415 (seconds of import that --help does without)

        config = read_config(arguments.config, arguments.set)
        if arguments.overfit is not None:
            _overfit(config, arguments)
        elif arguments.find_rate:
            _find_rate(config, arguments)
        else:
            from .training import train as train_run  # noqa: PLC0415

            train_run(config, arguments.run or Path("runs") / config.name, arguments.data)

    return run_command(parser, argv, command)


def _overfit(config: "TrainConfig", arguments: argparse.Namespace) -> None:
    from .craft import overfit  # noqa: PLC0415

    found = overfit(config, arguments.data, examples=arguments.overfit)
    print(f"{arguments.overfit} examples: loss {found.first:.4g} at first, {found.loss:.4g} after {found.steps} steps")


def _find_rate(config: "TrainConfig", arguments: argparse.Namespace) -> None:
    from .craft import find_rate  # noqa: PLC0415

    rates, losses, suggestion = find_rate(config, arguments.data)
    print("rate         loss")
    for rate, loss in zip(rates[::4], losses[::4], strict=True):
        print(f"{rate:<12.3g} {loss:.4g}")
    print(f"optimizer.rate = {suggestion:.2g}  (a tenth of the rate with the least loss)")


def search(argv: Sequence[str]) -> int:
    """Train a number of trials with settings drawn from the config's `[search]`, and say which was best."""
    parser = argparse.ArgumentParser("handful search", description=search.__doc__)
    _add_config_arguments(parser)
    parser.add_argument("--out", type=Path, help="folder of the trials (default: runs/<name of the config>-search)")

    def command(arguments: argparse.Namespace) -> None:
        from .config import read_config  # noqa: PLC0415 (see train)
        from .search import search as run_search  # noqa: PLC0415

        config = read_config(arguments.config, arguments.set)
        folder = arguments.out or Path("runs") / f"{config.name}-search"
        best, score = run_search(config, folder, arguments.data)
        print(f"best: {', '.join(f'{name} = {value}' for name, value in best.items())}; selection {score:.4f}")
        print(f"all trials: {folder / 'search.csv'}")

    return run_command(parser, argv, command)


def ensemble(argv: Sequence[str]) -> int:
    """Make one learner of several finished runs, whose predictions are averaged."""
    parser = argparse.ArgumentParser("handful ensemble", description=ensemble.__doc__)
    parser.add_argument("members", type=Path, nargs="+", help="run directories with the same data set and encoder")
    parser.add_argument("--run", type=Path, required=True, help="the ensemble's run directory")

    def command(arguments: argparse.Namespace) -> None:
        from .training import make_ensemble  # noqa: PLC0415 (see train)

        make_ensemble(arguments.members, arguments.run)
        print(f"wrote {arguments.run}")

    return run_command(parser, argv, command)


def finetune(argv: Sequence[str]) -> int:
    """Fine-tune a run's learner offline on alphabets, each of which becomes a known task of its bundle."""
    parser = argparse.ArgumentParser("handful finetune", description=finetune.__doc__)
    parser.add_argument("config", type=Path, help="a TOML file, such as models/configs/known/alphabets.toml")
    parser.add_argument("--out", type=Path, required=True, help="folder for the states, which `handful export` takes")
    add_data_argument(parser)

    def command(arguments: argparse.Namespace) -> None:
        from .known import make_known  # noqa: PLC0415 (see train)

        for entry in make_known(arguments.config, arguments.out, arguments.data):
            found = entry["evaluation"]
            print(
                f"{entry['id']}: {len(entry['labels'])} ways, fine-tuned {100 * found['fine-tuned']:.1f} %, "
                f"adapted in one request {100 * found['adapted in one request']:.1f} % (rate {found['rate']:g})"
            )

    return run_command(parser, argv, command)


def calibrate(argv: Sequence[str]) -> int:
    """Fit temperatures and quantiles on the selection tasks, with the run that never saw them."""
    parser = argparse.ArgumentParser("handful calibrate", description=calibrate.__doc__)
    parser.add_argument(
        "runs", type=Path, nargs="+", metavar="run",
        help="a run directory that did not train on the selection tasks; several, of other seeds, share a table",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="of the episodes (default: 0)")
    parser.add_argument("--table", type=Path, help="take the table of this bundle, which has the run's weights")
    parser.add_argument("--into", type=Path, nargs="*", default=[], help="run directories that take the table, too")
    add_data_argument(parser)

    def command(arguments: argparse.Namespace) -> None:
        from .datasets import calibrate as fit  # noqa: PLC0415 (see train)
        from .runs import Run, write_json  # noqa: PLC0415
        from .training import check_calibration, load_trained, table_of  # noqa: PLC0415

        runs, takers = ([Run(folder) for folder in folders] for folders in (arguments.runs, arguments.into))
        check_calibration(runs, takers)
        if arguments.table:
            table = table_of(arguments.table)
        else:
            learners = [load_trained(run) for run in runs]
            table = fit(runs[0].read_config(), learners, arguments.data, seed=arguments.seed)
        for taker in (*runs, *takers):
            write_json(taker.calibration, table)
            print(f"wrote {taker.calibration}")

    return run_command(parser, argv, command)


def plot(argv: Sequence[str]) -> int:
    """Draw accuracy against the number of training classes, or against shots."""
    parser = argparse.ArgumentParser("handful plot", description=plot.__doc__)
    parser.add_argument("x", choices=("classes", "shots"), help="what the accuracy is drawn against")
    parser.add_argument("runs", type=Path, nargs="+", help="run directories")
    parser.add_argument("--out", type=Path, required=True, help="the picture; a page with the figures stands beside it")
    parser.add_argument("--ways", type=int, default=5, help="of the tasks, against shots (default: 5)")
    parser.add_argument("--seed", type=int, default=0, help="of the episodes (default: 0)")
    add_data_argument(parser)

    def command(arguments: argparse.Namespace) -> None:
        from . import omniglot  # noqa: PLC0415 (see train)
        from .plots import against_classes, against_shots, draw, page  # noqa: PLC0415
        from .report import write_page  # noqa: PLC0415
        from .runs import Run  # noqa: PLC0415

        runs = [Run(folder) for folder in arguments.runs]
        characters = omniglot.load(arguments.data, "evaluation")
        if arguments.x == "classes":
            xlabel, title = "training classes", "Accuracy and the number of training classes"
            lines = against_classes(runs, characters, seed=arguments.seed)
        else:
            xlabel, title = "shots", f"Accuracy and shots, {arguments.ways}-way"
            lines = against_shots(runs, characters, ways=arguments.ways, seed=arguments.seed)
        draw(lines, arguments.out, xlabel=xlabel, title=title, logarithmic=arguments.x == "classes")
        words = shlex.join(["handful", "plot", *argv])
        write_page(arguments.out.with_suffix(".md"), page(lines, arguments.out.name, xlabel, title, words))

    return run_command(parser, argv, command)


def _add_config_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", type=Path, help="a TOML file, such as those in models/configs/")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="another value of a setting, by its dotted name",
    )
    add_data_argument(parser)


def add_data_argument(parser: argparse.ArgumentParser) -> None:
    """The flag `--data`, whose default is HANDFUL_DATA."""
    default = Path(os.environ.get("HANDFUL_DATA", "../shared/data"))
    parser.add_argument(
        "--data", type=Path, default=default, help="the data folder (default: HANDFUL_DATA, or ../shared/data)"
    )


def run_command(parser: argparse.ArgumentParser, argv: Sequence[str], command: Command) -> int:
    """The exit status of a command; what a person can mend is printed without a stack trace."""
    try:
        command(parser.parse_args(argv))
    except ModelError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 1
    return 0
