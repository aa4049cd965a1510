"""Arrays as bytes for the store: npz without pickle."""

import io

import numpy as np

from ..task import Arrays


def pack(arrays: Arrays) -> bytes:
    """The arrays as an uncompressed npz file."""
    file = io.BytesIO()
    np.savez(file, **arrays)  # type: ignore[arg-type]  # numpy's stub knows allow_pickle among the keywords only
    return file.getvalue()


def unpack(content: bytes) -> Arrays:
    """What `pack` packed."""
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        return dict(arrays)
