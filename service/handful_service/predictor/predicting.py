"""Predict: caller, request, task state, batch, answer. No HTTP, no SQL."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import Executor
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from ..bundle.tasks import KnownTask, find_task
from ..cache import Held
from ..engine.engine import Row
from ..errors import AdaptationNotFound, HandfulError, NotAccepted, TaskConflict
from ..task import Arrays, Caller
from .models import Models, Served, VersionRef
from .preparing import base_state, checked, encode, row, split, state_of, task_state
from .reading import Answer, ReadOptions, read
from .supports import Labelled

Used = Literal["personal", "base", "support", "task"]


@dataclass(frozen=True, slots=True)
class ByAdaptation:
    """The task is a stored adaptation."""

    id: str
    field: str = "adaptation"


@dataclass(frozen=True, slots=True)
class ByTask:
    """The task is one that the model knows."""

    id: str
    field: str = "task"


@dataclass(frozen=True, slots=True)
class BySupport:
    """The task is defined by the examples of this call; nothing is kept."""

    examples: tuple[Labelled, ...]
    field: str = "support"


@dataclass(frozen=True, slots=True)
class Base:
    """No task is named: the base model."""

    field: str = "task"


TaskRef = ByAdaptation | ByTask | BySupport | Base


@dataclass(frozen=True, slots=True)
class Ask:
    """Some inputs of one task.

    Attributes:
        inputs: Raw values.
        fields: The place of each in the request, for messages.
    """

    inputs: tuple[Any, ...]
    fields: tuple[str, ...]
    task: TaskRef


@dataclass(frozen=True, slots=True)
class PredictOptions:
    """What the caller wants of a call.

    Attributes:
        read: What each answer holds.
        on_missing: What happens where an adaptation does not exist.
        min_revision: The least revision of an adaptation to answer with.
        partial: Whether each task answers or fails alone.
    """

    read: ReadOptions = field(default_factory=ReadOptions)
    on_missing: Literal["error", "base"] = "error"
    min_revision: int | None = None
    partial: bool = False


@dataclass(frozen=True, slots=True)
class Prediction:
    """An answer, and the task state that gave it."""

    answer: Answer
    used: Used
    task: str | None = None
    adaptation: str | None = None
    revision: int | None = None


Outcome = Sequence[Prediction] | HandfulError


class StoredStates(Protocol):
    """Where the states of stored adaptations come from."""

    def pinned(
        self, caller: Caller, served: Served, name: str, *, min_revision: int | None
    ) -> AbstractAsyncContextManager[tuple[Held, int]]:
        """The current state of an adaptation in a slot, and its revision; `AdaptationNotFound` where there is none."""
        ...


class NoStates:
    """No adaptations at all: for a bundle that is only checked."""

    def pinned(
        self, caller: Caller, served: Served, name: str, *, min_revision: int | None
    ) -> AbstractAsyncContextManager[tuple[Held, int]]:
        """See `StoredStates`."""
        raise AdaptationNotFound(f"no adaptation {name!r}")


class Predictor:
    """Answers predictions.

    Args:
        models: What is served.
        states: Of the stored tasks.
        decoder: Threads that decode pictures.
    """

    def __init__(self, models: Models, states: StoredStates, decoder: Executor) -> None:
        self._models = models
        self._states = states
        self._decoder = decoder

    async def predict(
        self, caller: Caller, model: str, version: VersionRef, asks: Sequence[Ask], options: PredictOptions
    ) -> tuple[Served, list[Outcome]]:
        """The predictions of every ask, in order; with `partial`, an error in place of those that failed.

        Raises:
            HandfulError: the model is unknown, or, without `partial`, the first ask that failed.
        """
        served = self._models.version(model, version)
        results = await asyncio.gather(
            *(self.answer(caller, served, ask, options) for ask in asks), return_exceptions=True
        )
        outcomes: list[Outcome] = []
        for result in results:
            if isinstance(result, BaseException) and not (options.partial and isinstance(result, HandfulError)):
                raise result
            outcomes.append(result)
        return served, outcomes

    async def answer(self, caller: Caller, served: Served, ask: Ask, options: PredictOptions) -> list[Prediction]:
        """The predictions of one ask.

        Raises:
            HandfulError: an input, an example or the task is not valid.
        """
        task = ask.task
        _check_named(served, task)
        examples = _examples(served, task) if isinstance(task, BySupport) else []
        values = [*ask.inputs, *(example.input for example in examples)]
        fields = [*ask.fields, *(f"{example.field}.input" for example in examples)]
        features, support = split(await encode(served, values, fields, self._decoder), len(ask.inputs))
        async with self._state(caller, served, task, (support, examples), options) as (
            held,
            used,
            revision,
        ):
            y = await served.engine.predict([Row(row(features, i), held.slot) for i in range(len(ask.inputs))])
            answers = read(y, held.labels, held.shots, served.manifest, options.read, ask.fields)
        known = task.id if isinstance(task, ByTask) else None
        stored = task.id if isinstance(task, ByAdaptation) else None
        return [Prediction(answer, used, known, stored, revision) for answer in answers]

    @asynccontextmanager
    async def _state(
        self,
        caller: Caller,
        served: Served,
        task: TaskRef,
        support: tuple[Arrays, list[Labelled]],
        options: PredictOptions,
    ) -> AsyncIterator[tuple[Held, Used, int | None]]:
        """The task's state in a slot, what kind it is, and its revision."""
        if isinstance(task, BySupport) and support[1]:
            async with served.cache.borrowed(await state_of(served, *support)) as held:
                yield held, "support", None
        elif isinstance(task, ByAdaptation):
            async with self._stored(caller, served, task, options) as found:
                yield found
        elif isinstance(task, ByTask):
            known = _known(served, task)
            place = ("task", served.digest, known.index)
            async with served.cache.pinned(place, lambda: task_state(served, known)) as held:
                yield held, "task", None
        else:
            async with self._base(served, task.field) as held:
                yield held, "base", None

    @asynccontextmanager
    async def _stored(
        self, caller: Caller, served: Served, task: ByAdaptation, options: PredictOptions
    ) -> AsyncIterator[tuple[Held, Used, int | None]]:
        try:
            pinned = self._states.pinned(caller, served, task.id, min_revision=options.min_revision)
            async with pinned as (held, revision):
                if not served.can_answer(held):
                    raise TaskConflict(f"adaptation {task.id!r} has no examples", field=task.field)
                yield held, "personal", revision
        except AdaptationNotFound as error:
            if options.on_missing == "error":
                raise AdaptationNotFound(error.detail, field=task.field, allowed=error.allowed) from error
            async with self._base(served, "options.on_missing") as held:
                yield held, "base", None

    @asynccontextmanager
    async def _base(self, served: Served, place: str) -> AsyncIterator[Held]:
        _must_accept(served, "base", place)
        async with served.cache.pinned(("base", served.digest), lambda: base_state(served)) as held:
            yield held


def _check_named(served: Served, task: TaskRef) -> None:
    """Refuse a task that is named in a way that the model does not take, before any work is done."""
    if isinstance(task, ByTask):
        _must_accept(served, "task", task.field)
        _known(served, task)
    elif isinstance(task, ByAdaptation):
        _must_accept(served, "support", task.field)
    elif isinstance(task, Base):
        _must_accept(served, "base", task.field)


def _known(served: Served, task: ByTask) -> KnownTask:
    return find_task(served.bundle.known_tasks, task.id, f"{task.field}.id")


def _examples(served: Served, task: BySupport) -> list[Labelled]:
    """The examples, checked; none are the base, and refused as a support set where there is none."""
    if task.examples or "base" not in served.manifest.accepts:
        _must_accept(served, "support", task.field)
    return checked(task.examples, served.labelling, task.field)


_REFUSALS = {
    "base": "no task is named",
    "support": "the model learns from no support set",
    "task": "the model knows no tasks by their ids",
}


def _must_accept(served: Served, kind: Literal["base", "support", "task"], place: str) -> None:
    if kind not in served.manifest.accepts:
        what = _REFUSALS[kind]
        raise NotAccepted(what, field=place, allowed=f"what the model accepts: {list(served.manifest.accepts)}")
