"""What the store keeps and what it is told, as frozen values. No SQL here."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from ..task import Label

_NUMBER = "\x1f"
"""What a number begins with in the column of labels; a name holds no control characters."""


class RevisionMoved(Exception):
    """The adaptation is not at the revision that the writer worked from: read again, decide again.

    Attributes:
        found: The revision that the store holds; None if it holds no such adaptation.
    """

    def __init__(self, found: int | None) -> None:
        super().__init__(f"the store holds revision {found}")
        self.found = found


def label_text(label: Label) -> str:
    """A label as the store keeps it: a number as the shortest digits that give it back exactly."""
    return label if isinstance(label, str) else f"{_NUMBER}{float(label)!r}"


def text_label(text: str) -> Label:
    """The label that `label_text` made a text of."""
    return float(text.removeprefix(_NUMBER)) if text.startswith(_NUMBER) else text


class Key(NamedTuple):
    """The name of an adaptation. All three parts are compared byte by byte."""

    tenant: str
    model: str
    id: str


@dataclass(frozen=True, slots=True)
class Example:
    """A labelled example behind an adaptation.

    Attributes:
        position: Its place in the order of events; there are gaps where examples were removed.
        created_at: UTC; when the example was first stored, whatever was corrected since.
        input: The raw input, or None where only features are retained.
    """

    example_id: str
    label: Label
    weight: float
    position: int
    source: str | None
    created_at: datetime
    input: bytes | None


@dataclass(frozen=True, slots=True)
class Adaptation:
    """An adaptation with the examples behind it, all of one revision.

    Attributes:
        labels: The label of each slot; None is a free slot.
        created_at: UTC.
        updated_at: UTC; when this revision was written.
        examples: In the order of events.
        descriptor: JSON; what the task is that learning starts from, as a request says it; None where none is named.
    """

    key: Key
    revision: int
    labels: tuple[str | None, ...]
    created_at: datetime
    updated_at: datetime
    examples: tuple[Example, ...]
    descriptor: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Summary:
    """An adaptation as lists show it; `examples` counts them."""

    key: Key
    revision: int
    labels: tuple[str | None, ...]
    examples: int
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class State:
    """φ for the bundle with this digest, and what reading its predictions needs, as `TaskState` has it."""

    digest: str
    phi: bytes
    labels: tuple[str | None, ...]
    shots: float
    task: str | None = None
    described: bool = False


@dataclass(frozen=True, slots=True)
class NewState:
    """A state, and the statistics that it came from where the learner has them."""

    state: State
    statistics: bytes | None


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a prediction needs of an adaptation.

    Attributes:
        state: Of this revision for the bundle that was asked for; None where there is none, or a damaged one.
    """

    revision: int
    state: State | None


@dataclass(frozen=True, slots=True)
class Statistics:
    """What the state of a revision came from."""

    revision: int
    value: bytes


@dataclass(frozen=True, slots=True)
class Event:
    """A change that the caller named, so that sending it twice changes nothing.

    Attributes:
        fingerprint: Tells a repetition from another change under the same id.
        result: JSON; what the first call was answered. Once stored it holds the `revision` of the change.
    """

    event_id: str
    fingerprint: str
    result: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class NewExample:
    """An example to add, or, where its id is known, to correct.

    Label, weight and source are replaced; position and time of creation stay. With neither input nor
    features, those that are stored stay too. With them, the input (or, where one side has none, the features)
    is compared with the stored one: if it differs, what is stored of the old input gives way, with the
    features that any bundle made of it.
    """

    example_id: str
    label: Label
    weight: float
    source: str | None
    input: bytes | None
    features: bytes | None


@dataclass(frozen=True, slots=True)
class Change:
    """One write: what makes the next revision of an adaptation.

    Attributes:
        labels: The label of each slot, after the change.
        replace: All earlier examples are dropped first.
        put: Examples to add or correct, in the order of events; after `remove`.
        remove: Ids of examples to drop; unknown ones are passed over.
        events: Events to remember.
        state: Of the new revision. States of the old one are dropped, for all bundles.
        digest: The bundle that made the features in `put`.
        descriptor: What the task is that learning starts from, after the change.
    """

    key: Key
    labels: tuple[str | None, ...]
    replace: bool = False
    put: tuple[NewExample, ...] = ()
    remove: tuple[str, ...] = ()
    events: tuple[Event, ...] = ()
    state: NewState | None = None
    digest: str | None = None
    descriptor: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        if len({example.example_id for example in self.put}) < len(self.put):
            raise ValueError("an example id stands twice in a change")
        if len({event.event_id for event in self.events}) < len(self.events):
            raise ValueError("an event id stands twice in a change")
        if self.digest is None and any(example.features is not None for example in self.put):
            raise ValueError("features come without the digest of their bundle")
