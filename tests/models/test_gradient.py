import pytest
import torch
from torch import Tensor, nn

from handful_models.anil import Anil, HeadOptions
from handful_models.fast_conv import FastConv
from handful_models.gradient import GradientLearner
from handful_models.learner import Target
from handful_models.maml import MAML, NetworkOptions
from handful_models.meta_sgd import MetaSGD, MetaSGDNetwork
from handful_models.reptile import Reptile, ReptileOptions
from handful_models.tasks import Episodes, Examples, answers

WIDTH, WAYS = 6, 4
KINDS = ("anil", "meta-sgd", "maml", "meta-sgd-network", "reptile")


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.width = WIDTH
        self.layer = nn.Linear(3, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.layer(x).relu()
        return found


def make(kind: str, *, target: Target = "class", fixed: bool = False, **options: object) -> GradientLearner:
    torch.manual_seed(3)
    sizes = {"ways": WAYS, "examples": 20, "target": target, "fixed": fixed}
    mlp = {"network": "mlp", "inputs": 3, "hidden": (8, 8), **options}
    makers = {
        "anil": lambda: Anil.make(Encoder(), **sizes, options=HeadOptions.model_validate(options)),
        "meta-sgd": lambda: MetaSGD.make(Encoder(), **sizes, options=HeadOptions.model_validate(options)),
        "maml": lambda: MAML.make(Encoder(), **sizes, options=NetworkOptions.model_validate(mlp)),
        "meta-sgd-network": lambda: MetaSGDNetwork.make(Encoder(), **sizes, options=NetworkOptions.model_validate(mlp)),
        "reptile": lambda: Reptile.make(Encoder(), **sizes, options=ReptileOptions.model_validate(mlp)),
    }
    learner: GradientLearner = makers[kind]()
    with torch.no_grad():
        learner.row += 0.1 * torch.randn_like(learner.row)
    return learner


def episodes(*, tasks: int = 3, examples: int = 8, target: Target = "class", ways: int = WAYS) -> Episodes:
    generator = torch.Generator().manual_seed(5)

    def some() -> Examples:
        x = torch.randn(tasks, examples, 3, generator=generator)
        y = torch.arange(examples).remainder(ways).expand(tasks, -1).clone()
        if target == "class":
            x = x + 2 * nn.functional.one_hot(y, 4)[..., :3]
        return Examples({"x": x}, y if target == "class" else x[..., :1] * 2 + 1, torch.ones(tasks, examples))

    return Episodes(some(), some())


def numeric(learner: GradientLearner, given: Episodes) -> dict[str, Tensor]:
    """The gradient of the weighted mean loss by plain autograd."""
    support = given.support
    features = learner.encoded(support.x)
    state = {name: value.detach() for name, value in learner.begin(features, support.y, support.weight).items()}
    state = {name: value.requires_grad_(name != "present") for name, value in state.items()}
    answer = learner.predict(features, {name: value.unsqueeze(1) for name, value in state.items()}).squeeze(-2)
    if learner.target == "class":
        index = support.y.unsqueeze(-1)
        each = -answer.log_softmax(-1).gather(-1, index).squeeze(-1)
    else:
        each = 0.5 * (answer[..., 0] - support.y[..., 0]).square()
    loss = (each * support.weight).sum(1) / support.weight.sum(1)
    names = [name for name in state if name != "present"]
    return dict(zip(names, torch.autograd.grad(loss.sum(), [state[name] for name in names]), strict=True))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("target", ["class", "number"])
def test_the_gradient_of_a_step_is_that_of_the_loss(kind: str, target: Target) -> None:
    learner, given = make(kind, target=target).eval(), episodes(target=target)
    given.support.weight[:, -2:] = 0
    support = given.support
    features = learner.encoded(support.x)
    state = learner.begin(features, support.y, support.weight)
    found = learner.gradients(features, support.y, support.weight, state, learner.network.statistics())
    expected = numeric(learner, given)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_no_answer_depends_on_which_way_stands_for_which_label(kind: str) -> None:
    learner, given = make(kind).eval(), episodes()
    turn = torch.tensor([2, 0, 3, 1])
    turned = Episodes(Examples(given.support.x, turn[given.support.y], given.support.weight), given.query)
    before, after = answers(learner, given), answers(learner, turned)
    torch.testing.assert_close(after[..., turn], before, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_task_with_fewer_ways_answers_with_those_only(kind: str) -> None:
    learner = make(kind).eval()
    chances = answers(learner, episodes(ways=2)).softmax(-1)
    assert chances[..., 2:].max() == 0


@pytest.mark.parametrize("kind", KINDS)
def test_fixed_labels_have_an_answer_without_examples(kind: str) -> None:
    learner, given = make(kind, fixed=True).eval(), episodes()
    nothing = Examples(given.support.x, given.support.y, torch.zeros_like(given.support.weight))
    found = answers(learner, Episodes(nothing, given.query))
    assert torch.isfinite(found).all()
    assert found.softmax(-1).min() > 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("target", ["class", "number"])
def test_absent_examples_change_nothing(kind: str, target: Target) -> None:
    learner, given = make(kind, target=target).eval(), episodes(target=target)
    support = given.support
    wild = {"x": torch.cat([support.x["x"][:, :3], torch.full((3, 2, 3), 1e4), support.x["x"][:, 3:]], 1)}
    y = torch.cat([support.y[:, :3], torch.zeros_like(support.y[:, :2]), support.y[:, 3:]], 1)
    weight = torch.cat([support.weight[:, :3], torch.zeros(3, 2), support.weight[:, 3:]], 1)
    padded = answers(learner, Episodes(Examples(wild, y, weight), given.query))
    torch.testing.assert_close(padded, answers(learner, given), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["anil", "meta-sgd", "maml", "meta-sgd-network"])
def test_first_order_and_second_order_adapt_alike_and_learn_from_other_gradients(kind: str) -> None:
    given = episodes()
    second, first = make(kind), make(kind, first_order=True)
    losses = [learner.backward(given) for learner in (second, first)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert second.row.grad is not None
    assert first.row.grad is not None
    assert not torch.allclose(second.row.grad, first.row.grad, rtol=1e-3)
    assert all(value.grad is not None for value in second.parameters())


@pytest.mark.parametrize("kind", ["anil", "maml"])
@pytest.mark.parametrize("target", ["class", "number"])
def test_the_gradient_of_training_is_that_of_finite_differences(
    kind: str, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("handful_models.anil.MOMENTUM", 0.0)  # the running mean stays as it is from loss to loss
    learner, given = make(kind, target=target, steps=3).double(), episodes(target=target)
    if isinstance(learner, Anil):
        learner.updates += 1
    given = Episodes(*(_double(part) for part in (given.support, given.query)))
    learner.backward(given)
    parameter = learner.row
    assert parameter.grad is not None
    step = 1e-6
    with torch.no_grad():
        parameter[0, 1] += step
        above = learner.loss(given)
        parameter[0, 1] -= 2 * step
        below = learner.loss(given)
    assert parameter.grad[0, 1].item() == pytest.approx(((above - below) / (2 * step)).item(), rel=1e-4)


def _double(part: Examples) -> Examples:
    y = part.y if part.y.dtype == torch.int64 else part.y.double()
    return Examples({"x": part.x["x"].double()}, y, part.weight.double())


def test_more_steps_fit_the_support_set_better() -> None:
    given = episodes(target="number")
    same = Episodes(given.support, given.support)
    short, long = make("maml", target="number", steps=1), make("maml", target="number", steps=30)
    assert long.loss(same) < short.loss(same)


def test_both_forms_of_the_convolutions_give_the_same_features_and_gradients() -> None:
    torch.manual_seed(0)
    network = FastConv(filters=4)
    x = torch.rand(3, 2, 1, 28, 28)
    statistics = [value.detach() for value in network.observed(x, torch.ones(3, 2))]
    weights = {name: (value + 0.1 * torch.randn(3, *value.shape)).detach() for name, value in network.initial().items()}
    weights = {name: value.requires_grad_() for name, value in weights.items()}
    grouped, sliced = network.grouped(x, weights, statistics), network.sliced(x, weights, statistics)
    torch.testing.assert_close(grouped, sliced, rtol=1e-4, atol=1e-5)
    one, other = (torch.autograd.grad(found.square().sum(), list(weights.values())) for found in (grouped, sliced))
    for first, second in zip(one, other, strict=True):
        torch.testing.assert_close(first, second, rtol=1e-3, atol=1e-3)


def test_statistics_are_those_of_all_present_images_and_the_running_ones_follow() -> None:
    network = FastConv(filters=4)
    x = torch.rand(2, 3, 1, 28, 28)
    weight = torch.tensor([[1.0, 1.0, 0.0], [1.0, 1.0, 1.0]])
    wild = x.clone()
    wild[0, 2] = 1e6
    before = [value.clone() for value in network.statistics()]
    found = network.observed(wild, weight)
    for one, other in zip(found, network.observed(x, weight), strict=True):
        torch.testing.assert_close(one, other)
    for running, start, value in zip(network.statistics(), before, found, strict=True):
        assert ((running - start) * (value - start)).min() > 0


def test_reptile_moves_towards_the_mean_of_the_adapted_weights() -> None:
    learner, given = make("reptile", train_steps=3, train_batch=16, rate=0.3), episodes()
    both = Examples(
        {"x": torch.cat([given.support.x["x"], given.query.x["x"]], 1)},
        torch.cat([given.support.y, given.query.y], 1),
        torch.cat([given.support.weight, given.query.weight], 1),
    )
    state = learner.begin(both.x, both.y, both.weight)
    for _ in range(3):
        state = learner.step(both.x, both.y, both.weight, state)
    learner.backward(given)
    for name, start in learner.network.initial().items():
        assert start.grad is not None
        torch.testing.assert_close(start.grad, start - state[name].mean(0), rtol=1e-4, atol=1e-6)
    assert learner.row.grad is not None
    torch.testing.assert_close(learner.row.grad, learner.row - state["head"].mean((0, 1)), rtol=1e-4, atol=1e-6)


def test_reptile_with_adam_steps_by_the_running_square_of_the_gradients() -> None:
    # Fixed labels, whose ways begin apart: where they begin as one, the first step moves the head alone.
    learner = make("reptile", fixed=True, train_steps=1, train_batch=16, rate=0.01, inner="adam")
    reference, given = make("reptile", fixed=True, train_steps=1, train_batch=16, rate=1.0), episodes()
    assert isinstance(learner, Reptile)
    reference.backward(given)  # one step of rate 1: θ less the mean of φ is the mean gradient
    learner.backward(given)
    for name, start in learner.network.initial().items():
        square = learner.get_buffer(f"square_{name}")
        assert start.grad is not None
        mean = reference.network.get_parameter(name).grad
        assert mean is not None
        torch.testing.assert_close(start.grad * (square.sqrt() + 1e-8), 0.01 * mean, rtol=1e-3, atol=1e-8)
        assert (square >= mean.square() - 1e-6).all()  # the mean of squares is at least the square of the mean
    before = {name: value.clone() for name, value in learner.named_buffers()}
    learner.eval()
    learner.state(given.support.x, given.support.y, given.support.weight)
    assert all(torch.equal(value, before[name]) for name, value in learner.named_buffers())


@pytest.mark.parametrize("kind", ["anil", "maml"])
def test_states_and_queries_broadcast(kind: str) -> None:
    learner, given = make(kind).eval(), episodes()
    features = learner.encoded(given.support.x)
    state = learner.state(features, given.support.y, given.support.weight)
    asked = learner.encoded(given.query.x)
    by_task = learner.predict(asked, {name: value.unsqueeze(1) for name, value in state.items()})
    rows = {name: value.repeat_interleave(8, 0) for name, value in state.items()}
    by_row = learner.predict({name: value.flatten(0, 1) for name, value in asked.items()}, rows)
    torch.testing.assert_close(by_row.reshape(by_task.shape), by_task)
    one = learner.predict({n: v[0] for n, v in asked.items()}, {n: v[:1] for n, v in state.items()})
    torch.testing.assert_close(one, by_task[0])
