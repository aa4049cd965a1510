"""What the engine knows of the call that it works for, beside its arrays."""

import math
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(slots=True)
class Call:
    """One call on its way. The door makes it, and every run that the call needs reads it.

    Attributes:
        deadline_s: When its answer is due, on the clock of `time.monotonic`.
        tenant: Who asks; empty until that is known.
        learns: Whether it changes an adaptation, so that all of its runs belong to learning.
        admitted: Whether one of its runs was let in: the others then are not asked again.
        droppable: Whether nothing is lost if it is given up halfway.
    """

    deadline_s: float = math.inf
    tenant: str = ""
    learns: bool = False
    admitted: bool = False
    droppable: bool = False


CALL: ContextVar[Call | None] = ContextVar("call", default=None)
"""The call that the current task works for; None for what the server does by itself."""


def identify(call: Call | None, tenant: str, *, learns: bool) -> None:
    """Note who makes a call, once that is known, and whether it is one to learn from."""
    if call is not None:
        call.tenant, call.learns, call.droppable = tenant, learns, not learns
