"""Tasks out of the sixty drawings, and what is compared of their answers."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

DRAWINGS = Path(__file__).parent / "fixtures" / "glyphs"
TOLERANCE = 1e-5
Example = dict[str, Any]
Scores = Mapping[str, float]


@dataclass(frozen=True)
class Glyphs:
    """The drawings of each character, as base64 PNG files.

    Attributes:
        names: Of the characters, in order.
    """

    drawings: Mapping[str, Sequence[str]]

    @classmethod
    def read(cls) -> "Glyphs":
        drawings: dict[str, list[str]] = {}
        for path in sorted(DRAWINGS.glob("*.png")):
            drawings.setdefault(path.stem.partition("-")[0], []).append(base64.b64encode(path.read_bytes()).decode())
        return cls(drawings)

    @property
    def names(self) -> list[str]:
        return list(self.drawings)

    def support(self, names: Sequence[str], drawings: Sequence[int] = (0,)) -> list[Example]:
        """An example of each drawing of each character, labelled by its name."""
        return [{"input": self.drawings[name][at], "label": name} for name in names for at in drawings]

    def queries(self, names: Sequence[str], drawings: Sequence[int] = (4,)) -> list[str]:
        return [self.drawings[name][at] for name in names for at in drawings]


def with_ids(support: Sequence[Example]) -> list[Example]:
    """The examples, with the ids e0, e1, …"""
    return [{**example, "example_id": f"e{place}"} for place, example in enumerate(support)]


def inline_of(support: Sequence[Example]) -> list[Example]:
    """The examples without their ids, which an inline support set has none of."""
    return [{"input": example["input"], "label": example["label"]} for example in support]


def scores(response: httpx.Response) -> list[Scores]:
    """The scores by label of each prediction."""
    assert response.status_code == 200, response.text
    return [prediction["scores"] for prediction in response.json()["predictions"]]


def labels(response: httpx.Response) -> list[str]:
    """The label of each prediction."""
    assert response.status_code == 200, response.text
    return [prediction["label"] for prediction in response.json()["predictions"]]


def alike(one: Sequence[Scores], other: Sequence[Scores]) -> bool:
    """Whether two answers have the same labels, with the same scores to 1e-5."""
    return len(one) == len(other) and all(
        a.keys() == b.keys() and all(abs(a[label] - b[label]) <= TOLERANCE for label in a)
        for a, b in zip(one, other, strict=True)
    )


def problem(response: httpx.Response, status: int, slug: str) -> dict[str, Any]:
    """The problem document of a refused call, checked."""
    assert (response.status_code, response.headers["content-type"]) == (status, "application/problem+json"), (
        response.text
    )
    document: dict[str, Any] = response.json()
    assert document["type"] == f"urn:handful:problem:{slug}"
    assert document["status"] == status
    assert document["title"]
    assert document["detail"]
    assert document["request_id"] == response.headers["x-request-id"]
    return document


def field(document: Mapping[str, Any]) -> str | None:
    """The place in the request that a problem names."""
    place: str | None = document["errors"][0].get("field")
    return place
