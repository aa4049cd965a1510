import base64
from pathlib import Path

import numpy as np
import pytest
from tests.data import real_data

from handful_export.drawings import png
from handful_models import omniglot
from handful_service.bundle.bundle import Bundle
from handful_service.codecs.decode import decode_inputs

GLYPHS = Path("bundles/glyphs/1")


@pytest.mark.parametrize("dark_on_light", [True, False])
def test_the_codec_gives_the_arrays_that_training_saw(dark_on_light: bool) -> None:
    characters = omniglot.load(real_data(), "selection")
    manifest = Bundle.open(GLYPHS).manifest
    raw = [png(characters.bits[number, 3], dark_on_light=dark_on_light) for number in range(40)]
    arrays = decode_inputs(raw, [f"inputs[{place}]" for place in range(40)], manifest)
    expected = characters.small[:40, 3][:, None].astype(np.float32) / np.float32(255)
    np.testing.assert_array_equal(arrays["x"], expected)


def test_the_fixtures_are_drawings_that_the_shipped_bundle_never_saw() -> None:
    seen = set(omniglot.load(real_data(), "background").character_id.tolist())
    kept = {int(path.name[:4]) for path in Path("tests/fixtures/glyphs").glob("*.png")}
    assert len(kept) == 12
    assert not kept & seen


def test_a_drawing_survives_its_png() -> None:
    import io

    from PIL import Image

    bits = (np.random.default_rng(0).random((105, 105)) < 0.1).astype(np.uint8)
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(png(bits, dark_on_light=True)))).convert("L"))
    assert np.array_equal(picture < 128, bits == 1)
