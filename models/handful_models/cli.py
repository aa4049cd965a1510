"""`handful train`, `handful evaluate` and `handful calibrate`."""

import argparse
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from .config import read_config
from .errors import ModelError
from .omniglot import SPLITS

Command = Callable[[argparse.Namespace], None]


def train(argv: Sequence[str]) -> int:
    """Train a learner, or go on with a run that was interrupted."""
    parser = argparse.ArgumentParser("handful train", description=train.__doc__)
    parser.add_argument("config", type=Path, help="a TOML file, such as those in models/configs/")
    parser.add_argument("--run", type=Path, help="the run directory (default: runs/<name of the config>)")
    add_data_argument(parser)

    def command(arguments: argparse.Namespace) -> None:
        from .training import train as train_run  # noqa: PLC0415 (seconds of import that --help does without)

        config = read_config(arguments.config)
        train_run(config, arguments.run or Path("runs") / config.name, arguments.data)

    return _run(parser, argv, command)


def evaluate(argv: Sequence[str]) -> int:
    """Measure a trained run on classes it never saw, and write the table."""
    parser = argparse.ArgumentParser("handful evaluate", description=evaluate.__doc__)
    parser.add_argument("run", type=Path, help="a run directory")
    parser.add_argument("--split", choices=sorted(SPLITS), default="evaluation")
    parser.add_argument("--seed", type=int, default=0, help="of the episodes (default: 0)")
    parser.add_argument("--markdown", type=Path, help="also write the table as a page")
    add_data_argument(parser)

    def command(arguments: argparse.Namespace) -> None:
        from . import omniglot  # noqa: PLC0415 (see train)
        from .evaluation import PUBLISHED  # noqa: PLC0415
        from .evaluation import evaluate as measure  # noqa: PLC0415
        from .report import markdown, write_markdown, write_report  # noqa: PLC0415
        from .runs import Run  # noqa: PLC0415
        from .training import load_trained  # noqa: PLC0415

        run = Run(arguments.run)
        characters = omniglot.load(arguments.data, arguments.split)
        rows = measure(load_trained(run), characters, PUBLISHED, seed=arguments.seed)
        write_report(run, arguments.split, rows, arguments.seed)
        page = markdown(run, arguments.split, rows, arguments.seed, shlex.join(["handful", "evaluate", *argv]))
        print(page)
        if arguments.markdown:
            write_markdown(arguments.markdown, page)

    return _run(parser, argv, command)


def calibrate(argv: Sequence[str]) -> int:
    """Fit temperatures and conformal quantiles on the selection classes, with the run that never saw them."""
    parser = argparse.ArgumentParser("handful calibrate", description=calibrate.__doc__)
    parser.add_argument("run", type=Path, help="a run directory that trained on selection-train")
    parser.add_argument("--seed", type=int, default=0, help="of the episodes (default: 0)")
    add_data_argument(parser)

    def command(arguments: argparse.Namespace) -> None:
        from . import omniglot  # noqa: PLC0415 (see train)
        from .calibration import calibrate as fit  # noqa: PLC0415
        from .errors import ConfigInvalid  # noqa: PLC0415
        from .runs import Run, write_json  # noqa: PLC0415
        from .training import load_trained  # noqa: PLC0415

        run = Run(arguments.run)
        if run.read_config().data.train != "selection-train":
            raise ConfigInvalid(f"{arguments.run} trained on the selection classes: they cannot calibrate it")
        table = fit(load_trained(run), omniglot.load(arguments.data, "selection"), seed=arguments.seed)
        write_json(run.calibration, table)
        print(f"wrote {run.calibration}")

    return _run(parser, argv, command)


def add_data_argument(parser: argparse.ArgumentParser) -> None:
    """The flag `--data`, whose default is HANDFUL_DATA."""
    default = Path(os.environ.get("HANDFUL_DATA", "../shared/data"))
    parser.add_argument(
        "--data", type=Path, default=default, help="the data folder (default: HANDFUL_DATA, or ../shared/data)"
    )


def _run(parser: argparse.ArgumentParser, argv: Sequence[str], command: Command) -> int:
    try:
        command(parser.parse_args(argv))
    except ModelError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 1
    return 0
