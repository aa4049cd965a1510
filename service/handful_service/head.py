"""The head of a predict call. A connection that is kept says the same over and over, so that it is read once."""

import re
from collections.abc import Sequence

from starlette.datastructures import State

from .routes.hot import Admitted, admit

_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]{1,9})\r\n", re.IGNORECASE)
_END = b"\r\n\r\n"


class Head:
    """What the head of a call says, and what follows from it.

    Args:
        model: As the path names it.
        query: Of the URL, as it came.
        headers: As they came, their names in lower case.
        keep_alive: Whether the connection stays open after the answer.

    Attributes:
        fields: The headers by name.
    """

    __slots__ = ("_admitted", "_after", "_before", "_headers", "_model", "_query", "fields", "keep_alive")

    def __init__(self, model: bytes, query: bytes, headers: Sequence[tuple[bytes, bytes]], *, keep_alive: bool) -> None:
        self._model, self._query, self._headers = model.decode("ascii", "replace"), query, headers
        self.fields, self.keep_alive = dict(headers), keep_alive
        self._admitted: Admitted | None = None
        self._before = self._after = b""

    def admitted_by(self, state: State) -> Admitted:
        """What can be said of a call with this head; while the keys and the service stay the same, it is said once.

        Raises:
            HandfulError: the caller may not predict, or the body is of another kind.
        """
        if self._admitted is None or not self._admitted.holds(state):
            self._admitted = admit(state, self._model, self._query, self._headers)
        return self._admitted

    def learn(self, request: bytes, body: bytes) -> bool:
        """Know the bytes of this head again, and tell whether that can be.

        Args:
            request: The whole request that this is the head of, and nothing else, as a parser took it.
            body: The request's.
        """
        end = len(request) - len(body)
        lengths = list(_LENGTH.finditer(request, 0, end))
        once = request[:end].lower().count(b"content-length") == 1
        whole = request.find(_END) == end - len(_END)
        if not (self.keep_alive and whole and once and len(lengths) == 1 and int(lengths[0][1]) == len(body)):
            return False
        self._before, self._after = request[: lengths[0].start(1)], request[lengths[0].end(1) : end]
        self.fields.pop(b"content-length", None)  # another request has another
        return True

    def body(self, request: bytes) -> bytes | None:
        """The body of a request whose head is this one but for its length; None where it is another, or not whole.

        What differs is nothing but the digits of the length: every parser would read the same out of all the rest.
        """
        if not request.startswith(self._before):
            return None
        at = len(self._before)
        end = request.find(b"\r", at, at + 10)
        digits = request[at:end]
        if not digits.isdigit() or not request.startswith(self._after, end):
            return None
        found = request[end + len(self._after) :]
        return found if len(found) == int(digits) else None
