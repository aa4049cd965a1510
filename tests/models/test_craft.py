"""First checks, search, ensembles, frozen trunks and fine-tuning, on the synthetic characters and on sinusoids."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from handful_models import omniglot
from handful_models.calibration import binned_error
from handful_models.cli import ensemble, plot, search, train
from handful_models.cli import finetune as finetune_command
from handful_models.config import AugmentConfig, SearchConfig, TrainConfig
from handful_models.conv4 import Conv4
from handful_models.craft import find_rate, overfit
from handful_models.datasets import build
from handful_models.drawings import chosen_classes, drawings, encoded
from handful_models.errors import ConfigInvalid, NotLearned
from handful_models.evaluation import Protocol, evaluate
from handful_models.finetuning import FinetuneSettings, finetune, layers_from_the_top
from handful_models.gradient import HEAD, GradientLearner
from handful_models.known import make_known, read_known
from handful_models.learner import AdditiveLearner
from handful_models.rates import suggested_rate
from handful_models.runs import Run, load, save
from handful_models.search import trials
from handful_models.tasks import Examples
from handful_models.training import load_trained
from handful_models.training import train as run_training
from handful_models.trunk import Trunk, read_trunk


def config_of(method: str, **more: Any) -> TrainConfig:
    parts = {
        "name": "tiny", "data": {"set": "omniglot", "train": "selection-train"},
        "encoder": {"kind": "conv4", "width": 8}, "learner": {"method": method, "ways": 8, "examples": 24},
        "episodes": {"tasks": 2, "way": [3, 3], "shot": [1, 1], "query": 2},
        "optimizer": {"steps": 4, "rate": 3e-3, "warmup_steps": 0}, "schedule": {"way": 5, "episodes": 5},
    }  # fmt: skip
    return TrainConfig.model_validate({**parts, **more})


SINUSOIDS = {
    "data": {"set": "sinusoids"},
    "encoder": {"kind": "mlp", "hidden": [32], "width": 32},
    "learner": {"method": "context", "ways": 1},
    "episodes": {"tasks": 2, "way": [1, 1], "shot": [5, 5], "query": 5},
}


def toml(folder: Path, method: str = "ridge", more: str = "") -> Path:
    path = folder / "config.toml"
    path.write_text(
        f'name = "tiny"\n[data]\nset = "omniglot"\ntrain = "selection-train"\nselect = "selection"\n'
        f'[encoder]\nkind = "conv4"\nwidth = 8\n[learner]\nmethod = "{method}"\nways = 8\n'
        "[episodes]\ntasks = 2\nway = [3, 3]\nshot = [1, 1]\nquery = 2\n[optimizer]\nsteps = 3\n"
        f"[schedule]\nway = 5\nepisodes = 5\n{more}"
    )
    return path


def test_a_model_learns_a_few_examples_by_heart(synthetic: Path) -> None:
    found = overfit(config_of("prototypes"), synthetic, examples=4)
    assert found.loss <= 0.02 < found.first


def test_a_model_of_numbers_learns_a_few_examples_by_heart(synthetic: Path) -> None:
    found = overfit(config_of("context", **SINUSOIDS), synthetic, examples=4)
    assert found.loss <= 0.02 < found.first


def test_a_model_that_cannot_learn_is_told_from_one_that_can(synthetic: Path) -> None:
    slow = config_of("prototypes", optimizer={"steps": 4, "rate": 1e-12})
    with pytest.raises(NotLearned, match=r"on 4 examples is still .* after 50 steps"):
        overfit(slow, synthetic, examples=4, most_steps=50)


def test_the_suggested_rate_is_a_tenth_of_where_the_loss_begins_to_rise() -> None:
    rates = [10.0 ** (power / 4) for power in range(-20, 1)]
    losses = [1 - 0.04 * place if rate < 0.1 else 5.0 for place, rate in enumerate(rates)]
    assert suggested_rate(rates, losses) == pytest.approx(max(rate for rate in rates if rate < 0.1) / 10)
    assert suggested_rate([1e-3, 1e-2], [float("nan"), 1.0]) == 1e-4


def test_rates_are_tried_from_small_to_large(
    synthetic: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    rates, losses, suggestion = find_rate(config_of("prototypes"), synthetic)
    assert rates == sorted(rates)
    assert len(rates) == len(losses)
    assert rates[0] / 10 <= suggestion <= rates[-1]
    assert train([str(toml(tmp_path)), "--find-rate", "--data", str(synthetic)]) == 0
    assert "optimizer.rate = " in capsys.readouterr().out
    assert not (tmp_path / "runs").exists()


def test_overfit_as_a_command(synthetic: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert train([str(toml(tmp_path)), "--overfit", "3", "--data", str(synthetic)]) == 0
    assert "3 examples: loss" in capsys.readouterr().out


def test_trials_are_spread_evenly_over_orders_of_magnitude() -> None:
    ranges = {"optimizer.rate": (1e-4, 1e-1), "episodes.tasks": (2.0, 32.0)}
    found = trials(SearchConfig(ranges=ranges, trials=300), seed=0)
    assert found == trials(SearchConfig(ranges=ranges, trials=300), seed=0)
    thirds = np.histogram([np.log10(row["optimizer.rate"]) for row in found], bins=[-4, -3, -2, -1])[0]
    assert thirds.min() > 70
    assert all(isinstance(row["episodes.tasks"], int) and 2 <= row["episodes.tasks"] <= 32 for row in found)


def test_searches_of_one_seed_agree_in_the_settings_that_they_have_in_common() -> None:
    rate, hidden = {"optimizer.rate": (1e-4, 1e-1)}, {"learner.options.hidden": ([64], [64, 64], [128])}
    few = trials(SearchConfig(ranges=rate, choices=hidden, trials=20), seed=3)
    more = trials(SearchConfig(ranges={"optimizer.clip_norm": (1.0, 9.0), **rate}, choices=hidden, trials=30), seed=3)
    assert few == [{name: row[name] for name in few[0]} for row in more[:20]]
    assert {tuple(row["learner.options.hidden"]) for row in few} == {(64,), (64, 64), (128,)}


def test_a_search_trains_its_trials_and_names_the_best(
    synthetic: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = toml(tmp_path, more='[search]\ntrials = 2\n[search.ranges]\n"optimizer.rate" = [1e-4, 1e-2]\n')
    arguments = [str(path), "--out", str(tmp_path / "trials"), "--data", str(synthetic)]
    assert search(arguments) == 0
    lines = (tmp_path / "trials" / "search.csv").read_text().splitlines()
    assert lines[0] == "optimizer.rate,selection"
    assert len(lines) == 3
    assert float(lines[1].split(",")[1]) >= float(lines[2].split(",")[1])
    assert f"best: optimizer.rate = {float(lines[1].split(',')[0]):g}" in capsys.readouterr().out
    before = (tmp_path / "trials" / "trial-000" / "seed-0" / "weights.pt").stat().st_mtime_ns
    assert search(arguments) == 0  # a finished trial is not trained again
    assert (tmp_path / "trials" / "trial-000" / "seed-0" / "weights.pt").stat().st_mtime_ns == before


def test_the_score_of_a_trial_is_the_mean_over_its_seeds(synthetic: Path, tmp_path: Path) -> None:
    more = '[search]\ntrials = 1\nseeds = 2\n[search.ranges]\n"optimizer.rate" = [1e-4, 1e-2]\n'
    out = tmp_path / "trials"
    assert search([str(toml(tmp_path, more=more)), "--out", str(out), "--data", str(synthetic)]) == 0
    runs = [Run(out / "trial-000" / f"seed-{seed}") for seed in (0, 1)]
    assert [run.read_config().seed for run in runs] == [0, 1]
    scores = [json.loads(run.result.read_text())["selection"] for run in runs]
    assert float((out / "search.csv").read_text().split(",")[-1]) == pytest.approx(np.mean(scores))


def test_a_search_without_ranges_or_selection_is_refused(
    synthetic: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert search([str(toml(tmp_path)), "--data", str(synthetic)]) == 1
    assert "the section with `ranges` is missing" in capsys.readouterr().err


def trunk_file(folder: Path) -> Path:
    torch.manual_seed(0)
    encoder = Conv4(8)
    encoder.train()(torch.rand(16, 1, 28, 28))  # statistics of batch normalisation that are not the initial ones
    save(folder / "trunk.pt", {f"encoder.{name}": value for name, value in encoder.state_dict().items()})
    return folder / "trunk.pt"


def test_a_frozen_trunk_gives_what_its_encoder_gives(tmp_path: Path) -> None:
    path = trunk_file(tmp_path)
    encoder = Conv4(8)
    encoder.load_state_dict({name.removeprefix("encoder."): value for name, value in load(path).items()})
    trunk, images = read_trunk(path, 8), torch.rand(5, 1, 28, 28)
    torch.testing.assert_close(trunk(images), encoder.eval()(images), atol=1e-5, rtol=1e-4)
    assert trunk(trunk(images)).equal(trunk(images))
    assert not any(value.requires_grad for value in trunk.parameters())
    with pytest.raises(ConfigInvalid, match="not four blocks of width 16"):
        read_trunk(path, 16)


def test_encoded_drawings_are_kept_and_the_first_version_is_the_drawing_itself(synthetic: Path, tmp_path: Path) -> None:
    trunk = read_trunk(trunk_file(tmp_path), 8)
    images = drawings(omniglot.load(synthetic, "selection"))[:3]
    found = encoded(trunk, images, AugmentConfig(), versions=1, cache=tmp_path / "kept")
    assert found.shape == (2, 12, 20, 8)
    small = torch.nn.functional.avg_pool2d(images[:, :, None].flatten(0, 1).float() / 255, 2)
    torch.testing.assert_close(found[0, ::4].flatten(0, 1), trunk.frozen(small), atol=1e-4, rtol=1e-3)
    assert not found[1].equal(found[0])
    again = encoded(Trunk(8), images, AugmentConfig(), versions=1, cache=tmp_path / "kept")
    assert not again.equal(found)  # another trunk has another digest
    assert encoded(trunk, images, AugmentConfig(), versions=1, cache=tmp_path / "kept").equal(found)


def test_a_head_trains_on_a_frozen_trunk_and_leaves_it_as_it_was(synthetic: Path, tmp_path: Path) -> None:
    path = trunk_file(tmp_path)
    config = config_of("context", encoder={"kind": "trunk", "weights": str(path), "width": 8, "versions": 1})
    run = Run(tmp_path / "run")
    run_training(config, run.folder, synthetic)
    learner = load_trained(run)
    images = torch.rand(3, 1, 28, 28)
    torch.testing.assert_close(learner.get_submodule("encoder")(images), read_trunk(path, 8)(images))


def test_few_training_classes_are_upright_ones() -> None:
    assert (chosen_classes(10, 8, 0) % 4 == 0).all()
    assert len(chosen_classes(10, 30, 0)) == 30
    assert len(chosen_classes(10, None, 0)) == len(chosen_classes(10, 99, 0)) == 40


@pytest.mark.parametrize("methods", [("context", "hypernetwork"), ("context", "transformer")])
def test_an_ensemble_of_runs_averages_their_probabilities(
    methods: tuple[str, str], synthetic: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = trunk_file(tmp_path)
    encoder = {"kind": "trunk", "weights": str(path), "width": 8, "versions": 0}
    runs = []
    for method in methods:
        run_training(config_of(method, encoder=encoder, name=method), tmp_path / method, synthetic)
        runs.append(str(tmp_path / method))
    assert ensemble([*runs, "--run", str(tmp_path / "both")]) == 0
    both, apart = load_trained(Run(tmp_path / "both")), [load_trained(Run(Path(run))) for run in runs]
    assert isinstance(both, AdditiveLearner) == ("transformer" not in methods)
    images, y = torch.rand(6, 1, 28, 28), torch.tensor([[0, 1, 2, 0, 1, 2]])

    def answer(learner: Any) -> torch.Tensor:
        features = {name: value.unsqueeze(0) for name, value in learner.encode({"x": images}).items()}
        state = learner.state(features, y, torch.ones(1, 6))
        found: torch.Tensor = learner.predict(features, {name: value.unsqueeze(1) for name, value in state.items()})
        return found.softmax(-1)

    with torch.no_grad():
        torch.testing.assert_close(answer(both), torch.cat([answer(learner) for learner in apart], -2))
    assert ensemble([*runs, "--run", runs[0]]) == 1
    assert "holds a run" in capsys.readouterr().err


def maml(synthetic: Path, folder: Path) -> Run:
    options = {"network": "conv", "filters": 4, "steps": 2}
    config = config_of("maml", encoder={"kind": "raw"}, learner={"method": "maml", "ways": 16, "options": options})
    run_training(config, folder, synthetic)
    return Run(folder)


def test_layers_are_named_from_the_head_down() -> None:
    names = ["head", "conv1", "shift1", "conv2", "shift2", "present"]
    assert layers_from_the_top(names) == [["head"], ["conv2", "shift2"], ["conv1", "shift1"]]


def task_of(learner: GradientLearner) -> Examples:
    x = torch.rand(1, 6, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    return Examples({"x": x}, torch.tensor([[0, 1, 2, 0, 1, 2]]), torch.ones(1, 6))


def test_fine_tuning_thaws_layers_one_after_the_other_and_keeps_frozen_ones(synthetic: Path, tmp_path: Path) -> None:
    learner = load_trained(maml(synthetic, tmp_path / "run"))
    assert isinstance(learner, GradientLearner)
    task = task_of(learner)
    start = learner.begin(learner.encoded(task.x), task.y, task.weight)

    def moved(**settings: Any) -> set[str]:
        state = finetune(learner, task, FinetuneSettings(weight_decay=0, **settings)).state
        return {name for name in state if name != HEAD and not torch.equal(state[name], start[name])}

    assert moved(steps=10, unfreeze_every=5) == {"conv4", "shift4"}
    assert moved(steps=11, unfreeze_every=5) == {"conv4", "shift4", "conv3", "shift3"}
    assert moved(steps=3, unfreeze_every=0, frozen=3) == {"conv4", "shift4"}


def test_fine_tuning_lowers_the_loss_and_lower_layers_move_less(synthetic: Path, tmp_path: Path) -> None:
    learner = load_trained(maml(synthetic, tmp_path / "run"))
    assert isinstance(learner, GradientLearner)
    task = task_of(learner)
    short, long = (finetune(learner, task, FinetuneSettings(steps=steps)).loss for steps in (2, 80))
    assert long < 0.5 * short
    start = learner.begin(learner.encoded(task.x), task.y, task.weight)
    one = finetune(learner, task, FinetuneSettings(steps=1, unfreeze_every=0, decay=0.1, weight_decay=0)).state
    # With a head of 0 nothing below it has a gradient in the first step; the second moves every layer.
    assert torch.equal(one["conv1"], start["conv1"])
    two = finetune(learner, task, FinetuneSettings(steps=2, unfreeze_every=0, decay=0.1, weight_decay=0)).state
    low, high = ((two[name] - start[name]).abs().max() for name in ("conv1", "conv4"))
    assert low < 0.01 * high


def test_alphabets_become_known_tasks(synthetic: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = maml(synthetic, tmp_path / "run")
    path = tmp_path / "known.toml"
    path.write_text(
        f'run = "{run.folder}"\n[alphabets]\ncount = 1\n[cross_validation]\ncount = 1\ntrials = 2\n'
        "[finetune]\nsteps = 3\nunfreeze_every = 1\n"
    )
    assert finetune_command([str(path), "--out", str(tmp_path / "known"), "--data", str(synthetic)]) == 0
    assert re.search(r"alphabet-\d+: 12 ways, fine-tuned \d", capsys.readouterr().out)
    entries, states = read_known(tmp_path / "known")
    assert len(entries) == 1
    assert len(entries[0]["labels"]) == 12
    assert {3e-4 <= entry["evaluation"]["rate"] <= 3e-2 for entry in entries} == {True}
    assert all(len(array) == 1 and np.isfinite(array).all() for array in states.values())
    wrong = tmp_path / "wrong.toml"
    run_training(config_of("context"), tmp_path / "context", synthetic)
    wrong.write_text(f'run = "{tmp_path / "context"}"\n')
    with pytest.raises(ConfigInvalid, match="a method that adapts by gradient steps"):
        make_known(wrong, tmp_path / "none", synthetic)


def test_accuracy_against_classes_and_shots_is_drawn(synthetic: Path, tmp_path: Path) -> None:
    for classes in (6, 20):
        data = {"set": "omniglot", "train": "selection-train", "classes": classes}
        run_training(config_of("prototypes", data=data, name=f"c{classes}"), tmp_path / f"c{classes}", synthetic)
    runs = [str(tmp_path / f"c{classes}") for classes in (6, 20)]
    for what in ("classes", "shots"):
        out = tmp_path / f"{what}.png"
        assert plot([what, *runs, "--out", str(out), "--data", str(synthetic)]) == 0
        assert out.read_bytes().startswith(b"\x89PNG")
        assert f"| {'training classes' if what == 'classes' else 'shots'} |" in out.with_suffix(".md").read_text()
    assert "| 6 |" in (tmp_path / "classes.md").read_text()


def test_calibration_error_is_the_gap_of_confidence_and_accuracy() -> None:
    generator = np.random.default_rng(0)
    confidence = generator.uniform(0.2, 1, 200_000)
    right = generator.random(200_000) < confidence
    assert binned_error(confidence, right) < 0.005
    assert binned_error(np.full(1000, 0.9), np.arange(1000) < 700) == pytest.approx(0.2)


def test_answers_to_episodes_do_not_depend_on_how_many_are_asked_at_once(
    synthetic: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    characters = omniglot.load(synthetic, "evaluation")
    learner = build(config_of("transformer"))
    protocol = [Protocol(5, 1, query=5, episodes=7)]
    together = evaluate(learner, characters, protocol, seed=0)[0]
    monkeypatch.setattr("handful_models.evaluation.QUERIES_AT_ONCE", 1)
    assert evaluate(learner, characters, protocol, seed=0)[0].per_episode == together.per_episode


def test_result_says_how_long_and_on_how_many_threads(synthetic: Path, tmp_path: Path) -> None:
    run_training(config_of("ridge"), tmp_path / "run", synthetic)
    result = json.loads(Run(tmp_path / "run").result.read_text())
    assert result["steps"] == 4
    assert result["trained"] > 0
    assert result["threads"] == torch.get_num_threads()
