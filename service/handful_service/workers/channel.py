"""What the supervisor and a worker tell each other: JSON lines over a pair of sockets.

| from | message | meaning |
| --- | --- | --- |
| supervisor | `start` | The first one: `settings`, `number` of the worker, `metrics` (a folder). |
| supervisor | `group` | `blocked`: why not all workers are ready; null when they are. |
| supervisor | `drain` | Readiness turns 503. |
| supervisor | `stop` | Answer what was accepted and end; with `force`, wait for nothing. |
| worker | `ready` | `digests` of its bundles. |
| worker | `draining` | It was told to end, by someone else: it should get no more connections. |
| worker | `failed` | It cannot start; `mends`: whether trying again may help. |

Either side sees the other's end as the end of the channel.
"""

import asyncio
import json
import socket
from collections.abc import Callable
from typing import Any, cast

Message = dict[str, Any]


class Channel(asyncio.Protocol):
    """One end.

    Args:
        on_message: Told every message.
        on_end: Told, once, that the other side is gone.
    """

    def __init__(self, on_message: Callable[[Message], None], on_end: Callable[[], None]) -> None:
        self._on_message, self._on_end = on_message, on_end
        self._transport: asyncio.Transport | None = None
        self._rest = b""

    async def connect(self, end: socket.socket) -> None:
        """Begin to listen at an end of a pair of sockets, which is this object's from now on."""
        await asyncio.get_running_loop().create_unix_connection(lambda: self, sock=end)

    def send(self, kind: str, **values: Any) -> None:
        """Send a message; to one who is gone, nothing."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(line(kind, **values))

    def close(self) -> None:
        """Hang up."""
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for text in lines:
            self._on_message(json.loads(text))

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self._transport = None
        self._on_end()


def line(kind: str, **values: Any) -> bytes:
    """A message as bytes."""
    return json.dumps({"kind": kind, **values}).encode() + b"\n"


def read_first(end: socket.socket) -> Message:
    """The first message, waited for; what follows it is left to be read.

    Raises:
        ConnectionError: the other side hung up before it.
    """
    text = bytearray()
    while not text.endswith(b"\n"):
        byte = end.recv(1)
        if not byte:
            raise ConnectionError("the supervisor is gone")
        text += byte
    return cast(Message, json.loads(text))
