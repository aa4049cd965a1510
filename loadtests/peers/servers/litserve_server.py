"""LitServe with two workers and two servers of HTTP; batches where `PEER_BATCH` is above 1, over ZMQ if `PEER_FAST`."""

import os

import heads
import litserve


class Predict(litserve.LitAPI):
    def setup(self, device):
        self.model = heads.load()

    def decode_request(self, request):
        return request

    def batch(self, inputs):
        return inputs

    def predict(self, asked):
        return heads.batched(self.model, asked if isinstance(asked, list) else [asked])

    def unbatch(self, output):
        return output

    def encode_response(self, output):
        return output[0] if isinstance(output, list) else output


if __name__ == "__main__":
    api = Predict(max_batch_size=heads.batch_size(), batch_timeout=heads.batch_wait_ms() / 1e3)
    server = litserve.LitServer(
        api, accelerator="cpu", workers_per_device=2, timeout=120, fast_queue=bool(os.environ.get("PEER_FAST"))
    )
    server.run(host="127.0.0.1", port=heads.port(), num_api_servers=2, log_level="warning", generate_client_file=False)
