"""Pictures that must be refused."""

import base64
import io
import struct
import zlib
from typing import Any

from PIL import Image

from .bad_requests import GOOD, INPUT, Bad


def picture(image: Image.Image, kind: str = "PNG", **more: Any) -> str:
    file = io.BytesIO()
    image.save(file, kind, **more)
    return base64.b64encode(file.getvalue()).decode()


def empty_png(width: int, height: int) -> str:
    """A PNG file that claims a size, without pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")]
    whole = [
        struct.pack(">I", len(data)) + tag + data + struct.pack(">I", zlib.crc32(tag + data)) for tag, data in chunks
    ]
    return base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"".join(whole)).decode()


def _frames() -> str:
    first, second = Image.new("L", (9, 9), 0), Image.new("L", (9, 9), 255)
    return picture(first, save_all=True, append_images=[second])


PICTURES = [
    Bad(what, status, slug, "inputs[0]", {**GOOD, "inputs": [value]})
    for what, status, slug, value in [
        ("no base64", 422, "input-invalid", "no picture!"),
        ("no picture", 422, "input-invalid", base64.b64encode(b"no picture").decode()),
        ("half a picture", 422, "input-invalid", INPUT[: len(INPUT) // 8 * 4]),
        ("no pixels", 422, "input-invalid", empty_png(9, 9)),
        ("no height", 422, "input-invalid", empty_png(9, 0)),
        ("50,000 x 50,000 pixels", 413, "too-large", empty_png(50_000, 50_000)),
        ("a small picture that pads to 16,000,000 x 16,000,000", 413, "too-large", empty_png(16_000_000, 1)),
        ("an animation", 422, "input-invalid", _frames()),
        ("CMYK", 422, "input-invalid", picture(Image.new("CMYK", (9, 9)), "JPEG")),
        ("16 bits a channel", 422, "input-invalid", picture(Image.new("I;16", (9, 9)))),
        ("transparent pixels", 422, "input-invalid", picture(Image.new("RGBA", (9, 9), (0, 0, 0, 0)))),
        ("a transparent colour", 422, "input-invalid", picture(Image.new("L", (9, 9), 7), transparency=7)),
        ("a GIF", 422, "input-invalid", picture(Image.new("L", (9, 9)), "GIF")),
        ("a number", 422, "input-invalid", 7),
        ("an object", 422, "input-invalid", {"b64": INPUT}),
    ]
]
