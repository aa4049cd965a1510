"""Running servers for tests: the real app in this process, and the real process on a free port."""

import asyncio
import json
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread
from typing import Any, Literal

import httpx

from handful_service.app import create_app
from handful_service.server import Server
from handful_service.settings import Settings

ROOT = Path(__file__).parents[1]
BUNDLES = ROOT / "bundles"
READY_WITHIN_S = 60


FormName = Literal["wire", "hot", "routed"]


class Form:
    """Who answers the predict calls of apps that are made from now on.

    Either uvicorn's protocol, over real connections, or, without any, the hot path or the router of the app.
    """

    name: FormName = "hot"


@dataclass
class Api:
    """The real app in this process. Calls may come from any thread; `together` sends many at once."""

    store: Path
    app: Any
    _client: httpx.AsyncClient
    _loop: asyncio.AbstractEventLoop

    @property
    def service(self) -> Any:
        return self.app.state.service

    @property
    def url(self) -> httpx.URL:
        """The root of its paths."""
        return self._client.base_url

    def submit(self, method: str, path: str | httpx.URL, **more: Any) -> "Future[httpx.Response]":
        """The answer of a call that is on its way."""
        return asyncio.run_coroutine_threadsafe(self._client.request(method, path, **more), self._loop)

    def request(self, method: str, path: str | httpx.URL, **more: Any) -> httpx.Response:
        return self.submit(method, path, **more).result(100)

    def get(self, path: str, **more: Any) -> httpx.Response:
        return self.request("GET", path, **more)

    def put(self, path: str, **more: Any) -> httpx.Response:
        return self.request("PUT", path, **more)

    def post(self, path: str, **more: Any) -> httpx.Response:
        return self.request("POST", path, **more)

    def delete(self, path: str, **more: Any) -> httpx.Response:
        return self.request("DELETE", path, **more)

    def predict(self, model: str = "glyphs", **body: Any) -> httpx.Response:
        return self.post(f"/v1/models/{model}/predict", json=body)

    def post_json(self, path: str, body: Any) -> httpx.Response:
        """The answer to a body that may hold NaN and Infinity, which httpx would refuse to write."""
        return self.post(path, content=json.dumps(body), headers={"Content-Type": "application/json"})

    def together(self, calls: Iterable[tuple[str, str, Any]]) -> list[httpx.Response]:
        """The answers of (method, path, JSON body), all sent before any is awaited."""

        async def gather() -> list[httpx.Response]:
            return list(await asyncio.gather(*(self._client.request(m, path, json=body) for m, path, body in calls)))

        return self.run(gather())

    def run(self, work: Any) -> Any:
        """The result of a coroutine on the app's event loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(100)

    def dump(self) -> str:
        """Everything in the store, revision counters included."""
        return dump(self.store)


@contextmanager
def busy(api: Api) -> Iterator[None]:
    """The one thread has something else to do inside the block."""
    free = Event()
    api.service.executors[0].submit(free.wait)
    try:
        yield
    finally:
        free.set()


def dump(store: Path) -> str:
    connection = sqlite3.connect(store)
    try:
        return "\n".join(connection.iterdump())
    finally:
        connection.close()


@contextmanager
def in_process(folder: Path, bundles: Path = BUNDLES, **settings: Any) -> Iterator[Api]:
    """The app on a store in a folder, ready."""
    store = folder / "handful.db"
    loop = asyncio.new_event_loop()
    thread = Thread(target=loop.run_forever, name="app")
    thread.start()
    make = _wire if Form.name == "wire" else _app
    context = make(Settings(bundles=bundles, store=f"sqlite:///{store}", **settings))
    try:
        app, client = asyncio.run_coroutine_threadsafe(context.__aenter__(), loop).result(READY_WITHIN_S)
        try:
            yield Api(store, app, client, loop)
        finally:
            asyncio.run_coroutine_threadsafe(context.__aexit__(None, None, None), loop).result(READY_WITHIN_S)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@asynccontextmanager
async def _app(settings: Settings) -> Any:
    failures: list[BaseException] = []
    app = create_app(settings, failures.append, hot=Form.name == "hot")
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://handful") as client,
    ):
        await _ready(client, failures)
        yield app, client


@asynccontextmanager
async def _wire(settings: Settings) -> Any:
    """The server itself on a free port: what the app is behind uvicorn with our protocol."""
    server = Server(settings.model_copy(update={"port": 0}))
    server.owns_process = False
    server._app.state.server = server
    serving = asyncio.create_task(server.serve())
    try:
        while not server.started and not serving.done():  # noqa: ASYNC110 (uvicorn has no event for it)
            await asyncio.sleep(0.01)
        client = await _connected(server)
        try:
            yield server._app, client
        finally:
            await client.aclose()
    finally:
        server.should_exit = True
        await serving


async def _connected(server: Server) -> httpx.AsyncClient:
    """A client of a server that is ready."""
    try:
        host, port = server.servers[0].sockets[0].getsockname()[:2]
        limits = httpx.Limits(max_connections=256)
        client = httpx.AsyncClient(base_url=f"http://{host}:{port}", limits=limits, timeout=100)
        await _ready(client, [])
    except (IndexError, httpx.TransportError) as error:
        raise server.failure or error from None
    return client


async def _ready(client: httpx.AsyncClient, failures: Sequence[BaseException]) -> None:
    while (await client.get("/health/ready")).status_code != 200:
        if failures:
            raise failures[0]
        await asyncio.sleep(0.01)


@dataclass
class Process:
    """A `handful serve` process, and what it has logged."""

    popen: subprocess.Popen[bytes]
    log_file: Path
    url: str = ""
    client: httpx.Client = field(default_factory=lambda: httpx.Client(timeout=30))

    def log(self) -> list[Mapping[str, Any]]:
        """The whole lines of the log; one that is not a JSON object is an error."""
        lines = self.log_file.read_bytes().split(b"\n")[:-1]
        return [dict(json.loads(line)) for line in lines]

    def event(self, name: str, within_s: float = READY_WITHIN_S) -> Mapping[str, Any]:
        """The first log line of an event, waited for."""
        until = time.monotonic() + within_s
        while time.monotonic() < until:
            ended = self.popen.poll() is not None
            for line in self.log():
                if line["event"] == name:
                    return line
            assert not ended, f"the process ended before it logged {name!r}"
            time.sleep(0.02)
        raise AssertionError(f"no {name!r} in the log within {within_s} s")

    def request(self, method: str, path: str, **more: Any) -> httpx.Response:
        return self.client.request(method, self.url + path, **more)

    def exit_code(self, within_s: float = 30) -> int:
        return self.popen.wait(within_s)


def command(*arguments: str) -> Sequence[str]:
    """The console script `handful` of this interpreter's environment."""
    return [str(Path(sys.executable).parent / "handful"), *arguments]


@contextmanager
def process(folder: Path, bundles: Path = BUNDLES, *, ready: bool = True, **settings: Any) -> Iterator[Process]:
    """A `handful serve` process on a free port, with its settings in the environment.

    Args:
        folder: Holds the store and the log.
        ready: Whether to wait until it is ready; else until it ended or listens.
        settings: As in `Settings`; one worker, if they do not say how many.
    """
    given = {"port": 0, "workers": 1, "bundles": bundles, "store": f"sqlite:///{folder / 'handful.db'}", **settings}
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HANDFUL_")}
    environment |= {f"HANDFUL_{name.upper()}": str(value) for name, value in given.items()}
    log_file = folder / f"log-{time.monotonic_ns()}"
    with log_file.open("wb") as output:
        popen = subprocess.Popen(command("serve"), env=environment, stdout=output, stderr=output)
    served = Process(popen, log_file)
    try:
        if ready:
            served.url = f"http://{served.event('listening')['address']}"
            served.event("ready")
        yield served
    except BaseException:
        print(f"--- log of process {popen.pid} ---\n{log_file.read_text('utf-8', 'replace')}")
        raise
    finally:
        popen.kill()
        popen.wait()
        served.client.close()
