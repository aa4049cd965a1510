"""A change, written inside a transaction that the store has begun."""

import hashlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, and_, bindparam, delete, func, insert, select, text, update

from .mine import mine, named
from .tables import ADAPTATIONS, EVENTS, EXAMPLES, FEATURES, STATES, STATISTICS
from .values import Change, Key, NewExample, NewState, RevisionMoved, label_text

LOG = logging.getLogger(__name__)

CHUNK = 10_000  # ids per statement: SQLite takes 32,766 parameters, PostgreSQL 65,535

# Both databases spell this alike, SQLAlchemy does not. On PostgreSQL the row it locks also makes two writers
# who create the same adaptation wait for each other; SQLite has one writer at a time anyway.
NEXT_REVISION = text(
    "INSERT INTO revision_counters (tenant, model, last) VALUES (:tenant, :model, 1)"
    " ON CONFLICT (tenant, model) DO UPDATE SET last = revision_counters.last + 1 RETURNING last"
)
LOCKED_REVISION = select(ADAPTATIONS.c.revision).where(mine(ADAPTATIONS)).with_for_update()
KNOWN_EVENT = (
    select(EVENTS.c.event_id).where(mine(EVENTS), EVENTS.c.event_id.in_(bindparam("ids", expanding=True))).limit(1)
)
ADD_HEAD, MOVE_HEAD = insert(ADAPTATIONS), update(ADAPTATIONS).where(mine(ADAPTATIONS))
DROP_EXAMPLES = delete(EXAMPLES).where(mine(EXAMPLES))
DROP_EXAMPLE = delete(EXAMPLES).where(mine(EXAMPLES), EXAMPLES.c.example_id == bindparam("example"))
LAST_POSITION = select(func.max(EXAMPLES.c.position)).where(mine(EXAMPLES))
STORED_EXAMPLES = (
    select(EXAMPLES.c.example_id, EXAMPLES.c.input, FEATURES.c.value)
    .select_from(
        EXAMPLES.outerjoin(
            FEATURES,
            and_(
                mine(FEATURES),
                FEATURES.c.example_id == EXAMPLES.c.example_id,
                FEATURES.c.digest == bindparam("of_digest"),
            ),
        )
    )
    .where(mine(EXAMPLES), EXAMPLES.c.example_id.in_(bindparam("ids", expanding=True)))
)
ADD_EXAMPLES = insert(EXAMPLES)
CORRECT_EXAMPLE = update(EXAMPLES).where(mine(EXAMPLES), EXAMPLES.c.example_id == bindparam("example"))
DROP_FEATURES = delete(FEATURES).where(mine(FEATURES), FEATURES.c.example_id == bindparam("example"))
DROP_FEATURES_OF_BUNDLE = DROP_FEATURES.where(FEATURES.c.digest == bindparam("of_digest"))
ADD_FEATURES, ADD_EVENTS, ADD_STATE, ADD_STATISTICS = map(insert, (FEATURES, EVENTS, STATES, STATISTICS))
DROP_STATES = [delete(table).where(mine(table)) for table in (STATES, STATISTICS)]
DROP_STATE = [
    delete(table).where(mine(table), table.c.digest == bindparam("of_digest")) for table in (STATES, STATISTICS)
]


def chunks(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    """The ids in parts that fit into a statement."""
    return (ids[start : start + CHUNK] for start in range(0, len(ids), CHUNK))


def checksum(blob: bytes) -> str:
    """SHA-256 over the length and the bytes."""
    return hashlib.sha256(b"%d;%b" % (len(blob), blob)).hexdigest()


def whole(key: Key, digest: str, phi: bytes, known: str) -> bool:
    """Whether φ is what was stored; if not, the log tells."""
    if checksum(phi) == known:
        return True
    LOG.warning("the state of %s for bundle %s is damaged and will be rebuilt", key, digest)
    return False


def lock(connection: Connection, key: Key) -> int | None:
    """The revision of an adaptation, kept from changing until the transaction ends; None if there is none."""
    return connection.scalar(LOCKED_REVISION, named(key))


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
    for statement in DROP_STATES:
        connection.execute(statement, named(change.key))
    if change.state is not None:
        add_state(connection, change.key, change.state, revision)
    return revision


def add_state(connection: Connection, key: Key, new: NewState, revision: int) -> None:
    """Stores the state for a bundle that has none."""
    state, shared = new.state, _columns(key) | {"digest": new.state.digest}
    row = {"revision": revision, "labels": list(state.labels), "shots": state.shots, "task": state.task}
    row |= {"described": state.described, "checksum": checksum(state.phi), "phi": state.phi}
    connection.execute(ADD_STATE, shared | row)
    if new.statistics is not None:
        row = {"checksum": checksum(new.statistics), "value": new.statistics}
        connection.execute(ADD_STATISTICS, shared | row)


def put_state(connection: Connection, key: Key, new: NewState, revision: int) -> None:
    """Stores the state for a bundle, in place of what it has."""
    for statement in DROP_STATE:
        connection.execute(statement, named(key) | {"of_digest": new.state.digest})
    add_state(connection, key, new, revision)


def put_features(connection: Connection, key: Key, digest: str, features: Mapping[str, bytes]) -> None:
    """Stores features of examples for a bundle, in place of those it has."""
    shared = named(key) | {"of_digest": digest}
    _many(connection, DROP_FEATURES_OF_BUNDLE, [shared | {"example": name} for name in features])
    _add_features(connection, key, digest, features)


def _add_features(connection: Connection, key: Key, digest: str, features: Mapping[str, bytes]) -> None:
    shared = _columns(key) | {"digest": digest}
    rows = [
        shared | {"example_id": name, "value": value, "checksum": checksum(value)} for name, value in features.items()
    ]
    _many(connection, ADD_FEATURES, rows)


def _columns(key: Key, *names: str) -> dict[str, Any]:
    return {name: getattr(key, name) for name in names or ("tenant", "model", "id")}


def _many(connection: Connection, statement: Any, rows: Sequence[Mapping[str, Any]]) -> None:
    if rows:
        connection.execute(statement, rows)


def _knows_event(connection: Connection, change: Change) -> bool:
    # A caller who looked for the event before another writer stored it: at the next look it is there.
    ids, key = [event.event_id for event in change.events], named(change.key)
    return any(connection.scalar(KNOWN_EVENT, key | {"ids": part}) is not None for part in chunks(ids))


def _write_head(connection: Connection, change: Change, revision: int, now: datetime, *, new: bool) -> None:
    row: dict[str, Any] = {"revision": revision, "labels": list(change.labels), "updated_at": now}
    row["descriptor"] = None if change.descriptor is None else dict(change.descriptor)
    if new:
        connection.execute(ADD_HEAD, _columns(change.key) | row | {"created_at": now})
    else:
        connection.execute(MOVE_HEAD, named(change.key) | row)


def _drop_examples(connection: Connection, change: Change) -> None:
    if change.replace:
        connection.execute(DROP_EXAMPLES, named(change.key))
    else:
        _many(connection, DROP_EXAMPLE, _each(change.key, change.remove))


def _put_examples(connection: Connection, change: Change, now: datetime) -> None:
    key, stored = change.key, {} if change.replace else _stored(connection, change)
    fresh = [example for example in change.put if example.example_id not in stored]
    known = [(example, stored[example.example_id]) for example in change.put if example.example_id in stored]
    last = None if change.replace else connection.scalar(LAST_POSITION, named(key))
    _add_examples(connection, key, fresh, last or 0, now)
    _many(connection, CORRECT_EXAMPLE, [named(key) | _corrected(example, row) for example, row in known])
    moved = [example.example_id for example, row in known if not _same_input(example, row)]
    _many(connection, DROP_FEATURES, _each(key, moved))
    if change.digest is not None:
        given = {e.example_id: e.features for e in change.put if e.features is not None}
        _add_features(connection, key, change.digest, {name: given[name] for name in given if name not in stored})
        put_features(connection, key, change.digest, {name: given[name] for name in given if name in stored})


def _each(key: Key, examples: Sequence[str]) -> list[dict[str, Any]]:
    return [named(key) | {"example": name} for name in examples]


def _stored(connection: Connection, change: Change) -> dict[str, Any]:
    """What is stored of the examples in `put`: their inputs, and their features for the change's bundle."""
    ids, shared = [example.example_id for example in change.put], named(change.key) | {"of_digest": change.digest}
    rows = [row for part in chunks(ids) for row in connection.execute(STORED_EXAMPLES, shared | {"ids": part})]
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


def _add_examples(connection: Connection, key: Key, fresh: Sequence[NewExample], last: int, now: datetime) -> None:
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
        for position, example in enumerate(fresh, start=last + 1)
    ]
    _many(connection, ADD_EXAMPLES, rows)


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
    _many(connection, ADD_EVENTS, rows)
