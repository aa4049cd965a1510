"""Calls that leave at given times, over kept connections."""

import asyncio
import time

from loadtests.firing import Sender

WIRE = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nhi"


class Toy:
    """Answers each call in two pieces, with the status that is next, and hangs up after so many."""

    def __init__(self, statuses: list[int], kept: int, pause_s: float = 0.0) -> None:
        self.statuses, self.kept, self.pause_s = statuses, kept, pause_s
        self.connections = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        for _ in range(self.kept):
            try:
                await reader.readexactly(len(WIRE))
            except asyncio.IncompleteReadError:
                break
            await asyncio.sleep(self.pause_s)
            writer.write(b"HTTP/1.1 %d X\r\ncontent-length: 4\r\n" % self.statuses.pop(0))
            await writer.drain()
            writer.write(b"\r\nbody")
        writer.close()


def sent(toy: Toy, after_s: list[float], port: int | None = None) -> list[tuple[int, float, float]]:
    """The status of each call, how late it left, and how long it took since it should have, in seconds."""
    found: list[tuple[int, float, float]] = []

    def answered(status: int, head: bytes, intended: float, left: float) -> None:
        found.append((status, left - intended, time.perf_counter() - intended))

    async def go() -> None:
        server = await asyncio.start_server(toy.serve, "127.0.0.1", 0)
        sender = Sender("127.0.0.1", port or server.sockets[0].getsockname()[1], answered)
        await asyncio.wait_for(sender.send([WIRE] * len(after_s), after_s), 20)
        sender.close()
        server.close()
        await asyncio.sleep(0.1)  # both ends of every connection see that it is over

    asyncio.run(go())
    return found


def test_every_call_is_sent_at_its_time_and_its_answer_told() -> None:
    toy = Toy([200, 503, 200, 503], kept=100)
    found = sent(toy, [0.0, 0.1, 0.2, 0.3])
    assert [status for status, _, _ in found] == [200, 503, 200, 503]
    assert all(0 <= late < 0.1 for _, late, _ in found)
    assert toy.connections == 1


def test_calls_that_come_while_others_wait_have_connections_of_their_own() -> None:
    toy = Toy([200] * 5, kept=100, pause_s=0.3)
    found = sent(toy, [0.0] * 5)
    assert [status for status, _, _ in found] == [200] * 5
    assert all(0.3 <= took < 1 for _, _, took in found)
    assert toy.connections == 5


def test_a_connection_that_the_server_closed_meanwhile_is_not_used_again() -> None:
    toy = Toy([200] * 3, kept=1)
    assert [status for status, _, _ in sent(toy, [0.0, 0.2, 0.4])] == [200] * 3
    assert toy.connections == 3


def test_a_broken_connection_and_a_server_that_is_not_there_are_told() -> None:
    class Rude(Toy):
        async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readexactly(len(WIRE))
            writer.close()

    assert [status for status, _, _ in sent(Rude([], kept=1), [0.0, 0.1])] == [0, 0]
    assert [status for status, _, _ in sent(Toy([], kept=1), [0.0], port=1)] == [0]
