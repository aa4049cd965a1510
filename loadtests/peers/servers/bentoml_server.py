"""BentoML with two workers; adaptive batching where `PEER_BATCH` is above 1."""

import os
import sys
from pathlib import Path
from typing import Annotated

import bentoml
import heads
import numpy as np
from bentoml.validators import DType

BATCHED = {"batchable": True, "batch_dim": 0, "max_batch_size": heads.batch_size(), "max_latency_ms": 10_000}


@bentoml.service(
    workers=2, traffic={"timeout": 120}, logging={"access": {"enabled": False}}, metrics={"enabled": False}
)
class Predict:
    def __init__(self):
        self.model = heads.load()

    @bentoml.api(**(BATCHED if heads.batch_size() > 1 else {}))
    def predict(self, inputs: Annotated[np.ndarray, DType("float32")]) -> np.ndarray:
        return self.model.run(inputs, [0] * len(inputs))


if __name__ == "__main__":
    folder = Path(__file__).parent
    command = ["serve", "bentoml_server:Predict", "--host", "127.0.0.1", "--port", str(heads.port())]
    script = str(Path(sys.executable).parent / "bentoml")
    os.environ["PYTHONPATH"] = str(folder)
    os.execv(script, [script, *command, "--working-dir", str(folder)])
