"""What every request passes before its route."""

import asyncio
from typing import Any

import pytest
from starlette.requests import Request
from starlette.types import Message, Receive, Scope, Send

from handful_service.door import Door
from handful_service.metrics import Metrics
from handful_service.porter import CLIENT_GONE, DoorLimits, Porter


async def reads_the_body(scope: Scope, receive: Receive, send: Send) -> None:
    await Request(scope, receive).body()


async def fails(scope: Scope, receive: Receive, send: Send) -> None:
    raise ValueError("a secret")


def knock(app: Any, *received: Message) -> tuple[list[Message], str]:
    """What a request is answered, and the metrics after it."""
    metrics, sent, left = Metrics(), [], iter(received)
    porter = Porter(DoorLimits(max_body_bytes=10, max_in_flight=2, deadline_ms=1000), metrics)
    door = Door(app, porter, lambda path: False)

    async def receive() -> Message:
        return next(left)

    async def send(message: Message) -> None:
        sent.append(message)

    asyncio.run(door({"type": "http", "method": "POST", "path": "/", "headers": []}, receive, send))
    return sent, metrics.text().decode()


def test_a_client_that_goes_while_it_sends_is_no_failure_of_the_server(caplog: pytest.LogCaptureFixture) -> None:
    part = {"type": "http.request", "body": b"{", "more_body": True}
    sent, metrics = knock(reads_the_body, part, {"type": "http.disconnect"})
    assert sent == []
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []
    assert f'status="{CLIENT_GONE}"' in metrics
    assert "handful_requests_in_flight 0.0" in metrics


def test_a_body_that_grows_beyond_the_limit_is_refused_while_it_arrives() -> None:
    part = {"type": "http.request", "body": b"123456", "more_body": True}
    sent, _ = knock(reads_the_body, part, part)
    assert sent[0]["status"] == 413


def test_the_text_of_an_unexpected_error_goes_to_the_log_only(caplog: pytest.LogCaptureFixture) -> None:
    sent, metrics = knock(fails)
    assert sent[0]["status"] == 500
    assert b"secret" not in sent[1]["body"]
    assert "a secret" in caplog.text
    assert "handful_requests_in_flight 0.0" in metrics
