"""Golden vectors and golden requests of a learner that knows its tasks."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from handful_models.learner import Descriptor
from handful_service.bundle.contradictions import PRIOR
from handful_service.bundle.manifest import GraphName
from handful_service.bundle.outputs import LabelsOutput, NumberOutput, TaskReader
from handful_service.task import Arrays

from .described import RawTask
from .golden import SCORE_TOLERANCE, classes, numbers, repeated, vectors_file
from .runner import Runner, encode, support_feed

ROWS = 3


def described_vectors(
    torch: Runner, inputs: Arrays, descriptors: Mapping[Descriptor, Arrays], y: np.ndarray | None
) -> bytes:
    """`golden.npz`: inputs of every graph and what torch gives for them.

    Args:
        torch: The learner.
        inputs: Arrays `[n, *input]`, of which the first few are taken.
        descriptors: By kind what the describe graph takes for every known task.
        y: The labels of the inputs, where support sets are taken.
    """
    few = {name: array[:ROWS] for name, array in inputs.items()}
    features = encode(torch, few)
    edges: dict[GraphName, tuple[Arrays, Arrays]] = {"encode": (few, features)} if torch.encodes else {}
    for kind, takes in descriptors.items():
        graph = graph_of(kind)
        edges[graph] = (takes, torch.run(graph, takes))
    states = {name: np.resize(array, (ROWS, *array.shape[1:])) for name, array in edges["describe.id"][1].items()}
    edges["predict"] = ({**features, **states}, torch.run("predict", {**features, **states}))
    if y is not None:
        weight = np.ones(ROWS, np.float32)
        weight[-1] = 0
        feed = {**support_feed(features, y[:ROWS], weight), **prior({name: a[:1] for name, a in states.items()})}
        edges["adapt"] = (feed, torch.run("adapt", feed))
    return vectors_file(edges)


def graph_of(kind: Descriptor) -> GraphName:
    """The describe graph of a kind of descriptor."""
    graphs: Mapping[Descriptor, GraphName] = {
        "id": "describe.id", "metadata": "describe.metadata", "text": "describe.text",
    }  # fmt: skip
    return graphs[kind]


def prior(state: Arrays) -> Arrays:
    """A state as adapt takes it, to start from."""
    return {PRIOR + name: array for name, array in state.items()}


def described_request(
    torch: Runner, raw: RawTask, output: TaskReader, columns: tuple[int, int], shots: float
) -> dict[str, Any]:
    """One entry of `golden_requests.json`: a raw request and the answers that the training pipeline gives it.

    Args:
        torch: The learner.
        raw: The request.
        output: How its columns are read.
        columns: Which they are.
        shots: Of its task.
    """
    state = torch.run(graph_of(raw.kind), raw.descriptor)
    if raw.support:
        state = torch.run("adapt", {**_support(torch, raw, output), **prior(state)})
    rows = {**encode(torch, raw.query_inputs), **repeated(state, len(raw.queries))}
    y = torch.run("predict", rows)["y"][..., columns[0] : columns[1]].astype(np.float64)
    support = [{"input": each, "label": label} for each, label in raw.support]
    return {
        "task": dict(raw.task), **({"support": support} if support else {}), "inputs": list(raw.queries),
        "answers": _answers(y, output, len(raw.support) if raw.support else shots), "tolerance": SCORE_TOLERANCE,
    }  # fmt: skip


def _answers(y: np.ndarray, output: TaskReader, shots: float) -> list[dict[str, Any]]:
    if isinstance(output, NumberOutput):
        return numbers(y, output, shots)
    if isinstance(output, LabelsOutput):
        return _labels(y, output)
    return classes(y, list(output.labels), output, shots)


def _labels(y: np.ndarray, output: LabelsOutput) -> list[dict[str, Any]]:
    """Answers of logits `[row, member, label]` of which any may hold."""
    table = output.calibration
    temperature = 1.0 if table is None else table.temperature
    thresholds = np.full(len(output.labels), 0.5) if table is None else np.array(table.threshold)
    scores = (1 / (1 + np.exp(-y / temperature))).mean(1)
    return [
        {
            "kind": "labels",
            "labels": [label for label, holds in zip(output.labels, row >= thresholds, strict=True) if holds],
            "scores": {label: round(float(score), 6) for label, score in zip(output.labels, row, strict=True)},
        }
        for row in scores
    ]


def _support(torch: Runner, raw: RawTask, output: TaskReader) -> Arrays:
    given = [label for _, label in raw.support]
    if isinstance(output, NumberOutput):
        y = np.array(given, np.float32)[:, None]
    else:
        names = list(output.labels)
        y = np.array([names.index(str(label)) for label in given], np.int64)
    return support_feed(encode(torch, raw.support_inputs), y, np.ones(len(given), np.float32))
