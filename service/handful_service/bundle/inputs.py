"""What a request sends for an input tensor, by kind, and how it becomes an array."""

from typing import Literal

from pydantic import Field, model_validator

from .parts import Part, TensorSpec
from .records import RecordOptions


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


class TextOptions(Part):
    """How a string becomes the ids of the bundle's tokenizer, int64 `[tokens]`, padded with 0."""

    max_characters: int = Field(ge=1, le=2**20, description="Characters that are read.")
    truncate: bool = Field(description="Whether a longer text is cut, by characters and by tokens, or refused.")


class InputSpec(TensorSpec):
    """One input tensor, and the raw kind that it is made from."""

    kind: Literal["tensor", "image", "text", "record"]
    image: ImageOptions | None = None
    text: TextOptions | None = None
    record: RecordOptions | None = None

    @model_validator(mode="after")
    def _options_fit(self) -> "InputSpec":
        for kind in ("image", "text", "record"):
            if (self.kind == kind) != (getattr(self, kind) is not None):
                raise ValueError(f"`{kind}` options belong to inputs of kind `{kind}`, and those need them")
        if self.kind == "image" and not (len(self.axes) == 3 and self.axes[0] == 1 and self.axes[1] == self.axes[2]):
            raise ValueError("an image has the axes [1, side, side]")
        if self.kind == "text" and not (len(self.axes) == 1 and self.dtype == "int64"):
            raise ValueError("a text is int64, with the axes [tokens]")
        if self.record is not None and (self.dtype != "float32" or self.axes != (len(self.record.fields),)):
            raise ValueError(f"a record is float32, with the axes [{len(self.record.fields)}], its fields")
        return self
