"""Sends the calls of a workload, in an open or a closed loop, and measures each one.

In the open loop calls leave at times that are drawn beforehand, whatever the server does, and the latency of a call
counts from the time at which it should have left: a server that stalls is charged for everyone who came meanwhile. In
the closed loop each connection sends its next call when it has the answer: that shows how many calls there can be.
"""

import asyncio
import math
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field

from loadtests.client import Request

Send = Callable[[Request], Awaitable[tuple[int, bytes]]]
Draw = Callable[[random.Random], Request]

PERCENTILES = (50, 95, 99)


@dataclass
class Measured:
    """What became of the calls of one run.

    Attributes:
        seconds: From the first intended departure to the last answer.
        latencies: Seconds of each answered call, by its kind.
        statuses: How often each status came that is not 2xx; 0 is a broken connection.
    """

    seconds: float = 0.0
    latencies: dict[str, list[float]] = field(default_factory=dict)
    statuses: Counter[int] = field(default_factory=Counter)

    def take(self, kind: str, seconds: float, status: int) -> None:
        """Count one answer."""
        if 200 <= status < 300:
            self.latencies.setdefault(kind, []).append(seconds)
        else:
            self.statuses[status] += 1

    @property
    def answered(self) -> int:
        """Calls that were answered with 2xx."""
        return sum(map(len, self.latencies.values()))

    def as_dict(self) -> dict[str, object]:
        """The figures, with latencies in milliseconds."""
        every = [seconds for found in self.latencies.values() for seconds in found]
        figures: dict[str, object] = {
            "requests": self.answered,
            "failed": dict(self.statuses),
            "seconds": round(self.seconds, 2),
            "requests_per_s": round(self.answered / self.seconds, 1) if self.seconds else 0.0,
            "latency_ms": percentiles_ms(every),
        }
        if len(self.latencies) > 1:
            figures["latency_ms_by_kind"] = {kind: percentiles_ms(found) for kind, found in self.latencies.items()}
        return figures


def percentiles_ms(seconds: Sequence[float]) -> dict[str, float]:
    """Percentiles and the maximum, in milliseconds; the nearest rank, so that each is a latency that was there."""
    if not seconds:
        return {}
    ordered = sorted(seconds)
    found = {f"p{q}": ordered[max(0, math.ceil(q / 100 * len(ordered)) - 1)] for q in PERCENTILES}
    return {name: round(1e3 * value, 3) for name, value in {**found, "max": ordered[-1]}.items()}


def departures(rng: random.Random, rate: float, seconds: float) -> Iterator[float]:
    """Seconds at which calls leave: a Poisson process, as that of many who do not know of each other."""
    at = rng.expovariate(rate)
    while at < seconds:
        yield at
        at += rng.expovariate(rate)


async def open_loop(send: Send, draw: Draw, *, rate: float, seconds: float, seed: int) -> Measured:
    """Calls that leave at a rate, in calls a second, on average."""
    rng = random.Random(seed)
    plan = [(at, draw(rng)) for at in departures(rng, rate, seconds)]
    measured, calls, start = Measured(), [], time.perf_counter()

    async def one(intended: float, request: Request) -> None:
        status, _ = await send(request)
        measured.take(request.kind, time.perf_counter() - intended, status)

    for at, request in plan:
        if (early := start + at - time.perf_counter()) > 0:
            await asyncio.sleep(early)
        calls.append(asyncio.create_task(one(start + at, request)))
    await asyncio.gather(*calls)
    measured.seconds = time.perf_counter() - start
    return measured


async def closed_loop(send: Send, draw: Draw, *, connections: int, seconds: float, seed: int) -> Measured:
    """Calls of some connections, each of which has one call under way at a time."""
    measured, start = Measured(), time.perf_counter()

    async def connection(number: int) -> None:
        rng = random.Random(f"{seed} {number}")
        while (now := time.perf_counter()) < start + seconds:
            request = draw(rng)
            status, _ = await send(request)
            measured.take(request.kind, time.perf_counter() - now, status)

    await asyncio.gather(*(connection(number) for number in range(connections)))
    measured.seconds = time.perf_counter() - start
    return measured
