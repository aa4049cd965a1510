"""Figures beside what they are held to, and the page and the files that a command writes of them."""

import json
import os
import platform
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from loadtests.load import commit
from loadtests.process import machine


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure and the least, or with `at_most` the most, that is asked. The value is None where it is not known."""

    what: str
    value: float | None
    asked: float
    at_most: bool = False

    @property
    def reached(self) -> bool | None:
        """Whether it is reached; None where it was not measured."""
        if self.value is None:
            return None
        return self.value <= self.asked if self.at_most else self.value >= self.asked

    def as_dict(self) -> dict[str, Any]:
        """For a JSON file."""
        found = {"what": self.what, "value": self.value, "asked": self.asked, "at_most": self.at_most}
        return {**found, "reached": self.reached}


def ratio(one: float | None, other: float | None) -> float | None:
    """How many times the other the one is; None where one is missing or the other is 0."""
    return None if one is None or not other else one / other


def number(value: float) -> str:
    """A number with as many digits as it deserves."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def table(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> Iterator[str]:
    """Rows as a Markdown table.

    Args:
        columns: Headings, by the key of a row.
    """
    yield f"| {' | '.join(columns.values())} |"
    yield f"|{' --- |' * len(columns)}"
    for row in rows:
        cells = [row.get(key) for key in columns]
        yield f"| {' | '.join(number(cell) if isinstance(cell, float) else str(cell) for cell in cells)} |"


def held_table(held: Sequence[Figure]) -> Iterator[str]:
    """Every figure beside what it is held to."""
    yield "| figure | measured | asked | |"
    yield "| --- | ---: | ---: | --- |"
    words = {True: "reached", False: "**not reached**", None: ""}
    for one in held:
        value = "not measured" if one.value is None else number(one.value)
        yield f"| {one.what} | {value} | {'≤' if one.at_most else '≥'} {number(one.asked)} | {words[one.reached]} |"


def processor() -> str:
    """The name of the processor, where the machine tells it."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except FileNotFoundError:
        return platform.processor()
    lines = [line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("model name")]
    return lines[0] if lines else platform.processor()


def provenance(module: str) -> dict[str, Any]:
    """Command, machine, commit, time, and the load of the machine before anything is measured."""
    return {
        "command": " ".join([f"python -m loadtests.{module}", *sys.argv[1:]]),
        "machine": machine(),
        "processor": processor(),
        "load_average_at_start": round(os.getloadavg()[0], 2),
        "started_at": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "commit": commit(),
    }


def about(result: Mapping[str, Any]) -> str:
    """Where the figures come from, in a sentence."""
    return (
        f"Written by `{result['command']}` on {result['machine']} ({result['processor']}), commit {result['commit']}, "
        f"{result['started_at']}; load average at the start {result['load_average_at_start']:.2f}."
    )


def missed(held: Sequence[Figure]) -> list[str]:
    """What was measured and not reached."""
    told = [one for one in held if one.reached is False]
    return [f"{one.what}: {one.value:.3g}, {'at most' if one.at_most else 'at least'} {one.asked:g}" for one in told]


def finish(title: str, result: dict[str, Any], parts: Sequence[str], held: Sequence[Figure], out: Path | None) -> int:
    """Print the page, write it with the JSON file where that is asked, and tell what is missed.

    Returns:
        The exit code: 1 where something is missed.
    """
    result["held_to"] = [one.as_dict() for one in held]
    sections = [f"# {title}", about(result), *parts, "## Held to", "\n".join(held_table(held))]
    text = "\n\n".join(sections) + "\n"
    print(text)
    if out is not None:
        out.with_suffix(".md").write_text(text, encoding="utf-8")
        out.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    for line in missed(held):
        print(f"missed: {line}", file=sys.stderr)
    return 1 if missed(held) else 0
