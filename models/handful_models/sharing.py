"""Whether sharing helps: each task of a shared model against a model of its own, by paired differences.

The relative gain of a model over single-task ones, Δm: Maninis, Radosavovic, Kokkinos, "Attentive Single-Tasking of
Multiple Tasks" (2019), eq. 4. Holm, "A Simple Sequentially Rejective Multiple Test Procedure" (1979). Intervals come
from a bootstrap over seeds and rows at once, the same rows for both models: Efron, Tibshirani (1993).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from .errors import ConfigInvalid
from .multitask import MultiTask
from .task_evaluation import Measured
from .task_losses import gradients, losses_of
from .task_measuring import TaskFigure
from .task_sampling import TaskBatch, TaskRows

REPLICATES = 10_000
LEVEL = 0.05
MANY_ROWS = 2000
"""From so many rows on the mean of resampled rows is drawn from its normal distribution."""

COSINE_ROWS = 256
Verdict = Literal["gains", "loses", "no evidence"]
Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class TaskSharing:
    """One task of a shared model beside a model of its own.

    Attributes:
        task: Its id.
        metric: What is compared.
        size: Training rows.
        shared: The figure, a mean over seeds.
        single: That of the single-task models.
        delta: What sharing gains, in % of the single-task figure; above 0 is better, whatever the metric.
        low: The lower end of the 95 % interval of `delta`.
        high: The upper end.
        p: Two-sided, by the bootstrap; with Holm's correction over the tasks.
        verdict: «gains» or «loses» only where the corrected p is below 0.05.
    """

    task: str
    metric: str
    size: int
    shared: float
    single: float
    delta: float
    low: float
    high: float
    p: float
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class ArmSharing:
    """All tasks of one arm: one config with several seeds.

    Attributes:
        name: Of the config.
        tasks: In the order of the learner.
        delta: Δm, the mean of the tasks' gains in %.
        low: The lower end of its 95 % interval.
        high: The upper end.
        selection: The mean score on selection rows, by which arms are chosen.
        trained: Trained numbers of one run.
        seeds: Of training.
    """

    name: str
    tasks: tuple[TaskSharing, ...]
    delta: float
    low: float
    high: float
    selection: float | None
    trained: int
    seeds: tuple[int, ...]


def compare(
    shared: Sequence[Measured], single: Sequence[Measured], *, name: str, selection: float | None
) -> ArmSharing:
    """One arm against single-task models of the same seeds.

    Raises:
        ConfigInvalid: a seed or a task has no single-task model, or the rows differ.
    """
    runs, alone = by_seed(shared), singles_by_seed(single)
    if missing := runs.keys() - alone.keys():
        raise ConfigInvalid(f"{name}: no single-task runs with the seeds {sorted(missing)}")
    seeds = tuple(sorted(runs))
    generator = np.random.default_rng(0)
    weights = _seed_weights(generator, len(seeds))
    first = runs[seeds[0]]
    lines, all_gains = [], []
    for figure, size in zip(first.figures, first.sizes, strict=True):
        pairs = [(runs[seed].by_task[figure.task].values, _own(alone[seed], figure.task)) for seed in seeds]
        differences = _differences(figure, pairs)
        base = float(np.mean([other.mean() for _, other in pairs]))
        gains = 100 * resampled(differences, weights, generator) / abs(base)
        lines.append((figure, size, float(np.mean([one.mean() for one, _ in pairs])), base,
                      100 * float(differences.mean()) / abs(base), gains))  # fmt: skip
        all_gains.append(gains)
    corrected = holm([p_value(gains) for *_, gains in lines])
    tasks = tuple(
        TaskSharing(figure.task, figure.metric, size, value, base, delta, *_ends(gains), p, _verdict(delta, p))
        for (figure, size, value, base, delta, gains), p in zip(lines, corrected, strict=True)
    )
    trained = sum(value.numel() for value in first.learner.parameters())
    low, high = _ends(np.mean(all_gains, axis=0))
    return ArmSharing(name, tasks, float(np.mean([each.delta for each in tasks])), low, high, selection, trained, seeds)


def delta_between(
    arm: Sequence[Measured], other: Sequence[Measured], single: Sequence[Measured]
) -> tuple[float, float, float]:
    """By how much the Δm of one arm is above that of another of the same seeds, and its 95 % interval.

    Seeds and rows are paired, as in `compare`; in % of the same single-task figures.
    """
    runs, others, alone = by_seed(arm), by_seed(other), singles_by_seed(single)
    seeds = tuple(sorted(runs))
    generator = np.random.default_rng(0)
    weights = _seed_weights(generator, len(seeds))
    deltas, gains = [], []
    for figure in runs[seeds[0]].figures:
        task = figure.task
        differences = _differences(figure, [(runs[seed].by_task[task].values, others[seed].by_task[task].values)
                                            for seed in seeds])  # fmt: skip
        scale = 100 / abs(float(np.mean([_own(alone[seed], task).mean() for seed in seeds])))
        deltas.append(scale * float(differences.mean()))
        gains.append(scale * resampled(differences, weights, generator))
    return float(np.mean(deltas)), *_ends(np.mean(gains, axis=0))


def by_seed(group: Sequence[Measured]) -> dict[int, Measured]:
    """Runs of one config by their seeds."""
    return {each.run.read_config().seed: each for each in group}


def singles_by_seed(single: Sequence[Measured]) -> dict[int, dict[str, Values]]:
    """The values of each task by seed: of one run that does all tasks apart, or of several that do some each."""
    found: dict[int, dict[str, Values]] = {}
    for each in single:
        own = found.setdefault(each.run.read_config().seed, {})
        for figure in each.figures:
            if figure.task in own:
                raise ConfigInvalid(f"{each.run.folder}: a second single-task model of {figure.task} with its seed")
            own[figure.task] = figure.values
    return found


def _own(values: Mapping[str, Values], task: str) -> Values:
    if task not in values:
        raise ConfigInvalid(f"no single-task model of {task}")
    return values[task]


def _differences(figure: TaskFigure, pairs: Sequence[tuple[Values, Values]]) -> Values:
    """`[seed, row]`, above 0 where the first of a pair is better."""
    if any(len(one) != len(other) for one, other in pairs):
        raise ConfigInvalid(f"{figure.task}: the models to compare were measured on other rows")
    return np.asarray((1.0 if figure.higher else -1.0) * np.stack([one - other for one, other in pairs]))


def _seed_weights(generator: np.random.Generator, seeds: int) -> Values:
    """Weights `[replicate, seed]` that sum to 1; few seeds would vary too little, by `(seeds - 1) / seeds`."""
    drawn = generator.multinomial(seeds, np.full(seeds, 1 / seeds), size=REPLICATES) / seeds
    return np.asarray(1 / seeds + (drawn - 1 / seeds) * np.sqrt(seeds / max(seeds - 1, 1)))


def resampled(differences: Values, weights: Values, generator: np.random.Generator) -> Values:
    """The mean of `differences [seed, row]` under resampled seeds, by `weights`, and resampled rows: `[replicate]`."""
    rows = differences.shape[1]
    if rows >= MANY_ROWS:
        spread = np.atleast_2d(np.cov(differences)) / rows
        deviation = np.sqrt(np.maximum(np.einsum("bs,st,bt->b", weights, spread, weights), 0))
        return np.asarray(weights @ differences.mean(1) + deviation * generator.normal(size=len(weights)))
    counts = generator.multinomial(rows, np.full(rows, 1 / rows), size=len(weights)) / rows
    return np.asarray(((counts @ differences.T) * weights).sum(1))


def p_value(replicates: Values) -> float:
    """Two-sided, that the mean is 0."""
    ends = [(1 + int((replicates <= 0).sum())), (1 + int((replicates >= 0).sum()))]
    return min(1.0, 2 * min(ends) / (len(replicates) + 1))


def holm(p: Sequence[float]) -> list[float]:
    """Holm's corrected p-values, in the order given."""
    order = np.argsort(p, kind="stable")
    corrected, highest = [0.0] * len(p), 0.0
    for rank, place in enumerate(order):
        highest = max(highest, min(1.0, (len(p) - rank) * p[place]))
        corrected[place] = highest
    return corrected


def _ends(replicates: Values) -> tuple[float, float]:
    low, high = np.quantile(replicates, (LEVEL / 2, 1 - LEVEL / 2))
    return float(low), float(high)


def _verdict(delta: float, p: float) -> Verdict:
    if p >= LEVEL:
        return "no evidence"
    return "gains" if delta > 0 else "loses"


def cosines(learner: MultiTask, rows: Sequence[TaskRows]) -> Values | None:
    """The cosine between the gradients of every two tasks for the shared weights, `[task, task]`; None without such.

    Args:
        learner: A trained learner.
        rows: Of each task; the first few, evenly spread, are taken.
    """
    shared = learner.trunk.shared()
    if not shared:
        return None
    learner.eval()
    few = tuple(part.at(torch.linspace(0, len(part) - 1, min(COSINE_ROWS, len(part))).long()) for part in rows)
    found = gradients(losses_of(learner, TaskBatch(tuple(range(len(rows))), few)), shared)
    unit = found / found.norm(dim=1, keepdim=True).clamp_min(1e-12)
    return np.asarray((unit @ unit.T).double().numpy())


def advice(line: TaskSharing, cosine: float | None) -> str:
    """One sentence on a task: what to do about sharing.

    Args:
        line: What was measured.
        cosine: The mean cosine of its gradient with those of the other tasks, if it is known.
    """
    found = f"{line.delta:+.1f} % against a model of its own, 95 % interval {line.low:+.1f} to {line.high:+.1f}"
    if line.verdict == "gains":
        return f"Go on sharing, or share more: {found}."
    if line.verdict == "loses" and cosine is not None and cosine < 0:
        return f"Share less: {found}, and its gradient works against those of the other tasks (cosine {cosine:+.2f})."
    if line.verdict == "loses":
        return f"Share less, or widen the trunk: {found}, though its gradient does not oppose those of the others."
    return f"No evidence that sharing helps or harms: {found}."
