"""An engine over a tiny bundle, and what numpy says it must give."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from handful_service.bundle.bundle import Bundle
from handful_service.cache import StateCache
from handful_service.engine.engine import Engine, EngineLimits
from handful_service.engine.runtime import runtime_settings
from handful_service.engine.scheduler import Scheduler
from handful_service.engine.slots import SlotTables
from handful_service.task import Arrays, SupportSet

from .tiny import Tiny


@dataclass(frozen=True)
class Running:
    """An engine with a cache of 100 slots, and the graph and rows of every batch so far."""

    tiny: Tiny
    engine: Engine
    cache: StateCache
    batches: list[tuple[str, int]]


@contextmanager
def running(
    bundle: Path, tiny: Tiny, tables: type[SlotTables] = SlotTables, inline_ms: float = 5.0, **limits: int
) -> Iterator[Running]:
    """The engine of a bundle that was built from `tiny`; `limits` as in `EngineLimits`."""
    opened, batches = Bundle.open(bundle), []
    slots = tables(opened.manifest.state, 100)
    with ThreadPoolExecutor(2) as executor:
        engine = Engine(
            opened,
            runtime_settings("cpu", 1),
            tables=slots,
            scheduler=Scheduler(executor, 2, inline_s=inline_ms / 1000),
            limits=EngineLimits(**limits),
            on_batch=lambda graph, rows: batches.append((graph, rows)),
        )
        yield Running(tiny, engine, StateCache(slots), batches)


def drawn(tiny: Tiny, seed: int, examples: int, ways: int = 4) -> SupportSet:
    """A support set at random."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(examples, tiny.width)).astype(np.float32)
    return SupportSet({tiny.feature: features}, rng.integers(0, ways, examples), np.ones(examples, np.float32))


def expected(tiny: Tiny, support: SupportSet) -> dict[str, np.ndarray]:
    """φ of a support set, from numpy."""
    return tiny.state(support.features[tiny.feature], support.y, support.weight)


async def adapt(on: Running, support: SupportSet) -> Arrays:
    """φ of a support set, from the engine."""
    return await on.engine.adapt(await on.engine.summarise(support) if on.tiny.statistics else support)


def close(one: Any, other: Any) -> bool:
    """Whether two arrays are the same to 1e-5."""
    return np.shape(one) == np.shape(other) and np.allclose(one, other, rtol=1e-5, atol=1e-5)
