"""Two ways to run a learner's graphs, with the same face: torch, and ONNX Runtime."""

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import onnxruntime
import torch
from torch import Tensor

from handful_models.learner import Learner
from handful_service.bundle.manifest import GraphName
from handful_service.errors import GraphRefused
from handful_service.task import Arrays


class Runner(Protocol):
    """Runs one graph of a learner on named arrays."""

    def run(self, graph: GraphName, arrays: Arrays) -> Arrays:
        """The named outputs of a graph."""
        ...


class TorchRunner:
    """The learner itself."""

    def __init__(self, learner: Learner) -> None:
        self._learner = learner.eval()

    def run(self, graph: GraphName, arrays: Arrays) -> Arrays:
        """See `Runner`."""
        with torch.no_grad():
            outputs = self._call(graph, {name: torch.from_numpy(np.asarray(array)) for name, array in arrays.items()})
        return {name: value.numpy() for name, value in outputs.items()}

    def _call(self, graph: GraphName, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        if graph == "encode":
            return self._learner.encode(tensors)
        if graph == "summarise":
            features = {name[:-2]: value for name, value in tensors.items() if name not in ("y_s", "weight_s")}
            return self._learner.summarise(features, tensors["y_s"], tensors["weight_s"])
        if graph == "adapt":
            return self._learner.adapt(tensors)
        # The names of features and state are disjoint, so a learner finds its own in the whole.
        return {"y": self._learner.predict(tensors, tensors)}


class OnnxRunner:
    """The exported graphs under ONNX Runtime.

    Raises:
        GraphRefused: ONNX Runtime cannot load a graph.
    """

    def __init__(self, graphs: Mapping[GraphName, bytes]) -> None:
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
