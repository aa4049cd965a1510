"""The export gate of a learner that knows its tasks: see `gate.py` for that of support sets."""

from collections.abc import Mapping, Sequence

import numpy as np

from handful_models.learner import Descriptor, Reader
from handful_service.task import Arrays

from .closeness import OUTLIER, SAME, Comparing, Report
from .described_golden import graph_of, prior
from .errors import GateRefused
from .runner import Runner, encode

BATCHES = (1, 2, 7, 16)
SUPPORTS = ((1, 1), (2, 7), (7, 2))


class DescribedGate(Comparing):
    """The checks of one bundle of known tasks.

    Args:
        torch: The learner.
        onnx: Its exported graphs.
        readers: The known tasks, in order.
        inputs: Real inputs, each `[n, *input]`.
        descriptors: By kind what the describe graph takes for every known task.
        y: Labels of the inputs, where support sets are taken.
        limit: Examples of the largest support set.
        seed: Of the draws.
    """

    def __init__(
        self,
        torch: Runner,
        onnx: Runner,
        readers: Sequence[Reader],
        inputs: Arrays,
        descriptors: Mapping[Descriptor, Arrays],
        *,
        y: np.ndarray | None = None,
        limit: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(torch, onnx)
        self._readers = readers
        self._inputs = inputs
        self._descriptors = descriptors
        self._y = y
        self._limit = limit
        self._draw = np.random.default_rng(seed)

    def run(self) -> Report:
        """Every check.

        Raises:
            GateRefused: a check failed.
        """
        self._descriptions()
        self._same_task()
        self._mixed_rows()
        self._task_matters()
        if self._y is not None:
            self._adapting(self._y)
        return self.report

    def _descriptions(self) -> None:
        """Torch and ONNX agree for descriptors in any order and batch, and those do not touch each other."""
        tasks = len(self._readers)
        for kind, takes in self._descriptors.items():
            places = (
                np.arange(tasks),
                np.arange(tasks)[::-1],
                np.zeros(1, np.int64),
                self._draw.integers(tasks, size=7),
            )
            for place in places:
                rows = {name: np.ascontiguousarray(array[place]) for name, array in takes.items()}
                self._same(graph_of(kind), rows)
            self._apart(graph_of(kind), {name: np.resize(a, (4, *a.shape[1:])) for name, a in takes.items()})

    def _same_task(self) -> None:
        """Where a task has metadata or a text, they give the state of its id."""
        by_id = self._onnx.run("describe.id", self._descriptors["id"])
        for kind in self._descriptors.keys() - {"id"}:
            places = [place for place, reader in enumerate(self._readers)
                      if (reader.metadata if kind == "metadata" else reader.text)]  # fmt: skip
            found = self._onnx.run(graph_of(kind), self._descriptors[kind])
            for name, array in by_id.items() if places else ():
                self._close(f"id and {kind} of one task", array[places], found[name][places], SAME)

    def _mixed_rows(self) -> None:
        """Rows of many tasks in one run: torch and ONNX agree, and each row answers as it does alone."""
        states = self._torch.run("describe.id", self._descriptors["id"])
        for batch in BATCHES:
            tasks = self._draw.integers(len(self._readers), size=batch)
            inputs = self._some(batch)
            given = {**self._both_encode(inputs), **{name: array[tasks] for name, array in states.items()}}
            self._same("predict", given)
            if batch > 2:
                self._apart("predict", given)
                if self._onnx.encodes:
                    self._apart("encode", inputs)

    def _task_matters(self) -> None:
        """One input has other answers under tasks that read the same columns, and under other metadata or texts."""
        first = self._readers[0].columns
        places = [place for place, reader in enumerate(self._readers)
                  if reader.columns[0] < first[1] and first[0] < reader.columns[1]]  # fmt: skip
        if len(places) > 1:
            y = self._answers("id", np.array(places))
            apart = float(np.abs(y[1:] - y[:1]).max(axis=(1, 2)).min())
            self.report.figures["answers of other tasks differ by at least"] = apart
            if not apart > SAME:
                raise GateRefused("answers of other tasks", "a task answers as the first one does")
        for kind in self._descriptors.keys() - {"id"} if len(self._readers) > 1 else ():
            y = self._answers(kind, np.arange(len(self._readers)))
            apart = float(np.abs(y - y[:1]).max())
            self.report.figures[f"answers of other {kind} differ by"] = apart
            if not apart > SAME:
                raise GateRefused(f"answers of other {kind}", "they are all the same")

    def _answers(self, kind: Descriptor, places: np.ndarray) -> np.ndarray:
        """What one input is answered under some of the known tasks, as a descriptor of this kind describes them."""
        takes = {name: np.ascontiguousarray(array[places]) for name, array in self._descriptors[kind].items()}
        features = encode(self._onnx, self._some(1))
        rows = {name: np.repeat(array, len(places), axis=0) for name, array in features.items()}
        found: np.ndarray = self._onnx.run("predict", {**rows, **self._onnx.run(graph_of(kind), takes)})["y"]
        return found

    def _adapting(self, y: np.ndarray) -> None:
        """From every described state: parity at several sizes, padding, rows apart, and an example that counts."""
        states = self._torch.run("describe.id", self._descriptors["id"])
        for batch, examples in (*SUPPORTS, (2, self._limit)):
            self._same("adapt", self._support(states, y, batch, examples))
        feed = self._support(states, y, 4, 7)
        self._apart("adapt", feed)
        expected = self._onnx.run("adapt", feed)
        padded = {name: array if name.startswith("prior_") else _padded(array) for name, array in feed.items()}
        for name, array in self._onnx.run("adapt", padded).items():
            self._close("padding", expected[name], array, SAME)
        weight = feed["weight_s"].copy()
        weight[:, -1] = 0
        dropped = self._onnx.run("adapt", {**feed, "weight_s": weight})
        if all(np.array_equal(expected[name], array) for name, array in dropped.items()):
            raise GateRefused("dropping an example", "the state does not depend on it")

    def _support(self, states: Arrays, y: np.ndarray, batch: int, examples: int) -> Arrays:
        places = self._draw.integers(len(y), size=(batch, examples))
        flat = {name: np.ascontiguousarray(array[places.ravel()]) for name, array in self._inputs.items()}
        features = {f"{name}_s": array.reshape(batch, examples, *array.shape[1:])
                    for name, array in encode(self._onnx, flat).items()}  # fmt: skip
        tasks = self._draw.integers(len(self._readers), size=batch)
        weight = np.ones((batch, examples), np.float32)
        return {**features, "y_s": y[places], "weight_s": weight, **prior({n: a[tasks] for n, a in states.items()})}

    def _some(self, rows: int) -> Arrays:
        places = self._draw.integers(len(next(iter(self._inputs.values()))), size=rows)
        return {name: np.ascontiguousarray(array[places]) for name, array in self._inputs.items()}


def _padded(array: np.ndarray) -> np.ndarray:
    """Two absent examples behind: their weights are 0, their features wild."""
    shape = (array.shape[0], 2, *array.shape[2:])
    wild = np.full(shape, OUTLIER if array.ndim > 2 and array.dtype == np.float32 else 0, array.dtype)
    return np.concatenate([array, wild], 1)
