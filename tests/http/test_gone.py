"""Clients that go, and calls that are late, while other work keeps them waiting."""

import asyncio
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.serving import Api, busy, in_process
from tests.tasks import problem
from tests.tiny import Tiny, build

BODY = {
    "inputs": [[0.5, 0.25, 0.0, 0.0]],
    "support": [{"input": [1.0, 0, 0, 0], "label": "a"}, {"input": [0, 1.0, 0, 0], "label": "b"}],
}
PATH = "/v1/models/tiny/predict"


@pytest.fixture
def waiting(tmp_path: Path, form: str) -> Iterator[Api]:
    """A server whose graph runs are all in one thread."""
    build(tmp_path / "bundles", Tiny())
    with in_process(tmp_path, tmp_path / "bundles", inline_ms=0, threads=1, support_cache_bytes=0) as api:
        yield api


def encoded_rows(api: Api) -> float:
    found = [line for line in api.get("/metrics").text.splitlines() if line.startswith("handful_batch_rows_sum")]
    return sum(float(line.rsplit(" ", 1)[1]) for line in found if 'graph="encode"' in line)


class Client:
    """A client that sends a call and goes when it is told."""

    def __init__(self, api: Api, body: Any, method: str = "POST", path: str = PATH) -> None:
        self.sent: list[Any] = []
        self._content: bytes | None = json.dumps(body).encode()
        self._scope = {
            "type": "http", "method": method, "path": path, "raw_path": path.encode(), "query_string": b"",
            "headers": [(b"content-type", b"application/json")], "root_path": "", "scheme": "http",
            "server": ("handful", 80), "client": ("c", 1), "http_version": "1.1",
        }  # fmt: skip
        self._api = api
        self._went = asyncio.Event()
        self._done = asyncio.run_coroutine_threadsafe(self._call(), api._loop)

    async def _call(self) -> None:
        await self._api.app(self._scope, self._receive, self._send)

    async def _receive(self) -> dict[str, Any]:
        if self._content is not None:
            content, self._content = self._content, None
            return {"type": "http.request", "body": content, "more_body": False}
        await self._went.wait()
        return {"type": "http.disconnect"}

    def go(self) -> None:
        self._api._loop.call_soon_threadsafe(self._went.set)

    async def _send(self, message: Any) -> None:
        self.sent.append(message)

    def over(self) -> None:
        self._done.result(20)


def test_a_call_whose_client_is_gone_is_dropped_before_it_is_computed(waiting: Api) -> None:
    assert waiting.post(PATH, json=BODY).status_code == 200
    before = encoded_rows(waiting)
    with busy(waiting):
        first = waiting.submit("POST", PATH, json=BODY)  # its run is the next of the thread
        while "requests_in_flight 2" not in waiting.get("/metrics").text:
            pass
        large = Client(waiting, {**BODY, "inputs": BODY["inputs"] * 100})
        while "requests_in_flight 3" not in waiting.get("/metrics").text:
            pass
        large.go()
        large.over()
        assert large.sent == []
        assert not first.done()
    assert first.result(20).status_code == 200
    assert waiting.post(PATH, json=BODY).status_code == 200
    assert encoded_rows(waiting) == before + 6
    assert f'route="{PATH.replace("tiny", "{model}")}",status="499"' in waiting.get("/metrics").text


def test_a_client_that_stays_is_answered_however_long_it_waited(waiting: Api) -> None:
    with busy(waiting):
        client = Client(waiting, BODY)
        for _ in range(20):
            assert waiting.get("/health/live").status_code == 200
            threading.Event().wait(0.01)
        assert not client.sent
    client.over()
    assert client.sent[0]["status"] == 200


def test_a_call_that_is_late_is_told_so_and_never_computed(waiting: Api) -> None:
    assert waiting.post(PATH, json=BODY).status_code == 200
    before = encoded_rows(waiting)
    with busy(waiting):
        first = waiting.submit("POST", PATH, json=BODY)
        while "requests_in_flight 2" not in waiting.get("/metrics").text:
            pass
        late = waiting.post(PATH, json=BODY, headers={"X-Deadline-Ms": "100"})
        problem(late, 504, "deadline-exceeded")
    assert first.result(20).status_code == 200
    assert encoded_rows(waiting) == before + 3


def test_calls_with_next_to_no_time_are_all_answered_or_told_so(api: Api, name: str) -> None:
    """Some end before anything was begun for them."""
    path, support = "/v1/models/jester-bayes/predict", [{"input": [3], "label": "like"}]
    hurry = {"headers": {"X-Deadline-Ms": "1"}}
    calls = [api.submit("POST", path, json={"inputs": [[1], [2]], "support": support}, **hurry) for _ in range(100)]
    assert {call.result(20).status_code for call in calls} <= {200, 504}
    while "requests_in_flight 1" not in api.get("/metrics").text:
        pass


def test_the_usual_deadline_holds_where_a_call_names_none(tmp_path: Path, form: str) -> None:
    build(tmp_path / "bundles", Tiny())
    with in_process(tmp_path, tmp_path / "bundles", inline_ms=0, threads=1, deadline_ms=200) as api, busy(api):
        problem(api.post(PATH, json=BODY), 504, "deadline-exceeded")


def test_a_change_is_made_though_its_client_is_gone(waiting: Api) -> None:
    path = "/v1/models/tiny/adaptations/alice"
    with busy(waiting):
        put = Client(waiting, {"support": BODY["support"]}, "PUT", path)
        while "requests_in_flight 2" not in waiting.get("/metrics").text:
            pass
        put.go()
        threading.Event().wait(0.2)
    put.over()
    assert waiting.get(path).status_code == 200
