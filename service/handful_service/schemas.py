"""The wire models: what requests and answers look like, in JSON."""

import math
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

from .task import ID

Id = Annotated[str, StringConstraints(pattern=ID)]
Version = Annotated[int, Field(ge=1)] | Annotated[str, StringConstraints(min_length=1, max_length=64)]
Source = Annotated[str, StringConstraints(max_length=256, pattern=r"^[^\x00-\x1f\x7f]*$")]
Confidence = Annotated[float, Field(gt=0, lt=1)]


def _label(value: Any) -> str | float:
    """A string, or a finite number; which of them a model takes is not known yet."""
    if isinstance(value, str):
        return value
    try:
        if not isinstance(value, bool) and math.isfinite(number := float(value)):
            return number
    except (TypeError, ValueError, OverflowError):
        pass
    raise PydanticCustomError(
        "label",
        "is neither a string nor a finite number",
        {"allowed": "a string, or a number where the model predicts numbers"},
    )


Label = Annotated[str | float, BeforeValidator(_label)]


class Wire(BaseModel):
    """The base of requests: unknown keys are refused, and nothing is coerced."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, data: Any) -> Any:
        if isinstance(data, dict):
            for key in data.keys() - cls.model_fields.keys():
                raise PydanticCustomError(
                    "unknown_key", "unknown key {key}", {"key": repr(key), "allowed": ", ".join(cls.model_fields)}
                )
        return data


class SupportExample(Wire):
    """A labelled example of a support set."""

    input: Any = Field(description="The raw input, as in `inputs`.")
    label: Label = Field(
        description="1 to 256 characters, compared in NFC; or a number, where the model predicts numbers."
    )
    weight: float = Field(1.0, description="1, unless the model takes real weights.")


class StoredExample(SupportExample):
    """A labelled example to keep."""

    example_id: Id | None = Field(None, description="Unique in the adaptation; made if not given.")
    source: Source | None = Field(None, description="For your own use.")


class FeedbackExample(Wire):
    """An example to add, or, where its id is known, to correct."""

    input: Any = Field(None, description="May be left out to correct the label of a known example.")
    label: Label
    weight: float = 1.0
    example_id: Id | None = None
    event_id: Id | None = Field(None, description="The same event twice changes nothing.")
    source: Source | None = None


class TaskName(Wire):
    """A known task of the model: one of `GET /v1/models/{model}/tasks`."""

    id: Id = Field(description="The id of the task.")


class RowRequest(Wire):
    """One input with its own task."""

    input: Any
    task: TaskName | None = None
    adaptation: Id | None = None
    support: list[SupportExample] | None = None


class PredictOptionsRequest(Wire):
    """What an answer holds, and what happens where an adaptation is missing."""

    confidence: Confidence | None = Field(None, description="Of the set or the interval; 0.95 if not given.")
    top: Annotated[int, Field(ge=1)] | None = Field(None, description="Scores to give, from the highest; of classes.")
    scores: bool = Field(True, description="Whether to give scores by label; of classes.")
    on_missing: Literal["error", "base"] = Field("error", description="Where an adaptation does not exist.")
    min_revision: Annotated[int, Field(ge=1)] | None = Field(
        None, description="Wait, until the deadline, for at least this revision."
    )


class PredictRequest(Wire):
    """Inputs of one task, or rows that each name their own."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"inputs": ["<base64 PNG>"], "adaptation": "alice"},
                {"inputs": ["<base64 PNG>"], "task": {"id": "greek"}},
                {
                    "inputs": ["<base64 PNG>"],
                    "support": [
                        {"input": "<base64 PNG>", "label": "alpha"},
                        {"input": "<base64 PNG>", "label": "beta"},
                    ],
                },
                {"rows": [{"input": "<base64 PNG>", "adaptation": "alice"}], "partial": True},
            ]
        }
    )

    inputs: list[Any] | None = Field(None, min_length=1, description="Raw inputs, all of one task.")
    task: TaskName | None = Field(None, description="A known task of the model.")
    adaptation: Id | None = Field(None, description="A stored adaptation.")
    support: list[SupportExample] | None = Field(None, description="A support set; nothing is kept.")
    rows: list[RowRequest] | None = Field(None, min_length=1, description="Inputs that each name their task.")
    partial: bool = Field(False, description="With `rows`: each answers or fails alone.")
    version: Version | None = Field(None, description="A number, or a label such as `stable`; default: the newest.")
    options: PredictOptionsRequest = PredictOptionsRequest()


class PutRequest(Wire):
    """The support set that an adaptation shall consist of."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"support": [{"input": "<base64 PNG>", "label": "alpha"}]}]}
    )

    support: list[StoredExample]
    version: Version | None = None


class ExamplesRequest(Wire):
    """Examples to add or correct."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"examples": [{"input": "<base64 PNG>", "label": "alpha", "event_id": "click-17"}]},
                {"examples": [{"example_id": "e1", "label": "beta"}]},
            ]
        }
    )

    examples: list[FeedbackExample] = Field(min_length=1)
    version: Version | None = None


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


class ClassPrediction(BaseModel):
    """The prediction of one row: a label."""

    kind: Literal["class"]
    label: str
    score: float = Field(description="Of `label`, 0..1.")
    scores: dict[str, float] | None = Field(None, description="By label, highest first.")
    set: list[str] | None = Field(None, description="The labels that hold the truth at the confidence.")
    abstained: bool | None = Field(None, description="Whether the set does not single out one label.")
    used: Literal["personal", "base", "support", "task"]
    task: str | None = Field(None, description="The id of the known task that answered.")
    adaptation: str | None = None
    revision: int | None = None


class NumberPrediction(BaseModel):
    """The prediction of one row: a number."""

    kind: Literal["number"]
    value: float
    interval: tuple[float, float] = Field(description="Holds the truth at the confidence; in the units of the labels.")
    used: Literal["personal", "base", "support", "task"]
    task: str | None = Field(None, description="The id of the known task that answered.")
    adaptation: str | None = None
    revision: int | None = None


PredictionAnswer = Annotated[ClassPrediction | NumberPrediction, Field(discriminator="kind")]


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


class WrittenAnswer(BaseModel):
    """An adaptation after a change."""

    model: str
    version: int = Field(description="The version that the change was made with.")
    id: str
    revision: int
    labels: dict[str, LabelAnswer] = Field(description="By label; empty where the model predicts numbers.")
    examples: int = Field(description="How many there are.")
    results: list[ChangeAnswer]


class ExampleAnswer(BaseModel):
    """A kept example, without its input."""

    example_id: str
    label: str | float
    weight: float
    source: str | None = None
    created_at: datetime


class AdaptationAnswer(BaseModel):
    """An adaptation with its examples, in event order."""

    model: str
    id: str
    revision: int
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


class TaskList(BaseModel):
    """The known tasks of a model version; empty where tasks come from support sets alone."""

    model: str
    version: int
    tasks: list[dict[str, Any]]


class HealthAnswer(BaseModel):
    """Alive, or ready with these bundles."""

    status: Literal["live", "ready"]
    bundles: dict[str, str] | None = Field(None, description="Digest by `model/version`.")
