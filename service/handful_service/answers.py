"""The wire models of answers: what they look like, in JSON."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from .bundle.descriptors import Descriptors


def _is_none(value: object) -> bool:
    return value is None


class ProblemItem(BaseModel):
    """One thing that is wrong."""

    field: str | None = None
    detail: str
    allowed: str | None = None


class ProblemDocument(BaseModel):
    """An RFC 9457 problem document."""

    type: str
    title: str
    status: int
    detail: str
    errors: list[ProblemItem] | None = None
    request_id: str | None = None


Used = Literal["personal", "base", "support", "task"]
TaskId = Annotated[str | None, Field(description="The id of the known task whose answer it is.")]
Folded = Annotated[
    list[str] | None, Field(description="Fields whose category the model does not know, and takes for «other».")
]


class ClassPrediction(BaseModel):
    """The prediction of one row: a label."""

    kind: Literal["class"]
    label: str
    score: float = Field(description="Of `label`, 0..1.")
    scores: dict[str, float] | None = Field(None, description="By label, highest first.")
    set: list[str] | None = Field(None, description="The labels that hold the truth at the confidence.")
    abstained: bool | None = Field(None, description="Whether the set does not single out one label.")
    used: Used
    task: TaskId = None
    adaptation: str | None = None
    revision: int | None = None
    folded: Folded = None


class LabelsPrediction(BaseModel):
    """The prediction of one row: any of several labels."""

    kind: Literal["labels"]
    labels: list[str] = Field(description="Those that hold, highest score first.")
    scores: dict[str, float] | None = Field(None, description="By label, highest first; each by itself in 0..1.")
    used: Used
    task: TaskId = None
    adaptation: str | None = None
    revision: int | None = None
    folded: Folded = None


class NumberPrediction(BaseModel):
    """The prediction of one row: a number."""

    kind: Literal["number"]
    value: float
    interval: tuple[float, float] = Field(description="Holds the truth at the confidence; in the units of the labels.")
    used: Used
    task: TaskId = None
    adaptation: str | None = None
    revision: int | None = None
    folded: Folded = None


PredictionAnswer = Annotated[ClassPrediction | LabelsPrediction | NumberPrediction, Field(discriminator="kind")]


class FailedAnswer(BaseModel):
    """A row that failed alone."""

    problem: ProblemDocument


class PredictAnswer(BaseModel):
    """The predictions, in the order of the inputs or rows."""

    model: str
    version: int
    predictions: list[PredictionAnswer | FailedAnswer]


class LabelAnswer(BaseModel):
    """How much there is of a label."""

    examples: int
    weight: float


class ChangeAnswer(BaseModel):
    """What one change came to."""

    example_id: str
    action: Literal["added", "replaced", "removed"]
    revision: int = Field(description="The revision that the change made.")
    repeated: bool = Field(False, description="The event was known: nothing changed now.")
    folded: Folded = Field(None, exclude_if=_is_none)


class WrittenAnswer(BaseModel):
    """An adaptation after a change."""

    model: str
    version: int = Field(description="The version that the change was made with.")
    id: str
    revision: int
    labels: dict[str, LabelAnswer] = Field(description="By label; empty where the model predicts numbers.")
    examples: int = Field(description="How many there are.")
    results: list[ChangeAnswer]
    folded: Folded = Field(None, exclude_if=_is_none)


class ExampleAnswer(BaseModel):
    """A kept example, without its input."""

    example_id: str
    label: str | float
    weight: float
    source: str | None = None
    created_at: datetime


class TaskDescriptor(BaseModel):
    """A task as it was described; what was not given is left out."""

    id: str | None = Field(None, exclude_if=_is_none)
    metadata: dict[str, Any] | None = Field(None, exclude_if=_is_none)
    text: str | None = Field(None, exclude_if=_is_none)


class AdaptationAnswer(BaseModel):
    """An adaptation with its examples, in event order."""

    model: str
    id: str
    revision: int
    task: TaskDescriptor | None = Field(
        None, exclude_if=_is_none, description="What learning starts from; left out where no task was named."
    )
    labels: dict[str, LabelAnswer] = Field(description="By label; empty where the model predicts numbers.")
    examples: list[ExampleAnswer]
    created_at: datetime
    updated_at: datetime


class AdaptationItem(BaseModel):
    """A line of the list of adaptations."""

    id: str
    revision: int
    labels: list[str] = Field(description="Empty where the model predicts numbers.")
    examples: int
    created_at: datetime
    updated_at: datetime


class AdaptationList(BaseModel):
    """A page of adaptations, by id."""

    adaptations: list[AdaptationItem]
    next: str | None = Field(None, description="Pass as `after` for the next page; null on the last.")


class VersionAnswer(BaseModel):
    """One version of a model, and what it takes and gives."""

    version: int
    labels: list[str] = Field(description="The names of this version, such as `stable`.")
    digest: str
    description: str
    inputs: dict[str, Any]
    accepts: list[str]
    descriptors: Descriptors | None = Field(None, description="What may describe a task, beside the id of a known one.")
    output: dict[str, Any]
    limits: dict[str, Any]
    invariant: list[str]
    state_bytes: int = Field(description="Bytes of one task state.")
    card: str = Field(description="Markdown: training data, licence, evaluation.")


class ModelAnswer(BaseModel):
    """A model: its newest version, and which others there are."""

    name: str
    versions: list[int]
    labels: dict[str, int]
    newest: VersionAnswer


class ModelList(BaseModel):
    """All models."""

    models: list[ModelAnswer]


class VersionList(BaseModel):
    """All versions of a model."""

    model: str
    versions: list[VersionAnswer]


class TaskAnswer(BaseModel):
    """A task that the model knows without examples."""

    id: str
    kind: Literal["class", "labels", "number"] = Field(description="Of its answers.")
    labels: list[str] | None = Field(None, description="Those that it tells apart; none where it answers numbers.")
    shots: float = Field(description="Effective shots, which choose the cell of the calibration.")
    description: str | None = None
    metadata: dict[str, Any] | None = Field(None, description="The record that means the same task.")
    text: str | None = Field(None, description="The words that mean the same task.")
    evaluation: dict[str, Any] | None = Field(None, description="What was measured of it.")
    advice: str | None = Field(None, description="Whether it gains by sharing a model with the others.")


class TaskList(BaseModel):
    """The known tasks of a model version; empty where tasks come from support sets alone."""

    model: str
    version: int
    tasks: list[TaskAnswer]
    descriptors: Descriptors | None = Field(None, description="What may describe a task, beside the id of a known one.")


class HealthAnswer(BaseModel):
    """Alive, or ready with these bundles."""

    status: Literal["live", "ready"]
    bundles: dict[str, str] | None = Field(None, description="Digest by `model/version`.")
