"""Two ways to run a learner's graphs, with the same face: torch, and ONNX Runtime."""

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import onnxruntime
import torch
from torch import Tensor

from handful_models.learner import AdditiveLearner, DescribedLearner, Learner
from handful_service.bundle.manifest import GraphName
from handful_service.errors import GraphRefused
from handful_service.task import Arrays

from .described_graphs import described
from .graphs import support_features


class Runner(Protocol):
    """Runs one graph of a learner on named arrays.

    Attributes:
        additive: Whether the state comes from statistics, by `summarise`, or from the support set itself.
        encodes: Whether features are other than the inputs.
    """

    additive: bool
    encodes: bool

    def run(self, graph: GraphName, arrays: Arrays) -> Arrays:
        """The named outputs of a graph."""
        ...


class TorchRunner:
    """The learner itself.

    Args:
        learner: It is set to evaluation.
        encodes: Whether features are other than the inputs.
    """

    def __init__(self, learner: Learner, *, encodes: bool = True) -> None:
        self._learner = learner.eval()
        self.encodes = encodes
        self.additive = isinstance(learner, AdditiveLearner)

    def run(self, graph: GraphName, arrays: Arrays) -> Arrays:
        """See `Runner`."""
        with torch.no_grad():
            outputs = self._call(graph, {name: torch.from_numpy(np.asarray(array)) for name, array in arrays.items()})
        return {name: value.numpy() for name, value in outputs.items()}

    def _call(self, graph: GraphName, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        if isinstance(self._learner, DescribedLearner) and (found := described(self._learner, graph, tensors)):
            return found
        if graph == "encode":
            return self._learner.encode(tensors)
        if graph == "summarise" and isinstance(self._learner, AdditiveLearner):
            return self._learner.summarise(support_features(tensors), tensors["y_s"], tensors["weight_s"])
        if graph == "adapt" and isinstance(self._learner, AdditiveLearner):
            return self._learner.adapt(tensors)
        if graph == "adapt":
            return self._learner.state(support_features(tensors), tensors["y_s"], tensors["weight_s"])
        # The names of features and state are disjoint, so a learner finds its own in the whole.
        return {"y": self._learner.predict(tensors, tensors)}


class OnnxRunner:
    """The exported graphs under ONNX Runtime.

    Raises:
        GraphRefused: ONNX Runtime cannot load a graph.
    """

    def __init__(self, graphs: Mapping[GraphName, bytes]) -> None:
        self.additive = "summarise" in graphs
        self.encodes = "encode" in graphs
        self._sessions = {name: _session(name, content) for name, content in graphs.items()}

    def run(self, graph: GraphName, arrays: Arrays) -> Arrays:
        """See `Runner`."""
        session = self._sessions[graph]
        names = [output.name for output in session.get_outputs()]
        return dict(zip(names, session.run(names, dict(arrays)), strict=True))


def _session(name: str, content: bytes) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime raises classes of its C++ binding without a common root
        raise GraphRefused(f"ONNX Runtime cannot load it: {error}", field=name) from error


def encode(runner: Runner, inputs: Arrays) -> Arrays:
    """The features of inputs `[batch, *input]`: they themselves where the learner has no graph for it."""
    return runner.run("encode", inputs) if runner.encodes else inputs


def support_feed(features: Arrays, y: np.ndarray, weight: np.ndarray) -> Arrays:
    """The inputs of the graphs that take support sets, for one task: `features [example, *feature]`."""
    return {**{f"{name}_s": array[None] for name, array in features.items()}, "y_s": y[None], "weight_s": weight[None]}


def adapt(runner: Runner, support: Arrays) -> Arrays:
    """φ of support sets `[task, example, …]`, by whichever graphs the learner has."""
    return runner.run("adapt", runner.run("summarise", support) if runner.additive else support)
