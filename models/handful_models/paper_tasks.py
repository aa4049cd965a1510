"""Papers as batches of texts, and what a learner of them must know before and after training."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .errors import ConfigInvalid
from .learner import Learner
from .mixed_readers import FIRST_KEYWORD, IDS, MixedBatch, MixedReaders
from .papers import Papers
from .tasks import EpisodeShape, Examples
from .text import TextEncoder
from .tokens import read_tokenizer, token_ids

if TYPE_CHECKING:
    from scipy import sparse

LISTS = 5
PENALTIES = (1.0, 3.0, 10.0, 30.0, 100.0)
THRESHOLDS = np.arange(0.05, 0.7, 0.01)


@dataclass(frozen=True, slots=True)
class TokenizedPapers:
    """Papers, and the pieces of their texts, int64 `[paper, tokens]`."""

    papers: Papers
    x: Tensor

    @classmethod
    def of(cls, papers: Papers, tokenizer: Path, tokens: int) -> "TokenizedPapers":
        """Papers cut to the first `tokens` pieces.

        Raises:
            DataMissing: there is no such tokenizer.
        """
        return cls(papers, torch.from_numpy(token_ids(read_tokenizer(tokenizer), papers.text, tokens)))

    def batch(self, rows: NDArray[np.int64]) -> MixedBatch:
        """The papers of some rows."""
        x = self.x[rows].unsqueeze(0)
        empty = torch.zeros(1, len(rows))
        examples = Examples({"x": x}, empty.unsqueeze(-1), empty + 1)
        targets = {name: torch.from_numpy(getattr(self.papers, name)[rows]) for name in IDS}
        return MixedBatch(examples, examples, torch.from_numpy(self.papers.metadata[rows]), targets)

    def draw(self, generator: np.random.Generator, shape: EpisodeShape) -> MixedBatch:
        """See `TaskSource`: `shape.query` training papers that have key words."""
        return self.batch(generator.choice(self.papers.rows("train", "keywords"), shape.query))

    def standard_pages(self, learner: MixedReaders) -> NDArray[np.float32]:
        """Page counts `[paper]` less the level that venue and year give, over the spread; NaN where missing."""
        level, unit, _ = learner.years(torch.from_numpy(self.papers.metadata))
        return np.asarray((self.papers.pages - level.numpy()) / unit.numpy())


@torch.no_grad()
def prepare(learner: Learner, material: TokenizedPapers) -> None:
    """Give what is known of venue-years, the guesses, and embeddings that begin as latent semantics.

    All from training papers; the guesses' penalties are those best on selection papers.
    """
    learner = mixed(learner)
    papers, rows = material.papers, material.papers.rows("train")
    learner.years.fit(torch.from_numpy(papers.metadata[rows]), torch.from_numpy(papers.pages[rows]))
    learner.context.fit(torch.from_numpy(papers.metadata[rows]))
    learner.shots.copy_(torch.tensor([float(len(papers.rows("train", name))) for name in IDS]))
    words = np.nanmean(papers.keywords[rows], 0).clip(1e-4, 1 - 1e-4)
    learner.words.bias.copy_(torch.from_numpy(np.log(words / (1 - words))))
    learner.words_by_year.copy_(_log_odds_by_year(learner.years.table, papers, words))
    encoder = learner.get_submodule("encoder")
    if not isinstance(encoder, TextEncoder):
        raise ConfigInvalid("encoder.kind: 'text' for data.set = 'papers'")
    pieces = encoder.embedding.num_embeddings
    terms, there = (part.numpy() for part in encoder.terms(material.x))
    counts, rarity = weighted_counts(terms, there, rows, encoder.rarity.num_embeddings)
    latent = latent_semantics(counts[rows][:, :pieces], rarity[:pieces], encoder.embedding.embedding_dim)
    encoder.embedding.weight.copy_(torch.from_numpy(latent))
    encoder.rarity.weight.copy_(torch.from_numpy(rarity).unsqueeze(1))
    targets = {"pages": material.standard_pages(learner), "rating": papers.rating, "accept": 2 * papers.accept - 1}
    guesses = [linear_guess(counts, values, papers, name) for name, values in targets.items()]
    encoder.guess.weight.copy_(torch.from_numpy(np.stack(guesses, 1)))
    fit_guesses(learner, material, targets)


def _log_odds_by_year(table: Tensor, papers: Papers, usual: NDArray[np.float32]) -> Tensor:
    """What each known venue-year adds to the usual log-odds of key words, `[known, label]`; 0 where none is listed.

    Its rates are drawn to the usual ones as if by `LISTS` more lists of the usual words.
    """
    rows = papers.rows("train", "keywords")
    found = np.zeros((len(table), len(usual)), np.float32)
    for place, one in enumerate(table[:, :2].numpy()):
        lists = papers.keywords[rows[(papers.metadata[rows] == one).all(1)]]
        rate = (lists.sum(0) + LISTS * usual) / (len(lists) + LISTS)
        found[place] = np.log(rate / (1 - rate)) - np.log(usual / (1 - usual))
    return torch.from_numpy(found)


def fit_guesses(learner: MixedReaders, material: TokenizedPapers, targets: Mapping[str, NDArray[np.float32]]) -> None:
    """Slopes and noise of the guesses, and the weights of the decision, by papers that the guesses never saw."""
    papers = material.papers
    for place, name in enumerate(("pages", "rating")):
        rows = papers.rows("selection", name)
        guess, y = learner.guesses(learner.encode({"x": material.x[rows]}))[:, place].numpy(), targets[name][rows]
        slope = float(guess @ y / max(float(guess @ guess), 1e-9))
        learner.slopes[place], learner.noise[place] = slope, float(np.mean((y - slope * guess) ** 2))
    rows = papers.rows("selection", "accept")
    decided = learner.guesses(learner.encode({"x": material.x[rows]}))[:, 1:]
    learner.decision.copy_(logistic(decided, torch.from_numpy(papers.accept[rows])))


def logistic(x: Tensor, y: Tensor, steps: int = 50) -> Tensor:
    """Weights and level `[columns + 1]` of the logistic regression of `y [n]` on `x [n, columns]`; Newton's steps."""
    design = torch.nn.functional.pad(x, (0, 1), value=1.0).double()
    weights, penalty = design.new_zeros(design.shape[1]), 1e-2 * torch.eye(design.shape[1], dtype=torch.float64)
    for _ in range(steps):
        chance = torch.sigmoid(design @ weights)
        slope = design.T @ (y.double() - chance) - penalty @ weights
        curve = (design * (chance * (1 - chance)).unsqueeze(1)).T @ design + penalty
        weights = weights + torch.linalg.solve(curve, slope)
    return weights.float()


def weighted_counts(
    terms: NDArray[np.int64], there: NDArray[np.bool_], rows: NDArray[np.int64], size: int
) -> tuple["sparse.csr_matrix", NDArray[np.float32]]:
    """Counts of terms `[text, size]` times their rarity, at unit length as `TextEncoder` has it; and the rarity."""
    from scipy import sparse  # noqa: PLC0415 (a second of import that only this needs)

    text, place = np.nonzero(there)
    term = terms[text, place]
    counts = sparse.csr_matrix((np.ones(len(text)), (text, term)), shape=(len(terms), size))
    rarity = 1 + np.log((1 + len(rows)) / (1 + np.asarray((counts[rows] > 0).sum(0)).ravel()))
    rarity = rarity.astype(np.float32)
    length = np.sqrt(np.bincount(text, rarity[term] ** 2, minlength=len(terms)))
    return sparse.diags(1 / np.maximum(length, 1e-6)) @ counts @ sparse.diags(rarity), rarity


def linear_guess(counts: Any, values: NDArray[np.float32], papers: Papers, name: str) -> NDArray[np.float32]:
    """Weights `[term]` of the ridge regression of values on training papers, by the best penalty of `PENALTIES`."""
    from sklearn.linear_model import Ridge  # noqa: PLC0415 (a second of import that only this needs)

    train, selection = papers.rows("train", name), papers.rows("selection", name)
    fits = [Ridge(penalty, solver="sparse_cg", fit_intercept=False) for penalty in PENALTIES]
    weights = [fit.fit(counts[train], values[train]).coef_ for fit in fits]
    found = max(weights, key=lambda each: np.corrcoef(counts[selection] @ each, values[selection])[0, 1])
    return np.asarray(found, np.float32)


def latent_semantics(counts: Any, rarity: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """Vectors `[pieces, size]` of pieces that stand in the same texts; 0 for padding.

    Deerwester, Dumais, Furnas et al., "Indexing by Latent Semantic Analysis" (1990), on counts weighted by rarity.
    """
    from sklearn.utils.extmath import randomized_svd  # noqa: PLC0415 (a second of import that only this needs)

    _, strength, vectors = randomized_svd(counts, size, random_state=0)
    found = vectors.T * strength * rarity[:, None]
    found /= np.sqrt(np.square(found).sum(1).mean())
    found[0] = 0
    return np.asarray(found, np.float32)


def finish(learner: Learner, material: TokenizedPapers) -> None:
    """Keep the threshold of key words with the best micro-F1 on selection papers."""
    learner = mixed(learner)
    rows = material.papers.rows("selection", "keywords")
    chance = torch.sigmoid(answers(learner, material, rows)[:, FIRST_KEYWORD:]).numpy()
    learner.threshold.fill_(best_threshold(chance, material.papers.keywords[rows]))


@torch.no_grad()
def answers(learner: MixedReaders, material: TokenizedPapers, rows: NDArray[np.int64], *, at_once: int = 512) -> Tensor:
    """What a learner answers to papers from their venue and year alone: `[paper, columns]`."""
    learner.eval()
    parts = []
    for start in range(0, len(rows), at_once):
        some = rows[start : start + at_once]
        index = torch.zeros(len(some), dtype=torch.int64)
        state = learner.describe(
            "metadata", {"index": index, "metadata": torch.from_numpy(material.papers.metadata[some])}
        )
        parts.append(learner.predict(learner.encode({"x": material.x[some]}), state)[:, 0])
    return torch.cat(parts)


def best_threshold(chance: NDArray[np.floating], truth: NDArray[np.floating]) -> float:
    """The threshold of `THRESHOLDS` with the best micro-F1."""
    return float(max(THRESHOLDS, key=lambda threshold: micro_f1(chance >= threshold, truth > 0)))


def micro_f1(answer: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    """The harmonic mean of precision and recall over all labels together; 0 where nothing is right."""
    right = (answer & truth).sum()
    return float(2 * right / max(answer.sum() + truth.sum(), 1))


def mixed(learner: Learner) -> MixedReaders:
    """The learner, known to be of mixed readers.

    Raises:
        ConfigInvalid: it is not.
    """
    if not isinstance(learner, MixedReaders):
        raise ConfigInvalid("learner.method: 'mixed-readers' for data.set = 'papers'")
    return learner
