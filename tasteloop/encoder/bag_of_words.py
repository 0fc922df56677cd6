"""Sentiment by logistic regression on n-grams: what a fine-tuned encoder has to beat, and what it
is mixed with.

Some scripts put spaces between words and some do not, so the n-grams are either of words or of
characters, and the validation reviews decide. Rows are tf-idf with logarithmic counts, of length 1.
The n-grams are hashed (Weinberger et al. 2009), so that a fitted model is two vectors and no
vocabulary.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tasteloop.behaviour.events import TEXT
from tasteloop.behaviour.items import SENTIMENT
from tasteloop.behaviour.snapshots import SPLIT, TRAIN, VALIDATION
from tasteloop.errors import TasteloopError

if TYPE_CHECKING:
    import polars as pl

log = logging.getLogger(__name__)

FILE = "bag_of_words.safetensors"
ANALYSERS: dict[str, dict[str, Any]] = {
    "words": {"analyzer": "word", "token_pattern": r"(?u)\w+|[^\w\s]", "ngram_range": (1, 2)},
    "characters": {"analyzer": "char", "ngram_range": (1, 3)},
}
STRENGTHS = (4.0, 16.0, 64.0)  # inverse regularisation
BUCKETS = 2**20  # of hashed n-grams; 12,000 Chinese reviews have 700,000 different ones


@dataclass(frozen=True)
class BagOfWords:
    """A fitted model.

    Attributes:
        analyser, strength: what the validation reviews chose.
        idf, weights: [BUCKETS]; idf is 0 for n-grams that training did not have, so that they do
            not count.
    """

    analyser: str
    strength: float
    idf: NDArray[np.float32]
    weights: NDArray[np.float32]
    intercept: float

    def logits(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Log-odds [n] that a text is positive."""
        scores: NDArray[np.float32] = (
            _rows(_counts(self.analyser, texts), self.idf) @ self.weights + self.intercept
        )
        return scores.astype(np.float32)

    def probabilities(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Probability [n] that a text is positive."""
        from scipy.special import expit

        probabilities: NDArray[np.float32] = expit(self.logits(texts)).astype(np.float32)
        return probabilities

    def save(self, directory: Path) -> None:
        """bag_of_words.safetensors into an existing directory."""
        from safetensors.numpy import save_file

        arrays = {
            "idf": self.idf,
            "weights": self.weights,
            "intercept": np.array([self.intercept], np.float32),
        }
        save_file(
            arrays,
            directory / FILE,
            metadata={"analyser": self.analyser, "strength": str(self.strength)},
        )

    @classmethod
    def load(cls, directory: Path) -> BagOfWords:
        """What `save` wrote."""
        from safetensors import safe_open

        with safe_open(directory / FILE, "np") as file:
            choice = file.metadata()
            idf, weights, intercept = (
                file.get_tensor(name) for name in ("idf", "weights", "intercept")
            )
        return cls(choice["analyser"], float(choice["strength"]), idf, weights, float(intercept[0]))


def fit(
    texts: Sequence[str],
    positive: NDArray[Any],
    validation_texts: Sequence[str],
    validation_positive: NDArray[Any],
    strengths: Sequence[float] = STRENGTHS,
) -> BagOfWords:
    """Fit every analyser with every strength on the training reviews, and choose the model under
    which the validation reviews are likeliest.

    Raises:
        TasteloopError: no training review, or all of one sentiment.
    """
    from sklearn.linear_model import LogisticRegression

    if len(set(np.asarray(positive).tolist())) < 2:
        raise TasteloopError("a bag of words needs training reviews of both sentiments")
    fitted = []
    for analyser in ANALYSERS:
        counts = _counts(analyser, texts)
        df = np.bincount(counts.indices, minlength=BUCKETS)
        idf = np.where(df > 0, np.log((1 + len(texts)) / (1 + df)) + 1, 0).astype(np.float32)
        # without empty columns, on which the solver would spend as much time as on others
        present = np.flatnonzero(df)
        rows = _rows(counts, idf)[:, present]
        for strength in strengths:
            regression = LogisticRegression(C=strength, solver="liblinear").fit(rows, positive)
            weights = np.zeros(BUCKETS, np.float32)
            weights[present] = regression.coef_[0]
            fitted.append(
                BagOfWords(analyser, strength, idf, weights, float(regression.intercept_[0]))
            )
    if not len(validation_texts):
        return fitted[0]
    loss = [
        _loss(model.logits(validation_texts), np.asarray(validation_positive)) for model in fitted
    ]
    best = fitted[int(np.argmin(loss))]
    log.info(
        "bag of words: %s, C %g; validation loss %.4f", best.analyser, best.strength, min(loss)
    )
    return best


def of_reviews(reviews: pl.DataFrame, strengths: Sequence[float] = STRENGTHS) -> BagOfWords | None:
    """Fitted on the training rows of a reviews table, chosen on its validation rows; None where the
    training rows are all of one sentiment.
    """
    train, validation = (reviews.filter(reviews[SPLIT] == split) for split in (TRAIN, VALIDATION))
    if train[SENTIMENT].n_unique() < 2:
        return None
    return fit(
        train[TEXT].to_list(),
        train[SENTIMENT].to_numpy(),
        validation[TEXT].to_list(),
        validation[SENTIMENT].to_numpy(),
        strengths,
    )


def share(encoder: NDArray[Any], bag: NDArray[Any], positive: NDArray[Any]) -> float:
    """How much a bag of words' log-odds count beside an encoder's, by a logistic regression of
    both.

    Args:
        encoder, bag: log-odds [n] of validation reviews, which neither model was fitted on.
        positive: their truth [n].

    Returns:
        The share s in `encoder + s * bag`, 0 where either does not help.
    """
    from sklearn.linear_model import LogisticRegression

    if not 0 < np.mean(positive) < 1:
        return 0.0
    of_encoder, of_bag = LogisticRegression().fit(np.stack([encoder, bag], 1), positive).coef_[0]
    return float(of_bag / of_encoder) if of_encoder > 0 and of_bag > 0 else 0.0


def _counts(analyser: str, texts: Sequence[str]) -> Any:
    """Hashed n-gram counts, sparse [n, BUCKETS]."""
    return _hasher(analyser).transform(texts)


@cache
def _hasher(analyser: str) -> Any:
    """A vectoriser without state, which threads may share."""
    from sklearn.feature_extraction.text import HashingVectorizer

    return HashingVectorizer(
        **ANALYSERS[analyser], n_features=BUCKETS, alternate_sign=False, norm=None, dtype=np.float32
    )


def _rows(counts: Any, idf: NDArray[np.float32]) -> Any:
    """tf-idf with logarithmic counts, each row of length 1."""
    from sklearn.preprocessing import normalize

    rows = counts.copy()
    rows.data = (1 + np.log(rows.data)) * idf[rows.indices]
    return normalize(rows, copy=False)


def _loss(logits: NDArray[np.float32], positive: NDArray[Any]) -> float:
    """Mean negative log-likelihood."""
    return float(np.logaddexp(0, np.where(positive > 0, -logits, logits)).mean())
