"""Raw inputs to arrays, in threads where that takes a while, and no more than can be answered in time."""

import asyncio
import math
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from ..codecs.decode import QUICK, Decoded, decode_rows, portions
from ..engine.calls import CALL
from ..engine.scheduler import check_deadline
from ..errors import Overloaded
from .models import Served

T = TypeVar("T")

FEW = 2
"""So many calls for each thread may always be at work: one call with very much refuses no other."""

HEAD_PARTS = 4
"""A large call is refused before its body is read when so many times of what may wait is at work."""

FIRST_S = 1e-3 / QUICK
"""Seconds for a pixel, before any was decoded."""

WEIGHT = 0.2
"""Of the portion that was decoded last, in the estimate of the seconds for a pixel."""


@dataclass(slots=True, eq=False)
class _Work:
    """One call whose inputs are being decoded.

    Attributes:
        pixels: That are left to decode.
        behind_s: Predicted seconds of the graph runs that follow.
    """

    pixels: int
    behind_s: float


class Decoders:
    """The threads that decode pictures and texts. They work a portion of each call in turn.

    Args:
        executor: The threads.
        threads: How many there are.
        max_queued_s: Seconds of work that a call may have to wait for, beside its own.
    """

    def __init__(self, executor: Executor, threads: int = 1, max_queued_s: float = math.inf) -> None:
        self._executor, self._threads = executor, threads
        self._max_queued_s = max_queued_s
        self._pixel_s = FIRST_S
        self._works: dict[_Work, None] = {}

    async def run(self, function: Callable[..., T], *args: Any) -> T:
        """What a function gives that takes a moment, in a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, function, *args)

    async def decode(self, served: Served, values: Sequence[Any], fields: Sequence[str]) -> Decoded:
        """Arrays of raw inputs; many or large pictures and texts are decoded in a thread.

        A portion at a time: other calls get their turn, and a call that is over, by its deadline, stops there. What was
        let in here, is not refused by the graphs behind it.

        Args:
            served: The model.
            values: The inputs.
            fields: The place of each in the request, for messages.

        Raises:
            InputInvalid: an input cannot be read.
            TooLarge: a picture has too many pixels.
            Overloaded: too much is waiting.
            DeadlineExceeded: the call cannot be answered in time.
        """
        manifest = served.manifest
        if served.decoded_here(values):
            return decode_rows(values, fields, manifest, served.tokenizer)
        parts = []
        found = portions(values, manifest)
        pixels_of_all = sum([portion.pixels for portion in found])
        with self._let_in(served, _Work(pixels_of_all, served.engine.encoding_s(len(values))), len(values)) as work:
            for span, pixels in found:
                parts.append(await self.run(self._portion, served, values[span], fields[span], pixels))
                work.pixels -= pixels
        if len(parts) == 1:
            return parts[0]
        arrays = {name: np.concatenate([part.arrays[name] for part in parts]) for name in manifest.inputs}
        return Decoded(arrays, tuple(folded for part in parts for folded in part.folded))

    def _portion(self, served: Served, values: Sequence[Any], fields: Sequence[str], pixels: int) -> Decoded:
        started = time.perf_counter()
        decoded = decode_rows(values, fields, served.manifest, served.tokenizer)
        each = (time.perf_counter() - started) / max(pixels, 1)
        self._pixel_s += WEIGHT * (each - self._pixel_s)
        return decoded

    @contextmanager
    def _let_in(self, served: Served, work: _Work, rows: int) -> Iterator[_Work]:
        call = CALL.get()
        if call is not None and not call.admitted:
            own_s = self._left_s(work)
            # The threads change between calls, so that nobody waits for more of another's than it brings itself.
            wait_s = sum([min(self._left_s(other), own_s) for other in self._works])
            if wait_s > self._max_queued_s and len(self._works) >= FEW * self._threads:
                raise self._full(wait_s, self._max_queued_s)
            check_deadline(wait_s + own_s, call.deadline_s)
            served.engine.admit(call, rows)
        self._works[work] = None
        try:
            yield work
        finally:
            del self._works[work]

    def _left_s(self, work: _Work) -> float:
        """Predicted seconds of what is left of a call."""
        return work.pixels * self._pixel_s / self._threads + work.behind_s

    def refuse_if_full(self) -> None:
        """Refuse a large call whose body was not read yet, if there is far too much at work.

        Raises:
            Overloaded: there is.
        """
        wait_s, most_s = sum([self._left_s(work) for work in self._works]), HEAD_PARTS * self._max_queued_s
        if wait_s > most_s:
            raise self._full(wait_s, most_s)

    def _full(self, wait_s: float, most_s: float) -> Overloaded:
        return Overloaded(
            f"{1e3 * wait_s:.0f} ms of decoding and what follows are waiting",
            allowed=f"at most {1e3 * most_s:g} ms",
            retry_after_s=wait_s,
        )
