"""The baseline for sentiment: it learns in a script with spaces between words and in one without."""

from __future__ import annotations

import numpy as np
import pytest

from tasteloop import bag_of_words
from tasteloop.errors import TasteloopError

ENGLISH = (
    ["a fine film", "dull", "fine acting", "so dull a film", "not dull", "not fine"] * 20,
    [1, 0, 1, 0, 1, 0] * 20,
)
CHINESE = (["房间很好", "房间很差", "服务好", "太差了", "不差", "不好"] * 20, [1, 0, 1, 0, 1, 0] * 20)


@pytest.mark.parametrize(("texts", "truth"), [ENGLISH, CHINESE])
def test_it_reads_what_is_negated(texts: list[str], truth: list[int]) -> None:
    model = bag_of_words.fit(texts, np.array(truth), texts, np.array(truth))
    assert ((model.probabilities(texts) >= 0.5) == np.array(truth)).all()


def test_validation_chooses_the_analyser() -> None:
    """Each new text is a word of training with an ending of its own: its characters are known, the word is not."""
    texts = [f"{stem}{n}" for n in range(40) for stem in ("good", "bad")]
    new = [f"{stem}{n}" for n in range(100, 120) for stem in ("good", "bad")]
    model = bag_of_words.fit(texts, np.array([1, 0] * 40), new, np.array([1, 0] * 20))
    assert model.analyser == "characters"
    assert ((model.logits(new) > 0) == np.array([True, False] * 20)).all()


def test_one_sentiment_alone_is_refused_and_no_validation_is_not() -> None:
    with pytest.raises(TasteloopError, match="both sentiments"):
        bag_of_words.fit(["a", "b"], np.array([1, 1]), [], np.array([]))
    model = bag_of_words.fit(["a", "b"], np.array([1, 0]), [], np.array([]), (2.0,))
    assert (model.analyser, model.strength) == ("words", 2.0)
    assert model.logits(["a"]) > model.logits(["b"])
