"""Calls to an app as uvicorn makes them, from the bytes of a request to those of its answer, without a network."""

import asyncio
import json
from typing import Any

import uvicorn
from uvicorn.server import ServerState


class _Transport(asyncio.Transport):
    """Keeps what is written, until it is a whole answer."""

    def __init__(self) -> None:
        super().__init__()
        self.answer: asyncio.Future[bytes] | None = None
        self._got = b""

    def write(self, data: Any) -> None:
        """Take in a part of an answer."""
        self._got += data
        head, found, rest = self._got.partition(b"\r\n\r\n")
        if found and self.answer is not None and len(rest) >= _length(head):
            content, self._got = self._got, b""
            self.answer.set_result(content)

    def is_closing(self) -> bool:
        """Whether it is."""
        return False

    def close(self) -> None:
        """Nothing is open."""

    def pause_reading(self) -> None:
        """There is nothing to read."""

    def resume_reading(self) -> None:
        """There is nothing to read."""


def _length(head: bytes) -> int:
    for line in head.lower().split(b"\r\n")[1:]:
        if line.startswith(b"content-length:"):
            return int(line.partition(b":")[2])
    return 0


class Feed:
    """One connection to an app.

    Args:
        app: The app.
        http: The protocol class; uvicorn's own, if not given.
    """

    def __init__(self, app: Any, http: Any = "httptools") -> None:
        config = uvicorn.Config(app, http=http, log_config=None, access_log=False)
        config.load()
        self._transport = _Transport()
        self._protocol: Any = config.http_protocol_class(  # type: ignore[call-arg]
            config=config, server_state=ServerState(), app_state={}
        )
        self._protocol.connection_made(self._transport)

    async def call(self, method: str, path: str, body: bytes) -> tuple[int, bytes]:
        """The status and the body of an answer."""
        head = f"{method} {path} HTTP/1.1\r\nHost: handful\r\nContent-Type: application/json\r\n"
        self._transport.answer = asyncio.get_running_loop().create_future()
        self._protocol.data_received(head.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        content = await self._transport.answer
        return int(content[9:12]), content.partition(b"\r\n\r\n")[2]

    async def must(self, method: str, path: str, body: dict[str, Any]) -> None:
        """Make a call that must succeed."""
        status, answer = await self.call(method, path, json.dumps(body).encode())
        if status not in (200, 201):
            raise RuntimeError(f"{method} {path}: {status} {answer.decode()}")

    async def ready(self) -> None:
        """Return when the bundles are loaded and checked."""
        for _ in range(2400):
            if (await self.call("GET", "/health/ready", b""))[0] == 200:
                return
            await asyncio.sleep(0.05)
        raise RuntimeError("not ready within two minutes")
