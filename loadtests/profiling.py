"""Where the time of a predict call goes, in one process and without a network: before and after, side by side.

    python loadtests/profiling.py --out docs/results/profile.md

A call goes from the bytes of its request to those of its answer, as uvicorn makes it, one after the other, in four
forms of the server: through FastAPI's router with every graph run in a thread; through the router; through the hot
path; and through our protocol, which is how the server runs. Each workload runs twice: once against the clock, and once
under cProfile, which tells the parts of the event loop's thread but slows Python down, so that only the shares of its
column mean something.
"""

import argparse
import asyncio
import base64
import cProfile
import json
import logging
import pstats
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from feeding import Feed
from process import machine

from handful_service.app import create_app
from handful_service.protocol import protocol_of
from handful_service.settings import Settings

CALLS = 300
WARM_UP = 30
DRAWING = Path("tests/fixtures/glyphs")
PREDICT = "/v1/models/{}/predict"

PARTS = [
    (
        "door",
        (
            "handful_service/door",
            "handful_service/porter",
            "handful_service/patience",
            "handful_service/metrics",
            "prometheus_client",
            "logging",
            "pythonjsonlogger",
        ),
    ),
    (
        "http",
        (
            "handful_service/protocol",
            "handful_service/routes",
            "handful_service/auth",
            "fastapi",
            "starlette",
            "uvicorn",
            "feeding",
        ),
    ),
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


async def timed(feed: Feed, work: Workload, calls: int) -> list[float]:
    """Seconds of each call."""
    body, path, seconds = json.dumps(work.body).encode(), PREDICT.format(work.model), []
    for _ in range(calls):
        started = time.perf_counter()
        status, _ = await feed.call("POST", path, body)
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


async def measure(feed: Feed, work: Workload) -> dict[str, Any]:
    """Microseconds a call: the median against the clock, and the parts under cProfile."""
    for method, path, body in work.before:
        await feed.must(method, path, body)
    await timed(feed, work, WARM_UP)
    seconds = await timed(feed, work, CALLS)
    profile = cProfile.Profile()
    profile.enable()
    await timed(feed, work, CALLS)
    profile.disable()
    parts = by_part(profile)
    shares = {name: round(1e6 * parts.get(name, 0) / CALLS, 1) for name in [name for name, _ in PARTS] + ["other"]}
    return {"us_per_call": round(1e6 * statistics.median(seconds), 1), "us_under_cprofile": shares}


@dataclass(frozen=True, slots=True)
class Form:
    """A form of the server.

    Attributes:
        hot: Whether predict calls are answered ahead of the router.
        protocol: Whether they are answered by our protocol.
    """

    name: str
    hot: bool = True
    protocol: bool = False
    inline_ms: float = 5.0


FORMS = (
    Form("router, runs in threads", hot=False, inline_ms=0),
    Form("router", hot=False),
    Form("hot path"),
    Form("protocol", protocol=True),
)


_NOBODY: set[None] = set()
"""Whom the end of a connection is told."""


@asynccontextmanager
async def fed(form: Form, bundles: Path) -> AsyncIterator[Feed]:
    """A connection to the app in a form, on a store of its own."""
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(store=f"sqlite:///{folder}/handful.db", bundles=bundles, inline_ms=form.inline_ms)
        app = create_app(settings, hot=form.hot)
        async with app.router.lifespan_context(app):
            feed = Feed(app, protocol_of(app.state.porter, app.state, _NOBODY.clear) if form.protocol else "httptools")
            await feed.ready()
            yield feed


async def run(bundles: Path) -> dict[str, dict[str, Any]]:
    """The figures of each form and workload."""
    logging.getLogger("handful").setLevel(logging.WARNING)
    found = {}
    for form in FORMS:
        async with fed(form, bundles) as feed:
            found[form.name] = {work.name: await measure(feed, work) for work in workloads()}
    return found


def clocks(figures: dict[str, dict[str, Any]]) -> list[str]:
    """What a call takes, by form: Markdown."""
    names = list(next(iter(figures.values())))
    lines = [f"| µs a call | {' | '.join(names)} |", f"| --- |{' ---: |' * len(names)}"]
    cells = {form: [str(works[name]["us_per_call"]) for name in names] for form, works in figures.items()}
    return [*lines, *(f"| {form} | {' | '.join(of_form)} |" for form, of_form in cells.items())]


def shares(works: dict[str, Any]) -> list[str]:
    """Where it goes, by part: Markdown."""
    names, parts = list(works), [name for name, _ in PARTS] + ["other"]
    lines = [f"| µs a call, under cProfile | {' | '.join(names)} |", f"| --- |{' ---: |' * len(names)}"]
    cells = {part: [str(works[name]["us_under_cprofile"][part]) for name in names] for part in parts}
    return [*lines, *(f"| {part} | {' | '.join(of_part)} |" for part, of_part in cells.items())]


def page(figures: dict[str, dict[str, Any]], command: str) -> str:
    """Everything as a page."""
    first, last = FORMS[0].name, FORMS[-1].name
    lines = ["# The profile of a predict call", "", f"Written by `{command}` on {machine()}.", "", *clocks(figures)]
    for form in (first, last):
        lines += ["", f"## By part: {form}", "", *shares(figures[form])]
    return "\n".join([*lines, ""])


def main() -> None:
    """Measure, print, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundles", type=Path, default=Path("bundles"), help="the model repository")
    parser.add_argument("--out", type=Path, help="write the page here")
    arguments = parser.parse_args()
    text = page(asyncio.run(run(arguments.bundles)), " ".join(["python", *sys.argv]))
    print(text)
    if arguments.out is not None:
        arguments.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
