"""A server of bundles whose tasks are described, and what is compared of its answers."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from tests import tiny_readers, tiny_words
from tests.serving import Api, in_process
from tests.tiny_readers import TASKS, TinyReaders
from tests.tiny_words import TinyWords

PAPERS, ALONE, STRICT = (
    TinyReaders(),
    TinyReaders(name="alone", learns=False, base=False),
    TinyReaders("strict", base=False),
)
WORDS, WHOLE, OPEN = TinyWords(), TinyWords("whole", truncate=False), TinyWords("open", open=True)
IDS = [entry["id"] for entry in TASKS]
RECORDS, TEXTS = list(tiny_readers.INPUTS), list(tiny_words.INPUTS)
NUMBERS = [{"input": record, "label": label} for record, label in tiny_readers.SUPPORT]
NAMES = [{"input": text, "label": label} for text, label in tiny_words.SUPPORT]
VENUE = {"venue": "v", "year": 7}


@contextmanager
def described(folder: Path) -> Iterator[Api]:
    """A server of these bundles."""
    for readers in (PAPERS, ALONE, STRICT):
        tiny_readers.build(folder / "bundles", readers)
    for words in (WORDS, WHOLE, OPEN):
        tiny_words.build(folder / "bundles", words)
    with in_process(folder, folder / "bundles", max_rows_per_call=200) as running:
        yield running


def predictions(answer: httpx.Response) -> list[dict[str, Any]]:
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["predictions"]
    return found


def same(got: Sequence[Mapping[str, Any]], want: Sequence[Mapping[str, Any]]) -> bool:
    """Whether each prediction has what numpy says of it, numbers to 1e-4."""
    return len(got) == len(want) and all(
        found["kind"] == wanted["kind"] and all(close(found[key], wanted[key]) for key in wanted if key != "kind")
        for found, wanted in zip(got, want, strict=True)
    )


def close(got: Any, want: Any) -> bool:
    if isinstance(want, Mapping):
        return list(got) == list(want) and all(close(got[key], want[key]) for key in want) if want else got == want
    if isinstance(want, list):
        return len(got) == len(want) and all(map(close, got, want))
    return bool(got == want if isinstance(want, str) else abs(got - want) <= 1e-4 * (1 + abs(want)))


def sorted_scores(answers: Sequence[Mapping[str, Any]]) -> list[Any]:
    """What is wanted, with scores as the service gives them: highest first."""
    return [
        {**wanted, "scores": dict(sorted(wanted["scores"].items(), key=lambda item: -item[1]))}
        if "scores" in wanted
        else wanted
        for wanted in answers
    ]


def wanted(task: str, metadata: Mapping[str, Any] | None = None, support: Any = ()) -> list[Any]:
    return sorted_scores(PAPERS.answers(task, RECORDS, metadata, support))
