from pathlib import Path

import numpy as np
import pytest
import torch
from tests.data import real_data, write_synthetic_jester
from tests.models.heads import Taste

from handful_models import digests, jester
from handful_models.errors import DataDamaged, DataMissing, DataUnknown
from handful_models.tasks import EpisodeShape


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = write_synthetic_jester(tmp_path)
    monkeypatch.setitem(jester.DIGESTS, jester.FILE, digests.sha256(folder / "jester" / jester.FILE))
    return folder


def test_the_splits_have_the_published_sizes_and_do_not_leak() -> None:
    splits = {name: jester.load(real_data(), name) for name in jester.SPLITS}
    assert {name: len(users) for name, users in splits.items()} == {"train": 2600, "selection": 400, "report": 1000}
    assert min(users.rated.sum(1).min() for users in splits.values()) >= jester.LEAST_RATINGS
    whole = sum(int(users.liked.sum()) for users in splits.values())
    with np.load(real_data() / "jester" / jester.FILE) as file:
        assert whole == (file["rating_x100"] > 0).sum()


def test_the_real_baselines_are_where_they_were() -> None:
    users, train = (jester.load(real_data(), split) for split in ("selection", "train"))
    log_odds = jester.joke_log_odds(train)
    order = jester.shuffled(np.random.default_rng(5), users)
    tasks = jester.episodes(users, order, 20, first=20, count=80)
    assert jester.baseline_accuracy(log_odds, tasks, penalty=None).mean() == pytest.approx(0.6443, abs=1e-3)
    assert jester.baseline_accuracy(log_odds, tasks, penalty=1.5).mean() == pytest.approx(0.7228, abs=1e-3)


def test_damaged_absent_and_unknown_data_are_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataUnknown, match="no split 'test'"):
        jester.load(folder, "test")
    with pytest.raises(DataMissing, match="folder that holds jester/"):
        jester.load(folder / "elsewhere", "train")
    monkeypatch.setitem(jester.DIGESTS, jester.FILE, "0" * 64)
    with pytest.raises(DataDamaged, match=f"expected {'0' * 64}"):
        jester.load(folder, "train")


@pytest.mark.parametrize("shot", [0, 1, 20, 60])
def test_an_episode_holds_only_rated_jokes_each_once_with_its_users_label(folder: Path, shot: int) -> None:
    users = jester.load(folder, "train")
    order = jester.shuffled(np.random.default_rng(0), users)
    tasks = jester.episodes(users, order, shot, first=shot, count=30)
    for user in range(len(users)):
        seen = []
        for part in (tasks.support, tasks.query):
            present = part.weight[user] > 0
            jokes = part.x["x"][user, present, 0].numpy()
            assert users.rated[user, jokes].all()
            assert part.y[user, present].bool().tolist() == users.liked[user, jokes].tolist()
            seen += jokes.tolist()
        ratings = int(users.rated[user].sum())
        assert len(seen) == len(set(seen))
        assert tasks.support.weight[user].sum() == min(shot, ratings - 1)
        assert tasks.query.weight[user].sum() == min(30, ratings - min(shot, ratings - 1))


def test_the_same_generator_gives_the_same_tasks(folder: Path) -> None:
    source = jester.JesterUsers(jester.load(folder, "train"))
    shape = EpisodeShape(tasks=8, way=(2, 2), shot=(0, 9), query=12)
    first, second = (source.draw(np.random.default_rng(3), shape) for _ in range(2))
    assert torch.equal(first.support.x["x"], second.support.x["x"])
    assert torch.equal(first.query.y, second.query.y)
    assert first.query.x["x"].shape == (8, 12, 1)
    assert first.query.x["x"].dtype == first.query.y.dtype == torch.int64


def test_a_learner_of_tastes_beats_what_knows_only_jokes_and_offsets(folder: Path) -> None:
    rows = jester.evaluate(Taste(), folder, seed=0)
    assert [line.title for line in rows] == [f"{shot} labels" for shot in (0, 1, 2, 3, 5, 10, 20)]
    assert rows[-1].n == 20
    assert rows[-1].mean > 0.85
    for comparison in rows[-1].comparisons:
        assert comparison.difference > comparison.interval
    assert rows[0].comparisons[0].mean == rows[-1].comparisons[0].mean, "the queries are the same at all labels"
    assert rows == jester.evaluate(Taste(), folder, seed=0)
    assert jester.select(Taste(), folder, seed=0) > 0.85


def test_the_offset_is_the_most_likely_one() -> None:
    users = jester.Users(np.ones((1, 100), bool), np.ones((1, 100), bool))
    tasks = jester.episodes(users, np.arange(100)[None], 10, first=10, count=5)
    log_odds = np.linspace(-1, 1, 100)
    found = jester.user_offset(log_odds, tasks.support, 0.7)
    chance = 1 / (1 + np.exp(-log_odds[:10] - found))
    assert (1 - chance).sum() == pytest.approx(0.7 * found.item())
