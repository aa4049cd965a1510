"""What a config says of a bundle that the learner itself does not know."""

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from handful_models.config import read_toml
from handful_models.learner import DescribedLearner, Learner
from handful_service.bundle.inputs import TextOptions
from handful_service.bundle.manifest import MODEL_NAME, ImageOptions

from .errors import SpecInvalid


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TensorInput(_Section):
    """An input that arrives as numbers."""

    kind: Literal["tensor"]


class ImageInput(ImageOptions):
    """An input that arrives as a picture."""

    kind: Literal["image"]


class TextInput(TextOptions):
    """An input that arrives as a string."""

    kind: Literal["text"]


class RecordInput(_Section):
    """An input that arrives as an object; the data set knows its fields."""

    kind: Literal["record"]


class OutputSection(_Section):
    """The labels; none for a learner of numbers, or of tasks that have their own."""

    labels: Literal["open"] | tuple[str, ...] | None = None


class LimitsSection(_Section):
    """What the service refuses; the ways are the learner's, and numbers have no shots."""

    shots: int | None = Field(None, ge=1)
    examples: int | None = Field(None, ge=1, description="None for a model of known tasks only.")
    norm: float | None = Field(None, gt=0)


class CardSection(_Section):
    """What people should know."""

    data: str
    licence: str
    use: str


class ExportSpec(_Section):
    """The whole config."""

    name: str = Field(pattern=MODEL_NAME)
    version: int = Field(ge=1)
    description: str = Field(max_length=500)
    inputs: dict[str, TensorInput | ImageInput | TextInput | RecordInput]
    output: OutputSection = OutputSection()
    limits: LimitsSection = LimitsSection()
    base: str | None = Field(None, description="The known task that answers where a request names none.")
    card: CardSection
    tolerance: float = Field(1e-4, gt=0, le=1e-2, description="Of golden outputs, relative and absolute.")
    margin: float | None = Field(
        0.3,
        description="By how much true labels must beat shuffled ones: in accuracy, or as a part of the squared error; "
        "none for an untrained learner.",
    )

    def input_options(self, name: str) -> dict[str, Any]:
        """The manifest's part on an input."""
        found = self.inputs.get(name)
        if found is None:
            raise SpecInvalid(f"inputs.{name}: missing; the learner takes it")
        options = found.model_dump(exclude={"kind"})
        return {"kind": found.kind, **({found.kind: options} if options else {})}

    def check(self, learner: Learner) -> None:
        """Whether it suits the learner.

        Raises:
            SpecInvalid: it does not; the text says in what.
        """
        if isinstance(learner, DescribedLearner):
            self._check_described(learner)
            return
        if self.base is not None:
            raise SpecInvalid("base: only a learner of known tasks has one")
        number = learner.target == "number"
        if number != (self.output.labels is None):
            wanted = "none, for it predicts numbers" if number else '"open", or a list of fixed ones'
            raise SpecInvalid(f"output.labels: the learner needs {wanted}")
        if (self.limits.shots is None) != (number or self.limits.examples is None):
            raise SpecInvalid("limits.shots: given exactly where support sets have labels that are no numbers")
        most, asked = learner.examples, self.limits.examples
        if most is not None and asked is not None and asked > most:
            raise SpecInvalid(f"limits.examples: at most {most}, which a state holds, got {asked}")

    def _check_described(self, learner: DescribedLearner) -> None:
        if self.output.labels is not None:
            raise SpecInvalid("output.labels: none, for every task has its own")
        if (self.limits.examples is None) == learner.learns:
            raise SpecInvalid("limits.examples: given exactly where the learner takes support sets")
        if self.base is not None and self.base not in [reader.id for reader in learner.readers]:
            raise SpecInvalid(f"base: no task {self.base!r}")


def read_spec(path: Path) -> ExportSpec:
    """The config in a TOML file.

    Raises:
        SpecInvalid: the file is missing or not TOML, a key is unknown, a value is out of range.
    """
    return read_toml(path, ExportSpec, SpecInvalid)
