"""HTTP over real connections, for tests that care which connection a call takes and what becomes of it."""

import asyncio
import json
from collections import deque
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar
from urllib.parse import urlsplit

T = TypeVar("T")
ANSWERED_WITHIN_S = 60


@dataclass(frozen=True)
class Answer:
    """What came back.

    Attributes:
        closes: Whether the server closes the connection after it.
    """

    status: int
    headers: Mapping[str, str]
    content: bytes

    @property
    def closes(self) -> bool:
        return self.headers.get("connection") == "close"

    def json(self) -> Any:
        return json.loads(self.content)


def run(work: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine; what connections it leaves open are closed."""

    async def closing() -> T:
        try:
            return await work
        finally:
            for connection in Connection.open_ones:
                connection.close()
            await asyncio.gather(*(one.closed() for one in Connection.open_ones), return_exceptions=True)
            Connection.open_ones.clear()

    return asyncio.run(closing())


class Connection:
    """One connection, one call at a time; to be used within `run`."""

    open_ones: ClassVar[list["Connection"]] = []

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def open(cls, url: str) -> "Connection":
        parts = urlsplit(url)
        made = cls(*await asyncio.open_connection(parts.hostname, parts.port))
        cls.open_ones.append(made)
        return made

    async def call(
        self, method: str, path: str, body: Any = None, headers: Sequence[tuple[bytes, bytes]] = ()
    ) -> Answer:
        """The answer.

        Raises:
            ConnectionError: the server closed the connection before it.
        """
        content = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        lines = [f"{method} {path} HTTP/1.1".encode(), b"host: x", b"content-length: %d" % len(content)]
        if content and all(name != b"content-type" for name, _ in headers):
            lines.append(b"content-type: application/json")
        lines += [name + b": " + value for name, value in headers]
        self._writer.write(b"\r\n".join([*lines, b"", b""]) + content)
        async with asyncio.timeout(ANSWERED_WITHIN_S):
            return await self._answer()

    async def _answer(self) -> Answer:
        try:
            first, *rest = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")[:-2]
            found = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in rest)}
            content = await self._reader.readexactly(int(found.get("content-length", 0)))
        except asyncio.IncompleteReadError as error:
            raise ConnectionError("the server closed the connection") from error
        return Answer(int(first.split()[1]), found, content)

    def close(self) -> None:
        self._writer.close()

    async def closed(self) -> None:
        await self._writer.wait_closed()


class Wire:
    """Kept connections to one server, as many as there are calls at a time; a call that is cancelled hangs up."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._free: deque[Connection] = deque()

    async def send(
        self, method: str, path: str, body: bytes, headers: Sequence[tuple[bytes, bytes]]
    ) -> tuple[int, bytes]:
        """Status and content of the answer."""
        connection = self._free.popleft() if self._free else await Connection.open(self._url)
        try:
            answer = await connection.call(method, path, body, headers)
        except BaseException:
            connection.close()
            raise
        self._free.append(connection)
        return answer.status, answer.content
