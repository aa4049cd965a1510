import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from handful_models.learner import AdditiveLearner, Learner
from handful_models.logistic import Logistic
from handful_models.matching import Matching
from handful_models.relation import Relation
from handful_models.ridge import LEAST_LAMBDA, Ridge
from handful_models.solve import solve_positive
from handful_models.ways import ABSENT_LOGIT

WAYS, WIDTH = 6, 5


def make(kind: str) -> Learner:
    torch.manual_seed(0)
    flat = nn.Flatten()
    heads = {
        "relation": lambda: Relation(flat, width=WIDTH, ways=WAYS),
        "matching": lambda: Matching(flat, ways=WAYS, examples=20),
        "ridge": lambda: Ridge(flat, ways=WAYS),
        "logistic": lambda: Logistic(flat, ways=WAYS),
    }
    return heads[kind]().eval()


KINDS = ("relation", "matching", "ridge", "logistic")


def task(seed: int, examples: int) -> tuple[Tensor, Tensor, Tensor]:
    """Inputs, ways, and queries of a task."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(examples, WIDTH, generator=generator)
    return x, torch.randint(WAYS, (1, examples), generator=generator), torch.randn(4, WIDTH, generator=generator)


@torch.no_grad()
def scores(learner: Learner, x: Tensor, y: Tensor, weight: Tensor, queries: Tensor) -> Tensor:
    features = {name: value.unsqueeze(0) for name, value in learner.encode({"x": x}).items()}
    state = learner.state(features, y, weight)
    query = learner.encode({"x": queries})
    repeated = {name: value.expand(len(queries), *value.shape[1:]) for name, value in state.items()}
    return learner.predict(query, repeated)[:, 0].softmax(-1)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=25)
@given(seed=st.integers(0, 1000), examples=st.integers(1, 12))
def test_the_order_of_the_support_set_does_not_matter(kind: str, seed: int, examples: int) -> None:
    x, y, queries = task(seed, examples)
    turn = torch.randperm(examples, generator=torch.Generator().manual_seed(seed))
    learner, weight = make(kind), torch.ones(1, examples)
    before, after = scores(learner, x, y, weight, queries), scores(learner, x[turn], y[:, turn], weight, queries)
    torch.testing.assert_close(before, after, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=25)
@given(seed=st.integers(0, 1000), examples=st.integers(1, 12))
def test_examples_of_weight_zero_change_nothing_wherever_they_stand(kind: str, seed: int, examples: int) -> None:
    x, y, queries = task(seed, examples)
    learner = make(kind)
    wild = torch.cat([torch.full((1, WIDTH), 1e4), x, torch.full((2, WIDTH), -1e4)])
    weight = F.pad(torch.ones(1, examples), (1, 2))
    padded = scores(learner, wild, F.pad(y, (1, 2)), weight, queries)
    torch.testing.assert_close(padded, scores(learner, x, y, torch.ones(1, examples), queries), atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_ways_without_examples_are_never_answered(kind: str) -> None:
    x, _, queries = task(0, 4)
    found = scores(make(kind), x, torch.tensor([[1, 4, 1, 4]]), torch.ones(1, 4), queries)
    assert (found[:, [0, 2, 3, 5]] == 0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_an_empty_support_set_gives_finite_logits(kind: str) -> None:
    x, y, queries = task(0, 2)
    found = scores(make(kind), x, y, torch.zeros(1, 2), queries)
    torch.testing.assert_close(found, torch.full_like(found, 1 / WAYS))


@pytest.mark.parametrize("kind", KINDS)
def test_an_example_is_recognised(kind: str) -> None:
    x, _, _ = task(3, 4)
    found = scores(make(kind), x, torch.tensor([[0, 2, 3, 5]]), torch.ones(1, 4), x)
    assert found.argmax(-1).tolist() == [0, 2, 3, 5]


@pytest.mark.parametrize("kind", ["relation", "ridge"])
def test_statistics_of_two_support_sets_add_up(kind: str) -> None:
    learner = make(kind)
    assert isinstance(learner, AdditiveLearner)
    x, y, _ = task(1, 8)
    features = {name: value.unsqueeze(0) for name, value in learner.encode({"x": x}).items()}
    whole = learner.summarise(features, y, torch.ones(1, 8))
    parts = [
        learner.summarise({name: value[:, span] for name, value in features.items()}, y[:, span], torch.ones(1, size))
        for span, size in ((slice(0, 3), 3), (slice(3, 8), 5))
    ]
    for name, value in whole.items():
        torch.testing.assert_close(value, parts[0][name] + parts[1][name])


@given(seed=st.integers(0, 1000), size=st.integers(1, 65))
def test_the_unrolled_elimination_solves_as_lapack_does(seed: int, size: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    root = torch.randn(2, size, size, generator=generator)
    matrix = root @ root.transpose(1, 2) + 0.1 * torch.eye(size)
    right = torch.randn(2, size, 3, generator=generator)
    expected = torch.linalg.solve(matrix.double(), right.double())
    error = (solve_positive(matrix, right).double() - expected).abs().max()
    assert error <= 1e-4 * (1 + expected.abs().max())


def test_ridge_is_the_closed_form_of_its_paper() -> None:
    learner = make("ridge")
    assert isinstance(learner, Ridge)
    x, y, _ = task(2, 7)
    features = learner.encode({"x": x})["features"]
    state = learner.state({"features": features.unsqueeze(0)}, y, torch.ones(1, 7))
    penalty = LEAST_LAMBDA + F.softplus(learner.raw_lambda)
    labels = F.one_hot(y[0], WAYS).float()
    expected = torch.linalg.solve(features.T @ features + penalty * torch.eye(WIDTH + 1), features.T @ labels)
    torch.testing.assert_close(state["weights"][0], expected, atol=1e-5, rtol=1e-4)


def test_logistic_steps_come_near_the_minimum_of_their_loss() -> None:
    learner = make("logistic")
    assert isinstance(learner, Logistic)
    x = task(4, 6)[0]
    y = torch.arange(WAYS).unsqueeze(0)
    features = learner.encode({"x": x})["features"]
    weights = learner.state({"features": features.unsqueeze(0)}, y, torch.ones(1, 6))["weights"][0].detach()
    penalty = (0.02 + F.softplus(learner.raw_lambda)).item()

    def loss(candidate: Tensor) -> Tensor:
        fit = F.cross_entropy(features @ candidate, y[0], reduction="sum")
        return fit + 0.5 * penalty * candidate.square().sum()

    best = torch.zeros_like(weights, requires_grad=True)
    search = torch.optim.LBFGS([best], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        search.zero_grad()
        value = loss(best)
        value.backward()
        return value

    search.step(closure)
    start = loss(torch.zeros_like(weights))
    assert (loss(weights) - loss(best)) < 0.05 * (start - loss(best))


def test_matching_gives_each_way_the_attention_on_its_examples() -> None:
    learner = make("matching")
    assert isinstance(learner, Matching)
    x, y, queries = task(5, 6)
    attention = (learner.log_scale.exp() * F.normalize(queries) @ F.normalize(x).T).softmax(-1)
    expected = attention @ F.one_hot(y[0], WAYS).float()
    torch.testing.assert_close(scores(learner, x, y, torch.ones(1, 6), queries), expected.detach(), atol=1e-5, rtol=0)


def test_absent_is_far_below_any_logit() -> None:
    assert torch.tensor([ABSENT_LOGIT, 0.0]).softmax(-1)[0] == 0
