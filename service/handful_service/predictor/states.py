"""The task states of stored adaptations: loaded, rebuilt, computed after a change, and pinned for predictions.

φ is defined as adapt over the active examples in event order. Statistics are a cache of it: adding may use
their sum; correcting and unlearning sum again what is left.
"""

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..cache import Held, Pins
from ..errors import AdaptationNotFound, HandfulError, Overloaded, TaskConflict
from ..packing import pack, unpack
from ..store.lanes import AsyncStore
from ..store.values import Adaptation, Example, Key, NewState, RevisionMoved, State
from ..task import Arrays, Caller, Label, Labels, SupportSet, TaskState
from .accepting import check_learns, must_accept, start
from .beside import all_of
from .changes import Pending
from .decoding import Decoders
from .describing import check_named, decode_named, described_state
from .labelling import Labelling
from .models import Served
from .preparing import adapt, encode, row, slots_with, stack
from .refs import Named
from .supports import Labelled

ATTEMPTS = 8
"""Tries, while others change the same adaptation, before a caller is told that they are faster."""

MOST_BYTES = 2**16
"""Of a state that is loaded on the event loop."""

MOST_LOADS = 64
"""Done in one go before the event loop turns to others."""

POLL_S = 0.01
"""Between looks for `min_revision`."""


@dataclass(frozen=True, slots=True)
class Active:
    """An example that a state is made of.

    Attributes:
        features: Each `[*feature]`; None where the store has to be asked.
        input: The raw input as JSON, where it was kept.
    """

    example_id: str
    label: Label
    weight: float
    features: Arrays | None
    input: bytes | None


def kept(example: Example) -> Active:
    """A stored example as part of a state."""
    return Active(example.example_id, example.label, example.weight, None, example.input)


def merged(before: Sequence[Active], pending: Sequence[Pending], new: dict[str, Arrays]) -> list[Active]:
    """The examples after a change: a corrected one stays in its place, new ones follow in order."""
    active = {item.example_id: item for item in before}
    for item in pending:
        earlier = active.get(item.example_id)
        active[item.example_id] = Active(
            item.example_id,
            item.change.label,
            item.change.weight,
            new.get(item.example_id),
            earlier.input if earlier else None,
        )
    return list(active.values())


@dataclass(frozen=True, slots=True)
class Start:
    """What the examples of an adaptation are learned from.

    Attributes:
        rules: Of their labels.
        prior: The state of the adaptation's descriptor, or of the base, where adapt starts from one.
        folded: Fields of the descriptor whose category was folded to «other».
    """

    rules: Labelling
    prior: TaskState | None
    folded: tuple[str, ...] = ()

    @property
    def phi(self) -> Arrays | None:
        """The arrays of the prior."""
        return None if self.prior is None else self.prior.arrays

    def slots(self, labels: Sequence[Label], before: Adaptation | None) -> Labels:
        """The slots of an adaptation's labels in a bundle.

        Raises:
            LabelUnknown: an example has a label that this version's fixed list lacks.
            TaskConflict: the labels are more than this version has ways, or of another kind.
        """
        return slots_with(self.rules, labels, self.prior, Labels(before.labels) if before else None)

    def state(self, phi: Arrays, slots: Labels, labels: Sequence[Label], weights: Sequence[float]) -> TaskState:
        """φ of an adaptation with what reading its answers needs."""
        if self.prior is None:
            return TaskState(phi, slots, self.rules.shots(labels, weights))
        shots = self.rules.shots(labels, weights) if labels else self.prior.shots
        return TaskState(phi, slots, shots, self.prior.task, described=True)

    def support(
        self, served: Served, active: Sequence[Active], features: Sequence[Arrays], slots: Labels
    ) -> SupportSet:
        """The examples as arrays."""
        labels, weights = [item.label for item in active], [item.weight for item in active]
        return self.rules.support(stack(features, served), labels, weights, slots)


def contended(name: str) -> Overloaded:
    """The error of a caller whose attempts were all overtaken."""
    return Overloaded(f"adaptation {name!r} is changed by others faster than this call could follow")


class States:
    """Computes and keeps the task states of stored adaptations.

    Args:
        store: Where adaptations are kept.
        decoders: Threads that decode pictures and texts.
    """

    def __init__(self, store: AsyncStore, decoders: Decoders) -> None:
        self._store = store
        self._decoders = decoders

    async def start(self, served: Served, descriptor: Mapping[str, Any] | None, *, field: str) -> Start:
        """What the examples of an adaptation are learned from, in a version of the model.

        Args:
            served: The version.
            descriptor: The adaptation's own, as a request says it; None where it has none.
            field: The place in the request, for messages.

        Raises:
            NotAccepted: the version does not learn beside such a task.
            TaskNotFound: it knows no task of the id.
            InputInvalid: the metadata or the text cannot be read.
            TaskConflict: it learns only beside a task, and the adaptation names none.
        """
        if descriptor is not None:
            must_accept(served, "task+support", field)
        named = start(served, None if descriptor is None else Named(**descriptor, field=field), field)
        if named is None and served.manifest.takes_prior:
            raise TaskConflict("the adaptation names no task to start from", field=field, allowed="a PUT with a `task`")
        if named is None:
            return Start(served.rules(), None)
        check_named(served, named)
        check_learns(served, named)
        described = await decode_named(served, named, self._decoders)
        prior = await described_state(served, described)
        return Start(served.rules(named.id, described=True), prior, described.folded)

    def find(self, pins: Pins, caller: Caller, served: Served, name: str, least: int) -> Held | None:
        """The current state of an adaptation, pinned, if it can be had at once.

        Args:
            pins: Where it is noted.
            caller: Whose adaptation it is.
            served: The model.
            name: The adaptation's id.
            least: The least revision.
        """
        as_of = self._store.as_of()
        if not as_of:
            return None
        key = Key(caller.tenant, served.manifest.name, name)
        place = (key, served.digest)
        held = pins.newest(place)
        if held is None:
            held = self._loaded(pins, served, key, as_of)
        elif held.as_of != as_of:
            held = self._renewed(pins, served, key, as_of, self._store.head_now(key))
        return held if held is not None and held.revision >= least else None

    def _renewed(self, pins: Pins, served: Served, key: Key, as_of: int, revision: int | None) -> Held | None:
        """The state of the current revision, which was looked up after `as_of`, pinned, if it can be had at once."""
        if revision is None:
            return None
        held = pins.find((key, served.digest), revision)
        if held is None:
            return self._loaded(pins, served, key, as_of)
        held.as_of = as_of
        return held

    def _loaded(self, pins: Pins, served: Served, key: Key, as_of: int) -> Held | None:
        """The current state of an adaptation from the store, pinned, if it can be had at once."""
        if served.manifest.state_bytes > MOST_BYTES:
            return None
        loaded = self._store.load_now(key, served.digest)
        if loaded is None or loaded.state is None:
            return None
        held = pins.hold((key, served.digest), _answering(loaded.state), loaded.revision)
        held.as_of = as_of
        return held

    async def pin(
        self, pins: Pins, caller: Caller, served: Served, names: Sequence[str], *, min_revision: int | None
    ) -> list[Held | HandfulError]:
        """The current state of each adaptation, pinned; or why there is none.

        An error is `AdaptationNotFound` where the caller has none of the id.
        """
        keys, as_of = [Key(caller.tenant, served.manifest.name, name) for name in names], self._store.as_of()
        found: list[Held | HandfulError | None] = [self._known(pins, served, key, as_of) for key in keys]
        unknown = [place for place, held in enumerate(found) if held is None]
        heads = await self._store.heads([keys[place] for place in unknown]) if unknown else {}
        for count, place in enumerate(unknown, start=1):
            if count % MOST_LOADS == 0:
                await asyncio.sleep(0)
            found[place] = self._renewed(pins, served, keys[place], as_of, heads.get(keys[place]))
        least = min_revision or 1
        waiting = [place for place, held in enumerate(found) if not isinstance(held, Held) or held.revision < least]
        if waiting:
            calls = [self._pin(pins, served, keys[place], min_revision) for place in waiting]
            for place, state in zip(waiting, await all_of(calls), strict=True):
                found[place] = state
        return [state for state in found if state is not None]

    def _known(self, pins: Pins, served: Served, key: Key, as_of: int) -> Held | None:
        held = pins.newest((key, served.digest)) if as_of else None
        return held if held is not None and held.as_of == as_of else None

    async def _pin(self, pins: Pins, served: Served, key: Key, min_revision: int | None) -> Held:
        for _ in range(ATTEMPTS):
            # The revision is part of what it is known by: a state that was replaced is never answered with again.
            revision = await self._head(key, min_revision)
            try:
                return await pins.pin((key, served.digest), lambda: self._load(served, key, revision), revision)  # noqa: B023 (awaited here)
            except RevisionMoved:
                continue
        raise contended(key.id)

    async def _head(self, key: Key, min_revision: int | None) -> int:
        while True:
            revision = (await self._store.heads([key])).get(key)
            if min_revision is None and revision is None:
                raise AdaptationNotFound(f"no adaptation {key.id!r}", allowed="create it with PUT")
            if revision is not None and revision >= (min_revision or 0):
                return revision
            await asyncio.sleep(POLL_S)  # until the deadline of the whole call

    async def _load(self, served: Served, key: Key, revision: int) -> TaskState:
        loaded = await self._store.load(key, served.digest)
        if loaded is None or loaded.revision != revision:
            raise RevisionMoved(loaded.revision if loaded else None)
        return _answering(loaded.state or await self._rebuild(served, key, revision))

    async def _rebuild(self, served: Served, key: Key, revision: int) -> State:
        """The state for a bundle that has none of this revision yet.

        Raises:
            RevisionMoved: the adaptation is at another one by now.
        """
        adaptation = await self._store.get(key)
        if adaptation is None or adaptation.revision != revision:
            raise RevisionMoved(adaptation.revision if adaptation else None)
        begun = await self.start(served, adaptation.descriptor, field="adaptation")
        active = [kept(example) for example in adaptation.examples]
        slots = begun.slots([item.label for item in active], adaptation)
        features = await self._features(served, adaptation.key, active)
        phi, statistics = await adapt(served.engine, begun.support(served, active, features, slots), begun.phi)
        blobs = {item.example_id: pack(found) for item, found in zip(active, features, strict=True)}
        new = _new_state(served, begun, active, slots, phi, statistics)
        await self._store.save_state(adaptation.key, adaptation.revision, new, blobs)
        return new.state

    async def after(
        self,
        served: Served,
        key: Key,
        active: Sequence[Active],
        begun: Start,
        slots: Labels,
        *,
        grown: Adaptation | None = None,
    ) -> NewState:
        """φ of the examples that a change leaves.

        Args:
            active: All examples after the change, in event order.
            begun: What they are learned from.
            slots: Their labels' slots.
            grown: The adaptation before, where the change only added examples after its own.

        Raises:
            TaskConflict: an input was not kept, and there are no features of it for this bundle.
        """
        before = await self._statistics(served, grown, begun, slots) if grown else None
        fresh = active[len(grown.examples) :] if grown and before is not None else active
        support = begun.support(served, fresh, await self._features(served, key, fresh), slots)
        if before is None:
            return _new_state(served, begun, active, slots, *await adapt(served.engine, support, begun.phi))
        more = await served.engine.summarise(support)
        statistics = {name: before[name] + more[name] for name in before}
        phi = await served.engine.adapt(statistics, begun.phi)
        return _new_state(served, begun, active, slots, phi, statistics)

    async def _statistics(self, served: Served, grown: Adaptation, begun: Start, slots: Labels) -> Arrays | None:
        """The statistics to add to, or None where the examples have to be summed again."""
        if served.manifest.statistics is None:
            return None
        labels = [example.label for example in grown.examples]
        moved = any(slots.slots[slot] != label for slot, label in begun.slots(labels, grown).present)
        if moved:
            return None
        found = await self._store.statistics(grown.key, served.digest)
        return unpack(found.value) if found is not None and found.revision == grown.revision else None

    async def _features(self, served: Served, key: Key, active: Sequence[Active]) -> list[Arrays]:
        """The features of every example: at hand, stored, or encoded again from the kept input."""
        found = {item.example_id: item.features for item in active if item.features is not None}
        if len(found) < len(active):
            stored = await self._store.features(key, served.digest)
            asked = [item for item in active if item.example_id not in found]
            found |= {item.example_id: unpack(stored[item.example_id]) for item in asked if item.example_id in stored}
            found |= await self._encode_again(served, [item for item in asked if item.example_id not in stored])
        return [found[item.example_id] for item in active]

    async def _encode_again(self, served: Served, lost: Sequence[Active]) -> Mapping[str, Arrays]:
        inputs = []
        for item in lost:
            if item.input is None:
                raise TaskConflict(
                    f"the input of example {item.example_id!r} was not kept, "
                    f"so version {served.manifest.version} cannot learn from it",
                    field="version",
                    allowed="the version that the examples were given to, or a new PUT",
                )
            inputs.append(Labelled(json.loads(item.input), item.label, item.weight, f"example {item.example_id}"))
        features, _ = await self.encode(served, inputs)
        return {item.example_id: array for item, array in zip(lost, features, strict=True)}

    async def encode(
        self, served: Served, examples: Sequence[Labelled]
    ) -> tuple[list[Arrays], tuple[tuple[str, ...], ...]]:
        """The features of each example, each array `[*feature]`, and what of each was folded.

        Raises:
            InputInvalid: an input cannot be read.
        """
        values = [example.input for example in examples]
        fields = [f"{example.field}.input" for example in examples]
        features, folded = await encode(served, values, fields, self._decoders)
        return [row(features, place) for place in range(len(examples))], folded


def _answering(state: State) -> TaskState:
    return TaskState(unpack(state.phi), Labels(state.labels), state.shots, state.task, state.described)


def _new_state(
    served: Served, begun: Start, active: Sequence[Active], slots: Labels, phi: Arrays, statistics: Arrays | None
) -> NewState:
    labels, weights = [item.label for item in active], [item.weight for item in active]
    whole = begun.state(phi, slots, labels, weights)
    state = State(served.digest, pack(phi), whole.labels.slots, whole.shots, whole.task, whole.described)
    return NewState(state, None if statistics is None else pack(statistics))
