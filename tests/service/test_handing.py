"""Connections that are handed from one process to another, both ends in this one."""

import asyncio
import contextlib
import errno
import os
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest

from handful_service.workers.handing import MOST_ON_THE_WAY, PAUSE_S, Gate, Lane, Taker, listen


def pair() -> tuple[socket.socket, socket.socket]:
    return socket.socketpair()


@contextlib.contextmanager
def connections(count: int) -> Iterator[list[socket.socket]]:
    """Sockets that may be handed over, and are closed by whoever gets them."""
    made = [socket.socketpair() for _ in range(count)]
    try:
        yield [one for one, _ in made]
    finally:
        for one, other in made:
            one.close()
            other.close()


def test_what_a_dead_worker_has_not_taken_comes_back() -> None:
    async def run() -> None:
        ours, its = pair()
        lane = Lane(ours, lambda: None)
        with its, connections(3) as some:
            assert all(lane.hand(one) for one in some)
            assert (lane.load, lane.on_the_way) == (3, 3)
            data, taken, _, _ = socket.recv_fds(its, 1, 1)
            its.sendall((1).to_bytes(8, "big") + (0).to_bytes(8, "big"))
            await asyncio.sleep(0.01)
            assert (data, lane.load, lane.on_the_way) == (b"c", 3, 2)
            os.close(taken[0])
            its.sendall((1).to_bytes(8, "big") + (1).to_bytes(8, "big"))
            await asyncio.sleep(0.01)
            assert lane.load == 2
            assert lane.close() == some[1:]

    asyncio.run(run())


def test_a_worker_that_takes_nothing_gets_no_more_than_a_bound() -> None:
    async def run() -> None:
        ours, its = pair()
        lane = Lane(ours, lambda: None)
        with its, connections(MOST_ON_THE_WAY) as some:
            for one in some:
                assert lane.has_room
                assert lane.hand(one)
            assert not lane.has_room
            for one in lane.close():
                one.close()

    asyncio.run(run())


def test_where_no_file_descriptors_are_left_nothing_is_accepted_for_a_moment(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    accept, refused = socket.socket.accept, []

    def accepting(listener: socket.socket) -> Any:
        if len(refused) < 2:
            refused.append(time.monotonic())
            raise OSError(errno.EMFILE, "too many open files")
        return accept(listener)

    async def run() -> None:
        ours, its = pair()
        lanes: list[Lane] = []
        gate = Gate(listen("127.0.0.1", 0), lanes)
        lanes.append(Lane(ours, gate.look))
        gate.look()
        monkeypatch.setattr(socket.socket, "accept", accepting)
        host, port = gate.addresses[0].split(":")
        _, writer = await asyncio.open_connection(host, int(port))
        until = time.monotonic() + 5
        while not lanes[0].on_the_way and time.monotonic() < until:
            await asyncio.sleep(0.01)
            gate.look()  # what lanes tell meanwhile does not end the pause
        assert lanes[0].on_the_way == 1
        assert refused[1] - refused[0] >= PAUSE_S * 0.9
        assert caplog.text.count("cannot accept") == 2
        writer.close()
        gate.close()
        for one in lanes[0].close():
            one.close()
        its.close()

    asyncio.run(run())


def test_a_worker_tells_what_it_took_before_it_reads_and_what_is_closed_later() -> None:
    async def run() -> None:
        ours, its = pair()
        told: list[tuple[int, int]] = []
        held = 0

        async def adopt(connection: socket.socket) -> None:
            nonlocal held
            ours.setblocking(False)
            told.append((int.from_bytes(ours.recv(8)), int.from_bytes(ours.recv(8))))
            await asyncio.sleep(0)
            held += 1
            connection.close()

        tasks: list[asyncio.Task[None]] = []

        def adopting(connection: socket.socket) -> asyncio.Task[None]:
            tasks.append(asyncio.get_running_loop().create_task(adopt(connection)))
            return tasks[-1]

        taker = Taker(its, adopting, lambda: held)
        with ours, connections(1) as (one,):
            socket.send_fds(ours, [b"c"], [one.fileno()])
            await asyncio.sleep(0.05)
            assert told == [(1, 0)]
            held = 0
            taker.tell()
            assert ours.recv(16) == (1).to_bytes(8, "big") + (1).to_bytes(8, "big")
        taker.close()

    asyncio.run(run())


def test_connections_that_end_together_are_told_at_once_and_once() -> None:
    async def run() -> None:
        ours, its = pair()
        ours.setblocking(False)

        def adopt(connection: socket.socket) -> asyncio.Future[None]:
            connection.close()
            return asyncio.ensure_future(asyncio.sleep(0))

        taker = Taker(its, adopt, lambda: 0)
        with ours, connections(3) as ends:
            for one in ends:
                socket.send_fds(ours, [b"c"], [one.fileno()])
            await asyncio.sleep(0.05)
            ours.recv(4096)
            taker._told = (0, 0)  # as if nobody knew
            for _ in range(3):
                taker.tell_soon()
            await asyncio.sleep(0.01)
            assert ours.recv(4096) == (3).to_bytes(8, "big") * 2
            taker.tell_soon()  # there is nothing new
            await asyncio.sleep(0.01)
            with pytest.raises(BlockingIOError):
                ours.recv(16)
        taker.close()

    asyncio.run(run())
