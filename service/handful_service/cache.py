"""Task states in slots: a byte budget, least recently used first out, pinned while in use.

The cache does not know where states come from: it is given a `load` callable.
"""

import asyncio
import math
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from .engine.slots import SlotTables
from .errors import Overloaded
from .task import Labels, TaskState

Load = Callable[[], Awaitable[TaskState]]

MIN_SLOTS = 64
"""Of each cache, whatever the budget: every call needs some."""

MOST_GIVEN = 64
"""Slots that are given up at a time: a large state takes the place of many small ones, but not in one go."""


@dataclass(slots=True)
class Held:
    """A state in a slot.

    Attributes:
        slot: Where its arrays lie in the tables.
        labels: The label of each of the state's ways.
        shots: Its effective shots.
        task: The id of the known task whose columns it reads, if it comes of one.
        described: Whether it answers without any example.
        key: What the cache knows it by; None: its slot is free when nobody uses it any more.
        revision: Of what it is a state of.
        as_of: Up to when its revision is known to be the current one, for whoever asks for that.
        pins: How many are using it; it is not evicted, nor moved, while there are any.
        used: When it was asked for last, on the clock of the budget.
        reading: Whoever reads its answers keeps here how.
    """

    slot: int
    labels: Labels
    shots: float
    task: str | None = None
    described: bool = False
    key: Hashable | None = None
    revision: int = 0
    as_of: int = 0
    pins: int = 0
    used: int = 0
    reading: Any = None


class Budget:
    """The bytes that the caches of a process share: a slot that is needed is taken from the state that was not used
    for the longest time, whosever it is.

    Args:
        size: Bytes.

    Attributes:
        size: See above.
        now: A clock that moves on with each state that is put into a slot.
        left: Bytes that nobody has. Below 0 where the slots that each cache has at least are more than all.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.now = 0
        self.left = size
        self._caches: list[StateCache] = []

    def join(self, cache: "StateCache") -> None:
        """Let a cache have its part."""
        self._caches.append(cache)

    def grants(self, cache: "StateCache") -> bool:
        """Whether a cache may have one more slot, for which others may have to give up some.

        If not, it has to do with those that it has.
        """
        enough = self.left >= cache.slot_bytes or self._gather(cache) or cache.slots < MIN_SLOTS
        if not enough or cache.is_full:
            return False
        self.left -= cache.slot_bytes
        return True

    def _gather(self, cache: "StateCache") -> bool:
        for _ in range(MOST_GIVEN):
            stalest = min(self._caches, key=_stalest)
            at_home = stalest is cache and self.left >= 0  # it puts the new state in the place of its own stalest one
            if at_home or not stalest.give_up():
                return False
            self.left += stalest.slot_bytes
            if self.left >= cache.slot_bytes:
                return True
        return False


def _stalest(cache: "StateCache") -> float:
    return cache.stalest


class StateCache:
    """The slots of one bundle. Used from the event loop only.

    A state is known by a key and a revision, 0 where there are no revisions. Of each key there is one revision, the
    newest that was asked for: an older one goes as soon as nobody uses it.

    Args:
        tables: Where the arrays lie.
        budget: What it shares with others; None: it may have as many slots as the tables.
        slot_bytes: What a slot counts in the budget; 0 without one.
    """

    def __init__(self, tables: SlotTables, budget: Budget | None = None, slot_bytes: int = 0) -> None:
        self.slot_bytes = slot_bytes
        self._tables = tables
        self._budget = budget or Budget(0)
        self._free: list[int] = []
        self._held: OrderedDict[Hashable, Held] = OrderedDict()
        self._in_slots: list[Held | None] = []
        self._loads: SingleFlight = SingleFlight()
        self._budget.join(self)

    def __len__(self) -> int:
        return len(self._held)

    @property
    def slots(self) -> int:
        """Slots that it has, free ones among them."""
        return self._tables.used

    @property
    def is_full(self) -> bool:
        """Whether the tables have no more slots."""
        return self._tables.used >= self._tables.capacity

    @property
    def stalest(self) -> float:
        """When what it would give up next was used; infinity where that is nothing."""
        if self.slots <= MIN_SLOTS:
            return math.inf
        if self._free:
            return -1
        oldest = self._oldest()
        return math.inf if oldest is None else oldest.used

    def pins(self) -> "Pins":
        """A block of a call, whose states stay in their slots until it ends."""
        return Pins(self)

    def find(self, key: Hashable, revision: int = 0) -> Held | None:
        """The state of a key's revision, pinned, if it is there."""
        held = self._held.get(key)
        return self._use(held) if held is not None and held.revision == revision else None

    def newest(self, key: Hashable) -> Held | None:
        """The state of a key's newest revision that is there, pinned."""
        held = self._held.get(key)
        return None if held is None else self._use(held)

    async def pin(self, key: Hashable, load: Load, revision: int = 0) -> Held:
        """The state of a key's revision, pinned; loaded once, however many ask.

        Raises:
            Overloaded: every slot is in use.
        """
        held = self.find(key, revision)
        if held is None:
            held = self.hold(key, await self._loads.run((key, revision), load), revision)
        return held

    def hold(self, key: Hashable, state: TaskState, revision: int = 0) -> Held:
        """The state of a key's revision, pinned, of which it is known what it is.

        Raises:
            Overloaded: every slot is in use.
        """
        before = self._held.get(key)
        if before is None:
            return self._hold(key, state, revision)
        if before.revision == revision:
            return self._use(before)
        if before.revision > revision:
            return self._write(state, None, revision)
        self._forget(before)
        return self._hold(key, state, revision)

    def borrow(self, state: TaskState) -> Held:
        """A state that nothing keeps, in a slot, pinned.

        Raises:
            Overloaded: every slot is in use.
        """
        return self._write(state, None)

    def release(self, held: Held) -> None:
        """Take a pin out."""
        held.pins -= 1
        if held.key is None and held.pins == 0:
            self._in_slots[held.slot] = None
            self._free.append(held.slot)

    def give_up(self) -> bool:
        """Have one slot less, if there are more than the least, and the last one, whose memory goes, is not in use."""
        if self.slots <= MIN_SLOTS:
            return False
        last = self._tables.used - 1
        held = self._in_slots[last]
        if held is None:
            self._free.remove(last)
        elif held.pins:
            return False
        else:
            hole = self._free.pop() if self._free else self._evict()
            if hole is None:
                return False
            if hole != last:
                self._tables.move(last, hole)
                held.slot = hole
                self._in_slots[hole] = held
        self._in_slots.pop()
        self._tables.drop()
        return True

    def _use(self, held: Held) -> Held:
        self._held.move_to_end(held.key)
        held.pins += 1
        held.used = self._budget.now
        return held

    def _forget(self, held: Held) -> None:
        """Whoever uses it may go on; nobody else finds it."""
        del self._held[held.key]
        held.key = None
        held.pins += 1
        self.release(held)

    def _hold(self, key: Hashable, state: TaskState, revision: int) -> Held:
        held = self._write(state, key, revision)
        self._held[key] = held
        return held

    def _write(self, state: TaskState, key: Hashable | None, revision: int = 0) -> Held:
        """The state in a slot, with a first pin."""
        slot = self._take_slot()
        try:
            self._tables.write(slot, state.arrays)
        except BaseException:
            self._free.append(slot)
            raise
        self._budget.now += 1
        now = self._budget.now
        held = Held(slot, state.labels, state.shots, state.task, state.described, key, revision, pins=1, used=now)
        self._in_slots[slot] = held
        return held

    def _take_slot(self) -> int:
        if self._free:
            return self._free.pop()
        if self._budget.grants(self):
            self._in_slots.append(None)
            return self._tables.add()
        slot = self._evict()
        if slot is None:
            raise Overloaded(f"all {self.slots} slots for task states are in use")
        return slot

    def _evict(self) -> int | None:
        """The slot of what was used last longest ago, which is not known any more; None where all are in use."""
        held = self._oldest()
        if held is None:
            return None
        del self._held[held.key]
        self._in_slots[held.slot] = None
        return held.slot

    def _oldest(self) -> Held | None:
        for held in self._held.values():
            if held.pins == 0:
                return held
        return None


class Pins:
    """The states that one call uses: a block at whose end they are all released."""

    __slots__ = ("_cache", "_held", "_kept")

    def __init__(self, cache: StateCache) -> None:
        self._cache = cache
        self._held: list[Held] = []
        self._kept = False

    def find(self, key: Hashable, revision: int = 0) -> Held | None:
        """As `StateCache.find`."""
        held = self._cache.find(key, revision)
        if held is not None:
            self._held.append(held)
        return held

    def newest(self, key: Hashable) -> Held | None:
        """As `StateCache.newest`."""
        held = self._cache.newest(key)
        if held is not None:
            self._held.append(held)
        return held

    async def pin(self, key: Hashable, load: Load, revision: int = 0) -> Held:
        """As `StateCache.pin`."""
        held = await self._cache.pin(key, load, revision)
        self._held.append(held)
        return held

    def hold(self, key: Hashable, state: TaskState, revision: int = 0) -> Held:
        """As `StateCache.hold`."""
        held = self._cache.hold(key, state, revision)
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
