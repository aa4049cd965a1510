"""Graphs of a learner that knows its tasks: a state from a descriptor, and adapting from such a state."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from handful_models.learner import DescribedLearner, Descriptor, Tensors
from handful_service.bundle.contradictions import PRIOR
from handful_service.bundle.manifest import DESCRIBE_ID, DESCRIBE_METADATA, DESCRIBE_TEXT, GraphName
from handful_service.task import Arrays

from .graphs import encodes, export_encode, export_predict, exported, support_features, tracing_support
from .known import INDEX, describe_graph

DESCRIBES: Mapping[GraphName, Descriptor] = {
    DESCRIBE_ID: "id", DESCRIBE_METADATA: "metadata", DESCRIBE_TEXT: "text",
}  # fmt: skip


def described(learner: DescribedLearner, graph: GraphName, tensors: Tensors) -> Tensors | None:
    """What a learner gives for a graph that only one with known tasks has; None for any other graph."""
    if graph in DESCRIBES:
        return learner.describe(DESCRIBES[graph], tensors)
    if graph == "adapt" and learner.learns:
        return _adapted(learner, tensors)
    return None


def _adapted(learner: DescribedLearner, tensors: Tensors) -> Tensors:
    prior = {name.removeprefix(PRIOR): value for name, value in tensors.items() if name.startswith(PRIOR)}
    support = {name: value for name, value in tensors.items() if not name.startswith(PRIOR)}
    return learner.adapted(prior, support_features(support), support["y_s"], support["weight_s"])


class _Described(nn.Module):
    def __init__(self, learner: DescribedLearner, graph: GraphName) -> None:
        super().__init__()
        self.learner = learner
        self.graph = graph

    def forward(self, inputs: dict[str, Tensor]) -> list[Tensor]:
        found = described(self.learner, self.graph, inputs)
        assert found is not None  # noqa: S101 (for the type checker: it is made for such graphs only)
        return list(found.values())


def states_of(learner: DescribedLearner) -> Arrays:
    """The state of every known task, in order: `[task, *state]`."""
    with torch.no_grad():
        states = learner.describe("id", {INDEX: torch.arange(len(learner.readers))})
    return {name: value.numpy() for name, value in states.items()}


def described_edges(
    learner: DescribedLearner, inputs: Tensors, descriptors: Mapping[Descriptor, Tensors]
) -> dict[str, dict[str, Tensor]]:
    """One pass through a learner: its named tensors at every edge, for `inputs [batch, *input]`.

    Args:
        learner: In evaluation mode.
        inputs: Example inputs.
        descriptors: Of each kind that the learner takes, as `describe` takes them, `[batch, …]`.

    Returns:
        By edge: `inputs`, `features`, `support` (empty where it learns from none), `state`, `y`.
    """
    with torch.no_grad():
        features = dict(learner.encode(inputs))
        state = dict(learner.describe("id", descriptors["id"]))
        y = learner.predict(features, state)
    support = {}
    if learner.learns:
        support = {**tracing_support(learner, features), **{PRIOR + name: value for name, value in state.items()}}
    return {"inputs": dict(inputs), "features": features, "support": support, "state": state, "y": {"y": y}}


def export_described_graphs(
    learner: DescribedLearner, found: Mapping[str, Tensors], descriptors: Mapping[Descriptor, Tensors]
) -> dict[GraphName, bytes]:
    """The ONNX files of a learner in evaluation mode, with what `described_edges` found."""
    names: Sequence[str] = list(found["state"])
    graphs: dict[GraphName, bytes] = {}
    if encodes(found):
        graphs["encode"] = export_encode(learner, found)
    graphs[DESCRIBE_ID] = describe_graph(states_of(learner))
    for graph, kind in DESCRIBES.items():
        if kind != "id" and kind in learner.descriptors:
            graphs[graph] = exported(_Described(learner, graph), descriptors[kind], names)
    if learner.learns:
        examples = [name for name in found["support"] if not name.startswith(PRIOR)]
        graphs["adapt"] = exported(_Described(learner, "adapt"), found["support"], names, examples=examples)
    graphs["predict"] = export_predict(learner, found)
    return graphs
