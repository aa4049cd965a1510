"""Ray Serve with two replicas, tuned for throughput as its own pages say; batches where `PEER_BATCH` is above 1."""

import os
import signal

os.environ.setdefault("RAY_SERVE_THROUGHPUT_OPTIMIZED", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import heads
import ray
from ray import serve
from ray.serve.schema import LoggingConfig

QUIET = LoggingConfig(enable_access_log=False, log_level="WARNING")


@serve.deployment(num_replicas=2, max_ongoing_requests=256, ray_actor_options={"num_cpus": 0}, logging_config=QUIET)
class Predict:
    def __init__(self):
        self.model = heads.load()

    @serve.batch(max_batch_size=heads.batch_size(), batch_wait_timeout_s=heads.batch_wait_ms() / 1e3)
    async def together(self, asked):
        return heads.batched(self.model, asked)

    async def __call__(self, request):
        asked = await request.json()
        if heads.batch_size() > 1:
            return await self.together(asked)
        return heads.batched(self.model, [asked])[0]


if __name__ == "__main__":
    here = os.path.dirname(os.path.abspath(__file__))
    variables = {name: value for name, value in os.environ.items() if name.startswith("PEER_")}
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        logging_level="warning",
        object_store_memory=100_000_000,
        runtime_env={"env_vars": {**variables, "PYTHONPATH": here}},
        _temp_dir=os.environ.get("PEER_SCRATCH"),
    )
    serve.start(http_options={"host": "127.0.0.1", "port": heads.port()}, logging_config=QUIET)
    serve.run(Predict.bind(), route_prefix="/predict")
    signal.sigwait([signal.SIGTERM, signal.SIGINT])
    serve.shutdown()
    ray.shutdown()
