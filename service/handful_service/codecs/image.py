"""Pictures in JSON: a base64 string of a PNG or JPEG file, with or without a `data:` prefix."""

import base64
import binascii
import io
import re
from bisect import bisect_left
from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from ..bundle.inputs import ImageOptions, InputSpec
from ..errors import InputInvalid, TooLarge
from ..task import Array
from . import png
from .kinds import kind_of

FORMATS = ("PNG", "JPEG")
_SIGNATURES = (png.SIGNATURE, b"\xff\xd8\xff")
LEAST_CONTRAST = 32
"""Levels of grey between paper and ink, below which a picture holds nothing but noise."""

_LEVELS = np.arange(256)

_NOT_TURNED = frozenset({"dpi", "gamma", "srgb", "aspect", "interlace", "transparency", "icc_profile", "chromaticity"})
"""What a picture may say of itself, without saying which way up it is."""

SHORT = 8192
"""Characters of a picture that may hold little else, such as texts that unpack to much."""

MODES = ("1", "L", "LA", "P", "RGB", "RGBA")
_LINE_BREAKS = str.maketrans("", "", "\r\n")  # which the command `base64` puts in
_DATA_URL = re.compile(r"^data:image/(?:png|jpe?g);base64,")

Image.MAX_IMAGE_PIXELS = None  # the bundle's own bound is checked before any pixel is read


def decode_images(values: Sequence[Any], spec: InputSpec, fields: Sequence[str]) -> Array:
    """The array of some pictures: float32 `[n, 1, side, side]` in 0..1, with high ink.

    Args:
        values: What stood in the request.
        spec: The input's declaration, of kind `image`.
        fields: The place of each in the request, for messages.

    Raises:
        InputInvalid: not a base64 PNG or JPEG, damaged, animated, of a colour mode or with an alpha channel
            that the bundle refuses.
        TooLarge: more pixels than the bundle allows.
    """
    if spec.image is None:
        raise TypeError("the input is not of kind image")
    side = spec.shape[-1]
    content = b"".join([_grey(value, spec.image, side, field) for value, field in zip(values, fields, strict=True)])
    return np.frombuffer(content, np.uint8).reshape(len(values), 1, side, side) / np.float32(255)


def _grey(value: Any, options: ImageOptions, side: int, field: str) -> bytes:
    """The pixels of one picture, a byte each, row by row."""
    content = _bytes(value, field)
    picture = _open(content, field)
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
    picture = _with_high_ink(_luminance(_load(picture, content, field), options, field), options, side, field)
    if options.aspect == "pad":
        picture = _padded(picture)
    return picture.resize((side, side), Image.Resampling.BOX).tobytes()


def pixels_of(value: Any) -> int | None:
    """The pixels of a picture that is a short PNG, as its header says; None of any other.

    Args:
        value: What stood in the request.
    """
    return png.pixels_of_base64(value) if isinstance(value, str) and len(value) <= SHORT else None


def _bytes(value: Any, field: str) -> bytes:
    allowed = "a string: the base64 of a PNG or JPEG file"
    if not isinstance(value, str):
        raise InputInvalid(f"is {kind_of(value)}", field=field, allowed=allowed)
    try:
        text = _DATA_URL.sub("", value, count=1).translate(_LINE_BREAKS)
        return base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error):
        raise InputInvalid("is not base64", field=field, allowed=allowed) from None


def _open(content: bytes, field: str) -> Image.Image:
    try:
        return Image.open(io.BytesIO(content), formats=FORMATS)
    except Exception:  # a decoder may raise anything on hostile bytes
        if content.startswith(_SIGNATURES):
            raise _damaged(field) from None
        raise InputInvalid("is no PNG or JPEG", field=field, allowed="a PNG or JPEG file") from None


def _load(picture: Image.Image, content: bytes, field: str) -> Image.Image:
    try:
        picture.load()
        # Pillow leaves what is missing 0, and says nothing. Rows come from above, unless they are interlaced.
        ends_black = picture.format == "PNG" and ("interlace" in picture.info or _is_zero(picture))
        if ends_black and png.is_cut(content):
            raise _damaged(field)
        return picture if picture.info.keys() <= _NOT_TURNED else ImageOps.exif_transpose(picture)
    except Exception:  # a decoder may raise anything on hostile bytes
        raise _damaged(field) from None


def _is_zero(picture: Image.Image) -> bool:
    """Whether the last pixel is 0 in all channels."""
    last = picture.getpixel((picture.width - 1, picture.height - 1))
    return not any(last) if isinstance(last, tuple) else not last


def _damaged(field: str) -> InputInvalid:
    return InputInvalid("is a damaged picture", field=field, allowed="a whole PNG or JPEG file")


def _luminance(picture: Image.Image, options: ImageOptions, field: str) -> Image.Image:
    if picture.mode not in ("LA", "RGBA") and "transparency" not in picture.info:
        return picture if picture.mode == "L" else picture.convert("L")
    picture = picture.convert("RGBA")
    if picture.getchannel("A").getextrema()[0] == 255:
        return picture.convert("L")
    if options.alpha == "refuse":
        raise InputInvalid("has transparent pixels", field=field, allowed="an opaque picture")
    paper = "white" if options.alpha == "over-white" else "black"
    return Image.alpha_composite(Image.new("RGBA", picture.size, paper), picture).convert("L")


def _with_high_ink(picture: Image.Image, options: ImageOptions, side: int, field: str) -> Image.Image:
    if options.contrast == "stretch":
        return _stretched(picture, options, side, field)
    histogram = picture.histogram()
    paper_is_light = sum(histogram[128:]) > sum(histogram[:128])
    dark = options.polarity == "dark-on-light" or (options.polarity == "auto" and paper_is_light)
    return ImageOps.invert(picture) if dark else picture


def _stretched(picture: Image.Image, options: ImageOptions, side: int, field: str) -> Image.Image:
    """The picture with paper at 0 and ink at 255.

    Paper is the median level. Ink is the level that one pixel in a thousand goes beyond, on the declared side of
    paper or, for `auto`, on the farther one.
    """
    content = picture.tobytes()
    levels = _levels(picture, content)
    pixels, few = levels[-1], max(1, levels[-1] // 1000)
    paper = bisect_left(levels, (pixels + 1) // 2)
    low, high = bisect_left(levels, few), bisect_left(levels, pixels - few + 1)
    dark = options.polarity == "dark-on-light" or (options.polarity == "auto" and paper - low > high - paper)
    contrast = paper - low if dark else high - paper
    if contrast < LEAST_CONTRAST:
        raise InputInvalid(
            f"has no ink: it stands out from the paper by {max(0, contrast)} levels of grey",
            field=field,
            allowed=f"at least {LEAST_CONTRAST} of 255",
        )
    if max(picture.size) <= side:
        contrast = paper if dark else 255 - paper  # strokes thinner than a pixel do not show the level of their ink
    # `point` takes twice as long.
    return Image.frombytes("L", picture.size, content.translate(_rise(paper, -contrast if dark else contrast)))


def _levels(picture: Image.Image, content: bytes) -> list[int]:
    """How many pixels have each level of grey, or one below it."""
    black, pixels = content.count(0), len(content)
    if black + content.count(255) == pixels:  # as most drawings are: it takes a tenth of the time to know
        return [black] * 255 + [pixels]
    return list(accumulate(picture.histogram()))


@lru_cache(maxsize=1024)
def _rise(paper: int, contrast: int) -> bytes:
    """The new level of each: 0 at the level of paper, 255 beyond it by the contrast, which is below 0 for dark ink."""
    rise: Array = np.clip(np.rint((_LEVELS - paper) * (255 / contrast)), 0, 255)
    return rise.astype(np.uint8).tobytes()


def _padded(picture: Image.Image) -> Image.Image:
    """The picture in the middle of a square of paper (0, since ink is high)."""
    width, height = picture.size
    if width == height:
        return picture
    side = max(width, height)
    square = Image.new("L", (side, side), 0)
    square.paste(picture, ((side - width) // 2, (side - height) // 2))
    return square
