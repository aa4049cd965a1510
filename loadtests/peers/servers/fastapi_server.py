"""FastAPI and ONNX Runtime by hand. `PEER_THREADS=1`: the endpoint runs in a thread of the pool."""

import os

import heads
import numpy as np
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

app = FastAPI()


class Ask(BaseModel):
    inputs: list[list[float]]
    user: int = 0


class Answer(BaseModel):
    labels: list[int]
    logits: list[list[float]]


def answered(ask):
    x = np.array(ask.inputs, np.float32)
    logits = app.state.model.run(x, [ask.user] * len(x))
    return Answer(**heads.answer(logits))


async def on_the_loop(ask: Ask) -> Answer:
    return answered(ask)


def in_a_thread(ask: Ask) -> Answer:
    return answered(ask)


app.post("/predict")(in_a_thread if os.environ.get("PEER_THREADS") else on_the_loop)


@app.get("/health")
async def health() -> str:
    return "ok"


if __name__ == "__main__":
    # Loading a thousand sessions takes longer than uvicorn waits by default before it kills a worker.
    patience = {"timeout_worker_healthcheck": 120}
    uvicorn.run("fastapi_server:app", port=heads.port(), workers=2, access_log=False, log_level="warning", **patience)
elif __name__ == "fastapi_server":  # a worker imports this file a second time, as its main module
    app.state.model = heads.load()
