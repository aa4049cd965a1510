"""MLServer with a runtime for ONNX; `PEER_PARALLEL` workers, adaptive batching where `PEER_BATCH` is above 1."""

import json
import os
import socket
import sys
from pathlib import Path

import heads
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class Onnx(MLModel):
    async def load(self):
        self.model = heads.load()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        x = NumpyCodec.decode_input(payload.inputs[0]).astype("float32", copy=False)
        logits = self.model.run(x, [0] * len(x))
        outputs = [NumpyCodec.encode_output("logits", logits)]
        return InferenceResponse(model_name=self.name, id=payload.id, outputs=outputs)


def free_port():
    """A port that nobody listens on."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


def settings():
    """The files of a model repository."""
    size = heads.batch_size()
    model = {"name": "predict", "implementation": "mlserver_server.Onnx"}
    if size > 1:
        model |= {"max_batch_size": size, "max_batch_time": heads.batch_wait_ms() / 1e3}
    server = {"debug": False, "host": "127.0.0.1", "parallel_workers": int(os.environ.get("PEER_PARALLEL", "0"))}
    ports = {"http_port": heads.port(), "grpc_port": free_port(), "metrics_port": free_port()}
    return {"model-settings.json": model, "settings.json": {**server, **ports}}


if __name__ == "__main__":
    folder = Path(os.environ["PEER_SCRATCH"])
    for name, content in settings().items():
        (folder / name).write_text(json.dumps(content), encoding="utf-8")
    os.environ["PYTHONPATH"] = str(Path(__file__).parent)
    script = str(Path(sys.executable).parent / "mlserver")
    os.chdir(folder)
    os.execv(script, [script, "start", str(folder)])
