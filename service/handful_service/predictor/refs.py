"""How a request names its tasks, and what it asks of them: values that the use cases take."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..task import TaskState
from .supports import Labelled


@dataclass(slots=True)
class Named:
    """A task descriptor as it came.

    Attributes:
        id: Of a known task.
        metadata: A record that says what the task is, or, beside an id, of what it is asked.
        text: Words that say what the task is.
        field: Its place in the request, for messages.
        place: That of its id among several, such as `ids[1]`.
    """

    id: str | None = None
    metadata: Mapping[str, Any] | None = None
    text: str | None = None
    field: str = "task"
    place: str = "id"

    @property
    def id_field(self) -> str:
        """The place of its id in the request."""
        return f"{self.field}.{self.place}"

    @property
    def parts(self) -> dict[str, Any]:
        """What is given of it, as a request says it."""
        given = {"id": self.id, "metadata": self.metadata, "text": self.text}
        return {key: value for key, value in given.items() if value is not None}


@dataclass(slots=True)
class ByAdaptation:
    """The task is a stored adaptation."""

    id: str
    field: str = "adaptation"


@dataclass(slots=True)
class ByTask:
    """The tasks are described; every input is answered for each of them, in order."""

    names: tuple[Named, ...]
    field: str = "task"


@dataclass(frozen=True, slots=True)
class BySupport:
    """The task is defined by the examples of this call; nothing is stored.

    Attributes:
        named: The task that learning starts from, if one is described.
        content: The examples as they came, where they would come so again.
    """

    examples: tuple[Labelled, ...]
    field: str = "support"
    named: Named | None = None
    content: bytes | None = None


@dataclass(frozen=True, slots=True)
class Learned:
    """What a support set came to.

    Attributes:
        folded: Fields whose category was folded to «other»: of the task that learning started from.
        taught: The same of each example.
    """

    state: TaskState
    folded: tuple[str, ...]
    taught: tuple[tuple[str, ...], ...]


@dataclass(slots=True)
class ByLearned:
    """The task is defined by the examples of this call, which came before, to the byte: what they came to is known."""

    learned: Learned
    field: str = "support"


@dataclass(slots=True)
class Base:
    """No task is named: the base model."""

    field: str = "task"


TaskRef = ByAdaptation | ByTask | BySupport | ByLearned | Base


@dataclass(slots=True)
class Ask:
    """Some inputs of one task, or of several that all answer every input.

    Attributes:
        inputs: Raw values, or the bytes of a tensor as an array of its rows.
        fields: The place of each in the request, for messages.
        floats: Whether it is sure that the inputs are lists of finite floats.
    """

    inputs: Sequence[Any]
    fields: Sequence[str]
    task: TaskRef
    floats: bool = False

    @property
    def answers(self) -> int:
        """How many answers it gets."""
        return len(self.inputs) * (len(self.task.names) if isinstance(self.task, ByTask) else 1)
