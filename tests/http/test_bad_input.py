"""Bad requests are refused in full: a problem that names the place, nothing changed, and the next one answered."""

from collections.abc import Iterator
from typing import Any

import pytest
from tests.serving import Api, in_process
from tests.tasks import field, labels, problem, with_ids

from . import bad_calls, bad_pictures, bad_requests
from .bad_requests import ALICE, GOOD, JSON, MAX_BODY_BYTES, PREDICT, SUPPORT, Bad

EVERY = [
    *bad_requests.BODIES,
    *bad_requests.LIMITS,
    *bad_pictures.PICTURES,
    *bad_calls.PATHS,
    *bad_calls.CHANGES,
    *bad_calls.HEADERS,
]


@pytest.fixture(scope="module")
def small(form: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """A server with one adaptation, alice, and bodies of 1 MiB."""
    with in_process(tmp_path_factory.mktemp("bad"), max_body_bytes=MAX_BODY_BYTES) as running:
        made = running.put(ALICE, json={"support": with_ids(SUPPORT)})
        assert made.status_code == 201
        yield running


def good_request_works(api: Api) -> bool:
    stored = labels(api.predict(inputs=GOOD["inputs"], adaptation="alice"))
    return labels(api.predict(**GOOD)) == stored == [SUPPORT[0]["label"]]


@pytest.mark.parametrize("bad", EVERY, ids=[bad.what for bad in EVERY])
def test_a_bad_request_is_refused_and_changes_nothing(small: Api, bad: Bad) -> None:
    before = small.dump()
    headers = {**JSON, **bad.headers}
    answer = small.request(bad.method, bad.path, content=bad.content, headers=headers)
    refused = problem(answer, bad.status, bad.slug)
    if bad.place is not None:
        assert field(refused) == bad.place
        (item,) = refused["errors"]
        explained = item.get("allowed") or any(word in item["detail"] for word in ("should", "required", "no "))
        assert explained, item
    assert small.dump() == before
    assert good_request_works(small)


def test_the_cases_are_many_and_differ() -> None:
    assert len({bad.what for bad in EVERY}) == len(EVERY) > 100


@pytest.mark.parametrize("size", [MAX_BODY_BYTES + 1, 4 * MAX_BODY_BYTES])
def test_a_body_over_the_limit_in_pieces_without_a_length_is_refused(small: Api, size: int) -> None:
    async def pieces() -> Any:
        for _ in range(size // 1024):
            yield b" " * 1024
        yield b" "

    answer = small.post(PREDICT, content=pieces(), headers=JSON)
    assert "content-length" not in answer.request.headers
    assert field(problem(answer, 413, "too-large")) == "body"
    assert good_request_works(small)


def test_a_body_within_the_limit_in_pieces_is_read(small: Api) -> None:
    async def pieces() -> Any:
        content = Bad("", 0, "", None, GOOD).content
        for at in range(0, len(content), 100):
            yield content[at : at + 100]

    assert small.post(PREDICT, content=pieces(), headers=JSON).status_code == 200


def test_a_missing_content_type_is_refused_and_json_by_another_name_is_not(small: Api) -> None:
    content = Bad("", 0, "", None, GOOD).content
    assert field(problem(small.post(PREDICT, content=content), 415, "unsupported-media")) == "Content-Type"
    for kind in ("application/json; charset=utf-8", "application/vnd.api+json", "APPLICATION/JSON"):
        assert small.post(PREDICT, content=content, headers={"Content-Type": kind}).status_code == 200


def test_a_wrong_method_is_told_which_are_right(small: Api) -> None:
    assert small.get(PREDICT).headers["allow"] == "POST"
    assert small.post(ALICE, json={}).headers["allow"] == "DELETE, GET, PUT"


def test_an_unknown_key_is_named_with_the_known_ones(small: Api) -> None:
    (item,) = problem(small.predict(**GOOD, temperature=1), 422, "request-invalid")["errors"]
    assert "'temperature'" in item["detail"]
    assert "options" in item["allowed"]


def test_an_internal_error_tells_nothing_but_the_request_id(
    small: Api, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("a secret")

    with monkeypatch.context() as patch:
        patch.setattr(type(small.service.predictor), "direct", fail)
        refused = problem(small.predict(**GOOD), 500, "internal")
    assert "secret" not in str(refused)
    crash = next(record for record in caplog.records if record.name == "handful.crash")
    assert crash.request_id == refused["request_id"]
    assert good_request_works(small)
