"""Medians, the best of the peers, ratios, and what they are held to."""

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from loadtests.peers.catalogue import OURS

Run = Mapping[str, Any]
FIGURES = ("requests_per_s", "p50_ms", "p99_ms", "cpu_us", "pss_mb", "failed")


@dataclass(frozen=True, slots=True)
class Bound:
    """The least, or with `at_most` the most, that is asked.

    Attributes:
        first: Of the first step; None where it asks nothing.
        second: Of the second step.
    """

    first: float | None
    second: float | None
    at_most: bool = False


@dataclass(frozen=True, slots=True)
class Held:
    """A figure beside what it is held to; None where it was not measured."""

    what: str
    value: float | None
    bound: Bound

    def reached(self, step: str) -> bool | None:
        """Whether the figure is reached in a step; None where nothing is asked or nothing was measured."""
        asked = getattr(self.bound, step)
        if asked is None or self.value is None:
            return None
        return bool(self.value <= asked if self.bound.at_most else self.value >= asked)


RATIOS = {
    ("MLP", 1): Bound(1.25, 1.4),
    ("MLP", 16): Bound(1.5, 2.5),
    ("MLP", 64): Bound(0.85, 1.4),
    ("Conv-4", 1): Bound(0.9, 1.15),
    ("Conv-4", 16): Bound(1.5, 1.6),
    ("Conv-4", 64): Bound(1.05, 1.2),
}
"""Throughput, as a multiple of that of the best setting of the best peer at the same number of connections."""

BY_HAND = Bound(2.0, 2.0)
P99 = Bound(1.0, 1.0, at_most=True)
CPU_JSON, CPU_BYTES = Bound(170.0, 75.0, at_most=True), Bound(None, 50.0, at_most=True)
NO_LEVER = Bound(0.9, 0.9)
ROWS_PER_S = Bound(40_000.0, 40_000.0)
ONE_SESSION_A_USER, GATHERED = Bound(1.3, 3.0), Bound(None, 1.0)
CONV4_HEADS, CONV4_MEMORY = Bound(1.3, 1.3), Bound(0.1, 0.1, at_most=True)


class Medians:
    """The median of every figure over the repetitions, by setting, workload and connections."""

    def __init__(self, runs: Sequence[Run]) -> None:
        groups: dict[tuple[str, str, int], list[Run]] = {}
        for run in runs:
            groups.setdefault((run["setting"], run["workload"], run["connections"]), []).append(run)
        self.rows: list[Run] = [median_of(group) for group in groups.values()]

    def best(self, workload: str, connections: int, keep: Callable[[Run], bool]) -> Run | None:
        """The row with the highest throughput among those kept."""
        found = [row for row in self.at(workload, connections) if keep(row)]
        return max(found, key=lambda row: float(row["requests_per_s"]), default=None)

    def at(self, workload: str, connections: int) -> list[Run]:
        """The rows of a workload at a number of connections."""
        return [row for row in self.rows if (row["workload"], row["connections"]) == (workload, connections)]

    def ours(self, workload: str, connections: int) -> Run | None:
        """The row of our own server with its defaults."""
        return self.best(workload, connections, lambda row: row["peer"] == OURS and row["default"])


def median_of(group: Sequence[Run]) -> Run:
    """The runs of one setting, workload and number of connections as one: medians, and the sum of failed calls."""
    found = {**group[0], **{name: statistics.median(run[name] for run in group) for name in FIGURES}}
    del found["repetition"]
    return {**found, "failed": sum(run["failed"] for run in group), "runs": len(group)}


def is_peer(row: Run) -> bool:
    """Whether it is not our own server."""
    return bool(row["peer"] != OURS)


def ratio(one: Run | None, other: Run | None, figure: str = "requests_per_s") -> float | None:
    """How many times the other's figure the one's is; None where one of them is missing, or the other's is 0."""
    if one is None or other is None or not other[figure]:
        return None
    return float(one[figure]) / float(other[figure])


@dataclass(frozen=True, slots=True)
class Compared:
    """Ours beside another server, at the same number of connections.

    Attributes:
        what: In words.
        mine, other: Their rows; None where one was not measured.
        figure: Which one is divided by which.
    """

    what: str
    mine: Run | None
    other: Run | None
    bound: Bound
    figure: str = "requests_per_s"

    @property
    def pair(self) -> "Pair | None":
        """What is to be asked by turns for it; None where one is missing, or it is no figure of a single run."""
        if self.mine is None or self.other is None or self.figure not in IN_PAIRS:
            return None
        return Pair(self.mine["workload"], self.mine["connections"], self.other["setting"])


@dataclass(frozen=True, slots=True)
class Pair:
    """Ours with its defaults, and another setting, to be asked by turns."""

    workload: str
    connections: int
    other: str


IN_PAIRS = ("requests_per_s", "p99_ms")
"""Figures that are measured in pairs."""


class Rounds:
    """What was measured in pairs.

    Args:
        rounds: Of all pairs.
    """

    def __init__(self, rounds: Sequence[Run] = ()) -> None:
        self.pairs: dict[Pair, list[Run]] = {}
        for one in rounds:
            pair = Pair(one["workload"], one["connections"], one["other"])
            self.pairs.setdefault(pair, []).append(one)

    def ratios(self, pair: Pair, figure: str = "requests_per_s") -> list[float]:
        """How many times the other's figure ours is, in each round, by size."""
        rounds = self.pairs.get(pair, [])
        return sorted(float(one["mine"][figure]) / float(one["its"][figure]) for one in rounds if one["its"][figure])


def held_to(medians: Medians, rounds: Rounds | None = None) -> list[Held]:
    """Every figure with what it is held to: of pairs that were asked by turns, the median of the rounds."""

    def held(comparisons: Iterator[Compared]) -> list[Held]:
        return [Held(one.what, _value(one, rounds or Rounds()), one.bound) for one in comparisons]

    return [*held(_shared(medians)), *_costs(medians), *held(_no_lever(medians)), *held(_personal(medians))]


def pairs_of(medians: Medians) -> list[Pair]:
    """All that is worth to be asked by turns."""
    return list(dict.fromkeys(one.pair for one in compared(medians) if one.pair is not None))


def compared(medians: Medians) -> list[Compared]:
    """All comparisons of ours with another server."""
    return [*_shared(medians), *_no_lever(medians), *_personal(medians)]


def _value(one: Compared, rounds: Rounds) -> float | None:
    found = [] if one.pair is None else rounds.ratios(one.pair, one.figure)
    return statistics.median(found) if found else ratio(one.mine, one.other, one.figure)


def _shared(medians: Medians) -> Iterator[Compared]:
    for (work, connections), bound in RATIOS.items():
        mine, best = medians.ours(work, connections), medians.best(work, connections, is_peer)
        beside = f" ({best['setting']})" if best else ""
        where = f"{work}, {connections} connection{'s' if connections > 1 else ''}"
        yield Compared(f"{where}: throughput × that of the best peer{beside}", mine, best, bound)
        yield Compared(f"{where}: p99 × that of the same", mine, best, P99, "p99_ms")
        if connections > 1:
            by_hand = medians.best(work, connections, lambda row: row["peer"] == "fastapi")
            yield Compared(f"{where}: throughput × that of FastAPI by hand", mine, by_hand, BY_HAND)


def _costs(medians: Medians) -> Iterator[Held]:
    for work, bound in (("MLP", CPU_JSON), ("MLP, bytes", CPU_BYTES)):
        mine = medians.ours(work, 64)
        yield Held(f"{work}, 64 connections: CPU µs a request", mine and float(mine["cpu_us"]), bound)
    many = medians.ours("MLP, 16 rows", 16)
    yield Held(
        "MLP, 16 rows a request, 16 connections: rows/s", many and 16 * float(many["requests_per_s"]), ROWS_PER_S
    )


def _no_lever(medians: Medians) -> Iterator[Compared]:
    for work in ("MLP", "Conv-4"):
        for connections, name in ((1, "unbatched"), (64, "in batches of 64")):
            other = medians.best(
                work,
                connections,
                lambda row, name=name: row["setting"] == f"{OURS}, {name}",  # type: ignore[misc]
            )
            where = f"{work}, {connections} connection{'s' if connections > 1 else ''}"
            what = f"{where}: throughput × that of ours {name}"
            yield Compared(what, medians.ours(work, connections), other, NO_LEVER)


def _personal(medians: Medians) -> Iterator[Compared]:
    name = "personal heads"
    mine = medians.ours(name, 64)
    own = medians.best(name, 64, lambda row: row["way"] == "sessions")
    gathered = medians.best(name, 64, lambda row: row["way"] == "gathered")
    yield Compared(f"{name}: throughput × the best peer's with a session a user", mine, own, ONE_SESSION_A_USER)
    yield Compared(f"{name}: throughput × a peer's with heads gathered by hand", mine, gathered, GATHERED)
    name = "Conv-4, personal heads"
    mine, own = medians.ours(name, 64), medians.best(name, 64, lambda row: row["way"] == "sessions")
    yield Compared(f"{name}: throughput × the best peer's with a session a user", mine, own, CONV4_HEADS)
    yield Compared(f"{name}: memory × that of the same", mine, own, CONV4_MEMORY, "pss_mb")
