"""The same graphs as Handful bundles, and the files of the peers, written into one folder."""

import hashlib
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from loadtests.peers import graphs
from loadtests.peers.graphs import FILTERS, GIVEN, LABELS, PIXELS, Array

NAMES = [f"label-{number}" for number in range(LABELS)]
TOLERANCE = 1e-4
USERS_WIDTH = 128
"""Features where there are very many users: about 5 kB a state."""

Edges = tuple[dict[str, Array], dict[str, Array]]


def write(folder: Path, users: int) -> None:
    """Write `graphs/` for the peers and `bundles/` for Handful; what is there is replaced."""
    shared = folder / "graphs"
    shared.mkdir(parents=True, exist_ok=True)
    for name, content in graphs.shared_graphs().items():
        (shared / name).write_bytes(content)
    trunk = session((shared / "trunk.onnx").read_bytes())
    np.savez(shared / "heads.npz", **stacked(users, GIVEN, lambda rows: rows))
    np.savez(shared / "conv4-heads.npz", **stacked(users, PIXELS, lambda rows: trunk.run(None, {"x": rows})[0]))
    for name, head in templates().items():
        np.savez(shared / f"template-{name}.npz", **head)
    for name, made in {"mlp": fixed("mlp"), "conv4": fixed("conv4"), **personal()}.items():
        write_bundle(folder / "bundles" / name, name, *made)


def templates() -> dict[str, dict[str, Array]]:
    """The heads inside the graphs that a user's session is made of: their bytes are replaced by those of the user."""
    user, everyone = graphs.user_head(0, GIVEN), graphs.weights()
    return {
        "heads": {"head": user["weight"], "head_bias": user["bias"]},
        "conv4-heads": {"head": everyone["head"], "head_bias": everyone["head_bias"]},
    }


def stacked(users: int, width: int, encode: Any) -> dict[str, Array]:
    """The heads of all users: `weight [users, 10, d]`, `bias [users, 10]`."""
    heads = [graphs.head_of(encode(graphs.support(user, width))) for user in range(users)]
    return {name: np.stack([head[name] for head in heads]) for name in heads[0]}


def session(content: bytes) -> Any:
    """A session of one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def ran(content: bytes, inputs: dict[str, Array]) -> dict[str, Array]:
    """The outputs of a graph, by name."""
    made = session(content)
    names = [output.name for output in made.get_outputs()]
    return dict(zip(names, made.run(names, inputs), strict=True))


def fixed(name: str) -> tuple[dict[str, Any], dict[str, bytes], list[dict[str, Any]]]:
    """A model that is the same for everyone: its only known task, which is the base, moves no logit.

    Returns:
        The parts of the manifest that differ, the graphs, and golden requests without answers.
    """
    width = {"mlp": GIVEN, "conv4": PIXELS}[name]
    nodes = {"mlp": graphs.mlp_nodes, "conv4": graphs.conv4_nodes}[name]("logits")
    offset = {"offset": ("batch", LABELS)}
    files = {
        "describe.id": graphs.model(graphs.describe_nodes(), {"index": ("batch",)}, offset),
        "predict": graphs.model(
            graphs.offset_nodes(nodes), {"x": ("batch", width), **offset}, {"y": ("batch", 1, LABELS)}
        ),
    }
    parts: dict[str, Any] = {
        "inputs": {"x": {**_tensor(width), "kind": "tensor"}},
        "features": {"x": _tensor(width)},
        "state": {"offset": _tensor(LABELS)},
        "accepts": ["base"],
        "base": {"task": "everyone"},
        "limits": {"ways": LABELS},
    }
    return parts, files, [{"inputs": queries(2, width).tolist()}]


def personal() -> dict[str, tuple[dict[str, Any], dict[str, bytes], list[dict[str, Any]]]]:
    """A head for each user, on given features and on the trunk of Conv-4; see `fixed`."""
    return {"heads": _personal(GIVEN, None), "conv4-heads": _personal(PIXELS, "features")}


def write_users(folder: Path) -> int:
    """Write the bundle `users`: a head for each user on `USERS_WIDTH` given features.

    Returns:
        The bytes of a user's state.
    """
    write_bundle(folder / "users", "users", *_personal(USERS_WIDTH, None))
    return 4 * LABELS * (USERS_WIDTH + 1)


def _personal(width: int, encoded: str | None) -> tuple[dict[str, Any], dict[str, bytes], list[dict[str, Any]]]:
    feature, d = (encoded, FILTERS) if encoded else ("x", width)
    examples = {f"{feature}_s": ("batch", "example", d), "y_s": ("batch", "example"), "weight_s": ("batch", "example")}
    statistics = {"sums": ("batch", LABELS, d), "counts": ("batch", LABELS)}
    state = {"weight": ("batch", LABELS, d), "bias": ("batch", LABELS)}
    files = {
        "summarise": graphs.model(graphs.summarise_nodes(feature), examples, statistics),
        "adapt": graphs.model(graphs.adapt_nodes(), statistics, state),
        "predict": graphs.model(
            graphs.head_nodes(feature), {feature: ("batch", d), **state}, {"y": ("batch", 1, LABELS)}
        ),
    }
    if encoded:
        encode = graphs.model(graphs.trunk_nodes(encoded), {"x": ("batch", width)}, {encoded: ("batch", d)})
        files = {"encode": encode, **files}
    parts: dict[str, Any] = {
        "inputs": {"x": {**_tensor(width), "kind": "tensor"}},
        "features": {feature: _tensor(d)},
        "statistics": {"sums": _tensor(LABELS, d), "counts": _tensor(LABELS)},
        "state": {"weight": _tensor(LABELS, d), "bias": _tensor(LABELS)},
        "accepts": ["base", "support"],
        "base": "empty-support",
        "support": {"kind": "class"},
        "limits": {"ways": LABELS, "shots": 100, "examples": 1000},
        "invariant": ["order", "labels"],
    }
    return parts, files, [{"support": labelled(graphs.support(0, width)), "inputs": queries(2, width).tolist()}]


def labelled(rows: Array) -> list[dict[str, Any]]:
    """A support set as a request gives it: one example of each label."""
    return [{"input": decimals(row), "label": name} for row, name in zip(rows, NAMES, strict=True)]


def queries(count: int, width: int) -> Array:
    """Inputs `[count, width]`, float32 with four decimals."""
    return np.random.default_rng([graphs.SEED, 2]).random((count, width)).round(4).astype(np.float32)


def decimals(row: Array) -> list[float]:
    """The numbers of a row, as JSON writes them with four decimals."""
    return [round(float(value), 4) for value in row]


def softmax(logits: Array) -> Array:
    """Probabilities over the last axis, float64."""
    raised = np.exp(logits.astype(np.float64) - logits.max(-1, keepdims=True))
    return np.asarray(raised / raised.sum(-1, keepdims=True))


def write_bundle(
    root: Path, name: str, parts: dict[str, Any], files: Mapping[str, bytes], requests: list[dict[str, Any]]
) -> None:
    """Write version 1 of a bundle to `<root>/1`. Golden outputs are those of ONNX Runtime."""
    folder = root / "1"
    folder.mkdir(parents=True, exist_ok=True)
    golden, answers = golden_of(files, parts, requests[0])
    known = [{"id": "everyone", "shots": 1}] if "describe.id" in files else []
    requests[0] |= {"inputs": [decimals(np.array(row)) for row in requests[0]["inputs"]], "tolerance": TOLERANCE}
    requests[0]["answers"] = [{"scores": dict(zip(NAMES, map(float, row), strict=True))} for row in answers]
    written = {f"{graph}.onnx": content for graph, content in files.items()}
    written |= {"tasks.json": json.dumps(known).encode(), "golden.npz": golden}
    written |= {"golden_requests.json": json.dumps(requests).encode()}
    written["card.md"] = b"# Random weights\n\nFor measurements only.\n"
    for file, content in written.items():
        (folder / file).write_bytes(content)
    manifest = {
        "format": "1.2",
        "name": name,
        "version": 1,
        "description": "Random weights, to measure servers with.",
        **parts,
        "state_bytes": sum(4 * int(np.prod(tensor["axes"])) for tensor in parts["state"].values()),
        "output": {"kind": "class", "labels": NAMES},
        "graphs": {graph: {"file": f"{graph}.onnx", "tolerance": TOLERANCE} for graph in files},
        "digests": {file: hashlib.sha256(content).hexdigest() for file, content in written.items()},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1), encoding="utf-8")


def golden_of(files: Mapping[str, bytes], parts: Mapping[str, Any], request: Mapping[str, Any]) -> tuple[bytes, Array]:
    """`golden.npz`, and the probabilities `[n, 10]` that the request must be answered with."""
    x = np.array(request["inputs"], np.float32)
    (feature,) = parts["features"]
    edges: dict[str, Edges] = {}

    def run(graph: str, inputs: dict[str, Array]) -> dict[str, Array]:
        outputs = ran(files[graph], inputs)
        edges.setdefault(graph, (inputs, outputs))
        return outputs

    def encode(rows: Array) -> Array:
        return run("encode", {"x": rows})[feature] if "encode" in files else rows

    if "describe.id" in files:
        phi = run("describe.id", {"index": np.zeros(1, np.int64)})
    else:
        rows = np.array([example["input"] for example in request["support"]], np.float32)
        shown = {f"{feature}_s": encode(rows)[None], "y_s": np.arange(LABELS)[None]}
        phi = run("adapt", run("summarise", {**shown, "weight_s": np.ones((1, LABELS), np.float32)}))
    states = {name: np.repeat(array, len(x), 0) for name, array in phi.items()}
    y = run("predict", {feature: encode(x), **states})["y"]
    arrays = {
        f"{graph}.{way}.{name}": array
        for graph, edge in edges.items()
        for way, tensors in zip(("in", "out"), edge, strict=True)
        for name, array in tensors.items()
    }
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue(), softmax(y[:, 0])


def _tensor(*axes: int) -> dict[str, Any]:
    return {"dtype": "float32", "axes": list(axes)}
