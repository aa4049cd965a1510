"""The process of one worker: the server as ever, but its connections and its orders come from the supervisor."""

import asyncio
import logging
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from .. import logs
from ..errors import BundleError, KeysInvalid
from ..metrics import Metrics
from ..server import Server
from ..settings import Settings
from .channel import Channel, Message, read_first
from .handing import Taker

log = logging.getLogger("handful.service")

TICKS_PER_LOOK = 10
"""The caches are looked at for the metrics once in so many ticks of uvicorn, which are a tenth of a second each."""


class _WorkerServer(Server):
    """A server that does not listen.

    Args:
        settings: The worker's share.
        metrics: Of the worker.
        channel: The worker's end of the channel.
        lane: The worker's end of the lane.
    """

    def __init__(self, settings: Settings, metrics: Metrics, channel: socket.socket, lane: socket.socket) -> None:
        super().__init__(settings, metrics)
        self._app.state.blocked = "the other workers are being started"
        self._ends = channel, lane
        self._channel = Channel(self._told, self._left_alone)
        self._taker: Taker | None = None
        self._adopting: set[asyncio.Task[None]] = set()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Load, and take connections."""
        channel, lane = self._ends
        await self._channel.connect(channel)
        await self.lifespan.startup()
        self.servers = []
        self._taker = Taker(lane, self._adopt, lambda: len(self.server_state.connections))
        self.started = True

    async def on_tick(self, counter: int) -> bool:
        """What is told now and then: connections that could not be told at once, what goes on, what the caches hold."""
        if self._taker is not None:
            self._taker.tell()
        self._app.state.metrics.settle()
        if counter % TICKS_PER_LOOK == 0 and self._app.state.service is not None:
            self._app.state.service.observe_caches()
        return await super().on_tick(counter)

    def lost(self) -> None:
        """Tell the supervisor soon: who comes next shall find the worker that has the fewest now."""
        if self._taker is not None:
            self._taker.tell_soon()

    def fail(self, error: BaseException) -> None:
        """Tell the supervisor, and end."""
        super().fail(error)
        self._channel.send("failed", mends=not isinstance(error, BundleError | KeysInvalid))

    def is_ready(self) -> None:
        """Tell the supervisor."""
        self.keep_what_is_loaded()
        log.info("worker ready")
        self._channel.send("ready", digests=self._app.state.service.digests)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """As ever; and it gets no more connections, since this signal is for this worker alone."""
        if self.started:
            asyncio.get_running_loop().call_soon_threadsafe(self._channel.send, "draining")
        super().handle_exit(sig, frame)

    def _told(self, message: Message) -> None:
        if message["kind"] == "group":
            self._app.state.blocked = message["blocked"]
        elif message["kind"] == "drain":
            self.drain()
        elif message["kind"] == "stop":
            self._exit(signal.SIGINT if message["force"] else signal.SIGTERM)

    def _left_alone(self) -> None:
        """Nobody gives it connections any more: it answers those that it has, and ends."""
        if not self.should_exit:
            log.error("the supervisor is gone")
        self.should_exit = True

    def _adopt(self, connection: socket.socket) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(self._serve_connection(connection))
        self._adopting.add(task)
        task.add_done_callback(self._adopting.discard)
        return task

    async def _serve_connection(self, connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()

        def protocol() -> asyncio.Protocol:
            made: asyncio.Protocol = self.config.http_protocol_class(  # type: ignore[call-arg]
                config=self.config, server_state=self.server_state, app_state=self.lifespan.state, _loop=loop
            )
            return made

        try:
            await loop.connect_accepted_socket(protocol, connection)
        except OSError:  # the client is gone already
            connection.close()


def main(arguments: Sequence[str]) -> int:
    """Serve until the supervisor says so.

    Args:
        arguments: The file descriptors of the channel and of the lane.
    """
    channel, lane = (socket.socket(fileno=int(number)) for number in arguments)
    for end in (channel, lane):
        end.set_inheritable(False)
    start = read_first(channel)
    settings = Settings(**start["settings"])
    logs.set_up(settings.log_level, worker=start["number"])
    server = _WorkerServer(settings, Metrics(Path(start["metrics"])), channel, lane)
    server.run()
    return server.exit_code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
