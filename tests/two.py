"""A server with two workers, for tests that care which of them answers."""

import asyncio
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from tests.serving import Process, process
from tests.soak import POINTS
from tests.tiny import Tiny
from tests.wire import Answer, Connection

TINY = Tiny(open_ways=4)
MODEL = f"/v1/models/{TINY.name}"
READY, METRICS, PREDICT = "/health/ready", "/metrics", f"{MODEL}/predict"
T = TypeVar("T")


@dataclass(frozen=True)
class Two:
    """A server with two workers, and the key of each of its tenants."""

    server: Process
    keys: Path
    key: str

    async def connections(self, count: int) -> list[Connection]:
        """That many, opened at once, after each worker has told, at its next tick, which of before are closed."""
        await asyncio.sleep(0.3)
        return list(await asyncio.gather(*(Connection.open(self.server.url) for _ in range(count))))

    async def ask(self, connection: Connection, method: str, path: str, body: Any = None, key: str = "") -> Answer:
        headers = [(b"authorization", f"Bearer {key or self.key}".encode())]
        return await connection.call(method, path, body, headers)

    async def worker(self, connection: Connection, name: str) -> int:
        """The number of the worker that has the connection: its line in the log has it."""
        await connection.call("GET", "/health/live", headers=[(b"x-request-id", name.encode())])
        return await asyncio.to_thread(_worker_of, self.server, name)

    async def one_each(self, name: str) -> tuple[Connection, Connection]:
        """A connection to each worker."""
        first, second = await self.connections(2)
        assert {await self.worker(first, f"{name}-0"), await self.worker(second, f"{name}-1")} == {0, 1}
        return first, second


def _worker_of(server: Process, request_id: str) -> int:
    until = time.monotonic() + 10
    while time.monotonic() < until:
        for line in server.log():
            if line.get("request_id") == request_id:
                return int(line["worker"])
        time.sleep(0.01)
    raise AssertionError(f"{request_id} is not in the log")


async def eventually(look: Callable[[], Awaitable[T]], holds: Callable[[T], bool], within_s: float = 20) -> T:
    """What a look shows, once it holds."""
    until = time.monotonic() + within_s
    while not holds(found := await look()):
        assert time.monotonic() < until, found
        await asyncio.sleep(0.02)
    return found


def sample(text: str, name: str) -> float:
    """The sum of a metric over its labels."""
    found = re.findall(rf"^{name}(?:{{.*}})? (\S+)$", text, re.MULTILINE)
    assert found, f"no {name}"
    return sum(map(float, found))


def pids(server: Process) -> list[int]:
    """The processes of the workers, by their parent's account."""
    return [int(pid) for pid in Path(f"/proc/{server.popen.pid}/task/{server.popen.pid}/children").read_text().split()]


def support(*labels: str) -> list[dict[str, Any]]:
    return [{"input": list(row), "label": label} for row, label in zip(POINTS.tolist(), labels, strict=True)]


def listening(folder: Path, bundles: Path, **settings: Any) -> Any:
    return process(folder, bundles, workers=2, **settings)
