"""What a prediction needs of a stored adaptation, read at once: as the general path has it, and never a mix."""

import asyncio
import sqlite3
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from handful_service.store import lanes
from handful_service.store.lanes import AsyncStore
from handful_service.store.sqlite_loads import SqliteLoads, TooMany
from handful_service.store.store import Store
from handful_service.store.values import Change, Key, Loaded, NewExample, NewState, State

ALICE = Key("acme", "mail", "alice")
OTHERS = [ALICE._replace(tenant="other"), ALICE._replace(model="letters"), ALICE._replace(id="Alice")]
DIGEST = "d" * 64


def put(store: Store, *put: NewExample, key: Key = ALICE, expected: int | None = None, **more: Any) -> int:
    usual: dict[str, Any] = {"labels": ("ham", None, "spam"), "put": put, "digest": DIGEST}
    return store.commit(Change(key, **usual | more), expected=expected)


def example(name: str, label: str | float = "spam", weight: float = 1.0) -> NewExample:
    return NewExample(name, label, weight, None, b"an input", b"features")


def state(phi: bytes = b"phi") -> NewState:
    return NewState(DIGEST, b"sums", phi)


@pytest.fixture
def stored(tmp_path: Path) -> Iterator[tuple[Store, SqliteLoads]]:
    store, loads = Store(f"sqlite:///{tmp_path}/handful.db"), SqliteLoads(f"{tmp_path}/handful.db")
    yield store, loads
    loads.close()
    store.close()


def general(store: Store, key: Key = ALICE, digest: str = DIGEST) -> Loaded | None:
    """What the two general reads come to."""
    adaptation, found = store.get(key), store.state(key, digest)
    if adaptation is None:
        return None
    examples = tuple((example.label, example.weight) for example in adaptation.examples)
    return Loaded(adaptation.revision, adaptation.labels, adaptation.descriptor, examples, found)


def test_it_is_what_the_general_path_says(stored: tuple[Store, SqliteLoads]) -> None:
    store, loads = stored
    assert loads.load(ALICE, DIGEST) is None
    one = put(store, example("e2", "ham", 0.5), example("e1"), state=state())
    asked = Loaded(one, ("ham", None, "spam"), None, (("ham", 0.5), ("spam", 1.0)), State(DIGEST, one, b"sums", b"phi"))
    assert loads.load(ALICE, DIGEST) == general(store) == asked
    assert [loads.load(other, DIGEST) for other in OTHERS] == [None] * 3
    assert loads.load(ALICE, "e" * 64) == general(store, digest="e" * 64) == replace(asked, state=None)
    two = put(store, example("e2", "spam"), expected=one, state=None, descriptor={"metadata": {"ä": 1}})
    found = loads.load(ALICE, DIGEST)
    assert (
        found
        == general(store)
        == Loaded(two, ("ham", None, "spam"), {"metadata": {"ä": 1}}, (("spam", 1.0),) * 2, None)
    )
    store.delete(ALICE, expected=two)
    assert loads.load(ALICE, DIGEST) is None


def test_labels_that_are_numbers_are_numbers(stored: tuple[Store, SqliteLoads]) -> None:
    store, loads = stored
    put(store, example("e1", -2.5), example("e2", 1e300), labels=(), state=NewState(DIGEST, None, b"phi"))
    found = loads.load(ALICE, DIGEST)
    assert found == general(store)
    assert found is not None
    assert found.examples == ((-2.5, 1.0), (1e300, 1.0))


@pytest.mark.parametrize("column", ["phi", "statistics"])
def test_a_damaged_state_is_none(
    stored: tuple[Store, SqliteLoads], tmp_path: Path, caplog: pytest.LogCaptureFixture, column: str
) -> None:
    store, loads = stored
    put(store, example("e1"), state=state())
    connection = sqlite3.connect(tmp_path / "handful.db")
    with connection:
        connection.execute(f"UPDATE states SET {column} = x'00'")  # noqa: S608
    connection.close()
    found = loads.load(ALICE, DIGEST)
    assert found is not None
    assert found.state is None
    assert "damaged" in caplog.text


def test_a_bound_on_examples_is_kept(stored: tuple[Store, SqliteLoads]) -> None:
    store, loads = stored
    put(store, *[example(f"e{place}") for place in range(3)], state=state())
    assert loads.load(ALICE, DIGEST, 3) == general(store)
    with pytest.raises(TooMany):
        loads.load(ALICE, DIGEST, 2)
    assert loads.load(ALICE, DIGEST) == general(store)


def test_what_is_read_is_of_one_moment(stored: tuple[Store, SqliteLoads]) -> None:
    """Every revision has as many examples as its number, and a state that names it."""
    store, loads = stored
    put(store, example("e1"), state=state(b"1"))
    over = threading.Event()

    def write() -> None:
        for number in range(2, 60):
            put(store, example(f"e{number}"), expected=number - 1, state=state(b"%d" % number))
        over.set()

    writer = threading.Thread(target=write)
    writer.start()
    seen = set()
    while not over.is_set():
        found = loads.load(ALICE, DIGEST)
        assert found is not None
        assert found.state is not None
        assert found.revision == len(found.examples) == int(found.state.phi)
        seen.add(found.revision)
    writer.join()
    assert len(seen) > 1


def test_the_store_answers_where_sqlite_does_not_at_once(stored: tuple[Store, SqliteLoads]) -> None:
    store, _ = stored
    put(store, example("e1"), state=state())
    quick = store.loads
    assert quick is not None
    quick.load = unable  # type: ignore[method-assign]
    assert store.load(ALICE, DIGEST) == general(store)
    assert store.load(OTHERS[0], DIGEST) is None


def unable(*_: object) -> None:
    raise sqlite3.OperationalError("database is locked")


def test_a_slow_load_leaves_the_next_ones_to_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def use() -> None:
        face = AsyncStore(Store(f"sqlite:///{tmp_path}/handful.db"))
        change = Change(ALICE, ("spam",), put=(example("e1"),), digest=DIGEST, state=state())
        await face.commit(change, expected=None)
        monkeypatch.setattr(lanes, "SLOW_S", 10.0)
        assert face.load_now(ALICE, DIGEST) == await face.load(ALICE, DIGEST) is not None
        monkeypatch.setattr(lanes, "SLOW_S", -1.0)
        assert face.load_now(ALICE, DIGEST) is not None
        monkeypatch.setattr(lanes, "SLOW_S", 10.0)
        assert [face.load_now(ALICE, DIGEST) for _ in range(lanes.RESTING)] == [None] * lanes.RESTING
        assert face.load_now(ALICE, DIGEST) is not None
        await face.close()

    asyncio.run(use())
