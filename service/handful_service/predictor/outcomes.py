"""What a predict call comes to: predictions, and what they are made of."""

from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import HandfulError, NotAccepted
from .pinning import Pinned, Used
from .reading import Answer, Reading, ReadOptions, check_options, not_finite
from .refs import Ask, ByAdaptation


@dataclass(slots=True)
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


Outcome = Sequence[Prediction] | HandfulError


def predictions(
    ask: Ask,
    folded: Sequence[tuple[str, ...]],
    states: Sequence[Pinned],
    readings: Sequence[Reading],
    answers: Sequence[Answer | None],
    taught: tuple[str, ...] = (),
) -> list[Prediction]:
    """The predictions of one ask: of each input in order, and of each task in order within it.

    Args:
        ask: What was asked.
        folded: The folded fields of each input.
        states: One for each of its tasks.
        readings: How the columns of each state were read.
        answers: One for each input and state; None where there is none.
        taught: The folded fields of its examples.

    Raises:
        InputInvalid: a row has none, since its input is too large.
    """
    stored = ask.task.id if isinstance(ask.task, ByAdaptation) else None
    found, row = [], 0
    for place, of_input in enumerate(folded):
        for state, reading in zip(states, readings, strict=True):
            answer = answers[row]
            if answer is None:
                raise not_finite(reading, ask.fields[place])
            every = (*of_input, *state.folded, *taught)
            found.append(Prediction(answer, state.used, state.held.task, stored, state.revision, every))
            row += 1
    return found


def check_readable(ask: Ask, readings: Sequence[Reading], options: ReadOptions) -> None:
    """Refuse what the caller wants of an ask whose answers cannot be read so.

    Raises:
        NotAccepted: they cannot.
    """
    for reading in readings:
        check_options(reading.output, options)
        if not reading.known:
            what = "the labels of the task are not known"
            raise NotAccepted(what, field=ask.task.field, allowed="a support set beside it")
