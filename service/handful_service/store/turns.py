"""Turns at writing, for processes that share a database file.

SQLite lets one connection write at a time, and has the others ask again and again, more rarely the longer they wait: a
process that writes without a pause starves the rest. Here each waits at a turnstile. Who has passed it is the next to
write, and who has written must queue at it anew, so that two that always want to write take turns.
"""

import fcntl
import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

LOG = logging.getLogger(__name__)

LOOK_S = 0.001
_TURNSTILE, _WRITER = 0, 1
"""The bytes of the file that are locked. The system frees them when a process ends, however it does."""


class Turns:
    """The turns at one database file. What they are for is fairness: the database itself keeps writers apart.

    Args:
        path: A file of its own for the locks, made where it is missing.
        most_s: How long to wait for a turn, after which the database decides.
    """

    def __init__(self, path: str, most_s: float) -> None:
        self._most_s = most_s
        self._threads = threading.Lock()  # the locks of a file are those of a whole process
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    @contextmanager
    def turn(self) -> Iterator[None]:
        """A block in which no other process that asks for turns writes."""
        until = time.monotonic() + self._most_s
        with self._threads:
            passed = self._lock(_TURNSTILE, until)
            writes = passed and self._lock(_WRITER, until)
            if passed:
                self._unlock(_TURNSTILE)
            if not writes:
                LOG.warning("no turn at writing within %.0f s", self._most_s)
            try:
                yield
            finally:
                if writes:
                    self._unlock(_WRITER)

    def close(self) -> None:
        """Give the file back."""
        os.close(self._file)

    def _lock(self, byte: int, until: float) -> bool:
        while True:
            with suppress(BlockingIOError, PermissionError):
                fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, byte)
                return True
            if time.monotonic() > until:
                return False
            time.sleep(LOOK_S)

    def _unlock(self, byte: int) -> None:
        fcntl.lockf(self._file, fcntl.LOCK_UN, 1, byte)
