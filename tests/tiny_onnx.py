"""The graphs of the tiny bundle, made with `onnx.helper`."""

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

if TYPE_CHECKING:
    from .tiny import Tiny

Array = NDArray[Any]

WIDTH_IN = 4
MATRIX = np.array([[1, 0, 0.5], [0, 1, -0.5], [0.5, 0.5, 1], [-1, 0.25, 0]], np.float32)
ABSENT_LOGIT = -1.0e4


def onnx_graphs(tiny: "Tiny") -> dict[str, onnx.ModelProto]:
    """The graphs as ONNX models."""
    d, w = tiny.width, tiny.ways
    support = {f"{tiny.feature}_s": ("batch", "example", d), "y_s": ("batch", "example")}
    support["weight_s"] = ("batch", "example")
    statistics = {"sums": ("batch", w, d), "counts": ("batch", w)}
    state = {"prototypes": ("batch", w, d), "present": ("batch", w)}
    graphs = {}
    if tiny.encode:
        nodes = [helper.make_node("MatMul", ["x", "matrix"], ["features"])]
        graphs["encode"] = model(nodes, {"x": ("batch", WIDTH_IN)}, {"features": ("batch", d)}, matrix=MATRIX)
    if tiny.statistics:
        graphs["summarise"] = model(_summarise(tiny), support, statistics, **_constants(w))
        graphs["adapt"] = model(_means(), statistics, state, **_constants(w))
    else:
        graphs["adapt"] = model([*_summarise(tiny), *_means()], support, state, **_constants(w))
    graphs["predict"] = model(
        _predict(tiny),
        {tiny.feature: ("batch", d), **state},
        {"y": ("batch", tiny.members, w)},
        **_constants(w),
        scale=np.arange(1, tiny.members + 1, dtype=np.float32).reshape(1, -1, 1),
    )
    return graphs


def _constants(ways: int) -> dict[str, Array]:
    return {
        "ways": np.arange(ways, dtype=np.int64),
        "one": np.float32(1),
        "zero": np.float32(0),
        "absent": np.float32(ABSENT_LOGIT),
        "first": np.array([1], np.int64),
        "last": np.array([-1], np.int64),
    }


def _summarise(tiny: "Tiny") -> list[onnx.NodeProto]:
    return [
        helper.make_node("Unsqueeze", ["y_s", "last"], ["y_column"]),
        helper.make_node("Equal", ["y_column", "ways"], ["is_way"]),
        helper.make_node("Cast", ["is_way"], ["one_hot"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["weight_s", "last"], ["weight_column"]),
        helper.make_node("Mul", ["one_hot", "weight_column"], ["assignment"]),
        helper.make_node("Transpose", ["assignment"], ["by_way"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["by_way", f"{tiny.feature}_s"], ["sums"]),
        helper.make_node("ReduceSum", ["assignment", "first"], ["counts"], keepdims=0),
    ]


def _means() -> list[onnx.NodeProto]:
    return [
        helper.make_node("Greater", ["counts", "zero"], ["some"]),
        helper.make_node("Cast", ["some"], ["present"], to=TensorProto.FLOAT),
        helper.make_node("Where", ["some", "counts", "one"], ["divisor"]),
        helper.make_node("Unsqueeze", ["divisor", "last"], ["divisor_column"]),
        helper.make_node("Div", ["sums", "divisor_column"], ["prototypes"]),
    ]


def _predict(tiny: "Tiny") -> list[onnx.NodeProto]:
    return [
        helper.make_node("Unsqueeze", [tiny.feature, "first"], ["row"]),
        helper.make_node("Sub", ["row", "prototypes"], ["difference"]),
        helper.make_node("Mul", ["difference", "difference"], ["square"]),
        helper.make_node("ReduceSum", ["square", "last"], ["distance"], keepdims=0),
        helper.make_node("Neg", ["distance"], ["near"]),
        helper.make_node("Mul", ["near", "present"], ["near_present"]),
        helper.make_node("Sub", ["one", "present"], ["missing"]),
        helper.make_node("Mul", ["missing", "absent"], ["missing_logit"]),
        helper.make_node("Add", ["near_present", "missing_logit"], ["logits"]),
        helper.make_node("Unsqueeze", ["logits", "first"], ["member"]),
        helper.make_node("Mul", ["member", "scale"], ["y"]),
    ]


def model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, Sequence[int | str]],
    outputs: Mapping[str, Sequence[int | str]],
    whole: Collection[str] = ("y_s",),
    **constants: Array,
) -> onnx.ModelProto:
    """An ONNX model; tensors are float32, but those in `whole` int64. Constants that no node takes are left out."""
    used = {name for node in nodes for name in node.input}
    graph = helper.make_graph(
        list(nodes),
        "tiny",
        [value(name, axes, whole) for name, axes in inputs.items()],
        [value(name, axes, whole) for name, axes in outputs.items()],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items() if name in used],
    )
    return helper.make_model(graph, ir_version=9, opset_imports=[helper.make_opsetid("", 18)])


def value(name: str, axes: Sequence[int | str], whole: Collection[str] = ("y_s",)) -> onnx.ValueInfoProto:
    """The declaration of an input or output."""
    return helper.make_tensor_value_info(name, TensorProto.INT64 if name in whole else TensorProto.FLOAT, list(axes))
