"""mosec with two workers; dynamic batching where `PEER_BATCH` is above 1. JSON is read and written by msgspec."""

import heads
import msgspec
from mosec import Server, Worker


class Ask(msgspec.Struct):
    inputs: list[list[float]]
    user: int = 0


class Predict(Worker):
    def __init__(self):
        self.model = heads.load()
        self.decoder = msgspec.json.Decoder(Ask)
        self.encoder = msgspec.json.Encoder()

    def deserialize(self, data):
        ask = self.decoder.decode(data)
        return {"inputs": ask.inputs, "user": ask.user}

    def serialize(self, data):
        return self.encoder.encode(data)

    def forward(self, data):
        if heads.batch_size() == 1:
            return heads.batched(self.model, [data])[0]
        return heads.batched(self.model, data)


if __name__ == "__main__":
    server = Server()
    server.append_worker(
        Predict,
        num=2,
        max_batch_size=heads.batch_size(),
        max_wait_time=int(heads.batch_wait_ms()),
        timeout=120,
        route="/predict",
    )
    server.run()
