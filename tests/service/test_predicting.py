"""Predictions over a tiny bundle, without a store."""

import asyncio
from collections.abc import Iterator, Sequence
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
from handful_service.errors import (
    AdaptationNotFound,
    HandfulError,
    InputInvalid,
    LabelUnknown,
    ModelNotFound,
    NotAccepted,
    SupportSetInvalid,
)
from handful_service.metrics import Metrics
from handful_service.predictor.decoding import Decoders
from handful_service.predictor.models import Model, Models
from handful_service.predictor.pinning import NoStates
from handful_service.predictor.predicting import Outcome, PredictOptions, Predictor
from handful_service.predictor.refs import Ask, Base, ByAdaptation, BySupport
from handful_service.predictor.supports import Labelled
from handful_service.task import Caller

FIXED = Tiny(name="fixed", labels=("ham", "spam"))
OPEN = Tiny(name="open", members=2)
SUPPORT = [([1, 0, 0, 0], "x"), ([0, 1, 0, 0], "y"), ([0, 2, 0, 1], "y")]
QUERY = [0.5, 0.25, 1.0, 0.0]
HUGE = [3e38, -3e38, 3e38, 3e38]


@dataclass(frozen=True)
class On:
    predictor: Predictor
    models: Models


@pytest.fixture(scope="module")
def on(tmp_path_factory: pytest.TempPathFactory) -> Iterator[On]:
    root, runtime = tmp_path_factory.mktemp("bundles"), runtime_settings("cpu", 1)
    with ThreadPoolExecutor(2) as runs:
        models = {}
        for tiny in (FIXED, OPEN):
            bundle = Bundle.open(build(root, tiny))
            budget = Budget(2**20)
            served = serve(bundle, runtime, Scheduler(runs), metrics=Metrics(), limits=EngineLimits(), budget=budget)
            models[tiny.name] = Model(tiny.name, {1: served}, {"stable": 1})
        yield On(Predictor(NoStates(), Decoders(runs)), Models(models))


def by_support(examples: Sequence[tuple[Any, str]]) -> BySupport:
    return BySupport(tuple(Labelled(row, label, 1.0, f"support[{i}]") for i, (row, label) in enumerate(examples)))


def ask(task: Any, *inputs: Any) -> Ask:
    return Ask(inputs, tuple(f"inputs[{place}]" for place in range(len(inputs))), task)


def predict(on: On, model: str, *asks: Ask, version: Any = None, **options: Any) -> list[Outcome]:
    served = on.models.version(model, version)
    return asyncio.run(on.predictor.answers(Caller(), served, asks, PredictOptions(**options)))


def scores(outcome: Outcome) -> list[Any]:
    assert not isinstance(outcome, HandfulError), outcome
    return [prediction.answer.scores for prediction in outcome]


@pytest.mark.parametrize("version", [None, 1, "stable"])
def test_a_support_set_answers_as_numpy_does(on: On, version: Any) -> None:
    (outcome,) = predict(on, "open", ask(by_support(SUPPORT), QUERY, QUERY), version=version)
    assert scores(outcome) == [pytest.approx(want, abs=1e-5) for want in OPEN.scores(SUPPORT, np.array([QUERY] * 2))]
    assert [(found.used, found.adaptation, found.revision) for found in outcome] == [("support", None, None)] * 2


def test_the_base_is_the_empty_support_set(on: On) -> None:
    (named,) = predict(on, "fixed", ask(Base(), QUERY))
    (empty,) = predict(on, "fixed", ask(by_support([]), QUERY))
    assert scores(named) == scores(empty) == [{"ham": 0.5, "spam": 0.5}]
    assert [found.used for found in (*named, *empty)] == ["base", "base"]


@pytest.mark.parametrize(
    ("model", "one", "error", "field"),
    [
        ("open", ask(Base(), QUERY), NotAccepted, "task"),
        ("open", ask(by_support([]), QUERY), SupportSetInvalid, "support"),
        ("open", ask(by_support(SUPPORT), QUERY, [1, 2, 3]), InputInvalid, "inputs[1]"),
        ("open", ask(by_support([*SUPPORT, ("?", "x")]), QUERY), InputInvalid, "support[3].input"),
        ("open", ask(by_support([(QUERY, "")]), QUERY), SupportSetInvalid, "support[0].label"),
        ("fixed", ask(by_support(SUPPORT), QUERY), LabelUnknown, "support[0].label"),
        ("open", ask(ByAdaptation("alice"), QUERY), AdaptationNotFound, "adaptation"),
        ("nothing", ask(Base(), QUERY), ModelNotFound, "model"),
        # Numbers that are finite, but not what becomes of them:
        ("open", ask(by_support(SUPPORT), QUERY, HUGE), InputInvalid, "inputs[1]"),
        ("open", ask(by_support([*SUPPORT, (HUGE, "x")]), QUERY), InputInvalid, "support[3].input"),
        ("open", ask(by_support([([3e38, 0, 0, 0], "x")] * 2), QUERY), SupportSetInvalid, "support"),
        ("open", ask(by_support(SUPPORT), QUERY, [1e30] * 4), InputInvalid, "inputs[1]"),
    ],
)
def test_what_cannot_be_answered_names_the_place(
    on: On, model: str, one: Ask, error: type[HandfulError], field: str
) -> None:
    with pytest.raises(error) as refused:
        predict(on, model, one)
    assert refused.value.field == field


@pytest.mark.parametrize("version", [2, 0, "latest", 10**30])
def test_an_unknown_version_is_told_with_those_there_are(on: On, version: Any) -> None:
    with pytest.raises(ModelNotFound, match="has no version") as refused:
        predict(on, "open", ask(Base(), QUERY), version=version)
    assert refused.value.allowed == "one of [1, 'stable']"


def test_with_partial_each_ask_answers_or_fails_alone_and_without_it_a_failure_is_told(
    on: On,
) -> None:
    asks = [ask(by_support(SUPPORT), QUERY), ask(by_support(SUPPORT), "?"), ask(Base(), QUERY)]
    good, bad, base = predict(on, "open", *asks, partial=True)
    assert scores(good) == [pytest.approx(OPEN.scores(SUPPORT, np.array([QUERY]))[0], abs=1e-5)]
    assert (type(bad), type(base)) == (InputInvalid, NotAccepted)
    with pytest.raises(NotAccepted):  # what is wrong with tasks is seen before what is wrong with inputs
        predict(on, "open", *asks)
    with pytest.raises(InputInvalid):
        predict(on, "open", *asks[:2])


def test_a_missing_adaptation_may_answer_with_the_base(on: On) -> None:
    (outcome,) = predict(on, "fixed", ask(ByAdaptation("alice"), QUERY), on_missing="base")
    assert [(found.used, found.adaptation) for found in outcome] == [("base", "alice")]
    with pytest.raises(NotAccepted, match="on_missing"):
        predict(on, "open", ask(ByAdaptation("alice"), QUERY), on_missing="base")
