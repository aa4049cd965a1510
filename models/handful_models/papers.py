"""Papers of 14 venues, with title and abstract, and four things to tell of them; most know only some of the four.

The page count, where a venue prints one; the mean review rating, normalised within venue and year; whether ICLR took
the paper; and its key words. A venue and a year are known by what they are: those held out are the last year of every
venue that has two earlier ones.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import digests

FILE = "papers.parquet"
DIGESTS = {FILE: "f3593a15799e7def5177b514e4123d7be87dba77c5bb075b13a82ff1aafea77a"}
VENUES = ("acl", "acml", "aistats", "alt", "coling", "colm", "colt", "corl", "iclr", "icml", "ijcai", "naacl", "uai")
HELD_OUT = (
    ("acml", 2023), ("aistats", 2023), ("coling", 2025), ("colt", 2023),
    ("corl", 2024), ("icml", 2018), ("ijcai", 2024), ("uai", 2024),
)  # fmt: skip
"""The rule's result: the last year of every venue that has two earlier ones."""

YEARS = (1995, 2025)
ACCEPTED, REJECTED = ("Poster", "Oral"), ("Reject",)
LABELS = ("reject", "accept")
LEAST_PAPERS = 20
PARTS = ("train", "selection", "test", "held-out")
_TENTHS = ("train",) * 7 + ("selection",) + ("test",) * 2


@dataclass(frozen=True, slots=True)
class Papers:
    """Papers and what is known of them; NaN is missing.

    Attributes:
        text: Title, a line break, abstract.
        metadata: float32 `[paper, 2]`: the venue's index in `VENUES`, the year.
        part: Of `PARTS`, `[paper]`.
        pages: float32 `[paper]`.
        rating: float32 `[paper]`, of mean 0 and variance 1 within venue and year.
        accept: float32 `[paper]`, 1 or 0; workshop papers and withdrawn ones are missing.
        keywords: float32 `[paper, label]`, 1 or 0; all NaN where the list is empty.
        labels: The key words of 20 training papers or more, by name.
    """

    text: Sequence[str]
    metadata: NDArray[np.float32]
    part: NDArray[np.str_]
    pages: NDArray[np.float32]
    rating: NDArray[np.float32]
    accept: NDArray[np.float32]
    keywords: NDArray[np.float32]
    labels: tuple[str, ...]

    def rows(self, part: str, target: str | None = None) -> NDArray[np.int64]:
        """The papers of a part that know a target, by their places."""
        chosen = self.part == part
        if target is not None:
            values = getattr(self, target)
            chosen = chosen & ~np.isnan(values if values.ndim == 1 else values[:, 0])
        return np.flatnonzero(chosen)


def load(folder: Path) -> Papers:
    """All papers.

    Args:
        folder: The data folder, which holds `papers/`.

    Raises:
        DataMissing: the file is not there.
        DataDamaged: the file is not the published one.
    """
    from pyarrow import parquet  # noqa: PLC0415 — the one place that needs it

    columns = ["venue", "year", "status", "title", "abstract", "keywords", "n_pages", "rating_mean"]
    found = parquet.read_table(digests.check(folder / "papers" / FILE, DIGESTS), columns=columns).to_pylist()
    return of_rows(found)


def of_rows(found: Sequence[dict[str, Any]]) -> Papers:
    """Papers of rows with the file's columns."""
    part = np.array([part_of(row["title"], row["venue"], row["year"]) for row in found])
    metadata = np.array([[VENUES.index(row["venue"]), row["year"]] for row in found], np.float32)
    labels = _labels([row["keywords"] for row, its in zip(found, part, strict=True) if its == "train"])
    return Papers(
        text=[f"{row['title']}\n{row['abstract']}" for row in found],
        metadata=metadata,
        part=part,
        pages=_numbers([row["n_pages"] for row in found]),
        rating=_normalised(_numbers([row["rating_mean"] for row in found]), metadata, part),
        accept=np.array([_accept(row) for row in found], np.float32),
        keywords=_indicators([row["keywords"] for row in found], labels),
        labels=labels,
    )


def part_of(title: str, venue: str, year: int) -> str:
    """The part of a paper: `held-out` by venue and year, else by a digest of its title: 70, 10 and 20 %."""
    if (venue, year) in HELD_OUT:
        return "held-out"
    return _TENTHS[hashlib.sha256(title.lower().encode()).digest()[0] * 10 // 256]


def held_out_by_rule(years: Sequence[tuple[str, int]]) -> tuple[tuple[str, int], ...]:
    """The last year of every venue that has two earlier ones, of all (venue, year)."""
    by_venue: dict[str, set[int]] = {}
    for venue, year in years:
        by_venue.setdefault(venue, set()).add(year)
    return tuple((venue, max(found)) for venue, found in sorted(by_venue.items()) if len(found) > 2)


def _numbers(values: Sequence[float | None]) -> NDArray[np.float32]:
    return np.array([np.nan if value is None else value for value in values], np.float32)


def _accept(row: dict[str, Any]) -> float:
    if row["venue"] != "iclr" or row["status"] not in ACCEPTED + REJECTED:
        return np.nan
    return float(row["status"] in ACCEPTED)


def _labels(lists: Sequence[Sequence[str]]) -> tuple[str, ...]:
    count = Counter(word for words in lists for word in set(words))
    return tuple(sorted(word for word, papers in count.items() if papers >= LEAST_PAPERS))


def _indicators(lists: Sequence[Sequence[str]], labels: Sequence[str]) -> NDArray[np.float32]:
    place = {label: number for number, label in enumerate(labels)}
    found = np.zeros((len(lists), len(labels)), np.float32)
    for row, words in zip(found, lists, strict=True):
        row[[place[word] for word in words if word in place]] = 1
        if not words:
            row[:] = np.nan
    return found


def _normalised(
    values: NDArray[np.float32], metadata: NDArray[np.float32], part: NDArray[np.str_]
) -> NDArray[np.float32]:
    """Values of mean 0 and variance 1 within venue and year, by its training papers; by all where it is held out."""
    found = np.full_like(values, np.nan)
    for one in np.unique(metadata[~np.isnan(values)], axis=0):
        here = (metadata == one).all(1) & ~np.isnan(values)
        known = values[here & (part == "train")] if (part[here] == "train").any() else values[here]
        found[here] = (values[here] - known.mean()) / max(float(known.std()), 1e-6)
    return found
