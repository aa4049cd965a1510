"""How the columns of `y` are read: the kinds of outputs, with what calibrates each."""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from statistics import NormalDist
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, model_validator

from .parts import Part

Label = Annotated[str, StringConstraints(min_length=1, max_length=256)]
HalfWidth = Annotated[float, Field(gt=0)]


class Calibration(Part):
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
        return _nearest_lower(self.ways, ways), _nearest_lower(self.shots, shots)

    @model_validator(mode="after")
    def _grids_fit(self) -> "Calibration":
        _must_rise(self, ("ways", "shots", "confidence"))
        shape = (len(self.ways), len(self.shots))
        cells_fit = len(self.temperature) == len(self.quantile) == shape[0] and all(
            len(row) == shape[1] for row in (*self.temperature, *self.quantile)
        )
        if not cells_fit or any(len(cell) != len(self.confidence) for row in self.quantile for cell in row):
            raise ValueError("temperature and quantile must have a cell for each of ways x shots")
        if any(list(cell) != sorted(cell) for row in self.quantile for cell in row):
            raise ValueError("quantile must not fall with the confidence")
        return self


class NumberCalibration(Part):
    """A table over effective shots and confidences: half the width of the central interval, in standard deviations."""

    shots: tuple[float, ...] = Field(min_length=1)
    confidence: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = Field(min_length=1)
    quantile: tuple[tuple[HalfWidth, ...], ...]

    def half_width(self, shots: float, confidence: float) -> float:
        """Half the width of the interval of a task; beyond the highest confidence never less than a normal one."""
        row = self.quantile[_nearest_lower(self.shots, shots)]
        level = bisect_left(self.confidence, confidence)
        return row[level] if level < len(row) else max(row[-1], normal_half_width(confidence))

    @model_validator(mode="after")
    def _grids_fit(self) -> "NumberCalibration":
        _must_rise(self, ("shots", "confidence"))
        if len(self.quantile) != len(self.shots) or any(len(row) != len(self.confidence) for row in self.quantile):
            raise ValueError("quantile must have a cell for each of shots x confidence")
        if any(list(row) != sorted(row) for row in self.quantile):
            raise ValueError("quantile must not fall with the confidence")
        return self


class LabelsCalibration(Part):
    """What turns the logits of any-of labels into scores, and scores into labels.

    Scores are `sigmoid(logits / temperature)`; a label holds where its score is at least its threshold.
    """

    temperature: float = Field(gt=0)
    threshold: tuple[Annotated[float, Field(ge=0, le=1)], ...] = Field(min_length=1)


class ClassOutput(Part):
    """One label of several: the columns are logits, one for each way."""

    kind: Literal["class"]
    members: int = Field(1, ge=1, le=64)
    labels: Literal["open"] | Annotated[tuple[Label, ...], Field(min_length=1)]
    calibration: Calibration | None = None

    def width(self, ways: int) -> int:
        """Columns of `y`."""
        return ways


class LabelsOutput(Part):
    """Any of several labels: the columns are logits, one for each, of sigmoids."""

    kind: Literal["labels"]
    members: int = Field(1, ge=1, le=64)
    labels: Annotated[tuple[Label, ...], Field(min_length=1)]
    calibration: LabelsCalibration | None = None

    @model_validator(mode="after")
    def _thresholds_fit(self) -> "LabelsOutput":
        if self.calibration is not None and len(self.calibration.threshold) != len(self.labels):
            raise ValueError(f"there are {len(self.calibration.threshold)} thresholds, but {len(self.labels)} labels")
        return self

    def width(self, ways: int) -> int:
        """Columns of `y`."""
        return len(self.labels)


class NumberOutput(Part):
    """A number: the columns are the mean and the log-variance of a Gaussian, in the caller's units."""

    kind: Literal["number"]
    members: int = Field(1, ge=1, le=64)
    labels: None = None
    calibration: NumberCalibration | None = None

    def width(self, ways: int) -> int:
        """Columns of `y`."""
        return 2

    def half_width(self, shots: float, confidence: float) -> float:
        """Half the width of the central interval at a confidence, in standard deviations."""
        if self.calibration is None:
            return normal_half_width(confidence)
        return self.calibration.half_width(shots, confidence)


class TaskOutput(Part):
    """Every known task reads columns of its own, with an output of its own: see `tasks.json`."""

    kind: Literal["task"]
    members: int = Field(1, ge=1, le=64)
    columns: int = Field(ge=1, le=2**20)
    labels: None = None
    calibration: None = None

    def width(self, ways: int) -> int:
        """Columns of `y`."""
        return self.columns


TaskReader = ClassOutput | LabelsOutput | NumberOutput
"""How the columns of one task are read."""

Reader = Annotated[TaskReader, Field(discriminator="kind")]
Output = Annotated[TaskReader | TaskOutput, Field(discriminator="kind")]


def normal_half_width(confidence: float) -> float:
    """Half the width of the central interval of a normal distribution, in standard deviations."""
    return -NormalDist().inv_cdf((1 - confidence) / 2)  # the lower tail: near 1 the upper one would round to 1


def _nearest_lower(grid: Sequence[float], value: float) -> int:
    return max(0, bisect_right(grid, value) - 1)


def _must_rise(table: Part, names: Sequence[str]) -> None:
    for name in names:
        grid = getattr(table, name)
        if list(grid) != sorted(set(grid)):
            raise ValueError(f"{name} must rise")
