"""The process: uvicorn with a drain that readiness sees first, logs as JSON lines, and an exit code."""

import asyncio
import logging
import logging.config
import os
import signal
import socket
from types import FrameType

import uvicorn

from .app import create_app
from .settings import Settings, unknown_variables

log = logging.getLogger("handful.service")


class _Server(uvicorn.Server):
    """Turns readiness to 503 on SIGTERM, goes on serving for `drain_ms`, then answers what it accepted and ends."""

    def __init__(self, config: uvicorn.Config, settings: Settings) -> None:
        super().__init__(config)
        self.failure: BaseException | None = None
        self._settings = settings
        self._app = create_app(settings, self._fail)
        config.app = self._app

    def _fail(self, error: BaseException) -> None:
        self.failure = error
        self.should_exit = True

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Drain on the first signal; a second one ends at once.

        uvicorn's own handler is not called: after a graceful end it raises the signal again, so that the process
        would die of it instead of exiting with 0.
        """
        if self._app.state.draining or self._settings.drain_ms == 0 or self._app.state.service is None:
            self._exit(sig)
            return
        self._app.state.draining = True
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


def run(settings: Settings) -> int:
    """Serve until a signal; the exit code is 1 where the service could never be ready."""
    logging.config.dictConfig(_logging(settings.log_level))
    for name in unknown_variables(os.environ):
        log.warning("unknown setting", extra={"variable": name})
    config = uvicorn.Config(
        "",
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=max(1, settings.shutdown_ms // 1000),
    )
    server = _Server(config, settings)
    try:
        server.run()
    except SystemExit:  # uvicorn's way of saying that it cannot listen; its log line says why
        return 1
    return 0 if server.started and server.failure is None else 1


def _logging(level: str) -> dict[str, object]:
    formatter = {
        "()": "pythonjsonlogger.json.JsonFormatter",
        "format": "%(levelname)s %(name)s %(message)s",
        "rename_fields": {"levelname": "level", "name": "logger", "message": "event"},
        "timestamp": "time",
    }
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"json": formatter},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "json"}},
        "root": {"level": level.upper(), "handlers": ["stderr"]},
        "loggers": {
            "handful": {"level": level.upper()},
            "uvicorn": {"level": "WARNING"},
            "alembic": {"level": "WARNING"},
        },
    }
