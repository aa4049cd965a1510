from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from handful_models import omniglot
from handful_models.augment import jittered
from handful_models.calibration import conformal_quantiles, fit_temperature
from handful_models.config import AugmentConfig
from handful_models.conv4 import Conv4
from handful_models.episodes import draw_episode
from handful_models.errors import ConfigInvalid
from handful_models.evaluation import Protocol, class_pools, draw_episodes, evaluate, interval_95
from handful_models.matching import Matching
from handful_models.prototypes import Prototypes


@given(seed=st.integers(0, 10_000), way=st.integers(2, 6), shot=st.integers(1, 3), query=st.integers(1, 3))
def test_support_and_query_of_an_episode_never_share_an_image(seed: int, way: int, shot: int, query: int) -> None:
    generator = np.random.default_rng(seed)
    episode = draw_episode(generator, classes=np.arange(10, 20), images=6, way=way, shot=shot, query=query)
    assert len(set(episode.classes.tolist())) == way
    assert set(episode.classes.tolist()) <= set(range(10, 20))
    for support, queries in zip(episode.support, episode.query, strict=True):
        assert len({*support.tolist(), *queries.tolist()}) == shot + query


def test_an_episode_that_the_data_cannot_give_says_what_it_needs() -> None:
    with pytest.raises(ValueError, match="5-way 3-shot with 4 queries needs 5 classes of 7 images"):
        draw_episode(np.random.default_rng(0), classes=np.arange(5), images=6, way=5, shot=3, query=4)


def test_an_encoder_that_knows_the_class_is_always_right_and_one_that_does_not_guesses(synthetic: Path) -> None:
    characters = omniglot.load(synthetic, "evaluation")
    protocol = Protocol(5, 1, query=5, episodes=40, rotations=False)
    told = characters.small.copy()
    told[:] = 0
    for number in range(len(told)):
        told[number, :, number // 28, number % 28] = 255
    knowing = omniglot.Characters(told, characters.bits, characters.alphabet, characters.character_id)
    learner = Prototypes(nn.Flatten(), ways=8)
    assert evaluate(learner, knowing, [protocol], seed=0)[0].mean == 1
    blind = Prototypes(nn.Sequential(nn.Flatten(), nn.Dropout(1.0)).train(), ways=8)
    blind.eval = lambda: blind  # type: ignore[method-assign]
    assert evaluate(blind, characters, [protocol], seed=0)[0].mean == pytest.approx(0.2)


def test_a_protocol_with_more_examples_than_a_state_holds_is_refused(synthetic: Path) -> None:
    characters = omniglot.load(synthetic, "evaluation")
    learner = Matching(nn.Flatten(), ways=8, examples=24)
    with pytest.raises(ConfigInvalid, match=r"has 25 examples, but .* at most learner\.examples = 24"):
        evaluate(learner, characters, [Protocol(5, 5, query=5, episodes=2)], seed=0)


def test_within_an_alphabet_all_ways_are_of_it(synthetic: Path) -> None:
    characters = omniglot.load(synthetic, "evaluation")
    protocol = Protocol(8, 1, query=2, episodes=30, rotations=False, within_alphabet=True)
    for episode in draw_episodes(class_pools(characters, protocol), 20, protocol, seed=0):
        assert len(set(characters.alphabet[episode.classes].tolist())) == 1


def test_the_interval_is_that_of_the_mean_of_independent_values() -> None:
    values = np.random.default_rng(0).normal(3, 2, 10_000).tolist()
    assert interval_95(values) == pytest.approx(1.96 * 2 / 100, rel=0.05)


def test_the_same_seed_gives_the_same_accuracy(synthetic: Path) -> None:
    characters = omniglot.load(synthetic, "evaluation")
    torch.manual_seed(0)
    learner = Prototypes(Conv4(8), ways=8)
    protocols = [Protocol(5, 1, query=5, episodes=20)]
    first, again, other = (evaluate(learner, characters, protocols, seed=seed)[0] for seed in (1, 1, 2))
    assert first == again
    assert first.per_episode != other.per_episode


def test_jitter_of_nothing_is_area_averaging_and_turns_are_quarter_turns() -> None:
    generator = np.random.default_rng(0)
    images = torch.from_numpy(generator.integers(0, 256, (4, 56, 56)).astype(np.uint8))
    still = AugmentConfig(degrees=0, pixels=0, scale=0)
    found = jittered(images, np.arange(4), still, generator)
    averaged = nn.functional.avg_pool2d(images.unsqueeze(1).float() / 255, 2)
    for turn in range(4):
        torch.testing.assert_close(found[turn, 0], torch.rot90(averaged[turn, 0], turn), atol=1e-4, rtol=0)


def test_the_fitted_temperature_is_the_one_that_was_put_in() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(20_000, 5, generator=generator)
    targets = torch.multinomial((logits * 1).softmax(-1), 1, generator=generator).squeeze(1)
    assert fit_temperature(3 * logits.unsqueeze(1), targets) == pytest.approx(3, rel=0.05)


def test_conformal_quantiles_cover_as_often_as_they_say() -> None:
    generator = np.random.default_rng(0)
    (quantile,) = conformal_quantiles(generator.random(5000), [0.9])
    assert (generator.random(50_000) <= quantile).mean() == pytest.approx(0.9, abs=0.02)
    assert conformal_quantiles(np.array([0.1, 0.2]), [0.99]) == [1.0]
