"""A tiny bundle that predicts numbers: a slope for each of four numbers, with every answer known from numpy."""

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from .tiny import npz, rewrite
from .tiny_onnx import WIDTH_IN, Array, model

INTERVALS = {"shots": [1, 3], "confidence": [0.5, 0.9], "quantile": [[1.0, 3.0], [0.5, 1.5]]}
GOLDEN_SUPPORT = [([1.0, 0.0, 0.0, 0.0], 3.0), ([0.0, 1.0, 0.0, 0.5], -1.5)]
Support = Sequence[tuple[Sequence[float], float]]


@dataclass(frozen=True)
class TinyNumber:
    """What varies between tiny bundles that predict numbers.

    Attributes:
        statistics: Whether adapt takes statistics; else it takes the support set itself.
        members: Member `i` has the mean of the first times `i + 1`, and its log-variance plus `i`.
        base: Whether the empty support set is the base.
    """

    name: str = "numbers"
    version: int = 1
    statistics: bool = True
    members: int = 1
    calibration: Mapping[str, Any] | None = None
    base: bool = True
    weights: str = "binary"
    examples: int = 40

    def summary(self, x: Array, y: Array, weight: Array) -> dict[str, Array]:
        """The statistics of one support set: `xy [4]`, `xx [4]` and `count [1]`."""
        return {
            "xy": (x * (y * weight)[:, None]).sum(0).astype(np.float32),
            "xx": (x * x * weight[:, None]).sum(0).astype(np.float32),
            "count": weight.sum(keepdims=True).astype(np.float32),
        }

    def state(self, x: Array, y: Array, weight: Array) -> dict[str, Array]:
        """φ of one support set: `slope [4]`, and `seen [1]`, which is int64."""
        found = self.summary(x, y, weight)
        return {"slope": found["xy"] / (1 + found["xx"]), "seen": found["count"].astype(np.int64)}

    def columns(self, x: Array, state: Mapping[str, Array]) -> Array:
        """`y [n, members, 2]` of inputs `[n, 4]` and one state."""
        member = np.arange(self.members)
        mean = (x * state["slope"]).sum(-1)[:, None] * (member + 1)
        log_variance = np.broadcast_to(-np.log(1 + state["seen"]) + member, mean.shape)
        return np.stack([mean, log_variance], -1).astype(np.float32)

    def answers(self, support: Support, inputs: Array, confidence: float = 0.95) -> list[tuple[float, float, float]]:
        """What the service must answer: for each input the value and the ends of its interval."""
        x = np.array([row for row, _ in support], np.float32).reshape(-1, WIDTH_IN)
        y = np.array([label for _, label in support], np.float32)
        state = self.state(x, y, np.ones(len(y), np.float32))
        columns = self.columns(np.asarray(inputs, np.float32), state).astype(np.float64)
        value = columns[..., 0].mean(1)
        spread = np.sqrt(np.exp(columns[..., 1]).mean(1) + columns[..., 0].var(1))
        half = self.half_width(len(support), confidence) * spread
        return [tuple(map(float, row)) for row in np.stack([value, value - half, value + half], 1)]  # type: ignore[misc]

    def half_width(self, shots: float, confidence: float) -> float:
        """Half the width of an interval, in standard deviations."""
        normal = NormalDist().inv_cdf((1 + confidence) / 2)
        if self.calibration is None:
            return normal
        row = self.calibration["quantile"][1 if shots >= self.calibration["shots"][1] else 0]
        levels = [place for place, level in enumerate(self.calibration["confidence"]) if level >= confidence]
        return float(row[levels[0]]) if levels else max(float(row[-1]), normal)


def graphs(tiny: TinyNumber) -> dict[str, onnx.ModelProto]:
    """The graphs as ONNX models."""
    support = {"x_s": ("batch", "example", WIDTH_IN), "y_s": ("batch", "example", 1), "weight_s": ("batch", "example")}
    statistics = {"xy": ("batch", WIDTH_IN), "xx": ("batch", WIDTH_IN), "count": ("batch", 1)}
    state = {"slope": ("batch", WIDTH_IN), "seen": ("batch", 1)}
    constants: dict[str, Any] = {
        "one": np.float32(1),
        "first": np.array([1], np.int64),
        "last": np.array([-1], np.int64),
        "scale": np.arange(1, tiny.members + 1, dtype=np.float32).reshape(1, -1, 1),
        "shift": np.arange(tiny.members, dtype=np.float32).reshape(1, -1, 1),
        "whole": ("seen",),
    }
    found = {"predict": model(_predict(), {"x": ("batch", WIDTH_IN), **state}, _y(tiny), **constants)}
    if tiny.statistics:
        found["summarise"] = model(_summarise(), support, statistics, **constants)
        found["adapt"] = model(_adapt(), statistics, state, **constants)
    else:
        found["adapt"] = model([*_summarise(), *_adapt()], support, state, **constants)
    return found


def _y(tiny: TinyNumber) -> dict[str, Sequence[int | str]]:
    return {"y": ("batch", tiny.members, 2)}


def _summarise() -> list[onnx.NodeProto]:
    return [
        helper.make_node("Unsqueeze", ["weight_s", "last"], ["weight"]),
        helper.make_node("Mul", ["y_s", "weight"], ["weighted"]),
        helper.make_node("Mul", ["x_s", "weighted"], ["products"]),
        helper.make_node("ReduceSum", ["products", "first"], ["xy"], keepdims=0),
        helper.make_node("Mul", ["x_s", "x_s"], ["squares"]),
        helper.make_node("Mul", ["squares", "weight"], ["weighted_squares"]),
        helper.make_node("ReduceSum", ["weighted_squares", "first"], ["xx"], keepdims=0),
        helper.make_node("ReduceSum", ["weight_s", "first"], ["count"], keepdims=1),
    ]


def _adapt() -> list[onnx.NodeProto]:
    return [
        helper.make_node("Add", ["xx", "one"], ["divisor"]),
        helper.make_node("Div", ["xy", "divisor"], ["slope"]),
        helper.make_node("Cast", ["count"], ["seen"], to=TensorProto.INT64),
    ]


def _predict() -> list[onnx.NodeProto]:
    return [
        helper.make_node("Mul", ["x", "slope"], ["product"]),
        helper.make_node("ReduceSum", ["product", "last"], ["mean"], keepdims=1),
        helper.make_node("Unsqueeze", ["mean", "first"], ["mean_member"]),
        helper.make_node("Mul", ["mean_member", "scale"], ["means"]),
        helper.make_node("Cast", ["seen"], ["examples"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["examples", "one"], ["more"]),
        helper.make_node("Log", ["more"], ["precision"]),
        helper.make_node("Neg", ["precision"], ["log_variance"]),
        helper.make_node("Unsqueeze", ["log_variance", "first"], ["log_variance_member"]),
        helper.make_node("Add", ["log_variance_member", "shift"], ["log_variances"]),
        helper.make_node("Concat", ["means", "log_variances"], ["y"], axis=-1),
    ]


def build(root: Path, tiny: TinyNumber = TinyNumber()) -> Path:
    """Write the bundle to `<root>/<name>/<version>/`."""
    folder = root / tiny.name / str(tiny.version)
    folder.mkdir(parents=True)
    files = {f"{name}.onnx": graph.SerializeToString() for name, graph in graphs(tiny).items()}
    files |= {"tasks.json": b"[]", "card.md": b"# Tiny", "golden.npz": golden(tiny)}
    files["golden_requests.json"] = json.dumps(golden_requests(tiny)).encode()
    (folder / "manifest.json").write_text(json.dumps(manifest(tiny)), encoding="utf-8")
    rewrite(folder, files)
    return folder


def manifest(tiny: TinyNumber) -> dict[str, Any]:
    """The manifest without digests."""
    tensor = {"dtype": "float32", "axes": [WIDTH_IN]}
    statistics = {"xy": tensor, "xx": tensor, "count": {"dtype": "float32", "axes": [1]}}
    return {
        "format": "1.1",
        "name": tiny.name,
        "version": tiny.version,
        "description": "Slopes of four numbers.",
        "inputs": {"x": {**tensor, "kind": "tensor"}},
        "features": {"x": tensor},
        "statistics": statistics if tiny.statistics else None,
        "state": {"slope": tensor, "seen": {"dtype": "int64", "axes": [1]}},
        "state_bytes": 4 * WIDTH_IN + 8,
        "accepts": ["base", "support"] if tiny.base else ["support"],
        "base": "empty-support" if tiny.base else None,
        "support": {"kind": "number", "weights": tiny.weights},
        "output": {"kind": "number", "members": tiny.members, "calibration": copy.deepcopy(tiny.calibration)},
        "limits": {"examples": tiny.examples},
        "invariant": ["order"],
        "graphs": {name: {"file": f"{name}.onnx", "tolerance": 1e-5} for name in graphs(tiny)},
        "digests": {},
    }


def golden(tiny: TinyNumber) -> bytes:
    """`golden.npz`, from numpy."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(5, WIDTH_IN)).astype(np.float32), rng.normal(size=5).astype(np.float32)
    weight = np.array([1, 1, 1, 1, 0], np.float32)
    state = {name: array[None] for name, array in tiny.state(x, y, weight).items()}
    statistics = {name: array[None] for name, array in tiny.summary(x, y, weight).items()}
    support = {"x_s": x[None], "y_s": y[None, :, None], "weight_s": weight[None]}
    rows = {"x": x, **{name: np.repeat(array, 5, 0) for name, array in state.items()}}
    edges = {
        "summarise": (support, statistics),
        "adapt": (statistics if tiny.statistics else support, state),
        "predict": (rows, {"y": tiny.columns(x, {name: array[0] for name, array in state.items()})}),
    }
    return npz(
        {
            f"{graph}.{way}.{name}": array
            for graph in graphs(tiny)
            for way, edge in zip(("in", "out"), edges[graph], strict=True)
            for name, array in edge.items()
        }
    )


def golden_requests(tiny: TinyNumber) -> list[dict[str, Any]]:
    """`golden_requests.json`: a support set and, where there is one, the base, with the answers from numpy."""
    inputs = [[0.5, 0.25, 0.0, 0.0], [0.0, 0.5, 0.5, 0.0]]
    requests = [{"support": [{"input": row, "label": label} for row, label in GOLDEN_SUPPORT]}]
    return [
        {**request, "inputs": inputs, "tolerance": 1e-5, "answers": answers}
        for request, support in zip([*requests, {}] if tiny.base else requests, (GOLDEN_SUPPORT, []), strict=False)
        for answers in [
            [
                {"kind": "number", "value": value, "interval": [low, high]}
                for value, low, high in tiny.answers(support, np.array(inputs))
            ]
        ]
    ]
