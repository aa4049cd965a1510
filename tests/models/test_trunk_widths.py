"""The sweep over the width of a trunk: what it refuses, and when it says that capacity limits."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from tests.data import write_synthetic_adult

from handful_export.evaluating import evaluate
from handful_models.config import TrainConfig, changed
from handful_models.errors import ConfigInvalid
from handful_models.learner import Reader
from handful_models.runs import Run
from handful_models.sharing import delta_between
from handful_models.sharing_report import sharing_report
from handful_models.task_data import make_multitask
from handful_models.task_evaluation import Measured
from handful_models.task_measuring import TaskFigure
from handful_models.training import train
from handful_models.trunk_widths import layers_of, sweep, verdict, width_section

READERS = tuple(Reader(task, "class", (0, 2), ("no", "yes")) for task in ("one", "two"))
SEEDS = (1, 2, 3)
EQUAL: Mapping[str, object] = {}
WIDE, NARROW = ({"learner.options.width": width, "learner.options.filters": width // 2} for width in (16, 8))


def config_of(changes: Mapping[str, object], data: str = "alphabets") -> TrainConfig:
    config = TrainConfig.model_validate(
        {
            "name": "arm",
            "seed": 1,
            "data": {"set": data},
            "encoder": {"kind": "raw"},
            "learner": {
                "method": "multi-task",
                "options": {"conditioning": "film", "filters": 6, "hidden": [12], "width": 12},
            },
            "batches": {"rows": 24},
            "optimizer": {"steps": 2},
        }
    )
    return changed(config, changes)


def measured(folder: Path, mean: float, changes: Mapping[str, object] = EQUAL, *, rows: int = 60) -> list[Measured]:
    """An arm with three seeds whose accuracy of every task is about `mean`."""
    found = []
    for seed in SEEDS:
        config = config_of({"seed": seed, **changes})
        run = Run(folder / f"{seed}")
        run.open(config)
        noise = np.random.default_rng([seed, *folder.name.encode()]).normal(0, 0.01, (len(READERS), rows))
        figures = tuple(TaskFigure(reader.id, "accuracy", True, mean + each)
                        for reader, each in zip(READERS, noise, strict=True))  # fmt: skip
        found.append(Measured(run, make_multitask(config, READERS, ()), figures, (100, 100)))
    return found


@pytest.mark.parametrize("rows", [60, 3000])  # resampled, or drawn from the normal distribution of their mean
def test_the_difference_of_two_arms_is_that_of_their_gains_and_is_known_well(tmp_path: Path, rows: int) -> None:
    wide, narrow, single = (measured(tmp_path / str(mean), mean, rows=rows) for mean in (0.9, 0.8, 0.5))
    delta, low, high = delta_between(wide, narrow, single)
    assert delta == pytest.approx(20, abs=0.5)
    assert delta - 2 < low < delta < high < delta + 2
    assert delta_between(wide, wide, single) == (0, 0, 0)


@pytest.mark.parametrize(
    ("wide", "narrow", "words"),
    [
        (0.9, 0.7, "more width helps: lack of capacity is a part of the cause."),
        (0.7, 0.9, "more width harms."),
        (0.8, 0.8, "no evidence that capacity is what limits."),
    ],
)
def test_a_sweep_says_what_more_width_does(tmp_path: Path, wide: float, narrow: float, words: str) -> None:
    arm, single = measured(tmp_path / "arm", 0.8), measured(tmp_path / "single", 0.8)
    others = [*measured(tmp_path / "wide", wide, WIDE), *measured(tmp_path / "narrow", narrow, NARROW)]
    found = sweep({"arm": arm, "other": single}, others, single)
    assert [layers for layers, _ in found.lines] == [(4,) * 4 + (8,), (6,) * 4 + (12,), (8,) * 4 + (16,)]
    assert [line.trained for _, line in found.lines] == sorted(line.trained for _, line in found.lines)
    assert found.own == layers_of(arm[0])
    lines = width_section(found).splitlines()
    assert [line.count("**") for line in lines if line.endswith("| 1, 2, 3 |")] == [0, 2, 0]
    assert words in lines[-1]
    assert "From the arm's own width to the widest" in lines[-1]


def test_the_arm_is_named_apart_only_where_it_is_neither_the_widest_nor_the_narrowest(tmp_path: Path) -> None:
    arm, wide = measured(tmp_path / "arm", 0.8), measured(tmp_path / "wide", 0.8, WIDE)
    assert "the arm's own width" not in verdict(sweep({"arm": arm}, wide, arm))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "another"}, "name: no arm another to compare with"),
        ({**WIDE, "optimizer.rate": 0.5}, r"wide.1: optimizer\.rate: not as in .*arm.1; widths alone may differ"),
        ({**WIDE, "learner.options.conditioning": "addition"}, r"learner\.options\.conditioning: not as in"),
        ({**WIDE, "learner.options.weights": {"one": 2.0}}, r"learner\.options\.weights\.one: not as in"),
        ({**WIDE, "batches.rows": 12, "augment.pixels": 0}, r"batches\.rows, augment\.pixels: not as in"),
        ({}, r"seed: the widths .* have \[1, 1, 2, 2, 3, 3\], the arm has \[1, 2, 3\]"),
    ],
)
def test_runs_that_differ_in_more_than_the_width_are_refused(
    tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    arm, wide = measured(tmp_path / "arm", 0.8), measured(tmp_path / "wide", 0.8, changes)
    with pytest.raises(ConfigInvalid, match=message):
        sweep({"arm": arm}, wide, arm)


def test_a_width_without_a_run_for_every_seed_is_refused(tmp_path: Path) -> None:
    arm, wide = measured(tmp_path / "arm", 0.8), measured(tmp_path / "wide", 0.8, WIDE)
    with pytest.raises(ConfigInvalid, match=r"seed: .* have \[1, 2\], the arm has \[1, 2, 3\]"):
        sweep({"arm": arm}, wide[:2], arm)


def test_the_report_has_a_line_for_each_width_of_trained_runs(tmp_path: Path) -> None:
    census = write_synthetic_adult(tmp_path / "census")
    configs: dict[str, dict[str, object]] = {
        "shared": {},
        "single": {"learner.options.conditioning": "independent"},
        "wide": {"learner.options.hidden": [20], "learner.options.width": 30},
        "deep": {"learner.options.hidden": [12, 12]},
    }
    runs = {name: Run(tmp_path / name) for name in configs}
    for name, changes in configs.items():
        train(config_of(changes, "adult"), runs[name].folder, census)
    shared, single = [runs["shared"]], [runs["single"]]
    text = sharing_report(shared, single, census, page=None, command="", widths=[runs["wide"]])
    section = text[text.index("## Trunk width") :].splitlines()
    assert [line.split(" | ")[0] for line in section if line.endswith("| 1 |")] == ["| **12, 12**", "| 20, 30"]
    assert section[-1].startswith("From the narrowest trunk to the widest Δm changes by ")
    with pytest.raises(ConfigInvalid, match=r"deep: the number of layers in learner\.options\.hidden: not as in"):
        sharing_report(shared, single, census, page=None, command="", widths=[runs["deep"]])
    other = Run(tmp_path / "other")
    other.open(config_of({}))
    with pytest.raises(ConfigInvalid, match="the runs are of different data sets: adult, alphabets"):
        sharing_report(shared, single, census, page=None, command="", widths=[other])


def test_widths_are_for_the_sharing_report(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        evaluate(["runs/arm", "--widths", "runs/wide"])
    assert "name single-task runs by --against-single" in capsys.readouterr().err
