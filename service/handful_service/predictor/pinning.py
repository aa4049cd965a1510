"""From what a call says of its tasks to their states in slots, pinned while the call uses them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from ..cache import Held, Pins
from ..errors import AdaptationNotFound, HandfulError, TaskConflict
from ..task import Caller
from .accepting import must_accept
from .beside import all_of
from .decoding import Decoders
from .describing import find_described, pin_described
from .learning import Lesson
from .models import Served
from .preparing import base_state
from .refs import Base, ByAdaptation, ByLearned, ByTask, Named, TaskRef

Used = Literal["personal", "base", "support", "task"]


@dataclass(slots=True)
class Pinned:
    """A task's state in a slot, what kind it is, its revision, and the folded fields behind it."""

    held: Held
    used: Used
    revision: int | None = None
    folded: tuple[str, ...] = ()


@dataclass(slots=True)
class Wanted:
    """A task whose state a call needs.

    Attributes:
        lesson: What is learned, where the task is defined by examples of the call.
    """

    task: TaskRef
    lesson: Lesson | None = None


class StoredStates(Protocol):
    """Where the states of stored adaptations come from."""

    def find(self, pins: Pins, caller: Caller, served: Served, name: str, least: int) -> Held | None:
        """The current state of an adaptation, if it is at hand."""
        ...

    async def pin(
        self, pins: Pins, caller: Caller, served: Served, names: Sequence[str], *, min_revision: int | None
    ) -> list[Held | HandfulError]:
        """The current state of each adaptation; `AdaptationNotFound` where there is none."""
        ...


class NoStates:
    """No adaptations at all: for a bundle that is only checked."""

    def find(self, pins: Pins, caller: Caller, served: Served, name: str, least: int) -> Held | None:
        """See `StoredStates`."""
        return None

    async def pin(
        self, pins: Pins, caller: Caller, served: Served, names: Sequence[str], *, min_revision: int | None
    ) -> list[Held | HandfulError]:
        """See `StoredStates`."""
        return [AdaptationNotFound(f"no adaptation {name!r}") for name in names]


@dataclass(slots=True)
class Pinning:
    """The states that one call uses.

    Attributes:
        pins: Where they are noted, to be released when the call is over.
        decoders: Threads that cut texts into tokens.
        or_base: Whether the base answers where an adaptation does not exist.
        min_revision: The least revision of an adaptation to answer with.
    """

    pins: Pins
    caller: Caller
    served: Served
    stored: StoredStates
    decoders: Decoders
    or_base: bool
    min_revision: int | None

    async def pin(self, wanted: Sequence[Wanted]) -> list[list[Pinned] | HandfulError]:
        """The states of each task, one for each of its names; an error where there is none to be had.

        What is at hand is taken at once. The others are made beside each other, so that they share runs.
        """
        found: list[list[Pinned] | HandfulError | None] = [self._at_hand(one) for one in wanted]
        waiting = [place for place, states in enumerate(found) if states is None]
        if waiting:
            by_id = [place for place in waiting if isinstance(wanted[place].task, ByAdaptation)]
            others = [place for place in waiting if not isinstance(wanted[place].task, ByAdaptation)]
            made: list[list[Pinned] | HandfulError] = []
            if by_id:
                made += await self._stored([wanted[place].task for place in by_id])
            made += await all_of([self._make(wanted[place]) for place in others])
            for place, states in zip((*by_id, *others), made, strict=True):
                found[place] = states
        return [states for states in found if states is not None]

    def _at_hand(self, one: Wanted) -> list[Pinned] | None:
        if isinstance(one.task, ByTask):
            states = []
            for named in one.task.names:
                held = find_described(self.pins, self.served, named)
                if held is None:
                    return None
                states.append(Pinned(held, "task"))
            return states
        if isinstance(one.task, Base):
            return self._base_at_hand()
        return None

    def _base_at_hand(self) -> list[Pinned] | None:
        held = self.pins.find(self.served.base_key)
        return None if held is None else [Pinned(held, "base")]

    async def _make(self, one: Wanted) -> list[Pinned]:
        if one.lesson is not None:
            learned = await one.lesson.learned()
            return [Pinned(self.pins.borrow(learned.state), "support", folded=learned.folded)]
        if isinstance(one.task, ByTask):
            return _unless_failed(await all_of([self._described(named) for named in one.task.names]))
        return await self._base(one.task.field)

    async def _described(self, named: Named, used: Used = "task") -> Pinned:
        held, folded = await pin_described(self.pins, self.served, named, self.decoders)
        return Pinned(held, used, folded=folded)

    async def _base(self, place: str) -> list[Pinned]:
        must_accept(self.served, "base", place)
        if (base := self.served.manifest.base_task) is not None:
            return [await self._described(Named(base, field=place), "base")]
        held = await self.pins.pin(self.served.base_key, lambda: base_state(self.served))
        return [Pinned(held, "base")]

    async def _stored(self, tasks: Sequence[TaskRef]) -> list[list[Pinned] | HandfulError]:
        named = [task for task in tasks if isinstance(task, ByAdaptation)]
        names = [task.id for task in named]
        found = await self.stored.pin(self.pins, self.caller, self.served, names, min_revision=self.min_revision)
        return [
            await self._without(task, state) if isinstance(state, HandfulError) else self._answering(task, state)
            for task, state in zip(named, found, strict=True)
        ]

    def _answering(self, task: ByAdaptation, held: Held) -> list[Pinned] | HandfulError:
        if not self.served.can_answer(held):
            return TaskConflict(f"adaptation {task.id!r} has no examples", field=task.field)
        return [Pinned(held, "personal", held.revision)]

    async def _without(self, task: ByAdaptation, error: HandfulError) -> list[Pinned] | HandfulError:
        if not isinstance(error, AdaptationNotFound):
            return error
        if not self.or_base:
            return AdaptationNotFound(error.detail, field=task.field, allowed=error.allowed)
        try:
            return self._base_at_hand() or await self._base("options.on_missing")
        except HandfulError as refused:
            return refused


def find(
    pins: Pins, caller: Caller, served: Served, stored: StoredStates, task: TaskRef, min_revision: int | None
) -> Pinned | None:
    """The one state of a task, if it is at hand, and nothing is to be said against it; see `Pinning`."""
    if isinstance(task, ByAdaptation):
        held = stored.find(pins, caller, served, task.id, min_revision or 1)
        return Pinned(held, "personal", held.revision) if held is not None and served.can_answer(held) else None
    if isinstance(task, Base):
        held = pins.find(served.base_key)
        return None if held is None else Pinned(held, "base")
    if isinstance(task, ByLearned):
        return Pinned(pins.borrow(task.learned.state), "support", folded=task.learned.folded)
    if isinstance(task, ByTask) and len(task.names) == 1:
        held = find_described(pins, served, task.names[0])
        return None if held is None else Pinned(held, "task")
    return None


def _unless_failed(states: Sequence[Pinned | HandfulError]) -> list[Pinned]:
    found = []
    for state in states:
        if isinstance(state, HandfulError):
            raise state
        found.append(state)
    return found
