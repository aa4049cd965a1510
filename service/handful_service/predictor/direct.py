"""A call that needs nothing but a run: it waits as a value, not as a coroutine, which would cost more than the run."""

import asyncio
from collections.abc import Callable, Sequence

from ..cache import Pins
from ..engine.answering import FeaturesNotFinite
from .outcomes import Prediction, predictions
from .pinning import Pinned
from .preparing import features_not_finite
from .reading import Answer, Reading
from .refs import Ask


class Direct:
    """One ask of one task, on its way to its answers: the reply that the engine gives them to.

    Its state stays pinned until the call is over.

    Args:
        ask: What was asked.
        state: Of its task, in a slot.
        reading: How the columns of the state are read.
        folded: The folded fields of each input.
        pins: What the call pinned.
        taught: The folded fields of its examples.

    Attributes:
        told: Called once, when the call is over; it raises nothing.
    """

    __slots__ = (
        "_answers", "_ask", "_error", "_folded", "_over", "_pins", "_reading", "_state", "_taught", "told",
    )  # fmt: skip

    def __init__(
        self,
        ask: Ask,
        state: Pinned,
        reading: Reading,
        folded: Sequence[tuple[str, ...]],
        pins: Pins,
        taught: tuple[str, ...] = (),
    ) -> None:
        self._ask, self._state, self._reading = ask, state, reading
        self._folded, self._pins, self._taught = folded, pins, taught
        self._answers: Sequence[Answer | None] | None = None
        self._error: Exception | None = None
        self._over = False
        self.told: Callable[[], None] | None = None

    def done(self) -> bool:
        """Whether the call is over."""
        return self._over

    def set_result(self, answers: Sequence[Answer | None]) -> None:
        """Take the answers."""
        self._answers = answers
        self._end()

    def set_exception(self, error: Exception) -> None:
        """Take the error of the run."""
        self._error = error
        self._end()

    def cancel(self) -> None:
        """Give the call up: whatever comes for it is dropped."""
        if not self._over:
            self._end()

    def _end(self) -> None:
        self._over = True
        self._pins.release()
        told, self.told = self.told, None  # which knows this call in turn: a circle would have to be looked for
        if told is not None:
            told()

    def predictions(self) -> list[Prediction]:
        """The answers of a call that is over.

        Raises:
            InputInvalid: an input is too large.
            Exception: that of the run.
        """
        if isinstance(self._error, FeaturesNotFinite):
            raise features_not_finite(self._ask.fields[self._error.row])
        if self._error is not None:
            raise self._error
        if self._answers is None:
            raise RuntimeError("the call was given up")
        return predictions(self._ask, self._folded, (self._state,), (self._reading,), self._answers, self._taught)

    async def answered(self) -> list[Prediction]:
        """The answers, for a coroutine, which may be cancelled; see `predictions`."""
        over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.told = lambda: None if over.done() else over.set_result(None)
        try:
            await over
        finally:
            self.cancel()
        return self.predictions()
