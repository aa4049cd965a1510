"""The workloads of the load test, against the shipped bundles. Each is drawn from a generator with a seed."""

import base64
import bisect
import itertools
import json
import random
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from loadtests.client import Request
from loadtests.generating import Draw

CURVES = "sinusoids-bayes"
"""The smallest shipped model with tensors, statistics and a base: what is measured is the server."""

DRAWN = "glyphs"
"""Pictures and a convolutional trunk: what is measured is the model."""

DRAWINGS = Path("tests/fixtures/glyphs")
EXAMPLES = 5
ROWS = 16
ADAPT_SHARE = 0.2
ZIPF = 1.1


@dataclass(frozen=True, slots=True)
class Workload:
    """A kind of traffic.

    Attributes:
        draw: Gives the next call.
        beside: The workload that its figures are compared with, if any.
    """

    name: str
    draw: Draw
    beside: str | None = None


def every(users: int) -> list[Workload]:
    """All workloads, for some users with an adaptation each."""
    zipf = _zipf(users)
    return [
        Workload("base", lambda rng: _curve(_x(rng))),
        Workload("base, bytes", _tensor, "base"),
        Workload("one user", lambda rng: _curve(_x(rng), adaptation="user-0")),
        Workload("uniform users", lambda rng: _curve(_x(rng), adaptation=_user(rng, users)), "one user"),
        Workload("zipf users", lambda rng: _curve(_x(rng), adaptation=zipf(rng)), "one user"),
        Workload("inline support", lambda rng: _curve(_x(rng), support=support(rng))),
        Workload("adapts among predictions", lambda rng: _mixed(rng, users), "uniform users"),
        Workload("mixed rows", lambda rng: _rows(rng, users)),
        Workload("drawings", _drawing),
    ]


def before(users: int) -> Iterator[Request]:
    """The calls that make the adaptations, and ask each once, so that its state is in the cache."""
    for user in range(users):
        rng = random.Random(f"user {user}")
        yield _request("adapt", "PUT", f"/v1/models/{CURVES}/adaptations/user-{user}", {"support": support(rng)})
        yield _curve(_x(rng), adaptation=f"user-{user}")
    firsts = sorted(DRAWINGS.glob("*-1.png"))[:EXAMPLES]
    shown = [{"input": _base64(path), "label": path.stem} for path in firsts]
    yield _request("adapt", "PUT", f"/v1/models/{DRAWN}/adaptations/user-0", {"support": shown})


def support(rng: random.Random) -> list[dict[str, object]]:
    """A few points of a curve of one's own."""
    scale = rng.uniform(0.5, 2)
    return [{"input": [x := rng.uniform(-4, 4)], "label": scale * x} for _ in range(EXAMPLES)]


def _request(kind: str, method: str, path: str, body: dict[str, object]) -> Request:
    return Request(kind, method, path, json.dumps(body).encode())


def _x(rng: random.Random) -> list[float]:
    return [round(rng.uniform(-4, 4), 4)]


def _user(rng: random.Random, users: int) -> str:
    return f"user-{rng.randrange(users)}"


def _zipf(users: int) -> Callable[[random.Random], str]:
    """Draws users whose share falls with their rank to the power of `ZIPF`."""
    sums = list(itertools.accumulate(1 / rank**ZIPF for rank in range(1, users + 1)))
    return lambda rng: f"user-{min(users - 1, bisect.bisect(sums, rng.uniform(0, sums[-1])))}"


def _curve(x: list[float], **task: object) -> Request:
    return _request("predict", "POST", f"/v1/models/{CURVES}/predict", {"inputs": [x], **task})


def _tensor(rng: random.Random) -> Request:
    body = struct.pack("<f", *_x(rng))
    return Request("predict", "POST", f"/v1/models/{CURVES}/predict", body, "application/octet-stream")


def _rows(rng: random.Random, users: int) -> Request:
    rows = [{"input": _x(rng), "adaptation": _user(rng, users)} for _ in range(ROWS)]
    return _request("predict", "POST", f"/v1/models/{CURVES}/predict", {"rows": rows})


def _mixed(rng: random.Random, users: int) -> Request:
    """Mostly predictions; some calls replace a user's support set."""
    if rng.random() >= ADAPT_SHARE:
        return _curve(_x(rng), adaptation=_user(rng, users))
    path = f"/v1/models/{CURVES}/adaptations/{_user(rng, users)}"
    return _request("adapt", "PUT", path, {"support": support(rng)})


@cache
def _base64(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode("ascii")


@cache
def _queries() -> list[Path]:
    return sorted(DRAWINGS.glob("*-2.png"))[:EXAMPLES]


def _drawing(rng: random.Random) -> Request:
    body = {"inputs": [_base64(rng.choice(_queries()))], "adaptation": "user-0"}
    return _request("predict", "POST", f"/v1/models/{DRAWN}/predict", body)
