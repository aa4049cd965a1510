"""Tiny bundles that know tasks by their ids: the state of each task lies in the describe graph."""

import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from onnx import helper

from .tiny import Tiny, npz, rewrite
from .tiny import build as build_tiny
from .tiny_number import TinyNumber
from .tiny_number import build as build_number
from .tiny_onnx import WIDTH_IN, Array, model

QUERIES = [[0.5, 0.25, 0.0, 0.0], [0.0, 0.5, 0.5, 0.0]]
Support = Sequence[tuple[Sequence[float], Any]]
SUPPORTS: Mapping[str, Support] = {
    "greek": [([1, 0, 0, 0], "alpha"), ([0, 1, 0, 0.5], "beta"), ([0, 0, 2, 0], "gamma")],
    "latin": [([0, 1, 0, 0], "a"), ([1, 0, 0, 0.5], "b")],
}
PRICES: Mapping[str, Support] = {"flats": [([1, 0, 0, 0], 3.0)], "houses": [([1, 0, 0, 0], -3.0), ([0, 1, 0, 0], 1.0)]}


@dataclass(frozen=True)
class TinyTasks:
    """A tiny bundle with known tasks, each with the state of a support set.

    Attributes:
        tiny: The bundle without them.
        learns: Whether it takes support sets, too.
        supports: What each task is made of.
    """

    tiny: Tiny | TinyNumber = field(default_factory=lambda: Tiny(name="scripts"))
    learns: bool = True
    supports: Mapping[str, Support] = field(default_factory=lambda: SUPPORTS)

    @property
    def name(self) -> str:
        return self.tiny.name

    def state(self, task: str) -> dict[str, Array]:
        """φ of a task, from numpy."""
        x = np.array([row for row, _ in self.supports[task]], np.float32).reshape(-1, WIDTH_IN)
        labels, weight = [label for _, label in self.supports[task]], np.ones(len(x), np.float32)
        if isinstance(self.tiny, TinyNumber):
            return self.tiny.state(x, np.array(labels, np.float32), weight)
        names = list(self.tiny.labels or dict.fromkeys(labels))
        return self.tiny.state(self.tiny.features(x), np.array([names.index(label) for label in labels]), weight)

    def answers(self, task: str, inputs: Any = QUERIES) -> Any:
        """What the service must answer: scores by label, or numbers with their intervals."""
        if isinstance(self.tiny, TinyNumber):
            return self.tiny.answers(self.supports[task], np.array(inputs))
        return self.tiny.scores(self.supports[task], np.array(inputs))


def build(root: Path, tasks: TinyTasks = TinyTasks()) -> Path:
    """Write the bundle to `<root>/<name>/<version>/`."""
    folder = build_number(root, tasks.tiny) if isinstance(tasks.tiny, TinyNumber) else build_tiny(root, tasks.tiny)
    states = [tasks.state(task) for task in tasks.supports]
    tables = {name: np.stack([state[name] for state in states]) for name in states[0]}
    nodes = [helper.make_node("Gather", [f"{name}_table", "index"], [name], axis=0) for name in tables]
    whole = ["index", *(name for name, table in tables.items() if table.dtype == np.int64)]
    axes: dict[str, Sequence[int | str]] = {name: ("batch", *table.shape[1:]) for name, table in tables.items()}
    constants = {f"{name}_table": table for name, table in tables.items()}
    graph = model(nodes, {"index": ("batch",)}, axes, whole, **constants)
    listed = [
        {"id": task, "shots": 1, **_labels(tasks, task), "evaluation": {"accuracy": 0.9}, "description": task}
        for task in tasks.supports
    ]
    requests = [
        {"task": {"id": task}, "inputs": QUERIES, "tolerance": 1e-5, "answers": _golden(tasks, task)}
        for task in tasks.supports
    ]
    if tasks.learns:
        requests += json.loads((folder / "golden_requests.json").read_bytes())
    files = {
        "describe.id.onnx": graph.SerializeToString(),
        "tasks.json": json.dumps(listed).encode(),
        "golden.npz": _vectors(folder, tables),
        "golden_requests.json": json.dumps(requests).encode(),
    }
    rewrite(folder, files, _edit(tasks))
    return folder


def edit_tasks(folder: Path, edit: Callable[[list[Any]], Any]) -> None:
    """Change the tasks in place, or for what the function returns."""
    tasks = json.loads((folder / "tasks.json").read_bytes())
    changed = edit(tasks)
    rewrite(folder, {"tasks.json": json.dumps(tasks if changed is None else changed).encode()})


def _labels(tasks: TinyTasks, task: str) -> dict[str, Any]:
    of_bundle = isinstance(tasks.tiny, TinyNumber) or tasks.tiny.labels is not None
    return {} if of_bundle else {"labels": list(dict.fromkeys(label for _, label in tasks.supports[task]))}


def _golden(tasks: TinyTasks, task: str) -> list[dict[str, Any]]:
    if isinstance(tasks.tiny, TinyNumber):
        found = tasks.answers(task)
        return [{"kind": "number", "value": value, "interval": [low, high]} for value, low, high in found]
    return [{"scores": scores} for scores in tasks.answers(task)]


def _vectors(folder: Path, tables: Mapping[str, Array]) -> bytes:
    with np.load(io.BytesIO((folder / "golden.npz").read_bytes())) as golden:
        index = np.array([1, 0, 1], np.int64)
        found = {f"describe.id.out.{name}": table[index] for name, table in tables.items()}
        return npz({**golden, "describe.id.in.index": index, **found})


def _edit(tasks: TinyTasks) -> Callable[[dict[str, Any]], None]:
    def edit(parts: dict[str, Any]) -> None:
        parts.update(format="1.1", accepts=[*parts["accepts"], "task"])
        parts["graphs"]["describe.id"] = {"file": "describe.id.onnx", "tolerance": 1e-5}
        if not tasks.learns:
            parts.update(accepts=["task"], base=None, support=None, statistics=None, invariant=[])
            parts["limits"].update(shots=None, examples=None)
            for graph in ("adapt", "summarise"):
                parts["graphs"].pop(graph, None)

    return edit
