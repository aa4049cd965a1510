"""`handful export` and `handful trunk`."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from handful_models.cli import add_data_argument
from handful_models.errors import ModelError
from handful_models.runs import Run
from handful_service.errors import BundleError

from .errors import ExportError


def export(argv: Sequence[str]) -> int:
    """Write the bundle of a trained run, if it passes the export gate."""
    parser = argparse.ArgumentParser("handful export", description=export.__doc__)
    parser.add_argument("config", type=Path, help="a TOML file, such as those in export/configs/")
    parser.add_argument("--run", type=Path, required=True, help="the run directory with the weights")
    parser.add_argument(
        "--calibration", type=Path, help="a run directory with the calibration (default: the run's own)"
    )
    parser.add_argument("--known", type=Path, help="the folder of known tasks that `handful finetune` wrote")
    parser.add_argument("--out", type=Path, default=Path("bundles"), help="model repository (default: bundles)")
    parser.add_argument("--label", help="let this name, such as stable, mean the new version")
    add_data_argument(parser)
    arguments = parser.parse_args(argv)
    try:
        _export(arguments)
    except (ExportError, ModelError, BundleError) as error:
        print(f"{parser.prog}: refused: {error}", file=sys.stderr)
        return 1
    return 0


def _export(arguments: argparse.Namespace) -> None:
    from handful_models.learner import DescribedLearner  # noqa: PLC0415 (seconds of import that --help does without)
    from handful_models.training import load_trained  # noqa: PLC0415

    from .card import card  # noqa: PLC0415
    from .described_materials import described_material  # noqa: PLC0415
    from .described_writer import export_described  # noqa: PLC0415
    from .materials import known_tasks, materials  # noqa: PLC0415
    from .spec import read_spec  # noqa: PLC0415
    from .writer import Material, export_bundle, set_label  # noqa: PLC0415

    spec, run = read_spec(arguments.config), Run(arguments.run)
    learner = load_trained(run)
    if isinstance(learner, DescribedLearner):
        known = described_material(run, learner, arguments.data, card(spec, run))
        folder, report = export_described(learner, arguments.out, spec=spec, material=known)
    else:
        sample, episodes = materials(run.read_config(), arguments.data)
        material = Material(
            sample=sample,
            episodes=episodes,
            card=card(spec, run),
            calibration=_json_of(Run(arguments.calibration or arguments.run).calibration, needed=arguments.calibration),
            known=known_tasks(arguments.known) if arguments.known else None,
            evaluation=_json_of(run.evaluation, needed=None),
        )
        folder, report = export_bundle(learner, arguments.out, spec=spec, material=material)
    if arguments.label:
        set_label(arguments.out, spec.name, arguments.label, spec.version)
    print(f"wrote {folder}")
    for check, figure in report.figures.items():
        print(f"  {check}: {figure:.3g}")


def trunk(argv: Sequence[str]) -> int:
    """Write the weights of a bundle's encoder, for training to begin with."""
    parser = argparse.ArgumentParser("handful trunk", description=trunk.__doc__)
    parser.add_argument("bundle", type=Path, help="a version of a bundle, such as bundles/glyphs/1")
    parser.add_argument("--out", type=Path, required=True, help="the file to write, in torch's format")
    arguments = parser.parse_args(argv)
    import torch  # noqa: PLC0415 (seconds of import that --help does without)

    from .trunk import read_trunk  # noqa: PLC0415

    try:
        weights = read_trunk(arguments.bundle)
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        torch.save(weights, arguments.out)
    except (ExportError, BundleError, OSError) as error:
        print(f"{parser.prog}: refused: {error}", file=sys.stderr)
        return 1
    print(f"wrote {arguments.out}")
    for name, value in weights.items():
        print(f"  {name}: {list(value.shape)}")
    return 0


def _json_of(path: Path, *, needed: Path | None) -> dict[str, Any] | None:
    """What a run's file holds; None where it is not there, unless its run was named for it."""
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        if needed is None:
            return None
        raise ExportError(f"{path}: {error.strerror}: run `handful calibrate {needed}`") from error
    return found
