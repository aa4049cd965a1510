"""Learners of known tasks: every conditioning, on pictures and on records."""

from typing import get_args

import pytest
import torch
from torch import Tensor

from handful_models.conditioning import Addition, Concatenation, Independent
from handful_models.errors import ConfigInvalid
from handful_models.learner import Reader
from handful_models.methods import method_class
from handful_models.multitask import ConditioningName, MultiTask, MultiTaskOptions
from handful_models.record_encoder import RecordField

CONDITIONINGS = get_args(ConditioningName)
FIELDS = (
    RecordField("age", "number"),
    RecordField("sector", "category", ("a", "b", "c"), unseen="other"),
    RecordField("hours", "number"),
)
READERS = (
    Reader("kinds", "class", (0, 3), ("x", "y", "z"), 5),
    Reader("marks", "labels", (0, 4), ("p", "q", "r", "s"), 5),
    Reader("level", "number", (0, 2), shots=5),
    Reader("sides", "class", (0, 2), ("left", "right"), 5),
)
SMALL = {"filters": 4, "hidden": (8,), "width": 6, "beside": 3, "experts": 2, "columns": 3}


def learner_of(conditioning: str, *, pictures: bool, **more: object) -> MultiTask:
    torch.manual_seed(0)
    options = MultiTaskOptions.model_validate({"conditioning": conditioning, **SMALL, **more})
    learner = MultiTask(READERS, () if pictures else FIELDS, options)
    with torch.no_grad():
        for value in learner.parameters():
            value.add_(0.1 * torch.randn_like(value))
    learner.fit_units(2, 40.0, 7.0)
    return learner.eval()


def rows(count: int, *, pictures: bool) -> Tensor:
    if pictures:
        return torch.rand(count, 1, 28, 28)
    return torch.stack([torch.randn(count), torch.randint(0, 4, (count,)).float(), torch.randn(count)], 1)


def answer(learner: MultiTask, x: Tensor, index: Tensor) -> Tensor:
    return learner.predict(learner.encode({"x": x}), learner.describe("id", {"index": index}))


@pytest.mark.parametrize("pictures", [True, False], ids=["pictures", "records"])
@pytest.mark.parametrize("conditioning", CONDITIONINGS)
def test_rows_of_mixed_tasks_answer_as_each_alone(conditioning: str, pictures: bool) -> None:
    learner, x, index = learner_of(conditioning, pictures=pictures), rows(9, pictures=pictures), torch.arange(9) % 4
    together = answer(learner, x, index)
    assert together.shape == (9, 1, 4)
    for row in range(9):
        alone = answer(learner, x[row : row + 1], index[row : row + 1])
        torch.testing.assert_close(together[row], alone[0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("pictures", [True, False], ids=["pictures", "records"])
@pytest.mark.parametrize("conditioning", CONDITIONINGS)
def test_the_task_changes_the_answer_and_padded_columns_are_zero(conditioning: str, pictures: bool) -> None:
    learner, x = learner_of(conditioning, pictures=pictures), rows(1, pictures=pictures).repeat_interleave(4, 0)
    found = answer(learner, x, torch.arange(4))[:, 0]
    assert (found[0, 3:] == 0).all()
    assert (found[2:, 2:] == 0).all()
    assert (found[0, :2] - found[3, :2]).abs().max() > 1e-3


@pytest.mark.parametrize("conditioning", CONDITIONINGS)
def test_every_parameter_of_a_task_learns_from_its_rows(conditioning: str) -> None:
    learner = learner_of(conditioning, pictures=False).train()
    answer(learner, rows(40, pictures=False), torch.arange(40) % 4)[..., :2].square().sum().backward()
    silent = [name for name, value in learner.named_parameters() if value.grad is None or not value.grad.any()]
    assert silent == []


@pytest.mark.parametrize("pictures", [True, False], ids=["pictures", "records"])
def test_addition_is_concatenation_whose_vectors_went_through_the_weights(pictures: bool) -> None:
    joined, added = (learner_of(name, pictures=pictures) for name in ("concatenation", "addition"))
    assert isinstance(joined.trunk, Concatenation)
    assert isinstance(added.trunk, Addition)
    last = len(joined.trunk.bank.form.layers) - 1
    before = added.trunk.bank.form.layers[last][0]
    weights = joined.state_dict()
    whole = weights.pop(f"trunk.bank.weight{last}")
    vectors = weights.pop("trunk.vectors")
    weights[f"trunk.bank.weight{last}"] = whole[:, :before]
    weights["trunk.vectors"] = vectors @ whole[0, before:]
    added.load_state_dict(weights)
    x, index = rows(8, pictures=pictures), torch.arange(8) % 4
    torch.testing.assert_close(answer(joined, x, index), answer(added, x, index), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("pictures", [True, False], ids=["pictures", "records"])
def test_independent_networks_train_in_a_grid_with_the_numbers_that_they_answer_with(pictures: bool) -> None:
    learner = learner_of("independent", pictures=pictures)
    x, index = rows(11, pictures=pictures), torch.tensor([3, 0, 3, 3, 1, 0, 3, 1, 3, 3, 0])  # none of task 2
    apart = answer(learner, x, index)
    torch.testing.assert_close(answer(learner.train(), x, index), apart, atol=1e-5, rtol=1e-5)


def test_independent_networks_share_nothing() -> None:
    learner = learner_of("independent", pictures=False).train()
    answer(learner, rows(6, pictures=False), torch.full((6,), 1)).sum().backward()
    assert isinstance(learner.trunk, Independent)
    assert learner.trunk.shared() == []
    for value in learner.parameters():
        assert value.grad is not None
        assert not value.grad[[0, 2, 3]].any()


def test_film_begins_as_the_shared_trunk() -> None:
    options = {"conditioning": "film", **SMALL}
    torch.manual_seed(0)
    film = MultiTask(READERS, FIELDS, MultiTaskOptions.model_validate(options)).eval()
    shared = MultiTask(
        READERS, FIELDS, MultiTaskOptions.model_validate({**options, "conditioning": "multi-head"})
    ).eval()
    shared.load_state_dict({n: v for n, v in film.state_dict().items() if n not in ("trunk.times", "trunk.plus")})
    x, index = rows(8, pictures=False), torch.arange(8) % 4
    torch.testing.assert_close(answer(film, x, index), answer(shared, x, index))


def test_numbers_are_answered_in_the_units_of_the_caller() -> None:
    learner = learner_of("multi-head", pictures=False)
    x, index = rows(5, pictures=False), torch.full((5,), 2)
    before = answer(learner, x, index)[:, 0]
    learner.fit_units(2, 0.0, 1.0)
    standard = answer(learner, x, index)[:, 0]
    torch.testing.assert_close(before[:, 0], 40 + 7 * standard[:, 0], atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(before[:, 1].exp(), 49 * standard[:, 1].exp(), atol=1e-4, rtol=1e-4)


def test_states_are_small() -> None:
    for conditioning in CONDITIONINGS:
        state = learner_of(conditioning, pictures=True).describe("id", {"index": torch.zeros(1, dtype=torch.int64)})
        assert sum(value.numel() * value.element_size() for value in state.values()) < 4096


def test_a_learner_of_known_tasks_is_not_made_without_them() -> None:
    kind = method_class("multi-task")
    options = MultiTaskOptions(conditioning="film")
    with pytest.raises(ConfigInvalid, match="known tasks"):
        kind.make(torch.nn.Identity(), ways=2, examples=1, target="class", fixed=True, options=options)
