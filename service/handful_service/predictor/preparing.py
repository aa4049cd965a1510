"""Raw inputs to features, and labelled features to task states: what predicting and adapting share."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import Executor
from typing import Any

import numpy as np

from ..bundle.manifest import Manifest
from ..bundle.tasks import KnownTask
from ..codecs.decode import decode_inputs
from ..engine.engine import Engine
from ..errors import InputInvalid
from ..task import Arrays, SupportSet, TaskState
from .labelling import Labelling
from .models import Served
from .supports import Labelled

PICTURES_AT_A_TIME = 8


async def decode(values: Sequence[Any], fields: Sequence[str], manifest: Manifest, executor: Executor) -> Arrays:
    """Arrays of raw inputs; pictures are decoded off the event loop, since a large one takes a while.

    A few at a time: other calls get their turn, and a call that is over, by its deadline, stops there.
    """
    if not any(spec.kind == "image" for spec in manifest.inputs.values()):
        return decode_inputs(values, fields, manifest)
    loop = asyncio.get_running_loop()
    parts = []
    for at in range(0, max(1, len(values)), PICTURES_AT_A_TIME):
        span = slice(at, at + PICTURES_AT_A_TIME)
        parts.append(await loop.run_in_executor(executor, decode_inputs, values[span], fields[span], manifest))
    return {name: np.concatenate([part[name] for part in parts]) for name in manifest.inputs}


async def encode(served: Served, values: Sequence[Any], fields: Sequence[str], executor: Executor) -> Arrays:
    """Features `[n, *feature]` of `n` raw inputs, whose places in the request are `fields`.

    Raises:
        InputInvalid: an input cannot be read, or is so large that its features are not finite.
        TooLarge: a picture has too many pixels.
    """
    features = await served.engine.encode(await decode(values, fields, served.manifest, executor))
    for array in features.values():
        for place in np.flatnonzero(~np.isfinite(array).all(axis=tuple(range(1, array.ndim)))):
            raise InputInvalid(
                "gives features that are not finite", field=fields[int(place)], allowed="smaller numbers"
            )
    return features


def checked(examples: Sequence[Labelled], rules: Labelling, place: str = "support") -> list[Labelled]:
    """The examples with their labels in the form that is compared.

    Args:
        examples: As they came.
        rules: Of the model's labels.
        place: What the request calls the examples, for messages.

    Raises:
        RequestInvalid: a label is a number where names are wanted, or the other way round.
        SupportSetInvalid: a limit is broken, or a weight is not taken.
        LabelUnknown: a label is not in the model's fixed list.
    """
    found = [
        Labelled(example.input, rules.read(example.label, example.weight, example.field), example.weight, example.field)
        for example in examples
    ]
    rules.check([example.label for example in found], place)
    return found


async def adapt(engine: Engine, support: SupportSet) -> tuple[Arrays, Arrays | None]:
    """φ of a support set, and the statistics that it was made of, if the bundle has any."""
    if engine.manifest.statistics is None:
        return await engine.adapt(support), None
    statistics = await engine.summarise(support)
    return await engine.adapt(statistics), statistics


async def state_of(served: Served, features: Arrays, examples: Sequence[Labelled]) -> TaskState:
    """The state of a task that checked examples define, given their features `[example, *feature]`."""
    labels = [example.label for example in examples]
    weights = [example.weight for example in examples]
    rules = served.labelling
    slots = rules.slots(labels)
    phi, _ = await adapt(served.engine, rules.support(features, labels, weights, slots))
    return TaskState(phi, slots, rules.shots(labels, weights))


async def base_state(served: Served) -> TaskState:
    """The state with no task given: φ of the empty support set."""
    nothing = served.engine.no_features()
    return await state_of(served, nothing, [])


async def task_state(served: Served, task: KnownTask) -> TaskState:
    """The state of a known task."""
    return TaskState(await served.engine.describe(task.index), task.labels, task.shots)


def split(features: Arrays, at: int) -> tuple[Arrays, Arrays]:
    """The first `at` rows, and the others."""
    return {name: array[:at] for name, array in features.items()}, {
        name: array[at:] for name, array in features.items()
    }


def row(features: Arrays, index: int) -> Arrays:
    """One row, each array `[*feature]`."""
    return {name: array[index] for name, array in features.items()}


def stack(rows: Sequence[Arrays], served: Served) -> Arrays:
    """Rows as arrays `[n, *feature]`; of none, arrays of length 0."""
    if not rows:
        return served.engine.no_features()
    return {name: np.stack([item[name] for item in rows]) for name in served.manifest.features}
