"""A tiny bundle of format 1.2 whose tasks read columns of their own: a number, one of two labels, any of three.

Inputs are records. A task is named by its id, which says what is asked, and may have metadata beside it, of what. A
support set of numbers adapts the state of the descriptor. Every answer is known from numpy.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto, helper

from .tiny import npz, rewrite
from .tiny_onnx import Array, model

RECORD = [
    {"name": "age", "kind": "number", "minimum": 0, "maximum": 120},
    {"name": "sector", "kind": "category", "categories": ["a", "b"], "unseen": "other", "default": "a"},
    {"name": "hours", "kind": "number", "default": 1},
]
METADATA = [
    {"name": "venue", "kind": "category", "categories": ["u", "v"], "unseen": "other"},
    {"name": "year", "kind": "number", "minimum": 0, "maximum": 50, "default": 3},
]
TASKS: Sequence[Mapping[str, Any]] = (
    {
        "id": "pages",
        "output": {"kind": "number", "calibration": {"shots": [0, 2], "confidence": [0.9, 0.95],
                                                     "quantile": [[1.0, 2.0], [0.5, 3.0]]}},
        "columns": [0, 2], "shots": 1, "metadata": {"venue": "v", "year": 2},
        "evaluation": {"r2": 0.25}, "advice": "Share more.", "description": "How long it is.",
    },
    {
        "id": "good",
        "output": {"kind": "class", "labels": ["yes", "no"],
                   "calibration": {"ways": [2], "shots": [0], "confidence": [0.5, 0.95], "temperature": [[2.0]],
                                   "quantile": [[[0.4, 0.9]]]}},
        "columns": [2, 4], "shots": 5,
    },
    {
        "id": "keys",
        "output": {"kind": "labels", "labels": ["north", "south", "east"],
                   "calibration": {"temperature": 0.5, "threshold": [0.3, 0.6, 0.5]}},
        "columns": [4, 7], "shots": 2, "metadata": {"venue": "u"},
    },
    {"id": "plain-keys", "output": {"kind": "labels", "labels": ["up", "down"]}, "columns": [4, 6], "shots": 0},
    {"id": "rating", "output": {"kind": "number"}, "columns": [1, 3], "shots": 0},
)  # fmt: skip
COLUMNS = 7
_RNG = np.random.default_rng(7)
WEIGHTS = (_RNG.normal(size=(len(TASKS), 3, COLUMNS)) * [[0.02], [0.5], [0.3]]).astype(np.float32)
SHIFTS = (_RNG.normal(size=(2, COLUMNS)) * 0.4).astype(np.float32)
FOLDED = np.array([[0.5, -0.25], [0.1, 0.2], [-1.0, 0.75]], np.float32)
"""What each venue adds, the unknown one last."""

SCALE = np.array([1.0, 0.5], np.float32)
"""Of the members."""

INPUTS: Sequence[Mapping[str, Any]] = ({"age": 40, "sector": "b", "hours": 2}, {"age": 7}, {"age": 90, "sector": "zoo"})
Support = Sequence[tuple[Mapping[str, Any], float]]
SUPPORT: Support = (({"age": 20, "sector": "b"}, 1.5), ({"age": 60}, -0.5), ({"age": 1}, 2))


@dataclass(frozen=True)
class TinyReaders:
    """What varies between these bundles.

    Attributes:
        learns: Whether support sets adapt the state of a task.
        base: Whether the first task is the base, where support sets alone start from.
    """

    name: str = "papers"
    version: int = 1
    learns: bool = True
    base: bool = True

    def x(self, record: Mapping[str, Any]) -> Array:
        """The array of an input."""
        sector = record.get("sector", "a")
        return np.array([record["age"], ("a", "b", sector).index(sector), record.get("hours", 1)], np.float32)

    def shift(self, task: str, metadata: Mapping[str, Any] | None = None) -> Array:
        """What the metadata of a task add."""
        (entry,) = (entry for entry in TASKS if entry["id"] == task)
        found = entry.get("metadata") if metadata is None else metadata
        if found is None:
            return np.zeros(2, np.float32)
        return np.asarray(self.of_record(found), np.float32)

    def of_record(self, metadata: Mapping[str, Any]) -> Array:
        """The shift of a record of metadata."""
        venue = metadata["venue"]
        return np.asarray(FOLDED[("u", "v", venue).index(venue)] * np.float32(metadata.get("year", 3) / 10))

    def adapted(self, shift: Array, support: Support) -> Array:
        """The shift after learning from numbers."""
        x = np.array([self.x(record)[0] for record, _ in support], np.float32)
        y = np.array([label for _, label in support], np.float32)
        return np.asarray(shift + np.array([y.sum(), x.sum() / 100], np.float32) / np.float32(1 + len(support)))

    def y(self, task: str, shift: Array, records: Sequence[Mapping[str, Any]]) -> Array:
        """Every column, `[n, members, columns]`."""
        index = [entry["id"] for entry in TASKS].index(task)
        x = np.array([self.x(record) for record in records], np.float32)
        first = x @ WEIGHTS[index] + shift @ SHIFTS
        return np.asarray(first[:, None] * SCALE[:, None])

    def answers(
        self,
        task: str,
        records: Sequence[Mapping[str, Any]] = INPUTS,
        metadata: Mapping[str, Any] | None = None,
        support: Support = (),
    ) -> list[dict[str, Any]]:
        """What the service must answer: the parts of a prediction that are numbers."""
        (entry,) = (entry for entry in TASKS if entry["id"] == task)
        shift = self.shift(task, metadata)
        shift = self.adapted(shift, support) if support else shift
        first, end = entry["columns"]
        y = self.y(task, shift, records)[..., first:end].astype(np.float64)
        output = entry["output"]
        shots = len(support) if support else entry["shots"]
        read = {"number": _number, "class": _class, "labels": _labels}[output["kind"]]
        return [{"kind": output["kind"], **read(row, output, shots)} for row in y]


def _number(y: Array, output: Mapping[str, Any], shots: float) -> dict[str, Any]:
    value = y[:, 0].mean()
    deviation = np.sqrt(np.exp(y[:, 1]).mean() + y[:, 0].var())
    table = output.get("calibration")
    half = (table["quantile"][int(shots >= 2)][1] if table else 1.959963984540054) * deviation
    return {"value": float(value), "interval": [float(value - half), float(value + half)]}


def _class(y: Array, output: Mapping[str, Any], shots: float) -> dict[str, Any]:
    raised = np.exp(y / output["calibration"]["temperature"][0][0])
    scores = (raised / raised.sum(-1, keepdims=True)).mean(0)
    return {"scores": dict(zip(output["labels"], map(float, scores), strict=True))}


def _labels(y: Array, output: Mapping[str, Any], shots: float) -> dict[str, Any]:
    table = output.get("calibration") or {"temperature": 1.0, "threshold": [0.5] * len(output["labels"])}
    scores = (1 / (1 + np.exp(-y / table["temperature"]))).mean(0)
    named = sorted(zip(scores, output["labels"], table["threshold"], strict=True), reverse=True)
    return {
        "scores": {label: float(score) for score, label, _ in named},
        "labels": [label for score, label, threshold in named if score >= threshold],
    }


def graphs(tiny: TinyReaders) -> dict[str, ModelProto]:
    """The graphs as ONNX models."""
    state: dict[str, Sequence[int | str]] = {"task": ("batch",), "shift": ("batch", 2)}
    whole = ("index", "task", "prior_task")
    table = np.stack([tiny.shift(entry["id"]) for entry in TASKS])
    same = helper.make_node("Identity", ["index"], ["task"])
    found = {
        "describe.id": model(
            [same, helper.make_node("Gather", ["table", "index"], ["shift"])],
            {"index": ("batch",)}, state, whole, table=table,
        ),
        "describe.metadata": model(
            [same, *_metadata()],
            {"index": ("batch",), "metadata": ("batch", 2)}, state, whole,
            folded=FOLDED, first=np.array(0), year=np.array([1]), ten=np.float32(10),
        ),
        "predict": model(
            _predict(),
            {"x": ("batch", 3), **state}, {"y": ("batch", 2, COLUMNS)}, whole,
            weights=WEIGHTS, shifts=SHIFTS, scale=SCALE.reshape(1, 2, 1), middle=np.array([1]),
        ),
    }  # fmt: skip
    if tiny.learns:
        takes: dict[str, Sequence[int | str]] = {
            "x_s": ("batch", "example", 3), "y_s": ("batch", "example", 1), "weight_s": ("batch", "example"),
            "prior_task": ("batch",), "prior_shift": ("batch", 2),
        }  # fmt: skip
        constants = {"last": np.array([-1]), "middle": np.array([1]), "one": np.float32(1), "age": np.array([0])}
        found["adapt"] = model(_adapt(), takes, state, whole, hundred=np.float32(100), **constants)
    return found


def _metadata() -> list[Any]:
    return [
        helper.make_node("Gather", ["metadata", "first"], ["venue_number"], axis=1),
        helper.make_node("Cast", ["venue_number"], ["venue"], to=TensorProto.INT64),
        helper.make_node("Gather", ["folded", "venue"], ["of_venue"]),
        helper.make_node("Gather", ["metadata", "year"], ["years"], axis=1),
        helper.make_node("Div", ["years", "ten"], ["tenths"]),
        helper.make_node("Mul", ["of_venue", "tenths"], ["shift"]),
    ]


def _predict() -> list[Any]:
    return [
        helper.make_node("Gather", ["weights", "task"], ["own"]),
        helper.make_node("Unsqueeze", ["x", "middle"], ["row"]),
        helper.make_node("MatMul", ["row", "own"], ["products"]),
        helper.make_node("MatMul", ["shift", "shifts"], ["moved"]),
        helper.make_node("Unsqueeze", ["moved", "middle"], ["moved_row"]),
        helper.make_node("Add", ["products", "moved_row"], ["first_member"]),
        helper.make_node("Mul", ["first_member", "scale"], ["y"]),
    ]


def _adapt() -> list[Any]:
    return [
        helper.make_node("Identity", ["prior_task"], ["task"]),
        helper.make_node("Unsqueeze", ["weight_s", "last"], ["weight"]),
        helper.make_node("Gather", ["x_s", "age"], ["ages"], axis=2),
        helper.make_node("Div", ["ages", "hundred"], ["centuries"]),
        helper.make_node("Concat", ["y_s", "centuries"], ["both"], axis=2),
        helper.make_node("Mul", ["both", "weight"], ["weighted"]),
        helper.make_node("ReduceSum", ["weighted", "middle"], ["sums"], keepdims=0),
        helper.make_node("ReduceSum", ["weight_s", "last"], ["count"], keepdims=1),
        helper.make_node("Add", ["count", "one"], ["divisor"]),
        helper.make_node("Div", ["sums", "divisor"], ["step"]),
        helper.make_node("Add", ["prior_shift", "step"], ["shift"]),
    ]


def build(root: Path, tiny: TinyReaders = TinyReaders()) -> Path:
    """Write the bundle to `<root>/<name>/<version>/`."""
    folder = root / tiny.name / str(tiny.version)
    folder.mkdir(parents=True)
    files = {f"{name}.onnx": graph.SerializeToString() for name, graph in graphs(tiny).items()}
    files |= {"tasks.json": json.dumps(TASKS).encode(), "card.md": b"# Tiny", "golden.npz": golden(tiny)}
    files["golden_requests.json"] = json.dumps(golden_requests(tiny)).encode()
    (folder / "manifest.json").write_text(json.dumps(manifest(tiny)), encoding="utf-8")
    rewrite(folder, files)
    return folder


def manifest(tiny: TinyReaders) -> dict[str, Any]:
    """The manifest without digests."""
    tensor = {"dtype": "float32", "axes": [3]}
    alone = [*(["base"] if tiny.base else []), *(["support"] if tiny.base and tiny.learns else [])]
    return {
        "format": "1.2",
        "name": tiny.name,
        "version": tiny.version,
        "description": "Five tasks of records.",
        "inputs": {"x": {**tensor, "kind": "record", "record": {"fields": RECORD}}},
        "features": {"x": tensor},
        "state": {"task": {"dtype": "int64", "axes": []}, "shift": {"dtype": "float32", "axes": [2]}},
        "state_bytes": 16,
        "accepts": ["task", *(["task+support"] if tiny.learns else []), *alone],
        "base": {"task": "pages"} if tiny.base else None,
        "descriptors": {"metadata": {"record": {"fields": METADATA}, "beside_id": True}},
        "support": {"kind": "number"} if tiny.learns else None,
        "output": {"kind": "task", "members": 2, "columns": COLUMNS},
        "limits": {"examples": 10} if tiny.learns else {},
        "invariant": ["order"] if tiny.learns else [],
        "graphs": {name: {"file": f"{name}.onnx", "tolerance": 1e-5} for name in graphs(tiny)},
        "digests": {},
    }


def golden(tiny: TinyReaders) -> bytes:
    """`golden.npz`, from numpy."""
    index = np.arange(len(TASKS))
    table = np.stack([tiny.shift(entry["id"]) for entry in TASKS])
    x = np.array([tiny.x(INPUTS[place % 3]) for place in index], np.float32)
    metadata = np.array([[0, 1], [1, 2], [2, 3], [0, 4], [1, 5]], np.float32)
    described = FOLDED[metadata[:, 0].astype(int)] * (metadata[:, 1:] / 10)
    x_s = np.array([[tiny.x(record) for record, _ in SUPPORT]], np.float32)
    y_s = np.array([[[label] for _, label in SUPPORT]], np.float32)
    y = np.concatenate([tiny.y(entry["id"], table[place], [INPUTS[place % 3]]) for place, entry in enumerate(TASKS)])
    edges: dict[str, Any] = {
        "describe.id": ({"index": index}, {"task": index, "shift": table}),
        "describe.metadata": ({"index": index, "metadata": metadata}, {"task": index, "shift": described}),
        "predict": ({"x": x, "task": index, "shift": table}, {"y": y}),
        "adapt": (
            {"x_s": x_s, "y_s": y_s, "weight_s": np.ones((1, 3), np.float32),
             "prior_task": index[:1], "prior_shift": table[:1]},
            {"task": index[:1], "shift": tiny.adapted(table[0], SUPPORT)[None]},
        ),
    }  # fmt: skip
    return npz(
        {
            f"{graph}.{way}.{name}": array
            for graph in graphs(tiny)
            for way, edge in zip(("in", "out"), edges[graph], strict=True)
            for name, array in edge.items()
        }
    )


def golden_requests(tiny: TinyReaders) -> list[dict[str, Any]]:
    """`golden_requests.json`: every task by its id, several with metadata, and a support set beside a task."""
    ids, metadata = ["keys", "pages"], {"venue": "v", "year": 5}
    both = [tiny.answers(task, metadata=metadata) for task in ids]
    requests: list[dict[str, Any]] = [
        {"task": {"id": entry["id"]}, "answers": tiny.answers(entry["id"])} for entry in TASKS
    ]
    requests.append(
        {"task": {"ids": ids, "metadata": metadata}, "answers": [a for row in zip(*both, strict=True) for a in row]}
    )
    if tiny.learns:
        task = {"id": "pages", "metadata": metadata}
        examples = [{"input": record, "label": label} for record, label in SUPPORT]
        answers = tiny.answers("pages", metadata=metadata, support=SUPPORT)
        requests.append({"task": task, "support": examples, "answers": answers})
    return [{**request, "inputs": list(INPUTS), "tolerance": 1e-4} for request in requests]
