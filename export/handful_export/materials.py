"""Real examples of a run's data set, for the gate and the golden requests."""

from pathlib import Path

import numpy as np

from handful_models import jester, omniglot, parkinsons, sinusoids
from handful_models.config import OmniglotConfig, TrainConfig
from handful_models.known import read_known
from handful_models.tasks import Episodes, EpisodeShape, TaskSource

from .drawings import episodes as drawing_episodes
from .drawings import sample as drawing_sample
from .golden import RawEpisode
from .known import KnownTasks
from .sample import Sample, TaskSample

TASKS = 40
EXAMPLES = 40


def materials(config: TrainConfig, data: Path) -> tuple[Sample, list[RawEpisode]]:
    """What the gate draws from, and a few small tasks as clients send them.

    Raises:
        DataMissing: a file is not there.
    """
    if isinstance(config.data, OmniglotConfig):
        characters = omniglot.load(data, config.data.train)
        return drawing_sample(characters), drawing_episodes(characters, seed=0)
    labels = jester.LABELS if config.data.set == "jester" else None
    source: TaskSource = sinusoids.Sinusoids()
    if config.data.set == "jester":
        source = jester.JesterUsers(jester.load(data, "train"))
    elif config.data.set == "parkinsons":
        source = parkinsons.Patients(parkinsons.load(data, "train", fold=config.data.fold))
    shot = (4, 4) if config.data.set == "parkinsons" else (EXAMPLES // 2, EXAMPLES // 2)
    shape = EpisodeShape(TASKS, (1, 1), shot, EXAMPLES - shot[1])
    drawn = source.draw(np.random.default_rng(0), shape)
    return _sample(drawn), [_raw(config.data.set, labels, support) for support in (0, 5)]


def known_tasks(folder: Path) -> KnownTasks:
    """The tasks that `handful finetune` wrote into a folder.

    Raises:
        ConfigInvalid: they are not there.
    """
    entries, states = read_known(folder)
    return KnownTasks(entries, states)


def _sample(drawn: Episodes) -> TaskSample:
    """Only tasks all of whose examples are there; of the others the gate could draw what is absent."""
    whole = ((drawn.support.weight.min(1).values > 0) & (drawn.query.weight.min(1).values > 0)).numpy()
    x = {
        name: np.concatenate([value.numpy(), drawn.query.x[name].numpy()], 1)[whole]
        for name, value in drawn.support.x.items()
    }
    return TaskSample(x, np.concatenate([drawn.support.y.numpy(), drawn.query.y.numpy()], 1)[whole])


def _raw(name: str, labels: tuple[str, ...] | None, support: int) -> RawEpisode:
    """A small task of made-up examples: nobody's data stands in a bundle."""
    generator = np.random.default_rng(support)
    count = support + 3
    if name == "jester":
        x = generator.choice(jester.JOKES, (count, 1), replace=False).astype(np.int64)
    elif name == "sinusoids":
        x = generator.uniform(*sinusoids.INPUT, (count, 1)).astype(np.float32)
    else:
        x = generator.normal(size=(count, len(parkinsons.INPUTS))).astype(np.float32)
    given = [labels[place % 2] if labels else round(2 * float(np.sin(place)), 3) for place in range(support)]
    rows = [row.tolist() for row in x]
    return RawEpisode(
        list(zip(rows[:support], given, strict=True)), rows[support:], {"x": x[:support]}, {"x": x[support:]}
    )
