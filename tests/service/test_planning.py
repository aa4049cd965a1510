"""What each worker gets of a machine, and where workers keep what they count."""

import os
import signal
from pathlib import Path
from unittest.mock import Mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handful_service.metrics import Metrics
from handful_service.settings import Settings
from handful_service.workers import folder as folders
from handful_service.workers.folder import metrics_folder
from handful_service.workers.planning import Machine, share, worker_count
from handful_service.workers.restarting import MOST_S, STEADY_S, Backoff

GIB = 2**30


def test_a_long_life_forgives_short_ones() -> None:
    now = 0.0
    backoff = Backoff(lambda: now)
    waits = [backoff.wait_s() for _ in range(12)]
    assert waits[:5] == [0.0, 0.5, 1.0, 2.0, 4.0]
    assert max(waits) == waits[-1] == MOST_S
    backoff.started()
    now = STEADY_S
    assert backoff.wait_s() == 0.0


@pytest.mark.parametrize(
    ("machine", "workers", "expected"),
    [
        (Machine(1, 4 * GIB, cuda=False), 0, 1),
        (Machine(2, 4 * GIB, cuda=False), 0, 2),
        (Machine(16, 64 * GIB, cuda=False), 0, 16),
        (Machine(16, None, cuda=False), 0, 16),
        (Machine(16, 64 * GIB, cuda=True), 0, 1),
        (Machine(16, 64 * GIB, cuda=True), 3, 3),
        (Machine(2, GIB // 2, cuda=False), 0, 1),
        (Machine(8, 2 * GIB, cuda=False), 0, 6),
        (Machine(1, GIB // 2, cuda=False), 4, 4),
    ],
)
def test_there_are_as_many_workers_as_cores_and_memory_allow(
    tmp_path: Path, machine: Machine, workers: int, expected: int
) -> None:
    assert worker_count(Settings(workers=workers, bundles=tmp_path), machine) == expected


def test_large_bundles_make_fewer_workers(tmp_path: Path) -> None:
    graph = tmp_path / "model" / "1" / "encode.onnx"
    graph.parent.mkdir(parents=True)
    with graph.open("wb") as file:
        file.truncate(200 * 2**20)
    assert worker_count(Settings(bundles=tmp_path), Machine(8, 4 * GIB, cuda=False)) == 3


def test_what_is_meant_for_the_machine_is_divided() -> None:
    each = share(Settings(cache_bytes=2**28, max_in_flight=511, deadline_ms=77), 2, 5)
    assert (each.workers, each.threads, each.cache_bytes, each.max_in_flight) == (1, 2, 2**27, 256)
    assert each.support_cache_bytes == Settings().support_cache_bytes // 2
    assert each.deadline_ms == 77
    assert share(Settings(threads=1), 4, 4).threads == 1
    assert share(Settings(threads=8), 2, 2).threads == 4
    assert Settings(**each.model_dump(mode="json")) == each, "as it reaches a worker"


def test_the_folder_of_metrics_is_private_and_goes_and_so_do_those_that_are_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(folders, "_YOUNG_S", -1)
    left = tmp_path / "handful-metrics-left"
    left.mkdir()
    (left / "lock").touch()
    with metrics_folder() as first:
        assert not left.exists()
        assert first.stat().st_mode & 0o777 == 0o700
        with metrics_folder() as second:
            assert first.exists()
            assert second != first
    assert list(tmp_path.iterdir()) == []


@given(
    st.lists(st.floats(0, 100) | st.sampled_from([0.001, 0.01, 0.5, 30.0]), max_size=30), st.lists(st.integers(0, 2000))
)
def test_what_is_counted_together_is_what_is_counted_one_by_one(seconds: list[float], rows: list[int]) -> None:
    together, alone = Metrics(), Metrics()
    observe = together.batch_observer("mail")
    together._settle_at = Mock()  # nothing is counted before it is asked for
    for value in seconds:
        together.answered("POST", "/a", 200, value)
        alone.requests.labels("POST", "/a", "200").inc()
        alone.seconds.labels("/a").observe(value)
    for count in rows:
        observe("encode", count)
        alone.batch_rows.labels("mail", "encode").observe(count)
    assert numbers(together) == pytest.approx(numbers(alone))


def numbers(metrics: Metrics) -> dict[str, float]:
    """Every sample, but for the times at which they were made."""
    lines = [line for line in metrics.text().decode().splitlines() if line and line[0] != "#"]
    samples = dict(line.rsplit(" ", 1) for line in lines)
    return {name: float(value) for name, value in samples.items() if "_created" not in name}


@pytest.mark.usefixtures("metrics_in_memory")
def test_metrics_of_processes_are_summed_and_those_of_dead_ones_stay(tmp_path: Path) -> None:
    dead = os.fork()
    if dead == 0:  # a process of its own, since its number names its files
        metrics = Metrics(tmp_path)
        for _ in range(60):
            metrics.answered("GET", "/a", 200, 0.02)
            metrics.batch_observer(f"model-{_}")("encode", 4)  # the file grows, and the former cells are true
        metrics.under_way = 5
        metrics.settle()
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(dead, 0)
    here = Metrics(tmp_path)
    here.answered("GET", "/a", 200, 3.0)
    here.under_way = 1
    assert sample(here, 'handful_requests_total{method="GET",route="/a",status="200"}') == 61
    assert sample(here, 'handful_request_seconds_count{route="/a"}') == 61
    assert sample(here, 'handful_request_seconds_sum{route="/a"}') == pytest.approx(4.2)
    assert sample(here, 'handful_request_seconds_bucket{le="0.025",route="/a"}') == 60
    assert sample(here, 'handful_batch_rows_sum{graph="encode",model="model-59"}') == 4
    assert sample(here, "handful_requests_in_flight") == 6
    here.forget(dead)
    assert sample(here, "handful_requests_in_flight") == 1
    assert sample(here, 'handful_requests_total{method="GET",route="/a",status="200"}') == 61


def sample(metrics: Metrics, name: str) -> float:
    lines = metrics.text().decode().splitlines()
    return float(next(line.rpartition(" ")[2] for line in lines if line.startswith(f"{name} ")))
