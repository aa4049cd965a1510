"""API keys over HTTP: who is let in, what each scope allows, and that no tenant meets another."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.serving import Api, in_process
from tests.tasks import Glyphs, problem, scores, with_ids

from handful_service.auth import append_key

MODEL = "/v1/models/glyphs"
ADAPTATIONS = f"{MODEL}/adaptations"
PREDICT = f"{MODEL}/predict"
SCOPES = ("predict", "adapt", "admin")


@dataclass(frozen=True)
class Keyed:
    """An app with keys, by who they are of."""

    api: Api
    keys: dict[str, str]

    def call(self, who: str | None, method: str, path: str, body: Any = None, **more: Any) -> httpx.Response:
        headers = {} if who is None else {"Authorization": f"Bearer {self.keys[who]}"}
        return self.api.request(method, path, json=body, headers=headers, **more)


@pytest.fixture(scope="module")
def keyed(form: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keyed]:
    folder = tmp_path_factory.mktemp("keys")
    path = folder / "keys"
    keys = {tenant: append_key(path, tenant, tenant, "predict,adapt") for tenant in ("ann", "bob")}
    keys |= {scope: append_key(path, scope, "ann", scope) for scope in SCOPES}
    with in_process(folder, keys=path) as api:
        yield Keyed(api, keys)


def calls(glyphs: Glyphs, name: str) -> list[tuple[str, str, str, Any]]:
    """Every call of /v1 and /metrics with the scope that it needs, made on an adaptation."""
    support = glyphs.support(glyphs.names[:3])
    change = {"examples": support[:1]}
    return [
        ("predict", "POST", PREDICT, {"inputs": glyphs.queries(glyphs.names[:1]), "support": support}),
        ("adapt", "PUT", f"{ADAPTATIONS}/{name}", {"support": with_ids(support)}),
        ("adapt", "POST", f"{ADAPTATIONS}/{name}/examples", change),
        ("adapt", "GET", f"{ADAPTATIONS}/{name}", None),
        ("adapt", "GET", ADAPTATIONS, None),
        ("adapt", "DELETE", f"{ADAPTATIONS}/{name}/examples/e0", None),
        ("adapt", "DELETE", f"{ADAPTATIONS}/{name}", None),
        ("any", "GET", "/v1/models", None),
        ("any", "GET", MODEL, None),
        ("any", "GET", f"{MODEL}/versions", None),
        ("any", "GET", f"{MODEL}/tasks", None),
        ("admin", "GET", "/metrics", None),
    ]


def test_every_call_needs_a_key_and_its_scope_and_no_other(keyed: Keyed, glyphs: Glyphs, name: str) -> None:
    for needed, method, path, body in calls(glyphs, name):
        refused = problem(keyed.call(None, method, path, body), 401, "unauthenticated")
        assert refused["errors"][0]["field"] == "Authorization"
        for scope in SCOPES:
            answer = keyed.call(scope, method, path, body)
            if needed in ("any", scope):
                assert answer.is_success, (method, path, scope, answer.text)
            else:
                assert problem(answer, 403, "forbidden")["errors"][0]["allowed"] == f"a key with {needed}"


def test_the_calls_above_are_all_there_are(keyed: Keyed, glyphs: Glyphs) -> None:
    paths = keyed.api.get("/openapi.json").json()["paths"]
    needed = {(method.upper(), path) for path, item in paths.items() for method in item if "/health/" not in path}
    tried = {
        (method, path.replace("glyphs", "{model}").replace("/x", "/{id}").replace("/e0", "/{example_id}"))
        for _, method, path, _ in calls(glyphs, "x")
    }
    assert tried == {(method, path) for method, path in needed}
    for method, path in needed:
        assert paths[path][method.lower()]["security"] == [{"key": []}, {}]


def test_a_refusal_says_how_to_come_in_and_comes_before_anything_is_read(keyed: Keyed) -> None:
    answer = keyed.api.post(PREDICT, content=b"no JSON", headers={"Content-Type": "text/plain"})
    problem(answer, 401, "unauthenticated")
    assert answer.headers["www-authenticate"] == "Bearer"
    unknown = keyed.api.put(f"{ADAPTATIONS}/-", content=b"", headers={"Authorization": "Bearer ann.x"})
    problem(unknown, 401, "unauthenticated")


@pytest.mark.parametrize("path", ["/health/live", "/health/ready", "/openapi.json", "/docs"])
def test_health_and_the_pages_need_no_key(keyed: Keyed, path: str) -> None:
    assert keyed.api.get(path).status_code == 200


def refused_of_bob(keyed: Keyed, glyphs: Glyphs, name: str) -> list[httpx.Response]:
    """Every call on an adaptation that is not his."""
    path, ask = f"{ADAPTATIONS}/{name}", {"inputs": glyphs.queries(glyphs.names[:1]), "adaptation": name}
    return [
        keyed.call("bob", "GET", path),
        keyed.call("bob", "DELETE", path),
        keyed.call("bob", "DELETE", f"{path}/examples/e0"),
        keyed.call("bob", "POST", f"{path}/examples", {"examples": glyphs.support(glyphs.names[:1])}),
        keyed.call("bob", "POST", PREDICT, ask),
    ]


def test_no_tenant_sees_changes_or_infers_the_adaptations_of_another(keyed: Keyed, glyphs: Glyphs, name: str) -> None:
    one, other = glyphs.names[:3], glyphs.names[3:6]
    query = glyphs.queries(one[:1])
    ask = {"inputs": query, "adaptation": name}
    path = f"{ADAPTATIONS}/{name}"
    without = [_without_id(answer) for answer in refused_of_bob(keyed, glyphs, name)]

    assert keyed.call("ann", "PUT", path, {"support": with_ids(glyphs.support(one))}).status_code == 201
    mine = scores(keyed.call("ann", "POST", PREDICT, ask))
    assert [_without_id(answer) for answer in refused_of_bob(keyed, glyphs, name)] == without, "as if there were none"
    assert name not in keyed.call("bob", "GET", ADAPTATIONS, params={"limit": 1000}).text

    made = keyed.call("bob", "PUT", path, {"support": with_ids(glyphs.support(other))})
    assert made.status_code == 201, "the id is free"
    assert set(scores(keyed.call("bob", "POST", PREDICT, ask))[0]) == set(other)
    assert keyed.call("bob", "DELETE", path).status_code == 204
    assert scores(keyed.call("ann", "POST", PREDICT, ask)) == mine
    assert set(keyed.call("predict", "POST", PREDICT, ask).json()["predictions"][0]["scores"]) == set(one)


def test_rows_of_one_call_are_all_of_the_callers_tenant(keyed: Keyed, glyphs: Glyphs, name: str) -> None:
    support = with_ids(glyphs.support(glyphs.names[:2]))
    assert keyed.call("ann", "PUT", f"{ADAPTATIONS}/{name}", {"support": support}).status_code == 201
    row = {"input": glyphs.queries(glyphs.names[:1])[0], "adaptation": name}
    answer = keyed.call("bob", "POST", PREDICT, {"rows": [row, row], "partial": True}).json()
    assert [item["problem"]["status"] for item in answer["predictions"]] == [404, 404]


def _without_id(answer: httpx.Response) -> tuple[int, dict[str, Any]]:
    document = answer.json()
    document.pop("request_id")
    return answer.status_code, document


def test_a_file_of_keys_that_is_not_valid_keeps_the_server_from_being_ready(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("ann plain ann predict\n")
    with pytest.raises(Exception, match="line 1"), in_process(tmp_path, keys=tmp_path / "keys"):
        pass
