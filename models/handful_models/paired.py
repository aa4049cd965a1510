"""Lines of a report: a mean over tasks with its interval, and paired comparisons with baselines on the same tasks."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from .errors import ConfigInvalid
from .evaluation import Z_95
from .learner import Learner

Values = Sequence[float] | NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Comparison:
    """The learner's mean less a baseline's, and the half-width of the difference's paired 95 % interval.

    Attributes:
        baseline: The baseline's name.
        mean: The baseline's own mean.
    """

    baseline: str
    mean: float
    difference: float
    interval: float


@dataclass(frozen=True, slots=True)
class Row:
    """One figure: the mean over tasks and the half-width of its 95 % interval.

    Attributes:
        title: What was measured, in words.
        metric: Its name and unit.
        n: Tasks.
        per_task: The value of each task, in an order that the seed fixes.
        comparisons: One for each baseline.
    """

    title: str
    metric: str
    mean: float
    interval: float
    n: int
    per_task: tuple[float, ...]
    comparisons: tuple[Comparison, ...] = ()

    def row(self) -> dict[str, object]:
        """The line of the table, without the tasks."""
        return {key: value for key, value in asdict(self).items() if key != "per_task"}


def row(title: str, metric: str, values: Values, baselines: Mapping[str, Values] | None = None) -> Row:
    """The line of a learner's values, compared with those of baselines on the same tasks in the same order."""
    return Row(
        title=title,
        metric=metric,
        mean=float(np.mean(values)),
        interval=half_width(values),
        n=len(values),
        per_task=tuple(float(value) for value in values),
        comparisons=tuple(
            Comparison(name, float(np.mean(other)), *paired_interval(values, other))
            for name, other in (baselines or {}).items()
        ),
    )


def paired_interval(first: Values, second: Values) -> tuple[float, float]:
    """The mean of `first - second`, task by task, and the half-width of its 95 % interval.

    Raises:
        ValueError: they have different lengths, or fewer than two values.
    """
    if len(first) != len(second):
        raise ValueError(f"paired values need equal lengths, got {len(first)} and {len(second)}")
    differences = np.asarray(first, np.float64) - np.asarray(second, np.float64)
    return float(differences.mean()), half_width(differences)


def half_width(values: Values) -> float:
    """The half-width of the 95 % interval of a mean of independent values, by Student's t.

    Raises:
        ValueError: there are fewer than two values.
    """
    if len(values) < 2:
        raise ValueError(f"an interval needs two values or more, got {len(values)}")
    return float(student_95(len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values)))


def student_95(freedom: int) -> float:
    """The two-sided 95 % quantile of Student's t; within 0.003 of it from 4 degrees of freedom on.

    Abramowitz, Stegun, "Handbook of Mathematical Functions" (1964), 26.7.5: an expansion in 1 / `freedom`.
    """
    z = Z_95
    terms = (
        z,
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return float(sum(term / freedom**power for power, term in enumerate(terms)))


def check_room(learner: Learner, examples: int) -> None:
    """The learner's state holds that many examples.

    Raises:
        ConfigInvalid: it does not.
    """
    if learner.examples is not None and examples > learner.examples:
        raise ConfigInvalid(
            f"the evaluation has {examples} examples, "
            f"but the learner's state holds at most learner.examples = {learner.examples}"
        )
