"""Predict: caller, request, task states, one batch, answers. No HTTP, no SQL."""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from ..cache import Pins
from ..codecs.decode import decode_rows
from ..engine.calls import CALL, Call
from ..errors import CapacityError, HandfulError, InputInvalid
from ..task import Array, Arrays, Caller
from .accepting import check_task, resolved
from .decoding import Decoders
from .direct import Direct
from .learning import Lesson, RepeatedSupports, folded_fields
from .models import Served
from .outcomes import Outcome, Prediction, check_readable, predictions
from .pinning import Pinned, Pinning, StoredStates, Wanted, find
from .preparing import encode
from .reading import Answer, Reading, ReadOptions, read
from .refs import Ask, ByAdaptation, ByLearned, BySupport


@dataclass(slots=True)
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


@dataclass(slots=True)
class _Work:
    """An ask on its way to its answers.

    Attributes:
        first: The row of its first input among the features of the call.
        row: The row of its first answer in `y`: for each input one for each state.
        folded: The folded fields of each input.
        states: One for each of its tasks.
        readings: How the columns of each state are read.
        predictions: Its answers, at last.
        error: Why it has none.
    """

    ask: Ask
    lesson: Lesson | None = None
    first: int = 0
    row: int = 0
    folded: Sequence[tuple[str, ...]] = ()
    states: Sequence[Pinned] = ()
    readings: Sequence[Reading] = ()
    predictions: Sequence[Prediction] = ()
    error: HandfulError | None = None


class Predictor:
    """Answers predictions.

    Args:
        states: Of the stored tasks.
        decoders: Threads that decode pictures and texts.
        known: What support sets of earlier calls came to.
    """

    def __init__(self, states: StoredStates, decoders: Decoders, known: RepeatedSupports | None = None) -> None:
        self._states = states
        self._decoders = decoders
        self._known = RepeatedSupports(0) if known is None else known

    def direct(
        self,
        caller: Caller,
        call: Call | None,
        served: Served,
        asks: Sequence[Ask],
        options: PredictOptions,
    ) -> Direct | None:
        """The call on its way, if all that it needs is a run: one ask, of one task whose state is at hand.

        Where there is none, `answers` has to be asked.

        Args:
            caller: Who asks.
            call: What the engine knows of it.
            served: The model.
            asks: What is asked.
            options: What the caller wants.

        Raises:
            HandfulError: the ask is not valid, or too much is waiting.
        """
        ask = asks[0]
        if isinstance(ask.task, BySupport) or not _needs_a_run(served, asks, options):
            return None
        check_task(served, ask.task, options.read)
        with served.cache.pins() as pins:
            state = find(pins, caller, served, self._states, ask.task, options.min_revision)
            if state is None:
                return None
            taught = folded_fields(ask.task.learned, ask.task.field) if isinstance(ask.task, ByLearned) else ()
            return _on_its_way(call, served, ask, state, pins, options, taught)

    def recalled(self, caller: Caller, served: Served, ask: Ask, content: bytes) -> Ask | None:
        """An ask with what its support set comes to; None where that is not known, or not all that it needs.

        Args:
            caller: Who asks.
            served: The model.
            ask: The inputs.
            content: The support set as it came.
        """
        learned = self._known.find(self._known.key_of(caller, served, content))
        if learned is None or not _needs_a_run(served, [ask], PredictOptions()):
            return None
        return replace(ask, task=ByLearned(learned))

    async def answers(
        self, caller: Caller, served: Served, asks: Sequence[Ask], options: PredictOptions
    ) -> list[Outcome]:
        """All asks together: their inputs are encoded in one run and answered in one run, whatever their tasks.

        Raises:
            HandfulError: without `partial`, an ask failed.
        """
        direct = await self._once_loaded(caller, served, asks, options)
        if direct is not None:
            return [await direct.answered()]
        works = [self._begun(caller, served, ask, options) for ask in asks]
        direct = _once_known(served, works, options)
        if direct is not None:
            return [await direct.answered()]
        try:
            features = await self._encode(served, _live(works))
        except CapacityError as error:
            _fail(_live(works), error, options)
            return _outcomes(works)
        except HandfulError as error:
            if len(works) > 1 and options.partial:  # whoever brought the bad input fails alone
                return await self._halves(caller, served, asks, options)
            _fail(_live(works), error, options)
            return _outcomes(works)
        with served.cache.pins() as pins:
            or_base = options.on_missing == "base"
            pinning = Pinning(pins, caller, served, self._states, self._decoders, or_base, options.min_revision)
            await _pin(pinning, _live(works), options)
            try:
                await _answer(served, features, _live(works), options)
            except CapacityError as error:
                _fail(_live(works), error, options)
        return _outcomes(works)

    async def _once_loaded(
        self, caller: Caller, served: Served, asks: Sequence[Ask], options: PredictOptions
    ) -> Direct | None:
        """The call on its way, if all that it needs beside a run is the state of a stored adaptation."""
        task = asks[0].task if _needs_a_run(served, asks, options) else None
        if not isinstance(task, ByAdaptation):
            return None
        with served.cache.pins() as pins:
            (found,) = await self._states.pin(pins, caller, served, [task.id], min_revision=options.min_revision)
            if isinstance(found, HandfulError):
                return None  # what becomes of that is not only for the state to say
            return self.direct(caller, CALL.get(), served, asks, options)

    async def answer(self, caller: Caller, served: Served, ask: Ask, options: PredictOptions) -> Sequence[Prediction]:
        """The predictions of one ask: of each input in order, and of each task in order within it.

        Raises:
            HandfulError: an input, an example or the task is not valid.
        """
        (outcome,) = await self.answers(caller, served, [ask], options)
        if isinstance(outcome, HandfulError):
            raise outcome
        return outcome

    def _begun(self, caller: Caller, served: Served, ask: Ask, options: PredictOptions) -> _Work:
        """An ask whose task and examples are checked."""
        work = _Work(ask)
        try:
            task = resolved(served, ask.task)
            if task is not ask.task:
                work.ask = Ask(ask.inputs, ask.fields, task)
            check_task(served, task, options.read)
            if isinstance(task, BySupport):
                work.lesson = Lesson(served, caller, task, self._known, self._decoders)
        except HandfulError as error:
            _fail([work], error, options)
        return work

    async def _encode(self, served: Served, works: Sequence[_Work]) -> Arrays:
        """The features of all inputs, and of all examples behind those of their ask."""
        values: list[Any] = []
        fields: list[str] = []
        for work in works:
            work.first = len(values)
            values.extend(work.ask.inputs)
            fields.extend(work.ask.fields)
            if work.lesson is not None:
                values += [example.input for example in work.lesson.examples]
                fields += [f"{example.field}.input" for example in work.lesson.examples]
        features, folded = await encode(served, values, fields, self._decoders)
        for work in works:
            end = work.first + len(work.ask.inputs)
            work.folded = folded[work.first : end]
            if work.lesson is not None:
                span = slice(end, end + len(work.lesson.examples))
                work.lesson.give({name: array[span] for name, array in features.items()}, folded[span])
        return features

    async def _halves(
        self, caller: Caller, served: Served, asks: Sequence[Ask], options: PredictOptions
    ) -> list[Outcome]:
        middle = len(asks) // 2
        parts = (asks[:middle], asks[middle:])
        first, second = await asyncio.gather(*(self.answers(caller, served, part, options) for part in parts))
        return first + second


def _on_its_way(
    call: Call | None,
    served: Served,
    ask: Ask,
    state: Pinned,
    pins: Pins,
    options: PredictOptions,
    taught: tuple[str, ...] = (),
) -> Direct:
    """A call that needs nothing but a run any more; what it pinned stays so until it is over."""
    decoded = decode_rows(ask.inputs, ask.fields, served.manifest, served.tokenizer, floats=ask.floats)
    reading = served.reading(state.held)
    check_readable(ask, (reading,), options.read)
    direct = Direct(ask, state, reading, decoded.folded, pins, taught)
    slots = [state.held.slot] * len(ask.inputs)
    served.engine.answer(call, decoded.arrays, slots, reading.reader(options.read), direct)
    pins.keep()
    return direct


def _once_known(served: Served, works: Sequence[_Work], options: PredictOptions) -> Direct | None:
    """The call on its way, if it has one support set, and what that comes to is known."""
    lesson = works[0].lesson if len(works) == 1 else None
    if lesson is None or lesson.known is None or not _needs_a_run(served, [works[0].ask], options):
        return None
    with served.cache.pins() as pins:
        state = Pinned(pins.borrow(lesson.known.state), "support", folded=lesson.known.folded)
        return _on_its_way(CALL.get(), served, works[0].ask, state, pins, options, lesson.folded)


def _needs_a_run(served: Served, asks: Sequence[Ask], options: PredictOptions) -> bool:
    """Whether a call needs one run and a state: one ask of one task, of inputs that are quickly decoded."""
    if len(asks) != 1 or options.partial or not served.decoded_here(asks[0].inputs):
        return False
    ask = asks[0]
    return 0 < ask.answers == len(ask.inputs) <= served.engine.limits.max_rows


def _live(works: Sequence[_Work]) -> list[_Work]:
    return [work for work in works if work.error is None]


def _fail(works: Iterable[_Work], error: HandfulError, options: PredictOptions) -> None:
    """Note an error of asks that may fail alone; raise it where they may not."""
    if not options.partial:
        raise error
    for work in works:
        work.error = error


def _outcomes(works: Sequence[_Work]) -> list[Outcome]:
    return [work.predictions if work.error is None else work.error for work in works]


async def _pin(pinning: Pinning, works: Sequence[_Work], options: PredictOptions) -> None:
    found = await pinning.pin([Wanted(work.ask.task, work.lesson) for work in works])
    for work, states in zip(works, found, strict=True):
        try:
            if isinstance(states, HandfulError):
                raise states
            work.states, work.readings = states, [pinning.served.reading(state.held) for state in states]
            check_readable(work.ask, work.readings, options.read)
        except HandfulError as error:
            _fail([work], error, options)


async def _answer(served: Served, features: Arrays, works: Sequence[_Work], options: PredictOptions) -> None:
    """Run all inputs under their states in one go, and read what comes of it."""
    rows: list[int] = []
    slots: list[int] = []
    for work in works:
        work.row = len(rows)
        of_states = [state.held.slot for state in work.states]
        for place in range(work.first, work.first + len(work.ask.inputs)):
            rows += [place] * len(of_states)
            slots += of_states
    if not rows:
        return
    y = await served.engine.predict(_taken(features, rows), slots)
    answers = _read(y, works, options.read)
    for work in works:
        try:
            span = answers[work.row : work.row + len(work.ask.inputs) * len(work.states)]
            taught = work.lesson.folded if work.lesson is not None else ()
            work.predictions = predictions(work.ask, work.folded, work.states, work.readings, span, taught)
        except InputInvalid as error:
            _fail([work], error, options)


def _taken(features: Arrays, rows: list[int]) -> Arrays:
    """Rows of features, in order; as they are where that is all of them, once each."""
    if all(len(array) == len(rows) for array in features.values()) and rows == list(range(len(rows))):
        return features
    return {name: array[rows] for name, array in features.items()}


def _read(y: Array, works: Sequence[_Work], options: ReadOptions) -> list[Answer | None]:
    """The answer of each row of `y`: rows that are read alike are read together, whoever asked for them."""
    alike: dict[Reading, list[int]] = {}
    for work in works:
        step = len(work.states)
        for place, reading in enumerate(work.readings):
            rows = range(work.row + place, work.row + step * len(work.ask.inputs), step)
            alike.setdefault(reading, []).extend(rows)
    if len(alike) == 1:
        return read(y, next(iter(alike)), options)
    answers: list[Answer | None] = [None] * len(y)
    for reading, places in alike.items():
        for row, answer in zip(places, read(y[places], reading, options), strict=True):
            answers[row] = answer
    return answers
