"""What a manifest may not say of itself: parts that contradict each other."""

from collections.abc import Mapping
from typing import TYPE_CHECKING
from unicodedata import is_normalized

from .outputs import ClassOutput
from .parts import Axis, DType, TensorSpec

if TYPE_CHECKING:
    from .manifest import Manifest

MAX_AXES = 8
RESERVED = frozenset({"y", "weight"})
PRIOR = "prior_"
"""Before the name of a tensor of φ that adapt starts from."""


def contradictions(manifest: "Manifest") -> list[str]:
    """What is wrong, each with the part that it is about; nothing where all parts fit."""
    return [
        *_graph_contradictions(manifest),
        *_tensor_contradictions(manifest),
        *_support_contradictions(manifest),
        *_kind_contradictions(manifest),
        *_task_contradictions(manifest),
        *_descriptor_contradictions(manifest),
        *_label_contradictions(manifest),
        *_format_contradictions(manifest),
    ]


def _graph_contradictions(manifest: "Manifest") -> list[str]:
    found = []
    needed = {"predict"} | ({"adapt"} if manifest.learns else set()) | ({"summarise"} if manifest.statistics else set())
    if missing := needed - set(manifest.graphs):
        found.append(f"graphs: {', '.join(sorted(missing))} missing")
    if manifest.statistics is None and "summarise" in manifest.graphs:
        found.append("statistics: missing, though there is a summarise graph")
    if not manifest.learns and "adapt" in manifest.graphs:
        found.append("graphs: adapt is there, though `accepts` holds neither support nor base")
    if manifest.describes != ("describe.id" in manifest.graphs):
        found.append("graphs: describe.id is given exactly where `accepts` holds task, or the base is one")
    if "encode" not in manifest.graphs and _plain(manifest.features) != _plain(manifest.inputs):
        found.append("features: without an encode graph they are the inputs")
    return found


def _tensor_contradictions(manifest: "Manifest") -> list[str]:
    found = []
    if set(manifest.features) & set(manifest.state):
        found.append("state: a name is also a feature's")
    if RESERVED & set(manifest.features):
        found.append(f"features: {sorted(RESERVED)} stand beside those of a support set")
    priors = {PRIOR + name for name in manifest.state} if manifest.takes_prior else set()
    if priors & ({f"{name}_s" for name in manifest.features} | set(manifest.statistics or ())):
        found.append(f"state: with {PRIOR!r} before it a name is also that of another tensor of adapt")
    edges = (manifest.inputs, manifest.features, manifest.statistics or {}, manifest.state)
    specs = [spec for edge in edges for spec in edge.values()]
    if any(len(spec.axes) > MAX_AXES for spec in specs):
        found.append(f"inputs, features, statistics and state have at most {MAX_AXES} axes")
    if any(isinstance(axis, str) for spec in specs for axis in spec.axes):
        found.append("inputs, features, statistics and state have fixed axes only")
    elif sum(spec.bytes for spec in manifest.state.values()) != manifest.state_bytes:
        found.append(f"state_bytes: {manifest.state_bytes} is not the sum over the state's tensors")
    return found


def _task_contradictions(manifest: "Manifest") -> list[str]:
    found = []
    starts = "support" in manifest.accepts and manifest.takes_prior  # support sets alone start from the base
    if ("base" in manifest.accepts or starts) != (manifest.base is not None):
        found.append(
            "base: given exactly where `accepts` holds base, or support beside task+support, which starts from it"
        )
    if manifest.base == "empty-support" and manifest.open_labels:
        found.append("base: an empty support set needs fixed labels")
    if manifest.base == "empty-support" and manifest.takes_prior:
        found.append("base: adapt starts from the state of a task, so the base is a task, too")
    return found


def _support_contradictions(manifest: "Manifest") -> list[str]:
    found = []
    for name, part in (("support", manifest.support), ("limits.examples", manifest.limits.examples)):
        if (part is not None) != manifest.learns:
            found.append(f"{name}: given exactly where `accepts` holds support or base")
    if not manifest.learns and (manifest.invariant or manifest.statistics):
        found.append("invariant and statistics: of support sets, of which `accepts` holds none")
    if manifest.learns and manifest.output.kind == "labels":
        found.append("accepts: support sets have labels of kind class or number, not of kind labels")
    if manifest.learns and manifest.by_task and not manifest.takes_prior:
        found.append("accepts: with an output by task, adapt has to be told the task: task+support")
    return found


def _kind_contradictions(manifest: "Manifest") -> list[str]:
    of_class, support = isinstance(manifest.output, ClassOutput), manifest.support
    learns_classes = support is not None and support.kind == "class" if manifest.by_task else of_class
    found = []
    if (manifest.limits.ways is not None) != of_class:
        found.append("limits.ways: given exactly where the output is of kind class")
    if (manifest.limits.shots is not None) != (learns_classes and manifest.learns):
        found.append("limits.shots: given exactly where support sets have labels of kind class")
    if support is not None and not manifest.by_task and support.kind != manifest.output.kind:
        found.append(f"support.kind: {support.kind}, but the output is of kind {manifest.output.kind}")
    if not learns_classes and "labels" in manifest.invariant:
        found.append("invariant: numbers have no labels")
    return found


def _descriptor_contradictions(manifest: "Manifest") -> list[str]:
    metadata = manifest.descriptors.metadata if manifest.descriptors else None
    text = manifest.descriptors.text if manifest.descriptors else None
    found = []
    for kind, part in (("metadata", metadata), ("text", text)):
        if (part is not None) != (f"describe.{kind}" in manifest.graphs):
            found.append(f"graphs: describe.{kind} is given exactly where there are descriptors of {kind}")
    if manifest.descriptors is not None and not ("task" in manifest.accepts or manifest.takes_prior):
        found.append("descriptors: of tasks, of which `accepts` holds none")
    if manifest.by_task and not manifest.describes:
        found.append("output: by task, of which `accepts` holds none")
    if manifest.by_task and (text is not None or (metadata is not None and not metadata.beside_id)):
        found.append("descriptors: with an output by task, only metadata beside an id say whose columns are read")
    return found


def _label_contradictions(manifest: "Manifest") -> list[str]:
    found = []
    fixed, ways = manifest.fixed_labels, manifest.limits.ways
    if fixed and isinstance(manifest.output, ClassOutput) and len(fixed) != ways:
        found.append(f"limits.ways: {ways}, but there are {len(fixed)} labels")
    if len(set(fixed)) != len(fixed):
        found.append("output.labels: one is there twice")
    if not all(is_normalized("NFC", label) for label in fixed):
        found.append("output.labels: one is not in NFC, the form that labels are compared in")
    return found


def _format_contradictions(manifest: "Manifest") -> list[str]:
    minor = int(manifest.format.partition(".")[2])
    of_1_2 = (
        (manifest.output.kind in ("labels", "task"), "outputs of kind labels and task"),
        (manifest.takes_prior, "task+support"),
        (manifest.base_task is not None, "a task as the base"),
        (manifest.descriptors is not None, "descriptors"),
        (any(spec.kind in ("text", "record") for spec in manifest.inputs.values()), "inputs of kind text and record"),
    )
    found = []
    if minor < 1 and manifest.describes:
        found.append("format: known tasks came with 1.1")
    if minor < 1 and manifest.output.kind == "number":
        found.append("format: outputs of kind number came with 1.1")
    return found + [f"format: {what} came with 1.2" for there, what in of_1_2 if minor < 2 and there]


def _plain(edge: Mapping[str, TensorSpec]) -> dict[str, tuple[DType, tuple[Axis, ...]]]:
    return {name: (spec.dtype, spec.axes) for name, spec in edge.items()}
