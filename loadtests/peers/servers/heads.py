"""What every peer runs: one thread a session, and the ways to answer a thousand users who have a head each.

The environment says what to serve: `PEER_GRAPHS`, the folder; `PEER_MODEL`: `mlp`, `conv4`, `heads`, `conv4-heads`;
`PEER_WAY`: `shared` (one graph for all), `sessions` (a session a user) or `gathered` (states as inputs of every row).
"""

import os
from collections import defaultdict
from pathlib import Path

import numpy as np
import onnxruntime


def session(content):
    """A session of one thread that does not spin, as is best where servers share cores."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


class Shared:
    """One graph for everyone."""

    def __init__(self, graphs, model):
        self.graph = session((graphs / f"{model}.onnx").read_bytes())

    def run(self, x, users):
        """Logits `[n, 10]` of inputs `[n, width]`."""
        return self.graph.run(None, {"x": x})[0]


class Sessions:
    """A session for each user: the graph of all, with the weights of the user's head put in place of the first ones."""

    def __init__(self, graphs, model):
        template = (graphs / TEMPLATES[model]).read_bytes()
        heads = np.load(graphs / f"{model}.npz")
        names = [("head", "weight"), ("head_bias", "bias")]
        first = initial(graphs, model, [name for name, _ in names])
        self.graphs = []
        for user in range(len(heads["bias"])):
            content = template
            for name, stacked in names:
                assert content.count(first[name]) == 1
                content = content.replace(first[name], heads[stacked][user].astype(np.float32).tobytes())
            self.graphs.append(session(content))

    def run(self, x, users):
        """Logits `[n, 10]`; rows of one user run together."""
        rows = defaultdict(list)
        for row, user in enumerate(users):
            rows[user].append(row)
        if len(rows) == 1:
            return self.graphs[users[0]].run(None, {"x": x})[0]
        found = np.empty((len(x), 10), np.float32)
        for user, mine in rows.items():
            found[mine] = self.graphs[user].run(None, {"x": x[mine]})[0]
        return found


class Gathered:
    """One graph that takes the heads as inputs of every row, gathered from one array of all users."""

    def __init__(self, graphs, model):
        heads = np.load(graphs / f"{model}.npz")
        self.weight, self.bias = heads["weight"], heads["bias"]
        self.trunk = session((graphs / "trunk.onnx").read_bytes()) if model == "conv4-heads" else None
        self.head = session((graphs / f"gathered-{model}.onnx").read_bytes())

    def run(self, x, users):
        """Logits `[n, 10]`."""
        if self.trunk is not None:
            x = self.trunk.run(None, {"x": x})[0]
        return self.head.run(None, {"x": x, "weight": self.weight[users], "bias": self.bias[users]})[0][:, 0]


TEMPLATES = {"heads": "heads.onnx", "conv4-heads": "conv4.onnx"}
WAYS = {"shared": Shared, "sessions": Sessions, "gathered": Gathered}


def initial(graphs, model, names):
    """The bytes of the template's head, by name."""
    found = np.load(graphs / f"template-{model}.npz")
    return {name: found[name].tobytes() for name in names}


def load():
    """The model that the environment names."""
    return WAYS[os.environ["PEER_WAY"]](Path(os.environ["PEER_GRAPHS"]), os.environ["PEER_MODEL"])


def batch_size():
    """Requests of one batch, at most; 1 where nothing is to be batched."""
    return int(os.environ.get("PEER_BATCH", "1"))


def batch_wait_ms():
    """Milliseconds that the first request of a batch waits for others."""
    return float(os.environ.get("PEER_WAIT_MS", "1"))


def port():
    """Where to listen."""
    return int(os.environ["PEER_PORT"])


def answer(logits):
    """What is sent back for the rows of a request."""
    return {"labels": logits.argmax(-1).tolist(), "logits": logits.tolist()}


def batched(model, requests):
    """The answers of requests that came at about the same time, in one run.

    Args:
        requests: Objects with `inputs`, rows of numbers, and possibly `user`.
    """
    x = np.array([row for request in requests for row in request["inputs"]], np.float32)
    users = [request.get("user", 0) for request in requests for _ in request["inputs"]]
    logits = model.run(x, users)
    ends = np.cumsum([len(request["inputs"]) for request in requests])[:-1]
    return [answer(part) for part in np.split(logits, ends)]
