"""Turns at writing among processes."""

import fcntl
import logging
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from handful_service.store.turns import Turns

WRITES = """
import os, sys, time
from handful_service.store.turns import Turns
path, letter, count = sys.argv[1:]
turns = Turns(path, 20.0)
print("here", flush=True)
sys.stdin.readline()
for _ in range(int(count)):
    with turns.turn():
        with open(path + "-order", "a") as file:
            file.write(letter)
            file.flush()
            time.sleep(0.002)
            file.write(letter.upper())
print("done", flush=True)
sys.stdin.readline()
"""


WRITES_AGAIN_WHEN_TOLD = """
import contextlib, sys
from handful_service.store.turns import Turns
path, letter = sys.argv[1:]
turns = Turns(path, 20.0)
turn = contextlib.ExitStack()
print("here", flush=True)
while sys.stdin.readline():
    turn.close()
    turn.enter_context(turns.turn())
    with open(path + "-order", "a") as file:
        file.write(letter)
    print("writes", flush=True)
"""
"""A turn for each line that it reads, which lasts until the next."""


@contextmanager
def writers(script: str, path: Path, letters: str, *more: str) -> Iterator[list[subprocess.Popen[str]]]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(path), letter, *more], env=environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )
        for letter in letters
    ]  # fmt: skip
    try:
        for one in started:
            hear(one, "here")
        yield started
    finally:
        for one in started:
            one.kill()
            one.communicate()


def hear(process: subprocess.Popen[str], word: str) -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == f"{word}\n"


def tell(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def waits_for_a_turn(path: Path, process: subprocess.Popen[str]) -> None:
    """Return once somebody stands at the turnstile of a turn that another has."""
    with path.open("r+b") as file:
        while process.poll() is None:
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 0)
            except BlockingIOError:
                return
            fcntl.lockf(file, fcntl.LOCK_UN, 1, 0)
            time.sleep(0.001)


def test_processes_that_always_want_to_write_never_do_so_at_once(tmp_path: Path) -> None:
    with writers(WRITES, tmp_path / "turns", "ab", "100") as started:
        for one in started:
            tell(one)
        for one in started:
            hear(one, "done")
    assert re.fullmatch("(aA|bB){200}", (tmp_path / "turns-order").read_text(encoding="utf-8"))


def test_who_has_written_and_asks_again_at_once_comes_after_who_waits(tmp_path: Path) -> None:
    with writers(WRITES_AGAIN_WHEN_TOLD, tmp_path / "turns", "ab") as started:
        tell(started[0])
        hear(started[0], "writes")
        tell(started[1])
        for writes, waits in [started, started[::-1]] * 10:
            waits_for_a_turn(tmp_path / "turns", waits)
            tell(writes)
            hear(waits, "writes")
        assert (tmp_path / "turns-order").read_text(encoding="utf-8") == "ab" * 10 + "a"


def test_a_process_that_is_killed_in_its_turn_holds_nobody_up(tmp_path: Path) -> None:
    with writers(WRITES, tmp_path / "turns", "a", "10000") as (victim,):
        tell(victim)
        while not (tmp_path / "turns-order").exists():
            time.sleep(0.001)
        victim.send_signal(signal.SIGKILL)
        victim.wait()
        turns = Turns(str(tmp_path / "turns"), 5.0)
        started = time.monotonic()
        with turns.turn():
            assert time.monotonic() - started < 1
        turns.close()


def test_who_waits_too_long_goes_on_and_the_log_tells(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "turns").touch()
    held = subprocess.Popen(
        [sys.executable, "-c", f"""
import fcntl, os, time
file = os.open({str(tmp_path / 'turns')!r}, os.O_RDWR)
fcntl.lockf(file, fcntl.LOCK_EX, 1, 1)
print("here", flush=True)
time.sleep(60)
"""], text=True, stdout=subprocess.PIPE)  # fmt: skip
    try:
        hear(held, "here")
        turns = Turns(str(tmp_path / "turns"), 0.05)
        with caplog.at_level(logging.WARNING), turns.turn():
            pass
        assert "no turn at writing" in caplog.text
        turns.close()
    finally:
        held.kill()
        held.communicate()
