"""The manifest of a bundle: what its graphs take and give, and what the service may accept for it."""

from collections.abc import Mapping
from typing import Annotated, Literal
from unicodedata import is_normalized

from pydantic import BaseModel, Field, StringConstraints, ValidationError, model_validator

from ..errors import BundleInvalid
from .outputs import Calibration as Calibration  # noqa: PLC0414 (whoever writes a manifest finds all of it here)
from .outputs import ClassOutput, Output
from .parts import Axis, DType, Part, TensorName, TensorSpec

FORMAT_MAJOR = 1
FORMAT_MINOR = 1
FORMAT = f"{FORMAT_MAJOR}.{FORMAT_MINOR}"

MODEL_NAME = r"^[a-z0-9][a-z0-9_.-]{0,63}$"
FILE_NAME = r"^(assets/)?[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$"
FORMAT_PATTERN = r"^[0-9]{1,4}\.[0-9]{1,4}$"
DIGEST = r"^[0-9a-f]{64}$"

MAX_AXES = 8

MAX_STATE_BYTES = 64 * 2**20
"""A state larger than this is refused: it could not be cached for many users."""

GraphName = Literal["encode", "describe.id", "summarise", "adapt", "predict"]
GRAPHS: tuple[GraphName, ...] = ("encode", "summarise", "adapt", "predict")
"""Of a model that learns from support sets."""

DESCRIBE_ID: GraphName = "describe.id"
"""Of a model that knows tasks by their ids."""

RESERVED = frozenset({"y", "weight"})


class ImageOptions(Part):
    """How a picture becomes an array of shape `[1, side, side]` in 0..1, with high ink."""

    polarity: Literal["auto", "dark-on-light", "light-on-dark"] = Field(
        description="Which side is ink; `auto` takes the rarer one."
    )
    contrast: Literal["keep", "stretch"] = Field(
        description="`stretch`: paper becomes 0 and ink 1, whatever their grey; a picture without ink is refused."
    )
    alpha: Literal["refuse", "over-white", "over-black"] = Field(
        description="What happens to a picture with transparent pixels."
    )
    aspect: Literal["pad", "stretch"] = Field(description="How a picture that is not square becomes square.")
    resize: Literal["area"] = Field(description="`area`: the mean over the area of each pixel.")
    max_pixels: int = Field(ge=1, le=2**26, description="Pixels of a picture as it comes.")


class InputSpec(TensorSpec):
    """One input tensor, and the raw kind that it is made from."""

    kind: Literal["tensor", "image"]
    image: ImageOptions | None = None

    @model_validator(mode="after")
    def _options_fit(self) -> "InputSpec":
        if (self.kind == "image") != (self.image is not None):
            raise ValueError("`image` options belong to inputs of kind `image`, and those need them")
        if self.kind == "image" and not (len(self.axes) == 3 and self.axes[0] == 1 and self.axes[1] == self.axes[2]):
            raise ValueError("an image has the axes [1, side, side]")
        return self


class SupportSpec(Part):
    """How support sets are read."""

    kind: Literal["class", "number"]
    weights: Literal["binary", "real"] = "binary"


class Limits(Part):
    """What is refused before any work is done."""

    ways: int | None = Field(None, ge=1, le=4096, description="Labels of a task.")
    shots: int | None = Field(None, ge=1, description="Examples of a label.")
    examples: int | None = Field(None, ge=1, le=100_000, description="Examples of a support set.")
    norm: float | None = Field(None, gt=0, description="Euclidean norm of a tensor input.")


class GraphSpec(Part):
    """One graph file, and how closely its golden outputs are met."""

    file: str = Field(pattern=FILE_NAME)
    tolerance: float = Field(gt=0, le=1e-2)


class Manifest(Part):
    """The whole of `manifest.json`."""

    format: str = Field(pattern=FORMAT_PATTERN)
    name: str = Field(pattern=MODEL_NAME)
    version: int = Field(ge=1)
    description: str = Field(max_length=500)
    inputs: dict[TensorName, InputSpec] = Field(min_length=1)
    features: dict[TensorName, TensorSpec] = Field(min_length=1)
    statistics: dict[TensorName, TensorSpec] | None = Field(None, min_length=1)
    state: dict[TensorName, TensorSpec] = Field(min_length=1)
    state_bytes: int = Field(ge=1, le=MAX_STATE_BYTES)
    accepts: tuple[Literal["base", "task", "support"], ...] = Field(min_length=1)
    base: Literal["empty-support"] | None = None
    support: SupportSpec | None = None
    output: Output
    limits: Limits
    invariant: tuple[Literal["order", "labels"], ...] = ()
    graphs: dict[GraphName, GraphSpec]
    digests: dict[str, Annotated[str, StringConstraints(pattern=DIGEST)]]

    @model_validator(mode="after")
    def _parts_fit(self) -> "Manifest":
        for problem in _contradictions(self):
            raise ValueError(problem)
        return self

    @property
    def learns(self) -> bool:
        """Whether states are made of support sets, be it the empty one."""
        return "support" in self.accepts or "base" in self.accepts

    @property
    def open_labels(self) -> bool:
        """Whether the caller names the labels."""
        return self.output.labels == "open"

    @property
    def ways(self) -> int:
        """Ways that a state holds; 0 where labels are numbers."""
        return self.limits.ways or 0

    @property
    def width(self) -> int:
        """Columns of `y`."""
        return self.output.width(self.ways)

    @property
    def fixed_labels(self) -> tuple[str, ...]:
        """The labels that mean the same for everyone; none where labels are open."""
        return () if self.output.labels in ("open", None) else tuple(self.output.labels)


class _Format(BaseModel):
    format: str = Field(pattern=FORMAT_PATTERN)


def _contradictions(manifest: Manifest) -> list[str]:
    return [
        *_graph_contradictions(manifest),
        *_tensor_contradictions(manifest),
        *_kind_contradictions(manifest),
        *_task_contradictions(manifest),
        *_label_contradictions(manifest),
    ]


def _graph_contradictions(manifest: Manifest) -> list[str]:
    found = []
    needed = {"predict"} | ({"adapt"} if manifest.learns else set()) | ({"summarise"} if manifest.statistics else set())
    if missing := needed - set(manifest.graphs):
        found.append(f"graphs: {', '.join(sorted(missing))} missing")
    if manifest.statistics is None and "summarise" in manifest.graphs:
        found.append("statistics: missing, though there is a summarise graph")
    if not manifest.learns and "adapt" in manifest.graphs:
        found.append("graphs: adapt is there, though `accepts` holds neither support nor base")
    if ("task" in manifest.accepts) != (DESCRIBE_ID in manifest.graphs):
        found.append(f"graphs: {DESCRIBE_ID} is given exactly where `accepts` holds task")
    if "encode" not in manifest.graphs and _plain(manifest.features) != _plain(manifest.inputs):
        found.append("features: without an encode graph they are the inputs")
    return found


def _tensor_contradictions(manifest: Manifest) -> list[str]:
    found = []
    if set(manifest.features) & set(manifest.state):
        found.append("state: a name is also a feature's")
    if RESERVED & set(manifest.features):
        found.append(f"features: {sorted(RESERVED)} stand beside those of a support set")
    edges = (manifest.inputs, manifest.features, manifest.statistics or {}, manifest.state)
    specs = [spec for edge in edges for spec in edge.values()]
    if any(len(spec.axes) > MAX_AXES for spec in specs):
        found.append(f"inputs, features, statistics and state have at most {MAX_AXES} axes")
    if any(isinstance(axis, str) for spec in specs for axis in spec.axes):
        found.append("inputs, features, statistics and state have fixed axes only")
    elif sum(spec.bytes for spec in manifest.state.values()) != manifest.state_bytes:
        found.append(f"state_bytes: {manifest.state_bytes} is not the sum over the state's tensors")
    return found


def _task_contradictions(manifest: Manifest) -> list[str]:
    found = []
    if ("base" in manifest.accepts) != (manifest.base is not None):
        found.append("base: given exactly where `accepts` holds base")
    if manifest.base == "empty-support" and manifest.open_labels:
        found.append("base: an empty support set needs fixed labels")
    for name, part in (("support", manifest.support), ("limits.examples", manifest.limits.examples)):
        if (part is not None) != manifest.learns:
            found.append(f"{name}: given exactly where `accepts` holds support or base")
    if not manifest.learns and (manifest.invariant or manifest.statistics):
        found.append("invariant and statistics: of support sets, of which `accepts` holds none")
    if "task" in manifest.accepts and manifest.format == "1.0":
        found.append("format: known tasks came with 1.1")
    return found


def _kind_contradictions(manifest: Manifest) -> list[str]:
    of_class = isinstance(manifest.output, ClassOutput)
    found = []
    if (manifest.limits.ways is not None) != of_class:
        found.append("limits.ways: given exactly where the output is of kind class")
    if (manifest.limits.shots is not None) != (of_class and manifest.learns):
        found.append("limits.shots: given exactly where support sets have labels of kind class")
    if manifest.support is not None and manifest.support.kind != manifest.output.kind:
        found.append(f"support.kind: {manifest.support.kind}, but the output is of kind {manifest.output.kind}")
    if not of_class and "labels" in manifest.invariant:
        found.append("invariant: numbers have no labels")
    if not of_class and manifest.format == "1.0":
        found.append("format: outputs of kind number came with 1.1")
    return found


def _label_contradictions(manifest: Manifest) -> list[str]:
    found = []
    fixed, ways = manifest.fixed_labels, manifest.limits.ways
    if fixed and len(fixed) != ways:
        found.append(f"limits.ways: {ways}, but there are {len(fixed)} labels")
    if len(set(fixed)) != len(fixed):
        found.append("output.labels: one is there twice")
    if not all(is_normalized("NFC", label) for label in fixed):
        found.append("output.labels: one is not in NFC, the form that labels are compared in")
    return found


def _plain(edge: Mapping[str, TensorSpec]) -> dict[str, tuple[DType, tuple[Axis, ...]]]:
    return {name: (spec.dtype, spec.axes) for name, spec in edge.items()}


def parse_manifest(document: bytes) -> Manifest:
    """The manifest in a JSON document.

    Raises:
        BundleInvalid: it is not JSON, a key is unknown or missing, parts contradict each other, or the format
            is one that this server does not read.
    """
    try:
        _check_format(_Format.model_validate_json(document).format)  # first: a later format may have any other keys
        return Manifest.model_validate_json(document, strict=False)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(["manifest.json", *map(str, first["loc"])])
        raise BundleInvalid(first["msg"], field=place) from None


def _check_format(found: str) -> None:
    major, minor = (int(part) for part in found.split("."))
    if major != FORMAT_MAJOR or minor > FORMAT_MINOR:
        raise BundleInvalid(
            f"the format is {found}", field="manifest.json.format", allowed=f"{FORMAT_MAJOR}.0 to {FORMAT}"
        )
