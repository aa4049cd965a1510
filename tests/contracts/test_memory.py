"""Memory stays flat. The full form is `python -m loadtests.memory`."""

import subprocess
import sys

import pytest
from tests.serving import ROOT

SHARES = {"shapes": "0.012", "states": "0.02", "adaptations": "0.02"}


def grew(leak: str, part: str) -> bool:
    """Whether memory grew by more than may be, in a process of its own."""
    command = [sys.executable, "-m", "tests.leaking", leak, part, SHARES[part]]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stderr
    assert "growth_after_the_first" in done.stdout, done.stderr
    return done.returncode == 1


@pytest.mark.parametrize("part", list(SHARES))
def test_memory_does_not_grow_with_what_came_and_went(part: str) -> None:
    assert not grew("none", part)


@pytest.mark.parametrize(("leak", "part"), [("batches", "shapes"), ("states", "states")])
def test_a_service_that_leaks_is_caught(leak: str, part: str) -> None:
    assert grew(leak, part)
