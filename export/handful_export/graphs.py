"""Graphs of a learner: each of its methods as one ONNX file with symbolic batch and support axes."""

import io
import logging
import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import onnx
import torch
from torch import Tensor, nn
from torch.export import Dim
from torch.fx.experimental.proxy_tensor import make_fx

from handful_models.learner import AdditiveLearner, IterativeLearner, Learner, Tensors
from handful_service.bundle.manifest import GraphName

from .loop import looped

OPSET = 20
BATCH = Dim("batch")
EXAMPLE = Dim("example")

# The support size of the tracing inputs: anything but 0 and 1, which torch.export specialises on.
TRACE_EXAMPLES = 13

TRACE_BATCH = 11
"""Rows of the tracing inputs: a size that ways and labels seldom have, since tracing takes equal sizes for one axis."""


def support_features(support: Tensors) -> dict[str, Tensor]:
    """The features among the tensors of a support set, by the names that the learner knows."""
    return {name.removesuffix("_s"): support[name] for name in support if name not in ("y_s", "weight_s")}


class _Encode(nn.Module):
    def __init__(self, learner: Learner) -> None:
        super().__init__()
        self.learner = learner

    def forward(self, inputs: dict[str, Tensor]) -> list[Tensor]:
        return list(self.learner.encode(inputs).values())


class _Summarise(nn.Module):
    def __init__(self, learner: AdditiveLearner) -> None:
        super().__init__()
        self.learner = learner

    def forward(self, inputs: dict[str, Tensor]) -> list[Tensor]:
        return list(self.learner.summarise(support_features(inputs), inputs["y_s"], inputs["weight_s"]).values())


class _Adapt(nn.Module):
    def __init__(self, learner: AdditiveLearner) -> None:
        super().__init__()
        self.learner = learner

    def forward(self, inputs: dict[str, Tensor]) -> list[Tensor]:
        return list(self.learner.adapt(inputs).values())


class _AdaptToExamples(nn.Module):
    def __init__(self, learner: Learner) -> None:
        super().__init__()
        self.learner = learner

    def forward(self, inputs: dict[str, Tensor]) -> list[Tensor]:
        return list(self.learner.state(support_features(inputs), inputs["y_s"], inputs["weight_s"]).values())


class _Begin(nn.Module):
    def __init__(self, learner: IterativeLearner) -> None:
        super().__init__()
        self.learner = learner

    def forward(self, inputs: dict[str, Tensor]) -> list[Tensor]:
        return list(self.learner.begin(support_features(inputs), inputs["y_s"], inputs["weight_s"]).values())


class _Step(nn.Module):
    """One step, with the support set first and the state after it, in the order of `names`."""

    def __init__(self, learner: IterativeLearner, names: Sequence[str], support: int) -> None:
        super().__init__()
        self.learner = learner
        self.names = tuple(names)
        self.support = support

    def forward(self, *tensors: Tensor) -> list[Tensor]:
        inputs = dict(zip(self.names, tensors, strict=True))
        given = {name: inputs[name] for name in self.names[: self.support]}
        before = {name: inputs[name] for name in self.names[self.support :]}
        after = self.learner.step(support_features(given), given["y_s"], given["weight_s"], before)
        return [after[name] for name in before]


class _Traced(nn.Module):
    """A step as the plain operators that it ran: what it did by `torch.autograd.grad` is among them."""

    def __init__(self, step: nn.Module, takes: Sequence[Tensor]) -> None:
        super().__init__()
        self.graph_module = make_fx(step, tracing_mode="symbolic", _allow_non_fake_inputs=True)(*takes)

    def forward(self, inputs: dict[str, Tensor]) -> list[Tensor]:
        found: list[Tensor] = self.graph_module(*inputs.values())
        return found


class _Predict(nn.Module):
    def __init__(self, learner: Learner, features: Sequence[str]) -> None:
        super().__init__()
        self.learner = learner
        self.features = tuple(features)

    def forward(self, inputs: dict[str, Tensor]) -> list[Tensor]:
        features = {name: inputs[name] for name in self.features}
        state = {name: inputs[name] for name in inputs if name not in self.features}
        return [self.learner.predict(features, state)]


def edges(learner: Learner, inputs: Tensors, state: Tensors | None = None) -> dict[str, dict[str, Tensor]]:
    """One pass through a learner: its named tensors at every edge, for `inputs [batch, *input]`.

    Args:
        learner: In evaluation mode.
        inputs: Example inputs.
        state: States `[batch, *state]` for a learner of known tasks only, which makes none of support sets.

    Returns:
        By edge: `inputs`, `features`, `support`, `statistics` (empty for a learner without), `state`, `y`.
    """
    with torch.no_grad():
        features = dict(learner.encode(inputs))
        support = tracing_support(learner, features)
        given = support_features(support), support["y_s"], support["weight_s"]
        additive = state is None and isinstance(learner, AdditiveLearner)
        statistics = dict(learner.summarise(*given)) if additive and isinstance(learner, AdditiveLearner) else {}
        found = dict(learner.state(*given) if state is None else state)
        y = learner.predict(features, found)
    return {
        "inputs": dict(inputs), "features": features, "support": support,
        "statistics": statistics, "state": found, "y": {"y": y},
    }  # fmt: skip


def tracing_support(learner: Learner, features: Tensors) -> dict[str, Tensor]:
    """A support set of the size that graphs are traced at, for every row of `features [batch, *feature]`."""
    size = (len(next(iter(features.values()))), TRACE_EXAMPLES)
    support = {
        f"{name}_s": value.unsqueeze(1).expand(*size, *value.shape[1:]).clone() for name, value in features.items()
    }
    slots = torch.arange(TRACE_EXAMPLES).remainder(learner.ways)
    numbers = torch.linspace(-1, 1, TRACE_EXAMPLES).unsqueeze(-1)
    y = slots if learner.target == "class" else numbers
    return {**support, "y_s": y.expand(size[0], *y.shape).clone(), "weight_s": torch.ones(size)}


def encodes(found: Mapping[str, Tensors]) -> bool:
    """Whether the features at a learner's `edges` are other than the inputs; if not, there is no graph to export."""
    inputs, features = found["inputs"], found["features"]
    return features.keys() != inputs.keys() or any(features[name] is not inputs[name] for name in inputs)


def export_graphs(learner: Learner, inputs: Tensors, state: Tensors | None = None) -> dict[GraphName, bytes]:
    """The ONNX files of a learner in evaluation mode.

    Args:
        learner: The trained learner.
        inputs: Example inputs, each `[2, *input]`.
        state: States `[2, *state]` for a learner of known tasks only: it has no `adapt`.
    """
    learner.eval()
    found = edges(learner, inputs, state)
    graphs: dict[GraphName, bytes] = {}
    if encodes(found):
        graphs["encode"] = export_encode(learner, found)
    if state is None:
        graphs |= _export_adapting(learner, found)
    graphs["predict"] = export_predict(learner, found)
    return graphs


def export_encode(learner: Learner, found: Mapping[str, Tensors]) -> bytes:
    """The ONNX file of `encode`, with what `edges` found."""
    return _export(_Encode(learner), found["inputs"], found["features"])


def export_predict(learner: Learner, found: Mapping[str, Tensors]) -> bytes:
    """The ONNX file of `predict`, with what `edges` found."""
    features = found["features"]
    return _export(_Predict(learner, list(features)), {**features, **found["state"]}, found["y"])


def exported(module: nn.Module, takes: Tensors, gives: Sequence[str], *, examples: Collection[str] = ()) -> bytes:
    """The ONNX file of a module of named tensors; those in `examples` have the axis of a support set's examples."""
    return _stripped(_program(module, takes, gives, examples=examples))


def _export_adapting(learner: Learner, found: Mapping[str, Tensors]) -> dict[GraphName, bytes]:
    support, statistics, state = found["support"], found["statistics"], found["state"]
    graphs: dict[GraphName, bytes] = {}
    if isinstance(learner, AdditiveLearner):
        graphs["summarise"] = _export(_Summarise(learner), support, statistics, examples=True)
        graphs["adapt"] = _export(_Adapt(learner), statistics, state)
    elif isinstance(learner, IterativeLearner):
        graphs["adapt"] = _export_loop(learner, support, state)
    else:
        graphs["adapt"] = _export(_AdaptToExamples(learner), support, state, examples=True)
    return graphs


def _export_loop(learner: IterativeLearner, support: Tensors, state: Tensors) -> bytes:
    """`begin`, and one `step` in a loop of constant length: five steps unrolled do not export in reasonable time."""
    begin = _program(_Begin(learner), support, list(state), examples=support)
    takes = {**support, **state}
    with _quiet():
        step = _Traced(_Step(learner, list(takes), len(support)), [value.clone() for value in takes.values()])
    body = _program(step, takes, [f"next_{name}" for name in state], examples=support)
    return _stripped(looped(begin, body, steps=learner.steps, state=list(state)))


def _export(
    module: nn.Module, takes: Mapping[str, Tensor], gives: Mapping[str, Tensor], *, examples: bool = False
) -> bytes:
    return _stripped(_program(module, takes, list(gives), examples=takes if examples else ()))


def _program(
    module: nn.Module, takes: Mapping[str, Tensor], gives: Sequence[str], *, examples: Collection[str]
) -> onnx.ModelProto:
    """The ONNX form of a module; the inputs named in `examples` have the axis of a support set's examples."""
    shapes = {name: {0: BATCH, 1: EXAMPLE} if name in examples else {0: BATCH} for name in takes}
    with _quiet():
        program = torch.onnx.export(
            module,
            kwargs={"inputs": dict(takes)},
            dynamo=True,
            dynamic_shapes={"inputs": shapes},
            input_names=list(takes),
            output_names=list(gives),
            opset_version=OPSET,
            verbose=False,
        )
    if program is None:
        raise RuntimeError("torch.onnx.export gave no program")
    model: onnx.ModelProto = program.model_proto
    return model


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's warnings of its own deprecations and its progress."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _stripped(model: onnx.ModelProto) -> bytes:
    """The model without notes of the machine that made it, and without words that only people would read.

    Stack traces and paths go; so do the names of nodes, the shapes of inner values and their long names, which are a
    good part of a graph of many small nodes. Weights keep their names.
    """
    graph = model.graph
    parts: list[Any] = [model, graph, *graph.node, *graph.initializer, *graph.input, *graph.output, *graph.value_info]
    for part in parts:
        part.doc_string = ""
        del part.metadata_props[:]
    del graph.value_info[:]
    kept = {value.name for value in graph.output}
    inner = (name for node in graph.node for name in node.output if name and name not in kept)
    _rename(graph.node, {name: f"_{place}" for place, name in enumerate(inner)})
    onnx.checker.check_model(model)
    file = io.BytesIO()
    onnx.save(model, file)
    return file.getvalue()


def _rename(nodes: Iterable[onnx.NodeProto], names: Mapping[str, str]) -> None:
    """Other names of values, also where subgraphs take them; nodes themselves lose theirs."""
    for node in nodes:
        node.name = ""
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
        for attribute in node.attribute:
            for subgraph in (attribute.g, *attribute.graphs):
                _rename(subgraph.node, names)
                for value in subgraph.output:
                    value.name = names.get(value.name, value.name)
