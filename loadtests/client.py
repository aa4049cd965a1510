"""A small HTTP/1.1 client over one kept connection: the generator must cost less than the server that it measures."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import cast
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True)
class Request:
    """A call.

    Attributes:
        kind: What it is counted as, such as `predict` or `adapt`.
        headers: Further ones, name and value.
    """

    kind: str
    method: str
    path: str
    body: bytes = b""
    content_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()

    def wire(self, host: str, key: str | None) -> bytes:
        """The bytes that go over the connection."""
        lines = [f"{self.method} {self.path} HTTP/1.1", f"Host: {host}", f"Content-Length: {len(self.body)}"]
        if self.body:
            lines.append(f"Content-Type: {self.content_type}")
        if key is not None:
            lines.append(f"Authorization: Bearer {key}")
        lines += [f"{name}: {value}" for name, value in self.headers]
        return "\r\n".join([*lines, "", ""]).encode("ascii") + self.body


class Connection(asyncio.Protocol):
    """One request at a time; the answer is a head and a body."""

    def __init__(self) -> None:
        self.open = False
        self._transport: asyncio.Transport | None = None
        self._waiting: asyncio.Future[tuple[bytes, bytes]] | None = None
        self._got = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        self._transport, self.open = cast(asyncio.Transport, transport), True

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self.open = False
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(ConnectionError("the server closed the connection"))

    def data_received(self, data: bytes) -> None:
        """Take in a piece of an answer."""
        self._got += data
        head, found, rest = self._got.partition(b"\r\n\r\n")
        if not found or self._waiting is None:
            return
        if len(rest) >= length_of(head):
            self._got = b""
            if not self._waiting.done():
                self._waiting.set_result((head, rest))

    async def send(self, wire: bytes) -> tuple[bytes, bytes]:
        """The head and the body of the answer.

        Raises:
            ConnectionError: the connection is gone.
        """
        if self._transport is None or not self.open:
            raise ConnectionError("not connected")
        self._waiting = asyncio.get_running_loop().create_future()
        self._transport.write(wire)
        return await self._waiting

    def close(self) -> None:
        """Hang up."""
        if self._transport is not None:
            self._transport.close()


def length_of(head: bytes) -> int:
    """The bytes of the body behind a head."""
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    return 0  # 204 has none


class Pool:
    """Connections to one server: a free one is taken, or a new one made up to a bound, or the next free one awaited."""

    def __init__(self, url: str, *, most: int, key: str | None = None) -> None:
        parts = urlsplit(url)
        self._address = (parts.hostname or "127.0.0.1", parts.port or 80)
        self._host = parts.netloc
        self._key = key
        self._turn = asyncio.Semaphore(most)
        self._free: deque[Connection] = deque()

    async def send(self, request: Request) -> tuple[int, bytes]:
        """The status and the body of the answer; status 0 where the connection broke. See `exchange`."""
        status, _, body = await self.exchange(request)
        return status, body

    async def exchange(self, request: Request) -> tuple[int, bytes, bytes]:
        """The status, the head and the body of the answer; status 0 and no head where the connection broke.

        A kept connection may be one that the server closes at this moment, because it was idle for long: as every
        client does, the call is then sent once more, over a new one.
        """
        wire = request.wire(self._host, self._key)
        async with self._turn:
            kept = self._kept()
            try:
                if kept is not None:
                    return await self._over(kept, wire)
            except ConnectionError:
                pass
            try:
                return await self._over(await self._connect(), wire)
            except ConnectionError as error:
                return 0, b"", str(error).encode()

    async def _over(self, connection: Connection, wire: bytes) -> tuple[int, bytes, bytes]:
        head, body = await connection.send(wire)
        self._free.append(connection)
        return int(head[9:12]), head, body

    def _kept(self) -> Connection | None:
        while self._free:
            connection = self._free.pop()
            if connection.open:
                return connection
        return None

    async def _connect(self) -> Connection:
        _, connection = await asyncio.get_running_loop().create_connection(Connection, *self._address)
        return connection

    def close(self) -> None:
        """Hang up everywhere."""
        for connection in self._free:
            connection.close()


@asynccontextmanager
async def pool(url: str, *, most: int, key: str | None = None) -> AsyncIterator[Pool]:
    """A pool that is closed after the block."""
    made = Pool(url, most=most, key=key)
    try:
        yield made
    finally:
        made.close()
