"""Tiny bundles that must be refused: each a way to break a good one, and what the refusal names."""

import io
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from handful_service.errors import BundleInvalid, GraphRefused

from .tiny import rewrite
from .tiny_onnx import value


@dataclass(frozen=True)
class Broken:
    """One way to break a bundle.

    Attributes:
        change: Breaks the good bundle in a folder.
        field: What the error's `field` holds.
    """

    change: Callable[[Path], object]
    field: str
    error: type[BundleInvalid] = BundleInvalid


def edit_graph(folder: Path, name: str, edit: Callable[[onnx.ModelProto], object]) -> None:
    """Change a graph, and its digest with it."""
    file = f"{name}.onnx"
    model = onnx.load_from_string((folder / file).read_bytes())
    edit(model)
    rewrite(folder, {file: model.SerializeToString()})


def edit_golden(folder: Path, **arrays: Any) -> None:
    """Replace golden arrays (with `__` for the dots of their names), or leave out those that are None."""
    with np.load(folder / "golden.npz") as golden:
        known = dict(golden) | {name.replace("__", "."): array for name, array in arrays.items()}
    file = io.BytesIO()
    np.savez(file, **{name: array for name, array in known.items() if array is not None})
    rewrite(folder, {"golden.npz": file.getvalue()})


def edit_requests(folder: Path, edit: Callable[[list[Any]], Any]) -> None:
    """Change the golden requests in place, or for what the function returns."""
    requests = json.loads((folder / "golden_requests.json").read_bytes())
    changed = edit(requests)
    rewrite(folder, {"golden_requests.json": json.dumps(requests if changed is None else changed).encode()})


def forever(turns: int) -> Callable[[Path], None]:
    """Let the encoder turn in a loop that does nothing, as often as said."""
    one = helper.make_node("Identity", ["state_in"], ["state_out"])
    keep = helper.make_node("Identity", ["keep_in"], ["keep_out"])
    boolean = [helper.make_tensor_value_info(name, TensorProto.BOOL, []) for name in ("keep_in", "keep_out")]
    body = helper.make_graph(
        [one, keep],
        "body",
        [helper.make_tensor_value_info("turn", TensorProto.INT64, []), boolean[0], value("state_in", ["batch", 3])],
        [boolean[1], value("state_out", ["batch", 3])],
    )

    def edit(model: onnx.ModelProto) -> None:
        model.graph.node[0].output[0] = "before"
        model.graph.initializer.append(helper.make_tensor("turns", TensorProto.INT64, [], [turns]))
        model.graph.node.append(helper.make_node("Loop", ["turns", "", "before"], ["features"], body=body))

    return lambda folder: edit_graph(folder, "encode", edit)


def hungry(folder: Path) -> None:
    """Let the encoder make four terabytes of zeros."""

    def edit(model: onnx.ModelProto) -> None:
        model.graph.node[0].output[0] = "before"
        model.graph.initializer.append(helper.make_tensor("size", TensorProto.INT64, [1], [2**40]))
        model.graph.node.append(helper.make_node("ConstantOfShape", ["size"], ["zeros"]))
        model.graph.node.append(helper.make_node("ReduceSum", ["zeros"], ["nothing"], keepdims=0))
        model.graph.node.append(helper.make_node("Add", ["before", "nothing"], ["features"]))

    edit_graph(folder, "encode", edit)


def _append(*nodes: onnx.NodeProto) -> Callable[[onnx.ModelProto], None]:
    return lambda model: model.graph.node.extend(nodes)


def _inside(*nodes: onnx.NodeProto) -> Callable[[onnx.ModelProto], None]:
    """Put nodes into both branches of an If, one level down."""
    inner = helper.make_graph(list(nodes), "inner", [], [helper.make_tensor_value_info("r", TensorProto.FLOAT, None)])
    return _append(helper.make_node("If", ["yes"], ["unused"], then_branch=inner, else_branch=inner))


def _external(tensor: onnx.TensorProto) -> None:
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../../secret")


def _external_inside(model: onnx.ModelProto) -> None:
    node = helper.make_node("Constant", [], ["r"], value=helper.make_tensor("t", TensorProto.FLOAT, [1], [0.0]))
    _external(node.attribute[0].t)
    _inside(node)(model)


def _function(model: onnx.ModelProto) -> None:
    node = helper.make_node("Identity", ["a"], ["b"])
    model.functions.append(helper.make_function("", "F", ["a"], ["b"], [node], [helper.make_opsetid("", 18)]))


def _loop(*inputs: str) -> Callable[[onnx.ModelProto], None]:
    return _append(helper.make_node("Loop", list(inputs), ["unused"], body=helper.make_graph([], "body", [], [])))


def _unnamed_trip_count(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(helper.make_tensor("", TensorProto.INT64, [], [1]))
    _loop("", "yes")(model)


def _output(name: str, axes: list[int | str], kind: int = TensorProto.FLOAT) -> Callable[[onnx.ModelProto], None]:
    return lambda model: model.graph.output[0].CopyFrom(helper.make_tensor_value_info(name, kind, axes))


def _graph(edit: Callable[[onnx.ModelProto], object], field: str = "encode.onnx", name: str = "encode") -> Broken:
    return Broken(lambda folder: edit_graph(folder, name, edit), field, GraphRefused)


def _bytes(content: bytes) -> Broken:
    return Broken(lambda folder: rewrite(folder, {"encode.onnx": content}), "encode.onnx", GraphRefused)


def _manifest(edit: Callable[[dict[str, Any]], object], field: str = "manifest.json") -> Broken:
    return Broken(lambda folder: rewrite(folder, {}, edit), field)


def _golden(field: str = "golden.npz", **arrays: Any) -> Broken:
    return Broken(lambda folder: edit_golden(folder, **arrays), field)


def _requests(edit: Callable[[list[Any]], Any], field: str = "golden_requests.json[0]") -> Broken:
    return Broken(lambda folder: edit_requests(folder, edit), field)


def _damage_golden(folder: Path) -> None:
    file = io.BytesIO()
    np.savez_compressed(file, **{"encode.in.x": np.zeros((5, 4), np.float32)})
    content = bytearray(file.getvalue())
    content[60:70] = b"\xff" * 10  # inside the compressed stream
    rewrite(folder, {"golden.npz": bytes(content)})


def _flip(folder: Path) -> None:
    content = bytearray((folder / "card.md").read_bytes())
    content[0] ^= 1
    (folder / "card.md").write_bytes(content)


def _link(folder: Path) -> None:
    (folder / "assets").mkdir()
    os.symlink("/etc/hostname", folder / "assets" / "names")


_RANDOM = helper.make_node("RandomNormal", [], ["r"], shape=[1])
_NORM = helper.make_node("BatchNormalization", ["a", "b", "c", "d", "e"], ["r"], training_mode=1)


def _failing(model: onnx.ModelProto) -> None:
    model.graph.node[0].output[0] = "before"
    model.graph.node.append(helper.make_node("Shape", ["x"], ["shape"]))  # not a constant, so it fails when run
    model.graph.node.append(helper.make_node("Concat", ["shape", "shape"], ["nowhere"], axis=0))
    model.graph.node.append(helper.make_node("Gather", ["before", "nowhere"], ["features"], axis=1))


def _nan(model: onnx.ModelProto) -> None:
    model.graph.node[0].output[0] = "before"
    model.graph.node.append(helper.make_node("Sub", ["before", "before"], ["zeros"]))
    model.graph.node.append(helper.make_node("Div", ["zeros", "zeros"], ["features"]))


GRAPHS = {
    "external data": _graph(lambda model: _external(model.graph.initializer[0])),
    "external data in a subgraph": _graph(_external_inside),
    "a custom operator": _graph(_append(helper.make_node("Shell", ["x"], ["r"], domain="com.evil"))),
    "a custom operator in a subgraph": _graph(_inside(helper.make_node("Shell", ["x"], ["r"], domain="com.evil"))),
    "a random operator": _graph(_append(_RANDOM)),
    "a random operator in a subgraph": _graph(_inside(_RANDOM)),
    "a local function": _graph(_function),
    "batch normalisation that trains": _graph(_append(_NORM)),
    "dropout that trains": _graph(_append(helper.make_node("Dropout", ["x", "ratio", "training"], ["r"]))),
    "a loop as often as an input says": _graph(_loop("x")),
    "a loop without a trip count": _graph(_loop()),
    "a loop whose trip count has no name": _graph(_unnamed_trip_count),
    "another name": _graph(_output("feature", ["batch", 3])),
    "another dtype": _graph(_output("features", ["batch", 3], TensorProto.INT64), "encode.onnx: output features"),
    "a frozen batch axis": _graph(_output("features", [2, 3]), "encode.onnx: output features"),
    "another shape": _graph(_output("features", ["batch", 4]), "encode.onnx: output features"),
    "another number of axes": _graph(_output("features", ["batch"]), "encode.onnx: output features"),
    "bytes that are not ONNX": _bytes(b"\xff" * 9),
    "no bytes at all": _bytes(b""),
}
MANIFESTS = {
    "an undeclared key": _manifest(lambda parts: parts.update(autoplay=True), "manifest.json.autoplay"),
    "a later major format": _manifest(lambda parts: parts.update(format="2.0", news=1), "manifest.json.format"),
    "a later minor format": _manifest(lambda parts: parts.update(format="1.3"), "manifest.json.format"),
    "a format of too many digits": _manifest(lambda parts: parts.update(format="9" * 5000 + ".0")),
    "a path out of the folder": _manifest(lambda parts: parts["digests"].update({"../x": "0" * 64})),
    "an absolute path": _manifest(lambda parts: parts["digests"].update({"/etc/passwd": "0" * 64})),
    "a very long path": _manifest(lambda parts: parts["digests"].update({"x" * 5000: "0" * 64})),
    "no digest of a required file": _manifest(lambda parts: parts["digests"].pop("card.md")),
    "an infinite norm": _manifest(lambda parts: parts["limits"].update(norm=float("inf")), "limits.norm"),
    "too many axes": _manifest(lambda parts: parts["state"]["present"].update(axes=[1] * 70 + [8])),
    "an item axis of any length": _manifest(lambda parts: parts["inputs"]["x"].update(axes=["n"])),
    "a wrong number of state bytes": _manifest(lambda parts: parts.update(state_bytes=7)),
    "a base without fixed labels": _manifest(lambda parts: parts.update(accepts=["base"], base="empty-support")),
    "labels that are not in NFC": _manifest(lambda parts: parts["output"].update(labels=["e\u0301", *"abcdefg"])),
    "statistics without summarise": _manifest(lambda parts: parts["graphs"].pop("summarise")),
}
FILES = {
    "a changed byte": Broken(_flip, "card.md"),
    "a missing graph": Broken(lambda folder: (folder / "predict.onnx").unlink(), "predict.onnx"),
    "a missing card": Broken(lambda folder: (folder / "card.md").unlink(), "card.md"),
    "a missing manifest": Broken(lambda folder: (folder / "manifest.json").unlink(), "manifest.json"),
    "a folder in place of a file": Broken(lambda f: ((f / "card.md").unlink(), (f / "card.md").mkdir()), "card.md"),
    "a link out of the folder": Broken(_link, os.path.join("assets", "names")),
    "tasks that are no list": Broken(lambda folder: rewrite(folder, {"tasks.json": b"{}"}), "tasks.json"),
}
RUNS = {
    "an operator that does not exist": _graph(_append(helper.make_node("Frobnicate", ["x"], ["r"]))),
    "another golden output": _golden("predict.onnx", predict__out__y=np.zeros((5, 1, 8), np.float32)),
    "a missing golden array": _golden(encode__in__x=None),
    "a golden array of another shape": _golden(encode__out__features=np.zeros((1, 3), np.float32)),
    "golden arrays of no rows": _golden(
        encode__in__x=np.zeros((0, 4), np.float32), encode__out__features=np.zeros((0, 3), np.float32)
    ),
    "a golden array of another dtype": _golden(encode__in__x=np.zeros((5, 4))),
    "a damaged npz": Broken(_damage_golden, "golden.npz"),
    "no npz": Broken(lambda folder: rewrite(folder, {"golden.npz": b"nothing"}), "golden.npz"),
    "an output that is not a number": Broken(lambda folder: edit_graph(folder, "encode", _nan), "encode.onnx"),
    "a graph that fails": Broken(lambda folder: edit_graph(folder, "encode", _failing), "encode.onnx"),
    "another golden answer": _requests(lambda found: found[0]["answers"][0]["scores"].update(a=0.5)),
    "another golden label": _requests(lambda found: found[0]["answers"][0].update(scores={"z": 1.0})),
    "too few golden answers": _requests(lambda found: [{**found[0], "answers": []}]),
    "golden answers that are not numbers": _requests(lambda found: found[0]["answers"][0].update(scores=["a"])),
    "a golden request that is no object": _requests(lambda found: [7]),
    "a golden input that cannot be read": _requests(lambda found: found[0].update(inputs=["x", "y"])),
    "golden requests of nothing": _requests(lambda found: found[0].update(inputs=[], answers=[])),
    "no golden request": _requests(lambda found: [], "golden_requests.json"),
}
