"""What a change of an adaptation asks for, and what it comes to: values, and rules without a store."""

import hashlib
import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from ..errors import AdaptationNotFound, EventConflict, PreconditionFailed, RequestInvalid
from ..store.values import Adaptation, Event
from ..task import Label
from .labelling import Labelling

Action = Literal["added", "replaced", "removed"]


@dataclass(frozen=True, slots=True)
class ExampleChange:
    """One example to add, or to correct where its id is known.

    Attributes:
        input: The raw input; None to correct the label or weight of a known example.
        field: Its place in the request, for messages.
        example_id: The client's id, or None to have one made.
        event_id: Makes the change happen once, however often it is sent.
        source: Where the label comes from, for the client's own use.
    """

    input: Any
    label: Label
    weight: float
    field: str
    example_id: str | None = None
    event_id: str | None = None
    source: str | None = None

    def checked(self, rules: Labelling) -> "ExampleChange":
        """The change with its label in the form that is kept.

        Raises:
            RequestInvalid: the label is a number where names are wanted, or the other way round.
            SupportSetInvalid: the label or the weight is out of range.
            LabelUnknown: the label is not in the model's fixed list.
        """
        return replace(self, label=rules.read(self.label, self.weight, self.field))

    def fingerprint(self) -> str:
        """sha256 of what the change asks for, to tell a repeated event from another one with its id."""
        return fingerprint([self.example_id, self.label, self.weight, self.source, self.input])


def fingerprint(parts: Sequence[Any]) -> str:
    """sha256 of a JSON value."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Precondition:
    """What the caller expects to find.

    Attributes:
        revision: The revision that must be current, from `If-Match`.
        exists: True where it must exist (`If-Match: *`), False where it must not (`If-None-Match: *`).
    """

    revision: int | None = None
    exists: bool | None = None

    def check(self, found: int | None) -> None:
        """Refuse a revision other than the expected one.

        Raises:
            PreconditionFailed: it is not what the caller expects.
        """
        if self.exists is False and found is not None:
            raise PreconditionFailed(f"it exists, at revision {found}", field="If-None-Match")
        if self.exists and found is None:
            raise PreconditionFailed("it does not exist", field="If-Match")
        if self.revision is not None and found != self.revision:
            what = "there is no such adaptation" if found is None else f"the adaptation is at revision {found}"
            allowed = f'no call that asks for "{self.revision}"; read it again, and decide anew'
            raise PreconditionFailed(what, field="If-Match", allowed=allowed)


@dataclass(frozen=True, slots=True)
class ChangeResult:
    """What one change came to.

    Attributes:
        action: What it did.
        revision: The adaptation's revision that the change made.
        repeated: Whether the event was known, so that nothing changed now.
        folded: Fields of the input whose category was folded to «other».
    """

    example_id: str
    action: Action
    revision: int
    repeated: bool = False
    folded: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LabelCount:
    """How much of a label there is."""

    examples: int
    weight: float


@dataclass(frozen=True, slots=True)
class Written:
    """An adaptation after a change, which a version of the model learned.

    Attributes:
        labels: How much there is of each name.
        examples: How many there are now.
        folded: Fields of the task's metadata whose category was folded to «other».
    """

    id: str
    version: int
    revision: int
    labels: Mapping[str, LabelCount]
    examples: int
    results: tuple[ChangeResult, ...]
    created: bool = False
    folded: tuple[str, ...] = ()


def count_labels(labelled: Sequence[tuple[Label, float]]) -> dict[str, LabelCount]:
    """Examples and weight by label, in order of appearance; numbers are not counted one by one."""
    counts: dict[str, LabelCount] = {}
    for label, weight in labelled:
        if not isinstance(label, str):
            continue
        before = counts.get(label, LabelCount(0, 0.0))
        counts[label] = LabelCount(before.examples + 1, before.weight + weight)
    return counts


@dataclass(frozen=True, slots=True)
class Pending:
    """A change that is not a repetition, with the id of its example."""

    change: ExampleChange
    example_id: str
    known: bool

    @property
    def action(self) -> Action:
        """What it does."""
        return "replaced" if self.known else "added"


def sort_out(
    changes: Sequence[ExampleChange], current: Adaptation | None, events: Mapping[str, Event]
) -> tuple[list[Pending], dict[int, ChangeResult]]:
    """The changes to make, and the results of those that were made before, by their place in the call.

    Raises:
        EventConflict: an event id was used for another change.
        RequestInvalid: an example or an event stands twice in the call, or a new example has no input.
    """
    known = {example.example_id for example in current.examples} if current else set()
    pending: list[Pending] = []
    repeated: dict[int, ChangeResult] = {}
    seen: set[str] = set()
    for place, change in enumerate(changes):
        event = events.get(change.event_id) if change.event_id else None
        if event is not None:
            repeated[place] = first_result(event, change.fingerprint(), f"{change.field}.event_id")
            continue
        example_id = change.example_id or secrets.token_hex(8)
        _refuse_twice(seen, example_id, f"{change.field}.example_id")
        if change.event_id:
            _refuse_twice(seen, f"event {change.event_id}", f"{change.field}.event_id")
        if change.input is None and example_id not in known:
            raise RequestInvalid(
                "missing", field=f"{change.field}.input", allowed="an input, or the id of a known example"
            )
        pending.append(Pending(change, example_id, example_id in known))
    return pending, repeated


def _refuse_twice(seen: set[str], name: str, place: str) -> None:
    if name in seen:
        raise RequestInvalid(f"{name!r} stands twice in the call", field=place, allowed="each id once")
    seen.add(name)


def first_result(event: Event, wanted: str, place: str) -> ChangeResult:
    """The result of an event the first time.

    Raises:
        EventConflict: that was another change.
    """
    if event.fingerprint != wanted:
        raise EventConflict(
            f"event {event.event_id!r} was another change",
            field=place,
            allowed="a new event id for a new change",
        )
    return replace(ChangeResult(**event.result), repeated=True)


def must_exist(current: Adaptation | None, name: str) -> Adaptation:
    """The adaptation.

    Raises:
        AdaptationNotFound: there is none.
    """
    if current is None:
        raise AdaptationNotFound(f"no adaptation {name!r}", field="id", allowed="create it with PUT")
    return current
