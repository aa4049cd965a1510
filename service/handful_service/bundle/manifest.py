"""The manifest of a bundle: what its graphs take and give, and what the service may accept for it."""

from bisect import bisect_right
from collections.abc import Mapping
from typing import Annotated, Literal
from unicodedata import is_normalized

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from ..errors import BundleInvalid

FORMAT_MAJOR = 1
FORMAT_MINOR = 0
FORMAT = f"{FORMAT_MAJOR}.{FORMAT_MINOR}"

MODEL_NAME = r"^[a-z0-9][a-z0-9_.-]{0,63}$"
TENSOR_NAME = r"^[a-z][a-z0-9_]{0,63}$"
FILE_NAME = r"^(assets/)?[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$"
FORMAT_PATTERN = r"^[0-9]{1,4}\.[0-9]{1,4}$"
DIGEST = r"^[0-9a-f]{64}$"

MAX_AXES = 8

MAX_STATE_BYTES = 64 * 2**20
"""A state larger than this is refused: it could not be cached for many users."""

GraphName = Literal["encode", "summarise", "adapt", "predict"]
GRAPHS: tuple[GraphName, ...] = ("encode", "summarise", "adapt", "predict")
RESERVED = frozenset({"y", "weight"})
DType = Literal["float32", "int64"]
Axis = Annotated[int, Field(ge=1, le=2**20)] | Annotated[str, StringConstraints(pattern=TENSOR_NAME)]
Label = Annotated[str, StringConstraints(min_length=1, max_length=256)]
TensorName = Annotated[str, StringConstraints(pattern=TENSOR_NAME)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class TensorSpec(_Part):
    """One tensor of an edge. `axes` are those of one item: a number is a fixed size.

    A name is a size of any length; only signatures have such axes, those of the batch and of the support set.
    """

    dtype: DType
    axes: tuple[Axis, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """The axes, all of which must be fixed."""
        return tuple(int(axis) for axis in self.axes)

    @property
    def bytes(self) -> int:
        """Bytes of one item."""
        size = {"float32": 4, "int64": 8}[self.dtype]
        for axis in self.shape:
            size *= axis
        return size


class ImageOptions(_Part):
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


class SupportSpec(_Part):
    """How support sets are read."""

    kind: Literal["class"]
    weights: Literal["binary", "real"] = "binary"


class Calibration(_Part):
    """A table over ways and effective shots, of temperatures and conformal quantiles.

    The cell of a task is the nearest lower one, or the first. Scores are `softmax(logits / temperature)`; the
    set at a confidence holds the labels whose score is at least `1 - quantile`, and the highest scores up to a sum of
    the confidence.
    """

    ways: tuple[int, ...] = Field(min_length=1)
    shots: tuple[float, ...] = Field(min_length=1)
    confidence: tuple[float, ...] = Field(min_length=1)
    temperature: tuple[tuple[Annotated[float, Field(gt=0)], ...], ...]
    quantile: tuple[tuple[tuple[Annotated[float, Field(ge=0, le=1)], ...], ...], ...]

    def cell(self, ways: int, shots: float) -> tuple[int, int]:
        """The row and column of a task: the nearest lower of each grid, or the first."""
        return max(0, bisect_right(self.ways, ways) - 1), max(0, bisect_right(self.shots, shots) - 1)

    @model_validator(mode="after")
    def _grids_fit(self) -> "Calibration":
        for name in ("ways", "shots", "confidence"):
            grid = getattr(self, name)
            if list(grid) != sorted(set(grid)):
                raise ValueError(f"{name} must rise")
        shape = (len(self.ways), len(self.shots))
        cells_fit = len(self.temperature) == len(self.quantile) == shape[0] and all(
            len(row) == shape[1] for row in (*self.temperature, *self.quantile)
        )
        if not cells_fit or any(len(cell) != len(self.confidence) for row in self.quantile for cell in row):
            raise ValueError("temperature and quantile must have a cell for each of ways x shots")
        if any(list(cell) != sorted(cell) for row in self.quantile for cell in row):
            raise ValueError("quantile must not fall with the confidence")
        return self


class OutputSpec(_Part):
    """How the columns of `y` are read for tasks given by a support set."""

    kind: Literal["class"]
    members: int = Field(1, ge=1, le=64)
    labels: Literal["open"] | Annotated[tuple[Label, ...], Field(min_length=1)]
    calibration: Calibration | None = None


class Limits(_Part):
    """What is refused before any work is done."""

    ways: int = Field(ge=1, le=4096, description="Labels of a task.")
    shots: int = Field(ge=1, description="Examples of a label.")
    examples: int = Field(ge=1, le=100_000, description="Examples of a support set.")
    norm: float | None = Field(None, gt=0, description="Euclidean norm of a tensor input.")


class GraphSpec(_Part):
    """One graph file, and how closely its golden outputs are met."""

    file: str = Field(pattern=FILE_NAME)
    tolerance: float = Field(gt=0, le=1e-2)


class Manifest(_Part):
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
    accepts: tuple[Literal["base", "support"], ...] = Field(min_length=1)
    base: Literal["empty-support"] | None = None
    support: SupportSpec
    output: OutputSpec
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
    def open_labels(self) -> bool:
        """Whether the caller names the labels."""
        return self.output.labels == "open"

    @property
    def fixed_labels(self) -> tuple[str, ...]:
        """The labels that mean the same for everyone; none where labels are open."""
        return () if self.output.labels == "open" else self.output.labels


class _Format(BaseModel):
    format: str = Field(pattern=FORMAT_PATTERN)


def _contradictions(manifest: Manifest) -> list[str]:
    found = []
    needed = {"adapt", "predict"} | ({"summarise"} if manifest.statistics else set())
    if missing := needed - set(manifest.graphs):
        found.append(f"graphs: {', '.join(sorted(missing))} missing")
    if manifest.statistics is None and "summarise" in manifest.graphs:
        found.append("statistics: missing, though there is a summarise graph")
    if "encode" not in manifest.graphs and _plain(manifest.features) != _plain(manifest.inputs):
        found.append("features: without an encode graph they are the inputs")
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
    if ("base" in manifest.accepts) != (manifest.base is not None):
        found.append("base: given exactly where `accepts` holds base")
    if manifest.base == "empty-support" and manifest.open_labels:
        found.append("base: an empty support set needs fixed labels")
    return found + _label_contradictions(manifest.fixed_labels, manifest.limits.ways)


def _label_contradictions(fixed: tuple[str, ...], ways: int) -> list[str]:
    found = []
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
