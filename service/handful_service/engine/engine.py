"""Runs the graphs of one bundle, batched across tasks. Arrays in, arrays out: no HTTP, no SQL."""

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from ..bundle.bundle import GOLDEN, Bundle, Golden
from ..bundle.contradictions import PRIOR
from ..bundle.manifest import DESCRIBE_ID, DESCRIBE_METADATA, DESCRIBE_TEXT, GraphName
from ..bundle.signature import BATCH, INDEX, METADATA, TEXT, Signature
from ..errors import BundleInvalid, SignatureMismatch, SupportSetInvalid
from ..task import Array, Arrays, SupportSet
from .batcher import Batcher
from .runtime import RuntimeSettings, make_session
from .slots import SlotTables
from .times import RunTimes

T = TypeVar("T")
R = TypeVar("R")

SUPPORT_CHUNK = 64
"""Examples summarised in one float32 run; the sums of chunks are added in float64."""


@dataclass(frozen=True, slots=True)
class EngineLimits:
    """The bounds of an engine's batches and queues, in rows, and of its runs on the event loop, in milliseconds."""

    max_rows: int = 256
    max_queued_rows: int = 4096
    inline_ms: float = 5.0


@dataclass(frozen=True, slots=True)
class _Rows:
    """Rows of a prediction: the features of the inputs, each `[n, *feature]`, and the slots of their task states."""

    features: Arrays
    slots: Sequence[int]

    def __len__(self) -> int:
        return len(self.slots)


@dataclass(frozen=True, slots=True)
class _Adapt:
    """What one adapt starts from: statistics or a support set, and the state of a descriptor where there is one."""

    source: Arrays | SupportSet
    prior: Arrays | None


class Engine:
    """The sessions of one bundle and a batcher for each of its graphs.

    Args:
        bundle: A checked bundle.
        settings: What sessions run with.
        tables: Where the task states of prediction rows lie.
        executor: Threads for runs that would hold the event loop up.
        limits: Bounds of batches and queues.
        on_batch: Told the graph and rows of every batch.
    """

    def __init__(
        self,
        bundle: Bundle,
        settings: RuntimeSettings,
        *,
        tables: SlotTables,
        executor: Executor,
        limits: EngineLimits,
        on_batch: Callable[[str, int], None] = lambda graph, rows: None,
    ) -> None:
        self.manifest = bundle.manifest
        self._bundle = bundle
        self._tables = tables
        self._executor = executor
        self._limits = limits
        self._on_batch = on_batch
        self._sessions = {
            name: make_session(bundle.graph(name), file=graph.file, settings=settings)
            for name, graph in bundle.manifest.graphs.items()
        }
        self._times = {name: RunTimes() for name in self._sessions}
        self._encoder = self._batcher("encode", self._encode, lambda rows: len(next(iter(rows.values()))))
        self._describers = {graph: self._describer(graph) for graph in self._sessions if graph.startswith("describe.")}
        self._summariser = self._batcher("summarise", self._summarise, len)
        self._adapter = self._batcher("adapt", self._adapt, _adapt_rows)
        self._predictor = self._batcher("predict", self._predict, len)

    def _batcher(
        self, graph: GraphName, run: Callable[[Sequence[T]], Sequence[R]], rows: Callable[[T], int]
    ) -> Batcher[T, R]:
        times = self._times.get(graph) or RunTimes()

        def timed(items: Sequence[T]) -> Sequence[R]:
            started = time.perf_counter()
            results = run(items)
            times.record(sum(map(rows, items)), time.perf_counter() - started)
            return results

        async def off_loop(items: Sequence[T]) -> Sequence[R]:
            return await asyncio.get_running_loop().run_in_executor(self._executor, timed, items)

        return Batcher(
            off_loop,
            run_now=timed,
            is_short=lambda count: 1e3 * times.predicted_s(count) <= self._limits.inline_ms,
            rows=rows,
            max_rows=self._limits.max_rows,
            max_queued_rows=self._limits.max_queued_rows,
            on_batch=lambda count: self._on_batch(graph, count),
        )

    def _describer(self, graph: GraphName) -> Batcher[Arrays, Arrays]:
        return self._batcher(graph, lambda items: self._describe(graph, items), lambda descriptor: 1)

    async def encode(self, inputs: Arrays) -> Arrays:
        """Features `[n, *feature]` of inputs `[n, *input]`; a call larger than a batch is cut and rejoined."""
        n = len(next(iter(inputs.values())))
        if "encode" not in self._sessions or n == 0:
            return inputs if n else self.no_features()
        cuts = range(0, n, self._limits.max_rows)
        pieces = [{name: array[at : at + self._limits.max_rows] for name, array in inputs.items()} for at in cuts]
        parts = await self._encoder.submit(*pieces)
        return {name: _joined([part[name] for part in parts]) for name in self.manifest.features}

    async def describe(self, descriptor: Arrays) -> Arrays:
        """φ, each `[*state]`, of one descriptor.

        Args:
            descriptor: `index` int64 `[]`, the place of a known task in the bundle's list; or `metadata` float32
                `[fields]`, with an index where the bundle has them beside an id; or `text` int64 `[tokens]`.
        """
        graph = DESCRIBE_TEXT if TEXT in descriptor else DESCRIBE_METADATA if METADATA in descriptor else DESCRIBE_ID
        (state,) = await self._describers[graph].submit(descriptor)
        return state

    def no_features(self) -> Arrays:
        """Features of no row: arrays of length 0."""
        return {
            name: np.zeros((0, *(axis if isinstance(axis, int) else 0 for axis in spec.axes)), spec.dtype)
            for name, spec in self.manifest.features.items()
        }

    async def summarise(self, support: SupportSet) -> Arrays:
        """Additive statistics of a support set, float64, each `[*statistic]`; zero for an empty one."""
        chunks = [_chunk(support, at) for at in range(0, len(support), SUPPORT_CHUNK)]
        parts = await self._summariser.submit(*chunks) if chunks else []
        statistics: dict[str, Array] = {}
        for name, spec in (self.manifest.statistics or {}).items():
            total = np.zeros(spec.shape, np.float64)
            with np.errstate(invalid="ignore"):  # of infinities, which `adapt` refuses
                for part in parts:
                    total += part[name]
            statistics[name] = total
        return statistics

    async def adapt(self, source: Arrays | SupportSet, prior: Arrays | None = None) -> Arrays:
        """φ, each `[*state]`, of the statistics or, for a bundle without them, of a support set.

        Args:
            source: What is learned from.
            prior: The state that it starts from, where the bundle's adapt takes one.

        Raises:
            SupportSetInvalid: the numbers became so large that φ is not finite.
        """
        (state,) = await self._adapter.submit(_Adapt(source, prior))
        if not all(np.isfinite(array).all() for array in state.values()):
            raise SupportSetInvalid("gives a task state that is not finite", field="support", allowed="smaller inputs")
        return state

    async def predict(self, features: Arrays, slots: Sequence[int]) -> Array:
        """`y`, float32 `[n, member, column]`, of rows that may each belong to another task.

        Args:
            features: Of the inputs, each `[n, *feature]`; a call larger than a batch is cut and rejoined.
            slots: Where the task state of each row lies, `n` of them.
        """
        most = self._limits.max_rows
        if len(slots) <= most:
            (y,) = await self._predictor.submit(_Rows(features, slots))
            return y
        spans = [slice(at, at + most) for at in range(0, len(slots), most)]
        pieces = [_Rows({name: array[span] for name, array in features.items()}, slots[span]) for span in spans]
        return np.concatenate(await self._predictor.submit(*pieces))

    def _encode(self, items: Sequence[Arrays]) -> Sequence[Arrays]:
        counts = [len(next(iter(item.values()))) for item in items]
        merged = {name: _joined([item[name] for item in items]) for name in self.manifest.inputs}
        return _cut(self._run("encode", merged, sum(counts)), counts)

    def _describe(self, graph: GraphName, items: Sequence[Arrays]) -> Sequence[Arrays]:
        feed = {name: np.stack([item[name] for item in items]) for name in self._bundle.signatures[graph][0].tensors}
        return _rows(self._run(graph, feed, len(items)), len(items))

    def _summarise(self, items: Sequence[SupportSet]) -> Sequence[Arrays]:
        return _rows(self._run("summarise", self._padded(items), len(items)), len(items))

    def _adapt(self, items: Sequence[_Adapt]) -> Sequence[Arrays]:
        if self.manifest.statistics is None:
            feed = self._padded([item.source for item in items if isinstance(item.source, SupportSet)])
        else:
            statistics = [item.source for item in items if not isinstance(item.source, SupportSet)]
            with np.errstate(over="ignore"):
                feed = {
                    name: np.stack([item[name] for item in statistics]).astype(spec.dtype)
                    for name, spec in self.manifest.statistics.items()
                }
        if self.manifest.takes_prior:
            priors = [item.prior for item in items if item.prior is not None]
            feed = {
                **feed,
                **{PRIOR + name: np.stack([prior[name] for prior in priors]) for name in self.manifest.state},
            }
        return _rows(self._run("adapt", feed, len(items)), len(items))

    def _predict(self, items: Sequence[_Rows]) -> Sequence[Array]:
        slots = [slot for item in items for slot in item.slots]
        features = {name: _joined([item.features[name] for item in items]) for name in self.manifest.features}
        y = self._run("predict", {**features, **self._tables.gather(slots)}, len(slots))["y"]
        ends = np.cumsum([len(item) for item in items])
        return [y[end - len(item) : end] for item, end in zip(items, ends, strict=True)]

    def _padded(self, items: Sequence[SupportSet]) -> Arrays:
        """Support sets of different sizes as one batch: absent examples have weight 0."""
        size = max(1, *(len(item) for item in items))  # an empty support set is one absent example
        y = np.zeros((len(items), size, *items[0].y.shape[1:]), items[0].y.dtype)
        weight = np.zeros((len(items), size), np.float32)
        shapes = {name: items[0].features[name].shape[1:] for name in self.manifest.features}
        features = {
            f"{name}_s": np.zeros((len(items), size, *shapes[name]), spec.dtype)
            for name, spec in self.manifest.features.items()
        }
        for place, item in enumerate(items):
            y[place, : len(item)] = item.y
            weight[place, : len(item)] = item.weight
            for name in self.manifest.features:
                features[f"{name}_s"][place, : len(item)] = item.features[name]
        return {**features, "y_s": y, "weight_s": weight}

    def _run(self, graph: GraphName, feed: Arrays, rows: int) -> Arrays:
        names = list(self._bundle.signatures[graph][1].tensors)
        outputs = dict(zip(names, self._sessions[graph].run(names, dict(feed)), strict=True))
        for name, array in outputs.items():
            if len(array) != rows:
                raise RuntimeError(f"{graph}: {rows} rows in, {len(array)} rows of {name} out")
        return outputs

    def check_golden(self) -> None:
        """Run the golden inputs through every graph; this warms them up, too.

        Raises:
            BundleInvalid: a graph does not run, or an output differs by more than the graph's tolerance.
        """
        for name, golden in self._bundle.golden().items():
            takes, gives = self._bundle.signatures[name]
            file, tolerance = self.manifest.graphs[name].file, self.manifest.graphs[name].tolerance
            rows = _golden_rows(takes, gives, golden)
            try:
                started = time.perf_counter()
                outputs = self._run(name, golden.inputs, rows)
                self._times[name].record(_work_rows(golden, rows), time.perf_counter() - started)
                gives.check(outputs)
            except Exception as error:  # ONNX Runtime raises classes of its C++ binding without a common root
                raise BundleInvalid(f"cannot run its golden inputs: {error}", field=file) from error
            for tensor, expected in golden.outputs.items():
                # NaN equals nothing here, so a graph that lost its numbers is refused.
                if not np.allclose(outputs[tensor], expected, rtol=tolerance, atol=tolerance):
                    with np.errstate(invalid="ignore"):
                        difference = float(np.max(np.abs(outputs[tensor] - expected)))
                    raise BundleInvalid(
                        f"{tensor} differs from its golden value by {difference:.3g}",
                        field=file,
                        allowed=f"{tolerance:g}",
                    )
        self._check_tasks()

    def _check_tasks(self) -> None:
        """Describe every known task, so that no request is the first to find that the graph cannot."""
        tasks = list(self._bundle.known_tasks.items())
        for at in range(0, len(tasks), self._limits.max_rows):
            part = tasks[at : at + self._limits.max_rows]
            file, names = self.manifest.graphs[DESCRIBE_ID].file, f"{part[0][0]!r} to {part[-1][0]!r}"
            try:
                states = self._describe(DESCRIBE_ID, [{INDEX: np.asarray(task.index, np.int64)} for _, task in part])
            except Exception as error:  # see above
                raise BundleInvalid(f"cannot describe the tasks {names}: {error}", field=file) from error
            if not all(np.isfinite(array).all() for state in states for array in state.values()):
                raise BundleInvalid(f"gives a state that is not finite, of the tasks {names}", field=file)


def _golden_rows(takes: Signature, gives: Signature, golden: Golden) -> int:
    try:
        sizes, given = takes.check(golden.inputs), gives.check(golden.outputs)
    except SignatureMismatch as error:
        raise BundleInvalid(str(error), field=GOLDEN) from None
    if not sizes[BATCH] or sizes[BATCH] != given[BATCH]:
        raise BundleInvalid(f"has {sizes[BATCH]} rows in and {given[BATCH]} rows out", field=GOLDEN)
    return sizes[BATCH]


def _work_rows(golden: Golden, rows: int) -> int:
    """The rows that the batcher would count: of support sets, their examples."""
    return int(golden.inputs["y_s"].shape[1]) * rows if "y_s" in golden.inputs else rows


def _adapt_rows(item: _Adapt) -> int:
    return max(1, len(item.source)) if isinstance(item.source, SupportSet) else 1


def _chunk(support: SupportSet, at: int) -> SupportSet:
    span = slice(at, at + SUPPORT_CHUNK)
    features = {name: array[span] for name, array in support.features.items()}
    return SupportSet(features, support.y[span], support.weight[span])


def _joined(arrays: Sequence[Array]) -> Array:
    """Arrays `[n, …]` one after the other; of one, that one itself."""
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


def _cut(arrays: Arrays, counts: Sequence[int]) -> list[Arrays]:
    ends = np.cumsum(counts)
    return [
        {name: array[end - count : end] for name, array in arrays.items()}
        for end, count in zip(ends, counts, strict=True)
    ]


def _rows(arrays: Arrays, count: int) -> list[Arrays]:
    return [{name: array[row] for name, array in arrays.items()} for row in range(count)]
