"""Real inputs and small requests of the data sets of known tasks, for the gate and the golden requests."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from handful_models import omniglot
from handful_models.config import PapersConfig, SchoolsConfig
from handful_models.learner import DescribedLearner, Reader
from handful_models.record_encoder import RecordField, rows_of
from handful_models.runs import Run
from handful_models.task_data import open_tasks
from handful_models.task_sampling import KnownTasks
from handful_service.task import Arrays

from .described import DescribedMaterial, RawTask
from .described_papers import papers_material
from .described_schools import schools_material
from .drawings import png
from .known import INDEX

ROWS = 48
"""Real inputs that the gate draws from."""

QUERIES = 2
REQUESTED = 4
"""Tasks that have a golden request."""


def described_material(run: Run, learner: DescribedLearner, data: Path, card: str) -> DescribedMaterial:
    """What the export of a run's learner needs beside it.

    Raises:
        DataMissing: a file is not there.
        ConfigInvalid: the data set has no known tasks.
    """
    found = _material(run, learner, data)
    notes = {**found.notes, **_read(run.notes)}
    evaluation = _read(run.evaluation) or None
    return dataclasses.replace(
        found, card=card, calibrations=_read(run.calibration), notes=notes, evaluation=evaluation
    )


def _material(run: Run, learner: DescribedLearner, data: Path) -> DescribedMaterial:
    config = run.read_config()
    if isinstance(config.data, PapersConfig):
        return papers_material(run, learner, data)
    if isinstance(config.data, SchoolsConfig):
        return schools_material(learner, config.data, data)
    tasks = open_tasks(config, data)
    places = np.unique(np.linspace(0, len(learner.readers) - 1, REQUESTED).round().astype(int))
    chosen = [(int(place), learner.readers[place]) for place in places]
    pictures = config.data.set == "alphabets"
    return DescribedMaterial(
        inputs=_rows(tasks),
        requests=_drawn(chosen, data) if pictures else _made_up(chosen, tasks.fields),
        card="",
        fields={} if pictures else {"x": [field.options() for field in tasks.fields]},
    )


def _read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return found


def _rows(tasks: KnownTasks) -> Arrays:
    """Some selection rows of all tasks."""
    generator = np.random.default_rng(0)
    rows = tasks.rows("select")
    each = -(-ROWS // len(rows))
    places = [generator.integers(len(part), size=each) for part in rows]
    return {
        name: np.concatenate([part.x[name].numpy()[place] for part, place in zip(rows, places, strict=True)])
        for name in rows[0].x
    }


def _request(place: int, reader: Reader, queries: Sequence[Any], inputs: np.ndarray) -> RawTask:
    index = {INDEX: np.array([place], np.int64)}
    return RawTask(reader.id, {"id": reader.id}, "id", index, queries, {"x": inputs})


def _drawn(chosen: Sequence[tuple[int, Reader]], data: Path) -> list[RawTask]:
    """Drawings of the report, as pictures: dark on light and light on dark in turn."""
    characters = omniglot.load(data, "background")
    numbers = {f"character {number}": place for place, number in enumerate(characters.character_id)}
    found = []
    for turn, (place, reader) in enumerate(chosen):
        rows = [numbers[label] for label in reader.labels[:QUERIES]]
        queries = [png(characters.bits[row, -1], dark_on_light=turn % 2 == 0) for row in rows]
        inputs = characters.small[rows, -1][:, None].astype(np.float32) / np.float32(255)
        found.append(_request(place, reader, queries, inputs))
    return found


def _made_up(chosen: Sequence[tuple[int, Reader]], fields: Sequence[RecordField]) -> list[RawTask]:
    """Records of nobody: fields drawn apart from each other."""
    generator = np.random.default_rng(0)
    found = []
    for place, reader in chosen:
        records = [{field.name: _value(field, generator) for field in fields} for _ in range(QUERIES)]
        columns = {field.name: [record[field.name] for record in records] for field in fields}
        found.append(_request(place, reader, records, rows_of(fields, columns).numpy()))
    return found


def _value(field: RecordField, generator: np.random.Generator) -> str | float:
    if field.kind == "category":
        return str(generator.choice(field.categories))
    low, high = field.minimum or 0.0, field.maximum
    return float(generator.integers(int(low), int(high) + 1 if high is not None else 5000))
