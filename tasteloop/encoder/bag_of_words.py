"""Sentiment by logistic regression on n-grams: what a fine-tuned encoder has to beat, and what it
is mixed with.

Some scripts put spaces between words and some do not, so the n-grams are either of words or of
characters, and the validation reviews decide. Rows are tf-idf with logarithmic counts, of length 1.
The n-grams are hashed (Weinberger et al. 2009), so that a fitted model is two vectors and no
vocabulary.

It also knows which words training had. A text of other words is in another language or about
another subject, and what is read out of it is worth less: `trust` says how much.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

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
# what is known or not: words, and where these are not told apart pairs of characters
UNITS: dict[str, dict[str, Any]] = {
    "words": {"analyzer": "word", "token_pattern": r"(?u)\w+", "ngram_range": (1, 1)},
    "characters": {"analyzer": "char", "ngram_range": (2, 2)},
}
_LEAST_TEXTS = 2  # that a known unit is in: a quotation in another language makes no language known
STRENGTHS = (4.0, 16.0, 64.0)  # inverse regularisation
LEAST_TRUST = 0.1  # of the log-odds of a text in words that training did not have
BUCKETS = 2**20  # of hashed n-grams; 12,000 Chinese reviews have 700,000 different ones


@dataclass(frozen=True)
class BagOfWords:
    """A fitted model.

    Attributes:
        analyser, strength: what the validation reviews chose.
        idf, weights: [BUCKETS]; idf is 0 for n-grams that training did not have, so that they do
            not count.
        known: [BUCKETS] of bool, by hashed unit: whether training had it; None in a file of an
            earlier version.
    """

    analyser: str
    strength: float
    idf: NDArray[np.float32]
    weights: NDArray[np.float32]
    intercept: float
    known: NDArray[np.bool_] | None = None

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

    def familiarity(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Share [n] of a text's units that training had; 0 of a text without any, 1 where it is not
        known which it had.
        """
        if self.known is None:
            return np.ones(len(texts), np.float32)
        counts = _hasher(self.analyser, "units").transform(texts)
        hits = counts @ self.known.astype(np.float32)
        shares: NDArray[np.float32] = hits / np.maximum(np.asarray(counts.sum(1)).ravel(), 1)
        return shares.astype(np.float32)

    def save(self, directory: Path) -> None:
        """bag_of_words.safetensors into an existing directory."""
        from safetensors.numpy import save_file

        arrays: dict[str, NDArray[Any]] = {
            "idf": self.idf,
            "weights": self.weights,
            "intercept": np.array([self.intercept], np.float32),
        }
        if self.known is not None:
            arrays["known"] = np.packbits(self.known)
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
            known = None
            if "known" in file.keys():  # noqa: SIM118  (it is no mapping)
                known = np.unpackbits(file.get_tensor("known"), count=BUCKETS).astype(np.bool_)
        analyser, strength = choice["analyser"], float(choice["strength"])
        return cls(analyser, strength, idf, weights, float(intercept[0]), known)


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
        return _with_known(fitted[0], texts)
    loss = [
        _loss(model.logits(validation_texts), np.asarray(validation_positive)) for model in fitted
    ]
    best = fitted[int(np.argmin(loss))]
    log.info(
        "bag of words: %s, C %g; validation loss %.4f", best.analyser, best.strength, min(loss)
    )
    return _with_known(best, texts)


def _with_known(model: BagOfWords, texts: Sequence[str]) -> BagOfWords:
    counts = _hasher(model.analyser, "units").transform(texts)
    return replace(model, known=np.bincount(counts.indices, minlength=BUCKETS) >= _LEAST_TEXTS)


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


def trust(familiarity: NDArray[Any], none_at: float, full_at: float) -> NDArray[np.float32]:
    """What the log-odds of texts are multiplied by, from 0.1 to 1: linear in the share of their
    units that training had. Texts that it knows nothing of keep their order, near a half.

    Args:
        familiarity: that share [n].
        none_at, full_at: up to which share they count least, and from which on fully.
    """
    rise = (np.asarray(familiarity) - none_at) / (full_at - none_at)
    weights: NDArray[np.float32] = rise.clip(LEAST_TRUST, 1).astype(np.float32)
    return weights


def _counts(analyser: str, texts: Sequence[str]) -> Any:
    """Hashed n-gram counts, sparse [n, BUCKETS]."""
    return _hasher(analyser, "n-grams").transform(texts)


@cache
def _hasher(analyser: str, what: Literal["n-grams", "units"]) -> Any:
    """A vectoriser without state, which threads may share."""
    from sklearn.feature_extraction.text import HashingVectorizer

    options = ANALYSERS[analyser] if what == "n-grams" else UNITS[analyser]
    return HashingVectorizer(
        **options, n_features=BUCKETS, alternate_sign=False, norm=None, dtype=np.float32
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
