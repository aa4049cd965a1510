from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from handful_export.cli import trunk
from handful_service.bundle.bundle import Bundle

GLYPHS = Path("bundles/glyphs/1")


def test_the_trunk_of_a_bundle_gives_the_features_of_its_encoder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "runs" / "trunk.pt"
    assert trunk([str(GLYPHS), "--out", str(out)]) == 0
    assert "blocks.3.0.weight: [64, 64, 3, 3]" in capsys.readouterr().out
    weights = torch.load(out, weights_only=True)
    golden = Bundle.open(GLYPHS).golden()["encode"]
    x = torch.from_numpy(golden.inputs["x"])
    for block in range(4):
        x = F.conv2d(x, weights[f"blocks.{block}.0.weight"], weights[f"blocks.{block}.0.bias"], padding=1)
        x = F.max_pool2d(x, 2).relu()
    torch.testing.assert_close(x.flatten(1), torch.from_numpy(golden.outputs["features"]), rtol=1e-4, atol=1e-5)


def test_a_folder_without_a_bundle_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert trunk([str(tmp_path), "--out", str(tmp_path / "trunk.pt")]) == 1
    assert "refused" in capsys.readouterr().err
