"""What a config's data set means: what is predicted, the encoder's form, the training tasks, the look at selection tasks."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from . import omniglot
from .calibration import calibrate as calibrate_classes
from .config import Conv4Config, OmniglotConfig, TrainConfig, TrunkConfig
from .conv4 import Conv4
from .drawings import FeatureEpisodes, ImageEpisodes, chosen_classes, drawings, encoded
from .errors import ConfigInvalid, DataUnknown
from .evaluation import Protocol, evaluate
from .learner import Learner, Target
from .methods import make_learner
from .tasks import TaskSource
from .trunk import Trunk, read_trunk


@dataclass(frozen=True, slots=True)
class Score:
    """What a look at selection tasks found: higher is better, with the half-width of its 95 % interval."""

    mean: float
    interval: float


Look = Callable[[Learner], Score]


@dataclass(frozen=True, slots=True)
class Material:
    """What training works on.

    Attributes:
        source: Of the training tasks.
        images: Of sets of classes, for training where each image serves in turn as the one shot.
        look: At the selection tasks, if there are any.
    """

    source: TaskSource
    images: ImageEpisodes | None
    look: Look | None


def target_of(config: TrainConfig) -> tuple[Target, bool]:
    """What the data set's tasks predict, and whether labels mean the same in every task."""
    return {"omniglot": ("class", False)}[config.data.set]  # type: ignore[return-value]


def make_encoder(config: TrainConfig) -> nn.Module:
    """The config's encoder, with fresh weights.

    Raises:
        ConfigInvalid: the data set's inputs need another one.
    """
    encoder = config.encoder
    if isinstance(encoder, Conv4Config):
        return Conv4(encoder.width)
    if isinstance(encoder, TrunkConfig):
        return Trunk(encoder.width)
    raise ConfigInvalid(f"encoder.kind: {encoder.kind} is not for data.set = '{config.data.set}'")


def build(config: TrainConfig) -> Learner:
    """The learner that a config names, with fresh weights.

    Raises:
        ConfigInvalid: the method does not predict what the data set's tasks ask, or its encoder does not fit.
    """
    torch.manual_seed(config.seed)
    target, fixed = target_of(config)
    learner = config.learner
    try:
        return make_learner(
            learner.method, make_encoder(config), learner.options,
            ways=learner.ways, examples=learner.examples, target=target, fixed=fixed,
        )  # fmt: skip
    except DataUnknown as error:
        raise ConfigInvalid(f"learner.method: {error}") from error


def fresh(config: TrainConfig) -> Learner:
    """The learner that training begins with: that of `build`, with the trunk's weights where there is one.

    Raises:
        DataMissing: the trunk's file is not there.
        ConfigInvalid: the trunk has another form.
    """
    learner = build(config)
    if isinstance(config.encoder, TrunkConfig):
        trunk = learner.get_submodule("encoder")
        trunk.load_state_dict(read_trunk(config.encoder.weights, config.encoder.width).state_dict())
    return learner


def open_material(config: TrainConfig, data: Path, learner: Learner) -> Material:
    """The training tasks of a config, and its look at the selection tasks.

    Args:
        config: The run's settings.
        data: The data folder.
        learner: Whose frozen trunk, if it has one, encodes the drawings.

    Raises:
        DataMissing: a file is not there.
    """
    if isinstance(config.data, OmniglotConfig):
        return _omniglot(config, config.data, data, learner)
    raise ConfigInvalid(f"data.set: {config.data.set} is unknown")


def _omniglot(config: TrainConfig, chosen: OmniglotConfig, data: Path, learner: Learner) -> Material:
    characters = omniglot.load(data, chosen.train)
    images = drawings(characters)
    classes = chosen_classes(len(characters), chosen.classes, config.seed)
    look = _look_at_characters(config, omniglot.load(data, chosen.select)) if chosen.select else None
    episodes = ImageEpisodes(images, classes, config.augment)
    if not isinstance(config.encoder, TrunkConfig):
        return Material(episodes, episodes, look)
    trunk = learner.get_submodule("encoder")
    assert isinstance(trunk, Trunk)  # noqa: S101 (for the type checker: the config says so)
    cache = config.encoder.weights.parent / ".features"
    features = encoded(trunk, images, config.augment, versions=config.encoder.versions, cache=cache)
    return Material(FeatureEpisodes(features, classes), None, look)


def _look_at_characters(config: TrainConfig, characters: omniglot.Characters) -> Look:
    schedule = config.schedule
    protocol = Protocol(way=schedule.way, shot=schedule.shot, query=5, episodes=schedule.episodes)

    def look(learner: Learner) -> Score:
        found = evaluate(learner, characters, [protocol], seed=config.seed)[0]
        return Score(found.mean, found.interval)

    return look


def calibrate(config: TrainConfig, learner: Learner, data: Path, *, seed: int) -> dict[str, object]:
    """The calibration table of a bundle's manifest, fitted on the selection tasks.

    Raises:
        ConfigInvalid: the run trained on them.
    """
    if isinstance(config.data, OmniglotConfig):
        if config.data.train != "selection-train":
            raise ConfigInvalid("data.train: the run trained on the selection characters, which cannot calibrate it")
        return calibrate_classes(learner, omniglot.load(data, "selection"), seed=seed)
    raise ConfigInvalid(f"data.set: {config.data.set} is unknown")


def training_classes(chosen: OmniglotConfig) -> int:
    """How many classes, quarter turns counted, a run trains on."""
    everything = {"selection-train": 792, "background": 964}[chosen.train] * omniglot.ROTATIONS
    return min(chosen.classes or everything, everything)
