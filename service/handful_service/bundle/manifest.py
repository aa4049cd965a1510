"""The manifest of a bundle: what its graphs take and give, and what the service may accept for it."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field, StringConstraints, ValidationError, model_validator

from ..errors import BundleInvalid
from ..task import ID
from .contradictions import contradictions
from .descriptors import Descriptors
from .inputs import ImageOptions as ImageOptions  # noqa: PLC0414 (whoever writes a manifest finds all of it here)
from .inputs import InputSpec
from .outputs import Calibration as Calibration  # noqa: PLC0414
from .outputs import Output, TaskReader
from .parts import Part, TensorName, TensorSpec

FORMAT_MAJOR = 1
FORMAT_MINOR = 2
FORMAT = f"{FORMAT_MAJOR}.{FORMAT_MINOR}"

MODEL_NAME = r"^[a-z0-9][a-z0-9_.-]{0,63}$"
FILE_NAME = r"^(assets/)?[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$"
FORMAT_PATTERN = r"^[0-9]{1,4}\.[0-9]{1,4}$"
DIGEST = r"^[0-9a-f]{64}$"

MAX_STATE_BYTES = 64 * 2**20
"""A state larger than this is refused: it could not be cached for many users."""

GraphName = Literal["encode", "describe.id", "describe.metadata", "describe.text", "summarise", "adapt", "predict"]
GRAPHS: tuple[GraphName, ...] = ("encode", "summarise", "adapt", "predict")
"""Of a model that learns from support sets."""

DESCRIBE_ID: GraphName = "describe.id"
"""Of a model that knows tasks by their ids."""

DESCRIBE_METADATA: GraphName = "describe.metadata"
DESCRIBE_TEXT: GraphName = "describe.text"
"""Of a model that takes what a task is, not only which."""


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


class TaskBase(Part):
    """The base is a known task."""

    task: str = Field(pattern=ID)


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
    accepts: tuple[Literal["base", "task", "support", "task+support"], ...] = Field(min_length=1)
    base: Literal["empty-support"] | TaskBase | None = None
    descriptors: Descriptors | None = None
    support: SupportSpec | None = None
    output: Output
    limits: Limits
    invariant: tuple[Literal["order", "labels"], ...] = ()
    graphs: dict[GraphName, GraphSpec]
    digests: dict[str, Annotated[str, StringConstraints(pattern=DIGEST)]]

    @model_validator(mode="after")
    def _parts_fit(self) -> "Manifest":
        for problem in contradictions(self):
            raise ValueError(problem)
        return self

    @property
    def learns(self) -> bool:
        """Whether states are made of support sets, be it the empty one."""
        return "support" in self.accepts or self.takes_prior or self.base == "empty-support"

    @property
    def reads_text(self) -> bool:
        """Whether inputs or descriptors are texts, which need the bundle's tokenizer."""
        described = self.descriptors is not None and self.descriptors.text is not None
        return described or any(spec.kind == "text" for spec in self.inputs.values())

    @property
    def takes_prior(self) -> bool:
        """Whether a support set adapts the state of a descriptor; without one, that of the base."""
        return "task+support" in self.accepts

    @property
    def describes(self) -> bool:
        """Whether there are known tasks, and states of descriptors."""
        return "task" in self.accepts or self.takes_prior or self.base_task is not None

    @property
    def base_task(self) -> str | None:
        """The id of the known task that is the base, if one is."""
        return self.base.task if isinstance(self.base, TaskBase) else None

    @property
    def by_task(self) -> bool:
        """Whether each known task reads columns of its own."""
        return self.output.kind == "task"

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

    def of_task(self, output: TaskReader, *, described: bool) -> "Manifest":
        """The manifest as the support sets of one task see it.

        Args:
            output: The task's own output; its labels are all there are.
            described: Whether the state of a descriptor stands behind them, so that there may be no example.
        """
        ways = self.limits.ways if output.labels == "open" else len(output.labels or ()) or None
        limits = self.limits.model_copy(update={"ways": ways})
        base = TaskBase(task="described") if described else self.base
        return self.model_copy(update={"output": output, "limits": limits, "base": base})


class _Format(BaseModel):
    format: str = Field(pattern=FORMAT_PATTERN)


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
