"""Task states in slots: a byte budget, least recently used first out, pinned while in use.

The cache does not know where states come from: it is given a `load` callable.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from types import TracebackType

from .engine.slots import SlotTables
from .errors import Overloaded
from .task import Labels, TaskState

Load = Callable[[], Awaitable[TaskState]]


@dataclass(slots=True)
class Held:
    """A state in a slot.

    Attributes:
        slot: Where its arrays lie in the tables.
        labels: The label of each of the state's ways.
        shots: Its effective shots.
        task: The id of the known task whose columns it reads, if it comes of one.
        described: Whether it answers without any example.
        kept: Whether the cache knows it by a key; else its slot is free when nobody uses it any more.
        pins: How many are using it; it is not evicted while there are any.
    """

    slot: int
    labels: Labels
    shots: float
    task: str | None = None
    described: bool = False
    kept: bool = True
    pins: int = 0


class StateCache:
    """The slots of one bundle. Used from the event loop only."""

    def __init__(self, tables: SlotTables) -> None:
        self._tables = tables
        self._used = 0  # slots from here on were never written; small states have millions, so they are not listed
        self._free: list[int] = []
        self._held: OrderedDict[Hashable, Held] = OrderedDict()
        self._loads: SingleFlight = SingleFlight()

    def __len__(self) -> int:
        return len(self._held)

    def pins(self) -> "Pins":
        """A block of a call, whose states stay in their slots until it ends."""
        return Pins(self)

    def find(self, key: Hashable) -> Held | None:
        """The state of a key, pinned, if it is there."""
        held = self._held.get(key)
        if held is not None:
            self._held.move_to_end(key)
            held.pins += 1
        return held

    async def pin(self, key: Hashable, load: Load) -> Held:
        """The state of a key, pinned; loaded once, however many ask.

        Raises:
            Overloaded: every slot is in use.
        """
        held = self.find(key)
        if held is None:
            held = self.hold(key, await self._loads.run(key, load))
        return held

    def hold(self, key: Hashable, state: TaskState) -> Held:
        """The state of a key, pinned, of which it is known what it is.

        Raises:
            Overloaded: every slot is in use.
        """
        return self.find(key) or self._hold(key, state)

    def borrow(self, state: TaskState) -> Held:
        """A state that nothing keeps, in a slot, pinned.

        Raises:
            Overloaded: every slot is in use.
        """
        held = self._write(state)
        held.kept = False
        return held

    def release(self, held: Held) -> None:
        """Take a pin out."""
        held.pins -= 1
        if not held.kept and held.pins == 0:
            self._free.append(held.slot)

    def _hold(self, key: Hashable, state: TaskState) -> Held:
        held = self._write(state)
        self._held[key] = held
        return held

    def _write(self, state: TaskState) -> Held:
        """The state in a slot, with a first pin."""
        held = Held(self._take_slot(), state.labels, state.shots, state.task, state.described, pins=1)
        try:
            self._tables.write(held.slot, state.arrays)
        except BaseException:
            self._free.append(held.slot)
            raise
        return held

    def _take_slot(self) -> int:
        if self._free:
            return self._free.pop()
        if self._used < self._tables.capacity:
            self._used += 1
            return self._used - 1
        for key, held in self._held.items():
            if held.pins == 0:
                del self._held[key]
                return held.slot
        raise Overloaded(f"all {self._tables.capacity} slots for task states are in use")


class Pins:
    """The states that one call uses: a block at whose end they are all released."""

    __slots__ = ("_cache", "_held", "_kept")

    def __init__(self, cache: StateCache) -> None:
        self._cache = cache
        self._held: list[Held] = []
        self._kept = False

    def find(self, key: Hashable) -> Held | None:
        """As `StateCache.find`."""
        held = self._cache.find(key)
        if held is not None:
            self._held.append(held)
        return held

    async def pin(self, key: Hashable, load: Load) -> Held:
        """As `StateCache.pin`."""
        held = await self._cache.pin(key, load)
        self._held.append(held)
        return held

    def hold(self, key: Hashable, state: TaskState) -> Held:
        """As `StateCache.hold`."""
        held = self._cache.hold(key, state)
        self._held.append(held)
        return held

    def borrow(self, state: TaskState) -> Held:
        """As `StateCache.borrow`."""
        held = self._cache.borrow(state)
        self._held.append(held)
        return held

    def keep(self) -> None:
        """Let them outlast the block: whoever says so releases them."""
        self._kept = True

    def release(self) -> None:
        """Take all pins out, once."""
        held, self._held = self._held, []
        for one in held:
            self._cache.release(one)

    def __enter__(self) -> "Pins":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if not self._kept:
            self.release()


class SingleFlight:
    """Runs a load once for all who ask for the same key while it is under way."""

    def __init__(self) -> None:
        self._under_way: dict[Hashable, asyncio.Task[TaskState]] = {}

    async def run(self, key: Hashable, load: Load) -> TaskState:
        """What the load of a key gives; one caller that goes away does not take it away from the others."""
        task = self._under_way.get(key)
        if task is None:
            task = asyncio.ensure_future(_call(load))
            self._under_way[key] = task
            task.add_done_callback(lambda done: self._ended(key, done))
        return await asyncio.shield(task)

    def _ended(self, key: Hashable, task: asyncio.Task[TaskState]) -> None:
        self._under_way.pop(key, None)
        if not task.cancelled():
            task.exception()  # seen, though everyone who asked may be gone


async def _call(load: Load) -> TaskState:
    return await load()
