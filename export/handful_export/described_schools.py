"""What the export of schools needs: fields of pupils and schools, real pupils, and small requests."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from handful_models.config import SchoolsConfig
from handful_models.learner import DescribedLearner, Descriptor
from handful_models.record_encoder import RecordField, rows_of
from handful_models.schools import ANY, PUPIL, SCHOOL, any_school, examples, load, metadata_of
from handful_service.task import Arrays

from .described import DescribedMaterial, RawTask
from .known import INDEX

ROWS = 48

PERCENT = (0.0, 100.0)
OPEN = ("ethnic_group", "denomination")
"""Categories that have more members than the data names."""

PUPILS: tuple[dict[str, str | float], ...] = (
    {"year": "1987", "free_meals": 24, "band_1": 20, "sex": "girl", "band": "1", "ethnic_group": "1"},
    {"year": "1985", "free_meals": 41, "band_1": 12.5, "sex": "girl", "band": "3", "ethnic_group": "5"},
    {"year": "1986", "free_meals": 9, "band_1": 38, "sex": "boy", "band": "2", "ethnic_group": "12"},
)
"""Pupils of nobody; the last one's group is not among the listed ones."""

SCHOOLS: tuple[dict[str, str | float], ...] = (
    {"sexes": "girls", "denomination": "roman-catholic", "free_meals": 18, "band_1": 31},
    {"sexes": "mixed", "denomination": "quaker", "free_meals": 44.5, "band_1": 14},
    {},
)
"""Schools that there are not: known categories, one that is not listed, and nothing but the defaults."""

SCORES = (34.0, 15.0, 29.0, 41.0, 22.0)


def schools_material(learner: DescribedLearner, config: SchoolsConfig, data: Path) -> DescribedMaterial:
    """The material but for what the run says of itself.

    Raises:
        DataMissing: the file is not there.
    """
    training = load(data, config.split, config.part)
    anywhere = any_school(training)
    fields = school_fields(anywhere.numpy()[0])
    known = np.concatenate([anywhere.numpy(), metadata_of(training).numpy()])
    pupils = examples([(school, np.arange(len(school.y))) for school in load(data, config.split, "report")])
    real = np.argwhere(pupils.weight.numpy() > 0)
    some = real[np.random.default_rng(0).choice(len(real), ROWS, replace=False)]
    return DescribedMaterial(
        inputs={"x": pupils.x["x"].numpy()[some[:, 0], some[:, 1]]},
        requests=_requests(learner, fields),
        card="",
        fields={"x": [field.options() for field in pupil_fields()]},
        descriptors={"metadata": {"record": {"fields": [each.options() for each in fields]}, "beside_id": False}},
        described={"metadata": {"metadata": known}},
        notes={ANY: {"description": "No school in particular: where nothing is known but the pupil."}},
        y=pupils.y.numpy()[some[:, 0], some[:, 1]],
    )


def pupil_fields() -> list[RecordField]:
    """The fields of an input."""
    return [_field(name, categories, None) for name, categories in PUPIL]


def school_fields(anywhere: np.ndarray) -> list[RecordField]:
    """The fields of a task's metadata; what is left out is that of no school in particular, `[field]`."""
    found = []
    for (name, categories), value in zip(SCHOOL, anywhere.tolist(), strict=True):
        found.append(_field(name, categories, categories[int(value)] if categories else value))
    return found


def _field(name: str, categories: tuple[str, ...], default: str | float | None) -> RecordField:
    if categories:
        return RecordField(name, "category", categories, default=default, unseen="other" if name in OPEN else "refuse")
    return RecordField(name, "number", minimum=PERCENT[0], maximum=PERCENT[1], default=default)


def _requests(learner: DescribedLearner, fields: list[RecordField]) -> list[RawTask]:
    """Schools by id and by metadata, each without examples, and one of each kind after five pupils."""
    found = []
    for place in (0, len(learner.readers) - 1):
        index = {INDEX: np.array([place], np.int64)}
        found.append(_request(learner, {"id": learner.readers[place].id}, index))
    found += [_request(learner, {"metadata": school}, {"metadata": row_of(fields, school)}) for school in SCHOOLS]
    return [*found, _after_five(found[1]), _after_five(found[2])]


def _request(learner: DescribedLearner, task: dict[str, Any], descriptor: Arrays) -> RawTask:
    kind: Descriptor = "id" if "id" in task else "metadata"
    reader = str(task.get("id", learner.readers[0].id))
    return RawTask(reader, task, kind, descriptor, PUPILS, {"x": _pupils(PUPILS)})


def _after_five(raw: RawTask) -> RawTask:
    pupils = [PUPILS[place % len(PUPILS)] for place in range(len(SCORES))]
    support = list(zip(pupils, SCORES, strict=True))
    return dataclasses.replace(raw, support=support, support_inputs={"x": _pupils(pupils)})


def _pupils(records: Any) -> np.ndarray:
    fields = pupil_fields()
    return np.concatenate([row_of(fields, record) for record in records])


def row_of(fields: list[RecordField], record: dict[str, str | float]) -> np.ndarray:
    """A record as a row, float32 `[1, field]`, defaults filled in."""
    values = {field.name: record.get(field.name, field.default) for field in fields}
    return rows_of(fields, {name: [value] for name, value in values.items() if value is not None}).numpy()
