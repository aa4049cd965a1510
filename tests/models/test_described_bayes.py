import numpy as np
import pytest
import torch
from torch import nn

from handful_models.described_bayes import DescribedBayes, DescribedBayesOptions, posterior
from handful_models.errors import ConfigInvalid
from handful_models.records import Expanded, RecordMlp
from handful_models.tasks import Examples


class Raw(nn.Identity):
    width = 3


@pytest.fixture
def learner() -> DescribedBayes:
    torch.manual_seed(0)
    options = DescribedBayesOptions(known=2, fields=(3, 0), slope_deviation=0.5, level_deviation=0.7)
    made = DescribedBayes(Raw(), options)
    nn.init.normal_(made.prior_mean.weight)
    nn.init.normal_(made.log_noise.weight, std=0.3)
    made.fit_units(20.0, 5.0)
    made.name_known(["any", "one"])
    return made.eval()


def support(examples: int, tasks: int = 2) -> tuple[dict[str, torch.Tensor], torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(examples)
    x = torch.randn(tasks, examples, 3, generator=generator)
    y = 20 + 5 * torch.randn(tasks, examples, 1, generator=generator)
    return {"features": x}, y, torch.ones(tasks, examples)


def described(learner: DescribedBayes) -> dict[str, torch.Tensor]:
    return dict(learner.describe("metadata", {"metadata": torch.tensor([[0.0, 1.5], [2.0, -0.5]])}))


def test_the_posterior_is_that_of_the_normal_equations() -> None:
    generator = np.random.default_rng(1)
    x, y, precision = generator.normal(size=(9, 4)), generator.normal(size=9), generator.uniform(0.2, 3, 9)
    root = generator.normal(size=(4, 4))
    mean, covariance = generator.normal(size=4), root @ root.T + np.eye(4)
    after = np.linalg.inv(np.linalg.inv(covariance) + x.T * precision @ x)
    expected = after @ (np.linalg.solve(covariance, mean) + x.T @ (precision * y))
    prior = {"mean": torch.tensor(mean[None]).float(), "covariance": torch.tensor(covariance[None]).float()}
    found = posterior(prior, *(torch.tensor(each[None]).float() for each in (x, y, precision)))
    np.testing.assert_allclose(found["mean"][0], expected, atol=1e-4)
    np.testing.assert_allclose(found["covariance"][0], after, atol=1e-4)


def test_an_empty_support_set_leaves_the_prior(learner: DescribedBayes) -> None:
    prior = described(learner)
    features, y, weight = support(4)
    found = learner.adapted(prior, features, torch.full_like(y, 1e6), torch.zeros_like(weight))
    for name, value in prior.items():
        torch.testing.assert_close(found[name], value, atol=1e-5, rtol=1e-5)


def test_padding_and_order_change_nothing(learner: DescribedBayes) -> None:
    prior = described(learner)
    features, y, weight = support(6)
    alone = learner.adapted(prior, features, y, weight)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    turned = learner.adapted(prior, {"features": features["features"][:, order]}, y[:, order], weight)
    junk = torch.full((2, 3, 3), 1e4)
    padded = learner.adapted(
        prior,
        {"features": torch.cat([features["features"], junk], 1)},
        torch.cat([y, torch.full((2, 3, 1), -1e4)], 1),
        torch.cat([weight, torch.zeros(2, 3)], 1),
    )
    for name, value in alone.items():
        torch.testing.assert_close(turned[name], value, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(padded[name], value, atol=1e-5, rtol=1e-4)


def test_labels_that_cancel_take_no_other_with_them() -> None:
    prior = {"mean": torch.zeros(1, 2), "covariance": 0.5 * torch.eye(2).unsqueeze(0)}
    x = torch.tensor([[0.3, 1.0]]).expand(12, 2).unsqueeze(0)
    small, precision = torch.full((10,), 0.7), torch.ones(1, 12)
    last = torch.cat([small, torch.tensor([1e8, -1e8])]).unsqueeze(0)
    around = torch.cat([torch.tensor([1e8]), small, torch.tensor([-1e8])]).unsqueeze(0)
    expected = posterior(prior, x, torch.cat([small, torch.zeros(2)]).unsqueeze(0), precision)["mean"]
    for y in (last, around):
        torch.testing.assert_close(posterior(prior, x, y, precision)["mean"], expected, atol=1e-5, rtol=1e-5)


def test_a_posterior_is_a_prior_again(learner: DescribedBayes) -> None:
    prior = described(learner)
    features, y, weight = support(8)
    at_once = learner.adapted(prior, features, y, weight)
    first = learner.adapted(prior, {"features": features["features"][:, :3]}, y[:, :3], weight[:, :3])
    then = learner.adapted(first, {"features": features["features"][:, 3:]}, y[:, 3:], weight[:, 3:])
    for name, value in at_once.items():
        torch.testing.assert_close(then[name], value, atol=1e-4, rtol=1e-3)


def test_a_known_task_is_the_posterior_of_its_examples(learner: DescribedBayes) -> None:
    metadata = torch.tensor([[1.0, 0.3]])
    features, y, weight = support(7, tasks=1)
    learner.remember(0, metadata, None)
    learner.remember(1, metadata, Examples({"x": features["features"]}, y, weight))
    prior = learner.describe("metadata", {"metadata": metadata})
    expected = learner.adapted(prior, features, y, weight)
    found = learner.describe("id", {"index": torch.tensor([0, 1])})
    for name in expected:
        torch.testing.assert_close(found[name][0], prior[name][0])
        torch.testing.assert_close(found[name][1], expected[name][0])
    assert [(reader.id, reader.shots) for reader in learner.readers] == [("any", 0.0), ("one", 7.0)]


def test_answers_are_in_the_callers_units(learner: DescribedBayes) -> None:
    state = described(learner)
    x = torch.randn(2, 3)
    answer = learner.predict({"features": x}, state)
    assert answer.shape == (2, 1, 2)
    regressors = torch.cat([x, torch.ones(2, 1)], 1) * learner.noise(x).sqrt().unsqueeze(1)
    expected = 20 + 5 * (regressors * state["mean"]).sum(1)
    variance = learner.noise(x) + torch.einsum("bi,bij,bj->b", regressors, state["covariance"], regressors)
    torch.testing.assert_close(answer[:, 0, 0], expected)
    torch.testing.assert_close(answer[:, 0, 1].exp(), 25 * variance)


def test_what_does_not_fit_is_refused(learner: DescribedBayes) -> None:
    with pytest.raises(ConfigInvalid, match="known: 3, the tasks of the data, got 2"):
        learner.name_known(["a", "b", "c"])
    with pytest.raises(ConfigInvalid, match="id or metadata, not text"):
        learner.describe("text", {"text": torch.zeros(1, 4, dtype=torch.int64)})


def test_records_become_vectors() -> None:
    expanded = Expanded((3, 0))
    expanded.fit(torch.tensor([[0.0, 10.0], [1.0, 20.0], [2.0, 30.0]]))
    found = expanded(torch.tensor([[1.0, 20.0], [3.0, 30.0]]))
    torch.testing.assert_close(found, torch.tensor([[0.0, 1, 0, 0], [0, 0, 0, 1.2247449]]))
    crossed = RecordMlp((3, 0), 2, hidden=(), crossed=0).terms(torch.tensor([[1.0, 5.0]]))
    assert crossed.tolist() == [[0, 1, 0, 5, 0, 0, 0, 0, 0, 1, 0, 5, 0, 0, 0, 0]]
