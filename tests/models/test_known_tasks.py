"""Training on known tasks from a config: data sets, run directory, resuming, early stopping, the sharing report."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.data import real_data, write_synthetic_adult

from handful_models.adult import AdultTasks
from handful_models.alphabets_tasks import DRAWINGS, AlphabetTasks
from handful_models.config import AugmentConfig, KnownTasksConfig, TrainConfig, changed, read_config
from handful_models.errors import ConfigInvalid, DataMissing
from handful_models.multitask import MultiTask
from handful_models.runs import Run
from handful_models.sharing_report import read_curves, sharing_report
from handful_models.task_data import read_multitask
from handful_models.training import load_trained, train, update

STILL = AugmentConfig(degrees=0, pixels=0, scale=0)


@pytest.fixture(scope="module")
def census(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_synthetic_adult(tmp_path_factory.mktemp("census"))


def config_of(data: str, conditioning: str = "film", *, seed: int = 1, steps: int = 100, **more: object) -> TrainConfig:
    return TrainConfig.model_validate(
        {
            "name": f"{data}-{conditioning}",
            "seed": seed,
            "data": {"set": data},
            "encoder": {"kind": "raw"},
            "learner": {
                "method": "multi-task",
                "options": {"conditioning": conditioning, "filters": 4, "hidden": [16], "width": 8, **more},
            },
            "batches": {"rows": 48},
            "optimizer": {"steps": steps, "rate": 1e-2, "warmup_steps": 5, "ema_decay": 0.8},
            "schedule": {"checkpoint_every": 50, "evaluate_every": 25},
        }
    )


def test_alphabets_are_tasks_whose_drawings_are_kept_apart(synthetic: Path) -> None:
    tasks = AlphabetTasks(synthetic, STILL)
    assert [reader.id for reader in tasks.readers] == ["alphabet-0", "alphabet-1", "alphabet-2", "alphabet-3"]
    assert all(reader.columns == (0, 12) and len(set(reader.labels)) == 12 for reader in tasks.readers)
    assert tasks.sizes() == [12 * 13] * 4
    assert sorted([*DRAWINGS["train"], *DRAWINGS["select"], *DRAWINGS["report"]]) == list(range(20))
    assert [len(part) for part in tasks.rows("select")] == [12 * 3] * 4
    assert [len(part) for part in tasks.rows("report")] == [12 * 4] * 4
    drawn = tasks.draw(np.random.default_rng(0), [12 * 13, 0, 3, 0])
    assert drawn.tasks == (0, 2)
    assert drawn.x["x"].shape == (12 * 13 + 3, 1, 28, 28)
    assert drawn.index.tolist() == [0] * 156 + [2] * 3
    seen = {row.numpy().tobytes() for row in (drawn.parts[0].x["x"] * 255).round()}
    kept = {
        row.numpy().tobytes() for split in ("select", "report") for row in (tasks.rows(split)[0].x["x"] * 255).round()
    }
    assert len(seen) > 100
    assert not seen & kept


def test_the_thirty_background_alphabets_have_names_and_all_their_characters() -> None:
    tasks = AlphabetTasks(real_data(), STILL)
    assert len(tasks.readers) == 30
    assert sum(len(reader.labels) for reader in tasks.readers) == 964
    assert max(reader.columns[1] for reader in tasks.readers) == 55
    assert {"greek", "latin", "japanese-hiragana"} <= {reader.id for reader in tasks.readers}


def test_the_census_has_three_tasks_of_the_official_split() -> None:
    tasks = AdultTasks(real_data())
    assert [(reader.id, reader.kind) for reader in tasks.readers] == [
        ("income", "class"), ("hours", "number"), ("occupation", "class"),
    ]  # fmt: skip
    names = {field.name for field in tasks.fields}
    assert len(names) == 11
    assert not names & {"income", "hours_per_week", "occupation", "fnlwgt"}
    assert [len(tasks.rows(split)[0]) for split in ("train", "select", "report")] == [29305, 3256, 16281]
    assert "?" not in tasks.readers[2].labels
    assert tasks.sizes()[2] < tasks.sizes()[0]


def test_an_unknown_occupation_is_masked(census: Path) -> None:
    tasks = AdultTasks(census)
    income, _, occupation = tasks.rows("train")
    assert income.weight.min() == 1
    assert 0 < occupation.weight.mean() < 1
    assert tasks.sizes() == [270, 270, int(occupation.weight.sum())]


def test_some_tasks_alone_may_be_trained(census: Path) -> None:
    assert [reader.id for reader in AdultTasks(census, ["hours"]).readers] == ["hours"]
    with pytest.raises(ConfigInvalid, match="no task 'age'; known: income, hours, occupation"):
        AdultTasks(census, ["age"])


def test_missing_data_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataMissing, match=r"adult\.parquet"):
        AdultTasks(tmp_path)


@pytest.mark.parametrize("weighting", ["fixed", "uncertainty"])
def test_training_learns_and_keeps_its_losses_by_task(census: Path, tmp_path: Path, weighting: str) -> None:
    run = Run(tmp_path / "run")
    train(config_of("adult", weighting=weighting), run.folder, census)
    learner = load_trained(run)
    assert isinstance(learner, MultiTask)
    curves = read_curves(run.task_losses)
    assert list(curves) == ["income", "hours", "occupation"]
    assert all([step for step, _ in points] == [50, 100] for points in curves.values())
    assert all(points[1][1] < points[0][1] for points in curves.values())
    assert json.loads(run.result.read_text())["selection"] > 0.6


def test_a_resumed_run_ends_where_an_unbroken_one_does(
    synthetic: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, broken = (Run(tmp_path / name) for name in ("whole", "broken"))
    config = config_of("alphabets", steps=100)
    train(config, whole.folder, synthetic)

    def cut_off(*arguments: Any) -> float:
        if arguments[-1] == 80:
            raise KeyboardInterrupt
        return update(*arguments)

    monkeypatch.setattr("handful_models.training.update", cut_off)
    with pytest.raises(KeyboardInterrupt):
        train(config, broken.folder, synthetic)
    monkeypatch.undo()
    assert torch.load(broken.checkpoint, weights_only=True)["step"] == 50
    with broken.task_losses.open("a", newline="") as file:
        csv.writer(file).writerows([["100", *"9999"], ["150", *"9999"]])  # of steps that are done again
    train(config, broken.folder, synthetic)
    expected = load_trained(whole).state_dict()
    for name, value in load_trained(broken).state_dict().items():
        torch.testing.assert_close(value, expected[name], rtol=0, atol=0)
    assert [step for step, _ in read_curves(broken.task_losses)["alphabet-1"]] == [50, 100]


def test_the_shipped_configs_of_alphabets_differ_in_their_conditioning_alone() -> None:
    configs = [read_config(path).model_dump(mode="json") for path in Path("models/configs").glob("alphabets-*.toml")]
    assert len({config["learner"]["options"].pop("conditioning") for config in configs}) == len(configs) == 7
    for config in configs:
        config["learner"]["options"].pop("experts", None)
        config.pop("name")
    assert all(config == configs[0] for config in configs)


def test_the_shipped_configs_of_adult_have_the_same_updates_early_stopping_and_trials() -> None:
    configs = [read_config(path) for path in Path("models/configs").glob("adult-*.toml")]
    only = [config.data.only for config in configs if isinstance(config.data, KnownTasksConfig)]
    assert sorted(only) == [()] * 6 + [("hours",), ("income",), ("occupation",)]
    assert all(config.batches.rows == 128 * (len(tasks) or 3) for config, tasks in zip(configs, only, strict=True))
    same = [(config.optimizer.steps, config.optimizer.warmup_steps, config.schedule) for config in configs]
    assert all(each == same[0] for each in same)
    searches = [config.search for config in configs if config.search]
    assert [(search.trials, search.seeds) for search in searches] == [(22, 2)] * 9
    names = ("optimizer.rate", "optimizer.weight_decay", "optimizer.ema_decay",
             *(f"learner.options.{name}" for name in ("hidden", "width", "bins", "dropout")))  # fmt: skip
    for name in names:
        drawn = [{**search.ranges, **search.choices}[name] for search in searches]
        assert all(each == drawn[0] for each in drawn)


def test_known_tasks_need_a_method_that_knows_them_and_the_other_way_round() -> None:
    with pytest.raises(ConfigInvalid, match=r"learner\.method"):
        changed(config_of("adult"), {"learner.method": "bayes", "learner.options": {}})
    with pytest.raises(ConfigInvalid, match=r"learner\.method"):
        changed(config_of("adult"), {"data": {"set": "sinusoids"}})


def test_the_run_directory_is_enough_to_make_the_learner_again(census: Path, tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    train(config_of("adult", steps=2), run.folder, census)
    found = read_multitask(run)
    assert [reader.id for reader in found.readers] == ["income", "hours", "occupation"]
    assert found.readers[0].labels == ("at most 50K", "above 50K")


def test_the_sharing_report_compares_with_models_of_one_task_each(census: Path, tmp_path: Path) -> None:
    shared, single = [], []
    for seed in (1, 2):
        shared.append(Run(tmp_path / f"shared-{seed}"))
        train(config_of("adult", seed=seed, steps=60), shared[-1].folder, census)
        for task in ("income", "hours", "occupation"):
            single.append(Run(tmp_path / f"{task}-{seed}"))
            alone = changed(config_of("adult", "multi-head", seed=seed, steps=3), {"data.only": [task]})
            train(alone, single[-1].folder, census)
    page = tmp_path / "page.md"
    text = sharing_report(shared, single, census, page=page, command="handful evaluate …")
    lines = [line.split(" | ") for line in text.splitlines() if line.startswith("| ")]
    assert [line[0] for line in lines if line[-1] == "1, 2 |"] == ["| **adult-film**"]
    assert {line[0] for line in lines} >= {"| income", "| hours", "| occupation"}
    assert "gains" in text  # the single-task models had three steps
    assert (tmp_path / "page-cosines.png").stat().st_size > 1000
    assert (tmp_path / "page-losses.png").stat().st_size > 1000
    notes = json.loads(shared[0].notes.read_text())
    assert notes["income"]["evaluation"]["sharing"] in ("gains", "loses", "no evidence")
    assert notes["income"]["advice"].endswith(".")
    kept = json.loads(shared[1].evaluation.read_text())["sharing"]
    assert kept["seeds"] == [1, 2]
    assert [line["task"] for line in kept["tasks"]] == ["income", "hours", "occupation"]


def test_the_sharing_report_refuses_a_task_or_a_seed_without_a_model_of_its_own(census: Path, tmp_path: Path) -> None:
    shared, single, other = (Run(tmp_path / name) for name in ("shared", "single", "other"))
    train(config_of("adult", steps=2), shared.folder, census)
    train(changed(config_of("adult", "multi-head", steps=2), {"data.only": ["hours"]}), single.folder, census)
    train(config_of("adult", "independent", steps=2, seed=7), other.folder, census)
    with pytest.raises(ConfigInvalid, match="no single-task model of income"):
        sharing_report([shared], [single], census, page=None, command="")
    with pytest.raises(ConfigInvalid, match=r"no single-task runs with the seeds \[1\]"):
        sharing_report([shared], [other], census, page=None, command="")
