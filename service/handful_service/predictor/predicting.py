"""Predict: caller, request, task state, batch, answer. No HTTP, no SQL."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import Executor
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Literal, Protocol

import numpy as np

from ..cache import Held
from ..errors import AdaptationNotFound, CapacityError, HandfulError, NotAccepted, RequestError, TaskConflict
from ..task import Arrays, Caller
from .accepting import check_task, must_accept, resolved, start
from .describing import decode_named, described_state, pinned_state
from .grouping import groups, together
from .models import Models, Served, VersionRef
from .preparing import base_state, check_ways, checked, encode, split, state_of
from .reading import Answer, ReadOptions, read
from .refs import Ask, ByAdaptation, BySupport, ByTask, Named
from .supports import Labelled

Used = Literal["personal", "base", "support", "task"]


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
    """An answer, and the task state that gave it.

    Attributes:
        task: The id of the known task whose columns were read.
        folded: Fields whose category was folded to «other»: of the input, and of the task's metadata.
    """

    answer: Answer
    used: Used
    task: str | None = None
    adaptation: str | None = None
    revision: int | None = None
    folded: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _State:
    """A task's state in a slot, what kind it is, its revision, and the folded fields behind it."""

    held: Held
    used: Used
    revision: int | None = None
    folded: tuple[str, ...] = ()


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
        decoder: Threads that decode pictures and texts.
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
        if len(asks) == 1 and not options.partial:
            return served, [await self.answer(caller, served, asks[0], options)]
        places = groups(asks)
        found = await asyncio.gather(
            *(self._group(caller, served, [asks[place] for place in group], options) for group in places)
        )
        results = dict(zip(chain(*places), chain(*found), strict=True))
        outcomes: list[Outcome] = []
        for place in range(len(asks)):
            result = results[place]
            if isinstance(result, BaseException) and not (options.partial and isinstance(result, HandfulError)):
                raise result
            outcomes.append(result)
        return served, outcomes

    async def _group(
        self, caller: Caller, served: Served, asks: Sequence[Ask], options: PredictOptions
    ) -> Sequence[Outcome | BaseException]:
        """The outcome of each ask of the same task; where the caller can mend something, each is answered alone."""
        if len(asks) > 1:
            try:
                predictions = iter(await self.answer(caller, served, together(asks), options))
            except CapacityError as error:
                return [error] * len(asks)
            except RequestError:
                pass
            else:
                return [list(islice(predictions, ask.answers)) for ask in asks]
        alone = (self.answer(caller, served, ask, options) for ask in asks)
        return await asyncio.gather(*alone, return_exceptions=True)

    async def answer(self, caller: Caller, served: Served, ask: Ask, options: PredictOptions) -> list[Prediction]:
        """The predictions of one ask: of each input in order, and of each task in order within it.

        Raises:
            HandfulError: an input, an example or the task is not valid.
        """
        ask = Ask(ask.inputs, ask.fields, resolved(served, ask.task))
        check_task(served, ask.task, options.read)
        examples = _examples(served, ask.task) if isinstance(ask.task, BySupport) else []
        values = [*ask.inputs, *(example.input for example in examples)]
        fields = [*ask.fields, *(f"{example.field}.input" for example in examples)]
        encoded, folded = await encode(served, values, fields, self._decoder)
        features, support = split(encoded, len(ask.inputs))
        async with AsyncExitStack() as pins:
            states = await self._pin(pins, caller, served, ask, (support, examples), options)
            answers = await _answers(served, ask, features, states, options.read)
        stored = ask.task.id if isinstance(ask.task, ByAdaptation) else None
        taught = tuple(chain.from_iterable(_places(examples, folded[len(ask.inputs) :])))
        return [
            Prediction(answer, state.used, state.held.task, stored, state.revision, (*of_input, *state.folded, *taught))
            for of_input, of_tasks in zip(folded[: len(ask.inputs)], answers, strict=True)
            for state, answer in zip(states, of_tasks, strict=True)
        ]

    async def _pin(
        self,
        pins: AsyncExitStack,
        caller: Caller,
        served: Served,
        ask: Ask,
        support: tuple[Arrays, list[Labelled]],
        options: PredictOptions,
    ) -> list[_State]:
        """The states of the ask's tasks, each in a slot until the pins are taken out."""
        task = ask.task
        if isinstance(task, ByTask):
            return [await self._described(pins, served, named) for named in task.names]
        if isinstance(task, BySupport):
            return [await self._learned(pins, served, task, support)]
        if isinstance(task, ByAdaptation):
            return [await self._stored(pins, caller, served, task, options)]
        return [await self._base(pins, served, task.field)]

    async def _described(self, pins: AsyncExitStack, served: Served, named: Named) -> _State:
        described = await decode_named(served, named, self._decoder)
        held = await pins.enter_async_context(pinned_state(served, described))
        return _State(held, "task", folded=described.folded)

    async def _learned(
        self, pins: AsyncExitStack, served: Served, task: BySupport, support: tuple[Arrays, list[Labelled]]
    ) -> _State:
        named = start(served, task.named, task.field)
        if named is None:
            held = await pins.enter_async_context(served.cache.borrowed(await state_of(served, *support)))
            return _State(held, "support")
        described = await decode_named(served, named, self._decoder)
        labels = [example.label for example in support[1]]
        check_ways(labels, described.labels, served.manifest.ways, task.field)
        state = await state_of(served, *support, await described_state(served, described))
        held = await pins.enter_async_context(served.cache.borrowed(state))
        return _State(held, "support", folded=described.folded)

    async def _stored(
        self, pins: AsyncExitStack, caller: Caller, served: Served, task: ByAdaptation, options: PredictOptions
    ) -> _State:
        try:
            pinned = self._states.pinned(caller, served, task.id, min_revision=options.min_revision)
            held, revision = await pins.enter_async_context(pinned)
        except AdaptationNotFound as error:
            if options.on_missing == "error":
                raise AdaptationNotFound(error.detail, field=task.field, allowed=error.allowed) from error
            return await self._base(pins, served, "options.on_missing")
        if not served.can_answer(held):
            raise TaskConflict(f"adaptation {task.id!r} has no examples", field=task.field)
        return _State(held, "personal", revision)

    async def _base(self, pins: AsyncExitStack, served: Served, place: str) -> _State:
        must_accept(served, "base", place)
        if (base := served.manifest.base_task) is not None:
            state = await self._described(pins, served, Named(base, field=place))
            return _State(state.held, "base")
        held = await pins.enter_async_context(served.cache.pinned(("base", served.digest), lambda: base_state(served)))
        return _State(held, "base")


def _examples(served: Served, task: BySupport) -> list[Labelled]:
    """The examples, checked by the rules of the task that learning starts from."""
    named = start(served, task.named, task.field)
    rules = served.rules(named.id, described=True) if named is not None else served.rules()
    return checked(task.examples, rules, task.field)


async def _answers(
    served: Served, ask: Ask, features: Arrays, states: Sequence[_State], options: ReadOptions
) -> list[list[Answer]]:
    """For each input the answer under each state: all of them in one batch, each read as its task says."""
    slots = [state.held.slot for state in states]
    if len(slots) > 1:
        features = {name: np.repeat(array, len(slots), axis=0) for name, array in features.items()}
    y = await served.engine.predict(features, slots * len(ask.inputs))
    by_state = []
    for place, state in enumerate(states):
        held = state.held
        output, columns = served.reader(held.task)
        if output.kind == "class" and not held.labels.present:
            raise NotAccepted(
                "the labels of the task are not known", field=ask.task.field, allowed="a support set beside it"
            )
        of_task = y[place :: len(states), :, columns]
        by_state.append(read(of_task, held.labels, held.shots, output, options, ask.fields))
    return [list(answers) for answers in zip(*by_state, strict=True)]


def _places(examples: Sequence[Labelled], folded: Sequence[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Where the folded fields of a support set stand in the request."""
    return [
        tuple(f"{example.field}.input.{name}" for name in names)
        for example, names in zip(examples, folded, strict=True)
    ]
