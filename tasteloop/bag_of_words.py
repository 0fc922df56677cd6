"""Sentiment by logistic regression on n-grams: what a fine-tuned encoder has to beat, in any language.

Words are told by spaces in one script and not at all in another, so the n-grams are either of words or of characters,
and the validation reviews decide. Rows are tf-idf with logarithmic counts, length 1 (Wang & Manning 2012 call such a
model hard to beat on short texts).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasteloop.errors import TasteloopError

log = logging.getLogger(__name__)

ANALYSERS: dict[str, dict[str, Any]] = {
    "words": {"analyzer": "word", "token_pattern": r"(?u)\w+|[^\w\s]", "ngram_range": (1, 2)},
    "characters": {"analyzer": "char", "ngram_range": (1, 3)},
}
STRENGTHS = (1.0, 4.0, 16.0)  # inverse regularisation


@dataclass(frozen=True)
class BagOfWords:
    """A fitted model.

    Attributes:
        analyser, strength: what the validation reviews chose.
    """

    analyser: str
    strength: float
    vectorizer: Any
    regression: Any

    def logits(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """Log-odds [n] that a text is positive."""
        scores: NDArray[np.float64] = self.regression.decision_function(self.vectorizer.transform(texts))
        return scores

    def probabilities(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """Probability [n] that a text is positive."""
        return 1 / (1 + np.exp(-self.logits(texts)))


def fit(
    texts: Sequence[str],
    positive: NDArray[Any],
    validation_texts: Sequence[str],
    validation_positive: NDArray[Any],
    strengths: Sequence[float] = STRENGTHS,
) -> BagOfWords:
    """Fit every analyser with every strength on the training reviews; the one that is likeliest on validation stays.

    Raises:
        TasteloopError: no training review, or all of one sentiment.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    if len(set(np.asarray(positive).tolist())) < 2:
        raise TasteloopError("a bag of words needs training reviews of both sentiments")
    fitted = []
    for analyser, options in ANALYSERS.items():
        vectorizer = TfidfVectorizer(**options, lowercase=True, sublinear_tf=True)
        rows = vectorizer.fit_transform(texts)
        for strength in strengths:
            regression = LogisticRegression(C=strength, solver="liblinear").fit(rows, positive)
            fitted.append(BagOfWords(analyser, strength, vectorizer, regression))
    if not len(validation_texts):
        return fitted[0]
    loss = [_loss(model.logits(validation_texts), np.asarray(validation_positive)) for model in fitted]
    best = fitted[int(np.argmin(loss))]
    log.info("bag of words: %s, C %g; validation loss %.4f", best.analyser, best.strength, min(loss))
    return best


def _loss(logits: NDArray[np.float64], positive: NDArray[Any]) -> float:
    """Mean negative log-likelihood."""
    return float(np.logaddexp(0, np.where(positive > 0, -logits, logits)).mean())
