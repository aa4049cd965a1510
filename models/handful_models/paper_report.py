"""The figures of papers: by venue-year that was held out, and of the papers held out of the others."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .learner import Learner
from .mixed_readers import FIRST_KEYWORD, PAGES, MixedReaders
from .paired import Comparison, Row, row
from .paper_baselines import accept_scores, keyword_answers
from .paper_tasks import TokenizedPapers, answers, best_threshold, micro_f1, mixed

SUPPORT = 10
DRAWS = 50
RESAMPLES = 1000
NORMAL_90 = 1.6448536

Figure = Callable[[NDArray[np.int64]], float]


def evaluate(
    learner: Learner, material: TokenizedPapers, *, seed: int, calibration: Mapping[str, Any] | None = None
) -> list[Row]:
    """All rows; intervals over venue-years where it says so, else bootstrap intervals over papers.

    Args:
        learner: Of mixed readers.
        material: Papers, cut by the learner's tokenizer.
        seed: Of support sets and resamples.
        calibration: By task, see `paper_calibration`; without it intervals are those of a normal distribution.
    """
    learner = mixed(learner)
    return [
        *pages_described(learner, material, seed=seed, width=_width(calibration)),
        *pages_with_support(learner, material, seed=seed),
        *rating_rows(learner, material, seed=seed),
        accept_row(learner, material, seed=seed),
        keyword_row(learner, material, seed=seed),
    ]


def select(learner: Learner, material: TokenizedPapers) -> float:
    """The micro-F1 of key words on selection papers, at the best threshold; all else is fitted before training."""
    rows = material.papers.rows("selection", "keywords")
    chance = torch.sigmoid(answers(mixed(learner), material, rows)[:, FIRST_KEYWORD:]).numpy()
    truth = material.papers.keywords[rows]
    return micro_f1(chance >= best_threshold(chance, truth), truth > 0)


def _width(calibration: Mapping[str, Any] | None) -> float:
    """Half the width of the 90 % interval of page counts without support set, in standard deviations."""
    if calibration is None:
        return NORMAL_90
    table = calibration["pages"]
    return float(table["quantile"][-1][table["confidence"].index(0.9)])


def pages_described(
    learner: MixedReaders, material: TokenizedPapers, *, seed: int, width: float = NORMAL_90
) -> list[Row]:
    """Of held-out venue-years: R² of all pages together, and the squared error by venue-year."""
    papers, rows = material.papers, material.papers.rows("held-out", "pages")
    y, answer = papers.pages[rows], answers(learner, material, rows).numpy()
    level = learner.years(torch.from_numpy(papers.metadata[rows]))[0].numpy()
    inside = np.abs(y - answer[:, 0]) <= width * np.exp(0.5 * answer[:, 1])

    def explained(guess: NDArray[np.float32]) -> Figure:
        return lambda at: float(1 - np.mean((y[at] - guess[at]) ** 2) / np.var(y[at]))

    title, name = "pages, venue and year alone", "the venue's latest training year"
    places = _places(papers.metadata[rows])
    error, latest = ([float(np.mean((y[at] - guess[at]) ** 2)) for at in places] for guess in (answer[:, 0], level))
    return [
        resampled(title, "R², over papers", explained(answer[:, 0]), len(rows), {name: explained(level)}, seed=seed),
        row(title, "squared error, pages², over venue-years", error, {name: latest}),
        row(title, "coverage of the 90 % interval, over venue-years", [float(inside[at].mean()) for at in places]),
    ]


def pages_with_support(learner: MixedReaders, material: TokenizedPapers, *, seed: int) -> list[Row]:
    """The error of the mean answer to the other papers of a held-out venue-year, after 10 of it, by venue-year.

    In pages, and over the error of the mean of the 10, since lengths spread ten times as much in some as in others.
    """
    papers, generator = material.papers, np.random.default_rng(seed)
    ours, means = [], []
    for place in _places(papers.metadata[rows := papers.rows("held-out", "pages")]):
        here = rows[place]
        features = learner.encode({"x": material.x[here]})["features"].detach()
        pages, metadata = torch.from_numpy(papers.pages[here]), torch.from_numpy(papers.metadata[here[:1]])
        orders = [generator.permutation(len(here)) for _ in range(DRAWS)]
        errors = [_level_errors(learner, metadata, features[order], pages[order]) for order in orders]
        ours.append(float(np.mean([error for error, _ in errors])))
        means.append(float(np.mean([error for _, error in errors])))
    title, name = f"pages, venue and year and {SUPPORT} papers", f"mean of {SUPPORT} papers"
    share = np.divide(ours, means)
    return [
        row(title, "absolute error of the level, pages, over venue-years", ours, {name: means}),
        row(title, "the same over the mean's error, over venue-years", share, {name: np.ones(len(share))}),
    ]


@torch.no_grad()
def _level_errors(learner: MixedReaders, metadata: Tensor, features: Tensor, pages: Tensor) -> tuple[float, float]:
    """The learner's error and that of the support set's mean; the first `SUPPORT` papers are the support set."""
    prior = learner.describe("metadata", {"index": torch.tensor([PAGES]), "metadata": metadata})
    support = {"features": features[:SUPPORT].unsqueeze(0)}
    state = learner.adapted(prior, support, pages[:SUPPORT].reshape(1, -1, 1), torch.ones(1, SUPPORT))
    level, truth = learner.predict({"features": features[SUPPORT:]}, state)[:, 0, 0].mean(), pages[SUPPORT:].mean()
    return abs(float(level - truth)), abs(float(pages[:SUPPORT].mean() - truth))


def rating_rows(learner: MixedReaders, material: TokenizedPapers, *, seed: int) -> list[Row]:
    """Spearman's correlation within venue and year: of the test papers, and of the held-out venue-year with ratings."""
    found = []
    for part in ("test", "held-out"):
        rows = material.papers.rows(part, "rating")
        guess, y = answers(learner, material, rows)[:, 2].numpy(), material.papers.rating[rows]
        places = [place for place in _places(material.papers.metadata[rows]) if len(place) > 9]
        kind = np.concatenate([np.full(len(place), number) for number, place in enumerate(places)])
        every = np.concatenate(places)
        figure = _within(guess[every], y[every], kind)
        found.append(
            resampled(f"rating, {part} papers", "Spearman within venue-year", figure, len(every), {}, seed=seed)
        )
    return found


def accept_row(learner: MixedReaders, material: TokenizedPapers, *, seed: int) -> Row:
    """The area under the curve of ICLR's decisions on test papers."""
    from sklearn.metrics import roc_auc_score  # noqa: PLC0415 (seconds of import that only this needs)

    papers, rows = material.papers, material.papers.rows("test", "accept")
    answer, y = answers(learner, material, rows).numpy(), papers.accept[rows]
    ours, words = answer[:, 5] - answer[:, 4], accept_scores(papers, rows)

    def area(score: NDArray[np.floating]) -> Figure:
        return lambda at: float(roc_auc_score(y[at], score[at]))

    baselines = {"TF-IDF logistic": area(words)}
    return resampled("accept, test papers", "area under the curve", area(ours), len(rows), baselines, seed=seed)


def keyword_row(learner: MixedReaders, material: TokenizedPapers, *, seed: int) -> Row:
    """The micro-F1 of key words on test papers, thresholds from selection papers."""
    papers, rows = material.papers, material.papers.rows("test", "keywords")
    truth = papers.keywords[rows] > 0
    ours = torch.sigmoid(answers(learner, material, rows)[:, FIRST_KEYWORD:]) >= learner.threshold

    def agreement(answer: NDArray[np.bool_]) -> Figure:
        return lambda at: micro_f1(answer[at], truth[at])

    baselines = {
        "TF-IDF logistic": agreement(keyword_answers(papers, rows, with_years=False)),
        "TF-IDF and venue-year": agreement(keyword_answers(papers, rows, with_years=True)),
    }
    return resampled("key words, test papers", "micro-F1", agreement(ours.numpy()), len(rows), baselines, seed=seed)


def resampled(title: str, metric: str, ours: Figure, n: int, others: dict[str, Figure], *, seed: int) -> Row:
    """A row whose intervals come from the percentiles of `RESAMPLES` bootstrap samples of papers, paired.

    Efron, Tibshirani, "An Introduction to the Bootstrap" (1993), ch. 13; half of the width from 2.5 to 97.5 %.
    """
    generator, everyone = np.random.default_rng(seed), np.arange(n)
    samples = [generator.integers(n, size=n) for _ in range(RESAMPLES)]
    mine = np.array([ours(sample) for sample in samples])
    mean = ours(everyone)
    compared = []
    for name, other in others.items():
        theirs, value = np.array([other(sample) for sample in samples]), other(everyone)
        compared.append(Comparison(name, value, mean - value, _half_width(mine - theirs)))
    return Row(title, metric, mean, _half_width(mine), n, (), tuple(compared))


def _half_width(values: NDArray[np.float64]) -> float:
    low, high = np.nanpercentile(values, (2.5, 97.5))
    return float(high - low) / 2


def _within(guess: NDArray[np.floating], y: NDArray[np.floating], kind: NDArray[np.int64]) -> Figure:
    """The mean over kinds, weighted by their papers, of the correlation of ranks."""

    def figure(at: NDArray[np.int64]) -> float:
        parts = [at[kind[at] == number] for number in np.unique(kind)]
        return float(np.average([_spearman(guess[part], y[part]) for part in parts], weights=[len(p) for p in parts]))

    return figure


def _spearman(first: NDArray[np.floating], second: NDArray[np.floating]) -> float:
    from scipy.stats import rankdata  # noqa: PLC0415 (a second of import that only this needs)

    return float(np.corrcoef(rankdata(first), rankdata(second))[0, 1])


def _places(metadata: NDArray[np.float32]) -> list[NDArray[np.int64]]:
    """The rows of each venue and year."""
    return [np.flatnonzero((metadata == one).all(1)) for one in np.unique(metadata, axis=0)]
