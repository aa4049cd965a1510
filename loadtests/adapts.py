"""What learning costs beside predictions: inline support sets, repeated ones, and a share of adapts among predictions.

    python -m loadtests.adapts --out docs/results/adapts
    python -m loadtests.adapts --seconds 1 --repetitions 1 --users 20

All on the shipped bundles: 5-way 5-shot with drawings and Conv-4 (`glyphs`), and curves (`sinusoids-bayes`) beside. The
server runs with its defaults, an API key, and `--workers` processes. Within a repetition all take turns.
"""

import argparse
import base64
import json
import random
import statistics
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import uvloop
from loadtests.client import Pool, Request, pool
from loadtests.generating import Draw, Measured, closed_loop, open_loop
from loadtests.holding import Figure, finish, provenance, ratio, table
from loadtests.process import Running, server, worker_flags
from loadtests.tree import cpu_s
from loadtests.workloads import ADAPT_SHARE, DRAWINGS, DRAWN, before, every

WAYS, SHOTS = 5, 5
CONNECTIONS = 16
MOST_CONNECTIONS = 256
WARM_UP_S = 1.0
STEADY_SHARE = 0.5
"""Of the capacity for predictions with adapts among them: the rate of the open loops."""

P50_MS, REPEATED, STEADY_P99 = 15.0, 1.3, 2.0

PREDICT = f"/v1/models/{DRAWN}/predict"


@cache
def drawings() -> dict[str, list[str]]:
    """The drawings of each character, base64."""
    found: dict[str, list[str]] = {}
    for path in sorted(DRAWINGS.glob("*.png")):
        found.setdefault(path.stem.rpartition("-")[0], []).append(base64.b64encode(path.read_bytes()).decode("ascii"))
    return {name: shown for name, shown in found.items() if len(shown) >= SHOTS}


def support(rng: random.Random) -> list[dict[str, str]]:
    """A support set of five characters in an order of its own."""
    names = rng.sample(sorted(drawings()), WAYS)
    shown = [{"input": drawing, "label": name} for name in names for drawing in drawings()[name][:SHOTS]]
    rng.shuffle(shown)
    return shown


def query(rng: random.Random) -> str:
    """A drawing to recognise."""
    return rng.choice(drawings()[rng.choice(sorted(drawings()))])


def predict(rng: random.Random, **task: object) -> Request:
    """A prediction for one drawing."""
    return Request("predict", "POST", PREDICT, json.dumps({"inputs": [query(rng)], **task}).encode())


def adapt(rng: random.Random, user: str) -> Request:
    """A new support set for a user."""
    path = f"/v1/models/{DRAWN}/adaptations/{user}"
    return Request("adapt", "PUT", path, json.dumps({"support": support(rng)}).encode())


def drawn_by(users: int, adapts: float) -> Draw:
    """Predictions of drawings by users who are asked alike often, with a share of adapts among them."""

    def draw(rng: random.Random) -> Request:
        user = f"drawer-{rng.randrange(users)}"
        return adapt(rng, user) if rng.random() < adapts else predict(rng, adaptation=user)

    return draw


def one_by_one() -> dict[str, Draw]:
    """The workloads of one connection: a fresh support set in every call, always the same one, and a stored one."""
    same = support(random.Random("the same"))
    return {
        "inline support, a fresh one in each call": lambda rng: predict(rng, support=support(rng)),
        "inline support, always the same": lambda rng: predict(rng, support=same),
        "stored adaptation": lambda rng: predict(rng, adaptation="drawer-0"),
    }


def pairs(users: int) -> dict[str, tuple[Draw, Draw]]:
    """Predictions alone and with adapts among them, by model."""
    curves = {work.name: work.draw for work in every(users)}
    return {
        "sinusoids-bayes": (curves["uniform users"], curves["adapts among predictions"]),
        DRAWN: (drawn_by(users, 0), drawn_by(users, ADAPT_SHARE)),
    }


async def prepare(send: Pool, users: int) -> None:
    """Make the adaptations.

    Raises:
        RuntimeError: one is refused.
    """
    mine = [adapt(random.Random(f"drawer {user}"), f"drawer-{user}") for user in range(users)]
    for request in [*before(users), *mine]:
        await must(send, request)


async def must(send: Pool, request: Request) -> None:
    """Make a call that must succeed.

    Raises:
        RuntimeError: it does not.
    """
    status, answer = await send.send(request)
    if status not in (200, 201):
        raise RuntimeError(f"{request.method} {request.path}: {status} {answer[:300]!r}")


def figures(run: Measured, cpu: float) -> dict[str, Any]:
    """What a closed loop gave."""
    every_ms = sorted(1e3 * seconds for found in run.latencies.values() for seconds in found)
    return {
        "requests_per_s": run.answered / run.seconds,
        "p50_ms": statistics.median(every_ms),
        "cpu_us": 1e6 * cpu / run.answered,
        "failed": sum(run.statuses.values()),
    }


async def alone(running: Running, send: Pool, arguments: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """The workloads of one connection, in turn."""
    found: dict[str, list[dict[str, Any]]] = {}
    for repetition in range(arguments.repetitions):
        for name, draw in one_by_one().items():
            for _ in range(WORKERS_TO_WARM):
                await must(send, draw(random.Random("warm")))
            started = cpu_s(running.pid)
            run = await closed_loop(send.send, draw, connections=1, seconds=arguments.seconds, seed=repetition)
            found.setdefault(name, []).append(figures(run, cpu_s(running.pid) - started))
    return {name: medians(runs) for name, runs in found.items()}


WORKERS_TO_WARM = 20
"""Calls before a run, so that every worker has seen what is repeated."""


def medians(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The median of every figure; the sum of the calls that failed."""
    found: dict[str, Any] = {name: statistics.median(run[name] for run in runs) for name in runs[0]}
    return {**found, "failed": sum(run["failed"] for run in runs)}


async def steady(send: Pool, arguments: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Predictions' p99 in an open loop at one rate, alone and with a share of adapts, in turn, by model."""
    found = {}
    for model, (without, among) in pairs(arguments.users).items():
        await closed_loop(send.send, without, connections=CONNECTIONS, seconds=WARM_UP_S, seed=0)
        full = await closed_loop(send.send, among, connections=CONNECTIONS, seconds=arguments.seconds, seed=1)
        rate = max(1.0, STEADY_SHARE * full.answered / full.seconds)
        runs = []
        for repetition in range(arguments.repetitions):
            loop = {"rate": rate, "seconds": arguments.seconds, "seed": repetition}
            plain = await open_loop(send.send, without, **loop)
            mixed = await open_loop(send.send, among, **loop)
            failed = sum(plain.statuses.values()) + sum(mixed.statuses.values())
            p99 = {"without_ms": predictions_p99(plain), "among_ms": predictions_p99(mixed)}
            runs.append({"rate_per_s": rate, **p99, "failed": failed})
        found[model] = medians(runs)
    return found


def predictions_p99(run: Measured) -> float:
    """Of the predictions, in milliseconds; infinity where none was answered."""
    late = run.latencies.get("predict")
    return 1e3 * statistics.quantiles(late, n=100, method="inclusive")[98] if late and len(late) > 1 else float("inf")


def held_to(one: dict[str, dict[str, Any]], mixed: dict[str, dict[str, Any]]) -> list[Figure]:
    """The figures, each beside what it is held to."""
    fresh, same, kept = (one[name] for name in one_by_one())
    costs = ratio(same["cpu_us"], kept["cpu_us"])
    late = ratio(same["p50_ms"], kept["p50_ms"])
    figures = [
        Figure("inline 5-way 5-shot, Conv-4: p50 ms", fresh["p50_ms"], P50_MS, at_most=True),
        Figure("repeated inline support set: CPU a request × that of a stored one", costs, REPEATED, at_most=True),
        Figure("repeated inline support set: p50 × that of a stored one", late, REPEATED, at_most=True),
    ]
    for model, run in mixed.items():
        what = f"{model}: predictions' p99 under {ADAPT_SHARE:.0%} adapts × that without, at the same rate"
        figures.append(Figure(what, ratio(run["among_ms"], run["without_ms"]), STEADY_P99, at_most=True))
    return figures


async def run(arguments: argparse.Namespace) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]]]:
    """Everything that is measured."""
    with server(bundles=arguments.bundles, key=True, flags=worker_flags(arguments.workers)) as running:
        async with pool(running.url, most=MOST_CONNECTIONS, key=running.key) as send:
            await prepare(send, arguments.users)
            return await alone(running, send, arguments), await steady(send, arguments)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, write, and hold the figures to what is asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundles", default="bundles", help="the model repository")
    parser.add_argument("--users", type=int, default=200, help="with an adaptation each (default: 200)")
    parser.add_argument("--workers", type=int, default=2, help="processes of the server (default: 2)")
    parser.add_argument("--seconds", type=float, default=6.0, help="of each run (default: 6)")
    parser.add_argument("--repetitions", type=int, default=3, help="in which all take turns (default: 3)")
    parser.add_argument("--out", type=Path, help="write PATH.md and PATH.json")
    arguments = parser.parse_args(argv)
    result = provenance("adapts")
    one, mixed = uvloop.run(run(arguments))
    told = {"seconds": arguments.seconds, "repetitions": arguments.repetitions, "users": arguments.users}
    result |= {**told, "flags": worker_flags(arguments.workers), "alone": one, "steady": mixed}
    columns = {"what": "one connection", "requests_per_s": "requests/s", "p50_ms": "p50 ms"}
    columns |= {"cpu_us": "CPU µs a request", "failed": "failed"}
    both = {"what": "open loop", "rate_per_s": "calls/s", "without_ms": "p99 without adapts, ms"}
    both |= {"among_ms": "p99 among adapts, ms", "failed": "failed"}
    how = (
        f"5-way 5-shot with `glyphs`, medians of {arguments.repetitions} runs of {arguments.seconds:g} s. The open "
        f"loops send at {STEADY_SHARE:.0%} of what was reached with {ADAPT_SHARE:.0%} adapts among the calls, for "
        f"{arguments.users} users; a latency counts from the time at which the call should have left. The generator is "
        "a Python process on the same machine."
    )
    parts = [
        how,
        "\n".join(table([{"what": name, **found} for name, found in one.items()], columns)),
        "\n".join(table([{"what": name, **found} for name, found in mixed.items()], both)),
    ]
    return finish("Learning among predictions", result, parts, held_to(one, mixed), arguments.out)


if __name__ == "__main__":
    sys.exit(main())
