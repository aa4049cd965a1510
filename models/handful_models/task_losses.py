"""The losses of known tasks, and how they meet: fixed weights, priorities, learned uncertainty, gradient surgery.

Kendall, Gal, Cipolla, "Multi-Task Learning Using Uncertainty to Weigh Losses" (2018), eq. 10: the sum over tasks of
`exp(-s) loss + s / 2` with a learned `s`, the logarithm of a variance. Yu, Kumar, Gupta, Levine, Hausman, Finn,
"Gradient Surgery for Multi-Task Learning" (2020), and what else the library torchjd has: Quinton, Rey, "Jacobian
Descent for Multi-Objective Optimization" (2024).
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .errors import ConfigInvalid
from .learner import Reader
from .multitask import MultiTask, Surgery
from .task_sampling import TaskBatch, TaskRows


def losses_of(learner: MultiTask, batch: TaskBatch) -> Tensor:
    """The negative log-likelihood of each task of a batch, a weighted mean over its labels: `[task of the batch]`.

    Numbers are in the units in which they are learned, so that tasks are comparable. It is 0 where all labels are
    missing.
    """
    answers = torch.split(answers_of(learner, batch), [len(part) for part in batch.parts])
    return torch.stack([
        row_losses(learner.readers[task], part, answer, learner.unit(task))
        for task, part, answer in zip(batch.tasks, batch.parts, answers, strict=True)
    ])  # fmt: skip


def answers_of(learner: MultiTask, batch: TaskBatch) -> Tensor:
    """The columns `[row, columns]` of each row's task."""
    return learner.predict(learner.encode(batch.x), learner.describe("id", {"index": batch.index}))[:, 0]


def row_losses(reader: Reader, rows: TaskRows, answer: Tensor, unit: float) -> Tensor:
    """The weighted mean of the negative log-likelihood of one task's rows, a scalar.

    Args:
        reader: The task.
        rows: Its rows; the values of missing labels have no meaning.
        answer: `[row, columns]`.
        unit: Of numbers.
    """
    own, weight = answer[:, reader.columns[0] : reader.columns[1]], rows.weight
    if reader.kind == "class":
        each = F.cross_entropy(own, torch.where(weight > 0, rows.y, 0), reduction="none")
    elif reader.kind == "labels":
        each = F.binary_cross_entropy_with_logits(own, torch.where(weight > 0, rows.y, 0), reduction="none")
    else:
        y = torch.where(weight > 0, rows.y[:, 0], own[:, 0].detach())
        standard = own[:, 1] - 2 * math.log(unit)
        each = 0.5 * (standard + (y - own[:, 0]).square() * torch.exp(-own[:, 1]))
    return (each * weight).sum() / weight.sum().clamp_min(1e-6)


def weights_of(learner: MultiTask, tasks: Sequence[int]) -> Tensor:
    """The fixed weights of some tasks' losses, `[task]`.

    Raises:
        ConfigInvalid: a weight or a priority is of no task.
    """
    ids, options = [reader.id for reader in learner.readers], learner.settings
    for name in (*options.weights, *options.priorities):
        if name not in ids:
            raise ConfigInvalid(f"learner.options: no task {name!r}; known: {', '.join(ids)}")
    return torch.tensor([options.weights.get(ids[task], 1.0) for task in tasks])


def backward(learner: MultiTask, batch: TaskBatch) -> Tensor:
    """Gradients put into a learner for one batch; the losses of its tasks, `[task of the batch]`."""
    losses = losses_of(learner, batch)
    weighted = losses * weights_of(learner, batch.tasks) / len(batch.tasks)
    if learner.settings.weighting == "uncertainty":
        weighted = _by_uncertainty(learner, batch.tasks, losses)
    options, shared = learner.settings, learner.trunk.shared()
    if not shared or (options.surgery == "none" and not options.priorities):
        weighted.sum().backward()  # type: ignore[no-untyped-call]  # torch's stub
        return losses.detach()
    rows = gradients(weighted, shared)
    own = [value for value in learner.own_parameters() if value.requires_grad]
    for value, gradient in zip(own, torch.autograd.grad(weighted.sum(), own, allow_unused=True), strict=True):
        value.grad = gradient
    ranks = [options.priorities.get(learner.readers[task].id, 0) for task in batch.tasks]
    put(shared, by_priority(rows, ranks) if options.priorities else aggregator(options.surgery)(rows) * len(rows))
    return losses.detach()


def _by_uncertainty(learner: MultiTask, tasks: Sequence[int], losses: Tensor) -> Tensor:
    """Eq. 10 for labels; the likelihood of a Gaussian that knows its own variance is eq. 5 already."""
    log_variance = learner.log_variances[list(tasks)]
    number = torch.tensor([learner.readers[task].kind == "number" for task in tasks])
    return torch.where(number, losses, losses * torch.exp(-log_variance) + log_variance / 2) / len(tasks)


def gradients(losses: Tensor, shared: Sequence[nn.Parameter]) -> Tensor:
    """The gradient of each loss with respect to shared parameters, flat: `[task, parameter]`."""
    found = []
    for loss in losses:
        parts = torch.autograd.grad(loss, list(shared), retain_graph=True, allow_unused=True)
        flat = [(torch.zeros_like(value) if part is None else part).flatten()
                for value, part in zip(shared, parts, strict=True)]  # fmt: skip
        found.append(torch.cat(flat))
    return torch.stack(found)


def put(shared: Sequence[nn.Parameter], gradient: Tensor) -> None:
    """Put a flat gradient into the parameters."""
    parts = torch.split(gradient, [value.numel() for value in shared])
    for value, part in zip(shared, parts, strict=True):
        value.grad = part.reshape(value.shape).clone()


def by_priority(rows: Tensor, ranks: Sequence[int]) -> Tensor:
    """The sum of gradients `[task, parameter]`, of which none works against one of a higher rank: `[parameter]`.

    What a gradient has against the sum of those of higher ranks is taken off, as Yu et al. (2020) do for both sides.
    """
    total = torch.zeros_like(rows[0])
    for rank in sorted(set(ranks), reverse=True):
        joined = rows[[place for place, each in enumerate(ranks) if each == rank]].sum(0)
        against = torch.clamp(joined @ total, max=0) / total.square().sum().clamp_min(1e-12)
        total = total + joined - against * total
    return total


def aggregator(name: Surgery) -> Callable[[Tensor], Tensor]:
    """Torchjd's aggregator of a name: the gradient `[parameter]` of gradients `[task, parameter]`, as a mean.

    Raises:
        ConfigInvalid: the library is not installed.
    """
    try:
        from torchjd import aggregation  # noqa: PLC0415 (only surgery needs it)
    except ImportError as error:
        raise ConfigInvalid("learner.options.surgery: needs torchjd: pip install 'handful[train]'") from error
    if name == "pcgrad":
        joined = aggregation.PCGrad()
        return lambda rows: joined(rows) / len(rows)  # PCGrad is a sum
    found: Callable[[Tensor], Tensor] = {
        "mgda": aggregation.MGDA, "aligned-mtl": aggregation.AlignedMTL,
    }[name]()  # fmt: skip
    return found
