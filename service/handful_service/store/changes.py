"""A change, written inside a transaction that the store has begun."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Table,
    and_,
    bindparam,
    delete,
    func,
    insert,
    select,
    text,
    update,
)

from .tables import ADAPTATIONS, EVENTS, EXAMPLES, FEATURES, STATES
from .values import Change, Key, NewExample, NewState, RevisionMoved, label_text

CHUNK = 10_000  # ids per statement: SQLite takes 32,766 parameters, PostgreSQL 65,535

# Both databases spell this alike, SQLAlchemy does not. On PostgreSQL the row it locks also makes two writers
# who create the same adaptation wait for each other; SQLite has one writer at a time anyway.
NEXT_REVISION = text(
    "INSERT INTO revision_counters (tenant, model, last) VALUES (:tenant, :model, 1)"
    " ON CONFLICT (tenant, model) DO UPDATE SET last = revision_counters.last + 1 RETURNING last"
)


def of(table: Table, key: Key) -> ColumnElement[bool]:
    """The rows of a table that belong to an adaptation."""
    return and_(table.c.tenant == key.tenant, table.c.model == key.model, table.c.id == key.id)


def chunks(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    """The ids in parts that fit into a statement."""
    return (ids[start : start + CHUNK] for start in range(0, len(ids), CHUNK))


def checksum(*blobs: bytes | None) -> str:
    """SHA-256 over blobs and their lengths, so that none can be taken for another split of the same bytes."""
    digest = hashlib.sha256()
    for blob in blobs:
        digest.update(b"none;" if blob is None else b"%d;" % len(blob))
        digest.update(blob or b"")
    return digest.hexdigest()


def lock(connection: Connection, key: Key) -> int | None:
    """The revision of an adaptation, kept from changing until the transaction ends; None if there is none."""
    return connection.scalar(select(ADAPTATIONS.c.revision).where(of(ADAPTATIONS, key)).with_for_update())


def write(connection: Connection, change: Change, expected: int | None, now: datetime) -> int:
    """The new revision, with the whole change written.

    Raises:
        RevisionMoved: The revision is not `expected`, or an event of the change is stored already.
    """
    revision: int = connection.execute(NEXT_REVISION, _columns(change.key, "tenant", "model")).scalar_one()
    found = lock(connection, change.key)
    if found != expected or _knows_event(connection, change):
        raise RevisionMoved(found)
    _write_head(connection, change, revision, now, new=found is None)
    _drop_examples(connection, change)
    _put_examples(connection, change, now)
    _add_events(connection, change, revision, now)
    connection.execute(delete(STATES).where(of(STATES, change.key)))
    if change.state is not None:
        add_state(connection, change.key, change.state, revision)
    return revision


def add_state(connection: Connection, key: Key, state: NewState, revision: int) -> None:
    """Stores φ for a bundle that has none."""
    row = {"digest": state.digest, "revision": revision, "statistics": state.statistics, "phi": state.phi}
    connection.execute(insert(STATES), _columns(key) | row | {"checksum": checksum(state.statistics, state.phi)})


def put_features(connection: Connection, key: Key, digest: str, features: Mapping[str, bytes]) -> None:
    """Stores features of examples for a bundle, in place of those it has."""
    same = and_(of(FEATURES, key), FEATURES.c.digest == digest, FEATURES.c.example_id == bindparam("example"))
    _many(connection, delete(FEATURES).where(same), [{"example": name} for name in features])
    shared = _columns(key) | {"digest": digest}
    rows = [
        shared | {"example_id": name, "value": value, "checksum": checksum(value)} for name, value in features.items()
    ]
    _many(connection, insert(FEATURES), rows)


def _columns(key: Key, *names: str) -> dict[str, Any]:
    return {name: getattr(key, name) for name in names or ("tenant", "model", "id")}


def _many(connection: Connection, statement: Any, rows: Sequence[Mapping[str, Any]]) -> None:
    if rows:
        connection.execute(statement, rows)


def _knows_event(connection: Connection, change: Change) -> bool:
    # A caller who looked for the event before another writer stored it: at the next look it is there.
    ids = [event.event_id for event in change.events]
    query = select(EVENTS.c.event_id).where(of(EVENTS, change.key)).limit(1)
    return any(connection.scalar(query.where(EVENTS.c.event_id.in_(part))) is not None for part in chunks(ids))


def _write_head(connection: Connection, change: Change, revision: int, now: datetime, *, new: bool) -> None:
    row: dict[str, Any] = {"revision": revision, "labels": list(change.labels), "updated_at": now}
    row["descriptor"] = None if change.descriptor is None else dict(change.descriptor)
    if new:
        connection.execute(insert(ADAPTATIONS), _columns(change.key) | row | {"created_at": now})
    else:
        connection.execute(update(ADAPTATIONS).where(of(ADAPTATIONS, change.key)), row)


def _drop_examples(connection: Connection, change: Change) -> None:
    mine = of(EXAMPLES, change.key)
    if change.replace:
        connection.execute(delete(EXAMPLES).where(mine))
    else:
        one = delete(EXAMPLES).where(mine, EXAMPLES.c.example_id == bindparam("example"))
        _many(connection, one, [{"example": name} for name in change.remove])


def _put_examples(connection: Connection, change: Change, now: datetime) -> None:
    key, stored = change.key, _stored(connection, change)
    fresh = [example for example in change.put if example.example_id not in stored]
    known = [(example, stored[example.example_id]) for example in change.put if example.example_id in stored]
    _add_examples(connection, key, fresh, now)
    one = update(EXAMPLES).where(of(EXAMPLES, key), EXAMPLES.c.example_id == bindparam("example"))
    _many(connection, one, [_corrected(example, row) for example, row in known])
    stale = delete(FEATURES).where(of(FEATURES, key), FEATURES.c.example_id == bindparam("example"))
    moved = [example for example, row in known if not _same_input(example, row)]
    _many(connection, stale, [{"example": example.example_id} for example in moved])
    if change.digest is not None:
        given = {e.example_id: e.features for e in change.put if e.features is not None}
        put_features(connection, key, change.digest, given)


def _stored(connection: Connection, change: Change) -> dict[str, Any]:
    """What is stored of the examples in `put`: their inputs, and their features for the change's bundle."""
    its = and_(
        of(FEATURES, change.key),
        FEATURES.c.example_id == EXAMPLES.c.example_id,
        FEATURES.c.digest == change.digest,
    )
    query = select(EXAMPLES.c.example_id, EXAMPLES.c.input, FEATURES.c.value).select_from(
        EXAMPLES.outerjoin(FEATURES, its)
    )
    ids = [example.example_id for example in change.put]
    rows = [
        row
        for part in chunks(ids)
        for row in connection.execute(query.where(of(EXAMPLES, change.key), EXAMPLES.c.example_id.in_(part)))
    ]
    return {row.example_id: row for row in rows}


def _same_input(example: NewExample, row: Any) -> bool:
    """Whether an example that is put again still speaks of the input that is stored."""
    if example.input is not None and row.input is not None:
        return bool(example.input == row.input)
    if example.features is not None:
        return bool(example.features == row.value)
    return example.input is None  # only label, weight or source are corrected


def _corrected(example: NewExample, row: Any) -> dict[str, Any]:
    kept = row.input if example.input is None and _same_input(example, row) else example.input
    return {
        "example": example.example_id,
        "label": label_text(example.label),
        "weight": example.weight,
        "source": example.source,
        "input": kept,
    }


def _add_examples(connection: Connection, key: Key, fresh: Sequence[NewExample], now: datetime) -> None:
    last = connection.scalar(select(func.max(EXAMPLES.c.position)).where(of(EXAMPLES, key)))
    shared = _columns(key) | {"created_at": now}
    rows = [
        shared
        | {
            "example_id": example.example_id,
            "position": position,
            "label": label_text(example.label),
            "weight": example.weight,
            "source": example.source,
            "input": example.input,
        }
        for position, example in enumerate(fresh, start=1 if last is None else last + 1)
    ]
    _many(connection, insert(EXAMPLES), rows)


def _add_events(connection: Connection, change: Change, revision: int, now: datetime) -> None:
    shared = _columns(change.key) | {"created_at": now}
    rows = [
        shared
        | {
            "event_id": event.event_id,
            "fingerprint": event.fingerprint,
            "result": {**event.result, "revision": revision},
        }
        for event in change.events
    ]
    _many(connection, insert(EVENTS), rows)
