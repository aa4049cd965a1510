"""Graphs of a learner: each of its methods as one ONNX file with symbolic batch and support axes."""

import io
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import onnx
import torch
from torch import Tensor, nn
from torch.export import Dim

from handful_models.learner import AdditiveLearner, Learner, Tensors
from handful_service.bundle.manifest import GraphName

OPSET = 20
BATCH = Dim("batch")
EXAMPLE = Dim("example")

# The support size of the tracing inputs: anything but 0 and 1, which torch.export specialises on.
TRACE_EXAMPLES = 7


def support_features(support: Tensors) -> dict[str, Tensor]:
    """The features among the tensors of a support set, by the names that the learner knows."""
    return {name.removesuffix("_s"): support[name] for name in support if name not in ("y_s", "weight_s")}


class _Encode(nn.Module):
    def __init__(self, learner: Learner) -> None:
        super().__init__()
        self.learner = learner

    def forward(self, inputs: dict[str, Tensor]) -> list[Tensor]:
        return list(self.learner.encode(inputs).values())


class _Summarise(nn.Module):
    def __init__(self, learner: AdditiveLearner) -> None:
        super().__init__()
        self.learner = learner

    def forward(self, inputs: dict[str, Tensor]) -> list[Tensor]:
        return list(self.learner.summarise(support_features(inputs), inputs["y_s"], inputs["weight_s"]).values())


class _Adapt(nn.Module):
    def __init__(self, learner: AdditiveLearner) -> None:
        super().__init__()
        self.learner = learner

    def forward(self, inputs: dict[str, Tensor]) -> list[Tensor]:
        return list(self.learner.adapt(inputs).values())


class _AdaptToExamples(nn.Module):
    def __init__(self, learner: Learner) -> None:
        super().__init__()
        self.learner = learner

    def forward(self, inputs: dict[str, Tensor]) -> list[Tensor]:
        return list(self.learner.state(support_features(inputs), inputs["y_s"], inputs["weight_s"]).values())


class _Predict(nn.Module):
    def __init__(self, learner: Learner, features: Sequence[str]) -> None:
        super().__init__()
        self.learner = learner
        self.features = tuple(features)

    def forward(self, inputs: dict[str, Tensor]) -> list[Tensor]:
        features = {name: inputs[name] for name in self.features}
        state = {name: inputs[name] for name in inputs if name not in self.features}
        return [self.learner.predict(features, state)]


def edges(learner: Learner, inputs: Tensors) -> dict[str, dict[str, Tensor]]:
    """One pass through a learner: its named tensors at every edge, for `inputs [batch, *input]`.

    Returns:
        By edge: `inputs`, `features`, `support`, `statistics` (empty for a learner without), `state`, `y`.
    """
    batch = len(next(iter(inputs.values())))
    with torch.no_grad():
        features = dict(learner.encode(inputs))
        size = (batch, TRACE_EXAMPLES)
        support = {
            f"{name}_s": value.unsqueeze(1).expand(*size, *value.shape[1:]).clone() for name, value in features.items()
        }
        if learner.target == "number":
            support["y_s"] = torch.linspace(-1, 1, TRACE_EXAMPLES).unsqueeze(-1).expand(*size, 1).clone()
        else:
            support["y_s"] = torch.arange(TRACE_EXAMPLES).remainder(learner.ways).expand(size).clone()
        support["weight_s"] = torch.ones(size)
        given = support_features(support), support["y_s"], support["weight_s"]
        statistics = dict(learner.summarise(*given)) if isinstance(learner, AdditiveLearner) else {}
        state = dict(learner.state(*given))
        y = learner.predict(features, state)
    return {
        "inputs": dict(inputs), "features": features, "support": support,
        "statistics": statistics, "state": state, "y": {"y": y},
    }  # fmt: skip


def export_graphs(learner: Learner, inputs: Tensors) -> dict[GraphName, bytes]:
    """The ONNX files of a learner in evaluation mode.

    Args:
        learner: The trained learner.
        inputs: Example inputs, each `[2, *input]`.
    """
    learner.eval()
    found = edges(learner, inputs)
    features, support, statistics, state = (found[edge] for edge in ("features", "support", "statistics", "state"))
    graphs: dict[GraphName, bytes] = {"encode": _export(_Encode(learner), found["inputs"], features)}
    if isinstance(learner, AdditiveLearner):
        graphs["summarise"] = _export(_Summarise(learner), support, statistics, examples=True)
        graphs["adapt"] = _export(_Adapt(learner), statistics, state)
    else:
        graphs["adapt"] = _export(_AdaptToExamples(learner), support, state, examples=True)
    graphs["predict"] = _export(_Predict(learner, list(features)), {**features, **state}, found["y"])
    return graphs


def _export(
    module: nn.Module, takes: Mapping[str, Tensor], gives: Mapping[str, Tensor], *, examples: bool = False
) -> bytes:
    axes = {0: BATCH, 1: EXAMPLE} if examples else {0: BATCH}
    shapes = dict.fromkeys(takes, axes)
    with _quiet():
        program = torch.onnx.export(
            module,
            kwargs={"inputs": dict(takes)},
            dynamo=True,
            dynamic_shapes={"inputs": shapes},
            input_names=list(takes),
            output_names=list(gives),
            opset_version=OPSET,
            verbose=False,
        )
    if program is None:
        raise RuntimeError("torch.onnx.export gave no program")
    return _stripped(program.model_proto)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's warnings of its own deprecations and its progress."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _stripped(model: onnx.ModelProto) -> bytes:
    """The model without stack traces, paths and other notes of the machine that made it."""
    graph = model.graph
    parts: list[Any] = [model, graph, *graph.node, *graph.initializer, *graph.input, *graph.output, *graph.value_info]
    for part in parts:
        part.doc_string = ""
        del part.metadata_props[:]
    onnx.checker.check_model(model)
    file = io.BytesIO()
    onnx.save(model, file)
    return file.getvalue()
