"""An ONNX graph that begins a state, and changes it by equal steps in a `Loop` of constant length."""

from collections.abc import Iterator, Mapping, Sequence

import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper

STEPS = "loop_steps"


def looped(begin: ModelProto, step: ModelProto, *, steps: int, state: Sequence[str]) -> ModelProto:
    """The graph of `steps` turns of `step` after `begin`.

    Args:
        begin: Takes the support set, gives the tensors of the state by their names.
        step: Takes the support set and the state, gives `next_<name>` for each tensor of the state.
        steps: Turns, a constant of the graph.
        state: The names of the state's tensors.
    """
    if begin.functions or step.functions:
        raise RuntimeError("the exporter left functions in a graph")
    model = ModelProto()
    model.CopyFrom(begin)
    graph = model.graph
    _rename(graph, {name: f"begin_{name}" for name in state})
    values = {value.name: value for value in graph.output}
    outputs = [_named(values[f"begin_{name}"], name) for name in state]

    body = _body(step.graph, state)
    inputs = [STEPS, "", *(f"begin_{name}" for name in state)]
    graph.node.append(helper.make_node("Loop", inputs, list(state), name="loop", body=body))
    graph.initializer.append(helper.make_tensor(STEPS, TensorProto.INT64, [], [steps]))
    del graph.output[:]
    graph.output.extend(outputs)
    del graph.value_info[:]  # notes of shapes, of names that were changed
    return model


def _body(step: GraphProto, state: Sequence[str]) -> GraphProto:
    """The body of the loop: the support set comes from the graph around it, by name."""
    graph = GraphProto()
    graph.CopyFrom(step)
    given = {value.name: value for value in graph.input}
    own = {name for name in _names(graph) if name not in given} | set(state)
    _rename(graph, {name: f"step_{name}" for name in own})
    values = {value.name: value for value in graph.output}
    keep = "step_continue"
    # A tensor that a step does not change is an output without a node of its own, or one that stands there twice.
    copies = [
        helper.make_node("Identity", [f"step_next_{name}"], [f"step_out_{name}"], name=f"step_copy_{name}")
        for name in state
    ]
    inputs = [
        helper.make_tensor_value_info("step_turn", TensorProto.INT64, []),
        helper.make_tensor_value_info(keep, TensorProto.BOOL, []),
        *(_named(given[name], f"step_{name}") for name in state),
    ]
    outputs = [
        helper.make_tensor_value_info("step_continue_out", TensorProto.BOOL, []),
        *(_named(values[f"step_next_{name}"], f"step_out_{name}") for name in state),
    ]
    nodes = [*graph.node, *copies, helper.make_node("Identity", [keep], ["step_continue_out"], name="step_keep")]
    return helper.make_graph(nodes, "step", inputs, outputs, initializer=list(graph.initializer))


def _names(graph: GraphProto) -> set[str]:
    outputs = {name for node in _nodes(graph) for name in node.output if name}
    return outputs | {tensor.name for tensor in graph.initializer} | {value.name for value in graph.output}


def _nodes(graph: GraphProto) -> Iterator[NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _nodes(attribute.g)


def _rename(graph: GraphProto, names: Mapping[str, str]) -> None:
    for node in _nodes(graph):
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    for tensor in graph.initializer:
        tensor.name = names.get(tensor.name, tensor.name)
    for value in graph.output:
        value.name = names.get(value.name, value.name)


def _named(value: onnx.ValueInfoProto, name: str) -> onnx.ValueInfoProto:
    copy = onnx.ValueInfoProto()
    copy.CopyFrom(value)
    copy.name = name
    return copy
