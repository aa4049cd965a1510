"""The load test: every workload in a closed loop, then in an open loop at a share of what that reached.

    python -m loadtests.load --json load.json --chart load.png
    python -m loadtests.load --users 100000 --seconds 30 --only 'one user' --only 'uniform users'

The server is a process of its own, with an API key that every call carries. The generator shares the machine with it.
The exit code is 1 where a threshold is missed (`loadtests/thresholds.py`).
"""

import argparse
import json
import os
import subprocess
import sys
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import uvloop
from loadtests.client import Pool, pool
from loadtests.generating import Measured, closed_loop, open_loop
from loadtests.process import Running, machine, server
from loadtests.thresholds import missed
from loadtests.workloads import Workload, before, every

CONNECTIONS = 16
MOST_CONNECTIONS = 256
WARM_UP_S = 0.5


async def prepare(send: Pool, users: int) -> None:
    """Make the adaptations."""
    for request in before(users):
        status, answer = await send.send(request)
        if status not in (200, 201):
            raise RuntimeError(f"{request.method} {request.path}: {status} {answer.decode()}")


async def measure(running: Running, send: Pool, work: Workload, arguments: argparse.Namespace) -> dict[str, Any]:
    """The figures of a workload."""
    seed = arguments.seed + zlib.crc32(work.name.encode())
    loop = {"connections": CONNECTIONS, "seed": seed}
    await closed_loop(send.send, work.draw, seconds=WARM_UP_S, **loop)
    cpu_s = running.cpu_s()
    closed = await closed_loop(send.send, work.draw, seconds=arguments.seconds, **loop)
    cpu_s = running.cpu_s() - cpu_s
    rate = max(1.0, arguments.share * closed.answered / max(closed.seconds, 1e-9))
    opened = await open_loop(send.send, work.draw, rate=rate, seconds=arguments.seconds, seed=seed)
    return {
        "beside": work.beside,
        "closed": {"connections": CONNECTIONS, "cpu_us_per_request": _per_request(cpu_s, closed), **closed.as_dict()},
        "open": {"rate_per_s": round(rate, 1), **opened.as_dict()},
        "resident_mb": round(running.resident_mb(), 1),
    }


def _per_request(cpu_s: float, run: Measured) -> float | None:
    return round(1e6 * cpu_s / run.answered, 1) if run.answered else None


async def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Everything that was measured."""
    chosen = [work for work in every(arguments.users) if not arguments.only or work.name in arguments.only]
    if not chosen:
        raise SystemExit(f"no such workload; there are {[work.name for work in every(1)]}")
    with server(bundles=arguments.bundles, key=True) as running:
        async with pool(running.url, most=MOST_CONNECTIONS, key=running.key) as send:
            await prepare(send, arguments.users)
            found = {work.name: await measure(running, send, work, arguments) for work in chosen}
    return {
        "command": " ".join(["python -m loadtests.load", *sys.argv[1:]]),
        "machine": machine(),
        "load_average_at_start": arguments.load_average,
        "commit": commit(),
        "seed": arguments.seed,
        "users": arguments.users,
        "share_of_capacity": arguments.share,
        "workloads": found,
        "missed": list(missed(found)),
    }


def commit() -> str | None:
    """The commit that is measured, with a mark where files differ from it."""
    git = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    found = subprocess.run(git, capture_output=True, text=True, check=False)  # noqa: S603 (constant)
    return found.stdout.strip() or None


def table(workloads: Mapping[str, Mapping[str, Any]]) -> str:
    """The figures as a Markdown table."""
    lines = [
        "| workload | requests/s | CPU µs a request | open loop at /s | p50 ms | p95 ms | p99 ms | failed |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, found in workloads.items():
        closed, opened = found["closed"], found["open"]
        late = [opened["latency_ms"].get(key, "—") for key in ("p50", "p95", "p99")]
        failed = sum(closed["failed"].values()) + sum(opened["failed"].values())
        cells = [name, closed["requests_per_s"], closed["cpu_us_per_request"], opened["rate_per_s"], *late, failed]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def page(result: Mapping[str, Any], chart: Path | None) -> str:
    """The figures, with where they come from, in Markdown; the chart lies beside."""
    lines = [
        "# The load test", "",
        f"Written by `{result['command']}` on {result['machine']}, commit {result['commit']}; load average at the "
        f"start {result['load_average_at_start']:.2f}. {CONNECTIONS} connections; {result['users']} users; the open "
        f"loops send at {result['share_of_capacity']:g} of what the closed ones reached, and a latency counts from the "
        "time at which the call should have left. The generator is a Python process on the same machine.", "",
        table(result["workloads"]), "",
        *([f"![{chart.name}]({chart.name})", ""] if chart is not None else []),
        "No threshold is missed." if not result["missed"] else "Thresholds that are missed:", "",
        *(f"- {line}" for line in result["missed"]),
    ]  # fmt: skip
    return "\n".join(lines).rstrip() + "\n"


def draw_chart(result: Mapping[str, Any], path: Path) -> None:
    """Throughput of the closed loops and percentiles of the open ones, beside each other."""
    import matplotlib as mpl  # noqa: PLC0415 (a second of import that only the chart needs)

    mpl.use("Agg")
    from matplotlib import pyplot  # noqa: PLC0415

    names = list(result["workloads"])
    places = range(len(names))
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(12, 0.5 * len(names) + 1.5), sharey=True)
    left.barh(places, [result["workloads"][name]["closed"]["requests_per_s"] for name in names])
    left.set_yticks(places, names)
    left.invert_yaxis()
    left.set_xlabel(f"requests/s, closed loop, {CONNECTIONS} connections")
    for mark, key in zip("o^s", ("p50", "p95", "p99"), strict=True):
        late = [result["workloads"][name]["open"]["latency_ms"].get(key, float("nan")) for name in names]
        right.plot(late, places, mark, label=key)
    right.set_xscale("log")
    right.set_xlabel(f"ms, open loop at {result['share_of_capacity']:g} of that")
    right.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, write, and hold the figures to the thresholds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundles", default="bundles", help="the model repository")
    parser.add_argument("--users", type=int, default=1000, help="adaptations (default: 1000)")
    parser.add_argument("--seconds", type=float, default=4.0, help="of each loop (default: 4)")
    parser.add_argument("--share", type=float, default=0.5, help="open loop's rate, of the closed one's (default: 0.5)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", action="append", metavar="NAME", help="a workload; may be given several times")
    parser.add_argument("--json", type=Path, help="write everything here")
    parser.add_argument("--chart", type=Path, help="write a PNG here")
    parser.add_argument("--page", type=Path, help="write the table here, with the chart in it")
    arguments = parser.parse_args(argv)
    arguments.load_average = os.getloadavg()[0]
    result = uvloop.run(run(arguments))
    print(table(result["workloads"]))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    if arguments.chart is not None:
        draw_chart(result, arguments.chart)
    if arguments.page is not None:
        arguments.page.write_text(page(result, arguments.chart), encoding="utf-8")
    for line in result["missed"]:
        print(f"missed: {line}", file=sys.stderr)
    return 1 if result["missed"] else 0


if __name__ == "__main__":
    sys.exit(main())
