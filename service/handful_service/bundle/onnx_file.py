"""What must be known of an ONNX file before it is run, read without the `onnx` package."""

from collections.abc import Iterator
from typing import Any

from ..errors import GraphRefused
from .onnx_schema import read_model
from .parts import TensorSpec
from .signature import Signature

RANDOM_OPS = frozenset(
    {"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"}
)
STANDARD_DOMAINS = frozenset({"", "ai.onnx"})
_ELEMENT_TYPES = {1: "float32", 7: "int64"}
_EXTERNAL = 1


def check_graph(file: str, content: bytes, takes: Signature, gives: Signature) -> None:
    """Refuse a graph that could do harm, or that is not what the manifest declares.

    Args:
        file: Its name, for messages.
        content: The ONNX file.
        takes: The tensors it must take.
        gives: The tensors it must give.

    Raises:
        GraphRefused: not ONNX; external data; an operator outside the standard set or a function; a random or
            training-mode operator; a Loop whose trip count is not a constant; undeclared names, types or axes.
    """
    model = read_model(file, content)
    if not model.graph.node:
        raise GraphRefused("holds no graph", field=file)
    if model.functions:
        raise GraphRefused("holds functions", field=file, allowed="standard operators only")
    for tensor in _tensors(model.graph):
        if tensor.data_location == _EXTERNAL or tensor.external_data:
            raise GraphRefused(
                f"tensor {tensor.name!r} has external data", field=file, allowed="data in the file itself"
            )
    _check_nodes(file, model.graph, set())
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in constants]
    _check_values(file, "input", inputs, takes)
    _check_values(file, "output", model.graph.output, gives)


def _check_nodes(file: str, graph: Any, outer: set[str]) -> None:
    constants = outer | {tensor.name for tensor in graph.initializer}
    for node in graph.node:
        _check_node(file, node, constants)
        if node.op_type == "Constant":
            constants.update(node.output)
        for inner in _subgraphs(node):
            _check_nodes(file, inner, constants)


def _check_node(file: str, node: Any, constants: set[str]) -> None:
    if node.domain not in STANDARD_DOMAINS:
        raise GraphRefused(
            f"operator {node.op_type!r} is of the domain {node.domain!r}",
            field=file,
            allowed="standard operators only",
        )
    if node.op_type in RANDOM_OPS:
        raise GraphRefused(f"operator {node.op_type!r} is random", field=file, allowed="the same answer every time")
    trains = node.op_type == "BatchNormalization" and any(a.name == "training_mode" and a.i for a in node.attribute)
    drops = node.op_type == "Dropout" and len(node.input) > 2 and node.input[2]
    if trains or drops:
        raise GraphRefused(f"operator {node.op_type!r} is in training mode", field=file, allowed="inference mode")
    if node.op_type == "Loop" and not (node.input and node.input[0] and node.input[0] in constants):
        raise GraphRefused("a Loop's trip count is not a constant", field=file, allowed="a constant of the bundle")


def _subgraphs(node: Any) -> Iterator[Any]:
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def _tensors(graph: Any) -> Iterator[Any]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                yield from (sparse.values, sparse.indices)
        for inner in _subgraphs(node):
            yield from _tensors(inner)


def _check_values(file: str, what: str, values: Any, signature: Signature) -> None:
    found = {value.name: value for value in values}
    if found.keys() != signature.tensors.keys():
        raise GraphRefused(f"{what}s are {sorted(found)}", field=file, allowed=str(sorted(signature.tensors)))
    for name, spec in signature.tensors.items():
        _check_value(f"{file}: {what} {name}", found[name].type.tensor_type, spec)


def _check_value(place: str, tensor: Any, spec: TensorSpec) -> None:
    dtype = _ELEMENT_TYPES.get(tensor.elem_type, f"type {tensor.elem_type}")
    if dtype != spec.dtype:
        raise GraphRefused(f"is {dtype}", field=place, allowed=spec.dtype)
    dims = tensor.shape.dim
    found = [dim.dim_param or (dim.dim_value if dim.dim_value else "?") for dim in dims]
    if len(dims) != len(spec.axes):
        raise GraphRefused(f"has the axes {found}", field=place, allowed=str(list(spec.axes)))
    for axis, dim in zip(spec.axes, dims, strict=True):
        frozen = isinstance(axis, str) and dim.dim_value
        other = isinstance(axis, int) and dim.dim_value != axis
        if frozen or other:
            raise GraphRefused(f"has the axes {found}", field=place, allowed=str(list(spec.axes)))
