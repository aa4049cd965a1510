import math
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.models.heads import MeanOfSupport

from handful_models.errors import ConfigInvalid
from handful_models.intervals import calibrate_numbers, mixed, quantile, score_quantiles
from handful_models.sinusoids import Sinusoids, evaluate, select
from handful_models.tasks import EpisodeShape

SHAPE = EpisodeShape(tasks=500, way=(1, 1), shot=(3, 7), query=40)


def test_the_same_generator_gives_the_same_tasks() -> None:
    first, second = (Sinusoids().draw(np.random.default_rng(4), SHAPE) for _ in range(2))
    assert torch.equal(first.support.y, second.support.y)
    assert torch.equal(first.query.x["x"], second.query.x["x"])


def test_targets_are_sinusoids_with_the_stated_noise_and_ranges() -> None:
    episodes, curves = Sinusoids().with_curves(np.random.default_rng(0), SHAPE)
    x, y = episodes.query.x["x"], episodes.query.y
    assert x.shape == y.shape == (500, 40, 1)
    assert x.dtype == y.dtype == torch.float32
    assert 3 <= episodes.support.y.shape[1] <= 7
    noise = y.squeeze(-1).numpy() - curves.at(x.squeeze(-1).double().numpy())
    assert noise.std() == pytest.approx(0.1, rel=0.03)
    assert 0.1 <= curves.amplitude.min() < 0.3
    assert 4.8 < curves.amplitude.max() <= 5
    assert 0 <= curves.phase.min() < 0.1
    assert 3.0 < curves.phase.max() <= math.pi


def test_no_points_are_one_absent_point() -> None:
    episodes = Sinusoids().draw(np.random.default_rng(0), EpisodeShape(4, (1, 1), (0, 0), 5))
    assert episodes.support.weight.tolist() == [[0.0]] * 4
    assert episodes.query.weight.min() == 1


def test_the_error_of_answering_zero_is_the_curves_power(tmp_path: Path) -> None:
    rows = evaluate(MeanOfSupport(sd=100.0), tmp_path, seed=0, tasks=400)
    titles = [(line.metric, line.title) for line in rows]
    shots = ["0 points", "2 points", "5 points", "10 points", "20 points"]
    assert titles == [("squared error", shot) for shot in shots[1:]] + [
        (f"{what} of 90 % intervals", shot) for what in ("coverage", "width") for shot in shots
    ]
    assert rows[4].mean == 1.0  # intervals of ±164 hold all
    assert rows[9].mean == pytest.approx(2 * 1.6449 * 100, rel=1e-3)
    assert rows[0].mean > rows[3].mean > 3  # a mean is no sinusoid


def test_reports_repeat_and_selection_prefers_the_better(tmp_path: Path) -> None:
    learner = MeanOfSupport()
    assert evaluate(learner, tmp_path, seed=1, tasks=50) == evaluate(learner, tmp_path, seed=1, tasks=50)
    assert select(learner, tmp_path, seed=1) < 0


def test_more_points_than_a_state_holds_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigInvalid, match="20 examples"):
        evaluate(MeanOfSupport(examples=10), tmp_path, seed=0, tasks=10)


def test_members_mix_to_one_gaussian() -> None:
    mean, sd = mixed(torch.tensor([[1.0, math.log(4.0)], [3.0, math.log(2.0)]]))
    assert mean.item() == pytest.approx(2)
    assert sd.item() == pytest.approx(math.sqrt(3 + 1))


def test_calibrated_intervals_cover_what_they_promise_though_the_learner_is_wrong_about_its_error(
    tmp_path: Path,
) -> None:
    learner = MeanOfSupport(sd=0.3)
    table = calibrate_numbers(learner, Sinusoids(), (0, 2, 5, 10, 20), (0.5, 0.9), seed=7)
    plain = evaluate(learner, tmp_path, seed=0, tasks=1000)
    mended = evaluate(learner, tmp_path, seed=0, tasks=1000, calibration=table)
    assert all(line.mean < 0.5 for line in plain[4:9])
    assert all(line.mean == pytest.approx(0.9, abs=0.02) for line in mended[4:9])


def test_quantiles_come_from_the_nearest_lower_cell() -> None:
    table = {"shots": [1, 5], "confidence": [0.8, 0.9], "quantile": [[1.0, 2.0], [3.0, 4.0]]}
    assert [quantile(0.9, shots, table) for shots in (0, 1, 4, 5, 50)] == [2.0, 2.0, 2.0, 4.0, 4.0]
    assert quantile(0.95, 3) == pytest.approx(1.959964)


def test_quantiles_are_corrected_for_finite_samples() -> None:
    assert score_quantiles(np.arange(1.0, 10.0), (0.5, 0.9, 0.99)) == [5.0, 9.0, 9.0]
