"""The comparison with other servers: what it makes, what it reads, and what it claims."""

import importlib.util
import json
import re
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from loadtests.peers import bundles, catalogue, environments, graphs, pages, wrk
from loadtests.peers.__main__ import PEERS, chosen
from loadtests.peers.catalogue import OURS, body_of, scores_of
from loadtests.peers.comparing import Bound, Held, Medians, Pair, Rounds, held_to, pairs_of, ratio
from loadtests.peers.measuring import bodies_of
from tests.serving import ROOT, command

USERS = 4
LINE = 'wrk: {"requests": 1000, "duration_us": 2000000, "p50_us": 1500, "p99_us": 9000, "max_us": 20000, '
FAILED = '"connect": 1, "read": 2, "write": 0, "status": 30, "timeout": 4}'


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    bundles.write(folder, USERS)
    return folder


@pytest.fixture(scope="module")
def heads() -> ModuleType:
    """What the peers' server programs share; they run in environments of their own, so it is no part of a package."""
    spec = importlib.util.spec_from_file_location("heads", ROOT / "loadtests/peers/servers/heads.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_what_wrk_counted_is_read_from_its_one_line_and_failed_calls_are_no_throughput() -> None:
    found = wrk.parse(f"Running 2s test\n  Latency 1.00ms\n{LINE}{FAILED}\nRequests/sec: 500\n")
    assert (found.requests, found.seconds, found.failed) == (1000, 2.0, 37)
    assert (found.p50_ms, found.p99_ms, found.max_ms) == (1.5, 9.0, 20.0)
    assert found.requests_per_s == (1000 - 37) / 2


@pytest.mark.parametrize("output", ["", "Requests/sec: 500", f"{LINE}{FAILED}\n{LINE}{FAILED}"])
def test_output_without_just_one_line_of_figures_is_refused(output: str) -> None:
    with pytest.raises(ValueError, match="lines of figures"):
        wrk.parse(output)


class Listening:
    """A server that keeps what it was sent and answers everything with a status."""

    def __init__(self, status: bytes) -> None:
        self.requests: list[bytes] = []
        self._status = status
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        got = b""
        with connection, suppress(ConnectionError):  # wrk hangs up in the middle of a call
            while piece := connection.recv(65536):
                got += piece
                while (head := got.partition(b"\r\n\r\n"))[1]:
                    length = int(re.findall(rb"content-length: (\d+)", head[0].lower())[0])
                    if len(head[2]) < length:
                        break
                    self.requests.append(head[0] + b"\r\n\r\n" + head[2][:length])
                    got = head[2][length:]
                    connection.sendall(b"HTTP/1.1 " + self._status + b"\r\nContent-Length: 0\r\n\r\n")

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def listening(request: pytest.FixtureRequest) -> Iterator[Listening]:
    server = Listening(getattr(request, "param", b"200 OK"))
    yield server
    server.close()


needs_wrk = pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk is not installed")


@needs_wrk
def test_wrk_sends_each_body_whole_and_in_turn_with_the_key(listening: Listening, tmp_path: Path) -> None:
    sent = [b'{"inputs": [[1]]}', bytes(range(256)) * 3, b"\n\n7\n"]
    wrk.write_bodies(tmp_path / "bodies", sent)
    url = f"http://127.0.0.1:{listening.port}/predict"
    target = wrk.Target(url, tmp_path / "bodies", "application/octet-stream", "the.key")
    counted = wrk.send(target, connections=1, seconds=1)
    assert counted.failed == 0
    assert len(listening.requests) >= counted.requests > 3
    found = [request.partition(b"\r\n\r\n")[2] for request in listening.requests]
    # wrk asks its script for a request or two before it starts to send.
    start = sent.index(found[0])
    assert all(body == sent[(start + place) % 3] for place, body in enumerate(found[:30]))
    assert b"Authorization: Bearer the.key" in listening.requests[0]
    assert b"Content-Type: application/octet-stream" in listening.requests[0]
    assert listening.requests[0].startswith(b"POST /predict HTTP/1.1")


@needs_wrk
@pytest.mark.parametrize("exponent", [0.0, 1.5])
def test_wrk_draws_users_alike_often_or_by_their_rank(listening: Listening, tmp_path: Path, exponent: float) -> None:
    wrk.write_bodies(tmp_path / "bodies", [b'{"adaptation": "user-0000000", "inputs": [[1]]}'])
    url = f"http://127.0.0.1:{listening.port}/predict"
    wrk.send(wrk.Target(url, tmp_path / "bodies", order="users", users=5, exponent=exponent), connections=2, seconds=1)
    asked = [json.loads(request.partition(b"\r\n\r\n")[2])["adaptation"] for request in listening.requests]
    shares = [asked.count(f"user-000000{user}") / len(asked) for user in range(5)]
    assert sum(shares) == pytest.approx(1)
    weights = np.arange(1, 6) ** -exponent
    assert np.allclose(shares, weights / weights.sum(), atol=0.1)


@needs_wrk
@pytest.mark.parametrize("listening", [b"503 Service Unavailable"], indirect=True)
def test_calls_that_are_refused_count_as_failed(listening: Listening, tmp_path: Path) -> None:
    wrk.write_bodies(tmp_path / "bodies", [b"{}"])
    counted = wrk.send(wrk.Target(f"http://127.0.0.1:{listening.port}/", tmp_path / "bodies"), connections=1, seconds=1)
    assert counted.failed == counted.requests > 0
    assert counted.requests_per_s == 0


@pytest.mark.parametrize("name", ["mlp", "conv4", "heads", "conv4-heads"])
def test_a_bundle_of_the_comparison_passes_the_check(made: Path, name: str) -> None:
    check = command("check", str(made / "bundles" / name / "1"))
    ended = subprocess.run(check, capture_output=True, text=True, check=False, timeout=100)
    assert ended.returncode == 0, ended.stdout + ended.stderr


@pytest.mark.parametrize("model", ["heads", "conv4-heads"])
def test_a_session_a_user_and_gathered_heads_answer_as_the_adaptation_does(
    made: Path, heads: ModuleType, model: str
) -> None:
    width = catalogue.WIDTHS[model]
    x = bundles.queries(8, width)
    users = [0, 1, 2, 3, 3, 0, 2, 1]
    folder = made / "bundles" / model / "1"
    features = {"x": x, "s": np.concatenate([graphs.support(user, width) for user in range(USERS)])}
    name = "x"
    if model == "conv4-heads":
        trunk = bundles.session((folder / "encode.onnx").read_bytes())
        features, name = {key: trunk.run(None, {"x": rows})[0] for key, rows in features.items()}, "features"
    shown = {f"{name}_s": features["s"].reshape(USERS, 10, -1), "y_s": np.tile(np.arange(10), (USERS, 1))}
    sums = bundles.ran(
        (folder / "summarise.onnx").read_bytes(), {**shown, "weight_s": np.ones((USERS, 10), np.float32)}
    )
    phi = bundles.ran((folder / "adapt.onnx").read_bytes(), sums)
    rows = {key: array[users] for key, array in phi.items()}
    expected = bundles.ran((folder / "predict.onnx").read_bytes(), {name: features["x"], **rows})["y"][:, 0]
    for way in (heads.Sessions, heads.Gathered):
        assert np.allclose(way(made / "graphs", model).run(x, users), expected, atol=1e-3), way
    assert len({tuple(row) for row in expected.argsort(-1)}) > 1


def test_a_head_tells_the_nearest_prototype() -> None:
    prototypes, x = graphs.support(3, 256), bundles.queries(1, 256)[0]
    head = graphs.head_of(prototypes)
    distances = np.square(prototypes - x).sum(-1)
    assert np.allclose(head["weight"] @ x + head["bias"] - np.square(x).sum(), -distances, atol=1e-3)


def test_batched_requests_get_their_own_rows_back(made: Path, heads: ModuleType) -> None:
    model = heads.Gathered(made / "graphs", "heads")
    rows = bundles.queries(6, 256).tolist()
    asked = [{"inputs": rows[:1], "user": 2}, {"inputs": rows[1:4]}, {"inputs": rows[4:], "user": 1}]
    together = heads.batched(model, asked)
    assert [len(answer["labels"]) for answer in together] == [1, 3, 2]
    for one, answer in zip(asked, together, strict=True):
        (alone,) = heads.batched(model, [one])
        assert answer["labels"] == alone["labels"]
        assert np.allclose(answer["logits"], alone["logits"], atol=1e-4)


LOGITS = [[float(label) for label in range(10)], [5.0] * 10]


@pytest.mark.parametrize(
    ("peer", "answer"),
    [
        ("mosec", {"labels": [9, 0], "logits": LOGITS}),
        ("bentoml", LOGITS),
        ("mlserver", {"outputs": [{"data": LOGITS[0] + LOGITS[1], "shape": [2, 10]}]}),
        (OURS, {"predictions": [{"scores": {f"label-{n}": v for n, v in enumerate(row)}} for row in LOGITS]}),
    ],
)
def test_answers_of_every_form_are_read_as_probabilities(peer: str, answer: Any) -> None:
    found = scores_of(peer, json.dumps(answer).encode())
    if peer == OURS:
        assert np.array_equal(found, LOGITS)
        return
    raised = np.exp(LOGITS)
    assert np.allclose(found, raised / raised.sum(-1, keepdims=True))


def test_every_peer_is_sent_the_same_rows() -> None:
    rows = [[0.25] * 256, [0.5] * 256]
    plain = json.loads(body_of("fastapi", rows, 3))
    assert plain == {"inputs": rows, "user": 3}
    assert json.loads(body_of(OURS, rows, 3)) == {"inputs": rows, "adaptation": "user-3"}
    assert json.loads(body_of(OURS, rows, None)) == {"inputs": rows}
    (tensor,) = json.loads(body_of("mlserver", rows, None))["inputs"]
    assert np.array_equal(np.reshape(tensor["data"], tensor["shape"]), rows)


def test_bodies_have_four_decimals_and_as_many_rows_as_the_workload_says() -> None:
    works = {work.name: work for work in catalogue.WORKLOADS}
    single = bodies_of("mosec", works["MLP"], USERS)
    assert {len(json.loads(body)["inputs"]) for body in single} == {1}
    assert len(set(single)) == 64
    assert re.fullmatch(rb"\d\.\d{1,4}", single[0].partition(b"[[")[2].partition(b",")[0])
    assert {len(json.loads(body)["inputs"]) for body in bodies_of("mosec", works["MLP, 16 rows"], USERS)} == {16}
    raw = bodies_of(OURS, works["MLP, bytes"], USERS)
    row = json.loads(single[0])["inputs"][0]
    assert np.allclose(np.frombuffer(raw[0], np.float32), row, atol=1e-6)
    mine = [json.loads(body)["adaptation"] for body in bodies_of(OURS, works["personal heads"], USERS)]
    assert mine == [f"user-{user}" for user in range(USERS)]


@pytest.mark.parametrize("peer", PEERS)
def test_every_version_of_a_peers_environment_is_locked(peer: str) -> None:
    lines = (environments.REQUIREMENTS / f"{peer}.txt").read_text(encoding="utf-8").splitlines()
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+==\S+", line) for line in lines), lines
    assert environments.version(peer)
    assert {"numpy", "onnxruntime"} <= {line.partition("==")[0] for line in lines}
    assert (ROOT / "loadtests/peers/servers" / f"{peer}_server.py").exists()


def test_an_environment_of_other_versions_is_made_anew_and_a_failure_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environments, "REQUIREMENTS", tmp_path)
    (tmp_path / "none.txt").write_text("handful-has-no-such-package==1\n", encoding="utf-8")
    ran: list[list[str]] = []
    monkeypatch.setattr(environments, "_run", lambda command: ran.append(list(command)))
    (tmp_path / "envs" / "none").mkdir(parents=True)
    environments.python(tmp_path / "envs", "none")
    environments.python(tmp_path / "envs", "none")
    assert len(ran) == 2, "one for venv and one for pip; the second time nothing"
    (tmp_path / "none.txt").write_text("handful-has-no-such-package==2\n", encoding="utf-8")
    environments.python(tmp_path / "envs", "none")
    assert len(ran) == 4
    monkeypatch.undo()
    with pytest.raises(environments.NotInstalled, match="no way"):
        environments._run([sys.executable, "-c", "import sys; sys.exit('no way')"])


def a_run(setting: str, workload: str, connections: int, rate: float, **more: Any) -> dict[str, Any]:
    peer = setting.partition(",")[0]
    figures = {"requests_per_s": rate, "p50_ms": 1.0, "p99_ms": 10.0, "cpu_us": 100.0, "pss_mb": 100.0, "failed": 0}
    names = {"peer": peer, "setting": setting, "way": "shared", "default": True, "workload": workload}
    return {**names, "connections": connections, "repetition": 0, **figures, **more}


RUNS = [
    *(a_run("handful, defaults", "MLP", 16, rate, failed=1, p99_ms=8.0) for rate in (500.0, 300.0, 400.0)),
    *(a_run("mosec, one at a time", "MLP", 16, rate) for rate in (100.0, 90.0, 1000.0)),
    *(a_run("mosec, batches of 64, 1 ms", "MLP", 16, rate) for rate in (200.0, 210.0, 150.0)),
    *(a_run("fastapi, on the loop", "MLP", 16, rate, p99_ms=5.0) for rate in (90.0, 100.0, 80.0)),
    a_run("handful, unbatched", "MLP", 16, 9000.0, default=False),
    a_run("handful, defaults", "personal heads", 64, 3000.0),
    a_run("mosec, a session a user", "personal heads", 64, 1000.0, way="sessions", pss_mb=2000.0),
    a_run("mosec, heads gathered by hand", "personal heads", 64, 4000.0, way="gathered"),
]


def test_the_best_setting_of_the_best_peer_is_found_among_medians() -> None:
    medians = Medians(RUNS)
    best = medians.best("MLP", 16, lambda row: row["peer"] != OURS)
    assert best is not None
    assert (best["setting"], best["requests_per_s"], best["runs"]) == ("mosec, batches of 64, 1 ms", 200.0, 3)
    mine = medians.ours("MLP", 16)
    assert mine is not None
    assert (mine["requests_per_s"], mine["failed"]) == (400.0, 3), "failed calls add up, and only defaults count"
    assert ratio(mine, best) == 2.0
    assert ratio(mine, None) is ratio(None, best) is None
    assert medians.best("MLP", 1, lambda row: True) is None


def test_what_is_held_to_is_computed_from_the_runs() -> None:
    held = {one.what.partition(" (")[0]: one for one in held_to(Medians(RUNS))}
    best = held["MLP, 16 connections: throughput × that of the best peer"]
    assert best.value == 2.0
    assert (best.reached("first"), best.reached("second")) == (True, False)
    assert held["MLP, 16 connections: p99 × that of the same"].value == 0.8
    assert held["MLP, 16 connections: throughput × that of FastAPI by hand"].value == pytest.approx(400 / 90)
    own = held["personal heads: throughput × the best peer's with a session a user"]
    assert (own.value, own.reached("first"), own.reached("second")) == (3.0, True, True)
    gathered = held["personal heads: throughput × a peer's with heads gathered by hand"]
    assert (gathered.value, gathered.reached("first"), gathered.reached("second")) == (0.75, None, False)
    nothing = held["Conv-4, 64 connections: throughput × that of the best peer"]
    assert nothing.value is nothing.reached("second") is None


def a_round(number: int, mine: float, its: float, late: float = 2.0) -> dict[str, Any]:
    pair = {"workload": "MLP", "connections": 16, "other": "mosec, batches of 64, 1 ms", "round": number}
    figures = {"p99_ms": 4.0, "failed": 1}
    return {
        **pair,
        "mine": {"requests_per_s": mine, **figures},
        "its": {**figures, "requests_per_s": its, "p99_ms": late},
    }


ROUNDS = [a_round(0, 300.0, 100.0), a_round(1, 90.0, 100.0, 8.0), a_round(2, 500.0, 200.0, 4.0)]


def test_what_was_asked_by_turns_counts_by_the_ratios_within_its_rounds() -> None:
    held = {one.what.partition(" (")[0]: one.value for one in held_to(Medians(RUNS), Rounds(ROUNDS))}
    assert held["MLP, 16 connections: throughput × that of the best peer"] == 2.5
    assert held["MLP, 16 connections: p99 × that of the same"] == 1.0
    assert held["MLP, 16 connections: throughput × that of FastAPI by hand"] == pytest.approx(400 / 90), "of the runs"
    own = "personal heads: throughput × the best peer's with a session a user"
    assert held[own] == 3.0


def test_all_that_is_compared_is_asked_by_turns_once() -> None:
    pairs = pairs_of(Medians(RUNS))
    assert pairs == [
        Pair("MLP", 16, "mosec, batches of 64, 1 ms"),
        Pair("MLP", 16, "fastapi, on the loop"),
        Pair("personal heads", 64, "mosec, a session a user"),
        Pair("personal heads", 64, "mosec, heads gathered by hand"),
    ]


def test_a_bound_is_the_least_or_the_most() -> None:
    assert Held("", 1.0, Bound(1.0, 1.1)).reached("first") is True
    assert Held("", 1.0, Bound(1.0, 1.1)).reached("second") is False
    assert Held("", 1.0, Bound(0.9, 1.1, at_most=True)).reached("first") is False
    assert Held("", 1.0, Bound(0.9, 1.1, at_most=True)).reached("second") is True


def test_the_page_has_every_server_every_ratio_and_what_could_not_be_measured(tmp_path: Path) -> None:
    result = {
        "command": "c", "machine": "m", "processor": "p", "commit": "x", "started_at": "t", "users": 1000,
        "load_average_at_start": 0.1, "repetitions": 3, "seconds": 2, "flags": ["--workers", "2"],
        "versions": {"mosec": "1.2.3"}, "failures": {"ray, HAProxy: mlp": "not installed: no"}, "runs": RUNS,
        "rounds": ROUNDS,
    }  # fmt: skip
    medians = Medians(RUNS)
    text = pages.page(result, held_to(medians), "chart.png")
    for name in {run["setting"] for run in RUNS}:
        assert f"| {name} |" in text
    assert "**2.00**" in text
    assert "**not reached**" in text
    assert "not measured" in text
    assert "ray, HAProxy: mlp: `not installed: no`" in text
    assert "- mosec 1.2.3" in text
    assert "| MLP | 16 | mosec, batches of 64, 1 ms | 300 | 100 | **2.50** | 0.90, 3.00 | 1.00 | 6 |" in text
    table = {**result, "commit": "y"}
    again = pages.page({**result, "table": table}, held_to(medians), "chart.png")
    assert "commit x" in again
    assert "commit y" in again
    widths = {line.count("|") for line in text.partition("## A head")[0].splitlines() if line.startswith("|")}
    assert len(widths) == 1, "every row of a table has as many cells"
    pages.draw_chart(medians, tmp_path / "chart.png")
    assert (tmp_path / "chart.png").read_bytes().startswith(b"\x89PNG")


def test_only_names_servers_and_workloads_and_nothing_else() -> None:
    servers, works = chosen(["mosec", "MLP"])
    assert (servers, [work.name for work in works]) == (["mosec"], ["MLP"])
    assert chosen([])[0] == [OURS, *PEERS]
    assert len(chosen(["mosec"])[1]) == len(catalogue.WORKLOADS)
    with pytest.raises(SystemExit, match="nothing"):
        chosen(["nothing"])
