"""Item vectors in which near items are taken by the same people and told of in like words."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasteloop.recommender.collaborative import mark, spectral

Matrix = NDArray[np.float32]

_FACTORS = 32  # of behaviour; 16 to 64 made groups as stable on articles and films
_TEXT_FACTORS = 48  # principal directions of the texts' vectors
_FITTED_ON = 4000  # texts that these directions are fitted on, evenly drawn
_FAMILIAR = 10.0  # users after whom half of an item's behaviour counts
_TOKENS = 64  # of a title and its text


def behaviour_vectors(
    user: NDArray[np.int64], item: NDArray[np.int64], items: int
) -> tuple[Matrix, NDArray[np.int64]]:
    """Spectral vectors [J, f] of length 1 of who took what, and how many users took an item [J].

    The right singular vectors of `N = D_u^-½ X D_j^-½`, scaled by their singular values, without
    the first, which says how popular an item is alone (spectral co-clustering: Dhillon 2001,
    equation 15). X is sparse where it is large, and `N` has as many entries, so that memory is
    bounded by the events. An item that nobody took has zeros.
    """
    taken = np.zeros(items, np.int64)
    if not len(user):
        return np.zeros((items, 1), np.float32), taken
    table = mark(user, item, (int(user.max()) + 1, items))
    taken[:] = np.asarray(table.sum(0)).ravel()
    width = min(_FACTORS + 1, min(table.shape) - 1)
    if width < 2:
        return np.zeros((items, 1), np.float32), taken
    vectors, activity = spectral(table, width)
    users = np.sqrt(np.maximum(np.asarray(table.sum(1)).ravel(), 1))
    values = np.linalg.norm(
        (table @ (vectors / np.sqrt(activity)[:, None])) / users[:, None], axis=0
    )
    later = np.argsort(-values, kind="stable")[1:]
    scaled = vectors[:, later] * values[later]
    return unit(np.where(taken[:, None] > 0, scaled, 0)), taken


def text_vectors(texts: Sequence[str], encoder: str) -> Matrix:
    """Vectors [J, f] of length 1 of texts, by an encoder as it was published: their principal
    directions, what all texts share taken out. A blank text has zeros.
    """
    vectors = mean_pooled(texts, encoder, _TOKENS)
    is_text = np.array([bool(text.strip()) for text in texts])
    if is_text.any():
        vectors = unit(vectors - vectors[is_text].mean(0))
    return principal(np.where(is_text[:, None], vectors, 0))


def mean_pooled(texts: Sequence[str], encoder: str, max_tokens: int) -> Matrix:
    """Mean-pooled vectors [n, width] by an encoder as it was published: a name of the catalogue or
    a directory.
    """
    import torch

    from tasteloop.datasets.fetch import resolve_encoder
    from tasteloop.encoder.batches import load_tokenizer, pad, sorted_batches, tokenize
    from tasteloop.encoder.model import TasteModel, load_encoder

    directory = Path(resolve_encoder(encoder))
    model = TasteModel(load_encoder(directory), {}).eval()
    ids = tokenize(load_tokenizer(directory), texts, max_tokens)
    out = np.empty((len(ids), model.width), np.float32)
    with torch.inference_mode():
        for batch in sorted_batches(np.array([len(row) for row in ids]), 64):
            out[batch] = model(*pad([ids[i] for i in batch])).numpy()
    return out


def principal(vectors: Matrix) -> Matrix:
    """[n, f] of length 1: vectors [n, d] along the directions in which they differ most."""
    sample = vectors[:: max(1, len(vectors) // _FITTED_ON)]
    directions = np.linalg.svd(sample, full_matrices=False)[2][:_TEXT_FACTORS]
    return unit(vectors @ directions.T)


def joined(
    behaviour: Matrix, taken: NDArray[np.int64], texts: Matrix | None, share: float
) -> Matrix:
    """Item vectors [J, f] of length 1: behaviour and texts side by side.

    An item that `c` users took has the squared weight `share · c / (c + 10)` of behaviour and the
    rest of its text, so that one whom nobody met lies where its words are.
    """
    if texts is None:
        return behaviour
    weight = (share * taken / (taken + _FAMILIAR)).astype(np.float32)
    weight[~texts.any(1)] = 1
    return unit(
        np.hstack([behaviour * np.sqrt(weight)[:, None], texts * np.sqrt(1 - weight)[:, None]])
    )


def unit(vectors: NDArray[Any]) -> Matrix:
    """Vectors [n, d] at length 1; those of length 0 stay."""
    norm = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(norm, 1e-9), np.float32)
