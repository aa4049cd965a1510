"""Arrays as bytes, read by many threads."""

import gc
import io
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from handful_service.npz import unpack

ARRAYS = {f"a{place}": np.full((3, place + 1), place, np.float32) for place in range(12)}


class Finaliser:
    """Something whose end runs Python code, wherever the collector finds it."""

    def __init__(self) -> None:
        self.itself = self

    def __del__(self) -> None:
        sum(range(50))


@pytest.fixture
def hurried() -> Iterator[None]:
    """Threads change at every chance, and the collector runs all the time."""
    interval, threshold = sys.getswitchinterval(), gc.get_threshold()
    sys.setswitchinterval(1e-6)
    gc.set_threshold(20, 2, 2)
    yield
    gc.set_threshold(*threshold)
    sys.setswitchinterval(interval)


@pytest.mark.usefixtures("hurried")
def test_threads_may_read_beside_each_other() -> None:
    file = io.BytesIO()
    np.savez(file, **ARRAYS)  # type: ignore[arg-type]
    content = file.getvalue()

    def read(_: int) -> None:
        for _ in range(50):
            Finaliser()
            found = unpack(content)
            assert all(np.array_equal(found[name], value) for name, value in ARRAYS.items())

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(read, range(40)))
