"""How long calls are worked for: until their deadline, and while somebody waits for the answer.

Watching a client costs a task, and a timer for each call costs more than a small model does. So the calls of the
usual deadline are looked at together, some times a second, and only what is still there then has its client watched.
"""

import asyncio
import time
from dataclasses import dataclass
from typing import Literal, Protocol

from starlette.requests import ClientDisconnect
from starlette.types import Receive

from .engine.calls import Call
from .errors import DeadlineExceeded

LOOK_S = 0.05
"""Between two looks at the calls at work."""

EXACT_S = 1.0
"""A deadline shorter than this has a timer of its own, even if it is the usual one."""


class Work(Protocol):
    """What answers a request: a task, or whatever else can be stopped."""

    def cancel(self) -> object:
        """Stop it."""
        ...


@dataclass(slots=True, eq=False)
class Passage:
    """One request on its way through.

    Attributes:
        request_id: Of the request.
        started: When it came, on the clock of `time.monotonic`.
        call: What the engine knows of it.
        status: Of its answer; 0 before there is one.
        answered: Whether the answer was begun.
        complete: Whether its body was read to the end.
        receive: Where its client's going is told.
        task: What works for it, and can be cancelled.
        timer: Of a deadline of its own.
        watcher: What waits for its client to go.
        over: Why it was ended early, if it was.
        own_deadline: Whether it named a deadline itself.
    """

    request_id: str
    started: float
    call: Call
    status: int = 0
    answered: bool = False
    complete: bool = False
    receive: Receive | None = None
    task: Work | None = None
    timer: asyncio.TimerHandle | None = None
    watcher: "asyncio.Task[None] | None" = None
    over: Literal["late", "gone"] | None = None
    own_deadline: bool = False

    @property
    def to_watch(self) -> bool:
        """Whether it waits for an answer that nobody may want any more, and nobody watches its client."""
        return self.watcher is None and self.complete and self.call.droppable and not self.answered

    def end(self, why: Literal["late", "gone"]) -> None:
        """Stop working for it."""
        if self.over is None and self.task is not None:
            self.over = why
            self.task.cancel()

    def explain(self) -> None:
        """Say why the task was cancelled, if it was ended here.

        Raises:
            DeadlineExceeded: the call is overdue.
            ClientDisconnect: its client is gone.
        """
        if self.over is None or self.task is None:
            return
        if isinstance(self.task, asyncio.Task):
            self.task.uncancel()
        if self.over == "gone":
            raise ClientDisconnect
        waited = round(1000 * (time.monotonic() - self.started))
        field = "X-Deadline-Ms" if self.own_deadline else None
        raise DeadlineExceeded(f"not ready after {waited} ms", field=field, allowed="more time, or less work")

    async def watch(self) -> None:
        """End it when its client goes. A prediction changes nothing, so that nobody misses it."""
        while self.receive is not None and (await self.receive())["type"] != "http.disconnect":
            pass
        if not self.answered:
            self.end("gone")


class Patience:
    """Ends the calls of a server that are overdue or whose clients are gone. Used from one event loop.

    Args:
        deadline_s: Of a call that names none.
    """

    def __init__(self, deadline_s: float) -> None:
        self._deadline_s = deadline_s
        self._passages: dict[Passage, None] = {}
        self._look_at: asyncio.TimerHandle | None = None

    def begin(self, passage: Passage, own_s: float | None, receive: Receive | None) -> None:
        """Work for a call from now on; `passage.task` is what would be stopped.

        Args:
            passage: The call.
            own_s: The deadline that it names, in seconds from its start.
            receive: Where its client's going is told, once its body is read; None: nobody has to watch for that.
        """
        passage.receive, passage.own_deadline = receive, own_s is not None
        if own_s is None and self._deadline_s < EXACT_S:
            own_s = self._deadline_s
        if own_s is not None:
            passage.call.deadline_s = passage.started + own_s
            passage.timer = asyncio.get_running_loop().call_later(own_s, passage.end, "late")
        self._passages[passage] = None
        if self._look_at is None:
            self._look_at = asyncio.get_running_loop().call_later(LOOK_S, self._look)

    def finish(self, passage: Passage) -> None:
        """Stop looking at a call, however it went."""
        self._passages.pop(passage, None)
        if passage.timer is not None:
            passage.timer.cancel()
        if passage.watcher is not None:
            passage.watcher.cancel()

    def _look(self) -> None:
        self._look_at = None
        if not self._passages:
            return
        self._look_at = asyncio.get_running_loop().call_later(LOOK_S, self._look)
        now = time.monotonic()
        for passage in list(self._passages):  # some may be over before the next is looked at
            if now - passage.started < LOOK_S:  # they came in this order, so that all others are younger
                return
            if now >= passage.call.deadline_s:
                passage.end("late")
            elif passage.receive is not None and passage.to_watch:
                passage.watcher = asyncio.get_running_loop().create_task(passage.watch())
