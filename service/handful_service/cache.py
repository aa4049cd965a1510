"""Task states in slots: a byte budget, least recently used first out, pinned while in use.

The cache does not know where states come from: it is given a `load` callable.
"""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable
from contextlib import asynccontextmanager
from dataclasses import dataclass

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
        pins: How many are using it; it is not evicted while there are any.
    """

    slot: int
    labels: Labels
    shots: float
    task: str | None = None
    described: bool = False
    pins: int = 0


class StateCache:
    """The slots of one bundle. Used from the event loop only."""

    def __init__(self, tables: SlotTables) -> None:
        self._tables = tables
        self._used = 0  # slots from here on were never written; small states have millions, so they are not listed
        self._free: list[int] = []
        self._held: OrderedDict[Hashable, Held] = OrderedDict()
        self._loading: dict[Hashable, asyncio.Task[TaskState]] = {}

    def __len__(self) -> int:
        return len(self._held)

    @asynccontextmanager
    async def pinned(self, key: Hashable, load: Load) -> AsyncIterator[Held]:
        """The state of a key, loaded once however many ask, and kept in its slot inside the block.

        Raises:
            Overloaded: every slot is in use.
        """
        held = self._held.get(key)
        if held is None:
            state = await self._load_once(key, load)
            held = self._held.get(key) or self._hold(key, state)
        self._held.move_to_end(key)
        held.pins += 1
        try:
            yield held
        finally:
            held.pins -= 1

    @asynccontextmanager
    async def borrowed(self, state: TaskState) -> AsyncIterator[Held]:
        """A slot for a state that nothing keeps: it is free again after the block.

        Raises:
            Overloaded: every slot is in use.
        """
        held = self._write(state)
        try:
            yield held
        finally:
            self._free.append(held.slot)

    async def _load_once(self, key: Hashable, load: Load) -> TaskState:
        task = self._loading.get(key)
        if task is None:
            task = asyncio.ensure_future(_call(load))
            self._loading[key] = task
            task.add_done_callback(lambda done: self._loaded(key, done))
        # One caller that goes away must not take the load away from the others.
        return await asyncio.shield(task)

    def _loaded(self, key: Hashable, task: asyncio.Task[TaskState]) -> None:
        self._loading.pop(key, None)
        if not task.cancelled():
            task.exception()  # seen, though everyone who asked may be gone

    def _hold(self, key: Hashable, state: TaskState) -> Held:
        held = self._write(state)
        self._held[key] = held
        return held

    def _write(self, state: TaskState) -> Held:
        held = Held(self._take_slot(), state.labels, state.shots, state.task, state.described)
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


async def _call(load: Load) -> TaskState:
    return await load()
