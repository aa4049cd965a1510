"""Predict calls over bare connections: pieces, pipelines, chunks, slow and odd clients, drains."""

import asyncio
import json
import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event
from typing import Any
from urllib.parse import urlsplit

import pytest
from tests.serving import Api, Form, in_process
from tests.tiny import Tiny, build

from handful_service import protocol
from handful_service.auth import append_key
from handful_service.errors import Overloaded

TINY = Tiny(labels=("ham", "spam"))
PATH = "/v1/models/tiny/predict"
BODY = json.dumps({"inputs": [[0.5, 0.25, 0.0, 0.0]]}).encode()
OTHER = json.dumps({"inputs": [[0.0, 1.0, 1.0, 0.0]] * 2}).encode()


@pytest.fixture(scope="module")
def wire(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    folder = tmp_path_factory.mktemp("wire")
    build(folder / "bundles", TINY)
    with served(folder) as api:
        yield api


@contextmanager
def served(folder: Path, **settings: Any) -> Iterator[Api]:
    before, Form.name = Form.name, "wire"
    try:
        with in_process(folder, folder / "bundles", max_body_bytes=4096, **settings) as api:
            yield api
    finally:
        Form.name = before


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The bodies of the calls that the protocol answers itself."""
    found: list[bytes] = []
    start = protocol.Exchange.start

    def noted(self: protocol.Exchange) -> None:
        found.append(self.body)
        start(self)

    monkeypatch.setattr(protocol.Exchange, "start", noted)
    return found


@contextmanager
def connected(api: Api) -> Iterator[socket.socket]:
    parts = urlsplit(str(api.url))
    with socket.create_connection((parts.hostname or "", parts.port or 0), timeout=20) as connection:
        yield connection


def request(body: bytes = BODY, path: str = PATH, *more: str, method: str = "POST", http: str = "1.1") -> bytes:
    lines = [f"{method} {path} HTTP/{http}", "Host: handful", "Content-Type: application/json"]
    lines += more if any("transfer-encoding" in line.lower() for line in more) else [
        f"Content-Length: {len(body)}", *more
    ]  # fmt: skip
    return "\r\n".join([*lines, "", ""]).encode() + body


def answers(connection: socket.socket, count: int) -> list[tuple[int, dict[str, str], bytes]]:
    """So many answers, each with its status, headers and content."""
    content, found = b"", []
    while len(found) < count:
        whole = re.match(rb"(HTTP/1\.1 (\d+)[^\r]*\r\n(.*?)\r\n\r\n)", content, re.DOTALL)
        head = dict(line.split(": ", 1) for line in whole[3].decode().split("\r\n")) if whole else {}
        end = len(whole[1]) + int(head["content-length"]) if whole else 0
        if whole and len(content) >= end:
            found.append((int(whole[2]), head, content[len(whole[1]) : end]))
            content = content[end:]
            continue
        more = connection.recv(65536)
        assert more, (found, content)
        content += more
    assert content == b""
    return found


def inputs(answer: tuple[int, dict[str, str], bytes]) -> int:
    assert answer[0] == 200, answer
    return len(json.loads(answer[2])["predictions"])


def test_a_call_in_one_piece_is_taken_and_the_connection_is_kept(wire: Api, taken: list[bytes]) -> None:
    with connected(wire) as connection:
        for body in (BODY, OTHER, BODY):
            connection.sendall(request(body))
            (found,) = answers(connection, 1)
            assert inputs(found) == len(json.loads(body)["inputs"])
            assert found[1]["content-type"] == "application/json"
            assert {"date", "x-request-id"} <= found[1].keys()
            assert "connection" not in found[1]
    assert taken == [BODY, OTHER, BODY]


@pytest.mark.parametrize("cut", [1, 20, 60, 100, -len(BODY), -1])
def test_a_call_in_pieces_goes_the_usual_way_wherever_it_is_cut(wire: Api, taken: list[bytes], cut: int) -> None:
    whole = request()
    with connected(wire) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(2):
            connection.sendall(whole[:cut])
            assert wire.get("/health/live").status_code == 200  # meanwhile others are answered
            assert wire.get("/health/live").status_code == 200
            connection.sendall(whole[cut:])
            assert inputs(answers(connection, 1)[0]) == 1
        taken_before = len(taken)
        connection.sendall(whole)
        assert inputs(answers(connection, 1)[0]) == 1
    assert len(taken) == taken_before + 1


def test_pipelined_calls_are_answered_in_their_order(wire: Api, taken: list[bytes]) -> None:
    many = [BODY, OTHER, OTHER, BODY, OTHER] * 4
    with connected(wire) as connection:
        connection.sendall(b"".join(request(body) for body in many) + request(b"", "/health/live", method="GET"))
        found = answers(connection, len(many) + 1)
        assert [inputs(answer) for answer in found[:-1]] == [len(json.loads(body)["inputs"]) for body in many]
        assert found[-1][0] == 200
        connection.sendall(request(OTHER))
        assert inputs(answers(connection, 1)[0]) == 2
    assert taken[0] == BODY
    assert taken[-1] == OTHER


def test_a_call_behind_one_that_is_under_way_waits_for_it(wire: Api) -> None:
    with connected(wire) as connection:
        connection.sendall(request(OTHER) + request(BODY)[:40])
        assert inputs(answers(connection, 1)[0]) == 2
        connection.sendall(request(BODY)[40:] + request(OTHER))
        assert [inputs(answer) for answer in answers(connection, 2)] == [1, 2]


@pytest.mark.parametrize("again", [False, True])
def test_a_call_that_is_refused_for_load_is_answered_before_its_body_came(
    wire: Api, monkeypatch: pytest.MonkeyPatch, again: bool
) -> None:
    whole, full = request(OTHER), Event()

    def saturated(name: str) -> None:
        if full.is_set():
            raise Overloaded("much is waiting", retry_after_s=3)

    monkeypatch.setattr(wire.service.models, "refuse_if_saturated", saturated)
    with connected(wire) as connection:
        if again:
            connection.sendall(whole)
            assert inputs(answers(connection, 1)[0]) == 2
        full.set()
        for _ in range(2):
            connection.sendall(whole[:-20])
            (refused,) = answers(connection, 1)
            assert (refused[0], refused[1]["retry-after"]) == (503, "3")
            assert json.loads(refused[2])["type"].endswith("overloaded")
            connection.sendall(whole[-20:])
        full.clear()
        connection.sendall(whole[:-20])
        assert wire.get("/health/live").status_code == 200
        connection.sendall(whole[-20:] + request(BODY))
        assert [inputs(answer) for answer in answers(connection, 2)] == [2, 1]


def chunked(body: bytes, size: int) -> bytes:
    parts = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_a_chunked_body_is_put_together(wire: Api, taken: list[bytes], size: int) -> None:
    head = request(b"", PATH, "Transfer-Encoding: chunked")
    with connected(wire) as connection:
        connection.sendall(head + chunked(OTHER, size))
        assert inputs(answers(connection, 1)[0]) == 2
    assert taken == [OTHER]


@pytest.mark.parametrize(
    "more",
    [
        ("Transfer-Encoding: chunked", "Content-Length: 4"),
        ("Content-Length: 4", "Transfer-Encoding: chunked"),
        ("Transfer-Encoding: xchunked",),
        ("Transfer-Encoding: chunked, identity",),
    ],
)
def test_a_body_whose_length_is_said_in_two_ways_is_no_request(wire: Api, more: tuple[str, ...]) -> None:
    smuggled = b"0\r\n\r\nGET /health/live HTTP/1.1\r\nHost: handful\r\n\r\n"
    with connected(wire) as connection:
        connection.sendall(request(smuggled, PATH, *more))
        (found,) = answers(connection, 1)
        assert found[0] >= 400
        assert connection.recv(1000) == b""  # and no second answer


def test_a_second_content_length_is_no_request(wire: Api) -> None:
    with connected(wire) as connection:
        connection.sendall(request(BODY, PATH, "Content-Length: 3"))
        (found,) = answers(connection, 1)
        assert (found[0], found[1]["content-type"]) == (400, "application/problem+json")
        assert connection.recv(1000) == b""


def test_a_client_that_waits_for_a_100_gets_it(wire: Api, taken: list[bytes]) -> None:
    whole = request(BODY, PATH, "Expect: 100-continue")
    with connected(wire) as connection:
        connection.sendall(whole[: -len(BODY)])
        assert connection.recv(1000).startswith(b"HTTP/1.1 100 Continue")
        connection.sendall(BODY)
        assert inputs(answers(connection, 1)[0]) == 1
    assert taken == []


@pytest.mark.parametrize(("http", "more"), [("1.0", ()), ("1.1", ("Connection: close",))])
def test_a_connection_that_shall_close_is_closed_after_the_answer(wire: Api, http: str, more: tuple[str, ...]) -> None:
    with connected(wire) as connection:
        connection.sendall(request(BODY, PATH, *more, http=http))
        (found,) = answers(connection, 1)
        assert inputs(found) == 1
        assert found[1]["connection"] == "close"
        assert connection.recv(1000) == b""


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (request(b"[" + b" " * 5000), 413),
        (request(b"", PATH, "Transfer-Encoding: chunked") + chunked(b" " * 5000, 1000), 413),
        (request(b"{"), 400),
        (request(BODY, "/v1/models/nothing/predict"), 404),
        (request(BODY, "/v1/models/t%69ny/predict"), 200),
        (request(BODY, f"http://handful{PATH}"), 200),
        (request(BODY, f"{PATH}?adaptation=x"), 422),
        (request(BODY, PATH, "X-Deadline-Ms: soon"), 422),
        (request(BODY, method="GET"), 405),
    ],
)
def test_odd_calls_are_answered_by_what_is_wrong_and_the_next_one_is_good(
    wire: Api, content: bytes, status: int
) -> None:
    with connected(wire) as connection:
        connection.sendall(content)
        (found,) = answers(connection, 1)
        assert found[0] == status, found
        if found[1].get("connection") != "close":
            connection.sendall(request())
            assert inputs(answers(connection, 1)[0]) == 1


@pytest.mark.parametrize("cut", [0, -len(OTHER), -3])
def test_a_call_that_offers_an_upgrade_is_answered_as_it_is(wire: Api, cut: int) -> None:
    more = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__")
    whole = request(OTHER, PATH, *more)
    with connected(wire) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for part in (whole[:cut], whole[cut:]) if cut else (whole,):
            connection.sendall(part)
            assert wire.get("/health/live").status_code == 200
        assert inputs(answers(connection, 1)[0]) == 2
        connection.sendall(request(b"", "/health/live", *more, method="GET") + request())
        assert [answer[0] for answer in answers(connection, 2)] == [200, 200]


def test_a_body_behind_an_upgrade_is_no_request(wire: Api) -> None:
    hidden = request(b"", "/v1/models", method="GET")
    with connected(wire) as connection:
        connection.sendall(request(hidden, PATH, "Connection: Upgrade", "Upgrade: h2c"))
        (found,) = answers(connection, 1)
        assert (found[0], json.loads(found[2])["type"]) == (400, "urn:handful:problem:not-json")
        connection.sendall(request())
        assert inputs(answers(connection, 1)[0]) == 1


def test_a_tunnel_is_refused(wire: Api) -> None:
    with connected(wire) as connection:
        connection.sendall(b"CONNECT handful:80 HTTP/1.1\r\nHost: handful\r\n\r\n" + request())
        assert answers(connection, 1)[0][0] == 400
        assert connection.recv(1000) == b""


def test_a_head_that_does_not_end_is_refused(wire: Api) -> None:
    with connected(wire) as connection:
        connection.sendall(f"POST {PATH} HTTP/1.1\r\nHost: handful\r\nX-Long: ".encode())
        with suppress(OSError):  # the server may have closed before all was sent
            for _ in range(64):
                connection.sendall(b"x" * 16384)
    assert 'route="unmatched",status="413"' in wire.get("/metrics").text
    assert wire.post(PATH, content=BODY, headers={"Content-Type": "application/json"}).status_code == 200


def test_what_is_no_http_after_a_call_does_no_harm(wire: Api) -> None:
    with connected(wire) as connection:
        connection.sendall(request() + b"\x00\x01nonsense\r\n\r\n")
        found = answers(connection, 1)[0]
        assert (found[0], found[1]["content-type"]) == (400, "application/problem+json")
        assert json.loads(found[2])["type"] == "urn:handful:problem:not-http"
    assert wire.post(PATH, content=BODY, headers={"Content-Type": "application/json"}).status_code == 200


def test_a_client_that_goes_without_reading_leaves_nothing_behind(wire: Api) -> None:
    for _ in range(20):
        with connected(wire) as connection:
            connection.sendall(request(OTHER) + request(BODY))
    assert wire.post(PATH, content=BODY, headers={"Content-Type": "application/json"}).status_code == 200
    for _ in range(500):
        if "handful_requests_in_flight 1.0" in wire.get("/metrics").text:
            return
    raise AssertionError("calls of clients that are gone are still at work")


def test_a_draining_server_closes_each_connection_with_its_answer(tmp_path: Path) -> None:
    build(tmp_path / "bundles", TINY)
    with served(tmp_path) as api, connected(api) as connection:
        connection.sendall(request())
        assert "connection" not in answers(connection, 1)[0][1]
        api.run(_drain(api))
        connection.sendall(request(OTHER))
        (found,) = answers(connection, 1)
        assert inputs(found) == 2
        assert found[1]["connection"] == "close"
        assert connection.recv(1000) == b""


async def _drain(api: Api) -> None:
    api.app.state.server.drain()


@pytest.fixture
def parsed_heads(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The targets of the heads that the parser read."""
    found: list[bytes] = []
    complete = protocol.PredictProtocol.on_headers_complete

    def noted(self: protocol.PredictProtocol) -> None:
        found.append(self.url)
        complete(self)

    monkeypatch.setattr(protocol.PredictProtocol, "on_headers_complete", noted)
    return found


def test_a_head_that_comes_again_is_read_once_whatever_the_length_of_the_body(
    wire: Api, taken: list[bytes], parsed_heads: list[bytes]
) -> None:
    bodies = [BODY, OTHER, BODY + b" " * 900, BODY]
    with connected(wire) as connection:
        ids = set()
        for body in bodies:
            connection.sendall(request(body))
            (found,) = answers(connection, 1)
            assert inputs(found) == len(json.loads(body)["inputs"])
            ids.add(found[1]["x-request-id"])
    assert taken == bodies
    assert len(parsed_heads) == 1
    assert len(ids) == len(bodies)


@pytest.mark.parametrize("cut", [1, 30, -len(OTHER) - 5, -len(OTHER), -len(OTHER) + 1, -1])
def test_a_known_head_in_pieces_is_parsed(wire: Api, parsed_heads: list[bytes], cut: int) -> None:
    whole = request(OTHER)
    with connected(wire) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(2):
            connection.sendall(request())
            assert inputs(answers(connection, 1)[0]) == 1
            connection.sendall(whole[:cut])
            time.sleep(0.05)
            connection.sendall(whole[cut:])
            assert inputs(answers(connection, 1)[0]) == 2
    assert len(parsed_heads) == 3  # all but the third call's


@pytest.mark.parametrize(
    ("length", "status"),
    [
        ("+{}", 400),
        ("-{}", 400),
        ("0x{}", 400),
        ("{0}, {0}", 400),
        ("{} 1", 400),
        ("", 400),
        ("{:012d}", 200),
        ("{}\r\nContent-Length: {}", 400),
        ("{}\r\nTransfer-Encoding: chunked", 400),
    ],
)
def test_the_length_behind_a_known_head_is_read_as_strictly(wire: Api, length: str, status: int) -> None:
    with connected(wire) as connection:
        connection.sendall(request())
        assert inputs(answers(connection, 1)[0]) == 1
        odd = length.format(len(BODY), len(BODY) + 1)
        connection.sendall(request().replace(b"Content-Length: %d" % len(BODY), b"Content-Length: " + odd.encode()))
        assert answers(connection, 1)[0][0] == status


def test_more_or_less_than_a_request_behind_a_known_head_is_framed_by_the_parser(wire: Api) -> None:
    with connected(wire) as connection:
        connection.sendall(request())
        assert inputs(answers(connection, 1)[0]) == 1
        connection.sendall(request(OTHER) + request() + request(OTHER)[:-7])
        assert [inputs(found) for found in answers(connection, 2)] == [2, 1]
        connection.sendall(request(OTHER)[-7:] + request())
        assert [inputs(found) for found in answers(connection, 2)] == [2, 1]


def test_heads_that_differ_are_told_apart(wire: Api, parsed_heads: list[bytes]) -> None:
    with connected(wire) as connection:
        for name in ("tiny", "nobody", "tiny", "tiny", "none"):
            connection.sendall(request(BODY, f"/v1/models/{name}/predict"))
            assert answers(connection, 1)[0][0] == (200 if name == "tiny" else 404)
        connection.sendall(request(BODY, PATH, "X-Request-Id: mine"))
        assert answers(connection, 1)[0][1]["x-request-id"] == "mine"
        connection.sendall(request(BODY, PATH, "X-Request-Id: mini"))
        assert answers(connection, 1)[0][1]["x-request-id"] == "mini"
    assert len(parsed_heads) == 6  # all but one


def test_a_key_that_is_taken_away_is_refused_though_its_head_is_known(tmp_path: Path) -> None:
    build(tmp_path / "bundles", TINY)
    keys = tmp_path / "keys"
    alice, bob = (append_key(keys, name, name, "predict") for name in ("alice", "bob"))
    without_alice = "".join(line for line in keys.read_text().splitlines(keepends=True) if "alice" not in line)
    with served(tmp_path, keys=keys) as api, connected(api) as connection:

        def status(key: str) -> int:
            connection.sendall(request(BODY, PATH, f"Authorization: Bearer {key}"))
            return answers(connection, 1)[0][0]

        assert [status(key) for key in (alice, alice, bob, alice, f"{alice[:-1]}_")] == [200, 200, 200, 200, 401]
        assert [status(alice), status(alice)] == [200, 200]
        keys.write_text(without_alice)
        give_up = time.monotonic() + 10
        while status(alice) == 200:
            assert time.monotonic() < give_up
        assert [status(alice), status(bob), status(bob)] == [401, 200, 200]


def test_a_connection_that_waits_is_closed_after_its_time_and_not_before(
    wire: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = protocol.PredictProtocol.connection_made

    def impatient(self: protocol.PredictProtocol, transport: asyncio.Transport) -> None:
        made(self, transport)
        self.timeout_keep_alive = 2.0  # type: ignore[assignment]

    monkeypatch.setattr(protocol.PredictProtocol, "connection_made", impatient)
    with connected(wire) as connection:
        for _ in range(4):
            connection.sendall(request())
            assert inputs(answers(connection, 1)[0]) == 1
            time.sleep(0.7)  # together longer than it may wait
        started = time.monotonic()
        assert connection.recv(1) == b""
        assert 0.5 < time.monotonic() - started < 10


def test_the_end_of_a_connection_is_told_once_it_is_not_counted(wire: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    lost: list[int] = []
    end = protocol.PredictProtocol.connection_lost

    def noted(self: protocol.PredictProtocol, exc: Exception | None) -> None:
        self.on_lost = lambda: lost.append(self in self.connections)  # type: ignore[assignment, misc]
        end(self, exc)

    monkeypatch.setattr(protocol.PredictProtocol, "connection_lost", noted)
    for _ in range(2):
        with connected(wire) as connection:
            connection.sendall(request())
            assert inputs(answers(connection, 1)[0]) == 1
    give_up = time.monotonic() + 10
    while len(lost) < 2:
        assert time.monotonic() < give_up
    assert not any(lost)  # those of other tests may be among them
