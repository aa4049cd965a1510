"""What a config's data set means: what is predicted, the encoder's form, the tasks to train and to select on."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from . import (
    jester,
    omniglot,
    paper_calibration,
    paper_report,
    paper_tasks,
    paper_vocabulary,
    papers,
    parkinsons,
    school_report,
    schools,
    sinusoids,
)
from .calibration import calibrate as calibrate_classes
from .config import (
    Conv4Config,
    EmbeddingConfig,
    KnownTasksConfig,
    MlpConfig,
    OmniglotConfig,
    OtherDataConfig,
    PapersConfig,
    RawConfig,
    SchoolsConfig,
    TextConfig,
    TrainConfig,
    TrunkConfig,
)
from .conv4 import Conv4
from .described_bayes import DescribedBayes
from .drawings import FeatureEpisodes, ImageEpisodes, chosen_classes, drawings, encoded
from .embedding import Embedding
from .errors import ConfigInvalid, DataUnknown
from .evaluation import Protocol, evaluate
from .head import Head
from .intervals import calibrate_numbers
from .learner import Learner, Target
from .methods import make_learner, method_class
from .mixed_readers import GUESSES, MixedReaders
from .mlp import Mlp
from .multitask import MultiTask
from .records import RecordMlp
from .task_data import fresh_multitask, look_at, open_tasks, task_steps
from .task_measuring import calibrations
from .tasks import TaskSource
from .text import TextEncoder
from .trunk import Trunk, read_trunk

NUMBERS = {"sinusoids": 1, "parkinsons": len(parkinsons.INPUTS)}
"""Numbers of an input, by the data sets whose inputs are such."""

CALIBRATION_SEED = 7_000_000


@dataclass(frozen=True, slots=True)
class Score:
    """What a look at selection tasks found, higher is better; the half-width of its 95 % interval, if it has one."""

    mean: float
    interval: float | None = None


Look = Callable[[Learner], Score]

Step = Callable[[Learner, int], float]
"""Puts the gradients of a step's loss into a learner, given the step's number; the loss."""


@dataclass(frozen=True, slots=True)
class Material:
    """What training works on.

    Attributes:
        source: Of the training tasks.
        images: Of sets of classes, for training where each image serves in turn as the one shot.
        look: At the selection tasks, if there are any.
        step: Of training on known tasks, which are not drawn from a source; the other data sets have none.
        finish: What a learner keeps besides its weights, before they are saved.
    """

    source: TaskSource | None
    images: ImageEpisodes | None
    look: Look | None
    step: Step | None = None
    finish: Callable[[Learner], None] | None = None


def target_of(config: TrainConfig) -> tuple[Target, bool]:
    """What the data set's tasks predict, and whether labels mean the same in every task."""
    if config.data.set == "omniglot":
        return "class", False
    return ("class", True) if config.data.set == "jester" else ("number", False)


def make_encoder(config: TrainConfig) -> nn.Module:
    """The config's encoder, with fresh weights.

    Raises:
        ConfigInvalid: the data set's inputs need another one.
    """
    encoder, inputs = config.encoder, config.data.set
    if inputs == "omniglot" and isinstance(encoder, Conv4Config):
        return Conv4(encoder.width)
    if inputs == "omniglot" and isinstance(encoder, TrunkConfig):
        return Trunk(encoder.width)
    if inputs in NUMBERS and isinstance(encoder, MlpConfig):
        return Mlp(NUMBERS[inputs], encoder.width, hidden=encoder.hidden)
    if inputs == "jester" and isinstance(encoder, EmbeddingConfig):
        return Embedding(jester.JOKES, encoder.width)
    if inputs == "schools" and isinstance(encoder, MlpConfig):
        band = [name for name, _ in schools.PUPIL].index("band")
        return RecordMlp(schools.sizes(schools.PUPIL), encoder.width, hidden=encoder.hidden, crossed=band)
    if inputs == "papers" and isinstance(encoder, TextConfig):
        return TextEncoder(
            encoder.pieces, encoder.tokens,
            size=encoder.size, pools=encoder.pools, guesses=GUESSES, dropout=encoder.dropout,
        )  # fmt: skip
    if isinstance(encoder, RawConfig):
        return nn.Identity()
    raise ConfigInvalid(f"encoder.kind: '{encoder.kind}' is not for the inputs of data.set = '{inputs}'")


def build(config: TrainConfig) -> Learner:
    """The learner that a config names, with fresh weights.

    Raises:
        ConfigInvalid: the method does not predict what the data set's tasks ask, or its encoder does not fit.
    """
    torch.manual_seed(config.seed)
    if isinstance(config.data, KnownTasksConfig):
        raise ConfigInvalid("data.set: the tasks of a learner come from the data, or from its run")
    _check_encoder(config)
    target, fixed = target_of(config)
    learner = config.learner
    try:
        made = make_learner(
            learner.method, make_encoder(config), learner.options,
            ways=learner.ways, examples=learner.examples, target=target, fixed=fixed,
        )  # fmt: skip
    except DataUnknown as error:
        raise ConfigInvalid(f"learner.method: {error}") from error
    if isinstance(config.data, SchoolsConfig) and isinstance(made, DescribedBayes):
        made.name_known(schools.known_ids(config.data.split, select=config.data.select))
    if isinstance(config.encoder, TextConfig) and isinstance(made, MixedReaders):
        made.name_keywords(paper_vocabulary.keywords(config.encoder.vocabulary))
    return made


def _check_encoder(config: TrainConfig) -> None:
    method, raw = config.learner.method, isinstance(config.encoder, RawConfig)
    if raw and method_class(method).encodes:
        raise ConfigInvalid(
            f"encoder.kind: '{config.encoder.kind}' is for methods that adapt a whole network: {method}"
        )
    if not raw and not method_class(method).encodes:
        raise ConfigInvalid(f"encoder.kind: 'raw' for {method}, which adapts a network of its own (learner.options)")


def fresh(config: TrainConfig, data: Path) -> Learner:
    """The learner that training begins with: that of `build`, with the trunk's weights and the data's units.

    Raises:
        DataMissing: the trunk's file, or the data, is not there.
        ConfigInvalid: the trunk has another form.
    """
    if isinstance(config.data, KnownTasksConfig):
        torch.manual_seed(config.seed)
        return fresh_multitask(config, data)
    if isinstance(config.encoder, TextConfig):
        paper_vocabulary.ensure(config.encoder.vocabulary, data, config.encoder.pieces)
    learner = build(config)
    if isinstance(config.data, PapersConfig):
        paper_tasks.prepare(learner, tokenized(config, data))
    if isinstance(config.encoder, TrunkConfig):
        trunk = learner.get_submodule("encoder")
        trunk.load_state_dict(read_trunk(config.encoder.weights, config.encoder.width).state_dict())
    if isinstance(config.data, OtherDataConfig):
        _fit_units(learner, config.data, data)
    if isinstance(config.data, SchoolsConfig):
        schools.prepare(learner, schools.load(data, config.data.split, config.data.part))
    return learner


def _fit_units(learner: Learner, chosen: OtherDataConfig, data: Path) -> None:
    """Standardise inputs and numbers by the training tasks, where the learner has a place for that."""
    mean, scale = 0.0, sinusoids.TYPICAL
    encoder = getattr(learner, "encoder", None)
    if chosen.set == "sinusoids" and isinstance(encoder, Mlp):
        encoder.scale.fill_(sinusoids.TYPICAL_INPUT)
    if chosen.set == "parkinsons":
        patients = parkinsons.load(data, "train", fold=chosen.fold)
        mean, scale = parkinsons.target_statistics(patients)
        if isinstance(encoder, Mlp):
            found = parkinsons.input_statistics(patients)
            encoder.mean.copy_(found[0])
            encoder.scale.copy_(found[1])
    if isinstance(learner, Head) and learner.target == "number":
        learner.fit_units(mean, scale)


def open_material(config: TrainConfig, data: Path, learner: Learner, *, losses: Path | None = None) -> Material:
    """The training tasks of a config, and its look at the selection tasks.

    Args:
        config: The run's settings.
        data: The data folder.
        learner: Whose frozen trunk, if it has one, encodes the drawings.
        losses: The CSV for the losses of known tasks, if they are wanted.

    Raises:
        DataMissing: a file is not there.
    """
    if isinstance(config.data, KnownTasksConfig):
        return _known(config, config.data, data, losses)
    if isinstance(config.data, OmniglotConfig):
        return _omniglot(config, config.data, data, learner)
    if isinstance(config.data, SchoolsConfig):
        return _schools(config.data, config.seed, data)
    if isinstance(config.data, PapersConfig):
        return _papers(config, data, select=config.data.select)
    return _other(config.data, config.seed, data)


def _known(config: TrainConfig, chosen: KnownTasksConfig, data: Path, losses: Path | None) -> Material:
    tasks = open_tasks(config, data)
    look = look_at(tasks)
    return Material(
        None, None, (lambda learner: Score(look(learner))) if chosen.select else None,
        task_steps(config, tasks, losses),
    )  # fmt: skip


def _other(chosen: OtherDataConfig, seed: int, data: Path) -> Material:
    if chosen.set == "sinusoids":
        source: TaskSource = sinusoids.Sinusoids()
        select: Callable[[Learner], float] = lambda learner: sinusoids.select(learner, data, seed=seed)  # noqa: E731
    elif chosen.set == "jester":
        source = jester.JesterUsers(jester.load(data, "train"))
        select = lambda learner: jester.select(learner, data, seed=seed)  # noqa: E731
    else:
        source = parkinsons.Patients(parkinsons.load(data, "train", fold=chosen.fold))
        select = lambda learner: parkinsons.select(learner, data, seed=seed, fold=chosen.fold)  # noqa: E731
    return Material(source, None, (lambda learner: Score(select(learner))) if chosen.select else None)


def _schools(chosen: SchoolsConfig, seed: int, data: Path) -> Material:
    training = schools.load(data, chosen.split, chosen.part)
    look = (
        (lambda learner: Score(school_report.select(learner, data, chosen.split, seed=seed))) if chosen.select else None
    )
    return Material(schools.Schools(training), None, look, finish=lambda learner: schools.finish(learner, training))


def _papers(config: TrainConfig, data: Path, *, select: bool) -> Material:
    material = tokenized(config, data)
    look = (lambda learner: Score(paper_report.select(learner, material))) if select else None
    return Material(material, None, look, finish=lambda learner: paper_tasks.finish(learner, material))


def tokenized(config: TrainConfig, data: Path) -> paper_tasks.TokenizedPapers:
    """All papers, cut by the tokenizer of a config.

    Raises:
        ConfigInvalid: the config has none.
        DataMissing: the papers or the tokenizer are not there.
    """
    encoder = config.encoder
    if not isinstance(encoder, TextConfig):
        raise ConfigInvalid("encoder.kind: 'text' for data.set = 'papers'")
    tokenizer = encoder.vocabulary / paper_vocabulary.TOKENIZER
    return paper_tasks.TokenizedPapers.of(papers.load(data), tokenizer, encoder.tokens)


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


def calibrate(config: TrainConfig, learners: Sequence[Learner], data: Path, *, seed: int) -> dict[str, object]:
    """The calibration table of a bundle's manifest, fitted on the selection tasks.

    Raises:
        ConfigInvalid: the run trained on them, or these are several learners of tasks other than characters.
    """
    if isinstance(config.data, OmniglotConfig):
        if config.data.train != "selection-train":
            raise ConfigInvalid("data.train: the run trained on the selection characters, which cannot calibrate it")
        return calibrate_classes(learners, omniglot.load(data, "selection"), seed=seed)
    if len(learners) > 1:
        raise ConfigInvalid("data.set: only runs on characters are calibrated together")
    (learner,) = learners
    if isinstance(learner, MultiTask):
        return dict(calibrations(learner, open_tasks(config, data).rows("select")))
    if isinstance(config.data, PapersConfig):
        return dict(paper_calibration.calibrations(learner, tokenized(config, data), seed=seed))
    if isinstance(config.data, SchoolsConfig):
        raise ConfigInvalid("data.set: intervals of schools are those of the learner itself; the report tells how "
                            "often they hold")  # fmt: skip
    if config.data.set == "sinusoids":
        # Tasks without end: those of this seed are no others'.
        return dict(calibrate_numbers(learner, sinusoids.Sinusoids(), seed=CALIBRATION_SEED + seed))
    if config.data.set == "parkinsons":
        patients = parkinsons.Patients(parkinsons.load(data, "selection", fold=config.data.fold))
        table = calibrate_numbers(learner, patients, shots=parkinsons.DAYS, seed=seed)
        # A draw's shot is a day; for the service it is an example, which is a recording.
        return {**table, "shots": [days * parkinsons.RECORDINGS_A_DAY for days in table["shots"]]}
    raise ConfigInvalid("data.set: labels that are the same for every user are calibrated by training itself")


def training_classes(chosen: OmniglotConfig) -> int:
    """How many classes, quarter turns counted, a run trains on."""
    everything = {"selection-train": 792, "background": 964}[chosen.train] * omniglot.ROTATIONS
    return min(chosen.classes or everything, everything)
