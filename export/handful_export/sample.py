"""Real examples for the gate to draw support sets and queries from, in the form that training gives them."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from handful_service.task import Arrays

MAX_SUPPORT = 20
"""Support examples of a trial of known tasks, at most."""


@dataclass(frozen=True, slots=True)
class Labelled:
    """Inputs with their labels, of one task.

    Attributes:
        inputs: Arrays `[n, *input]`.
        y: int64 `[n]`, slots; or float32 `[n, 1]`, numbers.
    """

    inputs: Arrays
    y: np.ndarray


class Sample(Protocol):
    """Where the gate draws from."""

    def draw(self, generator: np.random.Generator, rows: int) -> Labelled:
        """Any examples, as different as may be; the same one more than once where there are too few."""
        ...

    def trial(self, generator: np.random.Generator, ways: int) -> tuple[Labelled, Labelled]:
        """The support set and the queries of a real task, with at most `ways` labels."""
        ...


@dataclass(frozen=True, slots=True)
class ClassSample:
    """Classes that few-shot tasks are made of.

    Attributes:
        inputs: Arrays `[class, image, *input]`, at least 2 classes of 2.
    """

    inputs: Arrays

    @property
    def classes(self) -> int:
        """How many classes."""
        return len(next(iter(self.inputs.values())))

    @property
    def images(self) -> int:
        """How many inputs each class has."""
        return int(next(iter(self.inputs.values())).shape[1])

    def take(self, classes: np.ndarray, images: np.ndarray) -> Arrays:
        """Some inputs, each array `[n, *input]`."""
        return {name: np.ascontiguousarray(array[classes, images]) for name, array in self.inputs.items()}

    def draw(self, generator: np.random.Generator, rows: int) -> Labelled:
        """See `Sample`: of random classes, each its own slot."""
        classes = generator.integers(self.classes, size=rows)
        return Labelled(self.take(classes, generator.integers(self.images, size=rows)), classes)

    def trial(self, generator: np.random.Generator, ways: int) -> tuple[Labelled, Labelled]:
        """See `Sample`: at most 5 ways, one shot, one query of each class."""
        size = min(5, self.classes, ways)
        classes = generator.choice(self.classes, size, replace=False)
        images = generator.choice(self.images, 2, replace=False)
        first, second = (Labelled(self.take(classes, np.full(size, image)), np.arange(size)) for image in images)
        return first, second


@dataclass(frozen=True, slots=True)
class TaskSample:
    """Tasks with labels of their own: fixed labels, or numbers.

    Attributes:
        x: Arrays `[task, example, *input]`, at least 4 examples.
        y: int64 `[task, example]` for fixed labels, float32 `[task, example, 1]` for numbers.
    """

    x: Arrays
    y: np.ndarray

    def draw(self, generator: np.random.Generator, rows: int) -> Labelled:
        """See `Sample`: of one random task."""
        tasks, examples = self.y.shape[:2]
        chosen = generator.choice(examples, rows, replace=rows > examples)
        return self._take(int(generator.integers(tasks)), chosen)

    def trial(self, generator: np.random.Generator, ways: int) -> tuple[Labelled, Labelled]:
        """See `Sample`: up to half of a task's examples support the other half."""
        del ways
        tasks, examples = self.y.shape[:2]
        task, order = int(generator.integers(tasks)), generator.permutation(examples)
        half = examples // 2
        return self._take(task, order[: min(half, MAX_SUPPORT)]), self._take(task, order[half:])

    def _take(self, task: int, examples: np.ndarray) -> Labelled:
        inputs = {name: np.ascontiguousarray(array[task, examples]) for name, array in self.x.items()}
        return Labelled(inputs, np.ascontiguousarray(self.y[task, examples]))
