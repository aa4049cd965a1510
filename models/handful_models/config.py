"""The settings of a training run, read from a TOML file: unknown keys and impossible values are refused."""

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError, model_validator

from .errors import ConfigInvalid, DataUnknown
from .methods import DESCRIBED, check_method
from .omniglot import DRAWERS, SPLITS
from .school_splits import SPLITS as SCHOOL_SPLITS

Settings = TypeVar("Settings", bound=BaseModel)


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


def _kind(default: str) -> Discriminator:
    """Chooses the section's type by its key `kind`, which may be left out."""
    return Discriminator(lambda value: value.get("kind", default) if isinstance(value, dict) else value.kind)


class OmniglotConfig(_Section):
    """Which characters train, and which, if any, select."""

    set: Literal["omniglot"]
    train: Literal["selection-train", "background"]
    select: Literal["selection"] | None = None
    classes: int | None = Field(
        None, ge=2, description="Train on so many random classes (rotations count); all if not given."
    )

    @model_validator(mode="after")
    def _kept_apart(self) -> "OmniglotConfig":
        if self.train == "background" and self.select is not None:
            raise ValueError(f"data.select: {SPLITS['selection']} are part of data.train = 'background'")
        return self


class OtherDataConfig(_Section):
    """A data set whose training, selection and report tasks are fixed."""

    set: Literal["sinusoids", "jester", "parkinsons"]
    select: bool = Field(False, description="Whether to look at the selection tasks.")
    fold: int = Field(0, ge=0, le=5, description="Of `parkinsons`: the patients that are left for the report.")


class KnownTasksConfig(_Section):
    """A data set of known tasks, which one learner does all of."""

    set: Literal["alphabets", "adult"]
    select: bool = Field(True, description="Whether to look at the selection rows.")
    only: tuple[str, ...] = Field((), description="Ids of the tasks to train on; all if none.")


class SchoolsConfig(_Section):
    """Schools, of which a split holds 28 out for the report."""

    set: Literal["schools"]
    split: int = Field(0, ge=0, lt=SCHOOL_SPLITS, description="Which schools are held out.")
    select: bool = Field(False, description="Whether to leave 20 training schools for looks at them.")

    @property
    def part(self) -> str:
        """The schools that train."""
        return "fit" if self.select else "train"


class PapersConfig(_Section):
    """Papers with what is known of each; the held-out venue-years are fixed."""

    set: Literal["papers"]
    select: bool = Field(True, description="Whether to look at the key words of the selection papers.")


class Conv4Config(_Section):
    """Four convolutional blocks, trained with the head."""

    kind: Literal["conv4"] = "conv4"
    width: int = Field(64, ge=4, le=512, description="Filters of each block, and the width of the features.")


class TrunkConfig(_Section):
    """The four blocks of a trained encoder, frozen: the head trains on what they give."""

    kind: Literal["trunk"]
    weights: Path = Field(description="The encoder's weights: of a run (`weights.pt`), or from `handful trunk`.")
    width: int = Field(64, ge=4, le=512)
    versions: int = Field(2, ge=0, le=20, description="Jittered copies of each drawing that are encoded beside it.")


class MlpConfig(_Section):
    """Layers for inputs that are numbers."""

    kind: Literal["mlp"]
    hidden: tuple[int, ...] = (64, 64)
    width: int = Field(64, ge=1, le=512)


class EmbeddingConfig(_Section):
    """A vector for each number of a list of things."""

    kind: Literal["embedding"]
    width: int = Field(32, ge=1, le=512)


class TextConfig(_Section):
    """Embeddings of subword pieces, averaged under learned weights."""

    kind: Literal["text"]
    vocabulary: Path = Field(description="The folder of tokenizer.json; training makes it where it is missing.")
    pieces: int = Field(6144, ge=256, le=8192)
    tokens: int = Field(256, ge=8, le=1024, description="Of a text; what stands beyond is cut off.")
    size: int = Field(64, ge=4, le=256, description="Of an embedding.")
    pools: int = Field(4, ge=1, le=16, description="Averages, each under weights of its own.")
    dropout: float = Field(0.0, ge=0, lt=1, description="Share of a text's pieces that a training step leaves out.")


class RawConfig(_Section):
    """No encoder: the features are the inputs, for methods that adapt the whole network."""

    kind: Literal["raw"]


EncoderConfig = Annotated[
    Annotated[Conv4Config, Tag("conv4")]
    | Annotated[TrunkConfig, Tag("trunk")]
    | Annotated[MlpConfig, Tag("mlp")]
    | Annotated[EmbeddingConfig, Tag("embedding")]
    | Annotated[TextConfig, Tag("text")]
    | Annotated[RawConfig, Tag("raw")],
    _kind("conv4"),
]


class LearnerConfig(_Section):
    """The method and the size of its state."""

    method: str
    ways: int = Field(64, ge=1, le=1024, description="Ways that a task state holds.")
    examples: int = Field(120, ge=1, le=4096, description="Examples that a state holds, where it holds them.")
    options: dict[str, Any] = Field({}, description="The method's own settings.")

    @model_validator(mode="after")
    def _method_is_known(self) -> "LearnerConfig":
        try:
            check_method(self.method, self.options)
        except DataUnknown as error:
            raise ValueError(str(error)) from None
        return self


Bounds = Annotated[tuple[int, int], Field(description="Least and most, drawn anew for each step.")]


class EpisodeConfig(_Section):
    """Training on tasks: a support set and queries each."""

    kind: Literal["tasks"] = "tasks"
    tasks: int = Field(16, ge=1, le=1024, description="Tasks of a step.")
    way: Bounds = (5, 20)
    shot: Bounds = (1, 5)
    query: int = Field(5, ge=1, le=1000, description="Queries, of a class where there are classes.")

    @model_validator(mode="after")
    def _bounds_rise(self) -> "EpisodeConfig":
        for name, (low, high), least in (("way", self.way, 1), ("shot", self.shot, 0)):
            if not least <= low <= high:
                raise ValueError(f"{name}: least and most, from {least} on, got [{low}, {high}]")
        return self


class RotatingConfig(_Section):
    """Training on one set of classes a step, of which each image serves in turn as the one shot."""

    kind: Literal["rotating"]
    way: int = Field(48, ge=2, description="Classes of a training step.")
    images: int = Field(5, ge=2, le=DRAWERS, description="Images of a class; each serves in turn as the support.")


EpisodesConfig = Annotated[
    Annotated[EpisodeConfig, Tag("tasks")] | Annotated[RotatingConfig, Tag("rotating")], _kind("tasks")
]


class BatchesConfig(_Section):
    """Training on known tasks: the rows of a step, and whose they are."""

    rows: int = Field(256, ge=1, le=65536, description="Rows of a step, of all tasks together.")
    temperature: float | None = Field(
        None, ge=1, description="Shares are sizes to the power 1 / temperature; the same for all tasks if not given."
    )


class AugmentConfig(_Section):
    """Bounds of the affine jitter of drawings."""

    degrees: float = Field(10, ge=0, le=10)
    pixels: float = Field(2, ge=0, le=2)
    scale: float = Field(0.1, ge=0, le=0.1)


class OptimizerConfig(_Section):
    """The outer optimizer, its schedule, and the moving average of the weights."""

    steps: int = Field(..., ge=1)
    rate: float = Field(1e-3, gt=0)
    kind: Literal["adamw", "sgd"] = "adamw"
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = Field(0.0, ge=0)
    schedule: Literal["cosine", "constant", "linear", "step"] = "cosine"
    step_every: int = Field(1000, ge=1, description="Of the schedule `step`: steps between two falls of the rate.")
    step_factor: float = Field(0.1, gt=0, lt=1, description="Of the schedule `step`: what the rate falls by.")
    restart_at: int | None = Field(None, ge=1, description="Of the schedule `cosine`: the step of a second cosine.")
    restart_factor: float = Field(0.5, gt=0, le=1, description="Where it begins, as a fraction of `rate`.")
    warmup_steps: int = Field(100, ge=0)
    clip_norm: float = Field(10.0, gt=0)
    ema_decay: float = Field(0.999, ge=0, lt=1)
    precision: Literal["float32", "bfloat16"] = "float32"


class ScheduleConfig(_Section):
    """When to look at the selection tasks, when to save, when to stop."""

    checkpoint_every: int = Field(500, ge=1, description="Steps between checkpoints.")
    evaluate_every: int = Field(1000, ge=1, description="Steps between looks at the selection tasks.")
    patience: int = Field(10, ge=1, description="Looks without improvement before training stops.")
    episodes: int = Field(400, ge=2, description="Episodes of a look at selection characters.")
    way: int = Field(20, ge=2, description="Ways of a look at selection characters.")
    shot: int = Field(1, ge=1, description="Shots of a look at selection characters.")


class SearchConfig(_Section):
    """Random search (Bergstra, Bengio 2012): settings by their dotted names, between two bounds or of a list."""

    ranges: dict[str, tuple[float, float]] = Field(min_length=1)
    choices: dict[str, tuple[Any, ...]] = Field({}, description="Settings with the values that may be drawn.")
    trials: int = Field(8, ge=1, le=1000)
    seeds: int = Field(1, ge=1, le=100, description="Runs of a trial, whose mean score is the trial's.")

    @property
    def names(self) -> tuple[str, ...]:
        """The settings that are drawn."""
        return (*self.ranges, *self.choices)

    @model_validator(mode="after")
    def _ranges_rise(self) -> "SearchConfig":
        for name, (low, high) in self.ranges.items():
            if not 0 < low < high:
                raise ValueError(f"search.ranges.{name}: two rising numbers above 0, got [{low:g}, {high:g}]")
        for name, values in self.choices.items():
            if name in self.ranges or not values:
                raise ValueError(f"search.choices.{name}: one value or more, and not among search.ranges")
        return self


class TrainConfig(_Section):
    """A whole run; the same file, seed and machine give the same weights."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")
    seed: int = Field(0, ge=0)
    data: Annotated[
        OmniglotConfig | OtherDataConfig | KnownTasksConfig | SchoolsConfig | PapersConfig, Field(discriminator="set")
    ]
    encoder: EncoderConfig = Conv4Config()
    learner: LearnerConfig
    episodes: EpisodesConfig = EpisodeConfig()
    batches: BatchesConfig = BatchesConfig()
    augment: AugmentConfig = AugmentConfig()
    optimizer: OptimizerConfig
    schedule: ScheduleConfig = ScheduleConfig()
    search: SearchConfig | None = None

    @model_validator(mode="after")
    def _parts_fit(self) -> "TrainConfig":
        tasks, characters = isinstance(self.episodes, EpisodeConfig), isinstance(self.data, OmniglotConfig)
        if not tasks and not characters:
            raise ValueError(f"episodes.kind: 'tasks' for data.set = '{self.data.set}'")
        if tasks and self.optimizer.precision != "float32":
            raise ValueError("optimizer.precision: bfloat16 is for episodes.kind = 'rotating'")
        if self.data.set == "jester" and self.learner.ways != 2:
            raise ValueError(f"learner.ways: 2, like and dislike, for data.set = 'jester', got {self.learner.ways}")
        if characters and self.data.select and self.schedule.way > self.learner.ways:
            raise ValueError(f"schedule.way: at most learner.ways = {self.learner.ways}, got {self.schedule.way}")
        if isinstance(self.data, KnownTasksConfig) != (self.learner.method in DESCRIBED):
            raise ValueError(f"learner.method: {' or '.join(DESCRIBED)} for known tasks, and only for those")
        return self

    @model_validator(mode="after")
    def _tasks_fit(self) -> "TrainConfig":
        most = self.episodes.way[1] if isinstance(self.episodes, EpisodeConfig) else self.episodes.way
        if most > self.learner.ways:
            raise ValueError(f"episodes.way: at most learner.ways = {self.learner.ways}, got {most}")
        if isinstance(self.data, OmniglotConfig) and isinstance(self.episodes, EpisodeConfig):
            least, images = self.episodes.shot[0], self.episodes.shot[1] + self.episodes.query
            if least < 1:
                raise ValueError(f"episodes.shot: at least 1 of each character, got {least}")
            if images > DRAWERS:
                raise ValueError(f"episodes: shot and query are at most {DRAWERS} drawings together, got {images}")
        if isinstance(self.encoder, TrunkConfig) and not isinstance(self.episodes, EpisodeConfig):
            raise ValueError("episodes.kind: 'tasks' for a frozen trunk")  # noqa: TRY004 (of a config)
        return self


def read_config(path: Path, changes: Sequence[str] = ()) -> TrainConfig:
    """The config in a TOML file, with some settings changed.

    Args:
        path: The file.
        changes: `dotted.name=value`, the value as TOML would have it (a bare word is a string).

    Raises:
        ConfigInvalid: the file is missing or not TOML, a key is unknown, a value is out of range.
    """
    table = _toml(path, ConfigInvalid)
    for change in changes:
        _change(table, change)
    return _validated(table, TrainConfig, path, ConfigInvalid)


def changed(config: TrainConfig, values: Mapping[str, Any]) -> TrainConfig:
    """The config with other values of settings, by their dotted names.

    Raises:
        ConfigInvalid: a name is unknown, or a value out of range.
    """
    table = config.model_dump(mode="json")
    for name, value in values.items():
        _put(table, name, value)
    return _validated(table, TrainConfig, Path(config.name), ConfigInvalid)


def read_toml(path: Path, kind: type[Settings], error: type[Exception]) -> Settings:
    """The settings in a TOML file, as a model that refuses unknown keys; whatever is wrong raises `error`."""
    return _validated(_toml(path, error), kind, path, error)


def _toml(path: Path, error: type[Exception]) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as cause:
        raise error(f"{path}: {cause.strerror}") from cause
    except tomllib.TOMLDecodeError as cause:
        raise error(f"{path}: not TOML: {cause}") from cause


def _validated(table: dict[str, Any], kind: type[Settings], path: Path, error: type[Exception]) -> Settings:
    try:
        return kind.model_validate(table)
    except ValidationError as cause:
        lines = [f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in cause.errors()]
        raise error(f"{path}: " + "; ".join(lines)) from cause


def _change(table: dict[str, Any], change: str) -> None:
    name, equals, text = change.partition("=")
    if not equals:
        raise ConfigInvalid(f"--set {change}: write it as dotted.name=value")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    _put(table, name.strip(), value)


def _put(table: dict[str, Any], name: str, value: Any) -> None:
    *sections, key = name.split(".")
    for section in sections:
        table = table.setdefault(section, {})
        if not isinstance(table, dict):
            raise ConfigInvalid(f"{name}: {section} is no section")
    table[key] = value
