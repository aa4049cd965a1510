"""Slot tables: the task states of many users in one contiguous array per tensor."""

from collections.abc import Mapping, Sequence

import numpy as np

from ..bundle.parts import TensorSpec
from ..task import Array, Arrays


class SlotTables:
    """One array `[capacity, *state]` per tensor of φ. Memory is touched only by slots that were written.

    A slot is written once for each state it holds, before anyone knows its number.
    """

    def __init__(self, state: Mapping[str, TensorSpec], capacity: int) -> None:
        self.capacity = capacity
        self._tables = {name: np.zeros((capacity, *spec.shape), spec.dtype) for name, spec in state.items()}

    def write(self, slot: int, state: Arrays) -> None:
        """Put a state, each array `[*state]`, into a slot."""
        for name, table in self._tables.items():
            table[slot] = state[name]

    def gather(self, slots: Sequence[int]) -> dict[str, Array]:
        """The states of some slots, each array `[n, *state]`, in that order."""
        index = np.asarray(slots, np.intp)
        return {name: table.take(index, axis=0) for name, table in self._tables.items()}
