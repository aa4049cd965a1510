"""Which ONNX Runtime there is, and how many cores it may use."""

import importlib.metadata
import os
from collections.abc import Set
from pathlib import Path

import onnxruntime
import pytest
from tests.tiny import Tiny
from tests.tiny_onnx import onnx_graphs

from handful_service.engine import runtime
from handful_service.engine.runtime import RuntimeUnfit, available_cores, make_session, runtime_settings
from handful_service.errors import GraphRefused


def installed(monkeypatch: pytest.MonkeyPatch, names: Set[str]) -> None:
    def distribution(name: str) -> object:
        if name not in names:
            raise importlib.metadata.PackageNotFoundError(name)
        return object()

    monkeypatch.setattr(importlib.metadata, "distribution", distribution)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (set(), r"pip install 'handful\[cpu\]' or 'handful\[gpu\]'"),
        ({"onnxruntime", "onnxruntime-gpu"}, "onnxruntime and onnxruntime-gpu are both installed: pip uninstall both"),
    ],
)
def test_none_or_both_of_the_distributions_is_refused_with_what_to_do(
    monkeypatch: pytest.MonkeyPatch, names: set[str], message: str
) -> None:
    installed(monkeypatch, names)
    with pytest.raises(RuntimeUnfit, match=message):
        runtime_settings("cpu", 1)


@pytest.mark.parametrize("name", ["onnxruntime", "onnxruntime-gpu"])
def test_either_of_the_distributions_is_enough(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    installed(monkeypatch, {name})
    found = runtime_settings("cpu", 3)
    assert found.as_dict() == {
        "onnxruntime": onnxruntime.__version__, "provider": "CPUExecutionProvider", "threads": 3
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "cores"),
    [
        ("max 100000\n", 8),
        ("800000 100000\n", 8),
        ("200000 100000\n", 2),
        ("250000 100000\n", 3),
        ("10000 100000\n", 1),
        ("6400000 100000\n", 8),
        ("", 8),
        ("nonsense\n", 8),
        (None, 8),
    ],
)
def test_threads_follow_the_quota_of_the_cgroup(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str | None, cores: int
) -> None:
    file = tmp_path / "cpu.max"
    if text is not None:
        file.write_text(text, encoding="ascii")
    monkeypatch.setattr(runtime, "_CPU_MAX", file)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    assert available_cores() == cores
    assert runtime_settings("cpu", 0).threads == cores
    assert runtime_settings("cpu", 5).threads == 5


def test_cuda_that_is_not_there_is_never_replaced_silently(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(runtime, "_NVIDIA_CONTROL", tmp_path / "nothing")
    with pytest.raises(RuntimeUnfit, match="the provider is cuda"):
        runtime_settings("cuda", 1)
    assert runtime_settings("auto", 1).provider == "CPUExecutionProvider"


def test_a_graph_that_onnx_runtime_cannot_load_is_refused_with_its_file() -> None:
    with pytest.raises(GraphRefused, match=r"^encode\.onnx: ONNX Runtime cannot load it"):
        make_session(b"nothing", file="encode.onnx", settings=runtime_settings("cpu", 1))


def test_a_session_takes_the_thread_count_and_the_provider_that_were_set() -> None:
    settings = runtime_settings("cpu", 1)
    session = make_session(onnx_graphs(Tiny())["encode"].SerializeToString(), file="f", settings=settings)
    assert session.get_providers() == [settings.provider]
    assert session.get_session_options().intra_op_num_threads == 1
