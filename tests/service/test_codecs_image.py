"""Pictures in JSON."""

import base64
import io
import resource
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from handful_service.bundle.manifest import ImageOptions, InputSpec
from handful_service.codecs.image import SHORT, decode_images, pixels_of
from handful_service.errors import HandfulError, InputInvalid, TooLarge

SIDE = 8
GREY = hnp.arrays(np.uint8, (SIDE, SIDE))
DRAWING = (np.arange(SIDE * SIDE, dtype=np.uint8) % 100).reshape(SIDE, SIDE)  # dark everywhere: ink is light


def spec(**options: Any) -> InputSpec:
    known: dict[str, Any] = {"polarity": "light-on-dark", "contrast": "keep", "alpha": "refuse", "aspect": "pad"}
    known |= {"resize": "area", "max_pixels": 10_000}
    image = ImageOptions.model_validate(known | options)
    return InputSpec(dtype="float32", axes=(1, SIDE, SIDE), kind="image", image=image)


def decode(value: Any, **options: Any) -> np.ndarray:
    (found,) = decode_images([value], spec(**options), ["inputs[0]"])
    return found


def file(picture: Image.Image | np.ndarray, kind: str = "PNG", **options: Any) -> str:
    saved = io.BytesIO()
    (picture if isinstance(picture, Image.Image) else Image.fromarray(picture)).save(saved, kind, **options)
    return base64.b64encode(saved.getvalue()).decode()


def png(width: int, height: int, data: bytes) -> str:
    """A 1-bit PNG of the given size whose pixels are whatever the data holds."""
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)), (b"IDAT", data), (b"IEND", b"")]
    parts = [struct.pack(">I", len(c)) + n + c + struct.pack(">I", zlib.crc32(n + c)) for n, c in chunks]
    return base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"".join(parts)).decode()


@given(GREY)
def test_a_grey_picture_of_the_right_size_is_its_pixels(pixels: np.ndarray) -> None:
    found = decode(file(pixels))
    assert (found.dtype, found.shape) == (np.float32, (1, SIDE, SIDE))
    np.testing.assert_array_equal(found[0], pixels / np.float32(255))
    np.testing.assert_allclose(decode(file(pixels), polarity="dark-on-light"), 1 - found, atol=1e-6)


@given(GREY)
def test_dark_on_light_equals_light_on_dark_where_polarity_is_found_out(pixels: np.ndarray) -> None:
    assume((pixels < 128).sum() * 2 != pixels.size)  # else neither side is the rarer one
    found = decode(file(pixels), polarity="auto")
    np.testing.assert_array_equal(found, decode(file(255 - pixels), polarity="auto"))
    assert (found >= 0.5).sum() * 2 < pixels.size


@given(hnp.arrays(np.uint8, st.tuples(st.integers(1, 20), st.integers(1, 20))))
def test_padding_puts_the_picture_in_the_middle_and_ink_is_kept(pixels: np.ndarray) -> None:
    height, width = pixels.shape
    side = max(pixels.shape)
    square = np.zeros((side, side), np.uint8)
    top, left = (side - height) // 2, (side - width) // 2
    square[top : top + height, left : left + width] = pixels
    np.testing.assert_array_equal(decode(file(pixels)), decode(file(square)))


def test_stretching_fills_the_square() -> None:
    tall = np.full((20, 10), 200, np.uint8)
    assert decode(file(tall), aspect="stretch").min() > 0.7
    assert decode(file(tall), aspect="pad").min() == 0


def test_a_data_url_is_the_file_in_it() -> None:
    np.testing.assert_array_equal(decode("data:image/png;base64," + file(DRAWING)), decode(file(DRAWING)))


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "P", "1"])
def test_a_picture_is_the_same_in_every_mode_that_can_hold_it(mode: str) -> None:
    picture = Image.fromarray(np.where(DRAWING > 50, 255, 0).astype(np.uint8))
    np.testing.assert_array_equal(decode(file(picture.convert(mode))), decode(file(picture)))


def test_a_rotation_in_the_metadata_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned by a quarter
    found = decode(file(DRAWING, exif=exif))
    np.testing.assert_array_equal(found[0], np.rot90(DRAWING, -1) / np.float32(255))


def test_a_jpeg_is_taken() -> None:
    smooth = np.full((SIDE, SIDE), 77, np.uint8)
    np.testing.assert_allclose(decode(file(smooth, "JPEG")), 77 / 255, atol=0.01)


def transparent() -> Image.Image:
    picture = Image.fromarray(DRAWING).convert("RGBA")
    picture.putpixel((3, 3), (255, 255, 255, 0))
    return picture


def test_transparent_pixels_become_the_declared_paper() -> None:
    white, black = (decode(file(transparent()), alpha=f"over-{paper}") for paper in ("white", "black"))
    assert (white[0, 3, 3], black[0, 3, 3]) == (1, 0)


def test_a_transparent_colour_of_a_palette_counts_as_transparency() -> None:
    picture = Image.fromarray(DRAWING).convert("P")
    with pytest.raises(InputInvalid, match="transparent"):
        decode(file(picture, transparency=int(np.asarray(picture)[0, 0])))


def animated() -> str:
    frames = [Image.fromarray(DRAWING), Image.fromarray(DRAWING.T.copy())]
    return file(frames[0], save_all=True, append_images=frames[1:])


STROKE = np.zeros((4 * SIDE, 4 * SIDE), np.uint8)
STROKE[6:26, 10:16] = 1


@pytest.mark.parametrize(("paper", "ink"), [(255, 0), (0, 255), (240, 20), (170, 40), (100, 60), (60, 100), (30, 200)])
def test_whatever_the_grey_of_paper_and_ink_a_stretched_drawing_is_the_same(paper: int, ink: int) -> None:
    grey = np.where(STROKE == 1, ink, paper).astype(np.uint8)
    found = decode(file(grey), polarity="auto", contrast="stretch")
    np.testing.assert_array_equal(found, decode(file(STROKE * 255), contrast="keep"))


def test_a_stretched_picture_of_black_and_white_is_as_it_was() -> None:
    rng = np.random.default_rng(0)
    drawing = np.where(rng.random((40, 40)) < 0.2, 0, 255).astype(np.uint8)
    kept = decode(file(drawing), polarity="dark-on-light", contrast="keep")
    np.testing.assert_array_equal(decode(file(drawing), polarity="auto", contrast="stretch"), kept)


def test_the_thin_strokes_of_a_small_picture_keep_their_grey() -> None:
    small = np.zeros((SIDE, SIDE), np.uint8)
    small[2:6, 3] = 120
    kept = decode(file(small), contrast="keep")
    np.testing.assert_array_equal(decode(file(small), polarity="auto", contrast="stretch"), kept)


@pytest.mark.parametrize("grey", [0, 128, 255])
def test_a_picture_without_ink_is_refused(grey: int) -> None:
    noise = np.random.default_rng(0).integers(0, 10, (50, 50))
    blank = np.clip(grey + noise - 5, 0, 255).astype(np.uint8)
    with pytest.raises(InputInvalid, match="has no ink"):
        decode(file(blank), polarity="auto", contrast="stretch")


def test_the_line_breaks_of_base64_do_not_matter() -> None:
    text = file(DRAWING)
    broken = "\r\n".join(text[at : at + 20] for at in range(0, len(text), 20)) + "\n"
    assert np.array_equal(decode(broken), decode(text))


def test_of_a_phones_jpeg_with_a_second_picture_the_first_counts() -> None:
    frames = [Image.fromarray(DRAWING), Image.fromarray(DRAWING.T.copy())]
    two = file(frames[0], "MPO", save_all=True, append_images=frames[1:])
    assert np.array_equal(decode(two), decode(file(frames[0], "JPEG")))


REFUSED = {
    "a number": lambda: 7,
    "nothing": lambda: None,
    "an empty string": lambda: "",
    "no base64": lambda: "not base64!",
    "text beyond ASCII": lambda: "päpier",
    "no picture": lambda: base64.b64encode(b"hello").decode(),
    "another kind of picture": lambda: file(DRAWING, "GIF"),
    "a picture under another data URL": lambda: "data:text/html;base64," + file(DRAWING),
    "an animated picture": animated,
    "a CMYK picture": lambda: file(Image.fromarray(DRAWING).convert("CMYK"), "JPEG"),
    "a picture of 16 bits": lambda: file(DRAWING.astype(np.uint16) * 256),
    "a transparent picture": lambda: file(transparent()),
    "a picture without pixels": lambda: png(10, 10, b""),
}


@pytest.mark.parametrize("make", REFUSED.values(), ids=REFUSED.keys())
def test_what_is_no_picture_of_the_model_is_refused_with_its_place(make: Any) -> None:
    with pytest.raises(InputInvalid) as refused:
        decode(make())
    assert refused.value.field == "inputs[0]"
    assert refused.value.allowed


@given(st.integers(0, 2**16))
def test_every_truncated_picture_is_refused(cut: int) -> None:
    whole = base64.b64decode(file(np.random.default_rng(0).integers(0, 255, (40, 40), np.uint8)))
    with pytest.raises(InputInvalid):
        decode(base64.b64encode(whole[: cut % (len(whole) - 20)]).decode())


def cut_png(picture: Image.Image, rows: int, *, passes: bool = False, parts: int = 1) -> str:
    """A PNG whose pixel data is a whole stream, in one or more chunks, but lacks its last rows (of the last pass)."""
    depth, colour, channels = {"1": (1, 0, 1), "L": (8, 0, 1), "LA": (8, 4, 2), "RGB": (8, 2, 3), "RGBA": (8, 6, 4)}[
        picture.mode
    ]
    steps = ADAM7 if passes else [(0, 0, 1, 1)]
    lines = []
    for x, y, dx, dy in steps:
        for row in range(y, picture.height, dy):
            columns = len(range(x, picture.width, dx))
            if columns:
                bits = np.asarray(picture)[row, x::dx]
                packed = np.packbits(bits).tobytes() if depth == 1 else bits.astype(np.uint8).tobytes()
                assert len(packed) == -(-columns * depth * channels // 8)
                lines.append(b"\0" + packed)
    data = zlib.compress(b"".join(lines[: len(lines) - rows]))
    header = struct.pack(">IIBBBBB", picture.width, picture.height, depth, colour, 0, 0, int(passes))
    size = -(-len(data) // parts)
    chunks = [(b"IHDR", header), *((b"IDAT", data[at : at + size]) for at in range(0, len(data), size)), (b"IEND", b"")]
    found = [struct.pack(">I", len(c)) + n + c + struct.pack(">I", zlib.crc32(n + c)) for n, c in chunks]
    return base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"".join(found)).decode()


ADAM7 = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]


@given(
    st.sampled_from(["1", "L", "LA", "RGB", "RGBA"]),
    st.tuples(st.integers(1, 20), st.integers(1, 20)),
    st.booleans(),
    st.integers(1, 3),
    st.integers(1, 400),
    st.sampled_from([0, 200]),
)
def test_a_picture_whose_rows_end_early_is_damaged_and_a_whole_one_is_not(
    mode: str, size: tuple[int, int], passes: bool, parts: int, missing: int, grey: int
) -> None:
    # Black ones are, all the same, what a decoder makes of rows that are missing.
    picture = Image.new("L", size, grey).convert(mode)
    decode(cut_png(picture, 0, passes=passes, parts=parts), alpha="over-black")
    rows = size[1] if not passes else sum(len(range(y, size[1], dy)) for x, y, dx, dy in ADAM7 if range(x, size[0], dx))
    with pytest.raises(InputInvalid, match="damaged picture"):
        decode(cut_png(picture, 1 + missing % rows, passes=passes, parts=parts), alpha="over-black")


@pytest.mark.parametrize("start", [b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0"], ids=["PNG", "JPEG"])
def test_a_picture_with_a_damaged_header_is_called_so(start: bytes) -> None:
    with pytest.raises(InputInvalid, match="damaged picture"):
        decode(base64.b64encode(start + b"rubbish" * 9).decode())


@pytest.mark.parametrize("whole", [False, True])
def test_a_picture_of_too_many_pixels_is_refused_before_any_is_decoded(whole: bool) -> None:
    side = 20_000 if whole else 50_000
    text = png(side, side, zlib.compress(bytes(side * (side // 8 + 1)), 1) if whole else b"")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(TooLarge, match=f"{side} x {side}") as refused:
        decode(text)
    assert "10000" in str(refused.value.allowed)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000  # KiB; the pixels would be 400,000


def test_a_long_thin_picture_is_refused_where_its_square_would_be_too_large() -> None:
    line = file(np.zeros((1, 9_000), np.uint8))
    with pytest.raises(TooLarge):
        decode(line, aspect="pad")
    assert decode(line, aspect="stretch").shape == (1, SIDE, SIDE)


@given(st.binary(max_size=200), st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0"]))
def test_any_bytes_raise_nothing_but_our_own_errors(content: bytes, start: bytes) -> None:
    with pytest.raises(HandfulError):
        decode(base64.b64encode(start + content).decode())


@given(st.data(), st.sampled_from(["PNG", "JPEG"]), st.sampled_from(["L", "RGB", "P", "RGBA", "1"]))
def test_a_damaged_picture_raises_nothing_but_our_own_errors(data: st.DataObject, kind: str, mode: str) -> None:
    mode = mode if kind == "PNG" else {"L": "L"}.get(mode, "RGB")
    content = bytearray(base64.b64decode(file(Image.fromarray(DRAWING).convert(mode), kind)))
    for _ in range(data.draw(st.integers(1, 5))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = decode(base64.b64encode(content).decode())
    except HandfulError:
        return
    assert found.shape == (1, SIDE, SIDE)
    assert ((found >= 0) & (found <= 1)).all()


@given(st.text(max_size=40))
def test_any_text_raises_nothing_but_our_own_errors(text: str) -> None:
    with pytest.raises(HandfulError):
        decode(text)


def encoded(side: int, form: str = "PNG") -> str:
    file = io.BytesIO()
    Image.new("L", (side, side), 255).save(file, form)
    return base64.b64encode(file.getvalue()).decode()


@pytest.mark.parametrize("side", [1, 28, 105, 300, 4000])
def test_the_pixels_of_a_short_png_are_told_by_its_start(side: int) -> None:
    value = encoded(side)
    assert pixels_of(value) == (side * side if len(value) <= SHORT else None)


@pytest.mark.parametrize(
    "value",
    [
        None, 5, "", "iVBORw0KGgo", encoded(28)[:31], encoded(28, "JPEG"), "data:image/png;base64," + encoded(28),
        encoded(28)[:20] + "\n" + encoded(28)[20:], encoded(28)[:24] + "*" + encoded(28)[25:],
        encoded(28) + "A" * SHORT,
    ],
)  # fmt: skip
def test_the_pixels_of_anything_else_are_not_told(value: Any) -> None:
    assert pixels_of(value) is None


def test_many_pictures_are_what_each_of_them_is() -> None:
    pictures = [file(np.roll(DRAWING, shift, axis=1)) for shift in range(5)]
    found = decode_images(pictures, spec(), [f"inputs[{place}]" for place in range(5)])
    assert (found.dtype, found.shape) == (np.float32, (5, 1, SIDE, SIDE))
    np.testing.assert_array_equal(found, np.stack([decode(one) for one in pictures]))
    assert decode_images([], spec(), []).shape == (0, 1, SIDE, SIDE)


@pytest.mark.parametrize("mode", ["1", "L"])
@pytest.mark.parametrize("dark", [False, True])
def test_a_drawing_in_black_and_white_is_one_like_any_other(mode: str, dark: bool) -> None:
    drawing = Image.fromarray(np.kron(np.random.default_rng(3).random((30, 30)) < 0.2, np.ones((2, 2))) > 0)
    drawing = drawing if not dark else Image.fromarray(~np.asarray(drawing))
    found = decode(file(drawing.convert(mode)), polarity="auto", contrast="stretch")
    # With one pixel of another grey all levels are counted.
    other = np.array(drawing.convert("L"))
    other[0, 0] = 254 if other[0, 0] else 1
    np.testing.assert_array_equal(found, decode(file(other), polarity="auto", contrast="stretch"))
