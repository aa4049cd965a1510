"""Laws 1, 3 and 8 under load: contradictory users who change, cancel, delete and come again never see one another.

`SOAK_READS=1000000 python -m pytest tests/contracts/test_soak.py` runs longer.
"""

import asyncio
import os
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

import pytest
from tests import wire
from tests.serving import process
from tests.soak import Report, make_keys, soak, soak_over
from tests.tiny import Tiny, build

from handful_service import assembly, auth, cache
from handful_service.cache import MIN_SLOTS, Held, StateCache
from handful_service.engine.slots import SlotTables
from handful_service.store.lanes import AsyncStore
from handful_service.task import Arrays, Caller, TaskState

READS = int(os.environ.get("SOAK_READS", "100000")) // 4
"""Of each of the four soaks."""

TINY = Tiny(open_ways=4)
pytestmark = pytest.mark.timeout(240 + READS // 20)


class Counting(SlotTables):
    """Counts the batches that mix users, and the states that were written and moved."""

    mixed = 0
    written = 0
    moved = 0

    def gather(self, slots: Sequence[int]) -> Arrays:
        type(self).mixed += len(set(slots)) > 1
        return super().gather(slots)

    def write(self, slot: int, state: Arrays) -> None:
        type(self).written += 1
        super().write(slot, state)

    def move(self, slot: int, to: int) -> None:
        type(self).moved += 1
        super().move(slot, to)


class Rolled(Counting):
    """Wrong: gives each row of a batch the state of the row before it."""

    def gather(self, slots: Sequence[int]) -> Arrays:
        return super().gather([*slots[-1:], *slots[:-1]])


class Timeless(StateCache):
    """Wrong: takes a state out of the cache whatever its revision."""

    def find(self, key: Hashable, revision: int = 0) -> Held | None:
        return super().newest(key)

    def hold(self, key: Hashable, state: TaskState, revision: int = 0) -> Held:
        return super().newest(key) or super().hold(key, state, revision)


class Loose(StateCache):
    """Wrong: gives a slot to another state while a call still uses it."""

    def _hold(self, key: Hashable, state: TaskState, revision: int) -> Held:
        held = super()._hold(key, state, revision)
        self._free.append(held.slot)
        return held


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("soak")
    build(root, TINY)
    return root


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three versions that are all alike, and share the slots."""
    root = tmp_path_factory.mktemp("versions")
    for version in (1, 2, 3):
        build(root, Tiny(open_ways=4, version=version))
    return root


@pytest.fixture
def few_slots(monkeypatch: pytest.MonkeyPatch) -> None:
    """As few slots as there can be, so that states are put out all the time."""
    monkeypatch.setattr(assembly, "ENTRY_BYTES", 2**20)


def run(folder: Path, bundles: Path, *, reads: int, users: int = 64, **settings: Any) -> Report:
    how = {"users": users, "reads": reads, "seed": 1, "versions": [int(found.name) for found in bundles.glob("*/*")]}
    return asyncio.run(soak(folder, bundles, TINY, how=how, **settings))


@pytest.mark.usefixtures("few_slots")
@pytest.mark.parametrize("inline_ms", [0.0, 5.0], ids=["in threads", "on the loop"])
def test_no_answer_is_ever_anothers_or_of_a_time_that_is_over(
    tmp_path: Path, bundles: Path, inline_ms: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = type("Here", (Counting,), {"mixed": 0, "written": 0})
    monkeypatch.setattr(assembly, "SlotTables", tables)
    report = run(tmp_path, bundles, reads=READS, inline_ms=inline_ms)
    assert report.wrong == []
    assert report.most >= 32
    counts = report.counts
    assert counts["POST 200"] > READS / 5
    assert min(counts[kind] for kind in ("PUT 200", "PUT 201", "DELETE 204", "cancelled", "POST 404")) >= 5, counts
    assert counts["POST 503"] + counts["PUT 503"] < READS / 25, counts
    assert tables.mixed > READS / 50
    assert tables.written > 2 * MIN_SLOTS, "slots were used again"


def test_nor_is_it_where_versions_take_slots_from_one_another(
    tmp_path: Path, versions: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "MIN_SLOTS", 16)
    monkeypatch.setattr(assembly, "ENTRY_BYTES", 2**20 // 96)
    tables = type("Here", (Counting,), {"mixed": 0, "written": 0, "moved": 0})
    monkeypatch.setattr(assembly, "SlotTables", tables)
    report = run(tmp_path, versions, reads=READS)
    assert report.wrong == []
    assert report.counts["POST 200"] > READS / 5
    assert tables.moved > READS / 125


def test_nor_is_it_where_two_workers_share_the_port_and_the_store(tmp_path: Path, versions: Path) -> None:
    keys = make_keys(tmp_path / "keys")
    given = {"workers": 2, "keys": tmp_path / "keys", "cache_bytes": 2**20}
    with process(tmp_path, versions, **given) as server:
        how = {"users": 64, "reads": READS, "seed": 1, "versions": (1, 2, 3)}
        report = wire.run(soak_over(server.url, keys, TINY, **how))
    assert report.wrong == []
    assert report.most >= 32
    counts = report.counts
    assert counts["POST 200"] > READS / 5
    assert min(counts[kind] for kind in ("PUT 200", "PUT 201", "DELETE 204", "cancelled", "POST 404")) >= 5, counts
    assert counts["POST 503"] + counts["PUT 503"] < READS / 25, counts


@pytest.mark.usefixtures("few_slots")
@pytest.mark.parametrize(
    ("where", "name", "mutant"),
    [
        (assembly, "SlotTables", Rolled),
        (assembly, "StateCache", Timeless),
        (AsyncStore, "as_of", lambda store: 1),
        (assembly, "StateCache", Loose),
        (auth, "Caller", lambda tenant, scopes: Caller("everyone", scopes)),
    ],
    ids=[
        "the state of the row before",
        "a key without the revision",
        "deaf to commits",
        "a slot in use is given away",
        "no tenant",
    ],
)
def test_the_soak_catches(
    tmp_path: Path, bundles: Path, where: Any, name: str, mutant: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(where, name, mutant)
    # Few users, so that each is changed and read again many times in a short run.
    # A busy machine is slow, which is not too much: what is refused shows no fault.
    report = run(tmp_path, bundles, reads=1200, users=16, inline_ms=0.0, max_queued_ms=10_000)
    assert len(report.wrong) >= 3, report.counts
