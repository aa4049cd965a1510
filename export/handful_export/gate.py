"""The export gate: a bundle that breaks a law of serving is refused here, before anyone can publish it."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from handful_service.bundle.manifest import GraphName, Manifest
from handful_service.task import Arrays

from .errors import GateRefused
from .runner import Runner, adapt

SIZES = ((1, 1), (2, 7), (7, 2))
"""(batch, support) sizes that every graph is run at, besides the largest support set that the limits allow."""

PARITY = 1e-4
"""torch against ONNX, relative and absolute."""

SAME = 1e-5
"""Answers that must be the same: scores of a batch and alone, padded and not, permuted and not."""

OUTLIER = 1.0e4


@dataclass(frozen=True, slots=True)
class Sample:
    """Real labelled inputs, in the form that the training pipeline gives the encoder.

    Attributes:
        inputs: Arrays `[class, image, *input]`.
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


@dataclass(frozen=True, slots=True)
class Support:
    """A support set of one task, as arrays of one batch row."""

    features: Arrays
    y: np.ndarray
    weight: np.ndarray

    def feed(self) -> Arrays:
        """The inputs of the graphs that take support sets, with batch 1."""
        return {
            **{f"{name}_s": array[None] for name, array in self.features.items()},
            "y_s": self.y[None],
            "weight_s": self.weight[None],
        }


@dataclass
class Report:
    """What the gate measured: by check, the largest difference or the figure found."""

    figures: dict[str, float] = field(default_factory=dict)

    def note(self, check: str, figure: float) -> None:
        """Keep the worst figure of a check."""
        self.figures[check] = max(self.figures.get(check, 0.0), float(figure))


class Gate:
    """The checks of one bundle.

    Args:
        manifest: What the bundle declares.
        torch: The learner.
        onnx: Its exported graphs.
        sample: Real inputs, at least 2 classes of 2.
        seed: Of the draws.
    """

    def __init__(self, manifest: Manifest, torch: Runner, onnx: Runner, sample: Sample, *, seed: int = 0) -> None:
        self.report = Report()
        self._manifest = manifest
        self._torch = torch
        self._onnx = onnx
        self._sample = sample
        self._draw = np.random.default_rng(seed)

    def run(self, *, margin: float | None) -> Report:
        """Every check.

        Args:
            margin: By how much accuracy with true labels must exceed accuracy with shuffled ones.

        Raises:
            GateRefused: a check failed.
        """
        for check in (
            self._parity,
            self._padding,
            self._rows_apart,
            self._sensitivity,
            self._every_example_counts,
            *((self._order,) if "order" in self._manifest.invariant else ()),
            *((self._relabelling,) if "labels" in self._manifest.invariant else ()),
        ):
            check()
        if margin is not None:
            self._labels_matter(margin)
        return self.report

    def _parity(self) -> None:
        for batch, examples in (*SIZES, (2, self._manifest.limits.examples)):
            inputs = self._inputs(batch)
            features = self._same("encode", inputs)
            supports = [self._support(examples) for _ in range(batch)]
            feed = {name: np.stack([support.feed()[name][0] for support in supports]) for name in supports[0].feed()}
            source = self._same("summarise", feed) if self._onnx.additive else feed
            self._same("predict", {**features, **self._same("adapt", source)})

    def _same(self, graph: GraphName, arrays: Arrays) -> Arrays:
        expected, got = self._torch.run(graph, arrays), self._onnx.run(graph, arrays)
        for name, array in expected.items():
            self._close(f"parity of {graph}", array, got[name], PARITY)
        return expected

    def _padding(self) -> None:
        """Absent examples with wild features change nothing."""
        support, query = self._support(7), self._features(5)
        wild = {name: np.concatenate([a, OUTLIER * np.ones_like(a[:3])]) for name, a in support.features.items()}
        y = np.concatenate([support.y, np.zeros(3, np.int64)])
        weight = np.concatenate([support.weight, np.zeros(3, np.float32)])
        padded = Support(wild, y, weight)
        self._close("padding", self._scores(support, query), self._scores(padded, query), SAME)

    def _rows_apart(self) -> None:
        """No row changes when a neighbour becomes an outlier, in any graph."""
        inputs = self._inputs(4)
        features = self._onnx.run("encode", inputs)
        supports = [self._support(7) for _ in range(4)]
        feed = {name: np.stack([support.feed()[name][0] for support in supports]) for name in supports[0].feed()}
        self._apart("encode", inputs)
        if self._onnx.additive:
            self._apart("summarise", feed)
        self._apart("adapt", self._onnx.run("summarise", feed) if self._onnx.additive else feed)
        self._apart("predict", {**features, **adapt(self._onnx, feed)})

    def _apart(self, graph: GraphName, arrays: Arrays) -> None:
        together = self._onnx.run(graph, arrays)
        wild = {name: array.copy() for name, array in arrays.items()}
        for array in wild.values():
            if array.dtype == np.float32:
                array[0] *= OUTLIER
        beside = self._onnx.run(graph, wild)
        for row in range(1, len(next(iter(arrays.values())))):
            alone = self._onnx.run(graph, {name: array[row : row + 1] for name, array in arrays.items()})
            for name, array in together.items():
                self._close(f"rows of {graph} apart", array[row], beside[name][row], SAME)
                self._close(f"rows of {graph} alone", array[row], alone[name][0], SAME)

    def _sensitivity(self) -> None:
        """Dropping an example, and swapping two labels, changes the answer, and as much as torch's."""
        support, query = self._support(6, ways=3), self._features(8)
        kept = Support({n: a[1:] for n, a in support.features.items()}, support.y[1:], support.weight[1:])
        other = int(np.flatnonzero(support.y != support.y[0])[0])
        y = support.y.copy()
        y[0], y[other] = y[other], y[0]
        swapped = Support(support.features, y, support.weight)
        for what, changed in (("dropping an example", kept), ("swapping two labels", swapped)):
            change = self._logits(self._onnx, changed, query) - self._logits(self._onnx, support, query)
            expected = self._logits(self._torch, changed, query) - self._logits(self._torch, support, query)
            self._close(f"sensitivity to {what}", expected, change, 2 * PARITY)
            if not np.abs(change).max() > SAME:
                raise GateRefused(f"sensitivity to {what}", "the answer does not depend on it")

    def _every_example_counts(self) -> None:
        """The last example of the largest support set that the limits allow changes the state: none is cut off."""
        full = self._support(self._manifest.limits.examples)
        weight = full.weight.copy()
        weight[-1] = 0
        less = Support(full.features, full.y, weight)
        before, after = (adapt(self._onnx, support.feed()) for support in (full, less))
        if all(np.array_equal(before[name], after[name]) for name in before):
            raise GateRefused("the largest support set", "the state does not depend on its last example")

    def _order(self) -> None:
        support, query = self._support(12), self._features(5)
        turn = self._draw.permutation(12)
        turned = Support({n: a[turn] for n, a in support.features.items()}, support.y[turn], support.weight[turn])
        self._close("order of the support set", self._scores(support, query), self._scores(turned, query), SAME)

    def _relabelling(self) -> None:
        support, query = self._support(12), self._features(5)
        slots = self._draw.permutation(self._manifest.limits.ways)
        renamed = Support(support.features, slots[support.y], support.weight)
        before, after = self._scores(support, query), self._scores(renamed, query)
        self._close("slots of the labels", before, after[..., slots], SAME)

    def _labels_matter(self, margin: float) -> None:
        """On real tasks, true labels beat shuffled ones."""
        ways = min(5, self._sample.classes, self._manifest.limits.ways)
        truth, shuffled = [], []
        for _ in range(30):
            classes = self._draw.choice(self._sample.classes, ways, replace=False)
            images = self._draw.choice(self._sample.images, 2, replace=False)
            first, second = (self._encoded(classes, np.full(ways, image)) for image in images)
            y = np.arange(ways)
            weight = np.ones(ways, np.float32)
            truth.append((self._guess(Support(first, y, weight), second) == y).mean())
            shuffled.append((self._guess(Support(first, self._draw.permutation(y), weight), second) == y).mean())
        gain = float(np.mean(truth) - np.mean(shuffled))
        self.report.note("true labels over shuffled", gain)
        if not gain >= margin:
            raise GateRefused("true labels over shuffled", f"the margin is {gain:.3f}, needed is {margin:g}")

    def _guess(self, support: Support, query: Arrays) -> np.ndarray:
        return np.asarray(np.argmax(self._scores(support, query), -1))

    def _scores(self, support: Support, query: Arrays) -> NDArray[np.float64]:
        scores: NDArray[np.float64] = _softmax(self._logits(self._onnx, support, query)).mean(1)
        return scores

    def _logits(self, runner: Runner, support: Support, query: Arrays) -> np.ndarray:
        state = adapt(runner, support.feed())
        rows = len(next(iter(query.values())))
        repeated = {name: np.repeat(array, rows, axis=0) for name, array in state.items()}
        return np.asarray(runner.run("predict", {**query, **repeated})["y"])

    def _inputs(self, rows: int) -> Arrays:
        classes = self._draw.integers(self._sample.classes, size=rows)
        return self._sample.take(classes, self._draw.integers(self._sample.images, size=rows))

    def _features(self, rows: int) -> Arrays:
        return self._onnx.run("encode", self._inputs(rows))

    def _encoded(self, classes: np.ndarray, images: np.ndarray) -> Arrays:
        return self._onnx.run("encode", self._sample.take(classes, images))

    def _support(self, examples: int, *, ways: int | None = None) -> Support:
        ways = min(ways or examples, self._manifest.limits.ways)
        y = np.arange(examples) % ways
        return Support(self._features(examples), y.astype(np.int64), np.ones(examples, np.float32))

    def _close(self, check: str, expected: np.ndarray, got: np.ndarray, tolerance: float) -> None:
        if expected.shape != got.shape:
            raise GateRefused(check, f"the shape is {got.shape}, expected {expected.shape}")
        difference = np.abs(got.astype(np.float64) - expected.astype(np.float64))
        allowed = tolerance * (1 + np.abs(expected.astype(np.float64)))
        worst = float((difference / allowed).max(initial=0.0)) * tolerance
        # A NaN on either side fails this comparison: it equals nothing.
        if not (difference <= allowed).all():
            raise GateRefused(check, f"differs by {worst:.3g} (relative and absolute), allowed is {tolerance:g}")
        self.report.note(check, worst)


def _softmax(logits: np.ndarray) -> np.ndarray:
    raised = np.exp(logits.astype(np.float64) - logits.max(-1, keepdims=True))
    return np.asarray(raised / raised.sum(-1, keepdims=True))
