"""What happens at three times the capacity: goodput, latency of accepted calls, and how refused ones are answered.

    python -m loadtests.overload --out docs/results/overload
    python -m loadtests.overload --seconds 1 --repetitions 1

Calls have 16 rows for Conv-4 as bytes, so that a call costs the server far more than the generator, which shares the
machine with it. The capacity is that of a closed loop; then calls leave in an open loop at 0.8 and at 3 times that.
"""

import argparse
import asyncio
import math
import random
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import uvloop
from loadtests.client import Pool, Request, pool
from loadtests.firing import Sender
from loadtests.generating import closed_loop, departures
from loadtests.holding import Figure, finish, provenance, ratio, table
from loadtests.peers.bundles import fixed, queries, write_bundle
from loadtests.peers.graphs import PIXELS
from loadtests.process import Running, server, worker_flags

ROWS = 64
BODIES = 32
CONNECTIONS = 16
MOST_CONNECTIONS = 2000
WARM_UP_S = 2.0
BELOW, BEYOND = 0.8, 3.0
"""Rates of the open loops, in capacities."""

SETTLE_S = 0.5
"""Until the server knows that connections ended: new ones go to the worker that has the fewest."""

GOODPUT, P99, REFUSED_MS = 0.9, 3.0, 5.0
SATURATED, QUOTA = 503, 429


@dataclass
class Seen:
    """What became of the calls of one open loop.

    Attributes:
        seconds: While calls left.
        end: When the last one left.
        in_time: Calls that were answered with 200 by then.
        accepted: Seconds of each call that was answered with 200, from the time at which it should have left.
        refused: Seconds of each 503, from the time at which it was sent.
        statuses: How often each status came; 0 is a broken connection.
        unsaid: Calls that were refused without `Retry-After`.
    """

    seconds: float = 0.0
    end: float = math.inf
    in_time: int = 0
    accepted: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    unsaid: int = 0

    def take(self, status: int, head: bytes, intended: float, sent: float) -> None:
        """Count an answer that came right now."""
        now = time.perf_counter()
        self.statuses[status] += 1
        if status == 200:
            self.accepted.append(now - intended)
            self.in_time += now <= self.end
        elif status in (SATURATED, QUOTA):
            self.refused.append(now - sent)
            self.unsaid += b"\r\nretry-after:" not in head.lower()

    def figures(self) -> dict[str, Any]:
        """Goodput and percentiles, in milliseconds."""
        return {
            "goodput_per_s": self.in_time / self.seconds,
            "p50_ms": percentile_ms(self.accepted, 50),
            "p99_ms": percentile_ms(self.accepted, 99),
            "refused_p50_ms": percentile_ms(self.refused, 50),
            "refused_p99_ms": percentile_ms(self.refused, 99),
            "without_retry_after": self.unsaid,
            "statuses": dict(self.statuses),
        }


def percentile_ms(seconds: Sequence[float], q: int) -> float | None:
    """A percentile in milliseconds; None of fewer than two calls."""
    if len(seconds) < 2:
        return None
    return 1e3 * statistics.quantiles(seconds, n=100, method="inclusive")[q - 1]


def call(rng: random.Random) -> Request:
    """One of a few bodies."""
    return rng.choice(CALLS)


def calls(deadline_ms: int | None) -> list[Request]:
    """The bodies that are sent."""
    rows = queries(BODIES + ROWS, PIXELS)
    told = (("X-Deadline-Ms", str(deadline_ms)),) if deadline_ms else ()
    path, kind = "/v1/models/conv4/predict", "application/octet-stream"
    return [Request("predict", "POST", path, rows[at : at + ROWS].tobytes(), kind, told) for at in range(BODIES)]


CALLS: list[Request] = []


async def open_loop(
    sender: Sender, seen: Seen, wires: Sequence[bytes], *, rate: float, seconds: float, seed: int
) -> None:
    """Calls that leave at a rate on average, whatever the server does."""
    rng = random.Random(seed)
    after_s = list(departures(rng, rate, seconds))
    seen.seconds, seen.end = seconds, time.perf_counter() + seconds
    await sender.send([rng.choice(wires) for _ in after_s], after_s)


async def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Capacity, and both open loops, in turn."""
    with tempfile.TemporaryDirectory() as folder:
        write_bundle(Path(folder) / "conv4", "conv4", *fixed("conv4"))
        with server(bundles=folder, key=True, flags=worker_flags(arguments.workers)) as running:
            async with pool(running.url, most=MOST_CONNECTIONS, key=running.key) as send:
                return await measure(running, send, arguments)


async def measure(running: Running, send: Pool, arguments: argparse.Namespace) -> dict[str, Any]:
    """The figures of every repetition."""
    address = urlsplit(running.url)
    wires = [request.wire(address.netloc, running.key) for request in CALLS]

    async def beside(rate: float, seed: int) -> dict[str, Any]:
        seen = Seen()
        sender = Sender(address.hostname or "127.0.0.1", address.port or 80, seen.take)
        await open_loop(sender, seen, wires, rate=rate, seconds=arguments.seconds, seed=seed)
        sender.close()
        await asyncio.sleep(SETTLE_S)
        return seen.figures()

    loop: dict[str, Any] = {"connections": CONNECTIONS, "seconds": arguments.seconds}
    await closed_loop(send.send, call, **{**loop, "seconds": WARM_UP_S}, seed=0)
    runs = []
    for seed in range(arguments.repetitions):
        full = await closed_loop(send.send, call, **loop, seed=seed)
        peak = full.answered / full.seconds
        below, beyond = await beside(BELOW * peak, seed), await beside(BEYOND * peak, seed)
        runs.append({"peak_per_s": peak, "below": below, "beyond": beyond})
    return {"runs": runs, **{name: together([run[name] for run in runs]) for name in ("below", "beyond")}}


def together(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The medians of several runs; statuses are added up."""
    found: dict[str, Any] = {}
    for name in runs[0]:
        values = [run[name] for run in runs if run[name] is not None]
        if name == "statuses":
            found[name] = dict(sum((Counter(value) for value in values), Counter()))
        else:
            found[name] = (sum if name == "without_retry_after" else statistics.median)(values) if values else None
    return found


def held_to(result: dict[str, Any]) -> list[Figure]:
    """The figures, each beside what it is held to. Goodput is compared within each repetition."""
    goodput = statistics.median(run["beyond"]["goodput_per_s"] / run["peak_per_s"] for run in result["runs"])
    below, beyond = result["below"], result["beyond"]
    other = {status: count for status, count in beyond["statuses"].items() if status not in (200, SATURATED)}
    late = ratio(beyond["p99_ms"], below["p99_ms"])
    return [
        Figure("at 3 × capacity: goodput, of the peak", goodput, GOODPUT),
        Figure("at 3 × capacity: p99 of accepted calls × that at 0.8 of capacity", late, P99, at_most=True),
        Figure("at 3 × capacity: p99 of refused calls, ms", beyond["refused_p99_ms"], REFUSED_MS, at_most=True),
        Figure(
            "at 3 × capacity: calls with another status than 200 and 503", float(sum(other.values())), 0, at_most=True
        ),
        Figure("refused calls without Retry-After", float(beyond["without_retry_after"]), 0, at_most=True),
    ]


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, write, and hold the figures to what is asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=2, help="processes of the server (default: 2)")
    parser.add_argument("--seconds", type=float, default=6.0, help="of each run (default: 6)")
    parser.add_argument("--repetitions", type=int, default=3, help="(default: 3)")
    parser.add_argument("--deadline-ms", type=int, help="a deadline that every call names; without it none does")
    parser.add_argument("--out", type=Path, help="write PATH.md and PATH.json")
    arguments = parser.parse_args(argv)
    CALLS[:] = calls(arguments.deadline_ms)
    result = provenance("overload") | {"flags": worker_flags(arguments.workers), "seconds": arguments.seconds}
    result |= uvloop.run(run(arguments))
    peak = statistics.median(one["peak_per_s"] for one in result["runs"])
    rows = [
        {"what": f"{BELOW:g} × capacity", "rate": BELOW * peak, **result["below"]},
        {"what": f"{BEYOND:g} × capacity", "rate": BEYOND * peak, **result["beyond"]},
    ]
    columns = {"what": "open loop", "rate": "calls/s", "goodput_per_s": "answered/s", "p50_ms": "p50 ms"}
    columns |= {"p99_ms": "p99 ms", "refused_p50_ms": "refused, p50 ms", "refused_p99_ms": "refused, p99 ms"}
    columns |= {"statuses": "calls by status"}
    how = (
        f"The capacity is {peak:.0f} calls a second of {ROWS} rows for Conv-4 each, in a closed loop of {CONNECTIONS} "
        f"connections. Medians of {arguments.repetitions} repetitions of {arguments.seconds:g} s each. Accepted calls "
        "count from the time at which they should have left, refused ones from that at which they were sent. The "
        "generator is a Python process on the same machine, and what it costs the server is in the figures."
    )
    return finish("Overload", result, [how, "\n".join(table(rows, columns))], held_to(result), arguments.out)


if __name__ == "__main__":
    sys.exit(main())
