"""The graphs of the comparison, with seeded random weights: an MLP 256-256-10, Conv-4 on 28 x 28, and linear heads.

Batch normalisation is folded into the convolutions, as ONNX Runtime does by itself. A head is the linear form of
prototypes: the logits of `x` are `-|x - p|² + |x|² = 2 p x - |p|²`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Array = NDArray[Any]
Axes = Sequence[int | str]

LABELS = 10
GIVEN = 256
"""Numbers that the MLP takes, and features that heads are given."""

PIXELS = 784
FILTERS = 64
"""Filters of each convolution, and features of the trunk: four times of pooling leave one pixel."""

HIDDEN = 256
ABSENT_LOGIT = -1.0e4
SEED = 0


def weights() -> dict[str, Array]:
    """All weights, by name."""
    rng = np.random.default_rng(SEED)

    def drawn(*shape: int, fan: int) -> Array:
        return (rng.normal(size=shape) * np.sqrt(2 / fan)).astype(np.float32)

    found = {"w1": drawn(GIVEN, HIDDEN, fan=GIVEN), "b1": drawn(HIDDEN, fan=HIDDEN)}
    found |= {"w2": drawn(HIDDEN, LABELS, fan=HIDDEN), "b2": drawn(LABELS, fan=LABELS)}
    for block in range(4):
        channels = FILTERS if block else 1
        found[f"kernel{block}"] = drawn(FILTERS, channels, 3, 3, fan=9 * channels)
        found[f"bias{block}"] = drawn(FILTERS, fan=9 * FILTERS)
    found |= {"head": drawn(LABELS, FILTERS, fan=FILTERS), "head_bias": drawn(LABELS, fan=LABELS)}
    return found


def mlp_nodes(out: str) -> list[onnx.NodeProto]:
    """From `x [batch, 256]` to logits `[batch, 10]`."""
    return [
        helper.make_node("Gemm", ["x", "w1", "b1"], ["h1"]),
        helper.make_node("Relu", ["h1"], ["h2"]),
        helper.make_node("Gemm", ["h2", "w2", "b2"], [out]),
    ]


def trunk_nodes(out: str) -> list[onnx.NodeProto]:
    """From `x [batch, 784]` to features `[batch, 64]`: four times convolution, pooling and ReLU."""
    nodes = [helper.make_node("Reshape", ["x", "picture"], ["block0"])]
    for block in range(4):
        names = [f"block{block}", f"conv{block}", f"pool{block}", f"block{block + 1}"]
        kernel = [names[0], f"kernel{block}", f"bias{block}"]
        nodes.append(helper.make_node("Conv", kernel, [names[1]], kernel_shape=[3, 3], pads=[1, 1, 1, 1]))
        nodes.append(helper.make_node("MaxPool", [names[1]], [names[2]], kernel_shape=[2, 2], strides=[2, 2]))
        nodes.append(helper.make_node("Relu", [names[2]], [names[3]]))
    return [*nodes, helper.make_node("Flatten", ["block4"], [out])]


def conv4_nodes(out: str) -> list[onnx.NodeProto]:
    """From `x [batch, 784]` to logits `[batch, 10]`, with one head for everyone."""
    return [*trunk_nodes("features"), helper.make_node("Gemm", ["features", "head", "head_bias"], [out], transB=1)]


def head_nodes(feature: str) -> list[onnx.NodeProto]:
    """From features `[batch, d]`, `weight [batch, 10, d]` and `bias [batch, 10]` to `y [batch, 1, 10]`."""
    return [
        helper.make_node("Unsqueeze", [feature, "last"], ["column"]),
        helper.make_node("MatMul", ["weight", "column"], ["products"]),
        helper.make_node("Squeeze", ["products", "last"], ["sums_of_products"]),
        helper.make_node("Add", ["sums_of_products", "bias"], ["logits"]),
        helper.make_node("Unsqueeze", ["logits", "first"], ["y"]),
    ]


def summarise_nodes(feature: str) -> list[onnx.NodeProto]:
    """From a support set to `sums [batch, 10, d]` and `counts [batch, 10]`."""
    return [
        helper.make_node("Unsqueeze", ["y_s", "last"], ["label"]),
        helper.make_node("Equal", ["label", "labels"], ["is_label"]),
        helper.make_node("Cast", ["is_label"], ["one_hot"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["weight_s", "last"], ["weight_column"]),
        helper.make_node("Mul", ["one_hot", "weight_column"], ["shares"]),
        helper.make_node("Transpose", ["shares"], ["by_label"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["by_label", f"{feature}_s"], ["sums"]),
        helper.make_node("ReduceSum", ["shares", "first"], ["counts"], keepdims=0),
    ]


def adapt_nodes() -> list[onnx.NodeProto]:
    """From sums and counts to `weight [batch, 10, d]` and `bias [batch, 10]`; a label without examples is never it."""
    return [
        helper.make_node("Greater", ["counts", "zero"], ["present"]),
        helper.make_node("Where", ["present", "counts", "one"], ["divisor"]),
        helper.make_node("Unsqueeze", ["divisor", "last"], ["divisor_column"]),
        helper.make_node("Div", ["sums", "divisor_column"], ["prototypes"]),
        helper.make_node("Mul", ["prototypes", "two"], ["weight"]),
        helper.make_node("Mul", ["prototypes", "prototypes"], ["squares"]),
        helper.make_node("ReduceSum", ["squares", "last"], ["norms"], keepdims=0),
        helper.make_node("Neg", ["norms"], ["near"]),
        helper.make_node("Where", ["present", "near", "absent"], ["bias"]),
    ]


def offset_nodes(nodes: Sequence[onnx.NodeProto]) -> list[onnx.NodeProto]:
    """`y [batch, 1, 10]`: the logits of a model that is the same for everyone, and the offset of a task beside it."""
    added = helper.make_node("Add", ["logits", "offset"], ["moved"])
    return [*nodes, added, helper.make_node("Unsqueeze", ["moved", "first"], ["y"])]


def describe_nodes() -> list[onnx.NodeProto]:
    """From `index [batch]` to `offset [batch, 10]`: the offset of a task is a row of a table."""
    return [helper.make_node("Gather", ["offsets", "index"], ["offset"], axis=0)]


def constants() -> dict[str, Array]:
    """What nodes take beside weights."""
    return {
        "picture": np.array([-1, 1, 28, 28], np.int64),
        "labels": np.arange(LABELS, dtype=np.int64),
        "offsets": np.zeros((1, LABELS), np.float32),
        "zero": np.float32(0),
        "one": np.float32(1),
        "two": np.float32(2),
        "absent": np.float32(ABSENT_LOGIT),
        "first": np.array([1], np.int64),
        "last": np.array([-1], np.int64),
    }


def model(
    nodes: Sequence[onnx.NodeProto], inputs: Mapping[str, Axes], outputs: Mapping[str, Axes], **values: Array
) -> bytes:
    """An ONNX file. Tensors are float32, but labels and indices int64.

    Args:
        values: In place of weights or constants of the same name.
    """
    known = {**weights(), **constants(), **values}
    used = dict.fromkeys(name for node in nodes for name in node.input if name in known)
    graph = helper.make_graph(
        list(nodes),
        "peers",
        [_declared(name, axes) for name, axes in inputs.items()],
        [_declared(name, axes) for name, axes in outputs.items()],
        [numpy_helper.from_array(np.asarray(known[name]), name) for name in used],
    )
    made = helper.make_model(graph, ir_version=9, opset_imports=[helper.make_opsetid("", 18)])
    onnx.checker.check_model(made, full_check=True)
    content: bytes = made.SerializeToString()
    return content


def _declared(name: str, axes: Axes) -> onnx.ValueInfoProto:
    kind = TensorProto.INT64 if name in ("y_s", "index") else TensorProto.FLOAT
    return helper.make_tensor_value_info(name, kind, list(axes))


def shared_graphs() -> dict[str, bytes]:
    """What peers are given, by file name; `logits [batch, 10]` each, but for the trunk and the gathered heads."""
    x, pictures, logits = {"x": ("batch", GIVEN)}, {"x": ("batch", PIXELS)}, {"logits": ("batch", LABELS)}
    own = [helper.make_node("Gemm", ["x", "head", "head_bias"], ["logits"], transB=1)]
    user = user_head(0, GIVEN)
    found = {
        "mlp.onnx": model(mlp_nodes("logits"), x, logits),
        "conv4.onnx": model(conv4_nodes("logits"), pictures, logits),
        "trunk.onnx": model(trunk_nodes("features"), pictures, {"features": ("batch", FILTERS)}),
        "heads.onnx": model(own, x, logits, head=user["weight"], head_bias=user["bias"]),
    }
    for name, width in (("gathered-heads.onnx", GIVEN), ("gathered-conv4-heads.onnx", FILTERS)):
        heads = {"x": ("batch", width), "weight": ("batch", LABELS, width), "bias": ("batch", LABELS)}
        found[name] = model(head_nodes("x"), heads, {"y": ("batch", 1, LABELS)})
    return found


def support(user: int, width: int) -> Array:
    """The support set of a user: one example of each label, `[10, width]`, float32 with four decimals."""
    return np.random.default_rng([SEED, 1, user]).random((LABELS, width)).round(4).astype(np.float32)


def head_of(prototypes: Array) -> dict[str, Array]:
    """The head of prototypes `[10, d]`: `weight [10, d]` and `bias [10]`."""
    return {"weight": 2 * prototypes, "bias": -np.square(prototypes).sum(-1)}


def user_head(user: int, width: int) -> dict[str, Array]:
    """The head of a user on given features."""
    return head_of(support(user, width))
