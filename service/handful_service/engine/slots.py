"""Slot tables: the task states of many users in one contiguous array per tensor."""

import mmap
from collections.abc import Mapping, Sequence

import numpy as np

from ..bundle.parts import TensorSpec
from ..task import Array, Arrays

RETURNED_BYTES = 2**20
"""The memory of slots that are not used any more is given back once it is so much."""


class SlotTables:
    """One array `[capacity, *state]` per tensor of φ. Memory is touched only by slots that were written.

    A slot is written once for each state it holds, before anyone knows its number.

    Attributes:
        capacity: The most slots.
        used: Slots that were handed out, the first ones.
    """

    def __init__(self, state: Mapping[str, TensorSpec], capacity: int) -> None:
        self.capacity = capacity
        self.used = 0
        self._touched = 0
        self._state_bytes = sum(spec.bytes for spec in state.values())
        self._pages = {name: _pages(capacity * spec.bytes) for name, spec in state.items()}
        self._tables = {
            name: np.ndarray((capacity, *spec.shape), spec.dtype, self._pages[name]) for name, spec in state.items()
        }

    def add(self) -> int:
        """One more slot."""
        self.used += 1
        self._touched = max(self._touched, self.used)
        return self.used - 1

    def drop(self) -> None:
        """One slot less, the last one; its memory goes back to the system when there is enough of it."""
        self.used -= 1
        if (self._touched - self.used) * self._state_bytes >= RETURNED_BYTES:
            for name, table in self._tables.items():
                _give_back(self._pages[name], self.used * table[0].nbytes, self._touched * table[0].nbytes)
            self._touched = self.used

    def move(self, slot: int, to: int) -> None:
        """Put the state of a slot that no run reads just now into another such one."""
        for table in self._tables.values():
            table[to] = table[slot]

    def write(self, slot: int, state: Arrays) -> None:
        """Put a state, each array `[*state]`, into a slot."""
        for name, table in self._tables.items():
            table[slot] = state[name]

    def gather(self, slots: Sequence[int]) -> dict[str, Array]:
        """The states of some slots, each array `[n, *state]`, in that order."""
        index = np.asarray(slots, np.intp)
        return {name: table.take(index, axis=0) for name, table in self._tables.items()}


def _pages(size: int) -> mmap.mmap:
    """Zeroed memory that is this process's own."""
    return mmap.mmap(-1, max(1, size), mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)


def _give_back(pages: mmap.mmap, start: int, end: int) -> None:
    """Let the system have the whole pages from a byte on, up to the page of another one."""
    first, last = _whole_pages(start), min(_whole_pages(end), len(pages))
    if last > first and hasattr(mmap, "MADV_DONTNEED"):
        pages.madvise(mmap.MADV_DONTNEED, first, last - first)


def _whole_pages(offset: int) -> int:
    return -(-offset // mmap.PAGESIZE) * mmap.PAGESIZE
