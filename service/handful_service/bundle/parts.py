"""What every part of a manifest is made of: strict parts, names, tensors."""

from functools import cached_property
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

TENSOR_NAME = r"^[a-z][a-z0-9_]{0,63}$"

DType = Literal["float32", "int64"]
Axis = Annotated[int, Field(ge=1, le=2**20)] | Annotated[str, StringConstraints(pattern=TENSOR_NAME)]
TensorName = Annotated[str, StringConstraints(pattern=TENSOR_NAME)]


class Part(BaseModel):
    """The base of all parts: frozen, without unknown keys, of finite numbers."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class TensorSpec(Part):
    """One tensor of an edge. `axes` are those of one item: a number is a fixed size.

    A name is a size of any length; only signatures have such axes, those of the batch and of the support set.
    """

    dtype: DType
    axes: tuple[Axis, ...]

    @cached_property
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
