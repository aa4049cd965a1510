"""Law 10: any bytes at any endpoint give 2xx or a valid problem, and the next good request works."""

import copy
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote_from_bytes

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.serving import Api, in_process
from tests.tasks import labels, with_ids

from .bad_requests import ALICE, GOOD, JSON, MAX_BODY_BYTES, PREDICT, SUPPORT

METHODS = ["GET", "PUT", "POST", "DELETE", "PATCH", "HEAD", "OPTIONS", "TRACE", "BREW"]
WORDS = ["v1", "models", "glyphs", "predict", "adaptations", "alice", "examples", "e0", "versions", "tasks", "health",
         "ready", "metrics", "docs", "redoc", "openapi.json", "static-offline-docs", "favicon.png"]  # fmt: skip
KNOWN = [PREDICT, ALICE, f"{ALICE}/examples", f"{ALICE}/examples/e0", "/v1/models/glyphs/adaptations", "/v1/models"]
GOOD_BODIES: list[tuple[str, str, Any]] = [
    ("POST", PREDICT, {**GOOD, "options": {"confidence": 0.9, "top": 2, "scores": True}, "version": 1}),
    ("POST", PREDICT, {"rows": [{"input": GOOD["inputs"][0], "adaptation": "alice"}], "partial": True}),
    ("POST", PREDICT, {"rows": [{"input": GOOD["inputs"][0], "task": {"id": "greek"}}], "partial": True}),
    ("PUT", f"{ALICE}-2", {"support": [{**example, "source": "s", "weight": 1.0} for example in SUPPORT]}),
    ("POST", f"{ALICE}/examples", {"examples": [{"example_id": "e0", "label": SUPPORT[0]["label"]}]}),
]

SEGMENTS = st.sampled_from(WORDS) | st.binary(max_size=8).map(quote_from_bytes) | st.just("..")
PATHS = st.sampled_from(KNOWN) | st.lists(SEGMENTS, max_size=8).map(lambda parts: "/" + "/".join(parts))
QUERIES = st.just("") | st.binary(max_size=12).map(quote_from_bytes) | st.sampled_from(
    ["limit=1", "limit=-1", "after=%00", "version=", "version=%F0%9F%98%80", "event_id=a", "&=&", "version=1&version=2"]
)  # fmt: skip
TEXT = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=12).map(str.strip)
HEADERS = st.dictionaries(
    st.sampled_from(["If-Match", "If-None-Match", "X-Request-Id", "Accept", "Host", "Content-Type", "Range"]), TEXT
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(GOOD["inputs"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)


@pytest.fixture(scope="module")
def target(form: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    with in_process(tmp_path_factory.mktemp("fuzz"), max_body_bytes=MAX_BODY_BYTES) as running:
        assert running.put(ALICE, json={"support": with_ids(SUPPORT)}).status_code == 201
        yield running


def is_fine(answer: httpx.Response) -> bool:
    """Whether an answer is 2xx, or a problem document that blames someone else than the server."""
    if answer.is_success:
        return True
    if answer.status_code == 500 or answer.headers["content-type"] != "application/problem+json":
        return False
    if answer.request.method == "HEAD":
        return not answer.content
    document = answer.json()
    return (
        document["status"] == answer.status_code
        and document["type"].startswith("urn:handful:problem:")
        and bool(document["title"] and document["detail"])
        and document["request_id"] == answer.headers["x-request-id"]
    )


def next_good_request_works(api: Api) -> bool:
    return labels(api.predict(**GOOD)) == [SUPPORT[0]["label"]]


FUZZ = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@FUZZ
@given(st.sampled_from(METHODS), PATHS, QUERIES, HEADERS, st.binary(max_size=200), st.booleans())
def test_any_bytes_at_any_endpoint_are_answered_or_refused_in_form(
    target: Api, method: str, path: str, query: str, headers: dict[str, str], body: bytes, as_json: bool
) -> None:
    url = target.url.copy_with(raw_path=f"{path}?{query}".encode())
    sent = {**headers, **(JSON if as_json else {}), "X-Deadline-Ms": "5000"}
    assert is_fine(target.request(method, url, content=body, headers=sent))
    assert next_good_request_works(target)


@FUZZ
@given(st.sampled_from(GOOD_BODIES), st.data())
def test_a_good_body_with_anything_in_some_place_is_answered_or_refused_in_form(
    target: Api, good: tuple[str, str, Any], data: st.DataObject
) -> None:
    method, path, body = copy.deepcopy(good)
    holder, key = data.draw(st.sampled_from(_places(body)))
    holder[key] = data.draw(VALUES)
    content = json.dumps(body).encode("utf-8", "surrogatepass")
    assert is_fine(target.request(method, path, content=content, headers={**JSON, "X-Deadline-Ms": "5000"}))
    assert next_good_request_works(target)


@FUZZ
@given(st.sampled_from(GOOD_BODIES), st.integers(0, 10**6), st.binary(min_size=1, max_size=4))
def test_a_good_body_with_some_bytes_changed_is_answered_or_refused_in_form(
    target: Api, good: tuple[str, str, Any], at: int, change: bytes
) -> None:
    method, path, body = good
    content = bytearray(json.dumps(body).encode())
    content[at % len(content)] = change[0]
    content[at % len(content) : at % len(content)] = change[1:]
    assert is_fine(target.request(method, path, content=bytes(content), headers={**JSON, "X-Deadline-Ms": "5000"}))
    assert next_good_request_works(target)


def _places(part: Any) -> list[tuple[Any, Any]]:
    """Every key and index of a document, with what holds it."""
    if not isinstance(part, dict | list):
        return []
    keys = list(part) if isinstance(part, dict) else range(len(part))
    return [place for key in keys for place in [(part, key), *_places(part[key])]]
