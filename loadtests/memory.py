"""Whether memory stays flat: shapes at random, task states and adaptations that come and go, without a network.

    python -m loadtests.memory --page docs/results/memory.md
    python -m loadtests.memory --share 0.02 --only shapes

Each part is warmed up by its largest shape and by a tenth of its steps. After that resident memory may grow by 5 % at
most; else the exit code is 1.
"""

import argparse
import asyncio
import gc
import logging
import multiprocessing
import random
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from loadtests.feeding import Feed
from loadtests.process import report

from handful_service.app import create_app
from handful_service.assembly import ENTRY_BYTES, serve
from handful_service.bundle.bundle import Bundle
from handful_service.cache import Budget, StateCache
from handful_service.engine.engine import EngineLimits
from handful_service.engine.runtime import runtime_settings
from handful_service.engine.scheduler import Scheduler
from handful_service.engine.slots import SlotTables
from handful_service.metrics import Metrics
from handful_service.predictor.models import Served
from handful_service.settings import Settings
from handful_service.task import Array, Labels, SupportSet, TaskState

Step = Callable[[int], Awaitable[None]]

MOST_GROWTH = 0.05
PICTURES, TEXTS, CURVES = "glyphs", "papers", "sinusoids-bayes"
MOST_ROWS, MOST_EXAMPLES = 64, 80
SLOTS = 1000
CACHE_BYTES = 2**20
"""A cache that is full within the first tenth: what it may hold is no growth."""

TOGETHER = 4
"""Most calls of a step; on average there are two and a half, which makes 10⁵ calls of the steps of the full form."""


def resident_mb() -> float:
    """Resident memory of this process, in MiB."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * 4096 / 2**20


async def marks_of(step: Step, count: int) -> list[float]:
    """Resident memory after each tenth of some steps, in MiB."""
    marks = []
    for tenth in range(10):
        for number in range(tenth * count // 10, (tenth + 1) * count // 10):
            await step(number)
        gc.collect()
        marks.append(round(resident_mb(), 1))
    return marks


@contextmanager
def served(bundles: Path, name: str, pool: ThreadPoolExecutor) -> Any:
    """A bundle, ready to run, with some slots."""
    bundle = Bundle.open(max((bundles / name).glob("[0-9]*")))
    budget = Budget(SLOTS * (bundle.manifest.state_bytes + ENTRY_BYTES))
    runtime, scheduler = runtime_settings("cpu", 1), Scheduler(pool)
    yield serve(bundle, runtime, scheduler, metrics=Metrics(), limits=EngineLimits(), budget=budget)


class Shapes:
    """Calls of random sizes to the graphs of a bundle, made of the rows of its golden inputs."""

    def __init__(self, of: Served, rng: random.Random) -> None:
        self._engine, self._rng = of.engine, rng
        golden, manifest = of.bundle.golden(), of.manifest
        self._inputs = {name: golden["encode"].inputs[name] for name in manifest.inputs}
        self._features = {name: golden["predict"].inputs[name] for name in manifest.features}
        learned = golden["summarise" if manifest.statistics else "adapt"].inputs
        self._support = (
            {name: learned[f"{name}_s"] for name in manifest.features} if "support" in manifest.accepts else {}
        )
        self._y = learned.get("y_s")

    async def step(self, number: int) -> None:
        """A few calls at the same time; at first all that there are, at their largest."""
        kinds = [self._encode, self._predict, *([self._adapt] if self._support else [])]
        if number == 0:
            await asyncio.gather(*(kind(1.0) for kind in kinds * TOGETHER))
        await asyncio.gather(*(self._rng.choice(kinds)(None) for _ in range(self._rng.randint(1, TOGETHER))))

    async def _encode(self, size: float | None) -> None:
        rows = self._size(MOST_ROWS, size)
        await self._engine.encode({name: self._drawn(array, rows) for name, array in self._inputs.items()})

    async def _predict(self, size: float | None) -> None:
        rows = self._size(4 * MOST_ROWS, size)
        features = {name: self._drawn(array, rows) for name, array in self._features.items()}
        await self._engine.predict(features, [self._rng.randrange(64) for _ in range(rows)])

    async def _adapt(self, size: float | None) -> None:
        examples = self._size(MOST_EXAMPLES, size)
        features = {name: self._drawn(array[0], examples) for name, array in self._support.items()}
        assert self._y is not None  # noqa: S101 (for the type checker)
        y, weight = self._drawn(self._y[0], examples), np.ones(examples, np.float32)
        support = SupportSet(features, y, weight)
        has_statistics = self._engine.manifest.statistics is not None
        await self._engine.adapt(await self._engine.summarise(support) if has_statistics else support)

    def _size(self, most: int, size: float | None) -> int:
        """A number at random, small ones as often as large ones."""
        return max(1, round(most ** (self._rng.random() if size is None else size)))

    def _drawn(self, array: Array, rows: int) -> Array:
        return array[[self._rng.randrange(len(array)) for _ in range(rows)]]


@asynccontextmanager
async def shapes(bundles: Path) -> AsyncIterator[Step]:
    """Steps that run graphs of pictures and of texts with random sizes."""
    with (
        ThreadPoolExecutor(1) as pool,
        served(bundles, PICTURES, pool) as pictures,
        served(bundles, TEXTS, pool) as texts,
    ):
        drawn = [Shapes(pictures, random.Random(1)), Shapes(texts, random.Random(2))]
        yield lambda number: drawn[number % 2].step(number // 2)


@asynccontextmanager
async def states(bundles: Path) -> AsyncIterator[Step]:
    """Steps that each make the state of another user, which puts an older one out of its slot."""
    bundle = Bundle.open(max((bundles / CURVES).glob("[0-9]*")))
    tables = SlotTables(bundle.manifest.state, SLOTS)
    cache = StateCache(tables)

    async def step(number: int) -> None:
        async def load() -> TaskState:
            arrays = {name: np.full(spec.shape, number, spec.dtype) for name, spec in bundle.manifest.state.items()}
            return TaskState(arrays, Labels(()), 1)

        with cache.pins() as pins:
            await pins.pin(("tenant", CURVES, bundle.digest, f"user-{number}", number), load)

    yield step


@asynccontextmanager
async def adaptations(bundles: Path) -> AsyncIterator[Step]:
    """Steps that each make an adaptation by HTTP, predict with it and delete it, over a store."""
    logging.getLogger("handful").setLevel(logging.WARNING)
    rng, at = random.Random(3), f"/v1/models/{CURVES}/adaptations"
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(bundles / CURVES, Path(folder) / "bundles" / CURVES)
        store, repository = f"sqlite:///{folder}/handful.db", Path(folder) / "bundles"
        app = create_app(Settings(store=store, bundles=repository, cache_bytes=CACHE_BYTES))
        async with app.router.lifespan_context(app):
            feed = Feed(app)
            await feed.ready()

            async def step(number: int) -> None:
                support = [{"input": [rng.uniform(-4, 4)], "label": 1.0} for _ in range(rng.randint(1, 10))]
                await feed.must("PUT", f"{at}/user-{number}", {"support": support})
                asked = {"inputs": [[0.5]] * rng.randint(1, 20), "adaptation": f"user-{number}"}
                await feed.must("POST", f"/v1/models/{CURVES}/predict", asked)
                status, _ = await feed.call("DELETE", f"{at}/user-{number}", b"")
                if status != 204:
                    raise RuntimeError(f"DELETE: {status}")

            yield step


PARTS: Mapping[str, tuple[Any, int]] = {
    "shapes": (shapes, 40_000),
    "states": (states, 1_000_000),
    "adaptations": (adaptations, 2_000),
}


def alone(name: str, share: float, bundles: Path) -> dict[str, Any]:
    """The figures of a part in a process of its own, where no other one has left free memory to grow into."""
    fresh = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=fresh) as processes:
        return processes.submit(measure, name, share, bundles).result()


def measure(name: str, share: float, bundles: Path) -> dict[str, Any]:
    """The figures of a part."""
    return asyncio.run(_measure(name, share, bundles))


async def _measure(name: str, share: float, bundles: Path) -> dict[str, Any]:
    part, count = PARTS[name]
    steps, started = max(10, round(share * count)), time.monotonic()
    async with part(bundles) as step:
        marks = await marks_of(step, steps)
    return {
        "steps": steps,
        "seconds": round(time.monotonic() - started, 1),
        "resident_mb_after_each_tenth": marks,
        "growth_after_the_first": round(max(marks) / marks[0] - 1, 4),
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundles", type=Path, default=Path("bundles"), help="the model repository")
    parser.add_argument("--share", type=float, default=1.0, help="of the steps of the full form (default: 1)")
    parser.add_argument("--only", action="append", choices=list(PARTS), help="a part; may be given several times")
    parser.add_argument("--page", help="write the figures to this page")
    arguments = parser.parse_args(argv)
    found = {name: alone(name, arguments.share, arguments.bundles) for name in arguments.only or list(PARTS)}
    report("Memory", {"most_growth": MOST_GROWTH, "parts": found}, arguments.page)
    return 1 if any(part["growth_after_the_first"] > MOST_GROWTH for part in found.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
