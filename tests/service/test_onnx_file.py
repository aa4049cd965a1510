"""What is known of an ONNX file before it is run."""

from contextlib import suppress

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper
from tests.tiny import Tiny, manifest
from tests.tiny_onnx import MATRIX, onnx_graphs

from handful_service.bundle import onnx_schema
from handful_service.bundle.manifest import Manifest
from handful_service.bundle.onnx_file import RANDOM_OPS, check_graph
from handful_service.bundle.signature import graph_signatures
from handful_service.engine.runtime import RuntimeSettings, make_session
from handful_service.errors import GraphRefused

TAKES, GIVES = graph_signatures(Manifest.model_validate(manifest(Tiny())))["encode"]
GOOD = onnx_graphs(Tiny())["encode"]
RUNTIME = RuntimeSettings("any", "CPUExecutionProvider", 1)
MESSAGES = {
    "Opset": onnx.OperatorSetIdProto,
    "Entry": onnx.StringStringEntryProto,
    "ValueInfo": onnx.ValueInfoProto,
    "TensorType": onnx.TypeProto.Tensor,
    "Shape": onnx.TensorShapeProto,
    "Dim": onnx.TensorShapeProto.Dimension,
}


def nested(node: onnx.NodeProto, depth: int) -> onnx.NodeProto:
    """A node inside as many Ifs."""
    for _ in range(depth):
        result = helper.make_tensor_value_info("r", TensorProto.FLOAT, None)
        inner = helper.make_graph([node], "inner", [], [result])
        node = helper.make_node("If", ["yes"], ["r"], then_branch=inner)
    return node


def with_nodes(*nodes: onnx.NodeProto) -> bytes:
    model = onnx.ModelProto()
    model.CopyFrom(GOOD)
    model.graph.node.extend(nodes)
    return model.SerializeToString()


def test_the_message_types_are_those_of_onnx() -> None:
    for message, fields in onnx_schema.SCHEMA.items():
        real = MESSAGES.get(message) or getattr(onnx, f"{message}Proto")
        for name, number, _, repeated in fields:
            field = real.DESCRIPTOR.fields_by_name[name]
            assert (message, name, field.number) == (message, name, number)
            assert (message, name, field.is_repeated) == (message, name, repeated)


@pytest.mark.parametrize("operator", sorted(RANDOM_OPS))
@pytest.mark.parametrize("depth", [0, 1, 5])
def test_a_random_operator_is_found_at_any_depth(operator: str, depth: int) -> None:
    with pytest.raises(GraphRefused, match=f"'{operator}' is random"):
        check_graph("f", with_nodes(nested(helper.make_node(operator, ["x"], ["r"]), depth)), TAKES, GIVES)


def test_graphs_nested_beyond_reason_are_refused() -> None:
    content = b""
    for field in (6, 5, 1) * 10_000 + (
        7,
    ):  # a graph in an attribute of a node of a graph …; by hand: onnx refuses, too
        content = bytes([field << 3 | 2]) + varint(len(content)) + content
    with pytest.raises(GraphRefused, match="is not an ONNX file"):
        check_graph("f", content, TAKES, GIVES)


def varint(number: int) -> bytes:
    return bytes([number]) if number < 128 else bytes([number & 127 | 128]) + varint(number >> 7)


def test_the_standard_domain_may_be_written_out() -> None:
    check_graph("f", with_nodes(helper.make_node("Identity", ["x"], ["r"], domain="ai.onnx")), TAKES, GIVES)


CONSTANT = helper.make_node("Constant", [], ["turns"], value_int=3)
LOOP = helper.make_node("Loop", ["turns"], ["r"], body=helper.make_graph([], "body", [], []))


@pytest.mark.parametrize("depth", [0, 1])
def test_a_loop_may_turn_a_constant_number_of_times(depth: int) -> None:
    check_graph("f", with_nodes(CONSTANT, nested(LOOP, depth)), TAKES, GIVES)


def test_a_constant_of_one_branch_is_none_of_the_other() -> None:
    result = helper.make_tensor_value_info("r", TensorProto.FLOAT, None)
    one, other = (helper.make_graph([node], "inner", [], [result]) for node in (CONSTANT, LOOP))
    content = with_nodes(helper.make_node("If", ["yes"], ["r"], then_branch=other, else_branch=one))
    with pytest.raises(GraphRefused, match="trip count"):
        check_graph("f", content, TAKES, GIVES)


def test_batch_normalisation_and_dropout_are_fine_when_they_infer() -> None:
    norm = helper.make_node("BatchNormalization", ["a", "b", "c", "d", "e"], ["r"], training_mode=0)
    dropout = helper.make_node("Dropout", ["x", "ratio"], ["s"])
    check_graph("f", with_nodes(norm, dropout), TAKES, GIVES)


@given(st.binary(max_size=300))
def test_any_bytes_are_refused(content: bytes) -> None:
    with pytest.raises(GraphRefused):
        check_graph("f", content, TAKES, GIVES)


@given(st.data())
def test_a_damaged_graph_is_taken_or_refused_and_never_a_crash(data: st.DataObject) -> None:
    content = bytearray(GOOD.SerializeToString())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(content)))
    for damaged in (bytes(content), bytes(content[:cut])):
        with suppress(GraphRefused):
            check_graph("f", damaged, TAKES, GIVES)


def test_a_file_that_is_both_onnx_and_orts_own_format_runs_as_the_onnx_that_was_checked() -> None:
    model = onnx.ModelProto()
    model.CopyFrom(GOOD)
    model.producer_name = "ORTM"  # the four bytes that mark ORT's format land where it looks for them
    content = model.SerializeToString()
    assert content[4:8] == b"ORTM"
    check_graph("f", content, TAKES, GIVES)
    session = make_session(content, file="f", settings=RUNTIME)
    x = np.eye(4, dtype=np.float32)
    np.testing.assert_allclose(session.run(["features"], {"x": x})[0], MATRIX)
