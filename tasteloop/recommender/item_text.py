"""What an item's text says of it before anybody has met it.

Words of title and text, labels, and year and decade of release are features. By ridge regression
from them to what interactions taught of known items, an unknown one gets what is to be expected
(Gantner et al. 2010, https://doi.org/10.1109/ICDM.2010.129). An item that few have met has some of
each.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from tasteloop.behaviour.items import Catalogue

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Matrix = NDArray[np.float32]

_MOST = 2_000  # features; the regression is cubic in them
_BLOCK = 4096  # items whose features are centred at once


def features(catalogue: Catalogue, vectors: Matrix) -> Matrix:
    """[J, V]: 1 for each feature that an item bears and another does too; then its text vector,
    centred.

    Args:
        vectors: [J, d] of length 1 by an encoder, or zeros where there is none.
    """
    borne = [_features(catalogue, j) for j in range(len(catalogue))]
    count = Counter(name for names in borne for name in names)
    known = sorted(
        (name for name in count if count[name] > 1), key=lambda name: (-count[name], name)
    )[:_MOST]
    index = {name: column for column, name in enumerate(known)}
    out = np.zeros((len(borne), len(index)), np.float32)
    for row, names in enumerate(borne):
        out[row, [index[name] for name in names if name in index]] = 1
    return np.concatenate([out, 5 * (vectors - vectors.mean(0))], 1)


def _features(catalogue: Catalogue, item: int) -> set[str]:
    words = re.findall(r"\w+", f"{catalogue.titles[item]} {catalogue.texts[item] or ''}".lower())
    released = catalogue.released[item] if catalogue.released else None
    dated = (f"year {released.year}", f"decade {released.year // 10}") if released else ()
    return {*words, *(f"label {label}" for label in catalogue.labels[item]), *dated}


def expected(text: Matrix, known: Matrix, trust: Matrix, regularisation: float) -> Matrix:
    """`known` [J, d] where it is trusted, and what the text lets expect where it is not.

    Args:
        text: [J, V] features.
        trust: [J] from 0 to 1: weight of an item in the regression, and of what is known of it in
            the answer.
        regularisation: of all coefficients but the intercept's.
    """
    total = max(float(trust.sum()), 1e-9)
    mean, middle = trust @ text / total, trust @ known / total
    blocks = [slice(start, start + _BLOCK) for start in range(0, len(text), _BLOCK)]

    # 1. XᵀTX + λ [V, V], of the centred features X [J, V] and the trust T on a diagonal
    gram = regularisation * np.eye(text.shape[1], dtype=np.float32)
    for items in blocks:
        x = text[items] - mean
        gram = (x.T * trust[items]) @ x + gram

    # 2. coefficients [V, d], and each item's weight in its own answer [J, 1]
    coefficients = np.zeros((text.shape[1], known.shape[1]), np.float32)
    own = np.empty((len(text), 1), np.float32)
    for items in blocks:
        x, y = text[items] - mean, known[items] - middle
        solved = np.linalg.solve(gram, x.T * trust[items])
        coefficients += solved @ y
        own[items, 0] = np.minimum((x * solved.T).sum(1) + trust[items] / total, 0.99)

    # 3. what is expected as if the item had not been there (Allen 1974)
    fitted = np.concatenate([middle + (text[items] - mean) @ coefficients for items in blocks])
    guess = (fitted - own * known) / (1 - own)
    share = trust[:, None]
    return np.asarray(share * known + (1 - share) * guess, np.float32)
