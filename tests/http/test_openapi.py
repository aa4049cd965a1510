import re
from typing import Any

import pytest
from tests.serving import Api

from handful_service.schemas import ExamplesRequest, PredictRequest, PutRequest

ROUTES = {
    ("post", "/v1/models/{model}/predict"),
    ("get", "/v1/models"),
    ("get", "/v1/models/{model}"),
    ("get", "/v1/models/{model}/versions"),
    ("get", "/v1/models/{model}/tasks"),
    ("get", "/v1/models/{model}/adaptations"),
    ("get", "/v1/models/{model}/adaptations/{id}"),
    ("put", "/v1/models/{model}/adaptations/{id}"),
    ("delete", "/v1/models/{model}/adaptations/{id}"),
    ("post", "/v1/models/{model}/adaptations/{id}/examples"),
    ("delete", "/v1/models/{model}/adaptations/{id}/examples/{example_id}"),
}


@pytest.fixture(scope="module")
def document(api: Api) -> dict[str, Any]:
    found: dict[str, Any] = api.get("/openapi.json").json()
    return found


def test_every_call_of_the_design_is_documented(document: dict[str, Any]) -> None:
    operations = {(method, path) for path, item in document["paths"].items() for method in item}
    assert {(method, path) for method, path in operations if path.startswith("/v1")} == ROUTES
    for method, path in operations:
        operation = document["paths"][path][method]
        assert operation["summary"]
        assert operation["description"]
        named = {parameter["name"] for parameter in operation.get("parameters", []) if parameter["in"] == "path"}
        assert named == set(re.findall(r"{(\w+)}", path))
    ids = [item["operationId"] for path in document["paths"].values() for item in path.values()]
    assert len(ids) == len(set(ids))


def test_every_reference_resolves(document: dict[str, Any]) -> None:
    references = set(_references(document))
    assert len(references) > 15
    for reference in references:
        place: Any = document
        assert reference.startswith("#/")
        for part in reference[2:].split("/"):
            place = place[part]


def test_every_failure_is_documented_as_a_problem(document: dict[str, Any]) -> None:
    for item in document["paths"].values():
        for operation in item.values():
            content = operation["responses"]["default"]["content"]
            assert content == {"application/problem+json": {"schema": {"$ref": "#/components/schemas/ProblemDocument"}}}
            assert "422" not in operation["responses"], "FastAPI's own error body is never sent"


@pytest.mark.parametrize("kind", [PredictRequest, PutRequest, ExamplesRequest])
def test_bodies_are_documented_with_examples_that_are_valid(document: dict[str, Any], kind: type[Any]) -> None:
    examples = document["components"]["schemas"][kind.__name__]["examples"]
    assert examples
    for example in examples:
        kind.model_validate(example)
    reference = {"$ref": f"#/components/schemas/{kind.__name__}"}
    bodies = [
        operation["requestBody"]["content"]["application/json"]["schema"]
        for item in document["paths"].values()
        for operation in item.values()
        if "requestBody" in operation
    ]
    assert reference in bodies


@pytest.mark.parametrize("page", ["/docs", "/redoc"])
def test_the_pages_about_the_api_come_from_this_process_alone(api: Api, page: str) -> None:
    answer = api.get(page)
    assert answer.status_code == 200
    places = re.findall(r"""(?:src|href)\s*=\s*["']([^"']+)""", answer.text)
    assert len(places) >= 2
    for place in places:
        assert place.startswith("/")
        assert not place.startswith("//")
        assert api.get(place).status_code == 200
    assert not re.search(r"https?://", answer.text)
    # What the scripts themselves would fetch from elsewhere, the browser refuses.
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'self' ")
    assert "http" not in policy


def test_a_part_of_a_page_is_not_given_however_it_is_asked_for(api: Api) -> None:
    for wanted in ("bytes=99999999-", "bytes=x", "bytes=0-3"):
        answer = api.get("/static-offline-docs/favicon.png", headers={"Range": wanted})
        assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png")


def _references(part: Any) -> list[str]:
    if isinstance(part, dict):
        here = [part["$ref"]] if isinstance(part.get("$ref"), str) else []
        return here + [found for value in part.values() for found in _references(value)]
    return [found for value in part for found in _references(value)] if isinstance(part, list) else []
