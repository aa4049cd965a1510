"""What is compared: the peers with their settings, the workloads, and how each server is asked and answers."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from loadtests.peers.graphs import GIVEN, LABELS, PIXELS, Array

OURS = "handful"
WIDTHS = {"mlp": GIVEN, "heads": GIVEN, "conv4": PIXELS, "conv4-heads": PIXELS}
"""Numbers of an input, by model."""


@dataclass(frozen=True, slots=True)
class Setting:
    """A peer with one choice of its settings.

    Attributes:
        environment: What the server program reads beside what all are told; see `servers/heads.py`.
        way: How users get their own heads; `shared` where there are none.
    """

    peer: str
    name: str
    environment: Mapping[str, str] = field(default_factory=dict)
    way: str = "shared"

    @property
    def title(self) -> str:
        """How the setting is named in tables and by `--only`."""
        return f"{self.peer}, {self.name}"


def _batches(size: int, wait_ms: int, **more: str) -> dict[str, str]:
    return {"PEER_BATCH": str(size), "PEER_WAIT_MS": str(wait_ms), **more}


PLAIN = (
    Setting("mosec", "one at a time"),
    Setting("mosec", "batches of 64, 1 ms", _batches(64, 1)),
    Setting("mosec", "batches of 64, 10 ms", _batches(64, 10)),
    Setting("fastapi", "on the loop"),
    Setting("fastapi", "in threads", {"PEER_THREADS": "1"}),
    Setting("mlserver", "one process"),
    Setting("mlserver", "parallel workers", {"PEER_PARALLEL": "2"}),
    Setting("mlserver", "batches of 64, 1 ms", _batches(64, 1)),
    Setting("litserve", "one at a time", {"PEER_FAST": "1"}),
    Setting("litserve", "batches of 64, 1 ms", _batches(64, 1, PEER_FAST="1")),
    Setting("bentoml", "one at a time"),
    Setting("bentoml", "batches of 64", _batches(64, 0)),
    Setting("ray", "one at a time, HAProxy", {"RAY_SERVE_ENABLE_HA_PROXY": "1"}),
    Setting("ray", "batches of 64, 1 ms, HAProxy", _batches(64, 1, RAY_SERVE_ENABLE_HA_PROXY="1")),
)
"""Settings for models that are the same for everyone; two workers each, where there are workers."""

PERSONAL = (
    Setting("mosec", "a session a user", way="sessions"),
    Setting("fastapi", "a session a user", way="sessions"),
    Setting("mosec", "heads gathered by hand, batches of 64, 1 ms", _batches(64, 1), way="gathered"),
    Setting("mosec", "heads gathered by hand, batches of 64, 10 ms", _batches(64, 10), way="gathered"),
)
"""Settings for a thousand users with a head each."""

VARIANTS = {"unbatched": ("--max-batch-rows", "1"), "in batches of 64": ("--max-batch-rows", "64")}
"""Settings of our own that the default is held against: there should be no lever to tune."""


@dataclass(frozen=True, slots=True)
class Workload:
    """What is sent.

    Attributes:
        rows: Inputs in a request.
        connections: The numbers of connections that are tried.
        form: `json` or `bytes`; bytes are sent to our own server only.
    """

    name: str
    model: str
    connections: Sequence[int]
    rows: int = 1
    form: str = "json"

    @property
    def personal(self) -> bool:
        """Whether every user has a head."""
        return self.model.endswith("heads")


WORKLOADS = (
    Workload("MLP", "mlp", (1, 16, 64)),
    Workload("MLP, bytes", "mlp", (1, 16, 64), form="bytes"),
    Workload("MLP, 16 rows", "mlp", (16,), rows=16),
    Workload("Conv-4", "conv4", (1, 16, 64)),
    Workload("personal heads", "heads", (64,)),
    Workload("Conv-4, personal heads", "conv4-heads", (64,)),
)


def path_of(peer: str, model: str) -> str:
    """The path that a peer answers predictions at."""
    return {OURS: f"/v1/models/{model}/predict", "mlserver": "/v2/models/predict/infer"}.get(peer, "/predict")


def user_name(user: int) -> str:
    """The adaptation of a user in our own server."""
    return f"user-{user}"


def body_of(peer: str, rows: list[list[float]], user: int | None) -> bytes:
    """A request with the rows, in the form that the peer takes; of a user, where there is one."""
    asked: dict[str, Any] = {"inputs": rows}
    if peer == "mlserver":
        tensor = {
            "name": "x",
            "datatype": "FP32",
            "shape": [len(rows), len(rows[0])],
            "data": [value for row in rows for value in row],
        }
        asked = {"inputs": [tensor]}
    elif user is not None:
        asked |= {"adaptation": user_name(user)} if peer == OURS else {"user": user}
    return json.dumps(asked).encode()


def scores_of(peer: str, content: bytes) -> Array:
    """Probabilities `[rows, 10]` in an answer, float64.

    Raises:
        KeyError, ValueError: it is no answer of the peer.
    """
    found = json.loads(content)
    if peer == OURS:
        names = [f"label-{number}" for number in range(LABELS)]
        return np.array([[one["scores"][name] for name in names] for one in found["predictions"]])
    if peer == "mlserver":
        (output,) = found["outputs"]
        logits = np.array(output["data"], np.float64).reshape(-1, LABELS)
    else:
        logits = np.array(found if peer == "bentoml" else found["logits"], np.float64)
    raised = np.exp(logits - logits.max(-1, keepdims=True))
    return np.asarray(raised / raised.sum(-1, keepdims=True))
