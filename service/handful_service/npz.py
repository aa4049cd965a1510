"""Arrays as bytes: npz without pickle."""

import io
import threading

import numpy as np

from .task import Arrays

_ONE_AT_A_TIME = threading.Lock()
"""numpy reads the header of an array with `ast.literal_eval`, which threads may not run beside each other: the depth
that CPython counts there is shared by them (python/cpython#106905), and the call fails with a SystemError."""


def pack(arrays: Arrays) -> bytes:
    """The arrays as an uncompressed npz file."""
    file = io.BytesIO()
    np.savez(file, **arrays)  # type: ignore[arg-type]  # numpy's stub knows allow_pickle among the keywords only
    return file.getvalue()


def unpack(content: bytes) -> Arrays:
    """What `pack` packed, or any other npz file of plain arrays; hostile bytes may raise anything."""
    with _ONE_AT_A_TIME, np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        return dict(arrays)
