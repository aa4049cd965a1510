"""Tasks that a bundle knows without examples: a state for each id."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import TensorProto, checker, helper, numpy_helper

from handful_service.bundle.manifest import GraphName
from handful_service.task import Arrays

DESCRIBE_ID: GraphName = "describe.id"
INDEX = "index"
OPSET = 20
IR_VERSION = 10


@dataclass(frozen=True, slots=True)
class KnownTasks:
    """The tasks, and their states.

    Attributes:
        entries: One for each task, as `tasks.json` has them: `id`, `shots`, and `labels`, `evaluation`, `description`
            where there are any. `labels` are those of the slots, where the bundle's are open.
        states: Arrays `[task, *state]`, in the same order.
    """

    entries: Sequence[Mapping[str, Any]]
    states: Arrays

    def state(self, task: str) -> Arrays:
        """The state of one task, `[1, *state]`."""
        place = [entry["id"] for entry in self.entries].index(task)
        return {name: array[place : place + 1] for name, array in self.states.items()}

    def labels(self, task: str) -> list[str]:
        """The label of each slot of a task."""
        return list(self._entry(task)["labels"])

    def shots(self, task: str) -> float:
        """The effective shots of a task."""
        return float(self._entry(task)["shots"])

    def _entry(self, task: str) -> Mapping[str, Any]:
        return next(entry for entry in self.entries if entry["id"] == task)


def describe_graph(states: Mapping[str, np.ndarray]) -> bytes:
    """The ONNX file of `describe.id`: the rows of `states [task, *state]` that `index [batch]`, int64, names."""
    types = {"float32": TensorProto.FLOAT, "int64": TensorProto.INT64}
    nodes, outputs, rows = [], [], []
    for name, array in states.items():
        rows.append(numpy_helper.from_array(np.ascontiguousarray(array), f"rows_{name}"))
        nodes.append(helper.make_node("Gather", [f"rows_{name}", INDEX], [name], name=f"gather_{name}", axis=0))
        axes = ["batch", *array.shape[1:]]
        outputs.append(helper.make_tensor_value_info(name, types[str(array.dtype)], axes))
    index = helper.make_tensor_value_info(INDEX, TensorProto.INT64, ["batch"])
    graph = helper.make_graph(nodes, "describe", [index], outputs, rows)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    checker.check_model(model)
    return model.SerializeToString()
