from pathlib import Path

import numpy as np
import pytest
from tests.data import real_data

from handful_models import omniglot
from handful_models.errors import DataDamaged, DataMissing, DataUnknown

PUBLISHED = dict(omniglot.DIGESTS)
"""Before the fixture of all tests takes them away."""


def test_the_drawings_are_held_to_their_digests(monkeypatch: pytest.MonkeyPatch) -> None:
    assert PUBLISHED.keys() == set(omniglot.FILES)
    monkeypatch.setattr(omniglot, "DIGESTS", PUBLISHED)
    assert len(omniglot.load(real_data(), "evaluation")) == 236
    for name in omniglot.FILES:
        monkeypatch.setattr(omniglot, "DIGESTS", {**PUBLISHED, name: "0" * 64})
        with pytest.raises(DataDamaged, match=f"{name}: its SHA-256 is {PUBLISHED[name]}"):
            omniglot.load(real_data(), "evaluation")


def test_the_splits_have_the_published_sizes_and_do_not_leak() -> None:
    data = real_data()
    splits = {name: omniglot.load(data, name) for name in omniglot.SPLITS}
    assert {name: len(characters) for name, characters in splits.items()} == {
        "selection-train": 792,
        "selection": 172,
        "background": 964,
        "evaluation": 236,
    }
    ids = {name: set(characters.character_id.tolist()) for name, characters in splits.items()}
    assert ids["selection-train"] | ids["selection"] == ids["background"]
    assert not ids["selection-train"] & ids["selection"]
    assert not ids["background"] & ids["evaluation"]


def test_the_small_drawings_are_the_area_averages_of_the_raw_ones() -> None:
    from PIL import Image

    characters = omniglot.load(real_data(), "selection")
    for character, drawing in ((0, 0), (80, 7), (171, 19)):
        ink = Image.fromarray(characters.bits[character, drawing] * np.uint8(255))
        expected = np.asarray(ink.resize((28, 28), Image.Resampling.BOX))
        assert np.array_equal(characters.small[character, drawing], expected)


def test_quarter_turns_make_new_classes() -> None:
    images = np.arange(2 * 3 * 4 * 4, dtype=np.uint8).reshape(2, 3, 4, 4)
    turned = omniglot.rotated(images)
    assert turned.shape == (8, 3, 4, 4)
    for character in range(2):
        for turn in range(4):
            assert np.array_equal(turned[4 * character + turn, 1], np.rot90(images[character, 1], turn))


def test_missing_data_says_which_variable_to_set(tmp_path: Path) -> None:
    with pytest.raises(DataMissing, match="HANDFUL_DATA"):
        omniglot.load(tmp_path, "evaluation")


def test_an_unknown_split_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(DataUnknown, match="selection-train"):
        omniglot.load(tmp_path, "vinyals")
