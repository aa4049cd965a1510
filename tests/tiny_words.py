"""A tiny bundle of format 1.2 that reads texts, and whose tasks are described by an id, by metadata, or by a text.

A metadata record says the id in another form, the category `task`, and may tilt the answer. A support set of classes
adapts the state of the descriptor, by statistics. Every answer is known from numpy.
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
from .tiny_text import WORDS, ids, tokenizer_json

TOKENS, DESCRIBED_TOKENS = 6, 3
LABELS = ("ham", "spam")
TASKS: Mapping[str, str] = {"north": "which north", "south": "which south", "pages": "how many pages"}
_RNG = np.random.default_rng(3)
EMBEDDING = _RNG.normal(size=(len(WORDS), 3)).astype(np.float32)
WORDS_BIAS = _RNG.normal(size=(len(WORDS), 4)).astype(np.float32)
HEAD = _RNG.normal(size=(3, 4)).astype(np.float32)
TILT = np.array([[1.0, -0.5, 0.25, 0.5]], np.float32)
OTHER = np.array([0.25, -0.75, 0.5, -0.25], np.float32)
"""The state of a task that the metadata do not know."""

INPUTS: Sequence[str] = ("How many pages", "is it good", "keys zebra north south which how many pages")
SUPPORT: Sequence[tuple[str, str]] = (("is it good", "ham"), ("keys", "ham"), ("pages", "spam"))


def mean(table: Array, text: str, tokens: int) -> Array:
    """The mean of the rows of the words of a text."""
    return np.asarray(table[ids(text)[:tokens]].mean(0))


@dataclass(frozen=True)
class TinyWords:
    """What varies between these bundles.

    Attributes:
        open: Whether callers may name labels beside those of the tasks: there are four ways then, else two.
    """

    name: str = "words"
    version: int = 1
    max_characters: int = 60
    truncate: bool = True
    open: bool = False

    @property
    def ways(self) -> int:
        """Ways that a state holds."""
        return 4 if self.open else 2

    def bias(self, task: Mapping[str, Any]) -> Array:
        """φ of a descriptor."""
        if "text" in task:
            return mean(WORDS_BIAS, task["text"], DESCRIBED_TOKENS)[: self.ways]
        known = [self.bias({"text": text}) for text in TASKS.values()]
        name = task["id"] if "id" in task else task["metadata"]["task"]
        rows = dict(zip(TASKS, known, strict=True))
        tilt = task.get("metadata", {}).get("tilt", 0.0)
        return np.asarray(rows.get(name, OTHER[: self.ways]) + np.float32(tilt) * TILT[0, : self.ways])

    def scores(
        self, task: Mapping[str, Any], texts: Sequence[str] = INPUTS, support: Sequence[tuple[str, str]] = ()
    ) -> list[dict[str, float]]:
        """What the service must answer."""
        names = list(
            dict.fromkeys([*(LABELS if "id" in task or not self.open else ()), *(name for _, name in support)])
        )
        counts = np.array([sum(label == name for _, label in support) for name in names], np.float32)
        y = np.stack([mean(EMBEDDING, text, TOKENS) @ HEAD for text in texts])[:, : len(names)]
        raised = np.exp((y + self.bias(task)[: len(names)] + counts).astype(np.float64))
        return [dict(zip(names, map(float, row / row.sum()), strict=True)) for row in raised]


def graphs(tiny: TinyWords) -> dict[str, ModelProto]:
    """The graphs as ONNX models."""
    ways = tiny.ways
    state: dict[str, Sequence[int | str]] = {"bias": ("batch", ways)}
    statistics: dict[str, Sequence[int | str]] = {"counts": ("batch", ways)}
    support = {"features_s": ("batch", "example", 3), "y_s": ("batch", "example"), "weight_s": ("batch", "example")}
    table = np.stack([tiny.bias({"id": task}) for task in TASKS])
    zero, last, one = np.array(0), np.array([-1]), np.array([1])
    row = helper.make_node("MatMul", ["features", "head"], ["logits"])
    biased = helper.make_node("Add", ["logits", "bias"], ["row"])
    return {
        "encode": model(
            _mean("x", "features"), {"x": ("batch", TOKENS)}, {"features": ("batch", 3)}, ("x",),
            table=EMBEDDING, zero=zero, last=last, middle=one,
        ),
        "describe.text": model(
            _mean("text", "bias"), {"text": ("batch", DESCRIBED_TOKENS)}, state, ("text",),
            table=WORDS_BIAS[:, :ways], zero=zero, last=last, middle=one,
        ),
        "describe.id": model(
            [helper.make_node("Gather", ["table", "index"], ["bias"])],
            {"index": ("batch",)}, state, ("index",), table=table,
        ),
        "describe.metadata": model(
            [
                helper.make_node("Gather", ["metadata", "zero"], ["number"], axis=1),
                helper.make_node("Cast", ["number"], ["place"], to=TensorProto.INT64),
                helper.make_node("Gather", ["table", "place"], ["known"]),
                helper.make_node("Gather", ["metadata", "middle"], ["slope"], axis=1),
                helper.make_node("MatMul", ["slope", "tilt"], ["tilted"]),
                helper.make_node("Add", ["known", "tilted"], ["bias"]),
            ],
            {"metadata": ("batch", 2)}, state,
            table=np.concatenate([table, OTHER[None, :ways]]), zero=zero, middle=one, tilt=TILT[:, :ways],
        ),
        "summarise": model(
            [
                helper.make_node("Unsqueeze", ["y_s", "last"], ["y_column"]),
                helper.make_node("Equal", ["y_column", "ways"], ["is_way"]),
                helper.make_node("Cast", ["is_way"], ["one_hot"], to=TensorProto.FLOAT),
                helper.make_node("Unsqueeze", ["weight_s", "last"], ["weight"]),
                helper.make_node("Mul", ["one_hot", "weight"], ["weighted"]),
                helper.make_node("ReduceSum", ["weighted", "middle"], ["counts"], keepdims=0),
            ],
            support, statistics, ways=np.arange(ways), last=last, middle=one,
        ),
        "adapt": model(
            [helper.make_node("Add", ["prior_bias", "counts"], ["bias"])],
            {**statistics, "prior_bias": ("batch", ways)}, state,
        ),
        "predict": model(
            [row, biased, helper.make_node("Unsqueeze", ["row", "middle"], ["y"])],
            {"features": ("batch", 3), **state}, {"y": ("batch", 1, ways)}, head=HEAD[:, :ways], middle=one,
        ),
    }  # fmt: skip


def _mean(tokens: str, out: str) -> list[Any]:
    """The mean of the rows of a table over the tokens that are not 0."""
    return [
        helper.make_node("Gather", ["table", tokens], ["rows"]),
        helper.make_node("Greater", [tokens, "zero"], ["there"]),
        helper.make_node("Cast", ["there"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "last"], ["mask_column"]),
        helper.make_node("Mul", ["rows", "mask_column"], ["masked"]),
        helper.make_node("ReduceSum", ["masked", "middle"], ["sums"], keepdims=0),
        helper.make_node("ReduceSum", ["mask", "last"], ["count"], keepdims=1),
        helper.make_node("Div", ["sums", "count"], [out]),
    ]


def build(root: Path, tiny: TinyWords = TinyWords()) -> Path:
    """Write the bundle to `<root>/<name>/<version>/`."""
    folder = root / tiny.name / str(tiny.version)
    folder.mkdir(parents=True)
    files = {f"{name}.onnx": graph.SerializeToString() for name, graph in graphs(tiny).items()}
    labels = {"labels": LABELS} if tiny.open else {}
    listed = [
        {"id": task, "shots": 0, "text": text, "metadata": {"task": task}, **labels} for task, text in TASKS.items()
    ]
    files |= {"tasks.json": json.dumps(listed).encode(), "card.md": b"# Tiny", "golden.npz": golden(tiny)}
    files |= {"assets/tokenizer.json": tokenizer_json()}
    files["golden_requests.json"] = json.dumps(golden_requests(tiny)).encode()
    (folder / "manifest.json").write_text(json.dumps(manifest(tiny)), encoding="utf-8")
    rewrite(folder, files)
    return folder


def manifest(tiny: TinyWords) -> dict[str, Any]:
    """The manifest without digests."""
    text = {"max_characters": tiny.max_characters, "truncate": tiny.truncate}
    vector = {"dtype": "float32", "axes": [tiny.ways]}
    fields = [
        {"name": "task", "kind": "category", "categories": list(TASKS), "unseen": "other"},
        {"name": "tilt", "kind": "number", "minimum": -1, "maximum": 1, "default": 0},
    ]
    return {
        "format": "1.2",
        "name": tiny.name,
        "version": tiny.version,
        "description": "Tells two kinds of texts apart, as the task says.",
        "inputs": {"x": {"dtype": "int64", "axes": [TOKENS], "kind": "text", "text": text}},
        "features": {"features": {"dtype": "float32", "axes": [3]}},
        "statistics": {"counts": vector},
        "state": {"bias": vector},
        "state_bytes": 4 * tiny.ways,
        "accepts": ["base", "task", "support", "task+support"],
        "base": {"task": "south"},
        "descriptors": {"metadata": {"record": {"fields": fields}}, "text": {"text": text, "tokens": DESCRIBED_TOKENS}},
        "support": {"kind": "class"},
        "output": {"kind": "class", "labels": "open" if tiny.open else list(LABELS)},
        "limits": {"ways": tiny.ways, "shots": 5, "examples": 8},
        "invariant": ["order"],
        "graphs": {name: {"file": f"{name}.onnx", "tolerance": 1e-5} for name in graphs(tiny)},
        "digests": {},
    }


def golden(tiny: TinyWords) -> bytes:
    """`golden.npz`, from numpy."""
    x, text = _padded(INPUTS, TOKENS), _padded(list(TASKS.values()), DESCRIBED_TOKENS)
    bias = np.stack([tiny.bias({"id": task}) for task in TASKS])
    features = np.stack([mean(EMBEDDING, value, TOKENS) for value in INPUTS])
    metadata = np.array([[0, 0], [3, 1], [2, -0.5]], np.float32)
    tilt = TILT[0, : tiny.ways]
    described = np.stack([bias[0], OTHER[: tiny.ways] + tilt, bias[2] - 0.5 * tilt])
    counts = np.array([[2, 1, 0, 0][: tiny.ways]], np.float32)
    support = {"features_s": features[None], "y_s": np.array([[0, 0, 1]]), "weight_s": np.ones((1, 3), np.float32)}
    edges: dict[str, Any] = {
        "encode": ({"x": x}, {"features": features}),
        "describe.id": ({"index": np.arange(3)}, {"bias": bias}),
        "describe.text": ({"text": text}, {"bias": bias}),
        "describe.metadata": ({"metadata": metadata}, {"bias": described.astype(np.float32)}),
        "summarise": (support, {"counts": counts}),
        "adapt": ({"counts": counts, "prior_bias": bias[:1]}, {"bias": bias[:1] + counts}),
        "predict": ({"features": features, "bias": bias}, {"y": (features @ HEAD[:, : tiny.ways] + bias)[:, None]}),
    }
    return npz(
        {
            f"{graph}.{way}.{name}": array
            for graph in graphs(tiny)
            for way, edge in zip(("in", "out"), edges[graph], strict=True)
            for name, array in edge.items()
        }
    )


def _padded(texts: Sequence[str], tokens: int) -> Array:
    return np.array([(ids(text) + [0] * tokens)[:tokens] for text in texts])


def golden_requests(tiny: TinyWords) -> list[dict[str, Any]]:
    """`golden_requests.json`: a task in each form, alone and beside a support set."""
    tasks: Sequence[dict[str, Any]] = ({"id": "north"}, {"metadata": {"task": "x", "tilt": 0.5}}, {"text": "how good"})
    examples = [{"input": text, "label": label} for text, label in SUPPORT]
    found, inputs = [], INPUTS if tiny.truncate else INPUTS[:2]
    for task in tasks:
        for support in (SUPPORT,) if tiny.open and "id" not in task else ((), SUPPORT):
            answers = [{"scores": scores} for scores in tiny.scores(task, inputs, support)]
            learned = {"support": examples} if support else {}
            found.append({"task": task, **learned, "inputs": list(inputs), "answers": answers, "tolerance": 1e-4})
    return found
