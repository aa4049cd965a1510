"""Known tasks by their ids, held against numpy."""

from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from tests.serving import Api, in_process
from tests.tasks import alike, field, problem, scores
from tests.tiny import Tiny
from tests.tiny_number import TinyNumber
from tests.tiny_tasks import PRICES, QUERIES, SUPPORTS, TinyTasks, build

OPEN = TinyTasks()
ALONE = TinyTasks(Tiny(name="alone"), learns=False)
FIXED = TinyTasks(
    Tiny(name="mail", labels=("ham", "spam")),
    supports={"mine": [([1, 0, 0, 0], "ham"), ([0, 1, 0, 0], "spam")], "yours": [([0, 1, 0, 0], "ham")]},
)
NUMBERS = TinyTasks(TinyNumber(name="prices"), supports=PRICES)
MANY = TinyTasks(Tiny(name="many"), learns=False, supports={f"task-{n}": SUPPORTS["latin"] for n in range(8)})
CLASSES = [OPEN, ALONE, FIXED]


@pytest.fixture(scope="module")
def tiny(form: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    folder = tmp_path_factory.mktemp("tasks")
    for tasks in (*CLASSES, NUMBERS, MANY):
        build(folder / "bundles", tasks)
    with in_process(folder, folder / "bundles") as running:
        yield running


def numbers(answer: httpx.Response) -> list[list[float]]:
    assert answer.status_code == 200, answer.text
    return [[item["value"], *item["interval"]] for item in answer.json()["predictions"]]


@pytest.mark.parametrize("tasks", CLASSES, ids=lambda tasks: tasks.name)
def test_a_known_task_answers_as_numpy_does_and_is_named(tiny: Api, tasks: TinyTasks) -> None:
    for task in tasks.supports:
        for _ in range(2):  # described, and out of the cache
            answer = tiny.predict(tasks.name, inputs=QUERIES, task={"id": task})
            assert alike(scores(answer), tasks.answers(task))
            named = [(item["used"], item["task"]) for item in answer.json()["predictions"]]
            assert named == [("task", task)] * len(QUERIES)
            assert all("adaptation" not in item for item in answer.json()["predictions"])


def test_a_known_task_may_predict_numbers(tiny: Api) -> None:
    for task in PRICES:
        answer = tiny.predict("prices", inputs=QUERIES, task={"id": task})
        assert np.allclose(numbers(answer), NUMBERS.answers(task), rtol=1e-5, atol=1e-5)
        assert answer.json()["predictions"][0]["task"] == task


def test_rows_of_every_kind_of_task_answer_as_if_alone(tiny: Api, name: str) -> None:
    support = [{"input": row, "label": label} for row, label in SUPPORTS["latin"]]
    assert tiny.put(f"/v1/models/scripts/adaptations/{name}", json={"support": support}).status_code == 201
    kinds: list[dict[str, Any]] = [
        {"task": {"id": "greek"}}, {"adaptation": name}, {"task": {"id": "latin"}}, {"support": support}
    ]  # fmt: skip
    answer = tiny.predict("scripts", rows=[{"input": QUERIES[place % 2], **kinds[place % 4]} for place in range(40)])
    greek, latin = OPEN.answers("greek"), OPEN.answers("latin")
    assert alike(scores(answer), [(greek if place % 4 == 0 else latin)[place % 2] for place in range(40)])
    assert [item["used"] for item in answer.json()["predictions"][:4]] == ["task", "personal", "task", "support"]


def test_an_unknown_task_is_told_with_some_of_those_there_are(tiny: Api) -> None:
    refused = problem(tiny.predict("many", inputs=QUERIES, task={"id": "task-9"}), 404, "task-not-found")
    assert field(refused) == "task.id"
    assert "'task-7'" in refused["errors"][0]["allowed"]
    assert "and 3 more" in refused["errors"][0]["allowed"]
    near = problem(tiny.predict("scripts", inputs=QUERIES, task={"id": "Latn"}), 404, "task-not-found")
    assert near["errors"][0]["allowed"].startswith("one of ['latin'], and 1 more")
    rows = [{"input": QUERIES[0], "task": {"id": task}} for task in ("greek", "klingon")]
    good, bad = tiny.predict("scripts", rows=rows, partial=True).json()["predictions"]
    assert good["task"] == "greek"
    assert field(bad["problem"]) == "rows[1].task.id"


@pytest.mark.parametrize(
    ("body", "status", "slug", "place"),
    [
        ({"task": {"metadata": {"script": "greek"}}}, 422, "not-accepted", "task.metadata"),
        ({"task": {"text": "greek letters"}}, 422, "not-accepted", "task.text"),
        ({"task": {"id": "greek", "metadata": {"script": "greek"}}}, 422, "not-accepted", "task.metadata"),
        ({"task": {"id": "greek", "ids": ["latin"]}}, 422, "request-invalid", "task"),
        ({"task": {}}, 422, "request-invalid", "task"),
        ({"task": "greek"}, 422, "request-invalid", "task"),
        ({"task": {"id": "no id"}}, 422, "request-invalid", "task.id"),
        ({"task": {"id": 0}}, 422, "request-invalid", "task.id"),
        ({"task": {"id": "greek"}, "adaptation": "alice"}, 422, "request-invalid", "adaptation"),
        ({"task": {"id": "greek"}, "support": [{"input": 0, "label": "alpha"}]}, 422, "not-accepted", "support"),
        ({"task": {"ids": ["greek"]}, "support": []}, 422, "request-invalid", "support"),
        ({"task": {"id": "GREEK"}}, 404, "task-not-found", "task.id"),
    ],
)
def test_a_task_that_is_named_in_another_way_is_refused(
    tiny: Api, body: dict[str, Any], status: int, slug: str, place: str
) -> None:
    assert field(problem(tiny.predict("scripts", inputs=QUERIES, **body), status, slug)) == place
    row = {"input": QUERIES[0], **body}
    assert field(problem(tiny.predict("scripts", rows=[row]), status, slug)) == f"rows[0].{place}"


def test_a_task_beside_rows_is_refused(tiny: Api) -> None:
    answer = tiny.predict("scripts", rows=[{"input": QUERIES[0]}], task={"id": "greek"})
    assert field(problem(answer, 422, "request-invalid")) == "task"


def test_a_model_of_known_tasks_alone_takes_nothing_else(tiny: Api, name: str) -> None:
    support = [{"input": QUERIES[0], "label": "alpha"}]
    path = f"/v1/models/alone/adaptations/{name}"
    for answer, place in (
        (tiny.predict("alone", inputs=QUERIES), "support"),
        (tiny.predict("alone", inputs=QUERIES, support=support), "support"),
        (tiny.predict("alone", inputs=QUERIES, support=[]), "support"),
        (tiny.predict("alone", inputs=QUERIES, adaptation=name), "adaptation"),
        (tiny.put(path, json={"support": support}), "model"),
        (tiny.post(f"{path}/examples", json={"examples": support}), "model"),
    ):
        refused = problem(answer, 422, "not-accepted")
        assert field(refused) == place
    problem(tiny.get(path), 404, "adaptation-not-found")
    assert tiny.get("/v1/models/alone/adaptations").json()["adaptations"] == []


def test_a_model_without_known_tasks_refuses_them(api: Api) -> None:
    refused = problem(api.predict(inputs=["x"], task={"id": "greek"}), 422, "not-accepted")
    assert field(refused) == "task"
    assert refused["errors"][0]["allowed"] == "what the model accepts: ['support']"


def test_the_known_tasks_are_listed_as_the_bundle_has_them(tiny: Api) -> None:
    found = tiny.get("/v1/models/scripts/tasks").json()
    assert (found["model"], found["version"]) == ("scripts", 1)
    assert found["tasks"] == [
        {"id": task, "kind": "class", "labels": [label for _, label in support], "shots": 1, "description": task,
         "evaluation": {"accuracy": 0.9}}
        for task, support in SUPPORTS.items()
    ]  # fmt: skip
    newest = tiny.get("/v1/models/alone").json()["newest"]
    assert newest["accepts"] == ["task"]
    assert newest["limits"] == {"ways": 8}
