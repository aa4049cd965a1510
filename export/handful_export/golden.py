"""Golden vectors and golden requests: what the training pipeline answers, for the service to be held to."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from handful_service.bundle.manifest import GraphName
from handful_service.bundle.outputs import ClassOutput, NumberOutput, Output
from handful_service.task import Arrays

from .known import DESCRIBE_ID, INDEX, KnownTasks
from .runner import Runner, adapt, encode, support_feed

SCORE_TOLERANCE = 1e-3
"""Of golden requests: processors differ in the last digits of a convolution."""

CONFIDENCE = 0.95
"""Of the intervals of golden requests: the service's default."""


@dataclass(frozen=True, slots=True)
class RawEpisode:
    """A small task in both forms: as a client would send it, and as the training pipeline sees it.

    Attributes:
        support: Raw inputs with their labels: strings, or numbers. None at all asks for the answer of the base.
        queries: Raw inputs.
        support_inputs: Arrays `[example, *input]` of the same support set; empty where it is.
        query_inputs: Arrays `[query, *input]` of the same queries.
        task: The id of a known task, instead of a support set.
    """

    support: Sequence[tuple[Any, str | float]]
    queries: Sequence[Any]
    support_inputs: Arrays
    query_inputs: Arrays
    task: str | None = None


def golden_vectors(
    torch: Runner, inputs: Arrays, y: np.ndarray, known: KnownTasks | None = None, *, learns: bool = True
) -> bytes:
    """`golden.npz`: inputs of every graph and what torch gives for them.

    Args:
        torch: The learner.
        inputs: Arrays `[n, *input]`, the support set of a task of `n` examples, and its queries.
        y: Their labels.
        known: The known tasks, if any.
        learns: Whether states are made of support sets.
    """
    features = encode(torch, inputs)
    examples = len(y)
    edges: dict[GraphName, tuple[Arrays, Arrays]] = {"encode": (inputs, features)} if torch.encodes else {}
    if learns:
        weight = np.ones(examples, np.float32)
        weight[-1] = 0
        support = support_feed(features, y, weight)
        states = repeated(adapt(torch, support), examples)
        statistics = torch.run("summarise", support) if torch.additive else support
        edges |= {"summarise": (support, statistics)} if torch.additive else {}
        edges["adapt"] = (statistics, adapt(torch, support))
    else:
        assert known is not None  # noqa: S101 (for the type checker: a model without support sets has them)
        states = {name: np.resize(array, (examples, *array.shape[1:])) for name, array in known.states.items()}
    edges["predict"] = ({**features, **states}, torch.run("predict", {**features, **states}))
    if known is not None:
        index = np.arange(len(known.entries), dtype=np.int64)
        edges[DESCRIBE_ID] = ({INDEX: index}, dict(known.states))
    return vectors_file(edges)


def vectors_file(edges: Mapping[GraphName, tuple[Arrays, Arrays]]) -> bytes:
    """`golden.npz` of what each graph takes and gives."""
    arrays = {
        f"{graph}.{way}.{name}": array
        for graph, (takes, gives) in edges.items()
        for way, tensors in (("in", takes), ("out", gives))
        for name, array in tensors.items()
    }
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)  # type: ignore[arg-type]  # numpy's stub knows allow_pickle among the keywords only
    return file.getvalue()


def golden_requests(
    torch: Runner, episodes: Sequence[RawEpisode], output: Output, known: KnownTasks | None = None
) -> list[dict[str, Any]]:
    """`golden_requests.json`: raw requests and the answers that the training pipeline gives them."""
    return [_request(torch, episode, output, known) for episode in episodes]


def _request(torch: Runner, episode: RawEpisode, output: Output, known: KnownTasks | None) -> dict[str, Any]:
    raw_labels = [label for _, label in episode.support]
    labels = _labels(output, raw_labels, known, episode.task)
    if episode.task is not None and known is not None:
        state, shots = known.state(episode.task), known.shots(episode.task)
    else:
        state, shots = _adapted(torch, episode, output, labels)
    rows = {**encode(torch, episode.query_inputs), **repeated(state, len(episode.queries))}
    y = torch.run("predict", rows)["y"].astype(np.float64)
    if isinstance(output, ClassOutput):
        answers = classes(y[..., : len(labels)], labels, output, shots)
    else:
        assert isinstance(output, NumberOutput)  # noqa: S101 (for the type checker: support sets have no other labels)
        answers = numbers(y, output, shots)
    support = [{"input": raw, "label": label} for raw, label in episode.support]
    return {
        **({"support": support} if support else {}),
        **({"task": {"id": episode.task}} if episode.task is not None else {}),
        "inputs": list(episode.queries),
        "answers": answers,
        "tolerance": SCORE_TOLERANCE,
    }


def _labels(output: Output, support: Sequence[str | float], known: KnownTasks | None, task: str | None) -> list[str]:
    """The label of each slot in use; none for numbers."""
    if not isinstance(output, ClassOutput):
        return []
    if output.labels != "open":
        return list(output.labels)
    if known is not None and task is not None:
        return known.labels(task)
    return list(dict.fromkeys(str(label) for label in support))


def _adapted(torch: Runner, episode: RawEpisode, output: Output, labels: Sequence[str]) -> tuple[Arrays, float]:
    """The state of a support set, and its effective shots."""
    given = [label for _, label in episode.support]
    inputs, weight = episode.support_inputs, np.ones(len(given), np.float32)
    if not given:  # an empty support set is one absent example
        inputs = {name: np.zeros_like(array[:1]) for name, array in episode.query_inputs.items()}
        weight = np.zeros(1, np.float32)
    if isinstance(output, NumberOutput):
        y = np.array(given or [0.0], np.float32)[:, None]
        shots = float(len(given))
    else:
        y = np.array([labels.index(str(label)) for label in given] or [0], np.int64)
        counts = np.bincount(y, weights=weight)
        shots = float(counts[counts > 0].min(initial=np.inf)) if given else 0.0
    return adapt(torch, support_feed(encode(torch, inputs), y, weight)), shots


def classes(logits: np.ndarray, labels: Sequence[str], output: ClassOutput, shots: float) -> list[dict[str, Any]]:
    """Answers of logits `[row, member, label]`."""
    temperature = 1.0
    if output.calibration is not None:
        row, column = output.calibration.cell(len(labels), shots)
        temperature = output.calibration.temperature[row][column]
    raised = np.exp((logits - logits.max(-1, keepdims=True)) / temperature)
    scores = (raised / raised.sum(-1, keepdims=True)).mean(1)
    return [
        {
            "label": labels[int(row.argmax())],
            "scores": {label: round(float(score), 6) for label, score in zip(labels, row, strict=True)},
        }
        for row in scores
    ]


def numbers(y: np.ndarray, output: NumberOutput, shots: float) -> list[dict[str, Any]]:
    """Answers of means and log-variances `[row, member, 2]`."""
    means, variances = y[..., 0], np.exp(y[..., 1])
    value = means.mean(1)
    half = output.half_width(shots, CONFIDENCE) * np.sqrt(variances.mean(1) + means.var(1))
    return [
        {"kind": "number", "value": float(v), "interval": [float(v - h), float(v + h)]}
        for v, h in zip(value, half, strict=True)
    ]


def repeated(state: Arrays, rows: int) -> Arrays:
    """A state of one task for so many rows."""
    return {name: np.repeat(array, rows, axis=0) for name, array in state.items()}
