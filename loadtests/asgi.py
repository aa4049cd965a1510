"""Calls to an app in this process, without a network."""

import asyncio
import json
from typing import Any


async def call(app: Any, method: str, path: str, body: bytes) -> tuple[int, bytes]:
    """The status and the body of an answer."""
    sent: list[dict[str, Any]] = []
    messages = iter([{"type": "http.request", "body": body, "more_body": False}])

    async def receive() -> dict[str, Any]:
        return next(messages)

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http",
        "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "", "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 2), "headers": [(b"content-type", b"application/json"), (b"host", b"handful")],
    }  # fmt: skip
    await app(scope, receive, send)
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:])


async def must(app: Any, method: str, path: str, body: dict[str, Any]) -> None:
    """Make a call that must succeed."""
    status, answer = await call(app, method, path, json.dumps(body).encode())
    if status not in (200, 201):
        raise RuntimeError(f"{method} {path}: {status} {answer.decode()}")


async def ready(app: Any) -> None:
    """Return when the bundles are loaded and checked."""
    for _ in range(2400):
        if (await call(app, "GET", "/health/ready", b""))[0] == 200:
            return
        await asyncio.sleep(0.05)
    raise RuntimeError("not ready within two minutes")
