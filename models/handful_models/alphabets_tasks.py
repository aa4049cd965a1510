"""The 30 background alphabets of Omniglot as 30 known tasks, each with its characters as labels.

Of each character, drawings 1-13 train, 14-16 select, 17-20 are for the report.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from . import omniglot
from .augment import jittered
from .config import AugmentConfig
from .drawings import drawings
from .learner import Reader
from .record_encoder import RecordField
from .task_sampling import TaskBatch, TaskRows, chosen_tasks, drawn_places

DRAWINGS = {"train": range(13), "select": range(13, 16), "report": range(16, 20)}
"""By what they are for: places of a character's drawings, from 0."""


class AlphabetTasks:
    """See `KnownTasks`.

    Args:
        data: The data folder.
        augment: Bounds of the jitter of training drawings.
        only: Ids of the tasks that are wanted; all if none.

    Raises:
        DataMissing: a file is not there.
        ConfigInvalid: no such task.
    """

    fields: tuple[RecordField, ...] = ()

    def __init__(self, data: Path, augment: AugmentConfig, only: Sequence[str] = ()) -> None:
        characters = omniglot.load(data, "background")
        names = alphabet_names(data)
        every = {names.get(int(place), f"alphabet-{place}"): characters.alphabet == place
                 for place in np.unique(characters.alphabet)}  # fmt: skip
        self._chosen = [np.flatnonzero(every[name]) for name in chosen_tasks(list(every), only)]
        self._small, self._augment = torch.from_numpy(characters.small), augment
        self._large = drawings(characters)
        self.readers = tuple(
            reader_of(name, characters.character_id[places])
            for name, places in zip(chosen_tasks(list(every), only), self._chosen, strict=True)
        )

    def sizes(self) -> list[int]:
        """See `KnownTasks`."""
        return [len(places) * len(DRAWINGS["train"]) for places in self._chosen]

    def draw(self, generator: np.random.Generator, counts: Sequence[int]) -> TaskBatch:
        """See `KnownTasks`: jittered drawings."""
        slots, sources, tasks = [], [], []
        for task, (characters, count) in enumerate(zip(self._chosen, counts, strict=True)):
            if count == 0:
                continue
            place = drawn_places(generator, len(characters) * len(DRAWINGS["train"]), count)
            slot = place // len(DRAWINGS["train"])
            sources.append(self._large[torch.from_numpy(characters)[slot], place % len(DRAWINGS["train"])])
            slots.append(slot)
            tasks.append(task)
        source = torch.cat(sources)
        x = jittered(source, np.zeros(len(source)), self._augment, generator)
        parts = torch.split(x, [len(slot) for slot in slots])
        return TaskBatch(tuple(tasks), tuple(_rows(part, slot) for part, slot in zip(parts, slots, strict=True)))

    def rows(self, split: str) -> list[TaskRows]:
        """The drawings of a split of `DRAWINGS` as they are, by task."""
        places = list(DRAWINGS[split])
        return [
            _rows(
                self._small[torch.from_numpy(characters)][:, places].flatten(0, 1).unsqueeze(1).float() / 255,
                torch.arange(len(characters)).repeat_interleave(len(places)),
            )
            for characters in self._chosen
        ]

    def fit(self, learner: object) -> None:
        """Nothing: pictures and labels have no units."""


def _rows(x: Tensor, slot: Tensor) -> TaskRows:
    return TaskRows({"x": x}, slot, torch.ones(len(slot)))


def reader_of(name: str, character_ids: np.ndarray) -> Reader:
    """The task of one alphabet, whose labels are Omniglot's own numbers of the characters."""
    labels = tuple(f"character {number}" for number in character_ids)
    words = f"The {len(labels)} characters of {name.replace('-', ' ')}, 13 training drawings of each."
    return Reader(name, "class", (0, len(labels)), labels, float(len(DRAWINGS["train"])), description=words)


def alphabet_names(data: Path) -> dict[int, str]:
    """Ids of alphabets by number, where the data set names them: lower case, with hyphens."""
    with np.load(data / "omniglot" / omniglot.FILES[0], allow_pickle=False) as arrays:
        if "alphabet_names" not in arrays:
            return {}
        return {place: _id(str(name)) for place, name in enumerate(arrays["alphabet_names"])}


def _id(name: str) -> str:
    kept = "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in name.lower())
    return "-".join(part for part in kept.split("-") if part)
