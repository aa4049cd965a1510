"""Encode and predict as one graph: what a single row costs is mostly the start of a run, not its arithmetic."""

from typing import Any

from ..bundle.onnx_schema import read_model

MOST_BYTES = 2**22
"""Of both files. The weights are held twice; of larger graphs the arithmetic costs more than the start."""

_PREFIX = "predict/"


def joined(encode: bytes, predict: bytes) -> bytes | None:
    """One ONNX model that takes what `encode` takes beside the states of `predict`, and gives the outputs of both.

    Args:
        encode: A checked graph; its outputs are the features.
        predict: A checked graph, which takes the features by their names.

    Returns:
        None where the two cannot be joined: they are large, of different operator sets, or `predict` holds graphs of
        its own, whose names would have to be told from those around them.
    """
    if len(encode) + len(predict) > MOST_BYTES:
        return None
    model, second = read_model("encode", encode), read_model("predict", predict)
    if _versions(model) != _versions(second) or second.graph.sparse_initializer or _nested(second.graph):
        return None
    if any(name.startswith(_PREFIX) for node in model.graph.node for name in (*node.input, *node.output)):
        return None
    features = {value.name for value in model.graph.output}
    constants = {tensor.name for tensor in second.graph.initializer}
    states = [value for value in second.graph.input if value.name not in features | constants]
    taken = features | {value.name for value in states} | {value.name for value in second.graph.output}
    if constants & features or (taken - features) & _names(model.graph):
        return None
    _rename(second.graph, taken)
    graph = model.graph
    graph.node.extend(second.graph.node)
    graph.initializer.extend(second.graph.initializer)
    graph.input.extend(states)
    graph.output.extend(second.graph.output)
    content: bytes = model.SerializeToString()
    return content


def _versions(model: Any) -> tuple[int, dict[str, int]]:
    return model.ir_version, {opset.domain: opset.version for opset in model.opset_import}


def _nested(graph: Any) -> bool:
    return any(attribute.HasField("g") or attribute.graphs for node in graph.node for attribute in node.attribute)


def _names(graph: Any) -> set[str]:
    """The names of all values of a graph."""
    named = (*graph.input, *graph.initializer)
    return {value.name for value in named} | {name for node in graph.node for name in (*node.input, *node.output)}


def _rename(graph: Any, kept: set[str]) -> None:
    """Put a prefix before the names of all values but some, so that they are not taken for another graph's."""

    def other(name: str) -> str:
        return name if not name or name in kept else _PREFIX + name

    for node in graph.node:
        node.name = other(node.name)
        node.input[:] = [other(name) for name in node.input]
        node.output[:] = [other(name) for name in node.output]
    for tensor in graph.initializer:
        tensor.name = other(tensor.name)
