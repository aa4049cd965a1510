"""Raw inputs to features, and labelled features to task states: what predicting and adapting share."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..engine.engine import Engine
from ..errors import InputInvalid, SupportSetInvalid
from ..task import Arrays, Label, Labels, SupportSet, TaskState
from .decoding import Decoders
from .labelling import Labelling
from .models import Served
from .supports import Labelled


async def encode(
    served: Served, values: Sequence[Any], fields: Sequence[str], decoders: Decoders
) -> tuple[Arrays, tuple[tuple[str, ...], ...]]:
    """Features `[n, *feature]` of `n` raw inputs, whose places in the request are `fields`, and what was folded.

    Raises:
        InputInvalid: an input cannot be read, or is so large that its features are not finite.
        TooLarge: a picture has too many pixels.
        CapacityError: too much is waiting.
    """
    decoded = await decoders.decode(served, values, fields)
    features = await served.engine.encode(decoded.arrays)
    for array in features.values():
        if not np.isfinite(array).all():
            finite = np.isfinite(array).all(axis=tuple(range(1, array.ndim)))
            raise features_not_finite(fields[int(finite.argmin())])
    return features, decoded.folded


def features_not_finite(field: str) -> InputInvalid:
    """The error of an input at a place that is so large that its features are not finite."""
    return InputInvalid("gives features that are not finite", field=field, allowed="smaller numbers")


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


def check_ways(labels: Sequence[Label], known: Labels, ways: int, place: str) -> None:
    """Refuse labels that have no slot beside those of the task that learning starts from.

    Raises:
        SupportSetInvalid: together there are more than the model has ways.
    """
    names: set[Label] = {label for _, label in known.present}
    together = names | set(labels)
    if ways and len(together) > ways:
        raise SupportSetInvalid(
            f"there are {len(together)} labels with those of the task", field=place, allowed=f"at most {ways} ways"
        )


async def adapt(engine: Engine, support: SupportSet, prior: Arrays | None = None) -> tuple[Arrays, Arrays | None]:
    """φ of a support set, and the statistics that it was made of, if the bundle has any.

    Args:
        engine: Runs the graphs.
        support: The examples.
        prior: The state that learning starts from, where the bundle takes one. Without examples it is φ itself.
    """
    statistics = None if engine.manifest.statistics is None else await engine.summarise(support)
    if prior is not None and not len(support):
        return prior, statistics
    return await engine.adapt(support if statistics is None else statistics, prior), statistics


def slots_with(rules: Labelling, labels: Sequence[Label], prior: TaskState | None, before: Labels | None) -> Labels:
    """The slots of labels.

    Args:
        rules: Of the labels.
        labels: Of the examples, in event order.
        prior: The state that learning starts from; its labels keep their slots.
        before: The slots until now.
    """
    if prior is None or not prior.labels.present:
        return rules.slots(labels, before)
    return rules.slots([*(name for _, name in prior.labels.present), *labels], prior.labels)


async def state_of(
    served: Served, features: Arrays, examples: Sequence[Labelled], prior: TaskState | None = None
) -> TaskState:
    """The state of a task that checked examples define, given their features `[example, *feature]`.

    Args:
        served: The model.
        features: Of the examples.
        examples: Checked.
        prior: The state of a descriptor that learning starts from.
    """
    if prior is not None and not examples:
        return prior
    labels = [example.label for example in examples]
    weights = [example.weight for example in examples]
    task = prior.task if prior else None
    rules = served.rules(task, described=prior is not None)
    slots = slots_with(rules, labels, prior, None)
    phi, _ = await adapt(
        served.engine, rules.support(features, labels, weights, slots), prior.arrays if prior else None
    )
    return TaskState(phi, slots, rules.shots(labels, weights), task, described=prior is not None)


async def base_state(served: Served) -> TaskState:
    """The state with no task given: φ of the empty support set."""
    return await state_of(served, served.engine.no_features(), [])


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
