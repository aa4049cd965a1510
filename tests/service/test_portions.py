"""Which inputs are decoded on the event loop, and how many a thread decodes in one go."""

import base64
import io
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from tests.serving import BUNDLES

from handful_service.bundle.manifest import Manifest, parse_manifest
from handful_service.codecs.decode import PORTION, QUICK, is_quick, portions

GLYPHS, MAILS, NUMBERS = (
    parse_manifest((BUNDLES / name / "1/manifest.json").read_bytes())
    for name in ("glyphs", "papers", "sinusoids-bayes")
)


def picture(side: int) -> str:
    file = io.BytesIO()
    Image.new("L", (side, side), 255).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


SMALL, LARGE = picture(64), "data:image/png;base64," + picture(8)


@pytest.mark.parametrize(
    ("values", "manifest", "quick"),
    [
        ([SMALL], GLYPHS, True),
        ([SMALL] * (QUICK // 64**2), GLYPHS, True),
        ([SMALL] * (QUICK // 64**2 + 1), GLYPHS, False),
        ([LARGE], GLYPHS, False),  # its size is not told at its start
        ([picture(257)], GLYPHS, False),
        ([None], GLYPHS, False),
        ([], GLYPHS, True),
        ([[0.5]] * 5000, NUMBERS, True),
    ],
)
def test_few_and_small_inputs_are_quick(values: list[Any], manifest: Manifest, quick: bool) -> None:
    assert is_quick(values, manifest) is quick


def test_texts_count_by_their_length() -> None:
    name = next(name for name, spec in MAILS.inputs.items() if spec.kind == "text")

    def value(length: int) -> Any:
        return (
            {one: "a" * length if one == name else "" for one in MAILS.inputs}
            if len(MAILS.inputs) > 1
            else "a" * length
        )

    assert is_quick([value(4000)], MAILS)
    assert not is_quick([value(4000), value(200)], MAILS)


@given(st.lists(st.sampled_from([SMALL, LARGE, picture(200), None]), max_size=60))
def test_portions_are_all_inputs_in_order_and_none_is_larger_than_it_may_be(values: list[Any]) -> None:
    found = portions(values, GLYPHS)
    assert [value for span, _ in found for value in values[span]] == values
    for span, pixels in found:
        assert pixels == sum({SMALL: 64**2, picture(200): 200**2}.get(value, QUICK + 1) for value in values[span])
        assert pixels <= PORTION
    assert len(found) == 1 or all(span.start < span.stop for span, _ in found)
