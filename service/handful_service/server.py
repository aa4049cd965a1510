"""The process: uvicorn with a drain that readiness sees first, logs as JSON lines, and an exit code."""

import asyncio
import gc
import logging
import os
import signal
import socket
import sys
from types import FrameType

import uvicorn

from . import logs
from .app import create_app
from .metrics import Metrics
from .protocol import protocol_of
from .settings import Settings, unknown_variables

log = logging.getLogger("handful.service")

SWITCH_S = 0.0005
"""How long a thread may keep the interpreter's lock while the event loop waits for it; by default ten times as long."""


class Server(uvicorn.Server):
    """Turns readiness to 503 on SIGTERM, goes on serving for `drain_ms`, then answers what it accepted and ends.

    Args:
        settings: Of this process.
        metrics: Where it counts; None: in memory.
    """

    owns_process = True
    """Whether nothing else lives in the process, as is so but for tests."""

    def __init__(self, settings: Settings, metrics: Metrics | None = None) -> None:
        super().__init__(_config(settings))
        self.failure: BaseException | None = None
        self._settings = settings
        self._app = create_app(settings, self.fail, self.is_ready, metrics=metrics)
        self.config.app = self._app
        self.config.http = protocol_of(self._app.state.porter, self._app.state, self.lost)

    @property
    def exit_code(self) -> int:
        """Of the process, when it has ended."""
        return 0 if self.started and self.failure is None else 1

    def lost(self) -> None:
        """A connection ended."""

    def fail(self, error: BaseException) -> None:
        """Note why the service can never be ready, and end."""
        self.failure = error
        self.should_exit = True

    def is_ready(self) -> None:
        """Told once, when the service is ready."""
        self.keep_what_is_loaded()
        log.info("ready")

    def keep_what_is_loaded(self) -> None:
        """Never look for garbage in what is there by now: that would hold calls up for tens of milliseconds.

        Nor may a thread that decodes or writes keep the interpreter's lock from the event loop for as long.
        """
        if self.owns_process:
            gc.collect()
            gc.freeze()
            sys.setswitchinterval(SWITCH_S)

    def drain(self) -> None:
        """Turn readiness to 503, and close each connection with its next answer: none may be cut off later."""
        self._app.state.draining = True
        closing = [(b"connection", b"close")]
        self.config.encoded_headers = [*self.config.encoded_headers, *closing]
        self.server_state.default_headers = [*self.server_state.default_headers, *closing]

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Drain on the first signal; a second one ends at once.

        uvicorn's own handler is not called: after a graceful end it raises the signal again, so that the process
        would die of it instead of exiting with 0.
        """
        if self._app.state.draining or self._settings.drain_ms == 0 or self._app.state.service is None:
            self._exit(sig)
            return
        self.drain()
        log.info("draining", extra={"signal": signal.Signals(sig).name, "ms": self._settings.drain_ms})
        loop = asyncio.get_running_loop()
        loop.call_later(self._settings.drain_ms / 1000, self._exit, sig)

    def _exit(self, sig: int) -> None:
        """Answer what was accepted, then end; Ctrl-C while that goes on waits for nothing."""
        self.force_exit = self.force_exit or (self.should_exit and sig == signal.SIGINT)
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and say where."""
        await super().startup(sockets)
        for server in self.servers:
            for listening in server.sockets:
                log.info("listening", extra={"address": "{}:{}".format(*listening.getsockname()[:2])})


def _config(settings: Settings) -> uvicorn.Config:
    return uvicorn.Config(
        "",
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=max(1, settings.shutdown_ms // 1000),
    )


def run(settings: Settings) -> int:
    """Serve until a signal; the exit code is 1 where the service could never be ready."""
    logs.set_up(settings.log_level)
    for name in unknown_variables(os.environ):
        log.warning("unknown setting", extra={"variable": name})
    server = Server(settings)
    try:
        server.run()
    except SystemExit:  # uvicorn's way of saying that it cannot listen; its log line says why
        return 1
    return server.exit_code
