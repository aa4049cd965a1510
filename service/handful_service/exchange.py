"""One predict call that the protocol answers itself, from its head and body to its answer."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Protocol, TypeVar

from starlette.datastructures import State
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from .engine.calls import CALL
from .errors import HandfulError, Overloaded
from .head import Head
from .porter import Porter, Refusal
from .predictor.direct import Direct
from .routes.hot import MEDIA
from .routes.predict import PATH, Prepared

_OK = 200

_ANSWER = STATUS_LINE[_OK] + b"%bcontent-length: %d\r\n" + b"%b: %b\r\n" % MEDIA + b"x-request-id: %b\r\n%b\r\n%b"

T = TypeVar("T")

LARGE = 2**16
"""Bytes of a body from which on it matters that a call is refused before it came."""


class Connection(Protocol):
    """What an exchange needs of the protocol of its connection."""

    porter: Porter
    state: State
    loop: asyncio.AbstractEventLoop
    flow: FlowControl
    transport: asyncio.Transport
    tasks: set[asyncio.Task[None]]

    def usual_head(self) -> tuple[bytes, bool]:
        """The headers of every answer, and whether they close the connection."""
        ...

    def on_response_complete(self) -> None:
        """Go on with what comes next."""
        ...


class Exchange:
    """One call and its answer: the stock protocol holds it where it holds cycles of its own.

    Args:
        protocol: The connection.
        head: Of the call.
        body: Of the call, as far as it came.

    Attributes:
        keep_alive: Whether the connection stays open after it.
        response_complete: Whether the answer was written.
        disconnected: Whether the client is gone.
    """

    __slots__ = (
        "_passage", "_protocol", "body", "disconnected", "head", "keep_alive", "more_body", "response_complete",
    )  # fmt: skip

    def __init__(self, protocol: Connection, head: Head, body: bytes = b"") -> None:
        self._protocol, self.head, self.body = protocol, head, body
        self._passage: Any = None
        self.more_body, self.keep_alive = True, head.keep_alive
        self.disconnected = self.response_complete = False

    @property
    def message_event(self) -> "Exchange":
        """What the stock protocol sets when the client goes."""
        return self

    def set(self) -> None:
        """The client went, or the stock protocol thinks that a reader waits: a call that nobody awaits is dropped."""
        if self.disconnected and self._passage is not None and self._passage.call.droppable:
            self._passage.end("gone")

    def is_refused(self) -> bool:
        """Answer the call with the refusal if too much is waiting; its body need not have come for that."""
        porter = self._protocol.porter
        try:
            admitted = self.head.admitted_by(self._protocol.state)
            if is_large(self.head.fields):
                admitted.refuse_if_full()
            else:
                admitted.refuse_if_saturated()
        except Overloaded as error:
            self._passage = porter.enter(self.head.fields)
            self._finish(porter.refusal(self._passage, error))
            return True
        except HandfulError:
            pass  # to be told once the call came as a whole
        return False

    def start(self) -> None:
        """Answer the call: at once where it is refused, after a run, or in a task where more has to be awaited."""
        porter, fields = self._protocol.porter, self.head.fields
        self._passage = passage = porter.enter(fields)
        try:
            porter.begin(passage, fields)
            admitted = self.head.admitted_by(self._protocol.state)
            admitted.begin(passage.call)
            porter.check_size(len(self.body))
            prepared = admitted.prepared(passage.call, self.body)
            direct = prepared.direct()
        except Exception as error:
            self._finish(porter.refusal(passage, error))
            return
        if direct is None:
            passage.task = self._work(self._answer(prepared), self._ended)
        else:
            direct.told = lambda: self._answered(prepared, direct)
            passage.task = direct

    def _work(self, work: Coroutine[Any, Any, T], ended: Callable[[asyncio.Task[T]], None]) -> asyncio.Task[T]:
        task = self._protocol.loop.create_task(work)
        task.add_done_callback(self._protocol.tasks.discard)
        task.add_done_callback(ended)  # also where it is cancelled before its first step
        self._protocol.tasks.add(task)  # type: ignore[arg-type]  # nobody there asks what it gives
        return task

    async def _answer(self, prepared: Prepared) -> bytes:
        CALL.set(self._passage.call)  # of this task alone
        return await prepared.answered()

    def _ended(self, task: asyncio.Task[bytes]) -> None:
        found: bytes | Refusal | None = None
        try:
            if task.cancelled():
                self._passage.explain()  # or it is the end of the server
            else:
                found = task.result()
        except Exception as error:
            found = self._protocol.porter.refusal(self._passage, error)
        self._finish(found)

    def _answered(self, prepared: Prepared, direct: Direct) -> None:
        try:
            self._passage.explain()
            found: bytes | Refusal | None = prepared.written([direct.predictions()])
        except Exception as error:
            found = self._protocol.porter.refusal(self._passage, error)
        self._finish(found)

    def _finish(self, found: bytes | Refusal | None) -> None:
        """The end of the call: its answer is written, where there is one and somebody to take it."""
        passage = self._passage
        if found is not None and not self.disconnected:
            passage.answered = True
            passage.status = found.status if isinstance(found, Refusal) else _OK
            if self._protocol.flow.write_paused:
                self._work(self._protocol.flow.drain(), lambda drained: self._write(found))
            else:
                self._write(found)
        self._protocol.porter.leave(passage, "POST", PATH)

    def _write(self, found: bytes | Refusal) -> None:
        protocol = self._protocol
        if self.disconnected or protocol.transport.is_closing():
            return
        usual, closes = protocol.usual_head()
        last = b"" if self.keep_alive or closes else b"connection: close\r\n"
        name = self._passage.request_id.encode("ascii")
        if isinstance(found, Refusal):
            more = b"".join([b"%b: %b\r\n" % pair for pair in found.headers])
            parts = STATUS_LINE[found.status], usual, more, name, last, found.content
            protocol.transport.write(b"%b%b%bx-request-id: %b\r\n%b\r\n%b" % parts)
        else:
            protocol.transport.write(_ANSWER % (usual, len(found), name, last, found))
        if closes:
            self.keep_alive = False
        self.response_complete = True
        if not self.keep_alive:
            protocol.transport.close()
        protocol.on_response_complete()


def is_large(fields: Mapping[bytes, bytes]) -> bool:
    """Whether the body that a head announces is large, or may be, since nobody says its length."""
    length = fields.get(b"content-length", b"")
    return not length.isdigit() or int(length) > LARGE
