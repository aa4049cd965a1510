"""Pictures in JSON: a base64 string of a PNG or JPEG file, with or without a `data:` prefix."""

import base64
import binascii
import io
import re
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from ..bundle.manifest import ImageOptions, InputSpec
from ..errors import InputInvalid, TooLarge
from ..task import Array

FORMATS = ("PNG", "JPEG")
MODES = ("1", "L", "LA", "P", "RGB", "RGBA")
_DATA_URL = re.compile(r"^data:image/(?:png|jpe?g);base64,")

Image.MAX_IMAGE_PIXELS = None  # the bundle's own bound is checked before any pixel is read


def decode_image(value: Any, spec: InputSpec, *, field: str) -> Array:
    """The array of one picture: float32 `[1, side, side]` in 0..1, with high ink.

    Args:
        value: What stood in the request.
        spec: The input's declaration, of kind `image`.
        field: The place in the request, for messages.

    Raises:
        InputInvalid: not a base64 PNG or JPEG, damaged, animated, of a colour mode or with an alpha channel
            that the bundle refuses.
        TooLarge: more pixels than the bundle allows.
    """
    options = spec.image
    if options is None:
        raise TypeError("the input is not of kind image")
    picture = _open(_bytes(value, field), field)
    width, height = picture.size
    # A long thin picture is small itself, but not the square that it is padded to.
    pixels = max(width, height) ** 2 if options.aspect == "pad" else width * height
    if pixels > options.max_pixels:
        square = " (padded to a square)" if options.aspect == "pad" else ""
        raise TooLarge(
            f"has {width} x {height} pixels", field=field, allowed=f"at most {options.max_pixels} pixels{square}"
        )
    # A phone's JPEG may hold a second picture (MPO), such as a depth map: the first one is meant.
    if (frames := getattr(picture, "n_frames", 1)) > 1 and picture.format != "MPO":
        raise InputInvalid(f"is animated: {frames} frames", field=field, allowed="a single frame")
    if picture.mode not in MODES:
        raise InputInvalid(
            f"has the colour mode {picture.mode}",
            field=field,
            allowed="grey, palette or RGB with 8 bits a channel",
        )
    return prepare(_luminance(_load(picture, field), options, field), spec)


def prepare(picture: Image.Image, spec: InputSpec) -> Array:
    """The array of a grey picture, by the declared polarity, aspect and resizing."""
    options, side = spec.image, spec.shape[-1]
    if options is None:
        raise TypeError("the input is not of kind image")
    if options.polarity == "dark-on-light" or (options.polarity == "auto" and _paper_is_light(picture)):
        picture = ImageOps.invert(picture)
    if options.aspect == "pad":
        picture = _padded(picture)
    picture = picture.resize((side, side), Image.Resampling.BOX)
    return np.asarray(picture, np.float32)[None] / np.float32(255)


def _bytes(value: Any, field: str) -> bytes:
    allowed = "a string: the base64 of a PNG or JPEG file"
    if not isinstance(value, str):
        raise InputInvalid(f"is {type(value).__name__}", field=field, allowed=allowed)
    try:
        return base64.b64decode(_DATA_URL.sub("", value, count=1), validate=True)
    except (ValueError, binascii.Error):
        raise InputInvalid("is not base64", field=field, allowed=allowed) from None


def _open(content: bytes, field: str) -> Image.Image:
    try:
        return Image.open(io.BytesIO(content), formats=FORMATS)
    except Exception:  # a decoder may raise anything on hostile bytes
        raise InputInvalid("is no PNG or JPEG", field=field, allowed="a PNG or JPEG file") from None


def _load(picture: Image.Image, field: str) -> Image.Image:
    try:
        picture.load()
        return ImageOps.exif_transpose(picture)
    except Exception:  # a decoder may raise anything on hostile bytes
        raise InputInvalid("is a damaged picture", field=field, allowed="a whole PNG or JPEG file") from None


def _luminance(picture: Image.Image, options: ImageOptions, field: str) -> Image.Image:
    if picture.mode not in ("LA", "RGBA") and "transparency" not in picture.info:
        return picture.convert("L")
    picture = picture.convert("RGBA")
    if picture.getchannel("A").getextrema()[0] == 255:
        return picture.convert("L")
    if options.alpha == "refuse":
        raise InputInvalid("has transparent pixels", field=field, allowed="an opaque picture")
    paper = "white" if options.alpha == "over-white" else "black"
    return Image.alpha_composite(Image.new("RGBA", picture.size, paper), picture).convert("L")


def _paper_is_light(picture: Image.Image) -> bool:
    histogram = picture.histogram()
    return sum(histogram[128:]) > sum(histogram[:128])


def _padded(picture: Image.Image) -> Image.Image:
    """The picture in the middle of a square of paper (0, since ink is high)."""
    width, height = picture.size
    if width == height:
        return picture
    side = max(width, height)
    square = Image.new("L", (side, side), 0)
    square.paste(picture, ((side - width) // 2, (side - height) // 2))
    return square
