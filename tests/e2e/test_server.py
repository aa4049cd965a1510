"""The real process on a free port."""

import json
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from tests.serving import BUNDLES, ROOT, Process, command, process
from tests.tasks import Glyphs, alike, field, labels, problem, scores

ADAPTATIONS = "/v1/models/glyphs/adaptations"
PREDICT = "/v1/models/glyphs/predict"


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    """A model repository with one changed byte in a graph."""
    root = tmp_path / "damaged"
    shutil.copytree(BUNDLES / "glyphs" / "1", root / "glyphs" / "1")
    graph = root / "glyphs" / "1" / "encode.onnx"
    content = bytearray(graph.read_bytes())
    content[len(content) // 2] ^= 1
    graph.write_bytes(content)
    return root


def until(condition: Callable[[], bool], within_s: float = 20) -> None:
    """Wait until a condition holds, looking often."""
    end = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < end, f"not within {within_s} s"
        time.sleep(0.01)


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments), capture_output=True, text=True, check=False, cwd=ROOT, timeout=60,
        env={"PATH": "/usr/bin:/bin", **environment},
    )  # fmt: skip


def test_a_request_from_outside_is_answered_with_its_id_and_logged_as_json(tmp_path: Path, glyphs: Glyphs) -> None:
    chosen = glyphs.names[:5]
    body = {"inputs": glyphs.queries(chosen), "support": glyphs.support(chosen, (0, 1))}
    with process(tmp_path) as server:
        answer = server.request("POST", PREDICT, json=body, headers={"X-Request-Id": "click-1"})
        assert answer.headers["x-request-id"] == "click-1"
        assert len(labels(answer)) == 5
        until(lambda: any(line.get("request_id") == "click-1" for line in server.log()))
        line = next(line for line in server.log() if line.get("request_id") == "click-1")
        assert (line["event"], line["route"], line["status"]) == ("request", "/v1/models/{model}/predict", 200)
        assert all({"time", "level", "logger", "event"} <= line.keys() for line in server.log())
        events = [line["event"] for line in server.log()]
        assert events.index("bundle") < events.index("ready")
        assert server.event("runtime")["threads"] >= 1


def test_it_listens_at_once_and_is_ready_only_after_its_golden_checks(tmp_path: Path) -> None:
    with process(tmp_path, ready=False) as server:
        server.url = f"http://{server.event('listening')['address']}"
        seen = []
        while not seen or seen[-1] != 200:
            seen.append(server.request("GET", "/health/ready").status_code)
            assert set(seen) <= {503, 200}
            assert (seen[-1] == 200) <= any(line["event"] == "bundle" for line in server.log())
        assert server.request("GET", "/health/live").status_code == 200


def test_a_signal_turns_readiness_off_first_and_accepted_work_is_still_answered(tmp_path: Path, glyphs: Glyphs) -> None:
    support = {"support": glyphs.support(glyphs.names[:3])}
    waits = {"inputs": glyphs.queries(glyphs.names[:3]), "adaptation": "alice", "options": {"min_revision": 2}}
    answers: list[httpx.Response] = []

    def wait(server: Process) -> None:
        with httpx.Client(timeout=30) as client:
            answers.append(client.post(server.url + PREDICT, json=waits))

    with process(tmp_path) as other, process(tmp_path, drain_ms=500) as server:
        assert other.request("PUT", f"{ADAPTATIONS}/alice", json=support).json()["revision"] == 1
        waiting = threading.Thread(target=wait, args=(server,))
        waiting.start()
        until(lambda: "requests_in_flight 2" in server.request("GET", "/metrics").text)
        server.popen.send_signal(signal.SIGTERM)
        until(lambda: server.request("GET", "/health/ready").status_code == 503)
        assert server.request("GET", "/v1/models").status_code == 200, "calls are still taken while it drains"
        server.client.close()
        until(lambda: not _accepts(server))
        assert (server.popen.poll(), answers) == (None, []), "it waits for the call that it has accepted"
        assert other.request("PUT", f"{ADAPTATIONS}/alice", json=support).json()["revision"] == 2
        waiting.join(30)
        assert labels(answers[0]) == glyphs.names[:3]
        assert server.exit_code() == 0


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_an_idle_server_ends_it_with_exit_code_0(tmp_path: Path, sent: signal.Signals) -> None:
    with process(tmp_path, drain_ms=0) as server:
        server.popen.send_signal(sent)
        assert server.exit_code() == 0


def test_a_killed_server_has_kept_what_it_acknowledged(tmp_path: Path, glyphs: Glyphs) -> None:
    chosen = glyphs.names[:4]
    queries = glyphs.queries(chosen)
    ask = {"inputs": queries, "adaptation": "alice"}
    event = {"examples": [{**glyphs.support(glyphs.names[4:5])[0], "event_id": "click"}]}
    with process(tmp_path) as server:
        assert server.request("PUT", f"{ADAPTATIONS}/alice", json={"support": glyphs.support(chosen)}).is_success
        written = server.request("POST", f"{ADAPTATIONS}/alice/examples", json=event)
        before = scores(server.request("POST", PREDICT, json=ask))
        server.popen.kill()
        assert server.exit_code() == -signal.SIGKILL
    with process(tmp_path) as server:
        found = server.request("GET", f"{ADAPTATIONS}/alice")
        assert found.headers["etag"] == written.headers["etag"]
        assert alike(scores(server.request("POST", PREDICT, json=ask)), before)
        again = server.request("POST", f"{ADAPTATIONS}/alice/examples", json=event).json()
        assert again["results"][0]["repeated"]
        assert again["revision"] == written.json()["revision"]


def test_a_bundle_with_a_changed_byte_ends_the_process_and_the_log_names_the_file(
    tmp_path: Path, damaged: Path
) -> None:
    with process(tmp_path, damaged, ready=False) as server:
        assert server.exit_code() == 1
        line = server.event("cannot start")
        assert "encode.onnx" in line["error"]
        assert line["level"] == "ERROR"
        assert "ready" not in [line["event"] for line in server.log()]


def test_a_body_over_the_limit_is_refused_before_it_is_sent(tmp_path: Path, glyphs: Glyphs) -> None:
    head = b"POST /v1/models/glyphs/predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    piece = b"400\r\n" + b" " * 1024 + b"\r\n"
    with process(tmp_path, max_body_bytes=2048) as server:
        for rest in (b"Content-Length: 100000000\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n" + 3 * piece):
            with socket.create_connection(_address(server), timeout=10) as connection:
                connection.sendall(head + rest)
                assert connection.recv(65536).startswith(b"HTTP/1.1 413")
        refused = problem(server.request("POST", PREDICT, json={"inputs": ["x" * 4096]}), 413, "too-large")
        assert field(refused) == "body"
        small = {"inputs": glyphs.queries(glyphs.names[:1]), "support": glyphs.support(glyphs.names[:1])}
        assert server.request("POST", PREDICT, json=small).status_code == 200


def test_metrics_name_no_tenant_and_no_adaptation(tmp_path: Path, glyphs: Glyphs) -> None:
    with process(tmp_path) as server:
        support = {"support": glyphs.support(glyphs.names[:2])}
        assert server.request("PUT", f"{ADAPTATIONS}/a-person", json=support).status_code == 201
        text = server.request("GET", "/metrics").text
        assert 'status="201"' in text
        assert "a-person" not in text
        assert not set(re.findall(r'[{,]([a-z_]+)="', text)) & {"tenant", "adaptation", "id", "caller"}


def test_a_public_address_needs_permission(tmp_path: Path) -> None:
    refused = run("serve", "--host", "0.0.0.0", "--port", "0")  # noqa: S104
    assert refused.returncode == 2
    assert "HANDFUL_ALLOW_ANONYMOUS=1" in refused.stderr
    with process(tmp_path, host="0.0.0.0", allow_anonymous=1) as server:  # noqa: S104
        assert server.event("listening")["address"].startswith("0.0.0.0:")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [(["serve", "--port", "http"], "port"), (["serve", "--threads", "-1"], "threads"), (["surf"], "usage")],
)
def test_wrong_settings_are_named_and_end_with_exit_code_2(arguments: list[str], named: str) -> None:
    done = run(*arguments)
    assert (done.returncode, named in done.stderr) == (2, True)


def test_check_and_inspect_tell_a_good_bundle_from_a_damaged_one(damaged: Path) -> None:
    good, bad = str(BUNDLES / "glyphs" / "1"), str(damaged / "glyphs" / "1")
    checked, refused = run("check", good), run("check", bad)
    assert checked.returncode == 0
    assert checked.stdout.startswith("ok: glyphs version 1, ")
    assert refused.returncode == 1
    assert "encode.onnx" in refused.stderr
    inspected, failed = run("inspect", good), run("inspect", bad)
    assert (inspected.returncode, json.loads(inspected.stdout)["name"]) == (0, "glyphs")
    assert json.loads(inspected.stdout)["runtime"]["provider"] == "CPUExecutionProvider"
    assert (failed.returncode, json.loads(failed.stdout)["ok"]) == (1, False)


def _address(server: Process) -> tuple[str, int]:
    host, _, port = server.url.removeprefix("http://").partition(":")
    return host, int(port)


def _accepts(server: Process) -> bool:
    try:
        socket.create_connection(_address(server), timeout=5).close()
    except ConnectionRefusedError:
        return False
    return True
