"""What becomes of calls when more come than can be answered: goodput, tails, and how quickly the others are refused.

    python -m loadtests.overload --page docs/results/overload.md

For each workload the peak is that of a closed loop. Then calls leave at 0.8 and at 3 times that rate, whatever the
server does; latencies of answers count from the time at which a call should have left, those of refusals from when it
was sent. The generator shares the machine with the server.
"""

import argparse
import asyncio
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import uvloop
from loadtests.client import Pool, pool
from loadtests.generating import closed_loop, departures, percentiles_ms
from loadtests.load import commit, prepare
from loadtests.process import report, server
from loadtests.workloads import Workload, every

CONNECTIONS = 64
MOST_CONNECTIONS = 1024
WORKLOADS = ("drawings", "one user")
CALM, OVERLOADED = 0.8, 3.0


@dataclass
class Outcomes:
    """What became of calls: seconds of those that were answered and of those that were refused, and the statuses."""

    answered: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)

    def as_dict(self, rate: float, seconds: float) -> dict[str, Any]:
        """The figures."""
        return {
            "rate_per_s": round(rate, 1),
            "goodput_per_s": round(len(self.answered) / seconds, 1),
            "latency_ms": percentiles_ms(self.answered),
            "refused_ms": percentiles_ms(self.refused),
            "statuses": dict(self.statuses),
        }


async def at_rate(send: Pool, work: Workload, rate: float, seconds: float, seed: int) -> dict[str, Any]:
    """The figures of calls that leave at a rate, in calls a second."""
    rng = random.Random(seed)
    plan = [(at, work.draw(rng)) for at in departures(rng, rate, seconds)]
    found, calls, start = Outcomes(), [], time.perf_counter()

    async def one(intended: float, request: Any) -> None:
        sent = time.perf_counter()
        status, _ = await send.send(request)
        now = time.perf_counter()
        found.statuses[status] += 1
        if 200 <= status < 300:
            found.answered.append(now - intended)
        else:
            found.refused.append(now - sent)

    for at, request in plan:
        if (early := start + at - time.perf_counter()) > 0:
            await asyncio.sleep(early)
        calls.append(asyncio.create_task(one(start + at, request)))
    await asyncio.gather(*calls)
    return found.as_dict(rate, time.perf_counter() - start)


async def measure(send: Pool, work: Workload, seconds: float, seed: int) -> dict[str, Any]:
    """The figures of a workload."""
    await closed_loop(send.send, work.draw, connections=CONNECTIONS, seconds=1, seed=seed)
    peak = await closed_loop(send.send, work.draw, connections=CONNECTIONS, seconds=seconds, seed=seed)
    rate = peak.answered / peak.seconds
    calm = await at_rate(send, work, CALM * rate, seconds, seed)
    over = await at_rate(send, work, OVERLOADED * rate, seconds, seed)
    return {
        "peak_per_s": round(rate, 1),
        "peak_statuses": dict(peak.statuses),
        "calm": calm,
        "overloaded": over,
        "goodput_of_peak": round(over["goodput_per_s"] / rate, 2),
        "p99_of_calm": round(over["latency_ms"].get("p99", float("inf")) / calm["latency_ms"]["p99"], 2),
    }


async def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Everything that was measured."""
    chosen = [work for work in every(1) if work.name in (arguments.only or WORKLOADS)]
    with server(key=True) as running:
        async with pool(running.url, most=MOST_CONNECTIONS, key=running.key) as send:
            await prepare(send, 1)
            found = {work.name: await measure(send, work, arguments.seconds, arguments.seed) for work in chosen}
    return {"commit": commit(), "load_average_at_start": os.getloadavg()[0], "workloads": found}


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each loop (default: 5)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", action="append", metavar="NAME", help="a workload; may be given several times")
    parser.add_argument("--page", help="write the figures to this page")
    arguments = parser.parse_args(argv)
    report("Overload", uvloop.run(run(arguments)), arguments.page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
