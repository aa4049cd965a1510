"""How connections come to the workers: the supervisor accepts them and hands each to the worker that has the fewest.

A connection travels as a file descriptor over a pair of sockets, one byte each. The worker answers with records of how
many it has taken so far, and how many of them are closed. Until it has taken a connection, the supervisor keeps it,
too, so that another worker gets it if this one dies. A worker tells that it has one before it reads from it: what it
has read could not be read again by another.
"""

import asyncio
import contextlib
import errno
import logging
import os
import socket
import struct
from collections import deque
from collections.abc import Callable, Iterable, Sequence

log = logging.getLogger("handful.service")

BACKLOG = 2048
MOST_ON_THE_WAY = 64
"""Connections that were handed to a worker and not taken by it; beyond them the system's queue is where they wait."""

AT_ONCE = 32
"""Connections that are accepted, or taken, in one turn of the event loop."""

PAUSE_S = 0.1
"""How long nothing is accepted where the process has no file descriptors left."""

_RECORD = struct.Struct("!QQ")
_NO_ROOM = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Lane:
    """The way of connections to one worker, the supervisor's end.

    Attributes:
        rank: Workers of the lowest rank get connections: 0 for those that are ready.
    """

    def __init__(self, end: socket.socket, on_room: Callable[[], None]) -> None:
        self.rank = 1
        self._end, self._on_room = end, on_room
        self._on_the_way: deque[socket.socket] = deque()
        self._handed, self._taken, self._closed, self._got = 0, 0, 0, b""
        self._full, self._open = False, True
        end.setblocking(False)
        asyncio.get_running_loop().add_reader(end, self._read)

    @property
    def load(self) -> int:
        """Connections that the worker holds or is about to."""
        return self._handed - self._closed

    @property
    def on_the_way(self) -> int:
        """Connections that the worker has not taken yet."""
        return len(self._on_the_way)

    @property
    def has_room(self) -> bool:
        """Whether one more may be handed over."""
        return self._open and not self._full and len(self._on_the_way) < MOST_ON_THE_WAY

    def hand(self, connection: socket.socket) -> bool:
        """Whether a connection could be handed over; then it is this object's."""
        try:
            socket.send_fds(self._end, [b"c"], [connection.fileno()])
        except BlockingIOError:
            self._full = True
            return False
        except OSError:  # the worker is gone, as its channel will tell
            self._open = False
            return False
        self._on_the_way.append(connection)
        self._handed += 1
        return True

    def close(self) -> list[socket.socket]:
        """Hang up.

        Returns:
            The connections that the worker has not taken.
        """
        asyncio.get_running_loop().remove_reader(self._end)
        self._end.close()
        self._open = False
        left = list(self._on_the_way)
        self._on_the_way.clear()
        return left

    def _read(self) -> None:
        try:
            data = self._end.recv(4096)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:  # the worker is gone, as its channel will tell
            asyncio.get_running_loop().remove_reader(self._end)
            self._open = False
            return
        self._got += data
        whole = len(self._got) // _RECORD.size * _RECORD.size
        for taken, closed in _RECORD.iter_unpack(self._got[:whole]):
            for _ in range(taken - self._taken):
                self._on_the_way.popleft().close()
            self._taken, self._closed = taken, closed
        self._got, self._full = self._got[whole:], False
        self._on_room()


class Taker:
    """The worker's end of a lane.

    Args:
        end: Of the pair of sockets.
        adopt: Serves a connection; the task is done when the connection is among those that are counted.
        count: The connections that the worker holds.
    """

    def __init__(
        self, end: socket.socket, adopt: Callable[[socket.socket], "asyncio.Future[None]"], count: Callable[[], int]
    ) -> None:
        self._end, self._adopt, self._count = end, adopt, count
        self._taken = self._adopted = self._closed = 0
        self._told = (0, 0)
        self._telling: asyncio.Handle | None = None
        end.setblocking(False)
        asyncio.get_running_loop().add_reader(end, self._take)

    def tell(self) -> None:
        """Tell the supervisor what has changed since it was last told."""
        self._telling = None
        if self._taken == self._adopted:  # else some are counted already, or not yet
            self._closed = self._taken - self._count()
        now = self._taken, self._closed
        if now != self._told:
            # Where there is no room for the record, or no supervisor any more, the next one tells as much.
            with contextlib.suppress(OSError):
                self._end.send(_RECORD.pack(*now))
                self._told = now

    def tell_soon(self) -> None:
        """As `tell`, once for all connections that end in this turn of the loop."""
        if self._telling is None:
            self._telling = asyncio.get_running_loop().call_soon(self.tell)

    def close(self) -> None:
        """Take no more."""
        asyncio.get_running_loop().remove_reader(self._end)
        self._end.close()

    def _take(self) -> None:
        for _ in range(AT_ONCE):
            try:
                data, handed, _, _ = socket.recv_fds(self._end, 1, 1)
            except BlockingIOError:
                return
            except OSError:
                data, handed = b"", []
            if not data:  # the supervisor is gone
                asyncio.get_running_loop().remove_reader(self._end)
                return
            for number in handed:
                connection = socket.socket(fileno=number)
                self._taken += 1
                self.tell()
                self._adopt(connection).add_done_callback(self._has)

    def _has(self, _: "asyncio.Future[None]") -> None:
        self._adopted += 1
        if self._adopted == self._taken:
            self.tell()


class Gate:
    """Accepts connections and hands them out, while a lane has room.

    Args:
        listeners: Sockets that listen.
        lanes: Those of the workers that live, kept up to date by their owner, who then calls `look`.

    Attributes:
        addresses: Where it listens.
    """

    def __init__(self, listeners: Sequence[socket.socket], lanes: Sequence[Lane]) -> None:
        self._listeners, self._lanes = listeners, lanes
        self.addresses = ["{}:{}".format(*listener.getsockname()[:2]) for listener in listeners]
        self._left: deque[socket.socket] = deque()
        self._turn = 0
        self._not_before = 0.0
        self._accepting = False
        self._closed = False
        for listener in listeners:
            listener.setblocking(False)

    def look(self) -> None:
        """Go on, or pause: called whenever a lane comes, goes, gets room or changes its rank."""
        while self._left and (place := self._choose()) is not None:
            if self._lanes[place].hand(self._left[0]):
                self._left.popleft()
                self._turn = place + 1
        waits = self._closed or self._left or asyncio.get_running_loop().time() < self._not_before
        self._accept_if(not waits and self._choose() is not None)

    def give_back(self, connections: Iterable[socket.socket]) -> None:
        """Hand connections out again that a worker did not take."""
        self._left.extend(connections)
        self.look()

    def close(self) -> None:
        """Listen no more. What the system has accepted already is still handed out."""
        if self._closed:
            return
        self._closed = True
        self._accept_if(False)
        for listener in self._listeners:
            with contextlib.suppress(OSError):
                while True:
                    self._left.append(_prepared(listener.accept()[0]))
            listener.close()
        self.look()

    def drop(self) -> None:
        """Close the connections that no worker is there for."""
        while self._left:
            self._left.popleft().close()

    @property
    def waiting(self) -> int:
        """Connections that no worker has."""
        return len(self._left) + sum(lane.on_the_way for lane in self._lanes)

    def _choose(self) -> int | None:
        """The place of the lane with the fewest connections, of the best rank; by turns where that is the same."""
        lanes = self._lanes
        best = min((lane.rank for lane in lanes), default=0)
        fit = [place for place, lane in enumerate(lanes) if lane.rank == best and lane.has_room]
        if not fit:
            return None
        return min(fit, key=lambda place: (lanes[place].load, (place - self._turn) % len(lanes)))

    def _accept_if(self, accepting: bool) -> None:
        if accepting == self._accepting:
            return
        self._accepting = accepting
        loop = asyncio.get_running_loop()
        for listener in self._listeners:
            if accepting:
                loop.add_reader(listener, self._accept, listener)
            else:
                loop.remove_reader(listener)

    def _go_on(self) -> None:
        self._not_before = 0.0  # a timer may come a little early
        self.look()

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(AT_ONCE):
            try:
                connection = listener.accept()[0]
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in _NO_ROOM:
                    raise
                log.error("cannot accept", extra={"error": str(error)})
                loop = asyncio.get_running_loop()
                self._not_before = loop.time() + PAUSE_S
                self._accept_if(False)
                loop.call_at(self._not_before, self._go_on)
                return
            self._left.append(_prepared(connection))
            self.look()
            if not self._accepting:
                return


def _prepared(connection: socket.socket) -> socket.socket:
    connection.setblocking(False)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def listen(host: str, port: int) -> list[socket.socket]:
    """Sockets that listen on every address of a host.

    Raises:
        OSError: an address is in use, or none of this machine's.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    listening: list[socket.socket] = []
    try:
        for family, kind, protocol, _, address in dict.fromkeys(found):
            try:
                one = socket.socket(family, kind, protocol)
            except OSError:  # the system knows the address, such as ::1 of localhost, but not its family
                continue
            listening.append(one)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            one.bind(address)
            one.listen(BACKLOG)
    except OSError:
        for one in listening:
            one.close()
        raise
    if not listening:
        raise OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT), host)
    return listening
