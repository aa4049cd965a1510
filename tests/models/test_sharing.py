"""Figures of known tasks, and the comparison of shared with single-task models."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.models.test_multitask import READERS, learner_of
from tests.models.test_task_losses import batch

from handful_models.learner import Reader
from handful_models.sharing import TaskSharing, advice, cosines, holm, p_value, resampled
from handful_models.sharing import _seed_weights as seed_weights
from handful_models.task_measuring import calibrations, figure, figures
from handful_models.task_sampling import TaskRows

SIDES, MARKS, LEVEL = READERS[3], READERS[1], READERS[2]


def labelled(y: torch.Tensor, weight: torch.Tensor | None = None) -> TaskRows:
    return TaskRows({"x": torch.zeros(len(y), 1)}, y, torch.ones(len(y)) if weight is None else weight)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000))
def test_the_mean_of_the_values_is_the_area_under_the_curve(seed: int) -> None:
    draw = np.random.default_rng(seed)
    y, score = draw.integers(0, 2, 40), draw.integers(0, 8, 40).astype(float)  # with ties
    y[:2] = (0, 1)
    found = figure(SIDES, labelled(torch.from_numpy(y)), torch.stack([torch.zeros(40), torch.tensor(score)], 1))
    positive, negative = score[y == 1][:, None], score[y == 0][None]
    area = ((positive > negative) + 0.5 * (positive == negative)).mean()
    assert found.metric == "AUC"
    assert found.mean == pytest.approx(area)


def test_the_spread_of_the_values_is_that_of_the_figure_under_new_rows() -> None:
    draw = np.random.default_rng(0)

    def drawn() -> tuple[float, float]:
        y = draw.integers(0, 2, 300)
        score = y + draw.normal(0, 1.2, 300)
        found = figure(SIDES, labelled(torch.from_numpy(y)), torch.tensor(np.stack([0 * score, score], 1)))
        return found.mean, float(found.values.std() / math.sqrt(300))

    means, errors = zip(*(drawn() for _ in range(400)), strict=True)
    assert np.std(means) == pytest.approx(np.mean(errors), rel=0.15)


def test_micro_f1_and_rmse_leave_out_missing_labels() -> None:
    truth = torch.tensor([[1.0, 0, 1, 0], [0, 1, 0, 0], [1, 1, 1, 1]])
    weight = torch.ones(3, 4)
    weight[2] = 0
    weight[0, 3] = 0
    logits = torch.tensor([[2.0, 2, -2, 9], [-1, 1, -1, -1], [-9, -9, -9, -9]])
    found = figure(MARKS, labelled(truth, weight), logits)
    assert found.metric == "micro-F1"
    assert found.mean == pytest.approx(2 * 2 / (2 * 2 + 1 + 1))
    numbers = figure(
        LEVEL,
        labelled(torch.tensor([[1.0], [2], [99]]), torch.tensor([1.0, 1, 0])),
        torch.tensor([[4.0, 0], [6, 0], [0, 0]]),
    )
    assert not numbers.higher
    assert numbers.mean == pytest.approx(math.sqrt((9 + 16) / 2))


def test_every_kind_of_task_is_calibrated() -> None:
    learner = learner_of("film", pictures=False)
    found = calibrations(learner, batch(30).parts)
    assert found.keys() == {reader.id for reader in READERS}
    assert len(found["marks"]["threshold"]) == 4
    assert found["kinds"]["temperature"][0][0] > 0
    widths = found["level"]["quantile"][0]
    assert widths == sorted(widths)
    assert widths[0] > 0


def test_figures_are_those_of_each_tasks_own_columns() -> None:
    found = figures(learner_of("mmoe", pictures=False), batch(30).parts)
    assert [each.metric for each in found] == ["accuracy", "micro-F1", "RMSE", "AUC"]


def test_holm_is_that_of_a_table() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]


@pytest.mark.parametrize("rows", [150, 4000])
def test_nothing_is_found_where_there_is_nothing_and_a_gain_where_there_is_one(rows: int) -> None:
    draw = np.random.default_rng(0)
    weights = seed_weights(draw, 5)
    none, found = [], []
    for _ in range(60):
        seeds = draw.normal(0, 0.02, (5, 1))
        differences = seeds + draw.normal(0, 0.3, (1, rows)) + draw.normal(0, 0.2, (5, rows))
        none.append(p_value(resampled(differences, weights, draw)) < 0.05)
        found.append(p_value(resampled(differences + 0.15, weights, draw)) < 0.05)
    assert np.mean(none) < 0.2
    assert np.mean(found) > 0.9


def test_both_ways_of_resampling_rows_spread_alike() -> None:
    draw = np.random.default_rng(1)
    weights = seed_weights(draw, 3)
    differences = draw.normal(0, 1, (3, 1999)) + draw.normal(0, 1, (1, 1999))
    exact = resampled(differences, weights, draw)
    one_more = np.concatenate([differences, differences.mean(1, keepdims=True)], 1)
    assert resampled(one_more, weights, draw).std() == pytest.approx(exact.std(), rel=0.05)


def test_cosines_are_symmetric_with_ones_on_the_diagonal_and_none_where_nothing_is_shared() -> None:
    found = cosines(learner_of("film", pictures=False), batch(30).parts)
    assert found is not None
    np.testing.assert_allclose(found, found.T, atol=1e-6)
    np.testing.assert_allclose(np.diag(found), 1, atol=1e-5)
    assert cosines(learner_of("independent", pictures=False), batch(30).parts) is None


def test_the_same_task_twice_has_cosine_1() -> None:
    learner = learner_of("multi-head", pictures=False)
    with torch.no_grad():
        learner.head[3], learner.bias[3] = learner.head[0], learner.bias[0]
        learner.scale[3] = learner.scale[0]
    learner.readers = (READERS[0], READERS[1], READERS[2], Reader("again", "class", (0, 3), ("x", "y", "z"), 5))
    parts = batch(30).parts
    found = cosines(learner, (*parts[:3], parts[0]))
    assert found is not None
    assert found[0, 3] == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(
    ("delta", "verdict", "cosine", "words"),
    [(3.0, "gains", 0.2, "Go on sharing"), (-3.0, "loses", -0.2, "works against"), (-3.0, "loses", 0.1, "widen"),
     (-3.0, "loses", None, "widen"), (0.1, "no evidence", -0.5, "No evidence")],
)  # fmt: skip
def test_advice_follows_the_verdict(delta: float, verdict: str, cosine: float | None, words: str) -> None:
    line = TaskSharing("t", "accuracy", 10, 0.5, 0.5, delta, delta - 1, delta + 1, 0.01, verdict)  # type: ignore[arg-type]
    assert words in advice(line, cosine)
