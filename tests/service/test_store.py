"""The store's laws, on SQLite and, where its server can be started, on PostgreSQL."""

import asyncio
import hashlib
import itertools
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, create_engine, func, make_url, select, text
from sqlalchemy.exc import IntegrityError
from tests.postgres import Postgres

from handful_service.errors import NotReady, Overloaded
from handful_service.store.database import Database, alembic_config, upgrade
from handful_service.store.lanes import AsyncStore
from handful_service.store.store import Store
from handful_service.store.tables import HEAD_REVISION, METADATA
from handful_service.store.values import (
    Adaptation,
    Change,
    Event,
    Key,
    Loaded,
    NewExample,
    NewState,
    RevisionMoved,
    State,
    Statistics,
)

ALICE = Key("acme", "mail", "alice")
STATE = State("bundle-a", b"phi", ("ham", None, "spam"), 0.5)
PHI = NewState(STATE, b"sums")
OTHER = NewState(State("bundle-b", b"other", (), 3.0, task="greek", described=True), None)


@contextmanager
def connected(url: str) -> Iterator[Engine]:
    """A way past the store into its database, without its pragmas and its transactions."""
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    yield engine
    engine.dispose()


DATABASES = (f"test_{n}" for n in itertools.count())


@pytest.fixture(scope="session")
def postgres_url(postgres: Postgres) -> str:
    url = postgres.create("handful")
    Store(url).close()
    return url


@pytest.fixture(scope="session")
def sqlite_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("store") / "handful.db"
    Store(f"sqlite:///{path}").close()
    return path


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database without tables."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/folder/handful.db"
    server: Postgres = request.getfixturevalue("postgres")
    return server.create(next(DATABASES))


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database with the newest tables, and no rows."""
    if request.param == "sqlite":
        shutil.copy(request.getfixturevalue("sqlite_file"), tmp_path)
        return f"sqlite:///{tmp_path}/handful.db"
    url: str = request.getfixturevalue("postgres_url")
    with connected(url) as engine, engine.begin() as connection:
        connection.execute(text(f"TRUNCATE {', '.join(METADATA.tables)}"))
    return url


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    store = Store(url)
    yield store
    store.close()


@pytest.fixture
def engine(url: str) -> Iterator[Engine]:
    with connected(url) as engine:
        yield engine


def example(name: str, label: str = "spam", **changes: Any) -> NewExample:
    plain = NewExample(name, label, 1.0, None, f"input of {name}".encode(), f"features of {name}".encode())
    return replace(plain, **changes)


def change(key: Key = ALICE, *put: NewExample, **more: Any) -> Change:
    usual: dict[str, Any] = {"labels": ("ham", "spam"), "put": put, "digest": "bundle-a", "state": PHI}
    return Change(key, **usual | more)


def found(store: Store, key: Key = ALICE) -> Adaptation:
    adaptation = store.get(key)
    assert adaptation is not None
    return adaptation


def rows(engine: Engine) -> dict[str, int]:
    with engine.connect() as connection:
        return {
            name: connection.scalar(select(func.count()).select_from(table)) or 0
            for name, table in METADATA.tables.items()
        }


# --- what is written is read ---


def test_what_is_committed_is_read_back(store: Store) -> None:
    before = datetime.now(UTC)
    put = (example("e2", "ham", weight=0.5, source="app"), example("e1", input=None))
    revision = store.commit(change(ALICE, *put, labels=("ham", None, "spam")), expected=None)
    adaptation = found(store)
    assert adaptation.key == ALICE
    assert adaptation.revision == revision == store.heads([ALICE])[ALICE]
    assert adaptation.labels == ("ham", None, "spam")
    assert before <= adaptation.created_at == adaptation.updated_at <= datetime.now(UTC)
    assert adaptation.updated_at.utcoffset() == timedelta(0)
    first, second = adaptation.examples
    assert (first.example_id, first.label, first.weight, first.source) == ("e2", "ham", 0.5, "app")
    assert (first.input, second.input) == (b"input of e2", None)
    assert first.position < second.position
    assert store.load(ALICE, "bundle-a") == Loaded(revision, STATE)
    assert store.load(ALICE, "bundle-b") == Loaded(revision, None)
    assert store.statistics(ALICE, "bundle-a") == Statistics(revision, b"sums")
    assert store.features(ALICE, "bundle-a") == {"e1": b"features of e1", "e2": b"features of e2"}
    assert store.features(ALICE, "bundle-b") == {}


def test_what_is_committed_outlives_the_store(url: str) -> None:
    first = Store(url)
    first.commit(change(ALICE, example("e1")), expected=None)
    before = found(first)
    first.close()
    second = Store(url)
    assert found(second) == before
    second.close()


def test_what_does_not_exist_is_not_found(store: Store) -> None:
    assert store.get(ALICE) is None
    assert store.load(ALICE, "bundle-a") is None
    assert store.statistics(ALICE, "bundle-a") is None
    assert store.heads([ALICE]) == {}
    assert store.heads([]) == {}
    assert store.events(ALICE, ["e"]) == store.events(ALICE, []) == {}
    assert store.list("acme", "mail", after=None, limit=10) == []
    assert store.delete(ALICE, expected=None) is False
    assert store.delete(ALICE, expected=3) is False
    assert store.save_state(ALICE, 1, PHI, {}) is False
    store.ping()


def test_more_ids_than_a_statement_takes_are_found(store: Store) -> None:
    ids = [f"e{n}" for n in range(33_000)]
    store.commit(change(ALICE, *(example(name) for name in ids[::3000])), expected=None)
    assert list(store.heads([Key("acme", "mail", name) for name in [*ids, "alice"]])) == [ALICE]
    assert store.events(ALICE, ids) == {}


def test_ids_are_compared_and_listed_byte_by_byte(store: Store) -> None:
    names = ["B", "a", "A", "b", "a~", "a.b", "a-b", "é"]
    for name in names:
        store.commit(change(Key("acme", "mail", name), labels=(name,)), expected=None)
    listed: list[str] = []
    while page := store.list("acme", "mail", after=listed[-1] if listed else None, limit=3):
        assert len(page) <= 3
        listed += [summary.key.id for summary in page]
    assert listed == sorted(names, key=str.encode)
    assert found(store, Key("acme", "mail", "A")).labels == ("A",)
    assert store.get(Key("acme", "mail", "É")) is None


def test_a_summary_counts_the_examples(store: Store) -> None:
    store.commit(change(ALICE, example("e1"), example("e2")), expected=None)
    adaptation = found(store)
    (summary,) = store.list("acme", "mail", after=None, limit=2)
    assert (summary.key, summary.revision, summary.examples) == (ALICE, adaptation.revision, 2)
    assert (summary.labels, summary.updated_at) == (adaptation.labels, adaptation.updated_at)


# --- examples ---


def test_a_corrected_example_keeps_its_place_its_time_and_its_input(store: Store) -> None:
    one = store.commit(change(ALICE, example("e1"), example("e2")), expected=None)
    before = found(store)
    corrected = example("e1", "ham", weight=2.0, source="user", input=None, features=None)
    store.commit(change(ALICE, example("e3"), corrected), expected=one)
    first, second, third = found(store).examples
    assert first == replace(before.examples[0], label="ham", weight=2.0, source="user")
    assert (second, third.example_id) == (before.examples[1], "e3")
    assert store.features(ALICE, "bundle-a")["e1"] == b"features of e1"


@pytest.mark.parametrize(
    ("again", "kept"),
    [
        (example("e1", "ham"), True),
        (example("e1", input=None, features=None), True),
        (example("e1", features=None), True),
        (example("e1", input=None), True),
        (example("e1", features=b"of another run"), True),
        (example("e1", input=b"new"), False),
        (example("e1", input=b"new", features=None), False),
        (example("e1", input=None, features=b"new"), False),
    ],
)
def test_features_of_other_bundles_go_when_the_input_does(store: Store, again: NewExample, kept: bool) -> None:
    one = store.commit(change(ALICE, example("e1"), example("e2")), expected=None)
    others = {"e1": b"other 1", "e2": b"other 2"}
    assert store.save_state(ALICE, one, OTHER, others)
    store.commit(change(ALICE, again), expected=one)
    assert store.features(ALICE, "bundle-b") == (others if kept else {"e2": b"other 2"})
    mine = again.features or (b"features of e1" if kept else None)
    assert store.features(ALICE, "bundle-a").get("e1") == mine
    assert found(store).examples[0].input == (b"input of e1" if kept else again.input)


def test_replacing_forgets_the_earlier_examples(store: Store) -> None:
    one = store.commit(change(ALICE, example("e1"), example("e2")), expected=None)
    store.commit(change(ALICE, example("e2", input=None, features=None), replace=True), expected=one)
    (only,) = found(store).examples
    assert (only.example_id, only.input) == ("e2", None)
    assert store.features(ALICE, "bundle-a") == {}


IDS = st.sampled_from("abcd")
CHANGES = st.lists(
    st.tuples(
        st.booleans(),
        st.lists(IDS),
        st.lists(st.tuples(IDS, st.text("xy", max_size=2)), unique_by=lambda p: p[0]),
    ),
    max_size=5,
)
KEYS = (Key("acme", "model", f"id-{n}") for n in itertools.count())


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(changes=CHANGES)
def test_examples_are_those_of_a_dict_in_the_order_of_events(
    store: Store, changes: list[tuple[bool, list[str], list[tuple[str, str]]]]
) -> None:
    key, revision, model = next(KEYS), None, dict[str, str]()
    for drop_all, remove, put in changes:
        model = {} if drop_all else {k: v for k, v in model.items() if k not in remove}
        model |= dict(put)
        puts = tuple(example(name, label) for name, label in put)
        revision = store.commit(change(key, *puts, replace=drop_all, remove=tuple(remove)), expected=revision)
        assert [(e.example_id, e.label) for e in found(store, key).examples] == list(model.items())
        assert set(store.features(key, "bundle-a")) == set(model)


def test_a_change_that_contradicts_itself_is_refused() -> None:
    with pytest.raises(ValueError, match="example id"):
        change(ALICE, example("e1"), example("e1"))
    with pytest.raises(ValueError, match="event id"):
        change(ALICE, events=(Event("once", "f", {}), Event("once", "f", {})))
    with pytest.raises(ValueError, match="digest"):
        change(ALICE, example("e1"), digest=None)


# --- revisions ---


def test_revisions_grow_and_are_never_reused_not_even_after_deletion(store: Store) -> None:
    bob, seen = ALICE._replace(id="bob"), list[int]()
    for _ in range(3):
        seen.append(store.commit(change(ALICE), expected=None))
        seen.append(store.commit(change(ALICE), expected=seen[-1]))
        seen.append(store.commit(change(bob), expected=None))
        assert store.delete(ALICE, expected=None)
        assert store.delete(bob, expected=seen[-1])
    assert seen == sorted(set(seen))


def test_a_write_for_another_revision_changes_nothing(store: Store) -> None:
    one = store.commit(change(ALICE, example("e1"), events=(Event("once", "f", {}),)), expected=None)
    before = found(store)
    for expected in (None, one - 1, one + 1):
        with pytest.raises(RevisionMoved) as caught:
            store.commit(change(ALICE, example("e2"), replace=True, state=None), expected=expected)
        assert caught.value.found == one
    with pytest.raises(RevisionMoved) as caught:
        store.delete(ALICE, expected=one + 1)
    assert caught.value.found == one
    with pytest.raises(RevisionMoved) as caught:
        store.commit(change(ALICE._replace(id="bob")), expected=one)
    assert caught.value.found is None
    assert found(store) == before
    assert store.load(ALICE, "bundle-a") == Loaded(one, STATE)


def test_a_change_leaves_no_state_of_the_revision_before(store: Store) -> None:
    one = store.commit(change(), expected=None)
    assert store.save_state(ALICE, one, OTHER, {})
    assert store.load(ALICE, "bundle-b") == Loaded(one, OTHER.state)
    assert store.statistics(ALICE, "bundle-b") is None
    two = store.commit(change(), expected=one)
    assert store.load(ALICE, "bundle-b") == Loaded(two, None)
    assert store.load(ALICE, "bundle-a") == Loaded(two, STATE)
    assert store.statistics(ALICE, "bundle-a") == Statistics(two, b"sums")
    three = store.commit(change(state=None), expected=two)
    assert store.load(ALICE, "bundle-a") == Loaded(three, None)
    assert store.statistics(ALICE, "bundle-a") is None


def test_statistics_without_their_state_are_none_and_in_nobodys_way(store: Store, engine: Engine) -> None:
    one = store.commit(change(), expected=None)
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM states"))
    assert store.load(ALICE, "bundle-a") == Loaded(one, None)
    assert store.statistics(ALICE, "bundle-a") is None
    assert store.save_state(ALICE, one, replace(PHI, statistics=b"others"), {})
    assert store.statistics(ALICE, "bundle-a") == Statistics(one, b"others")


def test_a_state_takes_the_place_of_another_with_its_statistics(store: Store) -> None:
    one = store.commit(change(), expected=None)
    assert store.save_state(ALICE, one, replace(PHI, statistics=b"others"), {})
    assert store.statistics(ALICE, "bundle-a") == Statistics(one, b"others")
    assert store.save_state(ALICE, one, replace(PHI, statistics=None), {})
    assert store.statistics(ALICE, "bundle-a") is None
    assert store.load(ALICE, "bundle-a") == Loaded(one, STATE)


def test_a_state_is_rebuilt_only_for_the_current_revision(store: Store) -> None:
    one = store.commit(change(ALICE, example("e1"), state=None), expected=None)
    assert store.save_state(ALICE, one, PHI, {"e1": b"again"})
    assert store.features(ALICE, "bundle-a") == {"e1": b"again"}
    two = store.commit(change(state=None), expected=one)
    assert not store.save_state(ALICE, one, PHI, {"e1": b"late"})
    assert store.load(ALICE, "bundle-a") == Loaded(two, None)
    assert store.features(ALICE, "bundle-a") == {"e1": b"again"}
    assert store.heads([ALICE]) == {ALICE: two}


def test_of_many_who_create_or_change_at_once_exactly_one_succeeds(store: Store) -> None:
    for expected in (None, "current"):
        revision = None if expected is None else store.heads([ALICE])[ALICE]
        barrier, outcomes = threading.Barrier(4), list[str]()

        def write(revision: int | None, barrier: threading.Barrier, outcomes: list[str]) -> None:
            barrier.wait()
            try:
                store.commit(change(ALICE, example("e1")), expected=revision)
                outcomes.append("written")
            except RevisionMoved:
                outcomes.append("moved")

        threads = [threading.Thread(target=write, args=(revision, barrier, outcomes)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(outcomes) == ["moved"] * 3 + ["written"]


def test_a_reader_sees_the_old_or_the_new_and_never_a_mix(store: Store, url: str) -> None:
    ids = [f"e{n}" for n in range(20)]
    stop = threading.Event()

    def flip() -> None:
        writer, revision = Store(url), store.heads([ALICE])[ALICE]
        for n in itertools.count():
            if stop.is_set():
                break
            label = ("ham", "spam")[n % 2]
            put = tuple(example(f"{label}-{name}", label) for name in ids)
            revision = writer.commit(change(ALICE, *put, labels=(label,), replace=True), expected=revision)
        writer.close()

    store.commit(change(ALICE, *(example(name, "spam") for name in ids), labels=("spam",)), expected=None)
    thread = threading.Thread(target=flip)
    thread.start()
    seen, give_up = list[int](), time.monotonic() + 2
    try:
        while time.monotonic() < give_up and len(set(seen)) < 10:
            adaptation = found(store)
            assert {e.label for e in adaptation.examples} == set(adaptation.labels)
            assert len(adaptation.examples) == len(ids)
            seen.append(adaptation.revision)
    finally:
        stop.set()
        thread.join()
    assert seen == sorted(seen)
    assert len(set(seen)) > 2


# --- tenants, deletion, events ---


def test_tenants_and_models_with_the_same_ids_do_not_meet(store: Store, engine: Engine) -> None:
    others = [ALICE._replace(tenant="other"), ALICE._replace(model="other"), ALICE._replace(id="Alice")]
    event = Event("once", "f", {"status": 201})
    one = store.commit(change(ALICE, example("e1"), events=(event,)), expected=None)
    for other in others:
        assert store.get(other) is None
        assert store.statistics(other, "bundle-a") is None
        assert store.load(other, "bundle-a") is None
        assert store.features(other, "bundle-a") == {}
        assert store.events(other, ["once"]) == {}
        assert not store.delete(other, expected=None)
        assert not store.save_state(other, one, PHI, {})
    assert store.list("other", "mail", after=None, limit=5) == store.list("acme", "other", after=None, limit=5) == []
    for other in others:
        store.commit(change(other, example("e1", "ham"), replace=True, events=(event,)), expected=None)
        store.delete(other, expected=None)
    assert store.heads([ALICE, *others]) == {ALICE: one}
    assert found(store).examples[0].label == "spam"
    assert rows(engine)["examples"] == rows(engine)["events"] == 1


def test_revisions_say_nothing_about_other_tenants(store: Store) -> None:
    mine = store.commit(change(), expected=None)
    store.commit(change(ALICE._replace(tenant="other")), expected=None)
    assert store.commit(change(), expected=mine) == mine + 1


def test_deletion_leaves_no_row_behind(store: Store, engine: Engine) -> None:
    events = (Event("once", "f", {}),)
    revision = store.commit(change(ALICE, example("e1"), example("e2"), events=events), expected=None)
    assert all(rows(engine).values())
    assert store.delete(ALICE, expected=revision)
    assert {name for name, count in rows(engine).items() if count} == {"revision_counters"}
    assert store.heads([ALICE]) == {}


def test_an_event_is_stored_once_with_the_revision_it_made(store: Store) -> None:
    event = Event("once", "print", {"status": 201, "examples": ["e1"]})
    one = store.commit(change(ALICE, example("e1"), events=(event,)), expected=None)
    stored = {"once": replace(event, result={**event.result, "revision": one})}
    assert store.events(ALICE, ["once", "never"]) == stored
    with pytest.raises(RevisionMoved):
        store.commit(change(ALICE, example("e2"), events=(replace(event, result={}),)), expected=one)
    assert store.events(ALICE, ["once"]) == stored
    assert len(found(store).examples) == 1


# --- damage ---


def test_a_damaged_state_is_no_state(store: Store, engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    one = store.commit(change(), expected=None)
    with engine.begin() as connection:
        connection.execute(text("UPDATE states SET phi = :blob"), {"blob": b"damaged"})
    assert store.load(ALICE, "bundle-a") == Loaded(one, None)
    assert "damaged" in caplog.text
    assert store.save_state(ALICE, one, PHI, {})
    assert store.load(ALICE, "bundle-a") == Loaded(one, STATE)


def test_damaged_statistics_are_none_and_leave_the_state(
    store: Store, engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    one = store.commit(change(), expected=None)
    with engine.begin() as connection:
        connection.execute(text("UPDATE statistics SET value = :blob"), {"blob": b"damaged"})
    assert store.statistics(ALICE, "bundle-a") is None
    assert "damaged" in caplog.text
    assert store.load(ALICE, "bundle-a") == Loaded(one, STATE)


def test_damaged_features_are_left_out(store: Store, engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    store.commit(change(ALICE, example("e1"), example("e2")), expected=None)
    with engine.begin() as connection:
        connection.execute(text("UPDATE features SET value = :blob WHERE example_id = 'e1'"), {"blob": b"damaged"})
    assert store.features(ALICE, "bundle-a") == {"e2": b"features of e2"}
    assert "1 features" in caplog.text


def test_an_error_of_the_database_does_not_show_what_was_written(store: Store) -> None:
    one = store.commit(change(), expected=None)
    with pytest.raises(IntegrityError) as caught:
        store.save_state(ALICE, one, PHI, {"unknown": b"a secret of alice"})
    assert "a secret" not in str(caught.value)
    assert store.features(ALICE, "bundle-a") == {}


KILLED = """
import os, signal, sys
from sqlalchemy import Engine, event
from handful_service.store.store import Store
from handful_service.store.values import Change, Key, NewExample
store = Store(sys.argv[1])
event.listen(Engine, "commit", lambda connection: os.kill(os.getpid(), signal.SIGKILL))
put = (NewExample("e2", "ham", 1.0, None, b"x", None),)
store.commit(Change(Key("acme", "mail", "alice"), ("other",), True, put), expected=int(sys.argv[2]))
"""


def test_a_process_killed_before_its_commit_leaves_the_old_revision(store: Store, url: str) -> None:
    one = store.commit(change(ALICE, example("e1")), expected=None)
    before = found(store)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    killed = subprocess.run([sys.executable, "-c", KILLED, url, str(one)], env=environment, check=False, timeout=60)
    assert killed.returncode == -9
    assert found(store) == before
    assert store.load(ALICE, "bundle-a") == Loaded(one, STATE)
    assert store.commit(change(ALICE, example("e2")), expected=one) > one


# --- migrations ---


def test_the_head_that_the_server_knows_is_the_newest_migration() -> None:
    assert ScriptDirectory.from_config(alembic_config()).get_heads() == [HEAD_REVISION]


def test_the_tables_are_those_that_the_migrations_make(empty_url: str) -> None:
    Store(empty_url).close()
    database = Database(empty_url)
    with database.writer.connect() as connection:
        options = {"compare_type": True, "compare_server_default": True}
        assert compare_metadata(MigrationContext.configure(connection, opts=options), METADATA) == []
    database.close()


def test_servers_that_start_together_migrate_once(empty_url: str) -> None:
    failures: list[BaseException] = []

    def start(barrier: threading.Barrier) -> None:
        barrier.wait()
        try:
            Store(empty_url).close()
        except BaseException as error:
            failures.append(error)

    barrier = threading.Barrier(4)
    threads = [threading.Thread(target=start, args=(barrier,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


MIGRATES = """
import logging, sys
from handful_service.store.store import Store
logging.basicConfig(level="INFO", format="%(name)s %(message)s", stream=sys.stdout)
print("here", flush=True)
sys.stdin.readline()
Store(sys.argv[1]).close()
"""


def test_of_processes_that_start_together_one_migrates(empty_url: str) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    starting = [
        subprocess.Popen(
            [sys.executable, "-c", MIGRATES, empty_url], env=environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )
        for _ in range(3)
    ]  # fmt: skip
    for process in starting:
        assert process.stdout is not None
        assert process.stdout.readline() == "here\n"
    for process in starting:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    told = [process.communicate(timeout=60)[0] for process in starting]
    assert [process.returncode for process in starting] == [0, 0, 0]
    migrations = len(list(ScriptDirectory.from_config(alembic_config()).walk_revisions()))
    assert sorted(text.count("Running upgrade") for text in told) == [0, 0, migrations]


def test_a_database_of_a_newer_server_is_refused_and_left_alone(empty_url: str) -> None:
    store = Store(empty_url)
    store.commit(change(), expected=None)
    store.close()
    with connected(empty_url) as engine:
        with engine.begin() as connection:
            connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
        with pytest.raises(NotReady, match=f"9999.*{HEAD_REVISION}"):
            Store(empty_url)
        assert rows(engine)["adaptations"] == 1


EARLIER = (
    "INSERT INTO adaptations (tenant, model, id, revision, labels, created_at, updated_at) "
    "VALUES ('acme', 'mail', 'alice', 3, '[\"a\"]', '2026-01-01 00:00:00', '2026-01-01 00:00:00')",
    "INSERT INTO examples (tenant, model, id, example_id, position, label, weight, created_at) "
    "VALUES ('acme', 'mail', 'alice', 'e1', 1, 'a', 2.5, '2026-01-01 00:00:00')",
    "INSERT INTO features (tenant, model, id, example_id, digest, checksum, value) "
    "VALUES ('acme', 'mail', 'alice', 'e1', 'bundle-a', :checksum, :blob)",
    "INSERT INTO states (tenant, model, id, digest, revision, phi, checksum) "
    "VALUES ('acme', 'mail', 'alice', 'bundle-a', 3, :blob, :checksum)",
)


def test_a_migration_keeps_what_an_earlier_server_stored(empty_url: str) -> None:
    database, blob = Database(empty_url), {"blob": b"of", "checksum": hashlib.sha256(b"2;of").hexdigest()}
    with database.writer.begin() as connection:
        command.upgrade(alembic_config(connection), "0001")
        for statement in EARLIER:
            connection.execute(text(statement), {name: blob[name] for name in blob if f":{name}" in statement})
    database.close()
    store = Store(empty_url)
    kept = found(store)
    assert (kept.revision, kept.labels, kept.descriptor) == (3, ("a",), None)
    assert [(example.example_id, example.weight) for example in kept.examples] == [("e1", 2.5)]
    assert store.features(ALICE, "bundle-a") == {"e1": b"of"}
    assert store.load(ALICE, "bundle-a") == Loaded(3, None), "states are computed again"
    store.close()


def test_a_descriptor_is_kept_until_a_change_has_another(empty_url: str) -> None:
    store = Store(empty_url)
    revision = None
    for descriptor in (
        {"id": "pages", "metadata": {"venue": "\u00e9", "year": 2017.5}},
        {"text": "x"},
        None,
        {"id": "a"},
    ):
        revision = store.commit(Change(ALICE, (), descriptor=descriptor), expected=revision)
        found = store.get(ALICE)
        assert found is not None
        assert found.descriptor == descriptor
    store.close()


def test_a_migration_that_fails_leaves_nothing(empty_url: str) -> None:
    database = Database(empty_url)
    with database.writer.begin() as connection:
        connection.execute(text("CREATE TABLE events (x INTEGER)"))  # in the way of the last table
    with pytest.raises(Exception, match="events"):
        upgrade(database.writer)
    with database.writer.connect() as connection:
        assert not connection.dialect.has_table(connection, "adaptations")
    database.close()


def test_a_start_on_a_migrated_database_does_not_import_alembic(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/handful.db"
    Store(url).close()
    program = (
        "import sys; from handful_service.store.store import Store; Store(sys.argv[1]).close();"
        "assert 'alembic' not in sys.modules"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", program, url], env=environment, check=True, timeout=60)


# --- a database that cannot be used ---


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "mysql://host/name", "handful.db"], indirect=False)
def test_a_url_that_the_store_cannot_use_is_refused(url: str) -> None:
    with pytest.raises(NotReady):
        Store(url)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NotReady, match="file/folder"):
        Store(f"sqlite:///{tmp_path}/file/folder/handful.db")


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "handful.db").write_bytes(b"something else entirely" * 100)
    with pytest.raises(NotReady):
        Store(f"sqlite:///{tmp_path}/handful.db")


def test_a_server_that_does_not_answer_is_not_ready(tmp_path: Path) -> None:
    pytest.importorskip("psycopg", exc_type=ImportError)
    with pytest.raises(NotReady):
        Store(f"postgresql://nobody@/name?host={tmp_path}")


@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
def test_a_lost_connection_is_not_ready_once(store: Store, url: str, postgres: Postgres) -> None:
    revision = store.commit(change(), expected=None)
    kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :database"
    postgres.execute(kill, database=str(make_url(url).database))
    with pytest.raises(NotReady):
        store.heads([ALICE])
    assert store.heads([ALICE]) == {ALICE: revision}


def test_a_locked_database_is_not_ready_and_reads_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("handful_service.store.database.MAX_LOCK_WAIT_MS", 50)
    store = Store(f"sqlite:///{tmp_path}/handful.db")
    revision = store.commit(change(), expected=None)
    other = sqlite3.connect(tmp_path / "handful.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(NotReady):
        store.commit(change(), expected=revision)
    assert store.heads([ALICE]) == {ALICE: revision}
    other.execute("ROLLBACK")
    other.close()
    assert store.commit(change(), expected=revision) == revision + 1
    store.close()


def test_a_full_disk_is_not_ready_and_keeps_the_old_revision(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path}/handful.db")
    revision = store.commit(change(ALICE, example("e1")), expected=None)
    before = found(store)
    with store._database.writer.connect() as connection:
        # The pool hands this same connection out again, with its limit: the file may not grow.
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        connection.exec_driver_sql(f"PRAGMA max_page_count={pages}")
    with pytest.raises(NotReady):
        store.commit(change(ALICE, example("e2", input=bytes(1_000_000))), expected=revision)
    assert found(store) == before
    store.close()


def test_deleted_inputs_are_gone_from_the_file(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path}/handful.db")
    store.commit(change(ALICE, example("e1", input=b"a secret of alice")), expected=None)
    store.delete(ALICE, expected=None)
    store.close()
    assert all(b"a secret of alice" not in path.read_bytes() for path in tmp_path.iterdir())


# --- for coroutines ---


def test_the_async_face_answers_as_the_store_does(store: Store, url: str) -> None:
    async def use() -> None:
        face = AsyncStore(Store(url))
        one = await face.commit(
            change(ALICE, example("e1"), state=None, events=(Event("once", "f", {}),)), expected=None
        )
        assert await face.save_state(ALICE, one, PHI, {})
        assert await face.heads([ALICE]) == store.heads([ALICE]) == {ALICE: one}
        assert await face.get(ALICE) == store.get(ALICE) is not None
        assert await face.statistics(ALICE, "bundle-a") == store.statistics(ALICE, "bundle-a") is not None
        assert await face.load(ALICE, "bundle-a") == store.load(ALICE, "bundle-a") is not None
        assert await face.features(ALICE, "bundle-a") == store.features(ALICE, "bundle-a") != {}
        assert await face.events(ALICE, ["once"]) == store.events(ALICE, ["once"]) != {}
        assert await face.list("acme", "mail", after=None, limit=1) == store.list("acme", "mail", after=None, limit=1)
        await face.ping()
        with pytest.raises(RevisionMoved):
            await face.delete(ALICE, expected=one + 1)
        assert await face.delete(ALICE, expected=one)
        await face.close()

    asyncio.run(use())


def test_writes_of_one_process_take_turns_and_refuse_when_too_many_wait(tmp_path: Path) -> None:
    async def use() -> None:
        face = AsyncStore(Store(f"sqlite:///{tmp_path}/handful.db"), max_waiting=8)
        keys = [Key("acme", "mail", f"id-{n}") for n in range(20)]
        calls = [face.commit(change(key), expected=None) for key in keys]
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        assert outcomes[:8] == [1, 2, 3, 4, 5, 6, 7, 8]
        assert {type(outcome) for outcome in outcomes[8:]} == {Overloaded}
        assert await face.commit(change(keys[-1]), expected=None) == 9
        await face.close()

    asyncio.run(use())


def test_what_was_deleted_is_in_no_file_of_the_database(tmp_path: Path) -> None:
    secret = b"a secret input that must not stay"
    store = Store(f"sqlite:///{tmp_path}/handful.db")
    try:
        example = NewExample("e1", "spam", 1.0, None, secret, b"features of it")
        store.commit(Change(ALICE, ("spam",), put=(example,), digest="d" * 64), expected=None)
        assert any(secret in path.read_bytes() for path in tmp_path.iterdir())
        store.delete(ALICE, expected=None)
        assert not any(secret in path.read_bytes() for path in tmp_path.iterdir())
    finally:
        store.close()
