"""Values of metrics that several processes keep in files of one folder, so that any of them can give the sum.

The files are those of prometheus_client's multiprocess mode, and its collector reads them. Its own value takes three
times as long to write as one in memory, since it packs bytes anew each time; this one adds to a cell of a mapped array.
A process writes its own files only, so that what it counted stays when it dies.
"""

import os
from pathlib import Path
from threading import Lock
from typing import Any

from prometheus_client import values
from prometheus_client.mmap_dict import MmapedDict, mmap_key


class _Cells(MmapedDict):
    """One file of a process."""

    def cell(self, key: str) -> "tuple[memoryview[float], int]":
        """The mapped file as float64, and the place of a key's value; a file that grows keeps its former maps true."""
        self.read_value(key)  # type: ignore[no-untyped-call]  # makes it where it is missing
        return memoryview(self._m).cast("d"), self._positions[key] // 8


class _Value:
    """What a metric adds to; the names are prometheus_client's."""

    _multiprocess = True

    def __init__(self, cells: "memoryview[float]", at: int) -> None:
        self._cells, self._at, self._lock = cells, at, Lock()

    def inc(self, amount: float) -> None:
        """Add."""
        with self._lock:
            self._cells[self._at] += amount

    def set(self, value: float, timestamp: float | None = None) -> None:
        """Put another value there."""
        self._cells[self._at] = value

    def get(self) -> float:
        """The value of this process."""
        return self._cells[self._at]

    def set_exemplar(self, exemplar: object) -> None:
        """Exemplars are not kept."""

    def get_exemplar(self) -> None:
        """There is none."""


class _Values:
    """Makes the values of this process.

    Args:
        folder: Where the files are.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: dict[str, _Cells] = {}
        self._lock = Lock()

    def __call__(
        self,
        kind: str,
        metric: str,
        name: str,
        labels: list[str],
        label_values: list[str],
        text: str,
        multiprocess_mode: str = "",
        **_: Any,
    ) -> _Value:
        prefix = f"{kind}_{multiprocess_mode}" if kind == "gauge" else kind
        with self._lock:
            if prefix not in self._files:
                file = self._folder / f"{prefix}_{os.getpid()}.db"
                self._files[prefix] = _Cells(str(file))  # type: ignore[no-untyped-call]
            return _Value(*self._files[prefix].cell(mmap_key(metric, name, labels, label_values, text)))


def keep_in(folder: Path) -> None:
    """Keep the values of all metrics that this process makes from now on in a folder."""
    values.ValueClass = _Values(folder)
