"""What ships is small."""

from pathlib import Path

import pytest
from tests.serving import BUNDLES

HEADS = sorted(path for path in BUNDLES.glob("glyphs-*") if path.is_dir())


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("folder", HEADS, ids=lambda path: path.name)
def test_the_bundle_of_a_head_has_at_most_600_kilobytes(folder: Path) -> None:
    assert 0 < size(folder) <= 600_000


def test_all_bundles_together_have_less_than_25_megabytes() -> None:
    assert 0 < size(BUNDLES) < 25_000_000
