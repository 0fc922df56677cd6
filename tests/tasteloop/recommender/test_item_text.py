"""What text lets expect of an item: the regression against scikit-learn's, an item's own part taken
out.
"""

from __future__ import annotations

from datetime import date

import numpy as np
import pytest

from tasteloop.behaviour.items import Catalogue
from tasteloop.recommender.item_text import expected, features

CATALOGUE = Catalogue(
    ["a", "b", "c", "d"],
    ["War Story", "Love Story", "The War", "War"],
    [["Drama"], ["Drama", "War"], [], ["War"]],
    [None, "a war of hearts", None, None],
    [date(1994, 1, 1), date(1994, 5, 2), date(1991, 1, 1), None],
)


def test_features_are_what_two_items_share() -> None:
    """story; war (a word, of which the label War is another); labels Drama and War; 1994; the
    nineties.
    """
    found = features(CATALOGUE, np.zeros((4, 2), np.float32))
    assert found.sum(0).tolist() == [4, 3, 2, 2, 2, 2, 0, 0]
    assert found[3].sum() == 2


def test_a_text_vector_is_centred() -> None:
    vectors = np.array([[1, 0], [1, 0], [0, 1], [0, 1]], np.float32)
    assert features(CATALOGUE, vectors)[:, -2:] == pytest.approx(5 * (vectors - 0.5))


def _problem() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    text = rng.standard_normal((40, 5)).astype(np.float32)
    known = text @ rng.standard_normal((5, 3)) + 0.3 * rng.standard_normal((40, 3)) + 2
    return text, known.astype(np.float32), rng.choice([0.0, 0.25, 0.75, 1.0], 40).astype(np.float32)


def test_an_item_is_expected_to_be_what_the_others_say() -> None:
    """Against scikit-learn's weighted ridge regression fitted without the item, of those in it and
    those not.
    """
    from sklearn.linear_model import Ridge

    text, known, trust = _problem()
    found = expected(text, known, trust, 2.0)
    for j in range(40):
        others = np.arange(40) != j
        model = Ridge(2.0).fit(text[others], known[others], trust[others])
        guess = model.predict(text[[j]])[0]
        assert found[j] == pytest.approx(trust[j] * known[j] + (1 - trust[j]) * guess, abs=2e-3)


def test_what_is_expected_is_the_same_in_blocks_of_items(monkeypatch: pytest.MonkeyPatch) -> None:
    text, known, trust = _problem()
    whole = expected(text, known, trust, 2.0)

    monkeypatch.setattr("tasteloop.recommender.item_text._BLOCK", 7)

    assert expected(text, known, trust, 2.0) == pytest.approx(whole, abs=1e-5)


def test_what_is_trusted_is_kept_and_nothing_known_is_nothing() -> None:
    text, known, _ = _problem()
    assert expected(text, known, np.ones(40, np.float32), 2.0) == pytest.approx(known, abs=1e-5)
    assert expected(text, known * 0, np.zeros(40, np.float32), 2.0) == pytest.approx(known * 0)


def test_an_item_that_nobody_met_says_nothing_to_others() -> None:
    text, known, trust = _problem()
    changed = known.copy()
    changed[trust == 0] = 100
    assert expected(text, known, trust, 2.0) == pytest.approx(
        expected(text, changed, trust, 2.0), abs=1e-4
    )
