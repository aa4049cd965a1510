"""The settings of a training run, read from a TOML file: unknown keys and impossible values are refused."""

import tomllib
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from .errors import ConfigInvalid
from .omniglot import DRAWERS, SPLITS

Settings = TypeVar("Settings", bound=BaseModel)


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class DataConfig(_Section):
    """Which classes train, and which, if any, select."""

    set: Literal["omniglot"]
    train: Literal["selection-train", "background"]
    select: Literal["selection"] | None = None

    @model_validator(mode="after")
    def _kept_apart(self) -> "DataConfig":
        if self.train == "background" and self.select is not None:
            raise ValueError(f"data.select: {SPLITS['selection']} are part of data.train = 'background'")
        return self


class LearnerConfig(_Section):
    """The method and its size."""

    method: Literal["prototypes", "relation", "matching", "ridge", "logistic"]
    width: int = Field(64, ge=4, le=512, description="Filters of each block, and the width of the features.")
    ways: int = Field(64, ge=2, le=1024, description="Ways that a task state holds.")
    examples: int = Field(64, ge=2, le=4096, description="Examples that a state holds, where it holds them.")
    trunk: Path | None = Field(None, description="A run directory whose encoder's weights are the start.")


class EpisodeConfig(_Section):
    """The episodes of training."""

    way: int = Field(48, ge=2, description="Classes of a training step.")
    images: int = Field(5, ge=2, le=DRAWERS, description="Images of a class; each serves in turn as the support.")


class AugmentConfig(_Section):
    """Bounds of the affine jitter."""

    degrees: float = Field(10, ge=0, le=10)
    pixels: float = Field(2, ge=0, le=2)
    scale: float = Field(0.1, ge=0, le=0.1)


class OptimizerConfig(_Section):
    """AdamW under a linear warm-up and a cosine schedule, and the moving average of the weights."""

    steps: int = Field(..., ge=1)
    rate: float = Field(1e-3, gt=0)
    weight_decay: float = Field(0.0, ge=0)
    warmup_steps: int = Field(100, ge=0)
    clip_norm: float = Field(10.0, gt=0)
    ema_decay: float = Field(0.999, ge=0, lt=1)
    precision: Literal["float32", "bfloat16"] = "float32"


class ScheduleConfig(_Section):
    """When to look at the selection classes, when to save, when to stop."""

    checkpoint_every: int = Field(500, ge=1, description="Steps between checkpoints.")
    evaluate_every: int = Field(1000, ge=1, description="Steps between looks at the selection classes.")
    patience: int = Field(10, ge=1, description="Looks without improvement before training stops.")
    episodes: int = Field(400, ge=2, description="20-way 1-shot episodes of a look.")


class TrainConfig(_Section):
    """A whole run; the same file, seed and machine give the same weights."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")
    seed: int = Field(0, ge=0)
    data: DataConfig
    learner: LearnerConfig
    episodes: EpisodeConfig = EpisodeConfig()
    augment: AugmentConfig = AugmentConfig()
    optimizer: OptimizerConfig
    schedule: ScheduleConfig = ScheduleConfig()

    @model_validator(mode="after")
    def _ways_fit(self) -> "TrainConfig":
        if self.episodes.way > self.learner.ways:
            raise ValueError(f"episodes.way: at most learner.ways = {self.learner.ways}, got {self.episodes.way}")
        return self


def read_config(path: Path) -> TrainConfig:
    """The config in a TOML file.

    Raises:
        ConfigInvalid: the file is missing or not TOML, a key is unknown, a value is out of range.
    """
    return read_toml(path, TrainConfig, ConfigInvalid)


def read_toml(path: Path, kind: type[Settings], error: type[Exception]) -> Settings:
    """The settings in a TOML file, as a model that refuses unknown keys; whatever is wrong raises `error`."""
    try:
        return kind.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as cause:
        raise error(f"{path}: {cause.strerror}") from cause
    except tomllib.TOMLDecodeError as cause:
        raise error(f"{path}: not TOML: {cause}") from cause
    except ValidationError as cause:
        lines = [f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in cause.errors()]
        raise error(f"{path}: " + "; ".join(lines)) from cause
