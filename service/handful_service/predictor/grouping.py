"""Rows of one call that name the same task are answered together: decoded, encoded and read at once."""

import json
from collections.abc import Hashable, Sequence

from .refs import Ask, ByAdaptation, BySupport, ByTask, TaskRef


def groups(asks: Sequence[Ask]) -> list[list[int]]:
    """The places of asks of the same task, in order of their first; a support set is never the same as another."""
    found: dict[Hashable, list[int]] = {}
    for place, ask in enumerate(asks):
        found.setdefault(_key(ask.task, place), []).append(place)
    return list(found.values())


def together(asks: Sequence[Ask]) -> Ask:
    """Asks of the same task as one, with their inputs in order."""
    inputs = tuple(value for ask in asks for value in ask.inputs)
    return Ask(inputs, tuple(field for ask in asks for field in ask.fields), asks[0].task)


def _key(task: TaskRef, place: int) -> Hashable:
    """What two references have in common that mean the same task, wherever they stand in the request."""
    if isinstance(task, BySupport):
        return place
    if isinstance(task, ByAdaptation):
        return ("adaptation", task.id)
    if isinstance(task, ByTask):
        return ("task", json.dumps([named.parts for named in task.names], sort_keys=True))
    return ("base",)
