import io
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from tests.export.conftest import WAYS, WIDTH, TensorEncoder
from torch import Tensor, nn

from handful_export.graphs import export_graphs
from handful_export.runner import OnnxRunner, TorchRunner
from handful_export.spec import ExportSpec
from handful_export.writer import Material, export_bundle
from handful_models.learner import IterativeLearner, Tensors
from handful_models.ways import as_member, one_hot, present_ways
from handful_service.bundle.bundle import Bundle
from handful_service.checking import check_in_child


class Descent(IterativeLearner):
    """Softmax regression by steps of gradient descent, the gradient by autograd."""

    steps = 4

    def __init__(self, encoder: nn.Module, *, ways: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.ways = ways
        self.row = nn.Parameter(torch.zeros(WIDTH))

    @classmethod
    def make(cls, encoder: nn.Module, *, ways: int, **settings: Any) -> "Descent":
        return cls(encoder, ways=ways)

    def encode(self, inputs: Tensors) -> Tensors:
        return {"features": self.encoder(inputs["x"])}

    def begin(self, features: Tensors, y: Tensor, weight: Tensor) -> Tensors:
        present = present_ways(one_hot(y, weight, self.ways).sum(1))
        return {"weights": self.row + torch.zeros_like(present).unsqueeze(-1), "present": present}

    def step(self, features: Tensors, y: Tensor, weight: Tensor, state: Tensors) -> Tensors:
        with torch.enable_grad():
            weights = state["weights"].detach().requires_grad_()
            logits = self.predict({"features": features["features"]}, {
                "weights": weights.unsqueeze(1), "present": state["present"].unsqueeze(1)
            }).squeeze(-2)  # fmt: skip
            loss = -(logits.log_softmax(-1) * one_hot(y, weight, self.ways)).sum((1, 2))
            mean = loss / weight.sum(1).clamp_min(1)
            (gradient,) = torch.autograd.grad(mean.sum(), [weights])
        return {"weights": state["weights"] - 0.5 * gradient, "present": state["present"]}

    def predict(self, features: Tensors, state: Tensors) -> Tensor:
        values = (features["features"].unsqueeze(-2) * state["weights"]).sum(-1)
        return as_member(values, state["present"])


@pytest.fixture(scope="module")
def descent() -> Descent:
    torch.manual_seed(0)
    return Descent(TensorEncoder(), ways=WAYS).eval()


@pytest.fixture(scope="module")
def graphs(descent: Descent) -> dict[str, bytes]:
    return dict(export_graphs(descent, {"x": torch.randn(2, 6)}))


def test_the_steps_are_turns_of_one_loop_of_constant_length(graphs: dict[str, bytes]) -> None:
    model = onnx.load(io.BytesIO(graphs["adapt"]))
    (loop,) = [node for node in model.graph.node if node.op_type == "Loop"]
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    assert constants[loop.input[0]] == Descent.steps


@pytest.mark.parametrize(("batch", "examples"), [(1, 1), (2, 7), (7, 2), (3, 40)])
def test_the_loop_ends_where_the_learner_does(
    descent: Descent, graphs: dict[str, bytes], batch: int, examples: int
) -> None:
    generator = np.random.default_rng(batch)
    support = {
        "features_s": generator.normal(size=(batch, examples, WIDTH)).astype(np.float32),
        "y_s": generator.integers(0, WAYS, (batch, examples)),
        "weight_s": generator.integers(0, 2, (batch, examples)).astype(np.float32),
    }
    expected, got = TorchRunner(descent).run("adapt", support), OnnxRunner(graphs).run("adapt", support)
    for name, array in expected.items():
        np.testing.assert_allclose(got[name], array, rtol=1e-4, atol=1e-5)


def test_a_learner_of_equal_steps_passes_the_gate_and_is_served(
    descent: Descent, root: Path, spec: ExportSpec, material: Material
) -> None:
    folder, report = export_bundle(descent, root, spec=spec, material=material)
    assert Bundle.open(folder).manifest.statistics is None
    assert report.figures["parity of adapt"] < 1e-4
    assert check_in_child(folder, seconds=60, memory_bytes=2**33)["ok"]
