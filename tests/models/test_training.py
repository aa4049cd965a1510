import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from handful_models.config import TrainConfig
from handful_models.errors import ModelError, RunConflict, TrainingDiverged
from handful_models.rates import rate_factor
from handful_models.runs import Run, load, read_log
from handful_models.training import load_trained, train


def test_a_run_leaves_weights_log_curves_and_result(synthetic: Path, tiny_config: TrainConfig, tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    train(tiny_config, run.folder, synthetic)
    assert run.curves.read_bytes().startswith(b"\x89PNG")
    steps = [int(row["step"]) for row in read_log(run.log)]
    assert steps == [6, 12]
    assert '"steps": 12' in run.result.read_text()
    assert load_trained(run).ways == 20


def test_training_lowers_the_loss(synthetic: Path, tiny_config: TrainConfig, tmp_path: Path) -> None:
    longer = tiny_config.model_copy(update={"optimizer": tiny_config.optimizer.model_copy(update={"steps": 200})})
    longer = longer.model_copy(
        update={"schedule": longer.schedule.model_copy(update={"evaluate_every": 50, "checkpoint_every": 100})}
    )
    run = Run(tmp_path / "run")
    train(longer, run.folder, synthetic)
    rows = read_log(run.log)
    assert float(rows[-1]["loss"]) < 0.7 * float(rows[0]["loss"])
    assert float(rows[-1]["selection"]) > 0.3  # of 20 ways


def test_a_run_that_is_killed_goes_on_and_ends_with_the_same_weights(
    synthetic: Path, tiny_config: TrainConfig, tmp_path: Path
) -> None:
    optimizer = tiny_config.optimizer.model_copy(update={"steps": 120})
    schedule = tiny_config.schedule.model_copy(update={"checkpoint_every": 30, "evaluate_every": 40})
    config = tiny_config.model_copy(update={"optimizer": optimizer, "schedule": schedule})
    whole, broken = Run(tmp_path / "whole"), Run(tmp_path / "broken")
    train(config, whole.folder, synthetic)

    path = tmp_path / "config.json"
    path.write_text(config.model_dump_json())
    code = (
        "import sys; from pathlib import Path; from handful_models.config import TrainConfig;"
        "from handful_models import omniglot; omniglot.DIGESTS.clear();"
        "from handful_models.training import train;"
        "train(TrainConfig.model_validate_json(Path(sys.argv[1]).read_text()), Path(sys.argv[2]), Path(sys.argv[3]))"
    )
    arguments = [sys.executable, "-c", code, str(path), str(broken.folder), str(synthetic)]
    process = subprocess.Popen(arguments, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not broken.checkpoint.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    stopped_at = load(broken.checkpoint)["step"]
    assert 0 < stopped_at < 120
    assert not broken.result.exists()

    train(config, broken.folder, synthetic)
    expected, got = load(whole.weights), load(broken.weights)
    for name, value in expected.items():
        torch.testing.assert_close(got[name], value, atol=1e-5, rtol=1e-4)
    assert [row["step"] for row in read_log(broken.log)] == [row["step"] for row in read_log(whole.log)]


def test_training_stops_when_selection_no_longer_improves(
    synthetic: Path, tiny_config: TrainConfig, tmp_path: Path
) -> None:
    still = tiny_config.optimizer.model_copy(update={"steps": 100, "rate": 1e-12})
    often = tiny_config.schedule.model_copy(update={"evaluate_every": 2, "patience": 3})
    run = Run(tmp_path / "run")
    train(tiny_config.model_copy(update={"optimizer": still, "schedule": often}), run.folder, synthetic)
    assert int(read_log(run.log)[-1]["step"]) < 100


def test_a_loss_that_is_not_finite_stops_with_step_and_rate_and_keeps_the_checkpoint(
    synthetic: Path, tiny_config: TrainConfig, tmp_path: Path
) -> None:
    wild = tiny_config.optimizer.model_copy(update={"steps": 200, "rate": 1e30, "warmup_steps": 0, "clip_norm": 1e30})
    often = tiny_config.schedule.model_copy(update={"checkpoint_every": 1, "evaluate_every": 1000})
    run = Run(tmp_path / "run")
    with pytest.raises(TrainingDiverged, match=r"step \d+ .*rate"):
        train(tiny_config.model_copy(update={"optimizer": wild, "schedule": often}), run.folder, synthetic)
    assert not run.result.exists()


def test_a_folder_of_another_run_is_refused(synthetic: Path, tiny_config: TrainConfig, tmp_path: Path) -> None:
    Run(tmp_path).open(tiny_config)
    with pytest.raises(RunConflict, match="other settings"):
        train(tiny_config.model_copy(update={"seed": 4}), tmp_path, synthetic)


def test_the_rate_warms_up_and_then_follows_a_cosine_to_zero(tiny_config: TrainConfig) -> None:
    settings = tiny_config.optimizer.model_copy(update={"steps": 110, "warmup_steps": 10})
    assert rate_factor(0, settings) == pytest.approx(0.1)
    assert rate_factor(10, settings) == pytest.approx(1)
    assert rate_factor(60, settings) == pytest.approx(0.5)
    assert rate_factor(110, settings) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    ("schedule", "step", "factor"),
    [
        ({"schedule": "constant"}, 90, 1),
        ({"schedule": "linear"}, 60, 0.5),
        ({"schedule": "step", "step_every": 40, "step_factor": 0.5}, 85, 0.25),
        ({"restart_at": 60}, 35, 0.5),
        ({"restart_at": 60}, 60, 0.5),
        ({"restart_at": 60}, 110, 0),
    ],
)
def test_the_other_schedules(schedule: dict[str, object], step: int, factor: float, tiny_config: TrainConfig) -> None:
    settings = tiny_config.optimizer.model_copy(update={"steps": 110, "warmup_steps": 10, **schedule})
    assert rate_factor(step, settings) == pytest.approx(factor, abs=1e-9)


def test_no_run_directory_is_an_error_that_says_so(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no run directory"):
        load_trained(Run(tmp_path))
