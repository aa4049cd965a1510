"""The export gate: a bundle that breaks a law of serving is refused here, before anyone can publish it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from handful_service.bundle.manifest import Manifest
from handful_service.task import Arrays

from .closeness import OUTLIER, PARITY, SAME, Comparing, Report
from .errors import GateRefused
from .known import DESCRIBE_ID, INDEX, KnownTasks
from .runner import Runner, adapt, encode, support_feed
from .sample import Labelled, Sample

SIZES = ((1, 1), (2, 7), (7, 2))
"""(batch, support) sizes that every graph is run at, besides the largest support set that the limits allow."""

ORDERS = 20
"""Orders of a support set that the spread is measured over."""

TRIALS = 30
"""Real tasks on which true labels must beat shuffled ones."""


@dataclass(frozen=True, slots=True)
class Support:
    """A support set of one task, as arrays of one batch row."""

    features: Arrays
    y: np.ndarray
    weight: np.ndarray

    def feed(self) -> Arrays:
        """The inputs of the graphs that take support sets, with batch 1."""
        return support_feed(self.features, self.y, self.weight)

    def at(self, places: np.ndarray) -> "Support":
        """The examples at some places, in that order."""
        return Support({name: a[places] for name, a in self.features.items()}, self.y[places], self.weight[places])


class Gate(Comparing):
    """The checks of one bundle.

    Args:
        manifest: What the bundle declares.
        torch: The learner.
        onnx: Its exported graphs.
        sample: Real examples.
        known: The tasks that it knows without examples, if any.
        seed: Of the draws.
    """

    def __init__(
        self,
        manifest: Manifest,
        torch: Runner,
        onnx: Runner,
        sample: Sample,
        known: KnownTasks | None = None,
        *,
        seed: int = 0,
    ) -> None:
        super().__init__(torch, onnx)
        self._manifest = manifest
        self._sample = sample
        self._known = known
        self._draw = np.random.default_rng(seed)
        self._of_class = manifest.output.kind == "class"
        self._limit = manifest.limits.examples or 0

    def run(self, *, margin: float | None) -> Report:
        """Every check.

        Args:
            margin: By how much accuracy with true labels must exceed accuracy with shuffled ones; for numbers, by
                which part of itself the squared error must fall.

        Raises:
            GateRefused: a check failed.
        """
        for check in (*self._of_known_tasks(), *(self._of_support_sets() if self._manifest.learns else ())):
            check()
        if margin is not None and self._manifest.learns:
            self._labels_matter(margin)
        return self.report

    def _of_known_tasks(self) -> tuple[Callable[[], None], ...]:
        return () if self._known is None else (self._known_states,)

    def _of_support_sets(self) -> tuple[Callable[[], None], ...]:
        declared = self._manifest.invariant
        return (
            self._parity,
            self._padding,
            self._rows_apart,
            self._sensitivity,
            self._every_example_counts,
            self._order if "order" in declared else self._spread_over_orders,
            *((self._relabelling,) if "labels" in declared else ()),
            *((self._empty_support,) if "base" in self._manifest.accepts else ()),
        )

    def _known_states(self) -> None:
        """Each id gives its own state, and under those, torch and ONNX agree and rows do not touch each other."""
        assert self._known is not None  # noqa: S101 (for the type checker)
        states = self._known.states
        tasks = len(self._known.entries)
        for index in (np.arange(tasks), np.arange(tasks)[::-1].copy(), np.zeros(1, np.int64)):
            found = self._onnx.run(DESCRIBE_ID, {INDEX: index.astype(np.int64)})
            for name, array in states.items():
                self._close("states of known tasks", array[index], found[name], SAME)
        for batch in (1, 2, 7):
            rows = self._draw.integers(tasks, size=batch)
            features = self._both_encode(self._inputs(batch))
            given = {**features, **{name: array[rows] for name, array in states.items()}}
            self._same("predict", given)
            if batch > 2:
                self._apart("predict", given)

    def _parity(self) -> None:
        for batch, examples in (*SIZES, (2, self._limit)):
            inputs = self._inputs(batch)
            features = self._both_encode(inputs)
            feed = _stacked([self._support(examples) for _ in range(batch)])
            source = self._same("summarise", feed) if self._onnx.additive else feed
            self._same("predict", {**features, **self._same("adapt", source)})

    def _padding(self) -> None:
        """Absent examples with wild features change nothing, wherever they stand."""
        support, query = self._support(7), self._features(5)
        expected = self._scores(support, query)
        wild = Support(
            {name: np.full_like(array[:1], OUTLIER) for name, array in support.features.items()},
            np.zeros_like(support.y[:1]) if self._of_class else np.full_like(support.y[:1], OUTLIER),
            np.zeros(1, np.float32),
        )
        joined = Support(
            {name: np.concatenate([array, wild.features[name]]) for name, array in support.features.items()},
            np.concatenate([support.y, wild.y]),
            np.concatenate([support.weight, wild.weight]),
        )
        for absent in ((0, 0, 0), (4,), (7, 7, 7), (0, 3, 3, 5, 7)):
            padded = joined.at(np.insert(np.arange(7), absent, 7))
            self._close("padding", expected, self._scores(padded, query), SAME)

    def _empty_support(self) -> None:
        """Without any example there is an answer, and it is torch's."""
        support, query = self._support(1), self._features(5)
        nothing = Support(support.features, support.y, np.zeros_like(support.weight))
        expected, got = (self._logits(runner, nothing, query) for runner in (self._torch, self._onnx))
        self._close("parity of the empty support set", expected, got, PARITY)

    def _rows_apart(self) -> None:
        """No row changes when a neighbour becomes an outlier, in any graph."""
        inputs = self._inputs(4)
        features = encode(self._onnx, inputs)
        feed = _stacked([self._support(7) for _ in range(4)])
        if self._onnx.encodes:
            self._apart("encode", inputs)
        if self._onnx.additive:
            self._apart("summarise", feed)
        self._apart("adapt", self._onnx.run("summarise", feed) if self._onnx.additive else feed)
        self._apart("predict", {**features, **adapt(self._onnx, feed)})

    def _sensitivity(self) -> None:
        """Dropping an example, and swapping two labels, changes the answer, and as much as torch's."""
        support, query = self._support(6, ways=3), self._features(8)
        kept = support.at(np.arange(1, 6))
        other = int(np.abs(support.y - support.y[0]).reshape(6).argmax())
        y = support.y.copy()
        y[[0, other]] = y[[other, 0]]
        swapped = Support(support.features, y, support.weight)
        for what, changed in (("dropping an example", kept), ("swapping two labels", swapped)):
            change = self._logits(self._onnx, changed, query) - self._logits(self._onnx, support, query)
            expected = self._logits(self._torch, changed, query) - self._logits(self._torch, support, query)
            self._close(f"sensitivity to {what}", expected, change, 2 * PARITY)
            if not np.abs(change).max() > SAME:
                raise GateRefused(f"sensitivity to {what}", "the answer does not depend on it")

    def _every_example_counts(self) -> None:
        """The last example of the largest support set that the limits allow changes the state: none is cut off."""
        full = self._support(self._limit)
        weight = full.weight.copy()
        weight[-1] = 0
        less = Support(full.features, full.y, weight)
        before, after = (adapt(self._onnx, support.feed()) for support in (full, less))
        if all(np.array_equal(before[name], after[name]) for name in before):
            raise GateRefused("the largest support set", "the state does not depend on its last example")

    def _order(self) -> None:
        support, query = self._support(12), self._features(5)
        turned = support.at(self._draw.permutation(12))
        self._close("order of the support set", self._scores(support, query), self._scores(turned, query), SAME)

    def _spread_over_orders(self) -> None:
        """How far apart the answers under some orders of one support set lie: the largest standard deviation."""
        support, query = self._support(12), self._features(5)
        orders = [self._scores(support.at(self._draw.permutation(12)), query) for _ in range(ORDERS)]
        self.report.note("spread over orders", float(np.std(orders, axis=0).max()))

    def _relabelling(self) -> None:
        support, query = self._support(12), self._features(5)
        slots = self._draw.permutation(self._manifest.ways)
        renamed = Support(support.features, slots[support.y], support.weight)
        before, after = self._scores(support, query), self._scores(renamed, query)
        self._close("slots of the labels", before, after[..., slots], SAME)

    def _labels_matter(self, margin: float) -> None:
        """On real tasks, true labels beat shuffled ones."""
        truth: list[float] = []
        shuffled: list[float] = []
        for _ in range(TRIALS):
            support, query = self._sample.trial(self._draw, self._manifest.ways)
            features, asked = encode(self._onnx, support.inputs), encode(self._onnx, query.inputs)
            weight = np.ones(len(support.y), np.float32)
            for found, y in ((truth, support.y), (shuffled, self._draw.permutation(support.y))):
                found.append(self._quality(Support(features, y, weight), asked, query))
        gain = float(np.mean(truth) - np.mean(shuffled))
        if not self._of_class:
            gain /= -float(np.mean(shuffled))
        self.report.note("true labels over shuffled", gain)
        if not gain >= margin:
            raise GateRefused("true labels over shuffled", f"the margin is {gain:.3f}, needed is {margin:g}")

    def _quality(self, support: Support, asked: Arrays, query: Labelled) -> float:
        """Accuracy, or the squared error of numbers with a minus before it."""
        found = self._scores(support, asked)
        if self._of_class:
            return float((found.argmax(-1) == query.y).mean())
        return -float(np.square(found[:, :1] - query.y).mean())

    def _scores(self, support: Support, query: Arrays) -> NDArray[np.float64]:
        """Chances by slot `[query, way]`, or means and log-variances `[query, 2]`, averaged over members."""
        y = self._logits(self._onnx, support, query).astype(np.float64)
        scores: NDArray[np.float64] = (_softmax(y) if self._of_class else y).mean(1)
        return scores

    def _logits(self, runner: Runner, support: Support, query: Arrays) -> np.ndarray:
        state = adapt(runner, support.feed())
        rows = len(next(iter(query.values())))
        repeated = {name: np.repeat(array, rows, axis=0) for name, array in state.items()}
        return np.asarray(runner.run("predict", {**query, **repeated})["y"])

    def _inputs(self, rows: int) -> Arrays:
        return self._sample.draw(self._draw, rows).inputs

    def _features(self, rows: int) -> Arrays:
        return encode(self._onnx, self._inputs(rows))

    def _support(self, examples: int, *, ways: int | None = None) -> Support:
        drawn = self._sample.draw(self._draw, examples)
        slots = np.arange(examples, dtype=np.int64) % max(1, min(ways or examples, self._manifest.ways))
        y = slots if self._of_class else drawn.y
        return Support(encode(self._onnx, drawn.inputs), y, np.ones(examples, np.float32))


def _softmax(logits: np.ndarray) -> np.ndarray:
    raised = np.exp(logits.astype(np.float64) - logits.max(-1, keepdims=True))
    return np.asarray(raised / raised.sum(-1, keepdims=True))


def _stacked(supports: Sequence[Support]) -> Arrays:
    """The inputs of one run for several support sets of one size."""
    feeds = [support.feed() for support in supports]
    return {name: np.concatenate([feed[name] for feed in feeds]) for name in feeds[0]}
