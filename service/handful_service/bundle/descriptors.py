"""What a request may describe a task with, beside its id: a record of metadata, or a text."""

from pydantic import Field, model_validator

from .inputs import TextOptions
from .parts import Part
from .records import RecordOptions


class MetadataDescriptor(Part):
    """A record that says what a task is; `describe.metadata` takes it as float32 `[batch, fields]`."""

    record: RecordOptions
    beside_id: bool = Field(False, description="Whether the record stands beside an id: the id says what is asked.")


class TextDescriptor(Part):
    """Words that say what a task is; `describe.text` takes them as int64 `[batch, tokens]`."""

    text: TextOptions
    tokens: int = Field(ge=1, le=2**20, description="The length that ids are cut or padded to.")


class Descriptors(Part):
    """The descriptors that a bundle takes beside ids."""

    metadata: MetadataDescriptor | None = None
    text: TextDescriptor | None = None

    @model_validator(mode="after")
    def _holds_some(self) -> "Descriptors":
        if self.metadata is None and self.text is None:
            raise ValueError("holds no descriptor")
        return self
