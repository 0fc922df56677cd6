"""The methods of the table, each with its search. A new one is a function and a line here."""

from __future__ import annotations

from collections.abc import Mapping

from benchmarks.quality.content import bm25, frozen_encoder
from benchmarks.quality.factors import bpr, ials
from benchmarks.quality.linear import (
    covisitation,
    ease,
    item_neighbours,
    markov,
    sar,
    slim,
    user_neighbours,
)
from benchmarks.quality.method import BOTH, Method, chance, popularity
from benchmarks.quality.ours import WITHOUT_NEARBY, ours, published

_IALS_FIRST = {
    "feedback": BOTH,
    "alpha": (1.0, 2.0, 5.0, 10.0),
    "regularisation": (5.0, 20.0, 50.0, 100.0),
}

_METHODS = (
    Method("random", "chance", chance, random=True),
    Method("popularity", "most events", popularity, ({"feedback": BOTH},)),
    *(
        Method(
            f"popularity-{days}d",
            f"most events of the last {days} days",
            popularity,
            ({"feedback": BOTH, "days": (days,)},),
            ordered=True,
            timed=True,
        )
        for days in (1, 7, 30)
    ),
    Method(
        "itemknn",
        "shrunk cosine of items (Deshpande & Karypis 2004)",
        item_neighbours,
        ({"feedback": BOTH, "neighbours": (20, 50, 100, 200, 400), "shrink": (0, 10, 100, 300)},),
    ),
    Method(
        "covisitation",
        "items that stood near those of the history in others'",
        covisitation,
        (
            {
                "feedback": BOTH,
                "reach": (3, 10),
                "shrink": (20,),
                "decay": (0.8, 0.95, 1.0),
            },
        ),
        ordered=True,
    ),
    Method(
        "markov",
        "first-order Markov chain: what came next after the newest item",
        markov,
        ({"feedback": BOTH, "pseudo_events": (1, 0.1, 10, 100, 1000)},),
        ordered=True,
    ),
    Method(
        "userknn",
        "shrunk cosine of users (Herlocker et al. 1999)",
        user_neighbours,
        ({"feedback": BOTH, "neighbours": (50, 100, 200, 400), "shrink": (0, 10, 100)},),
    ),
    Method(
        "ease",
        "EASE (Steck 2019)",
        ease,
        ({"feedback": BOTH, "regularisation": (50, 100, 200, 300, 500, 1000, 2000, 3000, 5000)},),
    ),
    Method(
        "ease-decay",
        "EASE on a history that fades by rank, as our collaborative term",
        ease,
        (
            {
                "feedback": BOTH,
                "regularisation": (200, 300, 500, 1000, 2000, 3000, 5000),
                "decay": (0.8, 0.9, 0.95, 0.98, 1.0),
            },
        ),
        ordered=True,
    ),
    Method(
        "slim",
        "fsSLIM, elastic net, non-negative (Ning & Karypis 2011)",
        slim,
        (
            {"feedback": BOTH, "l2": (20, 100, 300), "l1": (1, 5, 20)},
            {"neighbours": (100, 200), "sweeps": (50,)},
        ),
    ),
    Method(
        "sar",
        "SAR as published (recommenders-team/recommenders)",
        sar,
        ({"half_life_days": (30,)},),
        validated=False,
        ordered=True,
        timed=True,
    ),
    Method(
        "ials",
        "iALS (Hu et al. 2008), `implicit`",
        ials,
        (_IALS_FIRST, {"factors": (64, 16, 32, 128), "iterations": (15, 30)}),
        random=True,
        package="implicit",
    ),
    Method(
        "bpr",
        "BPR (Rendle et al. 2009), `implicit`",
        bpr,
        (
            {"feedback": BOTH, "rate": (0.01, 0.05), "regularisation": (0.001, 0.01, 0.05)},
            {"factors": (64, 32, 128), "iterations": (100, 300)},
        ),
        random=True,
        package="implicit",
    ),
    Method(
        "bm25",
        "BM25 of item texts, the history as query (Robertson & Zaragoza 2009)",
        bm25,
        (
            {
                "k1": (1.2, 0.3, 0.6, 2.0),
                "b": (0.75, 0.4, 0.0),
                "feedback": BOTH,
                "decay": (1.0, 0.9, 0.7),
                "dated": (False, True),
            },
        ),
        ordered=True,
    ),
    Method(
        "minilm",
        "frozen MiniLM, cosine of item texts to the history's mean",
        frozen_encoder,
        (
            {
                "feedback": BOTH,
                "decay": (1.0, 0.9, 0.7),
                "dated": (False, True),
                "encoder": ("minilm",),
            },
        ),
        ordered=True,
    ),
    ours("tasteloop", "ours, the terms that need no encoder", published()),
    ours(
        "tasteloop-no-nearby",
        "ours without an encoder and the two terms of what stood near, λ fitted without them",
        published(),
        WITHOUT_NEARBY,
    ),
    ours("tasteloop-minilm", "ours, with frozen MiniLM for item texts", published("minilm")),
    ours(
        "tasteloop-minilm-no-nearby",
        "the same without the two terms of what stood near, λ fitted without them",
        published("minilm"),
        WITHOUT_NEARBY,
    ),
)

METHODS: Mapping[str, Method] = {method.name: method for method in _METHODS}
# from the fewest terms to all: differences are shown for the last one that was measured
OURS = (
    "tasteloop-no-nearby",
    "tasteloop",
    "tasteloop-minilm-no-nearby",
    "tasteloop-minilm",
    "tasteloop-encoder-no-nearby",
    "tasteloop-encoder",
    "tasteloop-bundle",
)
# the peers that every data set is measured with, and what of ours needs no bundle
MAIN = (
    "popularity",
    "itemknn",
    "covisitation",
    "markov",
    "userknn",
    "ease",
    "slim",
    "ials",
    "tasteloop",
    "tasteloop-minilm",
    "tasteloop-minilm-no-nearby",
)
