"""What tests of several processes share."""

from collections.abc import Iterator

import pytest
from prometheus_client import values


@pytest.fixture
def metrics_in_memory() -> Iterator[None]:
    """Metrics that are kept in files change what later ones do: not beyond the test."""
    before = values.ValueClass
    yield
    for file in values.ValueClass._files.values():
        file._f.close()
    values.ValueClass = before
