"""Records: objects of named and typed fields, as inputs and as descriptors of tasks."""

from collections.abc import Sequence
from typing import Annotated, Literal
from unicodedata import is_normalized

from pydantic import Field, StringConstraints, model_validator

from .parts import Part

FIELD_NAME = r"^[A-Za-z][A-Za-z0-9_-]{0,63}$"
MAX_NUMBER = 3.4028234663852886e38
"""The largest float32."""

FieldName = Annotated[str, StringConstraints(pattern=FIELD_NAME)]
Category = Annotated[str, StringConstraints(min_length=1, max_length=256)]
Number = Annotated[float, Field(ge=-MAX_NUMBER, le=MAX_NUMBER)]


class NumberField(Part):
    """A number, which stands in the array as itself."""

    name: FieldName
    kind: Literal["number"]
    minimum: Number | None = Field(None, description="The least number that is taken.")
    maximum: Number | None = Field(None, description="The largest number that is taken.")
    default: Number | None = Field(None, description="What a missing field means; without it the field is required.")

    @model_validator(mode="after")
    def _range_fits(self) -> "NumberField":
        if self.minimum is not None and self.maximum is not None and self.minimum > self.maximum:
            raise ValueError("the minimum is above the maximum")
        if self.default is not None and not self.holds(self.default):
            raise ValueError("the default is out of the range")
        return self

    def holds(self, value: float) -> bool:
        """Whether a number is in the range; NaN never is."""
        low = -MAX_NUMBER if self.minimum is None else self.minimum
        high = MAX_NUMBER if self.maximum is None else self.maximum
        return low <= value <= high


class CategoryField(Part):
    """One of some names, which stands in the array as its index in the list."""

    name: FieldName
    kind: Literal["category"]
    categories: tuple[Category, ...] = Field(min_length=1, max_length=10_000)
    unseen: Literal["refuse", "other"] = Field(
        "refuse", description="What happens to a name that is not listed; `other`: it has the index after the last."
    )
    default: Category | None = Field(None, description="What a missing field means; without it the field is required.")

    @model_validator(mode="after")
    def _names_fit(self) -> "CategoryField":
        if len(set(self.categories)) < len(self.categories):
            raise ValueError("a category is there twice")
        if not all(is_normalized("NFC", category) for category in self.categories):
            raise ValueError("a category is not in NFC, the form that they are compared in")
        if self.default is not None and self.default not in self.categories:
            raise ValueError("the default is no category")
        return self


RecordField = Annotated[NumberField | CategoryField, Field(discriminator="kind")]


class RecordOptions(Part):
    """The fields of a record, in the order of the array float32 `[fields]`."""

    fields: tuple[RecordField, ...] = Field(min_length=1, max_length=4096)

    @model_validator(mode="after")
    def _names_differ(self) -> "RecordOptions":
        if len(set(self.names)) < len(self.fields):
            raise ValueError("a field is there twice")
        return self

    @property
    def names(self) -> Sequence[str]:
        """The names of the fields, in order."""
        return [field.name for field in self.fields]
