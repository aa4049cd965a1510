"""Revisions of SQLite's adaptations without a change of threads."""

import asyncio
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from handful_service.store import heads
from handful_service.store.generation import Generation
from handful_service.store.heads import SqliteHeads
from handful_service.store.lanes import AsyncStore
from handful_service.store.store import Store
from handful_service.store.values import Change, Key, NewExample

ALICE = Key("acme", "mail", "alice")
OTHERS = [Key("other", "mail", "alice"), Key("acme", "letters", "alice"), Key("acme", "mail", "Alice")]


def put(store: Store, key: Key = ALICE, expected: int | None = None) -> int:
    example = NewExample(f"e{expected}", "spam", 1.0, None, None, b"features")
    return store.commit(Change(key, ("spam",), put=(example,), digest="d" * 64), expected=expected)


@pytest.fixture
def found(tmp_path: Path) -> Iterator[tuple[Store, SqliteHeads]]:
    store, quick = Store(f"sqlite:///{tmp_path}/handful.db"), SqliteHeads(f"{tmp_path}/handful.db")
    yield store, quick
    quick.close()
    store.close()


@pytest.mark.parametrize("name", ["plain.db", "with%20blanks and %2541.db", "a %23 and ä.db"])
def test_any_path_of_a_store_is_found(tmp_path: Path, name: str) -> None:
    store = Store(f"sqlite:///{tmp_path}/{name}")
    assert store.file is not None
    assert Path(store.file) in set(tmp_path.iterdir())
    revision = put(store)
    quick = SqliteHeads(store.file)
    assert quick.find([ALICE]) == {ALICE: revision}
    quick.close()
    store.close()


def test_a_url_that_says_more_than_a_path_is_left_to_the_store(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path}/handful.db?timeout=3")
    assert store.file is None
    store.close()


def test_it_sees_what_was_committed_before_at_once_and_what_the_store_says(found: tuple[Store, SqliteHeads]) -> None:
    store, quick = found
    assert quick.find([ALICE]) == {}
    revision = put(store)
    for _ in range(20):
        assert quick.find([ALICE, *OTHERS]) == store.heads([ALICE, *OTHERS]) == {ALICE: revision}
        revision = put(store, expected=revision)
    store.delete(ALICE, expected=None)
    assert quick.find([ALICE]) == {}


COMMIT = (
    "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]);"
    "c.execute('UPDATE adaptations SET revision = 77 WHERE tenant = ?', ('acme',)); c.commit()"
)
"""Another program."""

STORES = """
import sys
from handful_service.store.store import Store
from handful_service.store.values import Change, Key
store = Store("sqlite:///" + sys.argv[1])
store.commit(Change(Key("acme", "mail", "other"), ("spam",)), expected=None)
store.close()
"""
"""Another server."""


def elsewhere(script: str, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "handful.db")], env=environment, check=True)


@pytest.mark.parametrize("shared", [True, False], ids=["a generation", "SQLite alone"])
def test_what_it_is_as_of_moves_with_each_commit_of_a_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shared: bool
) -> None:
    monkeypatch.setattr(heads, "ASK_S", 1000.0)
    store = Store(f"sqlite:///{tmp_path}/handful.db")
    quick = SqliteHeads(str(tmp_path / "handful.db"), store.generation if shared else None)
    seen = [quick.as_of()]
    for step in (
        lambda: put(store),
        lambda: elsewhere(STORES, tmp_path),
        lambda: put(store, OTHERS[0]),
        lambda: store.delete(ALICE, expected=None),
    ):
        assert {quick.as_of() for _ in range(5)} == {seen[-1]}
        step()
        seen.append(quick.as_of())
    assert len(set(seen)) == 5
    assert min(seen) > 0
    quick.close()
    store.close()


def test_what_other_programs_commit_is_seen_a_little_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(heads, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    store = Store(f"sqlite:///{tmp_path}/handful.db")
    quick, _ = SqliteHeads(str(tmp_path / "handful.db"), store.generation), put(store)
    before = quick.as_of()
    elsewhere(COMMIT, tmp_path)
    clock[0] += 0.9 * heads.ASK_S
    assert quick.as_of() == before
    clock[0] += 0.2 * heads.ASK_S
    assert quick.as_of() != before
    assert quick.find([ALICE]) == {ALICE: 77}
    quick.close()
    store.close()


def test_while_nothing_is_committed_sqlite_is_hardly_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heads, "ASK_S", 1000.0)
    store = Store(f"sqlite:///{tmp_path}/handful.db")
    quick = SqliteHeads(str(tmp_path / "handful.db"), store.generation)
    quick.as_of()
    asked: list[str] = []
    connection: Any = quick._connection
    connection.set_trace_callback(asked.append)
    for _ in range(5):
        quick.as_of()
    assert asked == []
    put(store)
    for _ in range(5):
        quick.as_of()
    assert asked == [heads._VERSION]
    quick.close()
    store.close()


def test_a_new_connection_is_as_of_another_moment(found: tuple[Store, SqliteHeads]) -> None:
    _, quick = found
    before = quick.as_of()
    quick.close()
    assert quick.as_of() != before


def test_without_a_file_for_it_sqlite_is_asked(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "handful.db-generation").mkdir()
    store = Store(f"sqlite:///{tmp_path}/handful.db")
    assert store.generation is None
    assert "handful.db-generation cannot be used" in caplog.text
    put(store)
    store.close()


def test_a_file_that_is_too_short_is_made_longer_and_one_that_is_there_is_kept(tmp_path: Path) -> None:
    (tmp_path / "short").write_bytes(b"abc")
    (tmp_path / "there").write_bytes(b"12345678 and more")
    one, two = Generation(str(tmp_path / "short")), Generation(str(tmp_path / "there"))
    again = Generation(str(tmp_path / "short"))
    assert two.number == int.from_bytes(b"12345678", sys.byteorder)
    before = again.number
    one.move()
    assert again.number == one.number != before
    for each in (one, two, again):
        each.close()


def test_tenants_models_and_ids_do_not_meet(found: tuple[Store, SqliteHeads]) -> None:
    store, quick = found
    expected = {key: put(store, key) for key in OTHERS}
    assert quick.find([ALICE, *OTHERS]) == expected


def test_it_does_not_wait_for_a_writer_and_holds_none_up(tmp_path: Path, found: tuple[Store, SqliteHeads]) -> None:
    store, quick = found
    revision = put(store)
    writer = sqlite3.connect(tmp_path / "handful.db", isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    writer.execute("UPDATE adaptations SET revision = 99")
    assert quick.find([ALICE]) == {ALICE: revision}
    writer.execute("COMMIT")
    assert quick.find([ALICE]) == {ALICE: 99}
    assert writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0, "no read is left open"
    writer.close()


def test_it_writes_nothing_and_makes_no_file(tmp_path: Path, found: tuple[Store, SqliteHeads]) -> None:
    store, quick = found
    put(store)
    quick.find([ALICE])
    connection: Any = quick._connection
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        connection.execute("DELETE FROM adaptations")
    missing = SqliteHeads(f"{tmp_path}/missing.db")
    assert missing.find([ALICE]) is None
    assert missing.as_of() == 0
    assert not (tmp_path / "missing.db").exists()


def test_what_it_cannot_answer_the_store_does(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    async def use() -> None:
        store = Store(f"sqlite:///{tmp_path}/handful.db")
        face, revision = AsyncStore(store), put(store)
        assert await face.heads([ALICE]) == {ALICE: revision}
        monkeypatch.setattr(heads, "MOST", 0)
        assert await face.heads([ALICE]) == {ALICE: revision}
        monkeypatch.setattr(heads, "MOST", 64)
        monkeypatch.setattr(heads, "_HEADS", "SELECT nothing FROM nowhere WHERE ? = ? AND id IN ")
        assert await face.heads([ALICE]) == {ALICE: revision}
        await face.close()

    asyncio.run(use())


def test_a_few_keys_change_no_thread(tmp_path: Path) -> None:
    async def use() -> None:
        face = AsyncStore(Store(f"sqlite:///{tmp_path}/handful.db"))
        lanes: Any = face._reads

        async def never(*_: Any) -> None:
            raise AssertionError("a thread")

        lanes.run = never
        assert await face.heads([ALICE, *OTHERS]) == {}
        del lanes.run
        await face.close()

    asyncio.run(use())
