"""What very many users cost: one against 100,000 asked alike often, and a million in the store under Zipf's law.

    python -m loadtests.users --out docs/results/users
    python -m loadtests.users --users 2000 --stored 5000 --seconds 1 --repetitions 1

Each user has a head of her own on 128 given features, about 5 kB. The first thousand adaptations are made over HTTP,
the rest are clones of them in the server's SQLite file (`cloning.py`), of about 24 kB each: a million take 24 GB of the
folder for temporary files. The server has one worker, an API key, and a cache for `--users` states; wrk sends over 64
connections, and draws the user for every call.
"""

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from loadtests.client import Request, pool
from loadtests.cloning import clone, user_name
from loadtests.holding import Figure, finish, provenance, ratio, table
from loadtests.peers import graphs, wrk
from loadtests.peers.bundles import NAMES, USERS_WIDTH, decimals, labelled, queries, write_users
from loadtests.peers.graphs import LABELS
from loadtests.process import TENANT, Running, server, worker_flags
from loadtests.tree import cpu_s, pss_mb

from handful_service.assembly import ENTRY_BYTES
from handful_service.bundle.parts import TensorSpec
from handful_service.cache import StateCache
from handful_service.engine.slots import SlotTables
from handful_service.task import Labels, TaskState

MODEL = "users"
PATH = f"/v1/models/{MODEL}"
ORIGINALS = 1000
EXAMPLES = 2
CONNECTIONS = 64
ROWS = 64
"""Users of one call that warms the cache."""

AT_ONCE = 8
ZIPF = 1.1
WARM_UP_S = 3
SPARE_SLOTS = 256

THROUGHPUT, P99, BYTES, STORED, REPLACED_US = 0.9, 1.5, 1.3, 0.6, 50.0
"""Uniform users: throughput and p99 beside one user's, memory beside the states' bytes; then Zipf's throughput, and
what it takes to replace a state."""

TIMES = 20_000
"""States that are replaced."""


async def make_originals(running: Running, count: int) -> None:
    """Make the adaptations that others are cloned from.

    Raises:
        RuntimeError: one is refused.
    """
    async with pool(running.url, most=AT_ONCE, key=running.key) as send:

        async def make(user: int) -> None:
            shown = labelled(graphs.support(user, USERS_WIDTH))[:EXAMPLES]
            body = json.dumps({"support": shown}).encode()
            status, answer = await send.send(Request("adapt", "PUT", f"{PATH}/adaptations/{user_name(user)}", body))
            if status != 201:
                raise RuntimeError(f"{user_name(user)}: {status} {answer[:300]!r}")

        await asyncio.gather(*map(make, range(count)))


async def ask_each(running: Running, users: int) -> None:
    """Ask for every user once, so that the states are in the cache.

    Raises:
        RuntimeError: a call fails.
    """
    row = decimals(queries(1, USERS_WIDTH)[0])
    async with pool(running.url, most=AT_ONCE, key=running.key) as send:

        async def ask(start: int) -> None:
            rows = [{"input": row, "adaptation": user_name(user)} for user in range(start, min(users, start + ROWS))]
            body = json.dumps({"rows": rows}).encode()
            status, answer = await send.send(Request("predict", "POST", f"{PATH}/predict", body))
            if status != 200:
                raise RuntimeError(f"users from {start} on: {status} {answer[:300]!r}")

        await asyncio.gather(*map(ask, range(0, users, ROWS)))


def send(running: Running, work: Path, users: int, exponent: float, seconds: int, seed: int) -> dict[str, Any]:
    """The figures of one run, in which the user is drawn for every call."""
    bodies = work / "body"
    row = decimals(queries(1, USERS_WIDTH)[0])
    wrk.write_bodies(bodies, [json.dumps({"inputs": [row], "adaptation": user_name(0)}).encode()])
    url = f"{running.url}{PATH}/predict"
    target = wrk.Target(url, bodies, key=running.key, order="users", users=users, exponent=exponent)
    before = cpu_s(running.pid)
    counted = wrk.send(target, connections=CONNECTIONS, seconds=seconds, seed=seed)
    cpu = cpu_s(running.pid) - before
    return {
        "requests_per_s": counted.requests_per_s,
        "p50_ms": counted.p50_ms,
        "p99_ms": counted.p99_ms,
        "cpu_us": 1e6 * cpu / max(1, counted.requests),
        "failed": counted.failed,
    }


def medians(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The median of every figure; the sum of the calls that failed."""
    found: dict[str, Any] = {name: statistics.median(run[name] for run in runs) for name in runs[0]}
    return {**found, "failed": sum(run["failed"] for run in runs)}


@contextmanager
def many(work: Path, users: int, slots: int, state_bytes: int) -> Iterator[Running]:
    """A server with so many adaptations in its store, and a cache for so many states."""
    bundles = str(work / "bundles")
    flags = [*worker_flags(1), "--cache-bytes", str((slots + SPARE_SLOTS) * (state_bytes + ENTRY_BYTES))]
    originals = min(ORIGINALS, users)
    store = work / "handful.db"
    if not store.exists():
        with server(bundles=bundles, key=True, flags=flags, home=work) as running:
            asyncio.run(make_originals(running, originals))
        clone(store, TENANT, MODEL, originals=originals, users=users)
    with server(bundles=bundles, key=True, flags=flags, home=work) as running:
        yield running


def uniform(arguments: argparse.Namespace) -> dict[str, Any]:
    """One user and many asked alike often, in turn, with the memory before and after the many are in the cache."""
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        state_bytes = write_users(work / "bundles")
        with many(work, arguments.users, arguments.users, state_bytes) as running:
            send(running, work, 1, 0, WARM_UP_S, 0)
            before_mb = pss_mb(running.pid)
            asyncio.run(ask_each(running, arguments.users))
            send(running, work, arguments.users, 0, WARM_UP_S, 0)
            after_mb = pss_mb(running.pid)
            one, all_ = [], []
            for seed in range(arguments.repetitions):
                one.append(send(running, work, 1, 0, arguments.seconds, seed))
                all_.append(send(running, work, arguments.users, 0, arguments.seconds, seed))
    return {
        "users": arguments.users,
        "state_bytes": state_bytes,
        "bytes_a_user": (after_mb - before_mb) * 2**20 / arguments.users,
        "pss_before_mb": before_mb,
        "pss_after_mb": after_mb,
        "one": medians(one),
        "all": medians(all_),
    }


def stored(arguments: argparse.Namespace) -> dict[str, Any]:
    """One user, and very many in the store with fewer slots in the cache, under Zipf's law, in turn."""
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        state_bytes = write_users(work / "bundles")
        with many(work, arguments.stored, arguments.users, state_bytes) as running:
            asyncio.run(ask_each(running, arguments.users))  # those who are asked most often
            send(running, work, arguments.stored, ZIPF, WARM_UP_S, 0)
            one, all_ = [], []
            for seed in range(arguments.repetitions):
                one.append(send(running, work, 1, 0, arguments.seconds, seed))
                all_.append(send(running, work, arguments.stored, ZIPF, arguments.seconds, 1 + seed))
            after_mb = pss_mb(running.pid)
        store_gb = (work / "handful.db").stat().st_size / 1e9
    return {
        "users": arguments.stored,
        "slots": arguments.users,
        "store_gb": store_gb,
        "pss_after_mb": after_mb,
        "one": medians(one),
        "all": medians(all_),
    }


def replacing(users: int, times: int, seed: int = 0) -> dict[str, Any]:
    """What it takes to put a user's new state into a cache that is full, in microseconds.

    This is done on the event loop, where predictions take their turns: what it takes is what they wait.
    """
    axes = {"weight": (LABELS, USERS_WIDTH), "bias": (LABELS,)}
    state = {name: TensorSpec(dtype="float32", axes=sizes) for name, sizes in axes.items()}
    cache = StateCache(SlotTables(state, users))
    rng = np.random.default_rng(seed)
    arrays = {name: rng.normal(size=sizes).astype(np.float32) for name, sizes in axes.items()}
    new = TaskState(arrays, Labels(tuple(NAMES)), shots=1.0)

    async def load() -> TaskState:
        return new

    async def replace(user: int, revision: int) -> float:
        started = time.perf_counter()
        cache.release(await cache.pin((user, revision), load))
        return time.perf_counter() - started

    async def run() -> list[float]:
        for user in range(users):
            await replace(user, 1)
        return [await replace(int(user), 2 + number) for number, user in enumerate(rng.integers(0, users, times))]

    took = sorted(1e6 * seconds for seconds in asyncio.run(run()))
    return {"p50_us": took[len(took) // 2], "p99_us": took[len(took) * 99 // 100], "states": users, "times": times}


def held_to(
    found: dict[str, Any], in_store: dict[str, Any] | None, replaced: dict[str, Any] | None = None
) -> list[Figure]:
    """The figures, each beside what it is held to."""
    users = f"{found['users']:,} users"
    one, every = found["one"], found["all"]
    rates = ratio(every["requests_per_s"], one["requests_per_s"])
    figures = [
        Figure(f"{users}: throughput × that of one user", rates, THROUGHPUT),
        Figure(f"{users}: p99 × that of one user", ratio(every["p99_ms"], one["p99_ms"]), P99, at_most=True),
        Figure(
            f"{users}: memory (PSS) of each × the bytes of the state",
            ratio(found["bytes_a_user"], found["state_bytes"]),
            BYTES,
            at_most=True,
        ),
    ]
    if replaced is not None:
        what = f"a new state in a cache of {replaced['states']:,}, µs (median)"
        figures.append(Figure(what, replaced["p50_us"], REPLACED_US, at_most=True))
    if in_store is not None:
        what = f"{in_store['users']:,} users in the store, a cache for {in_store['slots']:,}, Zipf {ZIPF:g}"
        rates = ratio(in_store["all"]["requests_per_s"], in_store["one"]["requests_per_s"])
        figures.append(Figure(f"{what}: throughput × that of one user", rates, STORED))
    return figures


def rows_of(found: dict[str, Any], in_store: dict[str, Any] | None) -> Iterator[dict[str, Any]]:
    """The rows of the table."""
    yield {"what": "one user", **found["one"]}
    yield {"what": f"{found['users']:,} users, alike often", **found["all"]}
    if in_store is not None:
        yield {"what": f"one user of {in_store['users']:,} in the store", **in_store["one"]}
        yield {"what": f"{in_store['users']:,} users under Zipf's law", **in_store["all"]}


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, write, and hold the figures to what is asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=100_000, help="in the cache (default: 100000)")
    parser.add_argument(
        "--stored", type=int, default=1_000_000, help="in the store; 0: not measured (default: 1000000)"
    )
    parser.add_argument("--seconds", type=int, default=5, help="of each run (default: 5)")
    parser.add_argument("--repetitions", type=int, default=3, help="in which the two take turns (default: 3)")
    parser.add_argument("--out", type=Path, help="write PATH.md and PATH.json")
    arguments = parser.parse_args(argv)
    try:
        wrk.require()
    except wrk.WrkMissing as error:
        print(error, file=sys.stderr)
        return 2
    result = provenance("users")
    replaced = replacing(arguments.users, TIMES)
    found = uniform(arguments)
    in_store = stored(arguments) if arguments.stored else None
    result |= {"repetitions": arguments.repetitions, "seconds": arguments.seconds}
    result |= {"uniform": found, "stored": in_store, "replacing": replaced}
    columns = {"what": "users", "requests_per_s": "requests/s", "p50_ms": "p50 ms", "p99_ms": "p99 ms"}
    columns |= {"cpu_us": "CPU µs a request", "failed": "failed"}
    memory = (
        f"Each user has a state of {found['state_bytes']:,} bytes. The server's memory (PSS) went from "
        f"{found['pss_before_mb']:.0f} MB, with one user in the cache, to {found['pss_after_mb']:.0f} MB with all: "
        f"{found['bytes_a_user']:,.0f} bytes each. To put a new state of a user into a full cache takes "
        f"{replaced['p50_us']:.1f} µs of the event loop (p99 {replaced['p99_us']:.1f}), its load from the store aside."
    )
    how = (
        f"One worker, {CONNECTIONS} connections, one input a request as JSON, medians of {arguments.repetitions} runs "
        f"of {arguments.seconds} s, in which one user and many take turns. Adaptations beyond the first {ORIGINALS:,} "
        "are clones of these, made in the database."
    )
    if in_store is not None:
        how += f" The store of {in_store['users']:,} has {in_store['store_gb']:.1f} GB."
    parts = [how, "\n".join(table(list(rows_of(found, in_store)), columns)), memory]
    return finish("Very many users", result, parts, held_to(found, in_store, replaced), arguments.out)


if __name__ == "__main__":
    sys.exit(main())
