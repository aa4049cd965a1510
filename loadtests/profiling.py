"""Where the time of a predict call goes, in one process and without a network: microseconds by part of the program.

    python loadtests/profiling.py                     # the hot path
    python loadtests/profiling.py --form routed       # the same calls through FastAPI's router
    python loadtests/profiling.py --inline-ms 0       # every graph run in a thread, as a server of large models does

The app is called as uvicorn calls it, one call after the other. Each workload runs twice: once against the clock, and
once under cProfile, which tells the parts of the event loop's thread but slows Python down, so that only the shares
of its column mean something.
"""

import argparse
import asyncio
import base64
import cProfile
import json
import logging
import pstats
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asgi import call, must, ready
from process import machine

from handful_service.app import create_app
from handful_service.settings import Settings

CALLS = 300
WARM_UP = 30
DRAWING = Path("tests/fixtures/glyphs")
PREDICT = "/v1/models/{}/predict"

PARTS = [
    ("door", ("handful_service/door", "handful_service/metrics", "prometheus_client", "logging", "pythonjsonlogger")),
    ("http", ("handful_service/routes", "handful_service/auth", "fastapi", "starlette")),
    ("json", ("pydantic", "handful_service/schemas", "handful_service/answers", "json/")),
    ("codecs", ("handful_service/codecs", "PIL", "base64")),
    ("use cases", ("handful_service/predictor", "handful_service/cache", "contextlib", "handful_service/task")),
    ("store", ("handful_service/store", "sqlalchemy", "sqlite3")),
    ("engine", ("handful_service/engine",)),
    ("onnxruntime", ("onnxruntime",)),
    ("numpy", ("numpy",)),
    ("event loop and threads", ("asyncio", "uvloop", "concurrent", "threading", "selectors", "queue")),
]
"""A part of the program, and what the file of a function of it holds."""


@dataclass(frozen=True, slots=True)
class Workload:
    """Calls of one kind: the model, the body, and the calls that must go before."""

    name: str
    model: str
    body: dict[str, Any]
    before: tuple[tuple[str, str, dict[str, Any]], ...] = ()


def workloads() -> Iterator[Workload]:
    """One input a call, against the shipped bundles."""
    curve = [{"input": [x / 2], "label": x / 3} for x in range(5)]
    put = ("PUT", "/v1/models/sinusoids-bayes/adaptations/one", {"support": curve})
    drawing = base64.b64encode(sorted(DRAWING.glob("*-2.png"))[0].read_bytes()).decode()
    yield Workload("base", "sinusoids-bayes", {"inputs": [[0.3]]})
    yield Workload("adaptation", "sinusoids-bayes", {"inputs": [[0.3]], "adaptation": "one"}, (put,))
    yield Workload("inline support of 5", "sinusoids-bayes", {"inputs": [[0.3]], "support": curve})
    yield Workload("known task, a drawing", "omniglot-maml", {"inputs": [drawing], "task": {"id": "alphabet-1"}})


async def timed(app: Any, work: Workload, calls: int) -> list[float]:
    """Seconds of each call."""
    body, path, seconds = json.dumps(work.body).encode(), PREDICT.format(work.model), []
    for _ in range(calls):
        started = time.perf_counter()
        status, _ = await call(app, "POST", path, body)
        seconds.append(time.perf_counter() - started)
        if status != 200:
            raise RuntimeError(f"{work.name}: {status}")
    return seconds


def part_of(file: str) -> str:
    """The part of the program that a file is of."""
    return next((name for name, marks in PARTS if any(mark in file for mark in marks)), "other")


def by_part(profile: cProfile.Profile) -> dict[str, float]:
    """Seconds of each part's own code; what is written in C counts to who calls it."""
    found: dict[str, float] = defaultdict(float)
    stats: Any = pstats.Stats(profile)
    for (file, _, _), (_, _, own, _, callers) in stats.stats.items():
        if file != "~":
            found[part_of(file)] += own
            continue
        for (caller, _, _), numbers in callers.items():
            found[part_of(caller)] += numbers[2]
    return dict(found)


async def measure(app: Any, work: Workload) -> dict[str, Any]:
    """Microseconds a call: the median against the clock, and the parts under cProfile."""
    for method, path, body in work.before:
        await must(app, method, path, body)
    await timed(app, work, WARM_UP)
    seconds = await timed(app, work, CALLS)
    profile = cProfile.Profile()
    profile.enable()
    await timed(app, work, CALLS)
    profile.disable()
    parts = by_part(profile)
    shares = {name: round(1e6 * parts.get(name, 0) / CALLS, 1) for name in [name for name, _ in PARTS] + ["other"]}
    return {"us_per_call": round(1e6 * statistics.median(seconds), 1), "us_under_cprofile": shares}


async def main(arguments: argparse.Namespace) -> None:
    """Measure every workload and print a table."""
    logging.getLogger("handful").setLevel(logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        app = make_app(arguments, folder)
        async with app.router.lifespan_context(app):
            await ready(app)
            figures = {work.name: await measure(app, work) for work in workloads()}
    print(json.dumps({"machine": machine(), "form": arguments.form, "workloads": figures}, indent=1))
    print(table(figures))


def make_app(arguments: argparse.Namespace, folder: str) -> Any:
    """The app in the asked form, on a store of its own."""
    settings = Settings(
        store=f"sqlite:///{folder}/handful.db", bundles=arguments.bundles, inline_ms=arguments.inline_ms
    )
    return create_app(settings, hot=arguments.form == "hot")


def table(figures: dict[str, dict[str, Any]]) -> str:
    """The figures as a Markdown table."""
    names = list(figures)
    lines = [f"| µs a call | {' | '.join(names)} |", f"| --- |{' ---: |' * len(names)}"]
    rows = [("by the clock", [str(figures[name]["us_per_call"]) for name in names])]
    parts = [name for name, _ in PARTS] + ["other"]
    rows += [(part, [str(figures[name]["us_under_cprofile"][part]) for name in names]) for part in parts]
    return "\n".join([*lines, *(f"| {name} | {' | '.join(cells)} |" for name, cells in rows)])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundles", type=Path, default=Path("bundles"), help="the model repository")
    parser.add_argument("--form", choices=("hot", "routed"), default="hot", help="who answers predict calls")
    parser.add_argument("--inline-ms", type=float, default=5.0, help="the setting `inline_ms`")
    asyncio.run(main(parser.parse_args()))
