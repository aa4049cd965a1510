"""Losses of known tasks: masks, weights, uncertainty, priorities, surgery."""

import numpy as np
import pytest
import torch
from tests.models.test_multitask import READERS, learner_of, rows
from torch import Tensor

from handful_models.errors import ConfigInvalid
from handful_models.multitask import MultiTask, MultiTaskOptions
from handful_models.task_losses import aggregator, backward, by_priority, gradients, losses_of
from handful_models.task_sampling import TaskBatch, TaskRows, counts_of, drawn_places, mixture


def batch(count: int = 6) -> TaskBatch:
    torch.manual_seed(1)
    ones = torch.ones(count)
    y = (
        torch.arange(count) % 3, (torch.rand(count, 4) > 0.5).float(), 40 + 7 * torch.randn(count, 1),
        torch.arange(count) % 2,
    )  # fmt: skip
    weights = (ones, torch.ones(count, 4), ones, ones)
    parts = (TaskRows({"x": rows(count, pictures=False)}, labels, weight)
             for labels, weight in zip(y, weights, strict=True))  # fmt: skip
    return TaskBatch((0, 1, 2, 3), tuple(parts))


def shared_gradient(learner: MultiTask, of: TaskBatch) -> Tensor:
    learner.zero_grad()
    backward(learner, of)
    return torch.cat([value.grad.flatten() for value in learner.trunk.shared() if value.grad is not None])


def test_a_missing_label_changes_neither_losses_nor_gradients_whatever_stands_there() -> None:
    learner, full = learner_of("film", pictures=False), batch()
    masked, wild = [], []
    for part in full.parts:
        weight = part.weight.clone()
        weight[-1] = 0
        y = part.y.clone()
        y[-1] = torch.nan if y.is_floating_point() else -5
        masked.append(TaskRows(part.x, part.y, weight))
        wild.append(TaskRows(part.x, y, weight))
    first, second = (losses_of(learner, TaskBatch(full.tasks, tuple(parts))) for parts in (masked, wild))
    assert torch.equal(first, second)
    assert torch.equal(
        shared_gradient(learner, TaskBatch(full.tasks, tuple(masked))),
        shared_gradient(learner, TaskBatch(full.tasks, tuple(wild))),
    )
    assert not torch.equal(first, losses_of(learner, full))


def test_one_missing_label_of_a_row_leaves_its_others() -> None:
    learner, full = learner_of("multi-head", pictures=False), batch()
    weight = torch.ones(6, 4)
    weight[:, 1] = 0
    y = full.parts[1].y.clone()
    y[:, 1] = torch.nan
    part = TaskRows(full.parts[1].x, y, weight)
    found = losses_of(learner, TaskBatch((1,), (part,)))[0]
    logits = learner.predict(learner.encode(part.x), learner.describe("id", {"index": torch.ones(6).long()}))[:, 0]
    kept = [0, 2, 3]
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logits[:, kept], y[:, kept])
    torch.testing.assert_close(found, expected)


def test_a_task_without_any_label_has_loss_0() -> None:
    learner, full = learner_of("multi-head", pictures=False), batch()
    nothing = tuple(TaskRows(part.x, part.y, torch.zeros_like(part.weight)) for part in full.parts)
    assert losses_of(learner, TaskBatch(full.tasks, nothing)).tolist() == [0, 0, 0, 0]


def test_the_loss_of_a_number_does_not_depend_on_its_unit() -> None:
    learner, part = learner_of("multi-head", pictures=False), batch().parts[2]
    before = losses_of(learner, TaskBatch((2,), (part,)))
    learner.fit_units(2, 4000.0, 700.0)
    torch.testing.assert_close(
        losses_of(learner, TaskBatch((2,), (TaskRows(part.x, 100 * part.y, part.weight),))), before
    )


def test_a_weight_multiplies_a_tasks_gradient() -> None:
    plain, weighted = (learner_of("multi-head", pictures=False, weights=w) for w in ({}, {"kinds": 3.0}))
    full = batch()
    rows_of_tasks = gradients(losses_of(plain, full), plain.trunk.shared())
    expected = (rows_of_tasks * torch.tensor([3.0, 1, 1, 1])[:, None]).sum(0) / 4
    torch.testing.assert_close(shared_gradient(weighted, full), expected, atol=1e-6, rtol=1e-4)


def test_a_weight_of_no_task_is_refused() -> None:
    with pytest.raises(ConfigInvalid, match="no task 'nothing'"):
        backward(learner_of("multi-head", pictures=False, weights={"nothing": 2.0}), batch())


def test_uncertainty_learns_to_weigh_labels_by_their_losses() -> None:
    learner, full = learner_of("multi-head", pictures=False, weighting="uncertainty"), batch()
    losses = losses_of(learner, full).detach()
    optimizer = torch.optim.SGD([learner.log_variances], lr=0.5)
    for _ in range(400):
        optimizer.zero_grad()
        backward(learner, full)
        optimizer.step()
    # exp(-s) loss + s / 2 is least where exp(s) = 2 loss; a number knows its own variance
    torch.testing.assert_close(learner.log_variances.exp()[[0, 1, 3]], 2 * losses[[0, 1, 3]], atol=1e-2, rtol=1e-2)
    assert learner.log_variances.grad is not None
    assert learner.log_variances.grad[2] == 0


def test_a_gradient_never_works_against_one_of_a_higher_priority() -> None:
    first, second = torch.tensor([1.0, 0, 0]), torch.tensor([-2.0, 1, 0])
    found = by_priority(torch.stack([second, first]), [0, 1])
    torch.testing.assert_close(found, torch.tensor([1.0, 1, 0]))
    with_it = torch.tensor([2.0, 1, 0])
    torch.testing.assert_close(by_priority(torch.stack([with_it, first]), [0, 1]), torch.tensor([3.0, 1, 0]))


def test_priorities_and_surgery_change_the_shared_gradient_only() -> None:
    full = batch()
    plain = learner_of("film", pictures=False)
    expected = shared_gradient(plain, full)
    each = gradients(losses_of(plain, full), plain.trunk.shared())
    against = READERS[int((each @ each.sum(0) - each.square().sum(1)).argmin())].id  # the others work against it
    own = {name: value.grad for name, value in plain.named_parameters() if name.startswith(("head", "bias", "trunk.t"))}
    for more in ({"priorities": {against: 1}}, {"surgery": "pcgrad"}, {"surgery": "mgda"}, {"surgery": "aligned-mtl"}):
        learner = learner_of("film", pictures=False, **more)
        torch.manual_seed(0)
        assert not torch.allclose(shared_gradient(learner, full), expected, atol=1e-7), more
        grads = dict(learner.named_parameters())
        for name, value in own.items():
            torch.testing.assert_close(grads[name].grad, value, atol=1e-6, rtol=1e-4)


def test_surgery_of_gradients_that_do_not_conflict_is_their_mean() -> None:
    agreeing = torch.tensor([[1.0, 0.5, 0], [0.5, 1, 0]])
    torch.testing.assert_close(aggregator("pcgrad")(agreeing), agreeing.mean(0))
    conflicting = torch.tensor([[1.0, 0], [-0.5, 1]])
    found = aggregator("pcgrad")(conflicting)
    assert (conflicting @ found >= 0).all()


def test_priorities_and_surgery_do_not_go_together() -> None:
    with pytest.raises(ValueError, match="surgery"):
        MultiTaskOptions(conditioning="film", surgery="pcgrad", priorities={"kinds": 1})


def test_shares_are_uniform_whatever_the_sizes_or_follow_a_temperature() -> None:
    sizes = [10, 90, 900]
    assert mixture(sizes, None).tolist() == pytest.approx([1 / 3] * 3)
    assert mixture(sizes, 1).tolist() == pytest.approx([0.01, 0.09, 0.9])
    low, high = mixture(sizes, 2), mixture(sizes, 100)
    assert low[0] < high[0] < 1 / 3
    assert low.tolist() == pytest.approx((np.sqrt(sizes) / np.sqrt(sizes).sum()).tolist())


def test_a_batch_has_all_its_rows_and_the_shares_on_average() -> None:
    generator, shares = np.random.default_rng(0), mixture([10, 90, 900], 1)
    drawn = np.array([counts_of(generator, shares, 7) for _ in range(4000)])
    assert (drawn.sum(1) == 7).all()
    np.testing.assert_allclose(drawn.mean(0), 7 * shares, atol=0.05)
    assert counts_of(generator, mixture([1, 1, 1], None), 9) == [3, 3, 3]


def test_rows_come_twice_only_where_there_are_too_few() -> None:
    generator = np.random.default_rng(0)
    assert len(set(drawn_places(generator, 8, 8).tolist())) == 8
    assert len(drawn_places(generator, 3, 8)) == 8
