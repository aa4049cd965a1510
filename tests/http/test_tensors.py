"""A tensor as the bytes of the body: the same answers as in JSON, and what is refused."""

from collections.abc import Iterator, Mapping
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.serving import Api, in_process
from tests.tasks import field, problem
from tests.tiny_tasks import QUERIES, SUPPORTS, TinyTasks, build

TASKS = TinyTasks()
PREDICT = f"/v1/models/{TASKS.name}/predict"
BYTES = {"Content-Type": "application/octet-stream"}
CURVE = "sinusoids-bayes"


@pytest.fixture(scope="module")
def tiny(form: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    folder = tmp_path_factory.mktemp("tensors")
    build(folder / "bundles", TASKS)
    with in_process(folder, folder / "bundles", max_rows_per_call=50) as running:
        support = [{"input": row, "label": label} for row, label in SUPPORTS["latin"]]
        assert running.put(f"/v1/models/{TASKS.name}/adaptations/alice", json={"support": support}).status_code == 201
        yield running


def send(api: Api, rows: Any, path: str = PREDICT, **query: Any) -> httpx.Response:
    content = rows if isinstance(rows, bytes) else np.asarray(rows, "<f4").tobytes()
    return api.post(path, params=query, content=content, headers=BYTES)


@pytest.mark.parametrize(
    ("query", "body"),
    [
        ({"task": "latin"}, {"task": {"id": "latin"}}),
        ({"task": "latin", "version": "1"}, {"task": {"id": "latin"}, "version": 1}),
        ({"adaptation": "alice"}, {"adaptation": "alice"}),
    ],
)
def test_bytes_are_answered_as_the_same_numbers_in_json_are(
    tiny: Api, query: Mapping[str, str], body: Mapping[str, Any]
) -> None:
    in_json = tiny.predict(TASKS.name, inputs=QUERIES, **body)
    answer = send(tiny, QUERIES, **query)
    assert answer.status_code == in_json.status_code == 200, answer.text
    assert len(answer.json()["predictions"]) == len(QUERIES) > 1
    assert answer.content == in_json.content


@given(st.lists(st.floats(-4, 4, width=32), min_size=1, max_size=30))
def test_the_base_answers_every_row_of_the_shipped_sinusoids_alike(api: Api, rows: list[float]) -> None:
    inputs = [[row] for row in rows]
    answer = send(api, inputs, f"/v1/models/{CURVE}/predict")
    assert answer.content == api.predict(CURVE, inputs=inputs).content
    assert [item["used"] for item in answer.json()["predictions"]] == ["base"] * len(rows)


@pytest.mark.parametrize("size", [0, 1, 15, 17, 18 * 4 + 2])
def test_bytes_that_are_no_whole_rows_are_refused(tiny: Api, size: int) -> None:
    refused = problem(send(tiny, b"\0" * size, task="latin"), 422, "input-invalid")
    assert field(refused) == "body"
    assert refused["errors"][0]["detail"] == f"has {size} bytes"
    assert "16 bytes" in refused["errors"][0]["allowed"]


def test_more_rows_than_a_call_may_have_are_refused(tiny: Api) -> None:
    assert send(tiny, np.zeros((50, 4)), task="latin").status_code == 200
    assert field(problem(send(tiny, np.zeros((51, 4)), task="latin"), 413, "too-large")) == "body"


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf])
def test_a_number_that_is_not_finite_is_refused_with_its_row(tiny: Api, odd: float) -> None:
    rows = np.zeros((3, 4), np.float32)
    rows[1, 2] = odd
    assert field(problem(send(tiny, rows, task="latin"), 422, "input-invalid")) == "inputs[1]"


@pytest.mark.parametrize(
    ("query", "status", "slug", "place"),
    [
        ({}, 422, "not-accepted", None),
        ({"task": "greek-2"}, 404, "task-not-found", "task.id"),
        ({"task": "-"}, 422, "request-invalid", "query.task"),
        ({"task": ""}, 422, "request-invalid", "query.task"),
        ({"task": "latin", "adaptation": "alice"}, 422, "request-invalid", "adaptation"),
        ({"adaptation": "nobody"}, 404, "adaptation-not-found", "adaptation"),
        ({"adaptation": "a b"}, 422, "request-invalid", "query.adaptation"),
        ({"task": "latin", "version": "2"}, 404, "model-not-found", "version"),
        ({"task": "latin", "version": "0"}, 422, "request-invalid", "query.version"),
        ({"task": "latin", "version": "9" * 5000}, 422, "request-invalid", "query.version"),
        ({"task": "latin", "version": "²"}, 404, "model-not-found", "version"),
        ({"task": "latin", "version": ""}, 422, "request-invalid", "query.version"),
        ({"task": "latin", "top": "1"}, 422, "request-invalid", "query"),
    ],
)
def test_a_query_is_held_to_the_same_rules_as_a_body(
    tiny: Api, query: dict[str, str], status: int, slug: str, place: str | None
) -> None:
    refused = problem(send(tiny, QUERIES, **query), status, slug)
    assert place in (None, field(refused))


def test_a_query_names_each_key_once_and_in_utf_8(tiny: Api) -> None:
    content = np.asarray(QUERIES, "<f4").tobytes()
    for query, place in (("task=latin&task=latin", "query.task"), ("task=%FF", "query")):
        answer = tiny.post(f"{PREDICT}?{query}", content=content, headers=BYTES)
        assert field(problem(answer, 422, "request-invalid")) == place


@pytest.mark.parametrize("key", ["task", "adaptation", "version"])
def test_what_the_query_names_may_not_stand_beside_a_json_body(tiny: Api, key: str) -> None:
    answer = tiny.post(f"{PREDICT}?{key}=1", json={"inputs": QUERIES, "task": {"id": "latin"}})
    assert field(problem(answer, 422, "request-invalid")) == f"query.{key}"


def test_a_model_of_pictures_takes_no_tensor(api: Api) -> None:
    refused = problem(send(api, b"\0" * 16, "/v1/models/glyphs/predict"), 415, "unsupported-media")
    assert "kind image" in refused["errors"][0]["detail"]


def test_openapi_names_the_bytes_and_the_query(api: Api) -> None:
    operation = api.get("/openapi.json").json()["paths"]["/v1/models/{model}/predict"]["post"]
    assert set(operation["requestBody"]["content"]) == {"application/json", "application/octet-stream"}
    query = {item["name"]: item for item in operation["parameters"] if item["in"] == "query"}
    assert set(query) == {"task", "adaptation", "version"}
    assert not any(item["required"] for item in query.values())
