"""What a prediction needs of a stored adaptation, read at once: as the general path has it, and never a mix."""

import asyncio
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from handful_service.store import lanes
from handful_service.store.lanes import AsyncStore
from handful_service.store.sqlite_loads import SqliteLoads
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


def state(phi: bytes = b"phi", **more: Any) -> NewState:
    return NewState(State(DIGEST, phi, ("ham", None, "spam"), 0.5, **more), b"sums")


@pytest.fixture
def stored(tmp_path: Path) -> Iterator[tuple[Store, SqliteLoads]]:
    store, loads = Store(f"sqlite:///{tmp_path}/handful.db"), SqliteLoads(f"{tmp_path}/handful.db")
    yield store, loads
    loads.close()
    store.close()


def general(store: Store, key: Key = ALICE, digest: str = DIGEST) -> Loaded | None:
    """What the general path says."""
    quick, store.loads = store.loads, None
    try:
        return store.load(key, digest)
    finally:
        store.loads = quick


def test_it_is_what_the_general_path_says(stored: tuple[Store, SqliteLoads]) -> None:
    store, loads = stored
    assert loads.load(ALICE, DIGEST) is None
    one = put(store, example("e2", "ham", 0.5), example("e1"), state=state())
    assert loads.load(ALICE, DIGEST) == general(store) == Loaded(one, state().state)
    assert [loads.load(other, DIGEST) for other in OTHERS] == [None] * 3
    assert loads.load(ALICE, "e" * 64) == general(store, digest="e" * 64) == Loaded(one, None)
    two = put(store, example("e2", "spam"), expected=one, state=None)
    assert loads.load(ALICE, DIGEST) == general(store) == Loaded(two, None)
    described = state(task="greek", described=True)
    three = put(store, expected=two, state=described, descriptor={"metadata": {"\u00e4": 1}})
    assert loads.load(ALICE, DIGEST) == general(store) == Loaded(three, described.state)
    store.delete(ALICE, expected=three)
    assert loads.load(ALICE, DIGEST) is None


@pytest.mark.parametrize("labels", [(), ("\u00e4", None), (None,)])
@pytest.mark.parametrize("shots", [0.0, 0.1 + 0.2, 1e300])
def test_what_reading_needs_comes_back_as_it_was(
    stored: tuple[Store, SqliteLoads], labels: tuple[str | None, ...], shots: float
) -> None:
    store, loads = stored
    kept = State(DIGEST, b"", labels, shots)
    one = put(store, example("e1", -2.5), labels=(), state=NewState(kept, None))
    assert loads.load(ALICE, DIGEST) == general(store) == Loaded(one, kept)


def test_users_with_the_same_labels_share_them(stored: tuple[Store, SqliteLoads]) -> None:
    store, loads = stored
    for key in (ALICE, *OTHERS):
        put(store, example("e1"), key=key, state=state())
    found = [loads.load(key, DIGEST) for key in (ALICE, *OTHERS)]
    assert len({id(one.state.labels) for one in found if one and one.state}) == 1


def test_a_damaged_state_is_none(
    stored: tuple[Store, SqliteLoads], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store, loads = stored
    one = put(store, example("e1"), state=state())
    connection = sqlite3.connect(tmp_path / "handful.db")
    with connection:
        connection.execute("UPDATE states SET phi = x'00'")
    connection.close()
    assert loads.load(ALICE, DIGEST) == Loaded(one, None)
    assert "damaged" in caplog.text


def test_what_is_read_is_of_one_moment(stored: tuple[Store, SqliteLoads]) -> None:
    """Every revision has a state that names it."""
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
        assert found.revision == int(found.state.phi)
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


def test_slow_loads_are_left_to_threads_once_the_event_loop_waited_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr(lanes, "time", SimpleNamespace(monotonic=lambda: clock[0]))

    async def use() -> None:
        store = Store(f"sqlite:///{tmp_path}/handful.db")
        face = AsyncStore(store)
        change = Change(ALICE, ("spam",), put=(example("e1"),), digest=DIGEST, state=state())
        await face.commit(change, expected=None)
        quick: Any = store.loads
        load = quick.load

        def loads_of(seconds: float) -> None:
            def slow(*args: Any) -> Any:
                clock[0] += seconds
                return load(*args)

            quick.load = slow

        loads_of(lanes.QUICK_S / 2)
        assert all(face.load_now(ALICE, DIGEST) for _ in range(1000)), "nobody waits for these"
        loads_of(2 * lanes.QUICK_S)
        began = clock[0]
        done = sum(face.load_now(ALICE, DIGEST) is not None for _ in range(1000))
        assert (clock[0] - began) * (1 - lanes.SHARE) == pytest.approx(lanes.SAVED_S, abs=2 * lanes.QUICK_S)
        assert 0 < done < 1000
        clock[0] += lanes.SAVED_S
        assert face.load_now(ALICE, DIGEST) is not None
        assert await face.load(ALICE, DIGEST) is not None
        loads_of(lanes.SAVED_S + 1.0)
        clock[0] += 1.0
        assert face.load_now(ALICE, DIGEST) is not None
        clock[0] += 0.8 / lanes.SHARE
        assert face.load_now(ALICE, DIGEST) is None
        clock[0] += 0.2 / lanes.SHARE
        assert face.load_now(ALICE, DIGEST) is not None
        await face.close()

    asyncio.run(use())
