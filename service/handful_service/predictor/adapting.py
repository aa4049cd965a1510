"""Adaptations as a resource: create, add, correct, unlearn, read, list, delete."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from weakref import WeakValueDictionary

from ..errors import AdaptationNotFound, ExampleNotFound, NotAccepted
from ..packing import pack
from ..store.lanes import AsyncStore
from ..store.values import Adaptation, Change, Event, Key, NewExample, RevisionMoved, Summary
from ..task import Arrays, Caller, Labels
from .changes import (
    ChangeResult,
    ExampleChange,
    Pending,
    Precondition,
    Written,
    count_labels,
    fingerprint,
    first_result,
    must_exist,
    sort_out,
)
from .models import Models, Served, VersionRef
from .preparing import check_ways
from .states import ATTEMPTS, Start, States, contended, kept, merged
from .supports import Labelled

Retention = Literal["inputs", "features"]
Attempt = Callable[[Adaptation | None], Awaitable[Written]]


@dataclass(frozen=True, slots=True)
class _Put:
    """Changes to make, what they are learned from, and the descriptor of the adaptation after them."""

    changes: Sequence[ExampleChange]
    begun: Start
    descriptor: Mapping[str, Any] | None
    replace: bool


class Adaptations:
    """The use cases of stored tasks. Every one takes the caller first, whose tenant is part of every key.

    Args:
        models: What is served.
        store: Where adaptations are kept.
        states: Computes their states.
        retention: Whether raw inputs are kept, or only features. With features alone an adaptation works with
            the bundle that made them, and not with a later version.
    """

    def __init__(self, models: Models, store: AsyncStore, states: States, retention: Retention) -> None:
        self._models = models
        self._store = store
        self._states = states
        self._retention = retention
        self._locks: WeakValueDictionary[Key, asyncio.Lock] = WeakValueDictionary()

    async def put(
        self,
        caller: Caller,
        model: str,
        version: VersionRef,
        name: str,
        changes: Sequence[ExampleChange],
        precondition: Precondition,
        descriptor: Mapping[str, Any] | None = None,
    ) -> Written:
        """Create an adaptation, or replace all its examples and the task that it starts from.

        Args:
            caller: Who asks.
            model: Whose adaptation it is.
            version: Which version learns now.
            name: The adaptation's id.
            changes: Its examples.
            precondition: What must hold before.
            descriptor: What the task is that learning starts from, as a request says it: `id`, `metadata`, `text`.

        Raises:
            RequestError: the support set or the precondition does not hold; nothing is changed then.
        """
        served = self._served(model, version)
        if descriptor is None and "support" not in served.manifest.accepts:
            raise NotAccepted(
                "the model learns beside a task only", field="task", allowed="a task beside the support set"
            )
        begun = await self._states.start(served, descriptor, field="support" if descriptor is None else "task")
        checked = [change.checked(begun.rules) for change in changes]
        key = Key(caller.tenant, model, name)

        async def attempt(current: Adaptation | None) -> Written:
            put = _Put(checked, begun, descriptor, replace=True)
            return await self._change(served, key, current, put, precondition)

        return await self._attempts(key, attempt)

    async def add(
        self,
        caller: Caller,
        model: str,
        version: VersionRef,
        name: str,
        changes: Sequence[ExampleChange],
        precondition: Precondition,
    ) -> Written:
        """Add or correct examples; where labels are fixed, this creates the adaptation.

        Raises:
            RequestError: an example or the precondition does not hold; nothing is changed then.
        """
        served = self._served(model, version)
        key = Key(caller.tenant, model, name)

        async def attempt(current: Adaptation | None) -> Written:
            if served.manifest.open_labels or "support" not in served.manifest.accepts:
                must_exist(current, name)
            descriptor = current.descriptor if current else None
            begun = await self._states.start(served, descriptor, field="id")
            checked = [change.checked(begun.rules) for change in changes]
            put = _Put(checked, begun, descriptor, replace=False)
            return await self._change(served, key, current, put, precondition)

        return await self._attempts(key, attempt)

    async def remove(
        self,
        caller: Caller,
        model: str,
        version: VersionRef,
        name: str,
        example_id: str,
        event_id: str | None,
        precondition: Precondition,
    ) -> Written:
        """Unlearn one example, exactly: the state is that of the examples that are left.

        Raises:
            AdaptationNotFound: no such adaptation.
            ExampleNotFound: it has no such example.
            PreconditionFailed: the revision is another.
        """
        served = self._served(model, version)

        async def attempt(current: Adaptation | None) -> Written:
            return await self._remove(served, must_exist(current, name), example_id, event_id, precondition)

        return await self._attempts(Key(caller.tenant, model, name), attempt)

    async def get(self, caller: Caller, model: str, name: str) -> Adaptation:
        """An adaptation with its examples.

        Raises:
            AdaptationNotFound: the caller has none of this id.
        """
        self._models.model(model)
        return must_exist(await self._store.get(Key(caller.tenant, model, name)), name)

    async def delete(self, caller: Caller, model: str, name: str, precondition: Precondition) -> None:
        """Delete an adaptation with all its data.

        Raises:
            AdaptationNotFound: the caller has none of this id.
            PreconditionFailed: the revision is another.
        """
        self._models.model(model)
        key = Key(caller.tenant, model, name)
        for _ in range(ATTEMPTS):
            found = (await self._store.heads([key])).get(key)
            precondition.check(found)
            if found is None:
                raise AdaptationNotFound(f"no adaptation {name!r}", field="id")
            try:
                if await self._store.delete(key, expected=found):
                    return
            except RevisionMoved:
                continue
        raise contended(name)

    async def list(self, caller: Caller, model: str, *, after: str | None, limit: int) -> Sequence[Summary]:
        """The caller's adaptations of a model, by id, from the one after `after`."""
        self._models.model(model)
        return await self._store.list(caller.tenant, model, after=after, limit=limit)

    def _served(self, model: str, version: VersionRef) -> Served:
        served = self._models.version(model, version)
        if not {"support", "task+support"} & set(served.manifest.accepts):
            raise NotAccepted("the model learns from no support set", field="model")
        return served

    async def _attempts(self, key: Key, attempt: Attempt) -> Written:
        """Try until no other writer comes between reading and committing.

        Writers of this process take turns; the store's check guards against those of others.
        """
        lock = self._locks.setdefault(key, asyncio.Lock())
        async with lock:
            for _ in range(ATTEMPTS):
                try:
                    return await attempt(await self._store.get(key))
                except RevisionMoved:
                    continue
        raise contended(key.id)

    async def _change(
        self,
        served: Served,
        key: Key,
        current: Adaptation | None,
        asked: _Put,
        precondition: Precondition,
    ) -> Written:
        changes, begun, replace = asked.changes, asked.begun, asked.replace
        events = await self._store.events(key, [change.event_id for change in changes if change.event_id])
        pending, repeated = sort_out(changes, None if replace else current, events)
        if repeated and not pending and current is not None:
            return _unchanged(served, current, tuple(repeated.values()))
        precondition.check(current.revision if current else None)  # a repetition is answered whatever came since
        before = [] if replace or current is None else [kept(example) for example in current.examples]
        known = {item.example_id: (item.label, item.weight) for item in before}
        known |= {item.example_id: (item.change.label, item.change.weight) for item in pending}
        labels, place = [label for label, _ in known.values()], "support" if replace else "examples"
        begun.rules.check(labels, place)
        check_ways(labels, begun.prior.labels if begun.prior else Labels(()), served.manifest.ways, place)
        new, folded = await self._encode(served, pending)
        slots = begun.slots(labels, None if replace else current)
        grown = None if replace or any(item.known for item in pending) else current
        change = Change(
            key=key,
            labels=slots.slots,
            descriptor=asked.descriptor,
            replace=replace,
            put=tuple(self._new_example(item, new.get(item.example_id)) for item in pending),
            remove=(),
            events=tuple(_event(item) for item in pending if item.change.event_id),
            state=await self._states.after(served, key, merged(before, pending, new), begun, slots, grown=grown),
            digest=served.digest,
        )
        revision = await self._store.commit(change, expected=current.revision if current else None)
        made = iter(
            [
                ChangeResult(item.example_id, item.action, revision, folded=folded.get(item.example_id, ()))
                for item in pending
            ]
        )
        results = tuple(repeated[place] if place in repeated else next(made) for place in range(len(changes)))
        return Written(
            key.id,
            served.manifest.version,
            revision,
            count_labels(list(known.values())),
            len(known),
            results,
            created=current is None,
            folded=begun.folded,
        )

    async def _remove(
        self, served: Served, current: Adaptation, example_id: str, event_id: str | None, precondition: Precondition
    ) -> Written:
        wanted = fingerprint(["remove", example_id])
        known = (await self._store.events(current.key, [event_id])).get(event_id) if event_id else None
        if known is not None:
            return _unchanged(served, current, (first_result(known, wanted, "event_id"),))
        precondition.check(current.revision)
        left = [kept(example) for example in current.examples if example.example_id != example_id]
        if len(left) == len(current.examples):
            raise ExampleNotFound(f"adaptation {current.key.id!r} has no example {example_id!r}", field="example_id")
        begun = await self._states.start(served, current.descriptor, field="id")
        slots = begun.slots([item.label for item in left], current)
        result = {"example_id": example_id, "action": "removed"}
        change = Change(
            key=current.key,
            labels=slots.slots,
            descriptor=current.descriptor,
            replace=False,
            put=(),
            remove=(example_id,),
            events=(Event(event_id, wanted, result),) if event_id else (),
            state=await self._states.after(served, current.key, left, begun, slots),
            digest=served.digest,
        )
        revision = await self._store.commit(change, expected=current.revision)
        counts = count_labels([(item.label, item.weight) for item in left])
        results = (ChangeResult(example_id, "removed", revision),)
        return Written(current.key.id, served.manifest.version, revision, counts, len(left), results)

    async def _encode(
        self, served: Served, pending: Sequence[Pending]
    ) -> tuple[dict[str, Arrays], dict[str, tuple[str, ...]]]:
        """The features of the changes that bring an input, and what of it was folded, by example id."""
        given = [item for item in pending if item.change.input is not None]
        features, folded = await self._states.encode(
            served,
            [Labelled(item.change.input, item.change.label, item.change.weight, item.change.field) for item in given],
        )
        ids = [item.example_id for item in given]
        return dict(zip(ids, features, strict=True)), dict(zip(ids, folded, strict=True))

    def _new_example(self, item: Pending, features: Arrays | None) -> NewExample:
        keep = self._retention == "inputs" and item.change.input is not None
        return NewExample(
            example_id=item.example_id,
            label=item.change.label,
            weight=item.change.weight,
            source=item.change.source,
            input=json.dumps(item.change.input).encode() if keep else None,
            features=None if features is None else pack(features),
        )


def _unchanged(served: Served, current: Adaptation, results: tuple[ChangeResult, ...]) -> Written:
    counts = count_labels([(example.label, example.weight) for example in current.examples])
    return Written(current.key.id, served.manifest.version, current.revision, counts, len(current.examples), results)


def _event(item: Pending) -> Event:
    result = {"example_id": item.example_id, "action": item.action}
    return Event(item.change.event_id or "", item.change.fingerprint(), result)
