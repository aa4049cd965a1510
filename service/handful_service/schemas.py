"""The wire models of requests: what they look like, in JSON. Those of answers stand in `answers.py`."""

import math
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


Text = Annotated[str, StringConstraints(max_length=2**20)]


_BY_ID = {"id"}


class OneTask(Wire):
    """A task that is described: by its id, by metadata, by a text, or by an id with metadata.

    Which of them a model takes stands in the `descriptors` of `GET /v1/models/{model}`.
    """

    id: Id | None = Field(None, description="One of `GET /v1/models/{model}/tasks`.")
    metadata: dict[str, Any] | None = Field(None, description="A record of the fields that the model declares.")
    text: Text | None = Field(None, description="What the task is, in words.")

    @model_validator(mode="after")
    def _parts_fit(self) -> "OneTask":
        if self.model_fields_set == _BY_ID and self.id is not None:  # as most are
            return self
        given = {name for name in type(self).model_fields if getattr(self, name) is not None}
        ways = given - {"metadata"}
        if not given or len(ways) > 1 or ("metadata" in given and "text" in ways):
            raise PydanticCustomError(
                "task",
                "has {found}",
                {
                    "found": " and ".join(f"`{name}`" for name in sorted(given)) or "no key",
                    "allowed": "one of "
                    + ", ".join(f"`{name}`" for name in type(self).model_fields)
                    + "; or metadata beside an id",
                },
            )
        return self


class TaskName(OneTask):
    """A task that is described, or several by their ids."""

    ids: list[Id] | None = Field(None, min_length=1, description="Several: each input is answered for each, in order.")


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
                {"inputs": ["<abstract>"], "task": {"ids": ["pages", "rating"], "metadata": {"venue": "iclr"}}},
                {"inputs": ["<base64 PNG>"], "task": {"text": "Greek capital letters"}},
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
    task: TaskName | None = Field(None, description="A described task; beside `support` where the model takes both.")
    adaptation: Id | None = Field(None, description="A stored adaptation.")
    support: list[SupportExample] | None = Field(None, description="A support set; nothing is stored.")
    rows: list[RowRequest] | None = Field(None, min_length=1, description="Inputs that each name their task.")
    partial: bool = Field(False, description="With `rows`: each answers or fails alone.")
    version: Version | None = Field(None, description="A number, or a label such as `stable`; default: the newest.")
    options: PredictOptionsRequest = PredictOptionsRequest()


class PutRequest(Wire):
    """The support set that an adaptation shall consist of."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"support": [{"input": "<base64 PNG>", "label": "alpha"}]},
                {"support": [{"input": "<abstract>", "label": 12}], "task": {"id": "pages"}},
            ]
        }
    )

    support: list[StoredExample]
    task: OneTask | None = Field(None, description="What learning starts from, where the model takes task+support.")
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
