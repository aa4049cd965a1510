"""Every method as graphs: torch and ONNX Runtime agree at several sizes, and padding changes nothing."""

import numpy as np
import pytest
import torch
from torch import nn

from handful_export.graphs import export_graphs
from handful_export.runner import OnnxRunner, TorchRunner, adapt
from handful_models.bayes import Bayes
from handful_models.context import Context
from handful_models.ensemble import Ensemble
from handful_models.hypernetwork import Hypernetwork
from handful_models.learner import Learner, Target
from handful_models.lstm import Lstm
from handful_models.neural_process import NeuralProcess
from handful_models.probe import Probe
from handful_models.snail import Snail
from handful_models.transformer import Transformer

INPUT, WIDTH, WAYS, MOST = 6, 8, 5, 9
CLOSE = {"atol": 1e-4, "rtol": 1e-4}


class Encoder(nn.Sequential):
    """Features of numbers."""

    width = WIDTH

    def __init__(self) -> None:
        super().__init__(nn.Linear(INPUT, WIDTH), nn.ReLU())


METHODS = (Bayes, Context, Hypernetwork, NeuralProcess, Transformer, Lstm, Snail)
CASES = [
    *((method, "class", False) for method in (*METHODS, Probe, Ensemble)),
    *((method, "number", False) for method in METHODS),
    (Context, "class", True),
    (Bayes, "class", True),
]


def make(method: type[Learner], target: Target, fixed: bool) -> Learner:
    torch.manual_seed(0)
    small = {Ensemble: {"method": "relation", "members": 2}, Bayes: {"dims": WIDTH}}  # each size is a step of its graph
    options = method.options.model_validate(small.get(method, {}))
    learner = method.make(Encoder(), ways=WAYS, examples=MOST, target=target, fixed=fixed, options=options)
    with torch.no_grad():
        for parameter in learner.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return learner.eval()


def supports(batch: int, examples: int, target: str) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(examples)
    numbers = draw.normal(size=(batch, examples, 1)).astype(np.float32)
    ways = draw.integers(0, WAYS, (batch, examples))
    return {
        "features_s": np.abs(draw.normal(size=(batch, examples, WIDTH))).astype(np.float32),
        "y_s": numbers if target == "number" else ways,
        "weight_s": np.ones((batch, examples), np.float32),
    }


def padded(feed: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Three absent examples, one before and two behind, with wild features."""
    return {
        "features_s": np.pad(feed["features_s"], ((0, 0), (1, 2), (0, 0)), constant_values=1e4),
        "y_s": np.pad(feed["y_s"], ((0, 0), (1, 2), *((0, 0) for _ in feed["y_s"].shape[2:]))),
        "weight_s": np.pad(feed["weight_s"], ((0, 0), (1, 2))),
    }


@pytest.mark.timeout(600)  # exports of unrolled graphs take a while where the machine is busy
@pytest.mark.parametrize(("method", "target", "fixed"), CASES, ids=lambda value: getattr(value, "__name__", str(value)))
def test_torch_and_onnx_agree_at_every_size(method: type[Learner], target: Target, fixed: bool) -> None:
    learner = make(method, target, fixed)
    onnx, torch_ = OnnxRunner(export_graphs(learner, {"x": torch.randn(2, INPUT)})), TorchRunner(learner)
    for batch, examples in ((1, 1), (2, 7), (7, 2), (2, MOST)):
        feed = supports(batch, examples, target)
        features = onnx.run("encode", {"x": np.random.default_rng(0).normal(size=(batch, INPUT)).astype(np.float32)})
        expected, found = adapt(torch_, feed), adapt(onnx, feed)
        for name, value in expected.items():
            np.testing.assert_allclose(found[name], value, **CLOSE, err_msg=name)
        answer = onnx.run("predict", {**features, **found})["y"]
        np.testing.assert_allclose(answer, torch_.run("predict", {**features, **expected})["y"], **CLOSE)
        around = onnx.run("predict", {**features, **adapt(onnx, padded(feed))})["y"]
        np.testing.assert_allclose(around, answer, atol=1e-5, rtol=1e-5)
