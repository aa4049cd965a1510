"""ONNX Runtime: which installation, which provider, how many threads, and sessions made so."""

import importlib.metadata
import math
import os
import sys
import threading
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from ..errors import BundleError, GraphRefused

Provider = Literal["auto", "cpu", "cuda"]
_DISTRIBUTIONS = ("onnxruntime", "onnxruntime-gpu")
_NVIDIA_CONTROL = Path("/dev/nvidiactl")
_CPU_MAX = Path("/sys/fs/cgroup/cpu.max")

NICENESS = 5
"""Of threads of graph runs: the event loop beside them has 0. One has about a quarter of a core that both ask for."""


class RuntimeUnfit(BundleError):
    """ONNX Runtime is missing, there twice, or lacks the provider that was asked for."""


@dataclass(frozen=True, slots=True)
class RuntimeSettings:
    """What sessions really run with; printed at start and shown by `handful inspect`."""

    onnxruntime: str
    provider: str
    threads: int

    def as_dict(self) -> dict[str, Any]:
        """The settings, for logs."""
        return asdict(self)


def check_installation() -> None:
    """Refuse to go on unless exactly one of the two ONNX Runtime distributions is installed.

    Both ship the same import folder, so with both installed the one that was installed last is half overwritten.

    Raises:
        RuntimeUnfit: none is installed, or both are.
    """
    found = [name for name in _DISTRIBUTIONS if _installed(name)]
    if not found:
        raise RuntimeUnfit("ONNX Runtime is not installed: pip install 'handful[cpu]' or 'handful[gpu]'")
    if len(found) > 1:
        raise RuntimeUnfit(f"{' and '.join(found)} are both installed: pip uninstall both, then install one of them")


def _installed(name: str) -> bool:
    try:
        importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def available_cores() -> int:
    """The cores that this process may use: the smaller of its affinity and its cgroup's quota, at least 1."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = _CPU_MAX.read_text(encoding="ascii").split()
        return max(1, min(cores, math.ceil(int(quota) / int(period))))
    except (OSError, ValueError):  # no cgroup v2, or no quota ("max")
        return cores


def give_way() -> None:
    """Let the current thread wait for others that want its core; Linux alone has that for threads."""
    if sys.platform == "linux":
        os.setpriority(
            os.PRIO_PROCESS, threading.get_native_id(), min(os.getpriority(os.PRIO_PROCESS, 0) + NICENESS, 19)
        )


def cuda_expected(provider: Provider) -> bool:
    """Whether graphs will run on CUDA, as far as can be told without loading ONNX Runtime."""
    return provider == "cuda" or (provider == "auto" and _installed("onnxruntime-gpu") and _NVIDIA_CONTROL.exists())


def runtime_settings(provider: Provider, threads: int) -> RuntimeSettings:
    """The settings in effect.

    Args:
        provider: `auto` takes CUDA where the installation and the machine have it, else the CPU.
        threads: Threads of a graph run; 0 means one per available core.

    Raises:
        RuntimeUnfit: no fit installation, or CUDA was asked for and is not there.
    """
    check_installation()
    import onnxruntime  # noqa: PLC0415 (only after the check: with both distributions the import itself is unreliable)

    present = "CUDAExecutionProvider" in onnxruntime.get_available_providers() and _NVIDIA_CONTROL.exists()
    if provider == "cuda" and not present:
        raise RuntimeUnfit("the provider is cuda, but there is no CUDA device, or onnxruntime-gpu is not installed")
    chosen = "CUDAExecutionProvider" if present and provider != "cpu" else "CPUExecutionProvider"
    return RuntimeSettings(onnxruntime.__version__, chosen, threads or available_cores())


def make_session(graph: bytes, *, file: str, settings: RuntimeSettings) -> Any:
    """An `onnxruntime.InferenceSession` of a checked graph.

    Raises:
        GraphRefused: ONNX Runtime cannot load it.
        RuntimeUnfit: it fell back to another provider.
    """
    import onnxruntime  # noqa: PLC0415 (see runtime_settings)

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = settings.threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.enable_mem_pattern = False  # it keeps a plan for every shape that ever came: see decision 18
    # Else the bytes decide, and a file can be both ONNX, which was checked, and ORT's own format, which was not.
    options.add_session_config_entry("session.load_model_format", "ONNX")
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # the server shares its cores
    try:
        session = onnxruntime.InferenceSession(graph, options, providers=[settings.provider])
    except Exception as error:  # ONNX Runtime raises classes of its C++ binding without a common root
        raise GraphRefused(f"ONNX Runtime cannot load it: {error}", field=file) from error
    if session.get_providers()[0] != settings.provider:
        raise RuntimeUnfit(f"asked for {settings.provider}, got {session.get_providers()}")
    return session
