"""Accuracy of a bundle as its users see it: raw drawings sent to a server of its own, by HTTP."""

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from http.client import HTTPConnection
from pathlib import Path
from shutil import copytree
from threading import local
from typing import Any

import numpy as np

from handful_models.calibration import binned_error
from handful_models.episodes import Episode
from handful_models.evaluation import Accuracy, Protocol, class_pools, draw_episodes, interval_95
from handful_models.omniglot import DRAWERS, ROTATIONS, Characters
from handful_service.bundle.manifest import parse_manifest

from .drawings import png
from .errors import ExportError

CLIENTS = 2
START_S = 60.0


def evaluate_bundle(folder: Path, characters: Characters, protocol: Protocol, *, seed: int) -> tuple[Accuracy, float]:
    """The accuracy of a bundle through ONNX Runtime and HTTP, and its expected calibration error, both fractions.

    The episodes are those that torch is measured on; every drawing is sent as a PNG file of its raw form.

    Raises:
        ExportError: the server does not start, or refuses a request.
    """
    manifest = parse_manifest((folder / "manifest.json").read_bytes())
    drawn = draw_episodes(class_pools(characters, protocol), DRAWERS, protocol, seed=seed)
    picture = _pictures(characters, rotations=protocol.rotations)
    path = f"/v1/models/{manifest.name}/predict"
    with (
        _server(folder, manifest.name, manifest.version) as port,
        _asker(port, path) as ask,
        ThreadPoolExecutor(CLIENTS) as clients,  # ends first: no thread asks once connections are closed
    ):
        answered = list(clients.map(lambda episode: ask(_request(episode, picture)), drawn))
    right = [[label == str(way) for way, label, _ in _rows(answers, protocol)] for answers in answered]
    confidence = np.array([score for answers in answered for _, _, score in _rows(answers, protocol)])
    scores = [float(np.mean(row)) for row in right]
    accuracy = Accuracy(protocol, seed, float(np.mean(scores)), interval_95(scores), tuple(scores))
    return accuracy, binned_error(confidence, np.concatenate([np.array(row) for row in right]))


def _pictures(characters: Characters, *, rotations: bool) -> Callable[[int, int], str]:
    turns = ROTATIONS if rotations else 1

    @cache
    def picture(number: int, image: int) -> str:
        bits = np.rot90(characters.bits[number // turns, image], number % turns)
        return png(bits, dark_on_light=True)

    return picture


def _request(episode: Episode, picture: Callable[[int, int], str]) -> dict[str, Any]:
    support = [
        {"input": picture(number, image), "label": str(way)}
        for way, (number, images) in enumerate(zip(episode.classes, episode.support, strict=True))
        for image in images
    ]
    inputs = [
        picture(number, image)
        for number, images in zip(episode.classes, episode.query, strict=True)
        for image in images
    ]
    return {"support": support, "inputs": inputs, "options": {"scores": False}}


def _rows(answers: list[dict[str, Any]], protocol: Protocol) -> Iterator[tuple[int, str, float]]:
    """The true way, the label and the score of each answer."""
    for place, answer in enumerate(answers):
        yield place // protocol.query, answer["label"], answer["score"]


@contextmanager
def _asker(port: int, path: str) -> Iterator[Callable[[dict[str, Any]], list[dict[str, Any]]]]:
    """Sends requests over one connection for each thread, all of them closed in the end."""
    mine = local()
    opened: list[HTTPConnection] = []

    def ask(request: dict[str, Any]) -> list[dict[str, Any]]:
        if not hasattr(mine, "connection"):
            mine.connection = HTTPConnection("127.0.0.1", port, timeout=60)
            opened.append(mine.connection)
        mine.connection.request("POST", path, json.dumps(request), {"Content-Type": "application/json"})
        response = mine.connection.getresponse()
        body = response.read()
        if response.status != 200:
            raise ExportError(f"the server answered {response.status}: {body.decode(errors='replace')[:500]}")
        answers: list[dict[str, Any]] = json.loads(body)["predictions"]
        return answers

    try:
        yield ask
    finally:
        for connection in opened:
            connection.close()


@contextmanager
def _server(bundle: Path, name: str, version: int) -> Iterator[int]:
    """The port of a server that holds this bundle alone."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port = listening.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        copytree(bundle, Path(folder) / "bundles" / name / str(version))
        environment = {**os.environ, "HANDFUL_STORE": f"sqlite:///{folder}/handful.db", "HANDFUL_LOG_LEVEL": "warning"}
        code = "import sys; from handful_service.cli import main; sys.exit(main())"
        command = [sys.executable, "-c", code, "serve", "--port", str(port), "--bundles", f"{folder}/bundles"]
        process = subprocess.Popen(command, env=environment)  # noqa: S603 (our own code)
        try:
            _wait(port, process)
            yield port
        finally:
            process.terminate()
            process.wait()


def _wait(port: int, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + START_S
    while time.monotonic() < end and process.poll() is None:
        connection = HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", "/health/ready")
            if connection.getresponse().status == 200:
                return
        except OSError:
            pass
        finally:
            connection.close()
        time.sleep(0.05)
    raise ExportError("the server did not start: see its log above")
