from pathlib import Path

import numpy as np
import pytest
import torch
from tests.data import real_data, write_synthetic_parkinsons
from tests.models.heads import MeanOfSupport

from handful_models import digests, parkinsons
from handful_models.errors import DataDamaged, DataUnknown
from handful_models.mlp import Mlp
from handful_models.tasks import EpisodeShape


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = write_synthetic_parkinsons(tmp_path)
    path = folder / "parkinsons_telemonitoring" / parkinsons.FILE
    monkeypatch.setitem(parkinsons.DIGESTS, parkinsons.FILE, digests.sha256(path))
    return folder


def numbers(folder: Path, split: str, fold: int) -> set[int]:
    return {patient.number for patient in parkinsons.load(folder, split, fold=fold)}


def test_every_patient_is_reported_once_and_by_a_learner_that_never_saw_them() -> None:
    reported = [number for fold in range(6) for number in numbers(real_data(), "report", fold)]
    assert sorted(reported) == list(range(1, 43))
    for fold in (0, 5):
        train, selection, report = (numbers(real_data(), split, fold) for split in parkinsons.SPLITS)
        assert (len(train), len(selection), len(report)) == (28, 7, 7)
        assert len(train | selection | report) == 42


def test_the_real_baselines_are_where_they_were() -> None:
    rows = parkinsons.evaluate_folds(lambda fold: MeanOfSupport(), real_data(), seed=0)
    assert {line.n for line in rows} == {42}
    last = {comparison.baseline: comparison.mean for comparison in rows[-1].comparisons}
    assert last == pytest.approx({"support mean": 3.846, "last value": 2.821, "line in time": 3.074}, abs=2e-3)


def test_recordings_are_in_order_of_time_and_days_are_counted(folder: Path) -> None:
    for patient in parkinsons.load(folder, "train"):
        assert patient.x.shape == (48, 19)
        assert (np.diff(patient.x[:, parkinsons.TIME]) >= 0).all()
        assert patient.day.tolist() == np.repeat(np.arange(12), 4).tolist()
        assert len(patient.before(3)) == 12
        assert sorted([*patient.before(3), *patient.since(3)]) == list(range(48))


def test_damaged_and_unknown_data_are_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataUnknown, match="no fold '6'"):
        parkinsons.load(folder, "train", fold=6)
    with pytest.raises(DataUnknown, match="no split 'test'"):
        parkinsons.load(folder, "test")
    monkeypatch.setitem(parkinsons.DIGESTS, parkinsons.FILE, "0" * 64)
    with pytest.raises(DataDamaged, match=f"expected {'0' * 64}"):
        parkinsons.load(folder, "train")


@pytest.mark.parametrize("anywhere", [False, True])
@pytest.mark.parametrize("shot", [0, 1, 5, 11])
def test_queries_come_after_the_support_set(folder: Path, shot: int, anywhere: bool) -> None:
    source = parkinsons.Patients(parkinsons.load(folder, "train"), anywhere=anywhere)
    shape = EpisodeShape(tasks=30, way=(1, 1), shot=(shot, shot), query=6)
    first, second = (source.draw(np.random.default_rng(1), shape) for _ in range(2))
    assert torch.equal(first.query.y, second.query.y)
    assert first.query.x["x"].shape == (30, 6, 19)
    assert first.support.weight.sum(1).tolist() == [4.0 * shot] * 30
    time, present = first.support.x["x"][..., parkinsons.TIME], first.support.weight > 0
    latest = torch.where(present, time, -1.0).amax(1)
    assert (first.query.x["x"][..., parkinsons.TIME].amin(1) > latest).all()
    assert (first.query.weight == 1).all()
    starts_first = bool((first.support.x["x"][:, 0, parkinsons.TIME] < 1).all())
    assert starts_first or (anywhere and shot in {1, 5})


def test_the_baselines_are_what_they_are_called(folder: Path) -> None:
    rows = parkinsons.evaluate(MeanOfSupport(), folder, seed=0)
    assert [line.title for line in rows] == ["1 test day", "2 test days", "4 test days", "8 test days"]
    for line in rows:
        mean, _, straight = line.comparisons
        assert mean.difference == pytest.approx(0, abs=1e-4)
        assert mean.interval == pytest.approx(0, abs=1e-4)
        if line.title != "1 test day":
            assert straight.mean == pytest.approx(0, abs=1e-2)
    assert parkinsons.select(MeanOfSupport(), folder, seed=0) < 0
    motor = parkinsons.evaluate(MeanOfSupport(), folder, seed=0, scale="motor_UPDRS")
    assert motor[0].comparisons[1].mean == pytest.approx(rows[0].comparisons[1].mean, abs=1e-2), "one slope for both"


def test_training_patients_standardise_the_inputs(folder: Path) -> None:
    patients = parkinsons.load(folder, "train")
    mean, scale = parkinsons.input_statistics(patients)
    encoder = Mlp(19, 8, hidden=(), mean=mean, scale=scale)
    x = torch.cat([torch.from_numpy(patient.x) for patient in patients])
    standard = (x - encoder.mean) / encoder.scale
    assert torch.allclose(standard.mean(0), torch.zeros(19), atol=1e-4)
    assert torch.allclose(standard.std(0), torch.ones(19), atol=1e-2)
    level, spread = parkinsons.target_statistics(patients)
    assert 10 < level < 40
    assert 0 < spread < 15
