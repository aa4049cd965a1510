"""Data for tests: a synthetic stand-in in Omniglot's format, and the rule for tests that need the real one."""

import os
from pathlib import Path

import numpy as np
import pytest

DATA = Path(os.environ.get("HANDFUL_DATA", "../shared/data"))


def real_data() -> Path:
    """The folder with the real data; the test is skipped without it, unless HANDFUL_REQUIRE_DATA is set."""
    if not (DATA / "omniglot").is_dir():
        reason = f"no real data in {DATA}: set HANDFUL_DATA to the folder that holds omniglot/"
        if os.environ.get("HANDFUL_REQUIRE_DATA"):
            pytest.fail(reason)
        pytest.skip(reason)
    return DATA


def write_synthetic_omniglot(folder: Path, *, seed: int = 0) -> Path:
    """Strokes that differ by character, in the files and keys of the real set.

    There are 24 characters of selection-train, 24 of selection and 24 of evaluation, in 6 alphabets of 12.
    """
    generator = np.random.default_rng(seed)
    characters, drawers = 72, 20
    bits = np.stack([_drawings(generator, drawers) for _ in range(characters)]).reshape(-1, 105, 105)
    small = (bits[:, :105, :105].reshape(-1, 105, 105)).astype(np.float64)
    small = np.stack([_averaged(image) for image in small])
    role = np.repeat([0, 1, 2], characters // 3)
    place = folder / "omniglot"
    place.mkdir(parents=True)
    labels = {
        "label": np.repeat(np.arange(characters), drawers).astype(np.int16),
        "drawer": np.tile(np.arange(1, drawers + 1), characters).astype(np.uint8),
        "class_char_id": np.arange(1, characters + 1, dtype=np.int16),
        "class_alphabet": np.repeat(np.arange(6), 12).astype(np.uint8),
        "class_official": (role == 2).astype(np.uint8),
        "class_vinyals": np.where(role == 1, 1, 0).astype(np.uint8),
    }
    np.savez(place / "omniglot_public_28.npz", images=small, **labels)
    packed = np.packbits(bits.reshape(len(bits), -1), axis=1)
    np.savez(place / "omniglot_public_105_bits.npz", bits=packed, **labels)
    return folder


def _drawings(generator: np.random.Generator, drawers: int) -> np.ndarray:
    """Three strokes of one character, shaken by each drawer."""
    ends = generator.uniform(20, 85, (3, 2, 2))
    images = np.zeros((drawers, 105, 105), np.uint8)
    for image in images:
        for start, end in ends + generator.normal(0, 2, ends.shape):
            points = np.linspace(start, end, 160).round().astype(int).clip(1, 103)
            for shift in (-1, 0, 1):
                image[points[:, 0] + shift, points[:, 1]] = 1
    return images


def _averaged(image: np.ndarray) -> np.ndarray:
    from PIL import Image

    ink = Image.fromarray((image * 255).astype(np.uint8))
    return np.asarray(ink.resize((28, 28), Image.Resampling.BOX))
