"""uvicorn's HTTP protocol, which answers predict calls itself, before an ASGI scope is made for them.

It takes a call only where nothing is special about it: its head and its body came in one piece, no other call of the
connection is under way, and no client waits for a 100. Everything else, every other path and everything that is not
valid HTTP is the stock protocol's, whose parser reads all requests, and whose connections, time-outs and pipelines are
used as they are. So both forms frame requests alike, and there is nothing to smuggle between them. Only a request whose
head is, to the byte, one that the parser took before on this connection, but for the length of its body, is not parsed
again.
"""

import math
import re
from collections.abc import Callable

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser
from starlette.datastructures import State
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from .errors import HandfulError, NotHttp, TooLarge
from .exchange import Exchange
from .head import Head
from .porter import UNMATCHED, Porter
from .problems import problem_answer, problem_body
from .routes.common import MAX_MODEL_NAME

_PREDICT = re.compile(rb"/v1/models/([^/?#%%\x00-\x20\x7f-\xff]{1,%d})/predict(?:\?([^#]*))?" % MAX_MODEL_NAME)
"""As the hot path has it, of a target that came without escapes: others are unescaped by the stock protocol."""

MAX_HEAD_BYTES = 65536
"""Of a request: the parser takes ever longer for a header that does not end."""


class PredictProtocol(HttpToolsProtocol):
    """The protocol. `protocol_of` gives it an app."""

    porter: Porter
    state: State
    on_lost: Callable[[], None]

    _hot: Exchange | None = None
    """A call whose body has yet to be seen whole."""

    _known: Head | None = None
    """The head of the last call that came as a whole."""

    _piece: bytes | None = None
    """What is parsed, where a request begins with it."""

    _between = True
    """Whether the parser has no part of a request."""

    _idle_since = math.inf
    """Since when the connection waits for a request."""

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
        self._idle_since = math.inf
        head, self._piece = self._known, None
        if self._between:
            body = head.body(data) if head is not None and self._free else None
            if head is not None and body is not None:
                self._answer(Exchange(self, head, body))
                return
            self._piece = data
        try:
            self.parser.feed_data(data)
        except HttpParserUpgrade as stop:
            self._go_on_without_upgrade(data[stop.args[0] :])
        except HttpParserError:
            self.send_400_response("")
            return
        self._piece = None
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self._refuse(TooLarge("has more bytes", field="head", allowed=f"at most {MAX_HEAD_BYTES} bytes"))
        if self._hot is not None:
            self._give_up(self._hot)

    def on_message_begin(self) -> None:
        """The start of a request."""
        self.url, self.headers, self.expect_100_continue = b"", [], False
        self._between = False
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
                lasts = self.parser.get_http_version() != "1.0" and self.parser.should_keep_alive()
                self._hot = Exchange(self, Head(found[1], found[2] or b"", self.headers, keep_alive=lasts))
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
        self._between = True
        piece, self._piece = self._piece, None
        if self._hot is None:
            super().on_message_complete()
            return
        exchange, self._hot = self._hot, None
        if piece is not None:
            self._known = exchange.head if exchange.head.learn(piece, exchange.body) else None
        self._answer(exchange)

    def _answer(self, exchange: Exchange) -> None:
        self.cycle = exchange  # type: ignore[assignment]  # it has all that the stock protocol reads
        exchange.start()

    def on_response_complete(self) -> None:
        """Go on with what comes next. One timer for the whole connection looks whether it waits for too long."""
        self._idle_since = self.loop.time()
        if self.pipeline or self.timeout_keep_alive_task is None:
            super().on_response_complete()
            return
        self.server_state.total_requests += 1
        if not self.transport.is_closing():
            self.flow.resume_reading()

    def _unset_keepalive_if_required(self) -> None:
        """The timer stays: see `timeout_keep_alive_handler`."""

    def timeout_keep_alive_handler(self) -> None:
        """Close a connection that waited for as long as it may, or look again when it would have."""
        left = self._idle_since + self.timeout_keep_alive - self.loop.time()
        if left <= 0:
            super().timeout_keep_alive_handler()
        elif not self.transport.is_closing():
            later = min(left, self.timeout_keep_alive)
            self.timeout_keep_alive_task = self.loop.call_later(later, self.timeout_keep_alive_handler)

    def connection_lost(self, exc: Exception | None) -> None:
        """The end of the connection."""
        super().connection_lost(exc)
        if self.timeout_keep_alive_task is not None:
            self.timeout_keep_alive_task.cancel()
            self.timeout_keep_alive_task = None
        self.on_lost()

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
        """Let the stock protocol have a call from its headers on, unless it can be refused before its body came."""
        self._hot = None
        if self.parser is None or self.transport.is_closing():
            return
        if exchange.is_refused():
            self.cycle = exchange  # type: ignore[assignment]  # whose answer is complete: what comes of its body is dropped
            return
        self._go_the_usual_way()
        if exchange.body:
            super().on_body(exchange.body)


def _without_upgrade(value: bytes) -> bytes:
    tokens = [token.strip() for token in value.split(b",")]
    return b", ".join(token for token in tokens if token.lower() not in (b"upgrade", b"http2-settings"))


def protocol_of(porter: Porter, state: State, on_lost: Callable[[], None]) -> type[HttpToolsProtocol]:
    """The protocol of an app.

    Args:
        porter: Lets the app's requests in and out.
        state: The app's own.
        on_lost: Told of the end of each connection, once it is not counted any more; a bound method.
    """
    return type("PredictProtocolOfApp", (PredictProtocol,), {"porter": porter, "state": state, "on_lost": on_lost})
