import base64
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from handful_export.golden import RawEpisode
from handful_export.sample import ClassSample
from handful_export.spec import ExportSpec
from handful_export.writer import Material
from handful_models.prototypes import Prototypes

INPUT, WIDTH, WAYS = 6, 4, 8


class TensorEncoder(nn.Module):
    """Features of numbers, so that tests need no pictures."""

    def __init__(self) -> None:
        super().__init__()
        self.width = WIDTH
        self.layers = nn.Sequential(nn.Linear(INPUT, 16), nn.ReLU(), nn.Linear(16, WIDTH))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.layers(x)
        return found


@pytest.fixture(scope="session")
def learner() -> Prototypes:
    torch.manual_seed(0)
    return Prototypes(TensorEncoder(), ways=WAYS).eval()


@pytest.fixture(scope="session")
def sample() -> ClassSample:
    """Six well separated classes of five inputs."""
    generator = np.random.default_rng(0)
    centres = generator.normal(0, 3, (6, 1, INPUT))
    return ClassSample({"x": (centres + generator.normal(0, 0.1, (6, 5, INPUT))).astype(np.float32)})


@pytest.fixture(scope="session")
def material(sample: ClassSample) -> Material:
    inputs = sample.inputs["x"]

    def raw(array: np.ndarray) -> dict[str, object]:
        return {"dtype": "float32", "shape": [INPUT], "b64": base64.b64encode(array.tobytes()).decode()}

    episode = RawEpisode(
        [(raw(inputs[number, 0]), f"label {number}") for number in range(3)],
        [raw(inputs[number, 1]) for number in range(3)],
        {"x": inputs[:3, 0]},
        {"x": inputs[:3, 1]},
    )
    return Material(sample, [episode], "# tiny\n")


@pytest.fixture(scope="session")
def spec() -> ExportSpec:
    return ExportSpec.model_validate(
        {
            "name": "tiny",
            "version": 1,
            "description": "For tests.",
            "inputs": {"x": {"kind": "tensor"}},
            "output": {"labels": "open"},
            "limits": {"shots": 10, "examples": 40},
            "card": {"data": "none", "licence": "none", "use": "tests"},
            "margin": 0.3,
        }
    )


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "bundles"
