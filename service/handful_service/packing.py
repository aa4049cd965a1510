"""Arrays as the bytes that the store keeps: safetensors, whose header is read in a fraction of the time of npz's."""

import numpy as np
from safetensors.numpy import load, save

from . import npz
from .task import Arrays

_ZIP = b"PK\x03\x04"
"""What npz begins with. As the length of a safetensors header it would be beyond what that format allows."""


def pack(arrays: Arrays) -> bytes:
    """The arrays in one piece, in the safetensors format."""
    return save(
        {name: np.asarray(array, order="C") for name, array in arrays.items()}
    )  # which `save` takes for granted


def unpack(content: bytes) -> Arrays:
    """What `pack` packed, or an npz file, as earlier servers kept; other bytes may raise anything."""
    return npz.unpack(content) if content.startswith(_ZIP) else load(content)
