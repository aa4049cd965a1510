"""uvicorn's HTTP protocol, which answers predict calls itself, before an ASGI scope is made for them.

It takes a call only where nothing is special about it: its head and its body came in one piece, no other call of the
connection is under way, and no client waits for a 100. Everything else, every other path and everything that is not
valid HTTP is the stock protocol's, whose parser reads all requests, and whose connections, time-outs and pipelines are
used as they are. So both forms frame requests alike, and there is nothing to smuggle between them.
"""

import asyncio
import re
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser
from starlette.datastructures import State
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from .engine.calls import CALL
from .errors import HandfulError, NotHttp, TooLarge
from .porter import UNMATCHED, Porter, Refusal
from .predictor.direct import Direct
from .problems import problem_answer, problem_body
from .routes.common import MAX_MODEL_NAME
from .routes.hot import MEDIA, admit
from .routes.predict import PATH, Prepared

_PREDICT = re.compile(rb"/v1/models/([^/?#%%\x00-\x20\x7f-\xff]{1,%d})/predict(?:\?([^#]*))?" % MAX_MODEL_NAME)
"""As the hot path has it, of a target that came without escapes: others are unescaped by the stock protocol."""

_OK = 200

T = TypeVar("T")

MAX_HEAD_BYTES = 65536
"""Of a request: the parser takes ever longer for a header that does not end."""


class Exchange:
    """One call and its answer: the stock protocol holds it where it holds cycles of its own.

    Attributes:
        keep_alive: Whether the connection stays open after it.
        response_complete: Whether the answer was written.
        disconnected: Whether the client is gone.
    """

    __slots__ = (
        "_headers", "_model", "_passage", "_protocol", "_query",
        "body", "disconnected", "keep_alive", "more_body", "response_complete",
    )  # fmt: skip

    def __init__(self, protocol: "PredictProtocol", model: bytes, query: bytes) -> None:
        self._protocol = protocol
        self._model, self._query = model.decode("ascii", "replace"), query
        self._headers = protocol.headers
        self._passage: Any = None
        self.body, self.more_body = b"", True
        self.disconnected = self.response_complete = False
        self.keep_alive = protocol.parser.get_http_version() != "1.0" and protocol.parser.should_keep_alive()

    @property
    def message_event(self) -> "Exchange":
        """What the stock protocol sets when the client goes."""
        return self

    def set(self) -> None:
        """The client went, or the stock protocol thinks that a reader waits: a call that nobody awaits is dropped."""
        if self.disconnected and self._passage is not None and self._passage.call.droppable:
            self._passage.end("gone")

    def start(self) -> None:
        """Answer the call: at once where it is refused, after a run, or in a task where more has to be awaited."""
        protocol, headers = self._protocol, dict(self._headers)
        porter = protocol.porter
        self._passage = passage = porter.enter(headers)
        try:
            porter.begin(passage, headers)
            admitted = admit(protocol.state, passage.call, self._model, self._query, self._headers)
            porter.check_size(len(self.body))
            prepared = admitted.prepared(self.body)
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
        if isinstance(found, Refusal):
            status, content, more = found.status, found.content, found.headers
        else:
            status, content, more = _OK, found, [(b"content-length", b"%d" % len(found)), MEDIA]
        usual, closes = protocol.usual_head()
        lines = [STATUS_LINE[status], usual]
        for name, value in (*more, (b"x-request-id", self._passage.request_id.encode("ascii"))):
            lines += (name, b": ", value, b"\r\n")
        if closes:
            self.keep_alive = False
        elif not self.keep_alive:
            lines.append(b"connection: close\r\n")
        lines += (b"\r\n", content)
        protocol.transport.write(b"".join(lines))
        self.response_complete = True
        if not self.keep_alive:
            protocol.transport.close()
        protocol.on_response_complete()


class PredictProtocol(HttpToolsProtocol):
    """The protocol. `protocol_of` gives it an app."""

    porter: Porter
    state: State

    _hot: Exchange | None = None
    """A call whose body has yet to be seen whole."""

    _in_head = False
    _head_bytes = 0
    _usual: tuple[object, bytes, bool] = (None, b"", False)

    def usual_head(self) -> tuple[bytes, bool]:
        """The headers of every answer, made anew each second, and whether they close the connection."""
        headers = self.server_state.default_headers
        if headers is not self._usual[0]:
            content = b"".join([b"%b: %b\r\n" % pair for pair in headers])
            type(self)._usual = headers, content, (b"connection", b"close") in headers
        return self._usual[1:]

    def data_received(self, data: bytes) -> None:
        """Take in bytes; a call of which a part is missing afterwards goes the usual way."""
        self._unset_keepalive_if_required()
        try:
            self.parser.feed_data(data)
        except HttpParserUpgrade as stop:
            self._go_on_without_upgrade(data[stop.args[0] :])
        except HttpParserError:
            self.send_400_response("")
            return
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self._refuse(TooLarge("has more bytes", field="head", allowed=f"at most {MAX_HEAD_BYTES} bytes"))
        if self._hot is not None:
            self._give_up(self._hot)

    def on_message_begin(self) -> None:
        """The start of a request."""
        self.url, self.headers, self.expect_100_continue = b"", [], False
        self._in_head, self._head_bytes = True, 0

    def _go_the_usual_way(self) -> None:
        """Let the stock protocol have a call from its headers on: only now it needs a scope."""
        url, headers, waits = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.url, self.headers, self.expect_100_continue = url, headers, waits
        self.scope["headers"] = headers
        super().on_headers_complete()

    def _go_on_without_upgrade(self, rest: bytes) -> None:
        """Take in a request again as if it asked for no other protocol, which a server may ignore.

        The parser stops behind such a head. Without this, a body would be taken for the next request.
        """
        if self.parser.get_method() == b"CONNECT":  # which is nothing but an upgrade
            self.send_400_response("")
            return
        kept = [(name, value) for name, value in self.headers if name not in (b"upgrade", b"http2-settings")]
        lines = [
            b"%s: %s" % (name, _without_upgrade(value) if name == b"connection" else value) for name, value in kept
        ]
        head = [b"%s %s HTTP/1.1" % (self.parser.get_method(), self.url), *lines, b"", b""]
        self.parser = HttpRequestParser(self)
        self.data_received(b"\r\n".join(head) + rest)

    def on_headers_complete(self) -> None:
        """Take a predict call, or let it go the usual way."""
        self._in_head = False
        if self.parser.should_upgrade():
            return  # and see the request again: `_go_on_without_upgrade`
        if self._free and not self.expect_100_continue and self.parser.get_method() == b"POST":
            found = _PREDICT.fullmatch(self.url)
            if found is not None:
                self._hot = Exchange(self, found[1], found[2] or b"")
                return
        self._go_the_usual_way()

    @property
    def _free(self) -> bool:
        """Whether no other call of the connection is under way."""
        return self.cycle is None or self.cycle.response_complete

    def on_body(self, body: bytes) -> None:
        """A part of a body."""
        if self.parser.should_upgrade():
            return
        if self._hot is None:
            super().on_body(body)
        else:
            self._hot.body = self._hot.body + body if self._hot.body else body

    def on_message_complete(self) -> None:
        """The end of a request."""
        if self.parser.should_upgrade():
            return
        if self._hot is None:
            super().on_message_complete()
            return
        exchange, self._hot = self._hot, None
        self.cycle = exchange  # type: ignore[assignment]  # it has all that the stock protocol reads
        exchange.start()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP, as a problem like any other, and close."""
        self._refuse(NotHttp("cannot be read", field="request", allowed="HTTP/1.1"))

    def _refuse(self, error: HandfulError) -> None:
        """Answer what never became a request, and close."""
        passage = self.porter.enter({})
        passage.status, told, content = problem_answer(problem_body(error), passage.request_id)
        pairs = {**told, "connection": "close", "x-request-id": passage.request_id}
        head = "".join(f"{name}: {value}\r\n" for name, value in pairs.items())
        self.transport.write(STATUS_LINE[passage.status] + head.encode("ascii") + b"\r\n" + content)
        self.transport.close()
        self.porter.leave(passage, "any", UNMATCHED)

    def _give_up(self, exchange: Exchange) -> None:
        """Let the stock protocol have a call from its headers on."""
        self._hot = None
        if self.parser is None or self.transport.is_closing():
            return
        self._go_the_usual_way()
        if exchange.body:
            super().on_body(exchange.body)


def _without_upgrade(value: bytes) -> bytes:
    tokens = [token.strip() for token in value.split(b",")]
    return b", ".join(token for token in tokens if token.lower() not in (b"upgrade", b"http2-settings"))


def protocol_of(porter: Porter, state: State) -> type[HttpToolsProtocol]:
    """The protocol of an app.

    Args:
        porter: Lets the app's requests in and out.
        state: The app's own.
    """
    return type("PredictProtocolOfApp", (PredictProtocol,), {"porter": porter, "state": state})
