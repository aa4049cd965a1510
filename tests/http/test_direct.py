"""Calls that need nothing but a run: they answer as those that take the long way, and let go of what they hold."""

import json
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.serving import Api, Form, busy, in_process
from tests.tasks import alike, problem, scores
from tests.tiny import Tiny, build

from handful_service.predictor.predicting import Predictor
from handful_service.predictor.states import MOST_LOADS
from handful_service.store.lanes import AsyncStore

OPEN, FIXED = Tiny(), Tiny(name="fixed", labels=("a", "b", "c"))
PATH = "/v1/models/tiny/predict"
LARGE = [3e38, 3e38, 3e38, 3e38]  # finite, but not their sums
INPUTS = [[0.5, 0.25, 0.0, 0.0], [0.0, 0.5, 0.5, 0.25], [1.0, 1.0, 0.0, 0.0]]


@pytest.fixture
def api(tmp_path: Path, form: str) -> Iterator[Api]:
    for tiny in (OPEN, FIXED):
        build(tmp_path / "bundles", tiny)
    with in_process(tmp_path, tmp_path / "bundles", inline_ms=0, threads=1, support_cache_bytes=0) as api:
        yield api


@pytest.fixture
def directly(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The kinds of tasks whose calls needed nothing but a run."""
    went: list[str] = []
    real = Predictor.direct

    def noted(self: Predictor, *args: Any, **more: Any) -> Any:
        found = real(self, *args, **more)
        if found is not None:
            went.append(type(args[3][0].task).__name__)
        return found

    monkeypatch.setattr(Predictor, "direct", noted)
    return went


def support_of(user: int) -> list[dict[str, Any]]:
    """Every user labels the same points in another way."""
    points = [[1.0, 0, 0, 0], [0, 1.0, 0, 0.5], [0, 0, 1.0, 0]]
    order = np.random.default_rng(user).permutation(3)
    return [{"input": points[place], "label": "abc"[at]} for at, place in enumerate(order)]


def put(api: Api, user: int, support: Sequence[Any] | None = None) -> None:
    path = f"/v1/models/tiny/adaptations/user-{user}"
    answer = api.put(path, json={"support": support_of(user) if support is None else support})
    assert answer.status_code in (200, 201)


def asked(user: int, inputs: Any = INPUTS) -> dict[str, Any]:
    return {"inputs": inputs, "adaptation": f"user-{user}"}


def expected(user: int) -> list[dict[str, float]]:
    support = [(example["input"], example["label"]) for example in support_of(user)]
    return OPEN.scores(support, np.array(INPUTS))


def in_flight(api: Api, count: int) -> None:
    while f"requests_in_flight {count}" not in api.get("/metrics").text:
        pass


def pinned(api: Api) -> int:
    """How many states are in use."""
    return sum(held.pins for served in api.service.served for held in served.cache._held.values())


@pytest.mark.parametrize("at_once", [True, False])
def test_a_state_is_answered_with_directly_and_as_every_other_way(
    api: Api, directly: list[str], monkeypatch: pytest.MonkeyPatch, at_once: bool
) -> None:
    put(api, 1)
    if not at_once:  # a thread loads it, and the call goes on as if it had been there
        monkeypatch.setattr(AsyncStore, "load_now", lambda self, key, digest: None)
    first = api.post(PATH, json=asked(1))
    assert directly == ["ByAdaptation"]
    again = api.post(PATH, json=asked(1))
    assert directly == ["ByAdaptation"] * 2
    assert first.json() == again.json()
    rows = [{"input": row, "adaptation": "user-1"} for row in INPUTS]
    assert api.post(PATH, json={"rows": rows}).json() == first.json()
    assert directly == ["ByAdaptation"] * 2
    assert alike(scores(again), expected(1))
    assert pinned(api) == 0


def test_users_who_contradict_each_other_share_runs_and_get_their_own_answers(api: Api, directly: list[str]) -> None:
    users = range(24)
    for user in users:
        put(api, user)
        api.post(PATH, json=asked(user))
    sizes: list[int] = []
    for served in api.service.served:
        served.engine._on_batch = lambda graph, rows: sizes.append(rows)
    with busy(api):
        waiting = [api.submit("POST", PATH, json=asked(user)) for user in users]
        in_flight(api, 1 + len(users))
    for user, answer in zip(users, waiting, strict=True):
        assert alike(scores(answer.result(20)), expected(user))
    assert len(directly) == 2 * len(users)
    assert max(sizes) > 3
    assert pinned(api) == 0


def test_rows_of_many_users_whose_states_nobody_has_loaded_are_each_answered_with_their_own(
    tmp_path: Path, form: str
) -> None:
    build(tmp_path / "bundles", OPEN)
    users = range(2 * MOST_LOADS + 3)
    with in_process(tmp_path, tmp_path / "bundles") as api:
        for user in users:
            put(api, user)
    rows = [{"input": INPUTS[user % 3], "adaptation": f"user-{user}"} for user in users]
    with in_process(tmp_path, tmp_path / "bundles") as api:
        first, again = scores(api.post(PATH, json={"rows": rows})), scores(api.post(PATH, json={"rows": rows}))
    for user in users:
        assert alike([first[user], again[user]], [expected(user)[user % 3]] * 2)


def test_bytes_are_answered_with_directly_and_as_lists_are(api: Api, directly: list[str]) -> None:
    put(api, 1)
    api.post(PATH, json=asked(1))
    content = np.array(INPUTS, "<f4").tobytes()
    sent = {"content": content, "headers": {"Content-Type": "application/octet-stream"}}
    assert api.post(f"{PATH}?adaptation=user-1", **sent).json() == api.post(PATH, json=asked(1)).json()
    assert directly == ["ByAdaptation"] * 3
    one = {**sent, "content": content[:16]}
    assert alike(scores(api.post(f"{PATH}?adaptation=user-1", **one)), expected(1)[:1])


def test_the_base_is_answered_with_directly(api: Api, directly: list[str]) -> None:
    for body in ({"inputs": INPUTS}, {"inputs": INPUTS[:1], "options": {"top": 1}}):
        first, again = (api.post("/v1/models/fixed/predict", json=body) for _ in range(2))
        assert first.status_code == 200
        assert first.json() == again.json()
    assert set(directly) == {"Base"}


def test_a_change_is_seen_by_the_next_call(api: Api, directly: list[str]) -> None:
    put(api, 1)
    for user in (1, 2, 3):
        put(api, 1, support_of(user))
        for _ in range(2):
            assert alike(scores(api.post(PATH, json=asked(1))), expected(user))
    assert len(directly) == 6
    assert api.delete("/v1/models/tiny/adaptations/user-1").status_code == 204
    problem(api.post(PATH, json=asked(1)), 404, "adaptation-not-found")


def test_an_input_that_is_too_large_fails_alone(api: Api) -> None:
    for user in (1, 2):
        put(api, user)
        api.post(PATH, json=asked(user))
    with busy(api):
        bodies = [asked(1), asked(1, [INPUTS[0], LARGE]), asked(2)]
        waiting = [api.submit("POST", PATH, json=body) for body in bodies]
        in_flight(api, 4)
    good, bad, other = (answer.result(20) for answer in waiting)
    assert alike(scores(good), expected(1))
    assert alike(scores(other), expected(2))
    told = problem(bad, 422, "input-invalid")
    rows = [{"input": row, "adaptation": "user-1"} for row in (INPUTS[0], LARGE)]
    by_rows = problem(api.post(PATH, json={"rows": rows}), 422, "input-invalid")
    assert told["errors"][0]["detail"] == by_rows["errors"][0]["detail"] == "gives features that are not finite"
    assert (told["errors"][0]["field"], by_rows["errors"][0]["field"]) == ("inputs[1]", "rows[1].input")
    assert pinned(api) == 0


@pytest.mark.parametrize(
    ("body", "status", "slug"),
    [
        ({"inputs": [[1.0, 2.0]], "adaptation": "user-1"}, 422, "input-invalid"),
        ({"inputs": [[1.0, True, 0.0, 0.0]], "adaptation": "user-1"}, 422, "input-invalid"),
        ({"inputs": [[False, 1.0, 0.0, 0.0]], "adaptation": "user-1"}, 422, "input-invalid"),
        ({"inputs": [["1", "0", "0", "0"]], "adaptation": "user-1"}, 422, "input-invalid"),
        ({"inputs": INPUTS, "adaptation": "user-1", "options": {"confidence": 0.9}}, 422, "not-accepted"),
        ({"inputs": INPUTS, "adaptation": "nobody"}, 404, "adaptation-not-found"),
        ({"inputs": INPUTS}, 422, "not-accepted"),
    ],
)
def test_what_is_wrong_is_told_and_holds_nothing(api: Api, body: Any, status: int, slug: str) -> None:
    put(api, 1)
    api.post(PATH, json=asked(1))
    problem(api.post(PATH, json=body), status, slug)
    assert pinned(api) == 0


def test_a_call_that_is_late_is_told_so_and_never_computed(api: Api, directly: list[str]) -> None:
    put(api, 1)
    api.post(PATH, json=asked(1))
    computed: list[int] = []
    for served in api.service.served:
        served.engine._on_batch = lambda graph, rows: computed.append(rows)
    with busy(api):
        first = api.submit("POST", PATH, json=asked(1))  # its run is the next of the thread
        in_flight(api, 2)
        late = api.post(PATH, json=asked(1, INPUTS * 7), headers={"X-Deadline-Ms": "100"})
        problem(late, 504, "deadline-exceeded")
    assert first.result(20).status_code == 200
    assert len(directly) == 3
    assert 21 not in computed
    assert pinned(api) == 0


def test_a_run_that_breaks_is_the_servers_error_for_all_who_share_it(
    api: Api, directly: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    put(api, 1)
    api.post(PATH, json=asked(1))

    def broken(items: Any) -> Any:
        raise MemoryError("no room")

    with monkeypatch.context() as patch:
        for served in api.service.served:
            patch.setattr(served.engine._answerer, "_run", broken)
        with busy(api):
            waiting = [api.submit("POST", PATH, json=asked(1)) for _ in range(3)]
            in_flight(api, 4)
        answers = [answer.result(20) for answer in waiting]
    for answer in answers:
        told = problem(answer, 500, "internal")
        assert "no room" not in json.dumps(told)
    assert pinned(api) == 0
    assert api.post(PATH, json=asked(1)).status_code == 200


def test_a_client_that_goes_takes_its_call_with_it(api: Api, directly: list[str]) -> None:
    if Form.name != "wire":
        pytest.skip("there is no connection to close")
    put(api, 1)
    api.post(PATH, json=asked(1))
    computed: list[int] = []
    for served in api.service.served:
        served.engine._on_batch = lambda graph, rows: computed.append(rows)

    content = json.dumps(asked(1, INPUTS * 7)).encode()
    lines = (f"POST {PATH} HTTP/1.1", "Host: h", "Content-Type: application/json", f"Content-Length: {len(content)}")
    head = "".join(f"{line}\r\n" for line in (*lines, ""))
    with busy(api):
        first = api.submit("POST", PATH, json=asked(1))
        in_flight(api, 2)
        with socket.create_connection((api.url.host, api.url.port)) as connection:
            connection.sendall(head.encode() + content)
            in_flight(api, 3)
        while 'status="499"' not in api.get("/metrics").text:
            pass
    assert first.result(20).status_code == 200
    assert 21 not in computed
    assert pinned(api) == 0
