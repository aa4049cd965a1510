"""The models that are served: bundles with their engines and caches, by name and version."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from ..bundle.bundle import Bundle
from ..bundle.manifest import Manifest
from ..bundle.outputs import TaskOutput, TaskReader
from ..cache import Held, StateCache
from ..codecs.decode import is_quick
from ..codecs.text import Tokenizer
from ..engine.engine import Engine
from ..errors import ModelNotFound, Overloaded
from .labelling import Labelling, labelling
from .reading import Reading

VersionRef = int | str | None
"""A version's number, its label such as `stable`, or None for the newest."""

MOST_READINGS = 4096
"""Ways of reading that a bundle keeps at hand: one for each set of labels and shots that users have."""


Usual = Literal["numbers", "strings"]
"""What an input of most models is: a list of numbers, or a string."""


@dataclass(frozen=True)
class Served:
    """One bundle, ready to run.

    Attributes:
        tokenizer: Of its texts, where it reads any.
    """

    bundle: Bundle
    engine: Engine
    cache: StateCache
    tokenizer: Tokenizer | None = None
    _readings: dict[Hashable, Reading] = field(default_factory=dict, repr=False, compare=False)

    @cached_property
    def slowly_decoded(self) -> bool:
        """Whether inputs may be of kinds that take a while to decode."""
        return not {spec.kind for spec in self.manifest.inputs.values()}.isdisjoint(("image", "text"))

    def decoded_here(self, values: Sequence[Any]) -> bool:
        """Whether raw inputs are decoded on the event loop."""
        return not self.slowly_decoded or is_quick(values, self.manifest)

    @cached_property
    def usual(self) -> Usual | None:
        """What an input is: one list of numbers, or a string; None where it is something else."""
        if len(self.manifest.inputs) > 1:
            return None
        (spec,) = self.manifest.inputs.values()
        if spec.kind in ("image", "text"):
            return "strings"
        is_list = spec.kind == "tensor" and spec.dtype == "float32" and len(spec.axes) == 1
        return "numbers" if is_list else None

    @cached_property
    def base_key(self) -> Hashable:
        """What names the state of no task in the cache."""
        base = self.manifest.base_task
        return ("base", self.digest) if base is None else self.task_key(base)

    def task_key(self, name: str | None) -> Hashable:
        """What names the state of a known task in the cache."""
        return "task", self.digest, name

    @cached_property
    def accepts(self) -> frozenset[str]:
        """The ways of naming a task that the model takes."""
        return frozenset(self.manifest.accepts)

    @property
    def manifest(self) -> Manifest:
        """The bundle's manifest."""
        return self.bundle.manifest

    def reader(self, task: str | None) -> tuple[TaskReader, slice]:
        """How the columns of a known task are read, and which they are; without a task, those of the whole output."""
        known = None if task is None else self.bundle.known_tasks.get(task)
        if known is not None:
            return known.output, slice(*known.columns)
        output = self.manifest.output
        if isinstance(output, TaskOutput):
            raise TypeError("columns are read by task, and none is named")
        return output, slice(0, self.manifest.width)

    def reading(self, held: Held) -> Reading:
        """How the columns of a state are read; one value for all states that are read alike."""
        if held.reading is None:
            held.reading = self._known_reading(held)
        found: Reading = held.reading
        return found

    def _known_reading(self, held: Held) -> Reading:
        key = (held.task, held.labels, held.shots)
        found = self._readings.get(key)
        if found is None:
            if len(self._readings) >= MOST_READINGS:
                self._readings.clear()
            found = self._readings[key] = self._reading(held)
        return found

    def _reading(self, held: Held) -> Reading:
        """As `reading`; tasks whose readers are equal have one, so that their rows are read together."""
        output, columns = self.reader(held.task)
        shots = held.shots if output.calibration else 0.0  # which nothing else depends on
        alike = (output.model_dump_json(), columns.start, columns.stop, held.labels, shots)
        return self._readings.setdefault(alike, Reading(output, held.labels, shots, columns))

    def rules(self, task: str | None = None, *, described: bool = False) -> Labelling:
        """The rules of the labels of a known task, or of all.

        Args:
            task: The id of the task that reads the columns, if it is known.
            described: Whether the state of a descriptor stands behind the examples, so that there may be none.
        """
        if task is None and not described:
            return labelling(self.manifest)
        return labelling(self.manifest.of_task(self.reader(task)[0], described=described))

    def can_answer(self, held: Held) -> bool:
        """Whether a state is one to predict with.

        One without examples needs a base, labels that are fixed, or a descriptor.
        """
        return bool(held.shots or held.described or self.manifest.base or held.labels.present)

    @property
    def digest(self) -> str:
        """The bundle's identity."""
        return self.bundle.digest


@dataclass(frozen=True)
class Model:
    """All served versions of a model."""

    name: str
    versions: Mapping[int, Served]
    labels: Mapping[str, int]

    @cached_property
    def newest(self) -> Served:
        """The highest version."""
        return self.versions[max(self.versions)]


class Models:
    """Looks up what a request names."""

    def __init__(self, models: Mapping[str, Model]) -> None:
        self._models = models

    def all(self) -> list[Model]:
        """Every model, by name."""
        return [self._models[name] for name in sorted(self._models)]

    def newest(self, name: str) -> Served | None:
        """The newest version of a model; None where there is no such model."""
        model = self._models.get(name)
        return None if model is None else model.newest

    def model(self, name: str) -> Model:
        """A model.

        Raises:
            ModelNotFound: no such model.
        """
        if name not in self._models:
            raise ModelNotFound(f"no model {name!r}", field="model", allowed=f"one of {sorted(self._models)}")
        return self._models[name]

    def refuse_if_saturated(self, name: str) -> None:
        """Refuse a prediction before its body is read, if every version of its model has too much waiting.

        Raises:
            Overloaded: all have.
        """
        refused = None
        for served in self._models[name].versions.values() if name in self._models else ():
            try:
                served.engine.refuse_if_saturated()
            except Overloaded as error:
                refused = error
            else:
                return
        if refused is not None:
            raise refused

    def version(self, name: str, version: VersionRef) -> Served:
        """One version of a model.

        Raises:
            ModelNotFound: no such model, or no such version or label of a version.
        """
        model = self.model(name)
        if version is None:
            return model.newest
        number = model.labels.get(version) if isinstance(version, str) else version
        if number is None or number not in model.versions:
            known = [*sorted(model.versions), *sorted(model.labels)]
            raise ModelNotFound(
                f"model {name!r} has no version {version!r}", field="version", allowed=f"one of {known}"
            )
        return model.versions[number]
