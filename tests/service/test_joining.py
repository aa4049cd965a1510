"""Encode and predict as one graph gives what the two give, and is not made where it could not."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from tests.serving import BUNDLES

from handful_service.bundle.bundle import Bundle
from handful_service.engine import graphs, joining
from handful_service.engine.graphs import JOINED, Graphs
from handful_service.engine.joining import joined
from handful_service.engine.runtime import runtime_settings

SHIPPED = sorted(path.parent for path in BUNDLES.glob("*/*/encode.onnx"))


def value(name: str, *axes: str | int) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, axes)


def model(nodes: list[Any], takes: list[Any], gives: list[Any], constants: list[Any], opset: int = 18) -> bytes:
    graph = helper.make_graph(nodes, "graph", takes, gives, constants)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    made.ir_version = 10
    content: bytes = made.SerializeToString()
    return content


def constant(name: str, array: Any) -> onnx.TensorProto:
    return onnx.numpy_helper.from_array(np.asarray(array, np.float32), name)


def encode(inner: str = "h", opset: int = 18) -> bytes:
    """Features: relu(2x) + 1."""
    nodes = [
        helper.make_node("Mul", ["x", "w"], [inner], name="a"),
        helper.make_node("Relu", [inner], ["r"], name="b"),
        helper.make_node("Add", ["r", "one"], ["features"], name="c"),
    ]
    takes, gives = [value("x", "batch", 3)], [value("features", "batch", 3)]
    return model(nodes, takes, gives, [constant("w", [2]), constant("one", [1])], opset)


def predict(opset: int = 18, given_features: bool = False) -> bytes:
    """y: features times 3 plus the state, with names that encode has, too."""
    nodes = [
        helper.make_node("Mul", ["features", "w"], ["h"], name="a"),
        helper.make_node("Add", ["h", "state"], ["y"], name="b"),
    ]
    constants = [constant("w", [3])] + ([constant("features", [[0, 0, 0]])] if given_features else [])
    return model(
        nodes, [value("features", "batch", 3), value("state", "batch", 3)], [value("y", "batch", 3)], constants, opset
    )


def run(content: bytes, **feed: Any) -> dict[str, Any]:
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, feed), strict=True))


def test_names_of_the_two_do_not_meet() -> None:
    both = joined(encode(), predict())
    assert both is not None
    x, state = np.array([[-1, 0, 2]], np.float32), np.array([[10, 20, 30]], np.float32)
    found = run(both, x=x, state=state)
    assert found["features"].tolist() == [[1, 1, 5]]
    assert found["y"].tolist() == [[13, 23, 45]]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        pytest.param(encode(opset=17), predict(), id="other operator sets"),
        pytest.param(encode(inner="y"), predict(), id="a name that an output has"),
        pytest.param(encode(inner="state"), predict(), id="a name that a state has"),
        pytest.param(encode(inner="predict/h"), predict(), id="a name with the prefix"),
        pytest.param(encode(), predict(given_features=True), id="features that are a constant, too"),
    ],
)
def test_what_cannot_be_joined_is_left_apart(first: bytes, second: bytes) -> None:
    assert joined(first, second) is None


def test_graphs_inside_graphs_and_large_ones_are_left_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    inner = helper.make_graph([helper.make_node("Identity", ["features"], ["out"])], "inner", [], [value("out")])
    branch = helper.make_node("If", ["yes"], ["y"], then_branch=inner, else_branch=inner)
    yes = helper.make_tensor("yes", TensorProto.BOOL, [], [True])
    assert joined(encode(), model([branch], [value("features", "batch", 3)], [value("y")], [yes])) is None
    monkeypatch.setattr(joining, "MOST_BYTES", 10)
    assert joined(encode(), predict()) is None


@pytest.mark.parametrize("folder", SHIPPED, ids=lambda folder: folder.parent.name)
@settings(max_examples=5, deadline=None)
@given(st.integers(1, 9), st.integers(0, 2**31))
def test_the_shipped_bundles_answer_alike_with_one_graph_and_two(folder: Path, rows: int, seed: int) -> None:
    made, golden = opened(folder)
    assert JOINED in made._sessions
    rng = np.random.default_rng(seed)

    def drawn(arrays: Any) -> dict[str, Any]:
        least = min(len(array) for array in arrays.values())
        places = rng.integers(0, least, rows)
        return {name: array[places] for name, array in arrays.items()}

    features = golden["encode"].outputs.keys()
    inputs = drawn(golden["encode"].inputs)
    states = drawn({name: array for name, array in golden["predict"].inputs.items() if name not in features})
    of_one, y = made.encode_and_predict(inputs, states, rows)
    of_two = made.run("encode", inputs, rows)
    assert of_one.keys() == of_two.keys()
    for name, array in of_two.items():
        np.testing.assert_allclose(of_one[name], array, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(y, made.run("predict", {**states, **of_two}, rows)["y"], rtol=1e-4, atol=1e-5)


KNOWN: dict[Path, Any] = {}


def opened(folder: Path) -> Any:
    if folder not in KNOWN:
        bundle = Bundle.open(folder)
        made = Graphs(bundle, runtime_settings("cpu", 1))
        made.join()
        KNOWN[folder] = made, bundle.golden()
    return KNOWN[folder]


def test_one_graph_that_gives_other_numbers_is_not_used(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def other(first: bytes, second: bytes) -> bytes | None:
        content = joined(first, second)
        assert content is not None
        made = onnx.load_model_from_string(content)
        for node in made.graph.node:
            node.output[:] = ["before" if name == "y" else name for name in node.output]
        made.graph.node.append(helper.make_node("Add", ["before", "more"], ["y"]))
        made.graph.initializer.append(constant("more", [0.1]))
        found: bytes = made.SerializeToString()
        return found

    monkeypatch.setattr(graphs, "joined", other)
    made = Graphs(Bundle.open(SHIPPED[0]), runtime_settings("cpu", 1))
    made.join()
    assert JOINED not in made._sessions
    assert "run apart" in caplog.text


def test_one_graph_that_cannot_be_loaded_is_not_used(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(graphs, "joined", lambda first, second: b"no graph")
    made = Graphs(Bundle.open(SHIPPED[0]), runtime_settings("cpu", 1))
    made.join()
    assert JOINED not in made._sessions
    assert "run apart" in caplog.text


def test_a_bundle_that_is_asked_often_gets_one_graph_and_answers_on() -> None:
    bundle = Bundle.open(next(folder for folder in SHIPPED if folder.parent.name == "glyphs"))
    made, golden = Graphs(bundle, runtime_settings("cpu", 1)), bundle.golden()
    inputs = {name: array[:1] for name, array in golden["encode"].inputs.items()}
    features = golden["encode"].outputs.keys()
    states = {name: array[:1] for name, array in golden["predict"].inputs.items() if name not in features}
    _, before = made.encode_and_predict(inputs, states, 1)
    assert JOINED not in made._sessions
    give_up = time.monotonic() + 20
    while JOINED not in made._sessions:
        assert time.monotonic() < give_up
        _, y = made.encode_and_predict(inputs, states, 1)
        np.testing.assert_allclose(y, before, rtol=1e-5, atol=1e-5)
    _, y = made.encode_and_predict(inputs, states, 1)
    np.testing.assert_allclose(y, before, rtol=1e-5, atol=1e-5)
