"""Omniglot as clients would send it: PNG files of the original drawings, beside the training pipeline's arrays."""

import base64
import io
from typing import Any

import numpy as np
from PIL import Image

from handful_models.omniglot import Characters

from .golden import RawEpisode
from .sample import ClassSample


def png(bits: np.ndarray, *, dark_on_light: bool) -> str:
    """The base64 of a PNG file of a drawing `[105, 105]`, 1 for ink."""
    pixels = np.where(bits.astype(bool) == dark_on_light, 0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).convert("1").save(file, "PNG", optimize=True)
    return base64.b64encode(file.getvalue()).decode()


def sample(characters: Characters) -> ClassSample:
    """All drawings as training sees them."""
    return ClassSample({"x": _arrays(characters.small)})


def episodes(characters: Characters, *, seed: int, ways: int = 5) -> list[RawEpisode]:
    """A one-shot task in dark ink on light paper, and one in light ink on dark paper."""
    generator = np.random.default_rng(seed)
    return [_episode(characters, generator, ways, dark_on_light=dark) for dark in (True, False)]


def _episode(characters: Characters, generator: np.random.Generator, ways: int, *, dark_on_light: bool) -> RawEpisode:
    classes = generator.choice(len(characters), ways, replace=False)
    first, second = generator.choice(characters.bits.shape[1], 2, replace=False)

    def raw(image: int) -> list[Any]:
        return [png(characters.bits[number, image], dark_on_light=dark_on_light) for number in classes]

    labels = [f"character {characters.character_id[number]}" for number in classes]
    return RawEpisode(
        list(zip(raw(first), labels, strict=True)),
        raw(second),
        {"x": _arrays(characters.small[classes, first])},
        {"x": _arrays(characters.small[classes, second])},
    )


def _arrays(small: np.ndarray) -> np.ndarray:
    return np.asarray(small[..., None, :, :].astype(np.float32) / np.float32(255))
