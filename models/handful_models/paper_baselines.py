"""TF-IDF with logistic regression: what words alone tell of a decision and of key words; settings by selection papers.

Joachims, "Text Categorization with Support Vector Machines" (1998), with logistic regression in the machine's place.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .paper_tasks import best_threshold, micro_f1
from .papers import Papers

STRENGTHS = (0.3, 1.0, 3.0, 10.0, 30.0)
GRAMS = ((1, 1), (1, 2))


@dataclass(frozen=True, slots=True)
class WordsOf:
    """The words of papers, by those of training papers that know a target.

    Attributes:
        x: One sparse matrix `[paper, term]` for each of `GRAMS`.
    """

    x: tuple[Any, ...]

    @classmethod
    def of(cls, papers: Papers, target: str, *, with_years: bool = False) -> "WordsOf":
        """With years: also a column for each training venue and year."""
        from scipy import sparse  # noqa: PLC0415 (seconds of import that only this needs)
        from sklearn.feature_extraction.text import TfidfVectorizer  # noqa: PLC0415

        found = []
        for grams in GRAMS:
            vectorizer = TfidfVectorizer(sublinear_tf=True, min_df=2, max_features=50_000, ngram_range=grams)
            vectorizer.fit([papers.text[row] for row in papers.rows("train", target)])
            words = vectorizer.transform(papers.text)
            found.append(sparse.hstack([words, _years(papers)]).tocsr() if with_years else words)
        return cls(tuple(found))


def accept_scores(papers: Papers, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """The log-odds `[row]` that ICLR takes papers, under the settings of best AUC on selection papers."""
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415 (seconds of import that only this needs)
    from sklearn.metrics import roc_auc_score  # noqa: PLC0415

    train, selection = papers.rows("train", "accept"), papers.rows("selection", "accept")
    best, answer = -1.0, np.zeros(len(rows))
    for x in WordsOf.of(papers, "accept").x:
        for strength in STRENGTHS:
            fit = LogisticRegression(C=strength, max_iter=1000).fit(x[train], papers.accept[train])
            score = roc_auc_score(papers.accept[selection], fit.decision_function(x[selection]))
            if score > best:
                best, answer = score, fit.decision_function(x[rows])
    return answer


def keyword_answers(papers: Papers, rows: NDArray[np.int64], *, with_years: bool) -> NDArray[np.bool_]:
    """Key words `[row, label]`, one against the rest; settings and threshold of best micro-F1 on selection papers."""
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415 (seconds of import that only this needs)
    from sklearn.multiclass import OneVsRestClassifier  # noqa: PLC0415

    train, selection = papers.rows("train", "keywords"), papers.rows("selection", "keywords")
    best, answer = -1.0, np.zeros((len(rows), len(papers.labels)), bool)
    for x in WordsOf.of(papers, "keywords", with_years=with_years).x:
        for strength in STRENGTHS[1:]:
            each = LogisticRegression(C=strength, solver="liblinear")
            fit = OneVsRestClassifier(each).fit(x[train], papers.keywords[train].astype(int))
            chance = fit.predict_proba(x[selection])
            threshold = best_threshold(chance, papers.keywords[selection])
            score = micro_f1(chance >= threshold, papers.keywords[selection] > 0)
            if score > best:
                best, answer = score, fit.predict_proba(x[rows]) >= threshold
    return answer


def _years(papers: Papers) -> NDArray[np.float64]:
    known = np.unique(papers.metadata[papers.rows("train")], axis=0)
    return np.asarray((papers.metadata[:, None] == known[None]).all(-1), np.float64)
