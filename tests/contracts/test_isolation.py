"""Law 1, batched = alone whatever the neighbours, and law 8, tenants never meet."""

import asyncio
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.serving import Api, in_process
from tests.tasks import Example, Glyphs, alike, scores

from handful_service.engine.slots import SlotTables
from handful_service.errors import AdaptationNotFound
from handful_service.predictor.changes import ExampleChange, Precondition
from handful_service.predictor.predicting import PredictOptions
from handful_service.predictor.refs import Ask, ByAdaptation
from handful_service.task import Arrays, Caller

TASKS = 64
PREDICT = "/v1/models/glyphs/predict"
ANYTHING = Precondition()


def contradictory(glyphs: Glyphs) -> list[list[Example]]:
    """Tasks of the same five drawings, whose labels each one permutes in its own way.

    The labels come in the same order, so they have the same slots, and what differs is the state: another task's
    state under a task's own labels gives another answer.
    """
    names, generator = glyphs.names[:5], np.random.default_rng(0)
    orders = {tuple(map(int, generator.permutation(5))) for _ in range(1000)}
    drawings = [example["input"] for example in glyphs.support(names)]
    return [
        [{"input": drawings[place], "label": name} for name, place in zip(names, order, strict=True)]
        for order in sorted(orders)[:TASKS]
    ]


def calls(api: Api, glyphs: Glyphs) -> list[tuple[str, str, Any]]:
    """A prediction for each task: every other one as a stored adaptation, the others inline."""
    queries, asked = glyphs.queries(glyphs.names[:5]), []
    for number, support in enumerate(contradictory(glyphs)):
        body: dict[str, Any] = {"inputs": queries, "support": support}
        if number % 2:
            path = f"/v1/models/glyphs/adaptations/user-{number}"
            assert api.put(path, json={"support": support}).status_code in (200, 201)
            body = {"inputs": queries, "adaptation": f"user-{number}"}
        asked.append(("POST", PREDICT, body))
    return asked


def answered_as_if_alone(api: Api, glyphs: Glyphs) -> list[bool]:
    """For each task, whether its answer among all the others is the one that it gets alone."""
    asked = calls(api, glyphs)
    alone = [scores(api.request(method, path, json=body)) for method, path, body in asked]
    assert not any(alike(one, other) for one, other in pairwise(alone)), "the tasks contradict"
    order = [int(place) for place in np.random.default_rng(1).permutation(len(asked))]
    together = dict(zip(order, api.together([asked[place] for place in order]), strict=True))
    return [alike(scores(together[place]), alone[place]) for place in range(len(asked))]


class Slow(SlotTables):
    """Takes its time, as a graph for large inputs does, so that calls surely queue up and share batches."""

    mixed = 0

    def gather(self, slots: Sequence[int]) -> Arrays:
        time.sleep(0.02)
        type(self).mixed += len(set(slots)) > 1
        return super().gather(slots)


class Rolled(Slow):
    """Wrong: gives each row of a batch the state of the row before it."""

    def gather(self, slots: Sequence[int]) -> Arrays:
        return super().gather([*slots[-1:], *slots[:-1]])


@contextmanager
def served_with(
    tables: type[Slow], folder: Path, monkeypatch: pytest.MonkeyPatch, *, batches: int = 3
) -> Iterator[Api]:
    """The app with other slot tables, learning all support sets anew; at the end, tasks must have shared batches."""
    monkeypatch.setattr("handful_service.assembly.SlotTables", tables)
    monkeypatch.setattr(tables, "mixed", 0)
    with in_process(folder, support_cache_bytes=0, max_queued_ms=10_000) as api:  # slow, which is not too much
        yield api
    assert tables.mixed >= batches


def test_contradictory_tasks_answered_at_once_answer_as_if_alone(
    glyphs: Glyphs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with served_with(Slow, tmp_path, monkeypatch) as api:
        assert answered_as_if_alone(api, glyphs) == [True] * TASKS


def test_a_gather_that_takes_the_neighbours_state_is_caught(
    glyphs: Glyphs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with served_with(Rolled, tmp_path, monkeypatch) as api:
        assert answered_as_if_alone(api, glyphs).count(False) >= 3


def test_contradictory_tasks_as_rows_of_one_call_answer_as_if_alone(
    glyphs: Glyphs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with served_with(Slow, tmp_path, monkeypatch, batches=1) as api:
        bodies = [body for _, _, body in calls(api, glyphs)]
        rows = [{"input": body["inputs"][0], **_task(body)} for body in bodies]
        alone = [scores(api.predict(**{**body, "inputs": body["inputs"][:1]}))[0] for body in bodies]
        assert alike(scores(api.predict(rows=rows)), alone)


def test_changes_of_others_while_predicting_never_show(api: Api, glyphs: Glyphs, name: str) -> None:
    one, other = contradictory(glyphs)[:2]
    queries, path = glyphs.queries(glyphs.names[:5]), "/v1/models/glyphs/adaptations"
    for place, support in enumerate((one, other)):
        assert api.put(f"{path}/{name}-{place}", json={"support": support}).status_code == 201
    before = scores(api.predict(inputs=queries, adaptation=f"{name}-0"))
    asked: list[tuple[str, str, Any]] = []
    for _ in range(10):
        asked.append(("PUT", f"{path}/{name}-1", {"support": other}))
        asked.append(("POST", PREDICT, {"inputs": queries, "adaptation": f"{name}-0"}))
        asked.append(("POST", f"{path}/{name}-1/examples", {"examples": one}))
    answers = api.together(asked)
    assert all(alike(scores(answer), before) for answer in answers[1::3])


def test_two_tenants_with_the_same_ids_never_see_each_other(api: Api, glyphs: Glyphs, name: str) -> None:
    ann, bob = Caller(tenant=f"ann-{name}"), Caller(tenant=f"bob-{name}")
    service, names = api.service, glyphs.names

    def changes(chosen: Sequence[str], event_id: str | None = None) -> list[ExampleChange]:
        return [
            ExampleChange(item["input"], item["label"], 1.0, "x", example_id=f"e{place}", event_id=event_id)
            for place, item in enumerate(glyphs.support(chosen))
        ]

    def read(caller: Caller) -> set[str]:
        ask = Ask((glyphs.queries(names[:1])[0],), ("x",), ByAdaptation(name))
        served = service.models.version("glyphs", None)
        (predictions,) = api.run(service.predictor.answers(caller, served, [ask], PredictOptions()))
        return set(predictions[0].answer.scores)

    def ids(caller: Caller) -> list[str]:
        return [found.key.id for found in api.run(service.adaptations.list(caller, "glyphs", after=None, limit=9))]

    api.run(service.adaptations.put(ann, "glyphs", None, name, changes(names[:2]), ANYTHING))
    with pytest.raises(AdaptationNotFound):
        read(bob)
    with pytest.raises(AdaptationNotFound):
        api.run(service.adaptations.get(bob, "glyphs", name))
    with pytest.raises(AdaptationNotFound):
        api.run(service.adaptations.add(bob, "glyphs", None, name, changes(names[2:3]), ANYTHING))
    with pytest.raises(AdaptationNotFound):
        api.run(service.adaptations.delete(bob, "glyphs", name, ANYTHING))
    assert (ids(ann), ids(bob)) == ([name], [])

    written = api.run(service.adaptations.put(bob, "glyphs", None, name, changes(names[5:8]), ANYTHING))
    assert (written.created, written.revision) == (True, 1), "revisions tell nothing of what others do"
    for caller, chosen in ((ann, names[2:3]), (bob, names[9:10])):
        change = changes(chosen, "click")
        added = api.run(service.adaptations.add(caller, "glyphs", None, name, change, ANYTHING))
        assert not added.results[0].repeated, "events are a tenant's own"
    assert read(bob) == {*names[6:8], names[9]}
    assert read(ann) == {names[1], names[2]}
    assert api.get(f"/v1/models/glyphs/adaptations/{name}").status_code == 404

    api.run(service.adaptations.delete(bob, "glyphs", name, ANYTHING))
    assert (ids(ann), ids(bob)) == ([name], [])
    assert read(ann) == {names[1], names[2]}


def test_tenants_predicting_at_once_get_their_own(api: Api, glyphs: Glyphs, name: str) -> None:
    tasks = contradictory(glyphs)[:8]
    callers = [Caller(tenant=f"{name}-{number}") for number in range(len(tasks))]
    queries = tuple(glyphs.queries(glyphs.names[:5]))
    ask = Ask(queries, ("x",) * len(queries), ByAdaptation("same"))

    async def together() -> list[Any]:
        for caller, support in zip(callers, tasks, strict=True):
            changes = [ExampleChange(item["input"], item["label"], 1.0, "x") for item in support]
            await api.service.adaptations.put(caller, "glyphs", None, "same", changes, ANYTHING)
        answers, served = api.service.predictor.answers, api.service.models.version("glyphs", None)
        asked = (answers(caller, served, [ask], PredictOptions()) for caller in callers)
        return [[item.answer.scores for item in outcomes[0]] for outcomes in await asyncio.gather(*asked)]

    inline = [scores(api.predict(inputs=queries, support=support)) for support in tasks]
    assert all(alike(mine, expected) for mine, expected in zip(api.run(together()), inline, strict=True))


def _task(body: dict[str, Any]) -> dict[str, Any]:
    return {key: body[key] for key in ("support", "adaptation") if key in body}
