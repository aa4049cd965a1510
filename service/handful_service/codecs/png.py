"""What a PNG file says of itself before its pixels are decoded (W3C: Portable Network Graphics, 2003)."""

import base64
import binascii
import struct
import zlib
from collections.abc import Iterable

SIGNATURE = b"\x89PNG\r\n\x1a\n"

_CHUNK = struct.Struct(">I4s")
_SIZE = struct.Struct(">II")
_HEADER = struct.Struct(">IIBBBBB")
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""By colour type (table 11.1)."""

_PASSES = ((0, 8, 0, 8), (4, 8, 0, 8), (0, 4, 4, 8), (2, 4, 0, 4), (0, 2, 2, 4), (1, 2, 0, 2), (0, 1, 1, 2))
"""First column and step, first row and step of each pass of an interlaced picture (section 8.2)."""

_SIZE_AT = len(SIGNATURE) + _CHUNK.size
_WHOLE = ((0, 1, 0, 1),)

_BASE64 = -(-(_SIZE_AT + _SIZE.size) // 3) * 4
_START = base64.b64encode(SIGNATURE + b"\0").decode("ascii")


def pixels_of_base64(text: str) -> int | None:
    """The pixels of a picture in base64, as its header says, which comes first in every PNG; None of any other."""
    if not text.startswith(_START):
        return None
    try:
        width, height = _SIZE.unpack_from(base64.b64decode(text[:_BASE64], validate=True), _SIZE_AT)
    except (ValueError, binascii.Error, struct.error):
        return None
    return int(width * height)


def is_cut(content: bytes) -> bool:
    """Whether the pixel data of a PNG that can be read is a whole stream, but of fewer bytes than the picture needs.

    Args:
        content: The file.
    """
    wanted, found, at, stream = None, 0, len(SIGNATURE), zlib.decompressobj()
    while at + _CHUNK.size <= len(content):
        length, name = _CHUNK.unpack_from(content, at)
        at += _CHUNK.size
        if name == b"IHDR":
            width, height, depth, colour, _, _, interlace = _HEADER.unpack_from(content, at)
            wanted = _bytes_of(width, height, depth * _CHANNELS[colour], _PASSES if interlace else _WHOLE)
        elif name == b"IDAT" and wanted is not None and found < wanted:
            found += len(stream.decompress(content[at : at + length], wanted - found))
        at += length + 4  # behind its checksum
    return wanted is not None and found < wanted


def _bytes_of(width: int, height: int, bits: int, passes: Iterable[tuple[int, int, int, int]]) -> int:
    """Bytes of the pixels of some bits each, with the byte for the filter at the start of each row."""
    sizes = [(-(-(width - x) // step_x), -(-(height - y) // step_y)) for x, step_x, y, step_y in passes]
    return sum(rows * (1 + -(-columns * bits // 8)) for columns, rows in sizes if columns > 0 and rows > 0)
