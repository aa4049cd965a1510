import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from handful_models.conv4 import Conv4
from handful_models.prototypes import Prototypes
from handful_models.rotating import rotating_support_loss
from handful_models.ways import ABSENT_LOGIT

WAYS, WIDTH = 6, 5


@pytest.fixture(scope="module")
def learner() -> Prototypes:
    return Prototypes(nn.Flatten(), ways=WAYS).eval()


def support(seed: int, examples: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(1, examples, WIDTH, generator=generator)
    return features, torch.randint(WAYS, (1, examples), generator=generator), torch.ones(1, examples)


def logits(learner: Prototypes, features: Tensor, y: Tensor, weight: Tensor, query: Tensor) -> Tensor:
    state = learner.adapt(learner.summarise({"features": features}, y, weight))
    return learner.predict({"features": query}, state)


@given(seed=st.integers(0, 10_000), examples=st.integers(1, 12))
def test_the_prototype_of_a_way_is_the_mean_of_its_examples(seed: int, examples: int) -> None:
    learner = Prototypes(nn.Flatten(), ways=WAYS)
    features, y, weight = support(seed, examples)
    state = learner.adapt(learner.summarise({"features": features}, y, weight))
    for way in range(WAYS):
        mine = features[0, y[0] == way]
        assert state["present"][0, way] == float(len(mine) > 0)
        expected = mine.mean(0) if len(mine) else torch.zeros(WIDTH)
        torch.testing.assert_close(state["prototypes"][0, way], expected)


@given(seed=st.integers(0, 10_000))
def test_logits_are_negative_squared_distances_and_absent_ways_have_none(seed: int) -> None:
    learner = Prototypes(nn.Flatten(), ways=WAYS)
    features, _, weight = support(seed, 2)
    query = torch.randn(1, WIDTH)
    found = logits(learner, features, torch.tensor([[1, 4]]), weight, query)[0, 0]
    for way, example in ((1, 0), (4, 1)):
        torch.testing.assert_close(found[way], -(query[0] - features[0, example]).square().sum())
    assert (found[[0, 2, 3, 5]] == ABSENT_LOGIT).all()


@given(seed=st.integers(0, 10_000), examples=st.integers(2, 12))
def test_the_order_of_the_support_set_does_not_matter(seed: int, examples: int) -> None:
    learner = Prototypes(nn.Flatten(), ways=WAYS)
    features, y, weight = support(seed, examples)
    turn = torch.randperm(examples, generator=torch.Generator().manual_seed(seed))
    query = torch.randn(1, WIDTH)
    before = logits(learner, features, y, weight, query).softmax(-1)
    after = logits(learner, features[:, turn], y[:, turn], weight, query).softmax(-1)
    torch.testing.assert_close(before, after, atol=1e-5, rtol=0)


def test_examples_of_weight_zero_change_nothing(learner: Prototypes) -> None:
    features, y, weight = support(1, 4)
    wild = torch.cat([features, torch.full((1, 3, WIDTH), 1e4)], 1)
    padded = logits(
        learner, wild, torch.cat([y, y[:, :3]], 1), torch.cat([weight, torch.zeros(1, 3)], 1), features[:, 0]
    )
    assert torch.equal(padded, logits(learner, features, y, weight, features[:, 0]))


def test_statistics_of_two_support_sets_add_up_to_those_of_both(learner: Prototypes) -> None:
    (first, y1, w1), (second, y2, w2) = support(1, 5), support(2, 3)
    whole = learner.summarise(
        {"features": torch.cat([first, second], 1)}, torch.cat([y1, y2], 1), torch.cat([w1, w2], 1)
    )
    parts = learner.summarise({"features": first}, y1, w1), learner.summarise({"features": second}, y2, w2)
    for name, value in whole.items():
        torch.testing.assert_close(value, parts[0][name] + parts[1][name])


def test_an_empty_support_set_gives_finite_logits(learner: Prototypes) -> None:
    found = logits(
        learner, torch.zeros(1, 1, WIDTH), torch.zeros(1, 1, dtype=torch.int64), torch.zeros(1, 1), torch.ones(1, WIDTH)
    )
    assert torch.isfinite(found).all()


def test_each_image_serves_in_turn_as_the_support(learner: Prototypes) -> None:
    ways, images = 4, 3
    features = torch.randn(ways, images, WIDTH)
    losses = []
    for turn in range(images):
        y = torch.arange(ways).unsqueeze(0)
        others = torch.stack([features[:, image] for image in range(images) if image != turn])
        found = logits(learner, features[:, turn].unsqueeze(0), y, torch.ones(1, ways), others.flatten(0, 1))
        losses.append(nn.functional.cross_entropy(found[:, 0], torch.arange(ways).repeat(images - 1)))
    torch.testing.assert_close(rotating_support_loss(learner, features), torch.stack(losses).mean())


def test_in_evaluation_an_image_is_encoded_the_same_beside_any_other() -> None:
    encoder = Conv4(8).eval()
    images = torch.rand(3, 1, 28, 28)
    with torch.no_grad():
        wild = images * torch.tensor([1e4, 1, 1]).reshape(3, 1, 1, 1)
        torch.testing.assert_close(encoder(images)[1:], encoder(wild)[1:])
