"""Golden vectors and golden requests: what the training pipeline answers, for the service to be held to."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from handful_service.bundle.manifest import Calibration, GraphName
from handful_service.task import Arrays

from .runner import Runner, adapt

SCORE_TOLERANCE = 1e-3
"""Of golden requests: processors differ in the last digits of a convolution."""


@dataclass(frozen=True, slots=True)
class RawEpisode:
    """A small task in both forms: as a client would send it, and as the training pipeline sees it.

    Attributes:
        support: Raw inputs with their labels.
        queries: Raw inputs.
        support_inputs: Arrays `[example, *input]` of the same support set.
        query_inputs: Arrays `[query, *input]` of the same queries.
    """

    support: Sequence[tuple[Any, str]]
    queries: Sequence[Any]
    support_inputs: Arrays
    query_inputs: Arrays


def golden_vectors(torch: Runner, inputs: Arrays, ways: int) -> bytes:
    """`golden.npz`: inputs of every graph and what torch gives for them.

    Args:
        torch: The learner.
        inputs: Arrays `[n, *input]`, the support set of a task of `n` examples, and its queries.
        ways: Ways that a state holds.
    """
    features = torch.run("encode", inputs)
    examples = len(next(iter(features.values())))
    y = np.arange(examples, dtype=np.int64)[None] % min(ways, examples)
    weight = np.ones((1, examples), np.float32)
    weight[0, -1] = 0
    support = {**{f"{name}_s": array[None] for name, array in features.items()}, "y_s": y, "weight_s": weight}
    state = adapt(torch, support)
    rows = {**features, **{name: np.repeat(array, examples, axis=0) for name, array in state.items()}}
    edges: dict[GraphName, tuple[Arrays, Arrays]] = {
        "encode": (inputs, features),
        "adapt": (support, state),
        "predict": (rows, torch.run("predict", rows)),
    }
    if torch.additive:
        statistics = torch.run("summarise", support)
        edges |= {"summarise": (support, statistics), "adapt": (statistics, state)}
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
    torch: Runner, episodes: Sequence[RawEpisode], ways: int, calibration: Calibration | None
) -> list[dict[str, Any]]:
    """`golden_requests.json`: raw requests and the scores that the training pipeline gives them."""
    return [_request(torch, episode, ways, calibration) for episode in episodes]


def _request(torch: Runner, episode: RawEpisode, ways: int, calibration: Calibration | None) -> dict[str, Any]:
    labels = list(dict.fromkeys(label for _, label in episode.support))
    y = np.array([labels.index(label) for _, label in episode.support], np.int64)
    features = torch.run("encode", episode.support_inputs)
    support = {
        **{f"{name}_s": array[None] for name, array in features.items()},
        "y_s": y[None],
        "weight_s": np.ones((1, len(y)), np.float32),
    }
    state = adapt(torch, support)
    queries = torch.run("encode", episode.query_inputs)
    rows = len(episode.queries)
    repeated = {name: np.repeat(array, rows, axis=0) for name, array in state.items()}
    logits = torch.run("predict", {**queries, **repeated})["y"][..., : len(labels)].astype(np.float64)
    temperature = 1.0
    if calibration is not None:
        row, column = calibration.cell(len(labels), float(np.bincount(y).min()))
        temperature = calibration.temperature[row][column]
    raised = np.exp((logits - logits.max(-1, keepdims=True)) / temperature)
    scores = (raised / raised.sum(-1, keepdims=True)).mean(1)
    return {
        "support": [{"input": raw, "label": label} for raw, label in episode.support],
        "inputs": list(episode.queries),
        "answers": [_answer(row, labels) for row in scores],
        "tolerance": SCORE_TOLERANCE,
    }


def _answer(scores: np.ndarray, labels: Sequence[str]) -> Mapping[str, Any]:
    by_label = {label: round(float(score), 6) for label, score in zip(labels, scores, strict=True)}
    return {"label": labels[int(scores.argmax())], "scores": by_label}
