"""Which tasks of a bundle are read together."""

from typing import Any, cast

import pytest
from tests.serving import BUNDLES

from handful_service.bundle.bundle import Bundle
from handful_service.cache import Held
from handful_service.predictor.models import Served
from handful_service.predictor.reading import Reading
from handful_service.task import Labels


def readings(name: str) -> tuple[Served, list[Reading]]:
    (folder,) = (BUNDLES / name).glob("[0-9]*")
    bundle = Bundle.open(folder)
    served = Served(bundle, cast(Any, None), cast(Any, None))
    held = [Held(0, task.labels, task.shots, name) for name, task in bundle.known_tasks.items()]
    found = [served.reading(one) for one in held]
    assert [served.reading(one) for one in held] == found
    return served, found


def test_numbers_without_a_calibration_are_read_alike_whatever_the_shots() -> None:
    served, found = readings("schools")
    assert len({task.shots for task in served.bundle.known_tasks.values()}) > 1
    assert len(set(found)) == 1


@pytest.mark.parametrize("name", ["alphabets", "papers", "adult"])
def test_tasks_of_other_labels_columns_or_kinds_are_read_apart(name: str) -> None:
    served, found = readings(name)
    assert len(set(found)) == len(found) > 1
    for reading, (task, known) in zip(found, served.bundle.known_tasks.items(), strict=True):
        assert (reading.output, reading.columns) == served.reader(task)
        assert reading.names == tuple(label for label in known.labels.slots if label is not None)


def test_a_calibration_is_looked_up_by_the_shots_of_each_state() -> None:
    served, _ = readings("glyphs")
    assert served.manifest.output.calibration is not None
    few, many = (served.reading(Held(0, Labels(("a", "b")), shots)) for shots in (1.0, 5.0))
    assert few is not many
    assert (few.shots, many.shots) == (1.0, 5.0)
