"""Sinusoids of random amplitude and phase, a task each.

Finn, Abbeel, Levine, "Model-Agnostic Meta-Learning for Fast Adaptation of Deep Networks" (2017), §5.1, with noise:

    y = A sin(x - φ) + ε,    A ~ U(0.1, 5), φ ~ U(0, π), x ~ U(-5, 5), ε ~ N(0, 0.1²)
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from .intervals import NumberCalibration, mixed, quantile
from .learner import Learner
from .paired import Row, check_room, row
from .tasks import Episodes, EpisodeShape, Examples, answers

AMPLITUDE = (0.1, 5.0)
PHASE = (0.0, np.pi)
INPUT = (-5.0, 5.0)
NOISE = 0.1

TYPICAL = 2.06
"""The standard deviation of y over tasks and inputs: E[A²] / 2 = 4.25."""

TYPICAL_INPUT = 2.89
"""The standard deviation of x."""

TEST_TASKS = 2000
SELECTION_TASKS = 500
QUERIES = 100
ERROR_SHOTS = (2, 5, 10, 20)
INTERVAL_SHOTS = (0, *ERROR_SHOTS)
CONFIDENCE = 0.9

_SELECTION, _REPORT = 1, 2
"""The first word of a seed: tasks of different use are never the same."""


@dataclass(frozen=True, slots=True)
class Curves:
    """Sinusoids `A sin(x - φ)`; both arrays are float64 `[task, 1]`."""

    amplitude: NDArray[np.float64]
    phase: NDArray[np.float64]

    def at(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """The values without noise `[task, example]` at inputs `[task, example]`."""
        return np.asarray(self.amplitude * np.sin(x - self.phase))


@dataclass(frozen=True, slots=True)
class Sinusoids:
    """The source of tasks; input `x` float32 `[1]`, target number. It needs no file."""

    noise: float = NOISE

    def draw(self, generator: np.random.Generator, shape: EpisodeShape) -> Episodes:
        """See `TaskSource`."""
        return self.with_curves(generator, shape)[0]

    def with_curves(self, generator: np.random.Generator, shape: EpisodeShape) -> tuple[Episodes, Curves]:
        """A batch of episodes, and the curves behind them."""
        curves = Curves(
            generator.uniform(*AMPLITUDE, (shape.tasks, 1)),
            generator.uniform(*PHASE, (shape.tasks, 1)),
        )
        shot = int(generator.integers(shape.shot[0], shape.shot[1], endpoint=True))
        support = self._examples(generator, curves, max(shot, 1), present=min(shot, 1))
        return Episodes(support, self._examples(generator, curves, shape.query, present=1)), curves

    def _examples(self, generator: np.random.Generator, curves: Curves, count: int, *, present: int) -> Examples:
        """`count` examples of each curve, all present (1) or all absent (0)."""
        x = generator.uniform(*INPUT, (len(curves.phase), count))
        y = curves.at(x) + generator.normal(0, self.noise, x.shape)
        return Examples(
            {"x": torch.from_numpy(x).float().unsqueeze(-1)},
            torch.from_numpy(y).float().unsqueeze(-1),
            torch.full(x.shape, float(present)),
        )


def evaluate(
    learner: Learner, folder: Path, *, seed: int, calibration: NumberCalibration | None = None, tasks: int = TEST_TASKS
) -> list[Row]:
    """The report on tasks that the seed fixes.

    Rows: the squared error against the curve without noise at each of `ERROR_SHOTS`; the coverage of noisy targets
    by 90 % intervals, and the intervals' width, at each of `INTERVAL_SHOTS`.

    Args:
        learner: A learner of numbers.
        folder: The data folder, of which nothing is read.
        seed: Of the tasks.
        calibration: The table that intervals are made with; the normal quantile without it.
        tasks: Test tasks.

    Raises:
        ConfigInvalid: the learner's state holds fewer than 20 examples.
    """
    check_room(learner, max(INTERVAL_SHOTS))
    rows: dict[str, list[Row]] = {"error": [], "coverage": [], "width": []}
    for shot in INTERVAL_SHOTS:
        found = _measured(learner, np.random.default_rng([_REPORT, seed, shot]), shot, tasks, calibration)
        if shot in ERROR_SHOTS:
            rows["error"].append(row(f"{shot} points", "squared error", found["error"]))
        rows["coverage"].append(row(f"{shot} points", "coverage of 90 % intervals", found["coverage"]))
        rows["width"].append(row(f"{shot} points", "width of 90 % intervals", found["width"]))
    return [*rows["error"], *rows["coverage"], *rows["width"]]


def select(learner: Learner, folder: Path, *, seed: int) -> float:
    """Minus the squared error at 5 and 10 points on selection tasks, averaged; higher is better."""
    errors = [
        _measured(learner, np.random.default_rng([_SELECTION, seed, shot]), shot, SELECTION_TASKS, None)["error"]
        for shot in (5, 10)
    ]
    return -float(np.mean(errors))


@torch.no_grad()
def _measured(
    learner: Learner, generator: np.random.Generator, shot: int, tasks: int, calibration: NumberCalibration | None
) -> dict[str, NDArray[np.float64]]:
    """Squared error, coverage and width `[task]`, each averaged over a task's queries."""
    learner.eval()
    reach = quantile(CONFIDENCE, shot, calibration)
    parts: dict[str, list[NDArray[np.float64]]] = {"error": [], "coverage": [], "width": []}
    for start in range(0, tasks, 250):
        shape = EpisodeShape(min(250, tasks - start), (1, 1), (shot, shot), QUERIES)
        episodes, curves = Sinusoids().with_curves(generator, shape)
        mean, sd = (part.double() for part in mixed(answers(learner, episodes)))
        noiseless = torch.from_numpy(curves.at(episodes.query.x["x"].squeeze(-1).double().numpy()))
        inside = (episodes.query.y.squeeze(-1) - mean).abs() <= reach * sd
        parts["error"].append((mean - noiseless).square().mean(1).numpy())
        parts["coverage"].append(inside.double().mean(1).numpy())
        parts["width"].append((2 * reach * sd).mean(1).numpy())
    return {name: np.concatenate(values) for name, values in parts.items()}
