"""Support sets that come again are not learned again, and are nobody else's."""

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from tests.tiny import Tiny, build

from handful_service.assembly import serve
from handful_service.bundle.bundle import Bundle
from handful_service.cache import Budget
from handful_service.engine.engine import EngineLimits
from handful_service.engine.runtime import runtime_settings
from handful_service.engine.scheduler import Scheduler
from handful_service.errors import HandfulError, InputInvalid
from handful_service.metrics import Metrics
from handful_service.predictor import learning
from handful_service.predictor.decoding import Decoders
from handful_service.predictor.learning import RepeatedSupports
from handful_service.predictor.models import Served
from handful_service.predictor.pinning import NoStates
from handful_service.predictor.predicting import PredictOptions, Predictor
from handful_service.predictor.refs import Ask, BySupport
from handful_service.predictor.supports import Labelled
from handful_service.task import Caller

OPEN = Tiny(name="open")
QUERY = [0.5, 0.25, 1.0, 0.0]
ONE = [([1.0, 0.0, 0.0, 0.0], "x"), ([0.0, 1.0, 0.0, 0.0], "y")]
SWAPPED = [(ONE[0][0], "y"), (ONE[1][0], "x")]


@dataclass
class On:
    predictor: Predictor
    served: Served
    known: RepeatedSupports
    batches: list[tuple[str, int]]

    def ask(self, support: list[tuple[Any, str]], tenant: str = "default", weight: float = 1.0) -> dict[str, float]:
        """The scores of the query, and in `batches` what ran for them."""
        self.batches.clear()
        examples = tuple(Labelled(row, label, weight, f"support[{i}]") for i, (row, label) in enumerate(support))
        asks = [Ask((QUERY,), ("inputs[0]",), BySupport(examples))]
        (found,) = asyncio.run(self.predictor.answers(Caller(tenant), self.served, asks, PredictOptions()))
        assert not isinstance(found, HandfulError)
        scores = found[0].answer.scores  # type: ignore[union-attr]
        assert scores is not None
        return scores

    @property
    def learned(self) -> bool:
        return "adapt" in dict(self.batches)


class Noting(Metrics):
    """Notes the graph and rows of every batch."""

    def __init__(self, batches: list[tuple[str, int]]) -> None:
        super().__init__()
        self._batches = batches

    def batch_observer(self, model: str) -> Callable[[str, int], None]:
        return lambda graph, rows: self._batches.append((graph, rows))


@pytest.fixture
def on(tmp_path_factory: pytest.TempPathFactory) -> Iterator[On]:
    bundle = Bundle.open(build(tmp_path_factory.mktemp("bundles"), OPEN))
    with ThreadPoolExecutor(1) as runs:
        batches: list[tuple[str, int]] = []
        served = serve(
            bundle, runtime_settings("cpu", 1), Scheduler(runs), metrics=Noting(batches), limits=EngineLimits(),
            budget=Budget(2**20),
        )  # fmt: skip
        known = RepeatedSupports(2**16)
        yield On(Predictor(NoStates(), Decoders(runs), known), served, known, batches)


def want(support: list[tuple[Any, str]]) -> Any:
    return pytest.approx(OPEN.scores(support, np.array([QUERY]))[0], abs=1e-5)


def test_the_second_time_only_the_query_is_encoded_and_the_answer_is_the_same(on: On) -> None:
    first = on.ask(ONE)
    assert ("encode", 3) in on.batches
    assert on.learned
    assert (on.ask(ONE), on.batches) == (first, [("encode", 1), ("predict", 1)])
    assert first == want(ONE)


def test_whatever_differs_is_learned_anew(on: On) -> None:
    on.ask(ONE)
    for support, tenant in ((SWAPPED, "default"), (ONE[::-1], "default"), (ONE, "other"), (ONE[:1], "default")):
        assert on.ask(support, tenant) == want(support)
        assert on.learned, (support, tenant)


def test_a_support_set_that_is_refused_is_not_kept(on: On) -> None:
    for _ in range(2):
        with pytest.raises(InputInvalid):
            on.ask([*ONE, ([1.0], "x")])
    assert len(on.known) == 0


def test_the_least_recently_used_goes_when_there_is_no_room(on: On, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learning, "ENTRY_BYTES", 2**14)
    supports = [[([float(n), 1.0, 0.0, 0.0], "x"), ([0.0, 1.0, 0.0, float(n)], "y")] for n in range(4)]
    for number in (0, 1, 2, 0, 3):
        assert on.ask(supports[number]) == want(supports[number])
    assert len(on.known) == 3
    on.ask(supports[0])
    assert not on.learned
    on.ask(supports[1])
    assert on.learned


def test_one_that_is_larger_than_the_room_and_any_without_room_are_not_kept(on: On) -> None:
    key = ("default", "digest", True, b"x" * 2**17)
    state: Any = type("Learned", (), {"state": type("State", (), {"arrays": {}})()})()
    on.known.keep(key, state)
    assert on.known.find(key) is None
    nothing = RepeatedSupports(0)
    assert nothing.key(Caller(), None, [], None) is None  # type: ignore[arg-type]
    assert nothing.key_of(Caller(), None, b"x") is None  # type: ignore[arg-type]
