"""The baseline for sentiment: it learns in a script with spaces between words and in one
without.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tasteloop.encoder import bag_of_words
from tasteloop.errors import TasteloopError

ENGLISH = (
    ["a fine film", "dull", "fine acting", "so dull a film", "not dull", "not fine"] * 20,
    [1, 0, 1, 0, 1, 0] * 20,
)
CHINESE = (
    ["房间很好", "房间很差", "服务好", "太差了", "不差", "不好"] * 20,
    [1, 0, 1, 0, 1, 0] * 20,
)


@pytest.mark.parametrize(("texts", "truth"), [ENGLISH, CHINESE])
def test_it_reads_what_is_negated(texts: list[str], truth: list[int]) -> None:
    model = bag_of_words.fit(texts, np.array(truth), texts, np.array(truth))
    assert ((model.probabilities(texts) >= 0.5) == np.array(truth)).all()


def test_validation_chooses_the_analyser() -> None:
    """Each new text is a word of training with an ending of its own: its characters are known, the
    word is not.
    """
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


def test_save_then_load_changes_nothing(tmp_path: Path) -> None:
    texts, truth = CHINESE
    model = bag_of_words.fit(texts, np.array(truth), texts, np.array(truth))
    model.save(tmp_path)
    loaded = bag_of_words.BagOfWords.load(tmp_path)
    assert (loaded.analyser, loaded.strength) == (model.analyser, model.strength)
    assert (loaded.logits([*texts, "new", ""]) == model.logits([*texts, "new", ""])).all()


def test_it_is_the_tfidf_regression_of_scikit_learn() -> None:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    texts, truth = ENGLISH
    ours = bag_of_words.fit(texts, np.array(truth), [], np.array([]), (4.0,))
    vectorizer = TfidfVectorizer(**bag_of_words.ANALYSERS["words"], sublinear_tf=True)
    theirs = LogisticRegression(C=4.0, solver="liblinear").fit(
        vectorizer.fit_transform(texts), truth
    )
    new = ["a dull dull film with unknown words", "fine", "not a fine film", ""]
    assert np.allclose(
        ours.logits(new), theirs.decision_function(vectorizer.transform(new)), atol=1e-3
    )


def test_a_share_is_what_the_truth_was_made_with() -> None:
    rng = np.random.default_rng(0)
    encoder, bag = rng.normal(0, 2, 20_000), rng.normal(0, 2, 20_000)
    truth = rng.random(20_000) < 1 / (1 + np.exp(-(0.8 * encoder + 0.4 * bag)))
    assert bag_of_words.share(encoder, bag, truth) == pytest.approx(0.5, abs=0.05)
    assert bag_of_words.share(encoder, -bag, truth) == 0
    assert bag_of_words.share(encoder, bag, np.ones(20_000)) == 0


@pytest.mark.parametrize(
    ("texts", "truth", "foreign"),
    [
        (*ENGLISH, ["ein feiner Streifen", "太差了", ""]),
        (*CHINESE, ["a fine film", "Отличный фильм", ""]),
    ],
)
def test_words_of_another_language_are_not_familiar(
    texts: list[str], truth: list[int], foreign: list[str], tmp_path: Path
) -> None:
    model = bag_of_words.fit(texts, np.array(truth), texts, np.array(truth))
    model.save(tmp_path)
    read = bag_of_words.BagOfWords.load(tmp_path)

    known, unknown = read.familiarity(texts), read.familiarity(foreign)

    assert (known == 1).all()
    assert (unknown == 0).all()
    assert (bag_of_words.trust(known, 0.5, 0.8) == 1).all()
    assert bag_of_words.trust(unknown, 0.5, 0.8) == pytest.approx(bag_of_words.LEAST_TRUST)
    assert bag_of_words.trust(np.array([0.65]), 0.5, 0.8) == pytest.approx(0.5)
