import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.models.heads import MeanOfSupport

from handful_models import digests
from handful_models.embedding import Embedding
from handful_models.errors import ConfigInvalid, DataDamaged, DataMissing
from handful_models.mlp import Mlp
from handful_models.paired import check_room, half_width, paired_interval, row, student_95


@pytest.mark.parametrize(
    ("freedom", "expected"), [(4, 2.7764), (6, 2.4469), (11, 2.2010), (41, 2.0195), (999, 1.9623), (10**6, 1.9600)]
)
def test_the_quantile_of_student_is_that_of_the_tables(freedom: int, expected: float) -> None:
    assert student_95(freedom) == pytest.approx(expected, abs=0.003)


def test_an_interval_is_that_of_the_textbook() -> None:
    values = [1.0, 2.0, 4.0, 5.0, 8.0]
    assert half_width(values) == pytest.approx(2.7764 * math.sqrt(7.5 / 5), rel=1e-3)


@given(st.lists(st.floats(-100, 100), min_size=2, max_size=20), st.floats(-50, 50))
def test_pairing_takes_away_what_the_tasks_have_in_common(values: list[float], shift: float) -> None:
    difference, interval = paired_interval(np.array(values) + shift, values)
    assert difference == pytest.approx(shift, abs=1e-9)
    assert interval == pytest.approx(0, abs=1e-9)


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    draws = np.random.default_rng(0).normal(3, 2, (2000, 12))
    covered = [abs(sample.mean() - 3) <= half_width(sample) for sample in draws]
    assert 0.935 < np.mean(covered) < 0.965


def test_too_few_and_unequal_values_are_refused() -> None:
    with pytest.raises(ValueError, match="two values or more, got 1"):
        half_width([1.0])
    with pytest.raises(ValueError, match="equal lengths, got 2 and 3"):
        paired_interval([1.0, 2.0], [1.0, 2.0, 3.0])


def test_a_line_names_each_baseline_and_keeps_the_tasks_out_of_the_table() -> None:
    line = row("5 labels", "accuracy", [0.5, 1.0, 0.75], {"coin": [0.5, 0.5, 0.5]})
    assert (line.mean, line.n, line.per_task) == (0.75, 3, (0.5, 1.0, 0.75))
    assert [(item.baseline, item.mean, item.difference) for item in line.comparisons] == [("coin", 0.5, 0.25)]
    assert line.comparisons[0].interval == line.interval
    assert "per_task" not in line.row()


def test_an_evaluation_that_no_state_holds_is_refused() -> None:
    check_room(MeanOfSupport(), 20)
    with pytest.raises(ConfigInvalid, match=r"has 20 examples.*at most learner\.examples = 8"):
        check_room(MeanOfSupport(examples=8), 20)


def test_a_changed_byte_is_found(tmp_path: Path) -> None:
    path = tmp_path / "known.bin"
    path.write_bytes(b"handful")
    known = {"known.bin": digests.sha256(path)}
    assert digests.check(path, known) == path
    path.write_bytes(b"handfuI")
    with pytest.raises(DataDamaged, match=rf"known\.bin: its SHA-256 is [0-9a-f]{{64}}, expected {known['known.bin']}"):
        digests.check(path, known)
    assert digests.check(path, {}) == path
    with pytest.raises(DataMissing):
        digests.check(tmp_path / "absent.bin", known)


def test_an_unknown_item_has_features_of_zero_and_learns_nothing() -> None:
    encoder = Embedding(3, 4)
    features = encoder(torch.tensor([[0], [2], [3], [-1]]))
    features.sum().backward()
    assert features.shape == (4, 4)
    assert features[:2].abs().min() > 0
    assert not features[2:].any()
    assert encoder.table.weight.grad is not None
    assert encoder.table.weight.grad.sum(1).tolist() == [4, 0, 4, 0]


def test_standardisation_is_part_of_the_weights() -> None:
    mean, scale = torch.tensor([10.0, -2.0]), torch.tensor([5.0, 0.1])
    encoder, plain = Mlp(2, 3, mean=mean, scale=scale), Mlp(2, 3)
    plain.layers.load_state_dict(encoder.layers.state_dict())
    x = torch.randn(7, 2)
    assert torch.allclose(encoder(x * scale + mean), plain(x), atol=1e-5)
    other = Mlp(2, 3)
    other.load_state_dict(encoder.state_dict())
    assert torch.equal(other(x), encoder(x))
