"""How the answers of the readers of papers are calibrated: on selection papers, each reader in its own way.

Page counts are asked of venue-years to come. So they are calibrated as if each venue-year were new: it is taken out of
what is known of venues while its own selection papers are scored, alone and after some of them as a support set.
"""

import copy
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .calibration import CONFIDENCE, fit_temperature
from .intervals import score_quantiles
from .learner import Learner
from .mixed_readers import ACCEPT, FIRST_KEYWORD, KEYWORDS, PAGES, RATING, MixedReaders
from .paper_tasks import TokenizedPapers, answers, mixed
from .task_measuring import calibration_of
from .task_sampling import TaskRows

SHOTS = (1, 3, 5, 10, 20)
QUERIES = 5
"""The least papers that a support set must leave of a venue-year."""

DRAWS = 20


def calibrations(learner: Learner, material: TokenizedPapers, *, seed: int) -> dict[str, dict[str, Any]]:
    """The calibration of each reader's output, by its id.

    Args:
        learner: Of mixed readers.
        material: Papers, cut by the learner's tokenizer.
        seed: Of the support sets.
    """
    learner = mixed(learner).eval()
    readers = learner.readers
    return {
        readers[PAGES].id: _pages(learner, material, seed=seed),
        readers[RATING].id: _rated(learner, material, RATING),
        readers[ACCEPT].id: _rated(learner, material, ACCEPT),
        readers[KEYWORDS].id: _keywords(learner, material),
    }


@torch.no_grad()
def _pages(learner: MixedReaders, material: TokenizedPapers, *, seed: int) -> dict[str, Any]:
    """Quantiles by the size of the support set; without one, those of the venue-year alone."""
    generator = np.random.default_rng(seed)
    scores: dict[int, list[NDArray[np.float64]]] = {shot: [] for shot in (0, *SHOTS)}
    papers, rows = material.papers, material.papers.rows("selection", "pages")
    for one in np.unique(papers.metadata[rows], axis=0):
        here = rows[(papers.metadata[rows] == one).all(1)]
        new = without(learner, one)
        features = new.encode({"x": material.x[here]})["features"]
        pages, metadata = torch.from_numpy(papers.pages[here]), torch.from_numpy(one[None])
        for shot, found in scores.items():
            if len(here) >= shot + QUERIES:
                for _ in range(DRAWS if shot else 1):
                    order = generator.permutation(len(here))
                    found.append(_scores(new, metadata, features[order], pages[order], shot))
    cells = {shot: score_quantiles(np.concatenate(found), CONFIDENCE) for shot, found in scores.items() if found}
    shots = [*cells, learner.readers[PAGES].shots]
    return {"shots": shots, "confidence": list(CONFIDENCE), "quantile": [*cells.values(), cells[0]]}


def without(learner: MixedReaders, venue_year: NDArray[np.float32]) -> MixedReaders:
    """A copy of a learner to which `venue_year [2]` is new."""
    found = copy.deepcopy(learner)
    gone = (found.years.table[:, :2] == torch.from_numpy(venue_year)).all(1)
    found.years.table[gone] = torch.tensor([-1.0, 0, 0, 0, 0])
    return found


def _scores(learner: MixedReaders, metadata: Tensor, features: Tensor, pages: Tensor, shot: int) -> NDArray[np.float64]:
    """How many standard deviations the pages of the papers after the first `shot`, the support set, are off."""
    state = learner.describe("metadata", {"index": torch.tensor([PAGES]), "metadata": metadata})
    if shot:
        support = {"features": features[:shot].unsqueeze(0)}
        state = learner.adapted(state, support, pages[:shot].reshape(1, -1, 1), torch.ones(1, shot))
    found = learner.predict({"features": features[shot:]}, state)[:, 0]
    return ((pages[shot:] - found[:, 0]).abs() * torch.exp(-found[:, 1] / 2)).double().numpy()


def _rated(learner: MixedReaders, material: TokenizedPapers, task: int) -> dict[str, Any]:
    """The calibration of the rating or the decision, on papers as they are."""
    reader = learner.readers[task]
    rows = material.papers.rows("selection", reader.id)
    y = torch.from_numpy(getattr(material.papers, reader.id)[rows])
    given = y.long() if reader.kind == "class" else y.unsqueeze(1)
    found = answers(learner, material, rows)[:, reader.columns[0] : reader.columns[1]]
    return calibration_of(reader, TaskRows({}, given, torch.ones(len(rows))), found)


def _keywords(learner: MixedReaders, material: TokenizedPapers) -> dict[str, Any]:
    """A temperature, and for every label the learner's threshold: some have too few papers for one of their own."""
    rows = material.papers.rows("selection", "keywords")
    logits = answers(learner, material, rows)[:, FIRST_KEYWORD:]
    truth = torch.from_numpy(material.papers.keywords[rows]).long()
    pairs = torch.stack([torch.zeros_like(logits), logits], -1).flatten(0, 1)
    temperature = round(fit_temperature(pairs.unsqueeze(1), truth.flatten()), 4)
    chance = torch.sigmoid(torch.logit(learner.threshold.double()) / temperature).item()
    return {"temperature": temperature, "threshold": [round(chance, 6)] * logits.shape[1]}
