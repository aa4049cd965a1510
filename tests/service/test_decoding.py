"""How much may wait for the threads that decode pictures."""

import asyncio
import base64
import io
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import pytest
from PIL import Image
from tests.serving import BUNDLES

from handful_service.bundle.manifest import Manifest, parse_manifest
from handful_service.codecs import decode
from handful_service.codecs.decode import PORTION, QUICK
from handful_service.engine.calls import CALL, Call
from handful_service.errors import DeadlineExceeded, InputInvalid, Overloaded
from handful_service.predictor import decoding
from handful_service.predictor.decoding import FEW, HEAD_PARTS, Decoders
from handful_service.predictor.models import Served

GLYPHS = parse_manifest((BUNDLES / "glyphs/1/manifest.json").read_bytes())
OF_PORTION = 8
"""Pictures that fill one portion."""


def picture(side: int = 256) -> str:
    file = io.BytesIO()
    drawing = np.full((side, side), 255, np.uint8)
    drawing[side // 4 : side // 2] = 0
    Image.fromarray(drawing).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


PICTURE = picture()


@dataclass
class FakeEngine:
    """Notes who was let in."""

    row_s: float = 0.0
    rows: list[int] = field(default_factory=list)

    def encoding_s(self, rows: int) -> float:
        return rows * self.row_s

    def admit(self, call: Call, rows: int) -> None:
        self.rows.append(rows)
        call.admitted = True


@dataclass
class FakeServed:
    """As much of a bundle as decoding reads."""

    engine: FakeEngine = field(default_factory=FakeEngine)
    manifest: Manifest = GLYPHS
    tokenizer: None = None

    def decoded_here(self, values: list[Any]) -> bool:
        return decode.is_quick(values, self.manifest)


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    """A portion takes a second, whatever it really takes."""
    monkeypatch.setattr(decoding, "FIRST_S", 1 / PORTION)
    monkeypatch.setattr(decoding, "WEIGHT", 0.0)


@contextmanager
def stopped() -> Iterator[tuple[ThreadPoolExecutor, threading.Event]]:
    """A thread that does nothing before it is let go."""
    gate = threading.Event()
    with ThreadPoolExecutor(1) as executor:
        executor.submit(gate.wait)
        yield executor, gate
        gate.set()


class Bench:
    """Decoders whose thread stands still, and calls of some pictures each."""

    def __init__(self, executor: ThreadPoolExecutor, most_s: float, row_s: float = 0.0) -> None:
        self.decoders = Decoders(executor, 1, most_s)
        self.served = FakeServed(FakeEngine(row_s))

    async def decode(self, count: int, *, deadline_s: float = 1e9, call: Call | None = None) -> Any:
        CALL.set(call or Call(time.monotonic() + deadline_s))
        fields = [f"inputs[{place}]" for place in range(count)]
        return await self.decoders.decode(cast(Served, self.served), [PICTURE] * count, fields)

    async def start(self, count: int, **how: Any) -> "asyncio.Task[Any]":
        task = asyncio.create_task(self.decode(count, **how))
        await asyncio.sleep(0)
        return task


def test_pictures_of_all_portions_are_decoded_in_order() -> None:
    async def go() -> None:
        pictures = [picture(side) for side in (256, 255, 254, 250)] * 10
        with ThreadPoolExecutor(2) as executor:
            decoders = Decoders(executor, 2, 0.5)
            fields = [f"inputs[{place}]" for place in range(40)]
            found = await decoders.decode(cast(Served, FakeServed()), pictures, fields)
            whole = decode.decode_rows(pictures, fields, GLYPHS)
            for name in GLYPHS.inputs:
                np.testing.assert_array_equal(found.arrays[name], whole.arrays[name])
            assert found.folded == whole.folded
            with pytest.raises(InputInvalid, match=r"inputs\[33\]"):
                await decoders.decode(cast(Served, FakeServed()), [*pictures[:33], "!", *pictures[34:]], fields)
            decoders.refuse_if_full()

    asyncio.run(go())


@pytest.mark.usefixtures("known")
def test_more_than_may_wait_is_refused_and_with_it_how_long_to_wait() -> None:
    async def go() -> None:
        with stopped() as (executor, gate):
            bench = Bench(executor, most_s=3.5)
            at_work = [await bench.start(2 * OF_PORTION) for _ in range(FEW)]  # 2 s each
            with pytest.raises(Overloaded, match="4000 ms") as refused:
                await bench.decode(2 * OF_PORTION)
            assert refused.value.retry_after_s == pytest.approx(4)
            assert "3500 ms" in str(refused.value.allowed)
            assert bench.served.engine.rows == [2 * OF_PORTION] * FEW, "who is refused is not let in"
            at_work.append(await bench.start(OF_PORTION))  # waits for as much of each as it brings itself
            gate.set()
            await asyncio.gather(*at_work)
            await bench.decode(2 * OF_PORTION)
            assert len(bench.served.engine.rows) == FEW + 2

    asyncio.run(go())


@pytest.mark.usefixtures("known")
def test_a_few_calls_are_never_too_many_however_large() -> None:
    async def go() -> None:
        with stopped() as (executor, gate):
            bench = Bench(executor, most_s=0.1)
            at_work = [await bench.start(4 * OF_PORTION) for _ in range(FEW)]
            assert not any(task.done() for task in at_work)
            with pytest.raises(Overloaded):
                await bench.decode(4 * OF_PORTION)
            gate.set()
            await asyncio.gather(*at_work)

    asyncio.run(go())


@pytest.mark.usefixtures("known")
def test_what_comes_behind_decoding_counts_and_what_was_let_in_is_not_asked_again() -> None:
    async def go() -> None:
        with stopped() as (executor, gate):
            bench = Bench(executor, most_s=3.5, row_s=1 / OF_PORTION)
            at_work = [await bench.start(OF_PORTION) for _ in range(FEW)]  # 1 s of decoding, 1 s of runs
            with pytest.raises(Overloaded):
                await bench.decode(OF_PORTION)
            at_work.append(await bench.start(OF_PORTION, call=Call(admitted=True)))
            assert len(bench.served.engine.rows) == FEW
            gate.set()
            await asyncio.gather(*at_work)

    asyncio.run(go())


@pytest.mark.usefixtures("known")
@pytest.mark.parametrize(("deadline_s", "late"), [(2.5, True), (3.5, False)])
def test_a_call_that_cannot_be_ready_in_time_is_refused_at_once(deadline_s: float, late: bool) -> None:
    async def go() -> None:
        with stopped() as (executor, gate):
            bench = Bench(executor, most_s=100)
            at_work = [await bench.start(2 * OF_PORTION)]
            if late:
                with pytest.raises(DeadlineExceeded, match="X-Deadline-Ms"):
                    await bench.decode(int(1.5 * OF_PORTION), deadline_s=deadline_s)
            else:
                at_work.append(await bench.start(int(1.5 * OF_PORTION), deadline_s=deadline_s))
                assert not at_work[-1].done()
            gate.set()
            await asyncio.gather(*at_work)

    asyncio.run(go())


@pytest.mark.usefixtures("known")
def test_large_calls_are_refused_before_their_body_when_far_too_much_is_at_work() -> None:
    async def go() -> None:
        with stopped() as (executor, gate):
            bench = Bench(executor, most_s=1.0)
            bench.decoders.refuse_if_full()
            at_work = [await bench.start((HEAD_PARTS + 1) * OF_PORTION)]
            with pytest.raises(Overloaded) as refused:
                bench.decoders.refuse_if_full()
            assert refused.value.retry_after_s == pytest.approx(HEAD_PARTS + 1)
            gate.set()
            await asyncio.gather(*at_work)
            bench.decoders.refuse_if_full()

    asyncio.run(go())


@pytest.mark.usefixtures("known")
def test_a_call_that_is_given_up_leaves_nothing_that_waits() -> None:
    async def go() -> None:
        with stopped() as (executor, gate):
            bench = Bench(executor, most_s=0.1)
            given_up = await bench.start(100 * OF_PORTION)
            given_up.cancel()
            with pytest.raises(asyncio.CancelledError):
                await given_up
            bench.decoders.refuse_if_full()
            gate.set()

    asyncio.run(go())


@pytest.mark.usefixtures("known")
def test_what_is_left_follows_the_time_of_a_pixel() -> None:
    async def go() -> None:
        with stopped() as (executor, gate):
            bench = Bench(executor, most_s=1.0)
            at_work = await bench.start(2 * OF_PORTION)
            bench.decoders._pixel_s *= 10  # as if others had been decoded meanwhile
            with pytest.raises(Overloaded) as refused:
                bench.decoders.refuse_if_full()
            assert refused.value.retry_after_s == pytest.approx(20)
            gate.set()
            await at_work

    asyncio.run(go())


def test_the_time_of_a_pixel_is_learned() -> None:
    async def go() -> None:
        with ThreadPoolExecutor(1) as executor:
            bench = Bench(executor, most_s=1e9)
            found = []

            async def seconds() -> float:
                task = await bench.start(20 * OF_PORTION)
                with pytest.raises(Overloaded) as refused:
                    Decoders.refuse_if_full(bench.decoders)
                await task
                return float(refused.value.retry_after_s or 0)

            bench.decoders._max_queued_s = 0.0
            found.append(await seconds())
            found.append(await seconds())
            started = time.perf_counter()
            await bench.decode(20 * OF_PORTION)
            took = time.perf_counter() - started
            assert found[0] == pytest.approx(20 * OF_PORTION * 256**2 / QUICK * 1e-3)
            assert took / 5 < found[1] < took * 5

    asyncio.run(go())
