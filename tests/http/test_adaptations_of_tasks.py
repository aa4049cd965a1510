"""Stored adaptations that start from a described task: kept, shown, used, re-described by a new version, unlearned."""

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests import tiny_readers, tiny_words
from tests.serving import Api, in_process
from tests.tasks import alike, field, problem, scores
from tests.tiny import rewrite
from tests.tiny_readers import TinyReaders

from .described import NAMES, NUMBERS, PAPERS, RECORDS, STRICT, TEXTS, VENUE, WORDS, predictions, same, wanted

STARTS: list[dict[str, Any]] = [{"id": "north"}, {"metadata": {"task": "new", "tilt": 0.5}}, {"text": "is it good"}]


@pytest.fixture(scope="module")
def tiny(form: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    folder = tmp_path_factory.mktemp("stored")
    for readers in (PAPERS, STRICT):
        tiny_readers.build(folder / "bundles", readers)
    _second(tiny_readers.build(folder / "bundles", TinyReaders(version=2)))
    for version, base in ((1, True), (2, False)):
        tiny_readers.build(folder / "bundles", TinyReaders("moving", version, base=base))
    tiny_words.build(folder / "bundles", WORDS)
    (folder / "bundles" / "papers" / "labels.json").write_text('{"old": 1}')
    with in_process(folder, folder / "bundles") as running:
        yield running


def _second(folder: Path) -> None:
    """A version whose second task is gone by its name."""
    tasks = json.loads((folder / "tasks.json").read_bytes())
    requests = json.loads((folder / "golden_requests.json").read_bytes())
    tasks[4]["id"] = "grade"
    requests[4]["task"]["id"] = "grade"
    rewrite(folder, {"tasks.json": json.dumps(tasks).encode(), "golden_requests.json": json.dumps(requests).encode()})


def papers(name: str) -> str:
    return f"/v1/models/papers/adaptations/{name}"


def words(name: str) -> str:
    return f"/v1/models/words/adaptations/{name}"


@pytest.mark.parametrize("task", STARTS)
def test_what_is_stored_answers_as_the_same_task_and_support_inline(tiny: Api, name: str, task: dict[str, Any]) -> None:
    written = tiny.put(words(name), json={"support": NAMES, "task": task})
    assert written.status_code == 201, written.text
    inline = scores(tiny.predict("words", inputs=TEXTS, task=task, support=NAMES))
    stored = tiny.predict("words", inputs=TEXTS, adaptation=name)
    assert alike(scores(stored), inline)
    assert alike(scores(stored), WORDS.scores(task, support=tiny_words.SUPPORT))
    assert {(item["used"], item.get("task")) for item in predictions(stored)} == {("personal", task.get("id"))}
    assert tiny.get(words(name)).json()["task"] == task


def test_a_reader_of_numbers_is_that_of_the_kept_task(tiny: Api, name: str) -> None:
    task = {"id": "pages", "metadata": VENUE}
    assert tiny.put(papers(name), json={"support": NUMBERS, "task": task, "version": 1}).status_code == 201
    for version in (1, 2):  # version 2 has no state of it yet, and describes the task again
        found = predictions(tiny.predict("papers", inputs=RECORDS, adaptation=name, version=version))
        assert same(found, wanted("pages", VENUE, tiny_readers.SUPPORT))
        assert {item["task"] for item in found} == {"pages"}


def test_examples_that_come_and_go_leave_what_a_put_of_the_rest_gives(tiny: Api, name: str) -> None:
    task = {"metadata": {"task": "south", "tilt": -1}}
    assert tiny.put(words(name), json={"support": [], "task": task}).status_code == 201
    assert alike(scores(tiny.predict("words", inputs=TEXTS, adaptation=name)), WORDS.scores(task))
    for place, example in enumerate(NAMES):
        given = {"examples": [{**example, "example_id": f"e{place}"}]}
        assert tiny.post(f"{words(name)}/examples", json=given).status_code == 200
        learned = WORDS.scores(task, support=tiny_words.SUPPORT[: place + 1])
        assert alike(scores(tiny.predict("words", inputs=TEXTS, adaptation=name)), learned)
    for place in (0, 2, 1):
        assert tiny.delete(f"{words(name)}/examples/e{place}").status_code == 200
    assert alike(scores(tiny.predict("words", inputs=TEXTS, adaptation=name)), WORDS.scores(task))
    found = tiny.get(words(name)).json()
    assert (found["task"], found["examples"]) == (task, [])


def test_folded_categories_are_told_where_they_came_in(tiny: Api, name: str) -> None:
    odd = [{"input": {"age": 1, "sector": "mines"}, "label": 1}, {"input": {"age": 1}, "label": 2}]
    written = tiny.put(papers(name), json={"support": odd, "task": {"id": "pages", "metadata": {"venue": "w"}}}).json()
    assert written["folded"] == ["task.metadata.venue"]
    assert [result.get("folded") for result in written["results"]] == [["sector"], None]
    assert "folded" not in tiny.post(f"{papers(name)}/examples", json={"examples": odd[1:]}).json()["results"][0]


def test_a_put_changes_the_task_and_one_without_takes_it_away(tiny: Api, name: str) -> None:
    for task in ({"id": "north"}, {"text": "how good"}, None):
        body = {"support": NAMES, **({"task": task} if task else {})}
        assert tiny.put(words(name), json=body).status_code in (200, 201)
        wanted_scores = WORDS.scores(task or {"id": "south"}, support=tiny_words.SUPPORT)
        assert alike(scores(tiny.predict("words", inputs=TEXTS, adaptation=name)), wanted_scores)
        assert tiny.get(words(name)).json().get("task") == task


def test_it_is_the_same_after_a_restart(tmp_path: Path) -> None:
    tiny_words.build(tmp_path / "bundles", WORDS)
    task = {"text": "many pages"}
    with in_process(tmp_path, tmp_path / "bundles") as running:
        assert running.put(words("ann"), json={"support": NAMES, "task": task}).status_code == 201
        before = scores(running.predict("words", inputs=TEXTS, adaptation="ann"))
    with in_process(tmp_path, tmp_path / "bundles") as running:
        assert alike(scores(running.predict("words", inputs=TEXTS, adaptation="ann")), before)
    connection = sqlite3.connect(tmp_path / "handful.db")
    try:
        connection.execute("DELETE FROM states")
        connection.commit()
    finally:
        connection.close()
    with in_process(tmp_path, tmp_path / "bundles") as running:  # φ is made again of the examples and the descriptor
        assert alike(scores(running.predict("words", inputs=TEXTS, adaptation="ann")), before)


def test_a_version_that_does_not_know_the_task_says_so(tiny: Api, name: str) -> None:
    body = {"support": NUMBERS, "task": {"id": "rating"}, "version": "old"}
    assert tiny.put(papers(name), json=body).status_code == 201
    assert tiny.predict("papers", inputs=RECORDS, adaptation=name, version=1).status_code == 200
    refused = problem(tiny.predict("papers", inputs=RECORDS, adaptation=name, version=2), 404, "task-not-found")
    assert field(refused) == "adaptation.id"


def test_a_version_without_a_base_needs_the_task_that_was_never_named(tiny: Api, name: str) -> None:
    path = f"/v1/models/moving/adaptations/{name}"
    assert tiny.put(path, json={"support": NUMBERS, "version": 1}).status_code == 201
    found = predictions(tiny.predict("moving", inputs=RECORDS, adaptation=name, version=1))
    assert same(found, wanted("pages", None, tiny_readers.SUPPORT))
    refused = problem(tiny.predict("moving", inputs=RECORDS, adaptation=name, version=2), 409, "task-conflict")
    assert (field(refused), refused["errors"][0]["allowed"]) == ("adaptation", "a PUT with a `task`")
    assert field(problem(tiny.post(f"{path}/examples", json={"examples": NUMBERS}), 409, "task-conflict")) == "id"
    assert tiny.put(path, json={"support": NUMBERS, "task": {"id": "pages"}}).status_code == 200
    found = predictions(tiny.predict("moving", inputs=RECORDS, adaptation=name))
    assert same(found, wanted("pages", None, tiny_readers.SUPPORT))


@pytest.mark.parametrize(
    ("path", "body", "status", "slug", "place"),
    [
        (papers("bad"), {"support": NUMBERS, "task": {"id": "sheets"}}, 404, "task-not-found", "task.id"),
        (papers("bad"), {"support": NUMBERS, "task": {"id": "good"}}, 422, "not-accepted", "task.id"),
        (papers("bad"), {"support": NUMBERS, "task": {"ids": ["pages"]}}, 422, "request-invalid", "task"),
        (papers("bad"), {"support": NUMBERS, "task": {}}, 422, "request-invalid", "task"),
        (papers("bad"), {"support": NUMBERS, "task": "pages"}, 422, "request-invalid", "task"),
        (papers("bad"), {"support": NUMBERS, "task": {"metadata": VENUE}}, 422, "not-accepted", "task.metadata"),
        (papers("bad"), {"support": NUMBERS, "task": {"id": "pages", "metadata": {"venue": 1}}}, 422, "input-invalid",
         "task.metadata.venue"),
        (papers("bad"), {"support": NAMES, "task": {"id": "pages"}}, 422, "request-invalid", "support[0].label"),
        (papers("bad"), {"support": NUMBERS * 4, "task": {"id": "pages"}}, 422, "support-set-invalid", "support"),
        (words("bad"), {"support": NAMES, "task": {"text": ""}}, 422, "input-invalid", "task.text"),
        (words("bad"), {"support": NAMES[:1] * 6, "task": {"text": "it"}}, 422, "support-set-invalid", "support"),
        ("/v1/models/strict/adaptations/bad", {"support": NUMBERS}, 422, "not-accepted", "task"),
    ],
)  # fmt: skip
def test_a_put_beside_a_task_that_does_not_fit_is_refused_and_changes_nothing(
    tiny: Api, path: str, body: dict[str, Any], status: int, slug: str, place: str
) -> None:
    before = tiny.dump()
    assert field(problem(tiny.put(path, json=body), status, slug)) == place
    assert tiny.dump() == before


def test_a_model_that_learns_beside_no_task_refuses_one(api: Api, name: str) -> None:
    answer = api.put(f"/v1/models/glyphs/adaptations/{name}", json={"support": [], "task": {"id": "greek"}})
    assert field(problem(answer, 422, "not-accepted")) == "task"


def test_a_model_that_learns_beside_tasks_only_keeps_adaptations_of_them(tiny: Api, name: str) -> None:
    path = f"/v1/models/strict/adaptations/{name}"
    added = tiny.post(f"{path}/examples", json={"examples": NUMBERS})
    problem(added, 404, "adaptation-not-found")
    assert tiny.put(path, json={"support": NUMBERS[:1], "task": {"id": "pages"}}).status_code == 201
    assert tiny.post(f"{path}/examples", json={"examples": NUMBERS[1:]}).status_code == 200
    found = predictions(tiny.predict("strict", inputs=RECORDS, adaptation=name))
    assert same(found, wanted("pages", None, tiny_readers.SUPPORT))
