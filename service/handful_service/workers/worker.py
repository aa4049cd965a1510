"""A worker as its supervisor sees it: a process, a channel, a lane of connections."""

import asyncio
import contextlib
import logging
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from .channel import Channel, Message
from .handing import Lane

log = logging.getLogger("handful.service")

COMMAND = (sys.executable, "-P", "-m", "handful_service.workers.child")
"""Takes the file descriptors of its channel and its lane."""

LOOK_S = 0.01
HANGS_S = 5.0
"""How long a process may live on that has closed its channel."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a worker could not start.

    Attributes:
        mends: Whether trying again may help.
    """

    mends: bool


class Worker:
    """A process that was started, until it has ended.

    Args:
        number: Its place among the workers.
        on_change: Told that it is ready, or draining.
        on_room: Told that it can take a connection.
        on_end: Told, once, that the process has ended.

    Attributes:
        digests: Of its bundles, once it is ready.
        draining: Whether someone has told it to end.
        failure: Why it could not start.
        code: Its exit code, minus the signal where one ended it.
    """

    def __init__(
        self,
        number: int,
        *,
        on_change: Callable[[], None],
        on_room: Callable[[], None],
        on_end: "Callable[[Worker], None]",
    ) -> None:
        self.number = number
        self.digests: dict[str, str] | None = None
        self.draining = False
        self.failure: Failure | None = None
        self.code: int | None = None
        self._on_change, self._on_room, self._on_end = on_change, on_room, on_end
        self._channel = Channel(self._told, self._hung_up)

    async def start(self, command: Sequence[str], start: Message) -> None:
        """Start the process.

        Args:
            command: The program, which is given two file descriptors.
            start: The first message.

        Raises:
            OSError: the system has no room for one more.
        """
        (channel, its_channel), (lane, its_lane) = socket.socketpair(), socket.socketpair()
        ends = its_channel.fileno(), its_lane.fileno()
        with its_channel, its_lane, contextlib.ExitStack() as ours:
            ours.callback(channel.close)
            ours.callback(lane.close)
            # A session of its own keeps a terminal's Ctrl-C from it: it is told by the channel.
            self.process = subprocess.Popen(  # noqa: ASYNC220, S603 (it takes milliseconds; the program is ours)
                [*command, *map(str, ends)], pass_fds=ends, stdin=subprocess.DEVNULL, start_new_session=True
            )
            ours.pop_all()
        self.lane = Lane(lane, self._on_room)
        await self._channel.connect(channel)
        self.send("start", **start, number=self.number)

    @property
    def ready(self) -> bool:
        """Whether it has all its bundles and stays."""
        return self.digests is not None and not self.draining and self.code is None

    def send(self, kind: str, **values: Any) -> None:
        """Tell it something."""
        self._channel.send(kind, **values)

    def kill(self) -> None:
        """End it at once."""
        self.process.kill()

    def _told(self, message: Message) -> None:
        if message["kind"] == "ready":
            self.digests = message["digests"]
        elif message["kind"] == "draining":
            self.draining = True
        elif message["kind"] == "failed":
            self.failure = Failure(message["mends"])
        self._on_change()

    def _hung_up(self) -> None:
        """The channel's end means that of the process, which may take a moment more."""
        self._await_end(0.0)

    def _await_end(self, waited_s: float) -> None:
        code = self.process.poll()
        if code is None:
            if waited_s >= HANGS_S:
                self.process.kill()
            asyncio.get_running_loop().call_later(LOOK_S, self._await_end, waited_s + LOOK_S)
            return
        self.code = code
        self._on_end(self)


def named(code: int) -> str:
    """An exit code in words."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
