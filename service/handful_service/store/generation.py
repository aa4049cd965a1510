"""Word among processes that share a database file that something was committed to it."""

import mmap
import os
import secrets

_BYTES = 8


class Generation:
    """A number that every process sees in its memory, and that is another one after each commit.

    Whoever commits moves it before telling anybody, so whoever finds it unmoved has missed nothing that was told.
    SQLite has such a number of its own, `PRAGMA data_version`, but takes three system calls for an answer.

    Args:
        path: A file of its own for the number, made where it is missing.

    Raises:
        OSError: it cannot be opened, or not be shared as memory.
    """

    def __init__(self, path: str) -> None:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if os.fstat(file).st_size < _BYTES:
                os.pwrite(file, bytes(_BYTES), 0)  # not a hole, which the disk may have no room for later
            self._memory = mmap.mmap(file, _BYTES)
        finally:
            os.close(file)
        self._number = memoryview(self._memory).cast("Q")

    @property
    def number(self) -> int:
        """The number, of 64 bits."""
        return self._number[0]

    def move(self) -> None:
        """Make it another one. Two processes that do so at once need not know of each other: it is drawn."""
        self._number[0] = secrets.randbits(8 * _BYTES)

    def close(self) -> None:
        """Give the memory back."""
        self._number.release()
        self._memory.close()
