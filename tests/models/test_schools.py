from pathlib import Path

import numpy as np
import pytest
import torch
from tests.data import real_data

from handful_models import school_report, school_splits, schools
from handful_models.config import changed, read_config
from handful_models.datasets import build, fresh, open_material
from handful_models.described_bayes import DescribedBayes, DescribedEpisodes
from handful_models.errors import DataUnknown
from handful_models.school_baselines import Baselines, ridge, shrunken_offset
from handful_models.tasks import EpisodeShape
from handful_models.training import load_trained, train

CONFIG = Path("models/configs/schools-described-bayes.toml")


def test_held_out_schools_never_train() -> None:
    for split in (0, 29):
        parts = {part: set(school_splits.numbers(split, part)) for part in school_splits.PARTS}
        assert (len(parts["report"]), len(parts["train"]), len(parts["selection"])) == (28, 111, 20)
        assert not parts["report"] & parts["train"]
        assert parts["fit"] | parts["selection"] == parts["train"]
        assert not parts["fit"] & parts["selection"]
    everyone = {number for split in range(30) for number in school_splits.numbers(split, "report")}
    assert everyone == set(range(139))
    with pytest.raises(DataUnknown, match="no split '30'"):
        school_splits.numbers(30, "train")
    with pytest.raises(DataUnknown, match="no part 'test'"):
        school_splits.numbers(0, "test")


def test_records_say_what_the_columns_say() -> None:
    for school in schools.load(real_data(), 0, "report"):
        assert school.x.shape == (len(school.y), len(schools.PUPIL))
        sex = school.columns[:, 5:7].argmax(1)
        assert (school.x[:, 3] == sex).all()
        assert school.metadata[2] == pytest.approx(school.columns[:, 3].mean())
        sexes = schools.SCHOOL[0][1][int(school.metadata[0])]
        assert (sexes == "girls") == (not sex.any())
        assert (sexes == "boys") == bool(sex.all())


def test_a_pupil_is_never_asked_and_told() -> None:
    source = schools.Schools(schools.load(real_data(), 0, "train")[:5])
    drawn = source.draw(np.random.default_rng(3), EpisodeShape(tasks=6, way=(1, 1), shot=(10, 10), query=12))
    assert isinstance(drawn, DescribedEpisodes)
    assert drawn.descriptor["metadata"].shape == (6, 4)
    assert drawn.support.weight.sum(1).tolist() == [10.0] * 6
    assert drawn.query.weight.sum(1).tolist() == [12.0] * 6
    again = source.draw(np.random.default_rng(3), EpisodeShape(tasks=6, way=(1, 1), shot=(10, 10), query=12))
    assert torch.equal(drawn.query.y, again.query.y)


def test_the_baselines_are_what_they_are_called() -> None:
    generator = np.random.default_rng(0)
    x, offsets = generator.normal(size=(40, 30, 3)), generator.normal(0, 2, 40)
    y = 5 + x @ np.array([1.0, -2.0, 0.5]) + offsets[:, None] + generator.normal(0, 4, (40, 30))
    found = Baselines(list(x), list(y), (0, 5))
    assert 2 <= found.ratios[5] <= 8, "noise over offsets is 16 / 4"
    assert found.offset(np.array([])) == 0
    assert found.offset(np.ones(5)) == shrunken_offset(np.ones(5), found.ratios[5]) < 1
    design = np.c_[x.reshape(-1, 3), np.ones(1200)]
    expected = np.linalg.solve(design.T @ design + np.diag([3.0, 3, 3, 0]), design.T @ y.ravel())
    weights, level = ridge(x.reshape(-1, 3), y.ravel(), 3.0)
    np.testing.assert_allclose([*weights, level], expected, rtol=1e-8)


def test_a_learner_begins_as_a_regression_over_all_schools_and_ends_with_ids(tmp_path: Path) -> None:
    data = real_data()
    config = changed(read_config(CONFIG), {"optimizer.steps": 3, "episodes.tasks": 4})
    learner = fresh(config, data)
    assert isinstance(learner, DescribedBayes)
    train_schools = schools.load(data, 0, "train")
    baselines = school_report.baselines_of(train_schools, (0,))
    school = schools.load(data, 0, "report")[0]
    state = learner.describe("metadata", {"metadata": schools.metadata_of([school])})
    answer = learner.predict(learner.encode({"x": torch.from_numpy(school.x)}), state)[:, 0, 0].detach().numpy()
    assert np.corrcoef(answer, baselines.pooled(school.columns))[0, 1] > 0.95
    train(config, tmp_path / "run", data)
    from handful_models.runs import Run

    known = load_trained(Run(tmp_path / "run"))
    assert isinstance(known, DescribedBayes)
    assert [reader.id for reader in known.readers[:2]] == ["any-school", f"school-{train_schools[0].number}"]
    assert [reader.shots for reader in known.readers[:2]] == [0, len(train_schools[0].y)]
    prior = known.describe("metadata", {"metadata": schools.any_school(train_schools)})
    ids = known.describe("id", {"index": torch.tensor([0, 1])})
    torch.testing.assert_close(ids["mean"][0], prior["mean"][0])
    assert torch.diagonal(ids["covariance"][1]).sum() < torch.diagonal(prior["covariance"][0]).sum()


def test_the_report_counts_every_held_out_school_once() -> None:
    config = read_config(CONFIG)
    data = real_data()
    learner = fresh(config, data)
    rows = school_report.evaluate(lambda split: learner, data, [0], seed=0)
    assert {line.n for line in rows} == {28}
    five = next(line for line in rows if line.title == "metadata and 5 pupils")
    assert [each.baseline for each in five.comparisons] == ["pooled ridge", "pooled + shrunken school offset"]
    assert 90 < five.comparisons[1].mean < five.comparisons[0].mean < 130
    coverage = [line.mean for line in rows if line.metric.startswith("coverage")]
    assert all(0.7 < share <= 1 for share in coverage)


def test_a_look_sees_the_schools_left_for_it() -> None:
    config = changed(read_config(CONFIG), {"data.select": True, "learner.options.known": 92})
    learner = fresh(config, real_data())
    look = open_material(config, real_data(), learner).look
    assert look is not None
    assert -150 < look(learner).mean < -70
    assert len(build(config).readers) == 92  # type: ignore[attr-defined]
