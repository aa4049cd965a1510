"""From what a request says of a task to the state of that task: ids, metadata, texts."""

from collections.abc import Hashable
from dataclasses import dataclass

import numpy as np

from ..bundle.manifest import Manifest
from ..bundle.signature import INDEX, METADATA, TEXT
from ..bundle.tasks import KnownTask, find_task
from ..cache import Held, Pins
from ..codecs.record import decode_record
from ..codecs.text import decode_text
from ..errors import InputInvalid, NotAccepted
from ..task import Array, Arrays, Labels, TaskState
from .decoding import Decoders
from .models import Served
from .refs import Named

MAX_KEY_BYTES = 1024
"""Of a descriptor whose state is kept in the cache: keys count as little as the states beside them."""


@dataclass(frozen=True, slots=True)
class Described:
    """A descriptor as arrays, with what reading the answers of its task needs.

    Attributes:
        arrays: What the describe graph takes, of one item.
        task: The id of the known task whose columns are read, if one is named.
        folded: Its fields whose category was folded to «other».
        field: Its place in the request, for messages.
    """

    arrays: Arrays
    task: str | None
    labels: Labels
    shots: float
    folded: tuple[str, ...]
    field: str

    def key(self, digest: str) -> Hashable | None:
        """What names its state in the cache, compared in full: the exact bytes; None where they are too many."""
        content = tuple((name, array.tobytes()) for name, array in sorted(self.arrays.items()))
        return ("task", digest, content) if sum(len(found) for _, found in content) <= MAX_KEY_BYTES else None


def check_named(served: Served, named: Named) -> None:
    """Refuse a descriptor that the model does not take, before any work is done.

    Raises:
        NotAccepted: the model knows no such descriptors, or not beside each other.
        TaskNotFound: it knows no task of this id.
    """
    descriptors, field = served.manifest.descriptors, named.field
    metadata = descriptors.metadata if descriptors else None
    text = descriptors.text if descriptors else None
    allowed = f"a task by {described_by(served.manifest)}"
    if named.text is not None and text is None:
        raise NotAccepted("the model takes no text that describes a task", field=f"{field}.text", allowed=allowed)
    if named.metadata is not None:
        if metadata is None:
            raise NotAccepted("the model takes no metadata of a task", field=f"{field}.metadata", allowed=allowed)
        if metadata.beside_id != (named.id is not None):
            what = "stands without an `id`" if metadata.beside_id else "stands beside `id`"
            raise NotAccepted(what, field=f"{field}.metadata", allowed=allowed)
    if named.id is not None:
        find_task(served.bundle.known_tasks, named.id, named.id_field)


def described_by(manifest: Manifest) -> str:
    """The ways to describe a task, in words."""
    ways = ["`id`"]
    if manifest.descriptors is not None and (metadata := manifest.descriptors.metadata) is not None:
        ways.append("`id` and `metadata`" if metadata.beside_id else "`metadata`")
    if manifest.descriptors is not None and manifest.descriptors.text is not None:
        ways.append("`text`")
    return ", or by ".join(ways)


async def decode_named(served: Served, named: Named, decoders: Decoders) -> Described:
    """A checked descriptor as arrays; a text is cut into tokens off the event loop.

    Raises:
        InputInvalid: the metadata or the text cannot be read.
    """
    known = None if named.id is None else served.bundle.known_tasks[named.id]
    arrays: dict[str, Array] = {} if known is None else {INDEX: np.asarray(known.index, np.int64)}
    folded: tuple[str, ...] = ()
    descriptors = served.manifest.descriptors
    if named.metadata is not None and descriptors is not None and descriptors.metadata is not None:
        place = f"{named.field}.metadata"
        arrays[METADATA], names = decode_record(named.metadata, descriptors.metadata.record, field=place)
        folded = tuple(f"task.metadata.{name}" for name in names)
    if named.text is not None:
        arrays[TEXT] = await decoders.run(_decode_text, served, named)
    return Described(arrays, named.id, _labels(served, known), known.shots if known else 0.0, folded, named.field)


def _decode_text(served: Served, named: Named) -> Array:
    text = served.manifest.descriptors.text if served.manifest.descriptors else None
    if text is None or served.tokenizer is None:
        raise TypeError("the model takes no text that describes a task")
    return decode_text(named.text, text.text, text.tokens, served.tokenizer, field=f"{named.field}.text")


def _labels(served: Served, known: KnownTask | None) -> Labels:
    """The labels of a task by slot; none where they are open and no known task says them."""
    return Labels(served.manifest.fixed_labels) if known is None else known.labels


async def described_state(served: Served, described: Described) -> TaskState:
    """The state of a descriptor.

    Raises:
        InputInvalid: it gives a state that is not finite.
    """
    phi = await served.engine.describe(described.arrays)
    if not all(np.isfinite(array).all() for array in phi.values()):
        raise InputInvalid("gives a task state that is not finite", field=described.field, allowed="smaller numbers")
    return TaskState(phi, described.labels, described.shots, described.task, described=True)


def find_described(pins: Pins, served: Served, named: Named) -> Held | None:
    """The state of a known task, if it is in the cache; those of other descriptors have to be decoded first."""
    return pins.find(served.task_key(named.id)) if _by_id(named) else None


def _by_id(named: Named) -> bool:
    return named.metadata is None and named.text is None


async def pin_described(pins: Pins, served: Served, named: Named, decoders: Decoders) -> tuple[Held, tuple[str, ...]]:
    """The state of a checked descriptor, pinned, out of the cache where it is there; and its folded fields.

    Raises:
        InputInvalid: it cannot be read, or gives a state that is not finite.
    """
    described = await decode_named(served, named, decoders)
    key = served.task_key(named.id) if _by_id(named) else described.key(served.digest)
    if key is None:
        return pins.borrow(await described_state(served, described)), described.folded
    return await pins.pin(key, lambda: described_state(served, described)), described.folded
