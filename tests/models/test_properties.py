"""The laws of every method, by what it declares: order, labels, absent examples, empty support sets, sums."""

from dataclasses import dataclass
from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from handful_models.bayes import Bayes
from handful_models.context import Context
from handful_models.ensemble import AdditiveEnsemble, Ensemble, EnsembleOptions
from handful_models.errors import ConfigInvalid
from handful_models.hypernetwork import Hypernetwork
from handful_models.learner import AdditiveLearner, Learner, Target
from handful_models.logistic import Logistic
from handful_models.lstm import Lstm
from handful_models.matching import Matching
from handful_models.neural_process import NeuralProcess
from handful_models.probe import Probe
from handful_models.prototypes import Prototypes
from handful_models.relation import Relation
from handful_models.ridge import Ridge
from handful_models.snail import Snail
from handful_models.solve import invert_positive
from handful_models.transformer import Transformer

WAYS, WIDTH, MOST = 4, 8, 12
SAME = {"atol": 1e-5, "rtol": 1e-5}


class Encoder(nn.Module):
    """Features that are the inputs."""

    width = WIDTH

    def forward(self, x: Tensor) -> Tensor:
        return x.relu()


@dataclass(frozen=True)
class Case:
    """A method, and what it predicts in a test."""

    method: type[Learner]
    target: Target = "class"
    fixed: bool = False
    members: str | None = None

    def __str__(self) -> str:
        return f"{self.method.__name__.lower()}{self.members or ''}-{'fixed' if self.fixed else self.target}"


METHODS = (
    Prototypes, Relation, Matching, Ridge, Logistic, Probe, Bayes, Context, Hypernetwork, NeuralProcess, Transformer,
    Lstm, Snail, Ensemble,
)  # fmt: skip
CASES = [
    *(Case(method) for method in METHODS),
    *(Case(method, fixed=True) for method in METHODS if "fixed" in method.labels),
    *(Case(method, target="number") for method in METHODS if "number" in method.targets),
    Case(Ensemble, members="lstm"),
    Case(Ensemble, members="relation"),
]


def where(cases: list[Case]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", cases, ids=str)


@cache
def make(case: Case) -> Learner:
    """A learner none of whose weights is where it begins, so that no silent layer hides a broken law."""
    torch.manual_seed(0)
    inner = EnsembleOptions.model_validate({"method": case.members, "members": 2}) if case.members else None
    method, options = case.method, inner or case.method.options()
    made = method.make(Encoder(), ways=WAYS, examples=MOST, target=case.target, fixed=case.fixed, options=options)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return made.eval()


@dataclass(frozen=True)
class Support:
    """A support set of one task."""

    x: Tensor
    y: Tensor
    weight: Tensor

    def take(self, places: Tensor | slice) -> "Support":
        return Support(self.x[places], self.y[places], self.weight[places])


def support(case: Case, seed: int, examples: int) -> Support:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(examples, WIDTH, generator=generator)
    ways = torch.randint(WAYS, (examples,), generator=generator)
    y = torch.randn(examples, 1, generator=generator) if case.target == "number" else ways
    return Support(x, y, torch.ones(examples))


def queries(count: int = 4) -> Tensor:
    return torch.randn(count, WIDTH, generator=torch.Generator().manual_seed(99))


@torch.no_grad()
def scores(case: Case, given: Support, asked: Tensor | None = None) -> Tensor:
    """Probabilities of ways, averaged over members, or a number's mean and log-variance by member."""
    learner, asked = make(case), queries() if asked is None else asked
    features = {name: value.unsqueeze(0) for name, value in learner.encode({"x": given.x}).items()}
    state = learner.state(features, given.y.unsqueeze(0), given.weight.unsqueeze(0))
    answer = learner.predict(learner.encode({"x": asked}), state)
    assert answer.shape[0] == len(asked)
    assert answer.isfinite().all()
    return answer if case.target == "number" else answer.softmax(-1).mean(-2)


SEEDS, SIZES = st.integers(0, 1000), st.integers(1, MOST - 4)
few = settings(max_examples=4)


@where([case for case in CASES if "order" in make(case).invariant])
@few
@given(seed=SEEDS, examples=SIZES)
def test_the_order_of_the_support_set_does_not_matter(case: Case, seed: int, examples: int) -> None:
    found = support(case, seed, examples)
    turned = found.take(torch.randperm(examples, generator=torch.Generator().manual_seed(seed)))
    torch.testing.assert_close(scores(case, turned), scores(case, found), **SAME)


@where([case for case in CASES if "labels" in make(case).invariant])
@few
@given(seed=SEEDS, examples=SIZES)
def test_answers_move_with_the_slots_of_the_labels(case: Case, seed: int, examples: int) -> None:
    found = support(case, seed, examples)
    slots = torch.randperm(WAYS, generator=torch.Generator().manual_seed(seed))
    renamed = Support(found.x, slots[found.y], found.weight)
    torch.testing.assert_close(scores(case, renamed)[..., slots], scores(case, found), **SAME)


@where(CASES)
@few
@given(seed=SEEDS, examples=SIZES, data=st.data())
def test_examples_of_weight_zero_change_nothing_wherever_they_stand(
    case: Case, seed: int, examples: int, data: st.DataObject
) -> None:
    found = support(case, seed, examples)
    absent = data.draw(st.lists(st.integers(0, examples), min_size=4, max_size=4))
    x, y, weight = found.x, found.y, found.weight
    for place in sorted(absent, reverse=True):
        wild = torch.full((1, WIDTH), 1e4) * torch.randn(1, WIDTH)
        label = torch.full_like(y[:1], 1e4) if case.target == "number" else y[:1]
        x, y = torch.cat([x[:place], wild, x[place:]]), torch.cat([y[:place], label, y[place:]])
        weight = torch.cat([weight[:place], torch.zeros(1), weight[place:]])
    torch.testing.assert_close(scores(case, Support(x, y, weight)), scores(case, found), **SAME)


@where(CASES)
@few
@given(seed=SEEDS, examples=SIZES)
def test_tasks_together_answer_as_if_alone(case: Case, seed: int, examples: int) -> None:
    learner, asked = make(case), queries(3)
    tasks = [support(case, seed + turn, examples) for turn in range(3)]
    features = learner.encode({"x": torch.cat([task.x for task in tasks])})
    features = {name: value.unflatten(0, (3, examples)) for name, value in features.items()}
    with torch.no_grad():
        state = learner.state(features, torch.stack([task.y for task in tasks]), torch.ones(3, examples))
        each = learner.predict(learner.encode({"x": asked}), state)
        beside = {name: value.unsqueeze(1) for name, value in state.items()}
        table = learner.predict(
            {name: value.unsqueeze(0) for name, value in learner.encode({"x": asked}).items()}, beside
        )
    for place, task in enumerate(tasks):
        alone = scores(case, task, asked)
        together = table[place] if case.target == "number" else table[place].softmax(-1).mean(-2)
        row = each[place] if case.target == "number" else each[place].softmax(-1).mean(-2)
        torch.testing.assert_close(together, alone, **SAME)
        torch.testing.assert_close(row, alone[place], **SAME)


@where(CASES)
def test_an_empty_support_set_gives_finite_answers_that_its_padding_does_not_change(case: Case) -> None:
    found = support(case, 0, 3)
    first = scores(case, Support(found.x, found.y, torch.zeros(3)))
    second = scores(case, Support(1e4 * found.x[:1], found.y[:1], torch.zeros(1)))
    torch.testing.assert_close(first, second, **SAME)


@where([case for case in CASES if case.target == "class" and not case.fixed])
def test_open_ways_without_examples_are_never_answered(case: Case) -> None:
    found = support(case, 0, 4)
    answer = scores(case, Support(found.x, torch.tensor([1, 3, 1, 3]), found.weight))
    assert (answer[:, [0, 2]] == 0).all()
    torch.testing.assert_close(answer.sum(-1), torch.ones(4))


@where([case for case in CASES if case.fixed])
def test_every_fixed_way_may_be_answered(case: Case) -> None:
    found = support(case, 0, 2)
    assert (scores(case, Support(found.x, torch.tensor([1, 1]), found.weight)) > 0).all()


@where([case for case in CASES if isinstance(make(case), AdditiveLearner)])
def test_statistics_of_two_support_sets_add_up(case: Case) -> None:
    learner, found = make(case), support(case, 1, 8)
    assert isinstance(learner, AdditiveLearner)

    def statistics(part: Support) -> dict[str, Tensor]:
        features = {name: value.unsqueeze(0) for name, value in learner.encode({"x": part.x}).items()}
        return dict(learner.summarise(features, part.y.unsqueeze(0), part.weight.unsqueeze(0)))

    first, second = statistics(found.take(slice(0, 3))), statistics(found.take(slice(3, 8)))
    for name, value in statistics(found).items():
        torch.testing.assert_close(value, first[name] + second[name])


@where(CASES)
def test_names_of_states_and_features_differ_and_states_have_the_types_of_bundles(case: Case) -> None:
    learner, found = make(case), support(case, 0, 5)
    features = learner.encode({"x": found.x})
    state = learner.state({n: v.unsqueeze(0) for n, v in features.items()}, found.y[None], found.weight[None])
    assert not set(state) & set(features)
    assert {value.dtype for value in state.values()} <= {torch.float32, torch.int64}


@where([case for case in CASES if list(make(case).parameters())])
def test_what_is_trained_has_gradients(case: Case) -> None:
    learner, found = make(case), support(case, 2, MOST)
    features = {name: value.unsqueeze(0) for name, value in learner.encode({"x": found.x}).items()}
    state = learner.state(features, found.y[None], found.weight[None])
    learner.zero_grad()
    learner.predict(learner.encode({"x": queries()}), state).square().mean().backward()
    unused = [
        name for name, value in learner.named_parameters() if value.grad is None or not value.grad.isfinite().all()
    ]
    assert not unused


def test_a_method_refuses_what_it_cannot_predict() -> None:
    with pytest.raises(ConfigInvalid, match="not number"):
        make(Case(Ridge, target="number"))
    with pytest.raises(ConfigInvalid, match="not fixed"):
        make(Case(Prototypes, fixed=True))
    options = EnsembleOptions(settings={"no": 1})
    with pytest.raises(ConfigInvalid, match="settings"):
        Ensemble.make(Encoder(), ways=WAYS, examples=MOST, target="class", fixed=False, options=options)


def test_an_ensemble_of_additive_learners_is_additive() -> None:
    assert isinstance(make(Case(Ensemble)), AdditiveEnsemble)
    assert not isinstance(make(Case(Ensemble, members="lstm")), AdditiveLearner)


def test_an_ensemble_answers_with_every_member() -> None:
    learner = make(Case(Ensemble))
    x, y = torch.randn(1, 4, WIDTH), torch.arange(4).unsqueeze(0)
    state = learner.state({"features": x}, y, torch.ones(1, 4))
    assert learner.predict({"features": x[0]}, state).shape == (4, 4, WAYS)


def test_bayes_gives_the_predictive_distribution_of_its_prior_and_examples() -> None:
    learner, found = make(Case(Bayes, target="number")), support(Case(Bayes, target="number"), 3, 6)
    assert isinstance(learner, Bayes)
    with torch.no_grad():
        x, asked = (learner.regressors({"features": part.relu()}).double() for part in (found.x, queries()))
        precision = torch.diag(0.05 + F.softplus(learner.raw_precision)).double()
        covariance = torch.linalg.inv(precision + x.T @ x)
        mean = asked @ covariance @ (precision @ learner.prior_mean.double() + x.T @ found.y.double())
        noise = 1e-6 + F.softplus(learner.raw_noise.double()).square()
        spread = noise * (1 + (asked @ covariance * asked).sum(-1))
    answer = scores(Case(Bayes, target="number"), found)[:, 0].double()
    torch.testing.assert_close(answer, torch.stack([mean[:, 0], spread.log()], -1), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("method", [Bayes, Context, Hypernetwork, NeuralProcess, Transformer, Lstm, Snail, Ensemble])
def test_numbers_in_other_units_have_answers_in_those_units(method: type[Learner]) -> None:
    found = support(Case(method, target="number"), 5, 6)
    plain, scaled = (
        method.make(Encoder(), ways=1, examples=MOST, target="number", fixed=False, options=method.options())
        for _ in range(2)
    )
    scaled.load_state_dict(plain.state_dict())
    scaled.fit_units(50.0, 10.0)
    answers = []
    for learner, y in ((plain, found.y), (scaled, 50 + 10 * found.y)):
        state = learner.state({"features": found.x[None]}, y[None], found.weight[None])
        answers.append(learner.predict({"features": queries()}, state))
    torch.testing.assert_close(answers[1][..., 0], 50 + 10 * answers[0][..., 0], atol=1e-3, rtol=1e-4)
    torch.testing.assert_close(answers[1][..., 1], answers[0][..., 1] + 2 * torch.tensor(10.0).log(), atol=1e-4, rtol=0)


@settings(max_examples=10)
@given(seed=SEEDS, size=st.integers(1, 65), scale=st.sampled_from([1.0, 1e-2, 1e3]))
def test_the_inverse_in_place_is_that_of_lapack(seed: int, size: int, scale: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    root = torch.randn(2, size, size, generator=generator)
    matrix, ridge = scale * (root @ root.transpose(1, 2)), scale * torch.linspace(0.1, 1, size)
    expected = torch.linalg.inv((matrix + torch.diag(ridge)).double())
    error = (invert_positive(matrix, ridge).double() - expected).abs().max()
    assert error <= 1e-4 * expected.abs().max()
