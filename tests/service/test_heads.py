"""Revisions of SQLite's adaptations without a change of threads."""

import asyncio
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from handful_service.store import heads
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


def test_what_was_read_is_read_again_only_after_a_commit_by_whatever_process(
    tmp_path: Path, found: tuple[Store, SqliteHeads]
) -> None:
    store, quick = found
    revision, other = put(store), put(store, OTHERS[0])
    quick.find([ALICE])
    reads: list[str] = []
    connection: Any = quick._connection
    connection.set_trace_callback(lambda statement: reads.append(statement) if "SELECT" in statement else None)
    for _ in range(5):
        assert quick.find([ALICE, OTHERS[0]]) == {ALICE: revision, OTHERS[0]: other}
    assert len(reads) == 1  # of the other one
    script = (
        "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]);"
        "c.execute('UPDATE adaptations SET revision = 77 WHERE tenant = ?', ('acme',)); c.commit()"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "handful.db")], check=True)
    assert quick.find([ALICE, OTHERS[0]]) == {ALICE: 77, OTHERS[0]: other}
    assert len(reads) == 3
    store.delete(ALICE, expected=None)
    assert quick.find([ALICE, OTHERS[0]]) == {OTHERS[0]: other}


def test_no_more_are_remembered_than_may_be(monkeypatch: pytest.MonkeyPatch, found: tuple[Store, SqliteHeads]) -> None:
    store, quick = found
    monkeypatch.setattr(heads, "MOST_KNOWN", 1)
    expected = {key: put(store, key) for key in OTHERS}
    for _ in range(2):
        for key in OTHERS:
            assert quick.find([key]) == {key: expected[key]}
            assert len(quick._known) <= 2


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
    assert SqliteHeads(f"{tmp_path}/missing.db").find([ALICE]) is None
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
