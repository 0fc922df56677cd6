"""Peers that read what items are: BM25 of their texts, and encoders as they were published."""

from __future__ import annotations

import re
from functools import lru_cache

import numpy as np

from benchmarks.quality.linear import ItemToItem
from benchmarks.quality.method import Scorer, Settings
from benchmarks.quality.tasks import Matrix, Past
from tasteloop.behaviour.items import Catalogue
from tasteloop.interests.vectors import mean_pooled
from tasteloop.recommender.collaborative import as_dense


def item_texts(catalogue: Catalogue, dated: bool) -> tuple[str, ...]:
    """Title, labels and text of each item, and with `dated` its year of release."""
    released = catalogue.released if dated and catalogue.released else [None] * len(catalogue)
    parts = zip(catalogue.titles, catalogue.labels, catalogue.texts, released, strict=True)
    return tuple(
        ", ".join(
            part
            for part in (title, " ".join(labels).lower(), text, str(day.year) if day else None)
            if part
        )
        for title, labels, text, day in parts
    )


def bm25(past: Past, settings: Settings) -> Scorer:
    """The history's texts as a query to the catalogue's (Robertson & Zaragoza 2009, eq. 3.15)."""
    weights = _bm25(item_texts(past.catalogue, settings["dated"]), settings["k1"], settings["b"])
    return ItemToItem(weights, settings["feedback"], settings["decay"])


@lru_cache(maxsize=2)
def _bm25(texts: tuple[str, ...], k1: float, b: float) -> Matrix:
    """[J, J]: what each item's text, as a query, scores each."""
    from scipy.sparse import csr_array

    words = [re.findall(r"\w+", text.lower()) for text in texts]
    index = {word: n for n, word in enumerate(sorted({word for text in words for word in text}))}
    item = np.repeat(np.arange(len(words)), [len(text) for text in words])
    word = np.array([index[word] for text in words for word in text], np.int64)
    shape = (len(words), len(index))
    counts = csr_array((np.ones(len(word), np.float32), (item, word)), shape=shape)
    counts.sum_duplicates()
    item, word, count = (
        np.repeat(np.arange(len(words)), np.diff(counts.indptr)),
        counts.indices,
        counts.data,
    )
    length = np.asarray(counts.sum(1))
    in_items = np.bincount(word, minlength=len(index))
    idf = np.log1p((len(words) - in_items + 0.5) / (in_items + 0.5))
    norm = k1 * (1 - b + b * length / max(length.mean(), 1e-9))
    weight = idf[word] * count * (k1 + 1) / (count + norm[item])
    weights = csr_array((weight.astype(np.float32), word, counts.indptr), shape=shape)
    return as_dense(counts @ weights.T)


@lru_cache(maxsize=2)
def text_vectors(texts: tuple[str, ...], encoder: str) -> Matrix:
    """[n, width], length 1, by an encoder as it was published."""
    out = mean_pooled(texts, encoder, 64)
    return out / np.linalg.norm(out, axis=1, keepdims=True)


def frozen_encoder(past: Past, settings: Settings) -> Scorer:
    """Cosine of each item's text to the mean of the history's, by an encoder as it was
    published.
    """
    vectors = text_vectors(item_texts(past.catalogue, settings["dated"]), settings["encoder"])
    return ItemToItem(vectors @ vectors.T, settings["feedback"], settings["decay"])
