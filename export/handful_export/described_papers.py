"""What the export of papers needs: the tokenizer that training used, real texts, and small requests."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np

from handful_models.config import TextConfig, TrainConfig
from handful_models.datasets import tokenized
from handful_models.learner import DescribedLearner
from handful_models.paper_vocabulary import TOKENIZER
from handful_models.papers import VENUES
from handful_models.record_encoder import RecordField, rows_of
from handful_models.runs import Run
from handful_models.tokens import read_tokenizer, token_ids

from .described import DescribedMaterial, RawTask
from .errors import SpecInvalid
from .known import INDEX

ROWS = 48
FIELDS = (
    RecordField("venue", "category", VENUES, unseen="other"),
    RecordField("year", "number", minimum=1980, maximum=2040),
)

TEXTS = (
    "Sharing heads across many small tasks\nWe study how a single network can serve hundreds of small tasks. Each task "
    "has a head of its own; the trunk is shared. On three benchmarks the shared model is as accurate as separate ones, "
    "at a fraction of the memory.",
    "A NOTE ON REGRET — bandits with naïve priors\nWe prove an O(√T) bound on the regret of Thompson sampling "
    "where the prior is wrong, and show that it can't be improved.",
)
"""Papers that nobody wrote."""

LONG = "Parsing at length\n" + "We parse sentences with a neural network and report accuracy on a treebank. " * 40
"""Longer than any text that the model reads to its end."""

SUPPORT = tuple(
    (f"Paper {place} on machine translation\nWe translate language {place} with attention.", 8.0 + place % 3)
    for place in range(10)
)

PLACES: tuple[dict[str, str | float], ...] = (
    {"venue": "acl", "year": 2017},
    {"venue": "icml", "year": 2019},
    {"venue": "iclr", "year": 2018},
    {"venue": "workshop-of-nowhere", "year": 2031},
)
"""What describes the known tasks in the checks: a venue and year that trained, two more, and a venue never seen."""

FIGURES = {"pages": "pages", "rating": "rating", "accept": "accept", "key words": "keywords"}
"""How the titles of measured figures begin, and the task that they are of."""

FIXED = "A support set does not change it."


def papers_material(run: Run, learner: DescribedLearner, data: Path) -> DescribedMaterial:
    """The material but for the card and the calibration.

    Raises:
        SpecInvalid: the run's encoder reads no texts.
        DataMissing: the papers or the tokenizer are not there.
    """
    config = run.read_config()
    tokenizer, material = read_tokenizer(_encoder(config).vocabulary / TOKENIZER), tokenized(config, data)
    rows = material.papers.rows("selection", "pages")
    rows = np.random.default_rng(0).choice(rows, ROWS, replace=False)
    return DescribedMaterial(
        inputs={"x": material.x[rows].numpy()},
        requests=_requests(config, learner),
        card="",
        descriptors={"metadata": {"record": {"fields": [each.options() for each in FIELDS]}, "beside_id": True}},
        described={"metadata": {"metadata": np.concatenate([place_of(place) for place in PLACES])}},
        notes=_notes(run, learner),
        y=material.papers.pages[rows][:, None],
        assets={f"assets/{TOKENIZER}": tokenizer.to_str().encode()},
    )


def place_of(metadata: dict[str, str | float]) -> np.ndarray:
    """A venue and year as a row, float32 `[1, 2]`."""
    return rows_of(FIELDS, {name: [value] for name, value in metadata.items()}).numpy()


def _encoder(config: TrainConfig) -> TextConfig:
    if not isinstance(config.encoder, TextConfig):
        raise SpecInvalid("inputs.x.kind: 'text' needs a run whose encoder reads texts")
    return config.encoder


def _notes(run: Run, learner: DescribedLearner) -> dict[str, dict[str, Any]]:
    """What was measured of each task; and, of those that learn from no example, that they do not."""
    found: dict[str, dict[str, Any]] = {}
    for reader in learner.readers[1:]:
        found[reader.id] = {"description": f"{reader.description or 'Key words, any of which may hold.'} {FIXED}"}
    measured = json.loads(run.evaluation.read_text(encoding="utf-8"))["figures"] if run.evaluation.exists() else []
    for row in measured:
        task, _, what = row["title"].partition(", ")
        name = f"{what}: {row['metric']}"
        found.setdefault(FIGURES[task], {}).setdefault("evaluation", {})[name] = round(row["mean"], 4)
    return found


def _requests(config: TrainConfig, learner: DescribedLearner) -> list[RawTask]:
    """Every task by its id alone and of a venue-year; the page count also elsewhere, and after ten papers."""
    encoder = _encoder(config)
    tokenizer = read_tokenizer(encoder.vocabulary / TOKENIZER)

    def ids(texts: list[str]) -> dict[str, np.ndarray]:
        return {"x": token_ids(tokenizer, texts, encoder.tokens)}

    def request(place: int, metadata: dict[str, str | float] | None, texts: list[str]) -> RawTask:
        reader, index = learner.readers[place], {INDEX: np.array([place], np.int64)}
        task: dict[str, Any] = {"id": reader.id}
        if metadata is None:
            return RawTask(reader.id, task, "id", index, texts, ids(texts))
        task, descriptor = {**task, "metadata": metadata}, {**index, "metadata": place_of(metadata)}
        return RawTask(reader.id, task, "metadata", descriptor, texts, ids(texts))

    places, few = range(len(learner.readers)), list(TEXTS)
    alone = [request(place, None, [*few, LONG]) for place in places]
    at = [request(place, PLACES[2], few) for place in places]
    new, nowhere = (request(0, place, few) for place in (PLACES[1], PLACES[3]))
    examples = ids([text for text, _ in SUPPORT])
    return [*alone, *at, nowhere, new, dataclasses.replace(new, support=SUPPORT, support_inputs=examples)]
