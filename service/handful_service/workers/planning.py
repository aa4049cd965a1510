"""How many workers a machine gets, and what each of them may use of it."""

import contextlib
import socket
from dataclasses import dataclass
from pathlib import Path

from ..engine.runtime import available_cores, cuda_expected
from ..settings import Settings

PROCESS_BYTES = 200 * 2**20
"""What a worker takes without bundles, about 80 MiB, and as much again and more for what grows while it serves."""

SESSION_BYTES, GRAPH_FACTOR = 2 * 2**20, 3
"""What a worker takes for each graph, and times the bytes of the graph. The shipped bundles, 84 graphs of 13 MiB
together, take 180 MiB."""

_MEMORY_MAX = Path("/sys/fs/cgroup/memory.max")
_MEMORY_INFO = Path("/proc/meminfo")


@dataclass(frozen=True, slots=True)
class Machine:
    """What the server may use.

    Attributes:
        cores: Those that its affinity and its cgroup's quota leave.
        memory_bytes: Of the machine or the cgroup, whichever is less; None: unknown.
        cuda: Whether graphs will run on CUDA.
    """

    cores: int
    memory_bytes: int | None
    cuda: bool


def this_machine(settings: Settings) -> Machine:
    """The machine that this process runs on."""
    return Machine(available_cores(), _memory_bytes(), cuda_expected(settings.provider))


def worker_count(settings: Settings, machine: Machine) -> int:
    """The number of workers: what is set, or one per core, as far as three quarters of the memory go.

    The memory that the task states of all workers may take together is set apart first. Beside a GPU there is one
    worker, since larger batches are what makes it fast, and each further process would hold all graphs on it again.
    """
    if settings.workers:
        return settings.workers
    if machine.cuda or not hasattr(socket, "send_fds"):
        return 1
    if machine.memory_bytes is None:
        return machine.cores
    graphs = [path.stat().st_size for path in settings.bundles.glob("*/*/*.onnx")]
    each = PROCESS_BYTES + len(graphs) * SESSION_BYTES + GRAPH_FACTOR * sum(graphs)
    room = machine.memory_bytes * 3 // 4 - settings.cache_bytes - settings.support_cache_bytes
    return max(1, min(machine.cores, room // each))


def share(settings: Settings, workers: int, cores: int) -> Settings:
    """The settings of each worker: what is meant for the whole machine is divided evenly among them."""
    return settings.model_copy(
        update={
            "workers": 1,
            "threads": max(1, (settings.threads or cores) // workers),
            "cache_bytes": max(2**20, settings.cache_bytes // workers),
            "support_cache_bytes": settings.support_cache_bytes // workers,
            "max_in_flight": -(-settings.max_in_flight // workers),
        }
    )


def _memory_bytes() -> int | None:
    found = []
    with contextlib.suppress(OSError, ValueError):  # no cgroup v2, or no limit ("max")
        found.append(int(_MEMORY_MAX.read_text(encoding="ascii")))
    with contextlib.suppress(OSError, ValueError, IndexError):
        _, _, rest = _MEMORY_INFO.read_text(encoding="ascii").partition("MemTotal:")
        found.append(int(rest.split()[0]) * 1024)
    return min(found, default=None)
