"""A tiny bundle without torch: prototypes over four numbers, with every answer known from numpy."""

import copy
import hashlib
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .tiny_onnx import ABSENT_LOGIT, MATRIX, WIDTH_IN, Array, onnx_graphs

CALIBRATION = {
    "ways": [2, 4],
    "shots": [1, 3],
    "confidence": [0.5, 0.9],
    "temperature": [[1.0, 2.0], [3.0, 4.0]],
    "quantile": [[[0.3, 0.6], [0.4, 0.7]], [[0.5, 0.8], [0.55, 0.9]]],
}


@dataclass(frozen=True)
class Tiny:
    """What varies between tiny bundles.

    Attributes:
        labels: Fixed labels; then the bundle accepts `base`, too, and has as many ways. None: open labels.
        statistics: Whether adapt takes statistics; else it takes the support set itself.
        encode: Whether there is an encode graph; else features are the inputs.
        members: The logits of member `i` are those of the first times `i + 1`.
    """

    name: str = "tiny"
    version: int = 1
    labels: tuple[str, ...] | None = None
    statistics: bool = True
    encode: bool = True
    members: int = 1
    calibration: Mapping[str, Any] | None = None
    norm: float | None = None
    open_ways: int = 8
    shots: int = 20
    examples: int = 40
    weights: str = "binary"

    @property
    def ways(self) -> int:
        """Ways that a state holds."""
        return self.open_ways if self.labels is None else len(self.labels)

    @property
    def feature(self) -> str:
        """The name of the features."""
        return "features" if self.encode else "x"

    @property
    def width(self) -> int:
        """The length of the features."""
        return MATRIX.shape[1] if self.encode else WIDTH_IN

    def features(self, x: Array) -> Array:
        """Features `[n, width]` of inputs `[n, 4]`."""
        return x @ MATRIX if self.encode else x

    def summary(self, features: Array, y: Array, weight: Array) -> dict[str, Array]:
        """The statistics of one support set: `sums [ways, width]` and `counts [ways]`."""
        assignment = (y[:, None] == np.arange(self.ways)) * weight[:, None]
        return {"sums": (assignment.T @ features).astype(np.float32), "counts": assignment.sum(0).astype(np.float32)}

    def state(self, features: Array, y: Array, weight: Array) -> dict[str, Array]:
        """φ of one support set."""
        found = self.summary(features, y, weight)
        present = (found["counts"] > 0).astype(np.float32)
        divisor = np.where(found["counts"] > 0, found["counts"], 1)
        return {"prototypes": (found["sums"] / divisor[:, None]).astype(np.float32), "present": present}

    def logits(self, features: Array, state: Mapping[str, Array]) -> Array:
        """`y [n, members, ways]` of features `[n, width]` and one state."""
        distance = np.square(features[:, None] - state["prototypes"]).sum(-1)
        present = state["present"]
        first = -distance * present + ABSENT_LOGIT * (1 - present)
        return (first[:, None] * np.arange(1, self.members + 1)[:, None]).astype(np.float32)

    def scores(self, support: Sequence[tuple[Sequence[float], str]], inputs: Array) -> list[dict[str, float]]:
        """What the service must answer, with temperature 1: for each input the score of every label."""
        names = list(self.labels or dict.fromkeys(label for _, label in support))
        x = np.array([row for row, _ in support], np.float32).reshape(-1, WIDTH_IN)
        y = np.array([names.index(label) for _, label in support], np.int64)
        state = self.state(self.features(x), y, np.ones(len(y), np.float32))
        y = self.logits(self.features(np.asarray(inputs, np.float32)), state)[..., : len(names)].astype(np.float64)
        raised = np.exp(y - y.max(-1, keepdims=True))
        mean = (raised / raised.sum(-1, keepdims=True)).mean(1)
        return [dict(zip(names, map(float, row), strict=True)) for row in mean]


def build(root: Path, tiny: Tiny = Tiny()) -> Path:
    """Write the bundle to `<root>/<name>/<version>/`."""
    folder = root / tiny.name / str(tiny.version)
    folder.mkdir(parents=True)
    graphs = onnx_graphs(tiny)
    files = {f"{name}.onnx": model.SerializeToString() for name, model in graphs.items()}
    files |= {"tasks.json": b"[]", "card.md": b"# Tiny", "golden.npz": golden(tiny)}
    files["golden_requests.json"] = json.dumps(golden_requests(tiny)).encode()
    (folder / "manifest.json").write_text(json.dumps(manifest(tiny)), encoding="utf-8")
    rewrite(folder, files)
    return folder


def rewrite(
    folder: Path, files: Mapping[str, bytes], edit: Callable[[dict[str, Any]], object] = lambda parts: None
) -> None:
    """Put files into a bundle with their digests, then edit the manifest."""
    path = folder / "manifest.json"
    parts = json.loads(path.read_bytes())
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
        parts["digests"][name] = hashlib.sha256(content).hexdigest()
    edit(parts)
    path.write_text(json.dumps(parts), encoding="utf-8")


def manifest(tiny: Tiny) -> dict[str, Any]:
    """The manifest without digests."""
    fixed, graphs = tiny.labels is not None, onnx_graphs(tiny)
    return {
        "format": "1.0",
        "name": tiny.name,
        "version": tiny.version,
        "description": "Prototypes over four numbers.",
        "inputs": {"x": {**_tensor(WIDTH_IN), "kind": "tensor"}},
        "features": {tiny.feature: _tensor(tiny.width)},
        "statistics": {"sums": _tensor(tiny.ways, tiny.width), "counts": _tensor(tiny.ways)}
        if tiny.statistics
        else None,
        "state": {"prototypes": _tensor(tiny.ways, tiny.width), "present": _tensor(tiny.ways)},
        "state_bytes": 4 * tiny.ways * (tiny.width + 1),
        "accepts": ["base", "support"] if fixed else ["support"],
        "base": "empty-support" if fixed else None,
        "support": {"kind": "class", "weights": tiny.weights},
        "output": {
            "kind": "class",
            "members": tiny.members,
            "labels": tiny.labels or "open",
            "calibration": copy.deepcopy(tiny.calibration),
        },
        "limits": {"ways": tiny.ways, "shots": tiny.shots, "examples": tiny.examples, "norm": tiny.norm},
        "invariant": ["order", "labels"],
        "graphs": {name: {"file": f"{name}.onnx", "tolerance": 1e-5} for name in graphs},
        "digests": {},
    }


def _tensor(*axes: int) -> dict[str, Any]:
    return {"dtype": "float32", "axes": list(axes)}


def golden(tiny: Tiny) -> bytes:
    """`golden.npz`, from numpy."""
    x = np.random.default_rng(0).normal(size=(5, WIDTH_IN)).astype(np.float32)
    y, weight = np.array([0, 1, 0, 1, 1], np.int64), np.array([1, 1, 1, 1, 0], np.float32)
    features = tiny.features(x)
    state = tiny.state(features, y, weight)
    support = {f"{tiny.feature}_s": features[None], "y_s": y[None], "weight_s": weight[None]}
    statistics = {name: array[None] for name, array in tiny.summary(features, y, weight).items()}
    rows = {tiny.feature: features, **{name: np.repeat(array[None], 5, 0) for name, array in state.items()}}
    edges = {
        "encode": ({"x": x}, {tiny.feature: features}),
        "summarise": (support, statistics),
        "adapt": (statistics if tiny.statistics else support, {name: array[None] for name, array in state.items()}),
        "predict": (rows, {"y": tiny.logits(features, state)}),
    }
    arrays = {
        f"{graph}.{way}.{name}": array
        for graph in onnx_graphs(tiny)
        for way, edge in zip(("in", "out"), edges[graph], strict=True)
        for name, array in edge.items()
    }
    return npz(arrays)


def npz(arrays: Mapping[str, Array]) -> bytes:
    """Arrays as an npz file."""
    file = io.BytesIO()
    np.savez(file, **arrays)  # type: ignore[arg-type]
    return file.getvalue()


def golden_requests(tiny: Tiny) -> list[dict[str, Any]]:
    """`golden_requests.json`: one request, with the answers from numpy."""
    names = (tiny.labels or ("a", "b"))[:2]
    support = [([1.0, 0.0, 0.0, 0.0], names[0]), ([0.0, 1.0, 0.0, 0.5], names[1])]
    inputs = [[0.5, 0.25, 0.0, 0.0], [0.0, 0.5, 0.5, 0.0]]
    plain = Tiny(labels=tiny.labels, encode=tiny.encode, members=tiny.members, open_ways=tiny.open_ways)
    answers = [{"scores": scores} for scores in plain.scores(support, np.array(inputs))]
    if tiny.calibration is not None:  # the cell of two ways and one shot has to have temperature 1
        assert tiny.calibration["temperature"][0][0] == 1
    return [
        {
            "support": [{"input": row, "label": label} for row, label in support],
            "inputs": inputs,
            "answers": answers,
            "tolerance": 1e-5,
        }
    ]
