"""States of descriptors in the cache, rows of the same task, and texts off the event loop."""

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests import tiny_readers, tiny_words

from handful_service.bundle.bundle import Bundle
from handful_service.cache import StateCache
from handful_service.codecs import decode
from handful_service.codecs.decode import tokenizer_of
from handful_service.engine.engine import Engine, EngineLimits
from handful_service.engine.runtime import runtime_settings
from handful_service.engine.scheduler import Scheduler
from handful_service.engine.slots import SlotTables
from handful_service.predictor.decoding import Decoders
from handful_service.predictor.describing import MAX_KEY_BYTES, Described
from handful_service.predictor.models import Served
from handful_service.predictor.pinning import NoStates
from handful_service.predictor.predicting import PredictOptions, Predictor
from handful_service.predictor.refs import Ask, ByTask, Named
from handful_service.task import Caller, Labels


@dataclass
class On:
    """A predictor, and the graph and rows of every batch so far."""

    predictor: Predictor
    served: dict[str, Served]
    batches: list[tuple[str, int]] = field(default_factory=list)

    def predict(self, model: str, *asks: tuple[Any, Named]) -> None:
        """Answer inputs of one task each, and note the batches of these alone."""
        self.batches.clear()
        found = [Ask((value,), (f"rows[{i}]",), ByTask((named,))) for i, (value, named) in enumerate(asks)]
        call = self.predictor.answers(Caller(), self.served[model], found, PredictOptions())
        assert all(not isinstance(outcome, Exception) for outcome in asyncio.run(call))

    def rows(self, graph: str) -> list[int]:
        return [rows for name, rows in self.batches if name == graph]


@pytest.fixture(scope="module")
def on(tmp_path_factory: pytest.TempPathFactory) -> Iterator[On]:
    root = tmp_path_factory.mktemp("bundles")
    with ThreadPoolExecutor(1) as runs, ThreadPoolExecutor(1, "decode") as decoder:
        batches: list[tuple[str, int]] = []
        served = {}
        for folder in (tiny_readers.build(root), tiny_words.build(root)):
            bundle = Bundle.open(folder)
            tables = SlotTables(bundle.manifest.state, 8)
            engine = Engine(
                bundle, runtime_settings("cpu", 1), tables=tables, scheduler=Scheduler(runs), limits=EngineLimits(),
                on_batch=lambda graph, rows: batches.append((graph, rows)),
            )  # fmt: skip
            tokenizer = tokenizer_of(bundle.manifest, bundle.files)
            served[bundle.name] = Served(bundle, engine, StateCache(tables), tokenizer)
        yield On(Predictor(NoStates(), Decoders(decoder)), served, batches)


def named(year: float) -> Named:
    return Named("pages", {"venue": "u", "year": year})


def test_a_descriptor_is_described_once_while_its_state_is_kept(on: On) -> None:
    on.predict("papers", ({"age": 1}, named(41)))
    assert on.rows("describe.metadata") == [1]
    on.predict("papers", ({"age": 2}, named(41)))
    assert on.rows("describe.metadata") == []
    on.predict("papers", ({"age": 2}, named(42)), ({"age": 2}, named(41)))
    assert sum(on.rows("describe.metadata")) == 1
    for year in range(8):
        on.predict("papers", ({"age": 1}, named(year)))
    assert len(on.served["papers"].cache) <= 8
    on.predict("papers", ({"age": 2}, named(41)))
    assert on.rows("describe.metadata") == [1], "the least recently used one gave way"


def test_rows_of_one_task_are_one_batch(on: On) -> None:
    on.predict("words", *((text, Named("north")) for text in tiny_words.INPUTS * 5))
    assert on.rows("encode") == [15]
    assert on.rows("predict") in ([15], [1, 14])


def test_a_key_holds_every_byte_of_the_descriptor_and_none_is_too_long_to_be_kept() -> None:
    def key(digest: str = "d", **arrays: Any) -> Any:
        return Described(arrays, None, Labels(()), 0.0, (), "task").key(digest)

    ids = np.arange(4)
    assert key(text=ids) == key(text=ids.copy())
    assert len({key(text=ids), key(text=ids + 1), key(metadata=ids), key("e", text=ids), key(index=ids, text=ids)}) == 5
    assert key(text=np.zeros(MAX_KEY_BYTES // 8, np.int64)) is not None
    assert key(text=np.zeros(MAX_KEY_BYTES // 8 + 1, np.int64)) is None


def test_a_long_descriptor_is_borrowed_and_not_kept(on: On, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = len(on.served["words"].cache)
    monkeypatch.setattr("handful_service.predictor.describing.MAX_KEY_BYTES", 8)
    for _ in range(2):
        on.predict("words", ("how many", Named(text="which keys")))
        assert on.rows("describe.text") == [1]
    assert len(on.served["words"].cache) == kept


@pytest.mark.parametrize("quick", [True, False])
def test_texts_are_cut_by_the_decoder_threads_unless_they_are_short_inputs(
    on: On, monkeypatch: pytest.MonkeyPatch, quick: bool
) -> None:
    threads = {}
    if not quick:
        monkeypatch.setattr(decode, "QUICK", 0)
    tokenizer = on.served["words"].tokenizer
    assert tokenizer is not None
    whole = type(tokenizer).ids

    def noted(self: Any, text: str) -> list[int]:
        threads[text] = threading.current_thread() is threading.main_thread()
        return whole(self, text)

    monkeypatch.setattr(type(tokenizer), "ids", noted)
    on.predict("words", ("how many", Named(text="which south")))
    assert threads == {"how many": quick, "which south": False}


def test_a_tokenizer_is_there_exactly_where_texts_are_read(on: On) -> None:
    assert on.served["papers"].tokenizer is None
    assert on.served["words"].tokenizer is not None


def test_a_bundle_is_served_from_its_folder(tmp_path: Path) -> None:
    folder = tiny_words.build(tmp_path)
    bundle = Bundle.open(folder)
    (folder / "assets" / "tokenizer.json").unlink()
    assert tokenizer_of(bundle.manifest, bundle.files) is not None, "what was checked is what is used"
