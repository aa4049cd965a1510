"""Runs the graphs of one bundle, batched across tasks. Arrays in, arrays out: no HTTP, no SQL."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any, TypeVar

import numpy as np

from ..bundle.bundle import Bundle
from ..bundle.contradictions import PRIOR
from ..bundle.manifest import DESCRIBE_ID, DESCRIBE_METADATA, DESCRIBE_TEXT, GraphName
from ..bundle.signature import INDEX, METADATA, TEXT
from ..errors import BundleInvalid, SupportSetInvalid
from ..task import Array, Arrays, SupportSet
from .answering import Read, answers, cut_array, in_one
from .batcher import Batcher
from .calls import CALL, Call
from .graphs import Graphs
from .queueing import Reply
from .runtime import RuntimeSettings
from .scheduler import Kind, Scheduler
from .slots import SlotTables
from .times import RunTimes

T = TypeVar("T")
R = TypeVar("R")

SUPPORT_CHUNK = 64
"""Examples summarised in one float32 run; the sums of chunks are added in float64."""


@dataclass(frozen=True, slots=True)
class EngineLimits:
    """The bounds of an engine's batches and queues, in rows."""

    max_rows: int = 256
    max_queued_rows: int = 4096


_Rows = tuple[Arrays, Sequence[int]]
"""Rows of a prediction: the features of inputs, each `[n, …]`, and the slots of their states."""

_Asked = tuple[Arrays, Sequence[int], Read]
"""Rows of a call: the inputs, each `[n, …]`, the slots of their states, and how what comes of them is read."""


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
        scheduler: Says which graph runs next, and where; one for all engines of the process.
        limits: Bounds of batches and queues.
        on_batch: Told the graph and rows of every batch.
    """

    def __init__(
        self,
        bundle: Bundle,
        settings: RuntimeSettings,
        *,
        tables: SlotTables,
        scheduler: Scheduler,
        limits: EngineLimits,
        on_batch: Callable[[str, int], None] = lambda graph, rows: None,
    ) -> None:
        self.manifest = bundle.manifest
        self._bundle = bundle
        self._tables = tables
        self._scheduler = scheduler
        self.limits = limits
        self._on_batch = on_batch
        self._graphs = Graphs(bundle, settings)
        self._times = {name: RunTimes(limits.max_rows) for name in bundle.manifest.graphs}
        self._answer_times = RunTimes(limits.max_rows)
        self._encoder = self._batcher("encode", self._encode)
        self._support_encoder = self._batcher("encode", self._encode, Kind.LEARN)
        self._describers = {graph: self._describer(graph) for graph in self._times if graph.startswith("describe.")}
        self._summariser = self._batcher("summarise", self._summarise, Kind.LEARN)
        self._adapter = self._batcher("adapt", self._adapt, Kind.LEARN)
        self._predictor = self._batcher("predict", self._predict)
        self._answerer = Batcher(
            self._answer,
            scheduler=scheduler,
            max_rows=limits.max_rows,
            max_queued_rows=limits.max_queued_rows,
            times=self._answer_times,
            on_batch=self._on_answer,
        )

    def _batcher(
        self, graph: GraphName, run: Callable[[Sequence[T]], Sequence[R]], kind: Kind = Kind.PREDICT
    ) -> Batcher[T, R]:
        return Batcher(
            run,
            scheduler=self._scheduler,
            kind=kind,
            times=self._times.get(graph),
            max_rows=self.limits.max_rows,
            max_queued_rows=self.limits.max_queued_rows,
            on_batch=partial(self._on_batch, graph),
        )

    def _describer(self, graph: GraphName) -> Batcher[Arrays, Arrays]:
        return self._batcher(graph, partial(self._describe, graph))

    def refuse_if_saturated(self) -> None:
        """Refuse a prediction before anything is done for it, if its graphs have too much waiting.

        Raises:
            Overloaded: they have.
        """
        for batcher in (self._answerer, self._encoder, self._predictor):
            if batcher.waiting:
                self._scheduler.refuse_if_full(batcher)

    def admit(self, call: Call, rows: int) -> None:
        """Let in a call before its inputs are decoded: its runs then are not asked again.

        Args:
            call: Whose rows these are.
            rows: Of all its inputs.

        Raises:
            Overloaded: too much is waiting.
            DeadlineExceeded: the call cannot be answered in time.
        """
        self._encoder_of(call).admit(call, rows)

    def encoding_s(self, rows: int) -> float:
        """Predicted seconds of encoding some rows."""
        return self._encoder.cost_s(rows)

    def _encoder_of(self, call: Call | None) -> Batcher[Arrays, Arrays]:
        return self._support_encoder if call is not None and call.learns else self._encoder

    async def encode(self, inputs: Arrays) -> Arrays:
        """Features `[n, *feature]` of inputs `[n, *input]`; a call larger than a batch is cut and rejoined."""
        n = len(next(iter(inputs.values())))
        if not self._graphs.encodes or n == 0:
            return inputs if n else self.no_features()
        encoder = self._encoder_of(CALL.get())
        most = self.limits.max_rows
        if n <= most:
            return await encoder.submit(inputs, n)
        spans = [slice(at, min(n, at + most)) for at in range(0, n, most)]
        pieces = [{name: array[span] for name, array in inputs.items()} for span in spans]
        parts = await asyncio.gather(*encoder.submit_all(pieces, [span.stop - span.start for span in spans]))
        return {name: np.concatenate([part[name] for part in parts]) for name in self.manifest.features}

    async def describe(self, descriptor: Arrays) -> Arrays:
        """φ, each `[*state]`, of one descriptor.

        Args:
            descriptor: `index` int64 `[]`, the place of a known task in the bundle's list; or `metadata` float32
                `[fields]`, with an index where the bundle has them beside an id; or `text` int64 `[tokens]`.
        """
        graph = DESCRIBE_TEXT if TEXT in descriptor else DESCRIBE_METADATA if METADATA in descriptor else DESCRIBE_ID
        return await self._describers[graph].submit(descriptor, 1)

    def no_features(self) -> Arrays:
        """Features of no row: arrays of length 0."""
        return {
            name: np.zeros((0, *(axis if isinstance(axis, int) else 0 for axis in spec.axes)), spec.dtype)
            for name, spec in self.manifest.features.items()
        }

    async def summarise(self, support: SupportSet) -> Arrays:
        """Additive statistics of a support set, float64, each `[*statistic]`; zero for an empty one."""
        chunks = [_chunk(support, at) for at in range(0, len(support), SUPPORT_CHUNK)]
        parts: Sequence[Arrays] = []
        if chunks:
            parts = await asyncio.gather(*self._summariser.submit_all(chunks, [len(chunk) for chunk in chunks]))
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
        state = await self._adapter.submit(_Adapt(source, prior), _adapt_rows(source))
        if not all(np.isfinite(array).all() for array in state.values()):
            raise SupportSetInvalid("gives a task state that is not finite", field="support", allowed="smaller inputs")
        return state

    async def predict(self, features: Arrays, slots: Sequence[int]) -> Array:
        """`y`, float32 `[n, member, column]`, of rows that may each belong to another task.

        Args:
            features: Of the inputs, each `[n, *feature]`; a call larger than a batch is cut and rejoined.
            slots: Where the task state of each row lies, `n` of them.
        """
        most = self.limits.max_rows
        if len(slots) <= most:
            return await self._predictor.submit((features, slots), len(slots))
        spans = [slice(at, at + most) for at in range(0, len(slots), most)]
        pieces = [({name: array[span] for name, array in features.items()}, slots[span]) for span in spans]
        parts = self._predictor.submit_all(pieces, [len(piece[1]) for piece in pieces])
        return np.concatenate(await asyncio.gather(*parts))

    def answer(
        self, call: Call | None, inputs: Arrays, slots: Sequence[int], read: Read, reply: Reply[Sequence[Any]]
    ) -> None:
        """Encode, predict and read in one go: what the rows come to is given to a reply.

        Args:
            call: Whose rows these are.
            inputs: Each `[n, *input]`, no more than a batch holds.
            slots: Where the task state of each row lies, `n` of them.
            read: What `y`, float32 `[n, member, column]`, comes to, row by row. It may be run in a thread, with the
                rows of all calls of a batch that have the same one.
            reply: Takes that, or an error: `FeaturesNotFinite` where an input has none that are.

        Raises:
            Overloaded: too much is waiting.
            DeadlineExceeded: the call cannot be answered in time.
        """
        self._answerer.submit_for(call, (inputs, slots, read), len(slots), reply)

    def _on_answer(self, rows: int) -> None:
        if self._graphs.encodes:
            self._on_batch("encode", rows)
        self._on_batch("predict", rows)

    def _answer(self, items: Sequence[_Asked]) -> Sequence[Sequence[Any] | Exception]:
        inputs = {name: in_one([item[0][name] for item in items]) for name in self.manifest.inputs}
        counts = [len(slots) for _, slots, _ in items]
        states = self._states([slots for _, slots, _ in items])
        features, y = self._graphs.encode_and_predict(inputs, states, sum(counts))
        return answers(y, features, counts, [read for _, _, read in items])

    def _encode(self, items: Sequence[Arrays]) -> Sequence[Arrays]:
        counts = [len(next(iter(item.values()))) for item in items]
        merged = {name: in_one([item[name] for item in items]) for name in self.manifest.inputs}
        return _cut(self._graphs.run("encode", merged, sum(counts)), counts)

    def _describe(self, graph: GraphName, items: Sequence[Arrays]) -> Sequence[Arrays]:
        feed = {name: np.stack([item[name] for item in items]) for name in self._bundle.signatures[graph][0].tensors}
        return _rows(self._graphs.run(graph, feed, len(items)), len(items))

    def _summarise(self, items: Sequence[SupportSet]) -> Sequence[Arrays]:
        return _rows(self._graphs.run("summarise", self._padded(items), len(items)), len(items))

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
        return _rows(self._graphs.run("adapt", feed, len(items)), len(items))

    def _predict(self, items: Sequence[_Rows]) -> Sequence[Array]:
        features = {name: in_one([features[name] for features, _ in items]) for name in self.manifest.features}
        counts = [len(slots) for _, slots in items]
        states = self._states([slots for _, slots in items])
        y = self._graphs.run("predict", {**states, **features}, sum(counts))["y"]
        return cut_array(y, counts)

    def _states(self, slots: Sequence[Sequence[int]]) -> Arrays:
        """The state of each row of all items, from its slot."""
        return self._tables.gather(slots[0] if len(slots) == 1 else list(chain.from_iterable(slots)))

    def _padded(self, items: Sequence[SupportSet]) -> dict[str, Array]:
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

    def check_golden(self) -> None:
        """Run the golden inputs through every graph; this warms them up, too.

        Raises:
            BundleInvalid: a graph does not run, or an output differs by more than the graph's tolerance.
        """
        for name, (rows, seconds) in self._graphs.check_golden().items():
            self._times[name].record(rows, seconds)
        answering = [self._times[name].predicted_s(1) for name in ("encode", "predict") if name in self._times]
        self._answer_times.record(1, sum(answering))
        self._check_tasks()

    def _check_tasks(self) -> None:
        """Describe every known task, so that no request is the first to find that the graph cannot."""
        tasks = list(self._bundle.known_tasks.items())
        for at in range(0, len(tasks), self.limits.max_rows):
            part = tasks[at : at + self.limits.max_rows]
            file, names = self.manifest.graphs[DESCRIBE_ID].file, f"{part[0][0]!r} to {part[-1][0]!r}"
            try:
                states = self._describe(DESCRIBE_ID, [{INDEX: np.asarray(task.index, np.int64)} for _, task in part])
            except Exception as error:  # see above
                raise BundleInvalid(f"cannot describe the tasks {names}: {error}", field=file) from error
            if not all(np.isfinite(array).all() for state in states for array in state.values()):
                raise BundleInvalid(f"gives a state that is not finite, of the tasks {names}", field=file)


def _adapt_rows(source: Arrays | SupportSet) -> int:
    return max(1, len(source)) if isinstance(source, SupportSet) else 1


def _chunk(support: SupportSet, at: int) -> SupportSet:
    span = slice(at, at + SUPPORT_CHUNK)
    features = {name: array[span] for name, array in support.features.items()}
    return SupportSet(features, support.y[span], support.weight[span])


def _cut(arrays: Arrays, counts: Sequence[int]) -> list[Arrays]:
    if len(counts) == 1:
        return [arrays]
    parts = {name: cut_array(array, counts) for name, array in arrays.items()}
    return [{name: of_name[place] for name, of_name in parts.items()} for place in range(len(counts))]


def _rows(arrays: Arrays, count: int) -> list[Arrays]:
    return [{name: array[row] for name, array in arrays.items()} for row in range(count)]
