"""Sends calls at given times, whatever the server does, with neither a task nor a future for each of them.

Under overload the generator shares the machine with a server that needs all of it: each microsecond that it takes is
missing in what the server answers.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import cast

from loadtests.client import length_of

Answered = Callable[[int, bytes, float, float], None]
"""Told the status, the head, and the times at which a call should have left and did; status 0: a broken connection."""


class _Line(asyncio.Protocol):
    """A connection that has one call at a time."""

    def __init__(self, sender: "Sender") -> None:
        self._sender = sender
        self._transport: asyncio.Transport | None = None
        self._got = b""
        self._times: tuple[float, float] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self._transport = None
        if self._times is not None:
            self._end(0, b"")

    def data_received(self, data: bytes) -> None:
        """Take in a piece of an answer."""
        self._got = self._got + data if self._got else data
        head, found, rest = self._got.partition(b"\r\n\r\n")
        if found and self._times is not None and len(rest) >= length_of(head):
            self._got = b""
            self._end(int(head[9:12]), head)

    @property
    def open(self) -> bool:
        """Whether the server has not hung up."""
        return self._transport is not None

    def send(self, wire: bytes, intended: float) -> None:
        """Send a call that should have left at a time."""
        self._times = intended, time.perf_counter()
        if self._transport is None:
            self._end(0, b"")
        else:
            self._transport.write(wire)

    def _end(self, status: int, head: bytes) -> None:
        if self._times is None:
            return
        (intended, sent), self._times = self._times, None
        self._sender.ended(None if self._transport is None else self, status, head, intended, sent)

    def close(self) -> None:
        """Hang up."""
        if self._transport is not None:
            self._transport.close()


class Sender:
    """Kept connections to one server, as many as calls are under way.

    Args:
        host: The server's.
        port: The server's.
        answered: Told of every call that is over.
    """

    def __init__(self, host: str, port: int, answered: Answered) -> None:
        self._host, self._port, self._answered = host, port, answered
        self._free: deque[_Line] = deque()
        self._waiting: deque[tuple[bytes, float]] = deque()
        self._opening: set[asyncio.Task[None]] = set()
        self._under_way = 0
        self._over = asyncio.Event()

    async def send(self, wires: Sequence[bytes], after_s: Sequence[float]) -> None:
        """Send calls, each so many seconds after now, and wait for all answers.

        Args:
            wires: The bytes of each call.
            after_s: Its time, in rising order.
        """
        start, place = time.perf_counter(), 0
        self._under_way, count = len(wires), len(wires)
        self._over.clear()
        while place < count:
            now = time.perf_counter() - start
            while place < count and after_s[place] <= now:
                self._fire(wires[place], start + after_s[place])
                place += 1
            if place < count:
                await asyncio.sleep(max(0.0, start + after_s[place] - time.perf_counter()))
        await self._over.wait()

    def _fire(self, wire: bytes, intended: float) -> None:
        while self._free:
            line = self._free.pop()
            if line.open:  # those that were idle for long may be closed
                line.send(wire, intended)
                return
        self._waiting.append((wire, intended))
        task = asyncio.get_running_loop().create_task(self._open())
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    async def _open(self) -> None:
        try:
            _, line = await asyncio.get_running_loop().create_connection(lambda: _Line(self), self._host, self._port)
        except OSError:
            _, intended = self._waiting.popleft()
            self.ended(None, 0, b"", intended, time.perf_counter())
        else:
            self._take(line)

    def _take(self, line: _Line) -> None:
        """Use a connection that is free for what waits longest for one."""
        if self._waiting:
            line.send(*self._waiting.popleft())
        else:
            self._free.append(line)

    def ended(self, line: _Line | None, status: int, head: bytes, intended: float, sent: float) -> None:
        """Count a call that is over; its connection, where it is still open, is free."""
        self._answered(status, head, intended, sent)
        if line is not None:
            self._take(line)
        self._under_way -= 1
        if not self._under_way:
            self._over.set()

    def close(self) -> None:
        """Hang up everywhere."""
        for line in self._free:
            line.close()
