"""What is counted, in Prometheus' form. No label names an adaptation or a tenant."""

import asyncio
from bisect import bisect_left
from collections import Counter as Counts
from collections.abc import Callable, Sequence
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from .shared_values import keep_in

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
SETTLE_S = 0.05
"""How long what was noted waits until it is counted: `/metrics` of this process does not wait for it."""

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


class _Notes:
    """Values that wait to be counted, all of them at once.

    Args:
        count: Counts some.

    Attributes:
        note: Takes a value, in whatever thread.
    """

    def __init__(self, count: Callable[[Sequence[float]], None]) -> None:
        self._count = count
        self._values: list[float] = []
        self.note = self._values.append

    def settle(self) -> None:
        """Count what was noted."""
        if self._values:
            values = self._values[:]
            del self._values[: len(values)]  # others may have come
            self._count(values)


def _observer(histogram: Histogram) -> Callable[[Sequence[float]], None]:
    """What observes some values as `observe` does each of them, which takes much longer.

    Args:
        histogram: With its labels.
    """
    bounds, buckets, total = histogram._upper_bounds, histogram._buckets, histogram._sum

    def observe(values: Sequence[float]) -> None:
        total.inc(sum(values))
        for place, count in Counts([bisect_left(bounds, value) for value in values]).items():
            buckets[place].inc(count)

    return observe


class Metrics:
    """The metrics of one server.

    Args:
        folder: Where the processes of a server keep what each of them counts; None: there is one process.

    Attributes:
        under_way: Requests at work in this process.
    """

    def __init__(self, folder: Path | None = None) -> None:
        if folder is not None:
            keep_in(folder)
        self._folder = folder
        self.under_way = 0
        self._notes: list[_Notes] = []
        self._settle_at: asyncio.Handle | None = None
        self._answered: dict[tuple[str, str, int], Callable[[float], None]] = {}
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "handful_requests", "Answered requests.", ["method", "route", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "handful_request_seconds",
            "Time from the first byte of a request to its answer.",
            ["route"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.in_flight = Gauge(
            "handful_requests_in_flight", "Requests at work.", registry=self.registry, multiprocess_mode="livesum"
        )
        self.batch_rows = Histogram(
            "handful_batch_rows", "Rows of each graph run.", ["model", "graph"], buckets=_ROWS, registry=self.registry
        )
        self.cached = Gauge(
            "handful_states_cached",
            "Task states in slots.",
            ["model", "version"],
            registry=self.registry,
            multiprocess_mode="livesum",
        )
        self.bundles = Gauge(
            "handful_bundle",
            "1 for every bundle served.",
            ["model", "version", "digest"],
            registry=self.registry,
            multiprocess_mode="livemax",
        )
        self.workers = Gauge(
            "handful_workers_ready", "Workers that are ready.", registry=self.registry, multiprocess_mode="livesum"
        )
        self.restarts = Counter(
            "handful_worker_restarts", "Workers started in place of one that ended.", registry=self.registry
        )

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        """Note an answered request, to be counted a little later."""
        key = (method, route, status)
        found = self._answered.get(key)
        if found is None:
            found = self._answered[key] = self._counting(method, route, status)
        found(seconds)
        if self._settle_at is None:
            self._settle_soon()

    def _counting(self, method: str, route: str, status: int) -> Callable[[float], None]:
        number, observe = self.requests.labels(method, route, status), _observer(self.seconds.labels(route))

        def count(seconds: Sequence[float]) -> None:
            number.inc(len(seconds))
            observe(seconds)

        return self._noting(count)

    def _noting(self, count: Callable[[Sequence[float]], None]) -> Callable[[float], None]:
        notes = _Notes(count)
        self._notes = [*self._notes, notes]
        return notes.note

    def _settle_soon(self) -> None:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:  # nobody would do it later
            self.settle()
        else:
            self._settle_at = loop.call_later(SETTLE_S, self.settle)

    def settle(self) -> None:
        """Count all that was noted: many at a time take less than each where it happens, between other work."""
        self._settle_at = None
        self.in_flight.set(self.under_way)
        for notes in self._notes:
            notes.settle()

    def batch_observer(self, model: str) -> Callable[[str, int], None]:
        """A function that is told the graph and rows of each batch of a model."""
        found: dict[str, Callable[[float], None]] = {}

        def observe(graph: str, rows: int) -> None:
            if graph not in found:
                found[graph] = self._noting(_observer(self.batch_rows.labels(model, graph)))
            found[graph](rows)  # settled with the calls that it answers

        return observe

    def text(self) -> bytes:
        """All metrics, as `/metrics` gives them: those of every process of the server, and of those that are dead."""
        self.settle()
        if self._folder is None:
            return generate_latest(self.registry)
        registry = CollectorRegistry()
        MultiProcessCollector(registry, str(self._folder))  # type: ignore[no-untyped-call]
        return generate_latest(registry)

    def forget(self, process: int) -> None:
        """Take a dead process out of the gauges; what it counted stays."""
        mark_process_dead(process, str(self._folder))  # type: ignore[no-untyped-call]
