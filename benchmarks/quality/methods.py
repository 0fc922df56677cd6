"""Methods as plug-ins: `fit(past, settings)` gives a scorer, `scorer.scores(rows)` a matrix [n, J]
of float32.

Each method states its search; the harness tunes it by nDCG@10 on the validation window and fits it
again before the test window. A new method is a function and a line in `METHODS`.

Most peers are linear in the history: one matrix of item-item weights, by which the history folds
in. `feedback` says which events count, in what is fitted and in the history alike: those that say a
user likes an item, or all.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from benchmarks.quality.protocols import Feedback, Matrix, Past, Rows, Task
from tasteloop.behaviour.items import Catalogue
from tasteloop.behaviour.text import TextSettings
from tasteloop.errors import TasteloopError
from tasteloop.recommender import collaborative, fitting, folding, recommend, tuning, weights
from tasteloop.recommender.collaborative import ease, item_knn

Settings = Mapping[str, Any]
Grid = Mapping[str, tuple[Any, ...]]

BOTH = ("liked", "all")


class Scorer(Protocol):
    """What a fit gives."""

    def scores(self, rows: Rows) -> Matrix:
        """[n, J], more is better; the harness hides what may not be recommended."""


@dataclass(frozen=True)
class Method:
    """A way to rank, with its search.

    Attributes:
        about: where it comes from.
        fit: of a past and settings, which hold one value of each grid and `seed`.
        search: stages; each tries every combination of its grid with the best of the stages before,
            and the first value of what only later stages try. A single stage is a full grid.
        random: whether the seed changes anything.
        package: what it stands on, whose version decides whether a kept answer still holds.
        protocols: the only ones it can answer; empty for all.
        validated: False where the settings come from elsewhere and nothing is to be chosen.
        learn: a choice of its own on the validation rows, with its nDCG@10, instead of the grid
            search.
    """

    name: str
    about: str
    fit: Callable[[Past, Settings], Scorer]
    search: tuple[Grid, ...] = ()
    random: bool = False
    package: str = ""
    protocols: tuple[str, ...] = ()
    validated: bool = True
    learn: Callable[[Task], tuple[dict[str, Any], float]] | None = None

    def start(self) -> dict[str, Any]:
        """The first value of everything that is searched."""
        return {key: values[0] for grid in reversed(self.search) for key, values in grid.items()}

    def candidates(self, grid: Grid, best: Settings) -> list[dict[str, Any]]:
        """What a stage tries; the best so far is among them where its values are."""
        return [
            {**best, **dict(zip(grid, values, strict=True))} for values in product(*grid.values())
        ]


# --- scorers


@dataclass(frozen=True)
class Same:
    """One score an item [J], whoever asks."""

    values: Matrix

    def scores(self, rows: Rows) -> Matrix:
        return np.broadcast_to(self.values.astype(np.float32), rows.hidden.shape)


@dataclass(frozen=True)
class ItemToItem:
    """The history times item-item weights [J, J]."""

    weights: Matrix
    feedback: Feedback
    decay: float = 1.0

    def scores(self, rows: Rows) -> Matrix:
        return rows.matrix(self.feedback, self.decay) @ self.weights


# --- without personalisation


@dataclass(frozen=True)
class Chance:
    seed: int

    def scores(self, rows: Rows) -> Matrix:
        return np.random.default_rng(self.seed).random(rows.hidden.shape, np.float32)


def chance(past: Past, settings: Settings) -> Scorer:
    return Chance(settings["seed"])


def popularity(past: Past, settings: Settings) -> Scorer:
    return Same(past.count(settings["feedback"], settings.get("days", np.inf)))


# --- neighbours and linear models


def item_neighbours(past: Past, settings: Settings) -> Scorer:
    feedback = settings["feedback"]
    return ItemToItem(
        item_knn(past.matrix(feedback), settings["neighbours"], settings["shrink"]), feedback
    )


@dataclass(frozen=True)
class UserNeighbours:
    """Users who liked the same: shrunk cosine to the history, the nearest kept, weighted vote."""

    users: Matrix
    feedback: Feedback
    neighbours: int
    shrink: float

    def scores(self, rows: Rows) -> Matrix:
        mine = rows.matrix(self.feedback)
        norm = np.sqrt(np.outer(mine.sum(1), self.users.sum(1)))
        near = (mine @ self.users.T) / (norm + self.shrink + 1e-9)
        known = np.flatnonzero(rows.user >= 0)
        near[known, rows.user[known]] = 0  # oneself
        if self.neighbours < near.shape[1]:
            least = np.partition(near, -self.neighbours, axis=1)[:, -self.neighbours, None]
            near[near < least] = 0
        return near @ self.users


def covisitation(past: Past, settings: Settings) -> Scorer:
    """How often two items stood near each other in a history, as a share of all that stood near
    the first.
    """
    events = _events(past, settings["feedback"])
    weights = collaborative.nearby(events, settings["reach"], settings["shrink"])
    return ItemToItem(weights, settings["feedback"], settings["decay"])


@dataclass(frozen=True)
class Markov:
    """What comes next after the newest item [J, J], and what it backs off to [J]."""

    following: Matrix
    backoff: Matrix
    feedback: Feedback

    def scores(self, rows: Rows) -> Matrix:
        which = rows.events.of(self.feedback)
        scores = np.tile(self.backoff, (len(rows), 1))
        for row, history in enumerate(rows.histories):
            known = history[which[history]]
            if len(known):
                scores[row] += self.following[rows.events.item[known[-1]]]
        return scores


def markov(past: Past, settings: Settings) -> Scorer:
    """First-order Markov chain: P(j | i) = (n_ij + m q_j) / (n_i + m), n_ij how often j came next
    after i, q_j the share of j in all events, m pseudo-events.
    """
    events, feedback = _events(past, settings["feedback"]), settings["feedback"]
    following = np.zeros((events.items, events.items), np.float32)
    is_next = events.user[:-1] == events.user[1:]
    np.add.at(following, (events.item[:-1][is_next], events.item[1:][is_next]), 1)
    count = past.count(feedback)
    share = count / max(float(count.sum()), 1)
    following += settings["pseudo_events"] * share
    following /= following.sum(1, keepdims=True) + 1e-9
    return Markov(following, np.float32(1e-6) * share, feedback)


def user_neighbours(past: Past, settings: Settings) -> Scorer:
    feedback = settings["feedback"]
    return UserNeighbours(
        past.matrix(feedback), feedback, settings["neighbours"], settings["shrink"]
    )


@lru_cache(maxsize=1)
def _ease(past: Past, feedback: Feedback, regularisation: float) -> Matrix:
    return ease(past.matrix(feedback), regularisation)


def ease_(past: Past, settings: Settings) -> Scorer:
    feedback = settings["feedback"]
    return ItemToItem(
        _ease(past, feedback, settings["regularisation"]), feedback, settings.get("decay", 1.0)
    )


def slim(past: Past, settings: Settings) -> Scorer:
    """Sparse, non-negative item-item weights by coordinate descent on the Gram matrix.

    min ½|x_j - X w|² + l2/2 |w|² + l1 |w|₁ over w >= 0, w_j = 0, with the features of each item its
    nearest by cosine (fsSLIM; Ning & Karypis 2011). All items of a block take each step together.
    """
    feedback = settings["feedback"]
    x = past.matrix(feedback)
    gram = x.T @ x
    items = len(gram)
    near = min(settings["neighbours"], items - 1)
    norm = np.sqrt(np.diag(gram)) + 1e-9
    cosine = gram / np.outer(norm, norm)
    np.fill_diagonal(cosine, -1)
    weights = np.zeros((items, items), np.float32)
    for start in range(0, items, 256):
        block = np.arange(start, min(start + 256, items))
        features = np.argpartition(-cosine[block], near - 1, axis=1)[:, :near]  # [b, f]
        among = gram[features[:, :, None], features[:, None, :]]  # [b, f, f]
        wanted = gram[features, block[:, None]]  # [b, f]
        w = np.zeros_like(wanted)
        for _ in range(settings["sweeps"]):
            moved = 0.0
            for k in range(near):
                own = among[:, k, k]
                left = wanted[:, k] - np.einsum("bf,bf->b", among[:, k], w) + own * w[:, k]
                value = np.maximum(left - settings["l1"], 0) / (own + settings["l2"])
                moved = max(moved, float(np.abs(value - w[:, k]).max()))
                w[:, k] = value
            if moved < 1e-4:
                break
        weights[features, block[:, None]] = w
    return ItemToItem(weights, feedback)


def sar(past: Past, settings: Settings) -> Scorer:
    """Simple Algorithm for Recommendation of github.com/recommenders-team/recommenders, as its
    benchmark sets it: Jaccard similarity of items times ratings from 1 to 5 that halve every 30
    days.
    """
    x = past.matrix("all")
    together = x.T @ x
    count = np.diag(together)
    either = count[:, None] + count[None, :] - together
    similarity = np.divide(together, either, out=np.zeros_like(together), where=either > 0)
    return Affinity(similarity, int(past.events.time.max()), settings["half_life_days"])


@dataclass(frozen=True)
class Affinity:
    similarity: Matrix
    now: int
    half_life_days: float

    def scores(self, rows: Rows) -> Matrix:
        affinity = np.zeros(rows.hidden.shape)
        for row, history in enumerate(rows.histories):
            events = rows.events.take(history[rows.events.item[history] >= 0])
            age = (self.now - events.time) / 86_400e6
            affinity[row, events.item] = (1 + 4 * np.nan_to_num(events.value, nan=1.0)) * 0.5 ** (
                age / self.half_life_days
            )
        return (affinity @ self.similarity).astype(np.float32)


# --- factors (implicit)


@dataclass(frozen=True)
class FoldedIn:
    """iALS: a history's factors are solved for with the items' held."""

    model: Any
    feedback: Feedback

    def scores(self, rows: Rows) -> Matrix:
        from scipy.sparse import csr_matrix

        users = self.model.recalculate_user(
            np.arange(len(rows)), csr_matrix(rows.matrix(self.feedback))
        )
        return np.asarray(users @ self.model.item_factors.T, np.float32)


def ials(past: Past, settings: Settings) -> Scorer:
    from implicit.cpu.als import AlternatingLeastSquares
    from scipy.sparse import csr_matrix

    feedback = settings["feedback"]
    model = AlternatingLeastSquares(
        factors=settings["factors"],
        regularization=settings["regularisation"],
        alpha=settings["alpha"],
        iterations=settings["iterations"],
        random_state=settings["seed"],
    )
    model.fit(csr_matrix(past.matrix(feedback)), show_progress=False)
    return FoldedIn(model, feedback)


@dataclass(frozen=True)
class Pairwise:
    """BPR: a known user's own factors; for a history that was not fitted, factors that minimise the
    same pairwise loss over pairs drawn with the history's items first, the items' factors held.
    """

    items: Matrix
    users: Matrix
    feedback: Feedback
    regularisation: float
    seed: int
    pairs: int = 512
    steps: int = 60

    def scores(self, rows: Rows) -> Matrix:
        liked = rows.matrix(self.feedback) > 0
        out = np.zeros(liked.shape, np.float32)
        random = np.random.default_rng(self.seed)
        for row in range(len(rows)):
            if rows.user[row] >= 0:
                user = self.users[rows.user[row]]
            else:
                user = self._folded(np.flatnonzero(liked[row]), liked[row], random)
            out[row] = self.items @ user
        return out

    def _folded(self, mine: Any, liked: Any, random: np.random.Generator) -> Matrix:
        user = np.zeros(self.items.shape[1], np.float32)
        user[-1] = 1  # implicit keeps the item's bias there
        if not len(mine):
            return user
        others = random.integers(0, len(liked), self.pairs)
        gap = self.items[random.choice(mine, self.pairs)] - self.items[others]
        gap = gap[~liked[others]]
        for _ in range(self.steps):
            wrong = 1 / (1 + np.exp(gap @ user))
            step = wrong @ gap / len(gap) - self.regularisation * user
            user[:-1] += 2.0 * step[:-1]
        return user


def bpr(past: Past, settings: Settings) -> Scorer:
    from implicit.cpu.bpr import BayesianPersonalizedRanking
    from scipy.sparse import csr_matrix

    feedback = settings["feedback"]
    model = BayesianPersonalizedRanking(
        factors=settings["factors"],
        learning_rate=settings["rate"],
        regularization=settings["regularisation"],
        iterations=settings["iterations"],
        random_state=settings["seed"],
        num_threads=1,  # with more, threads write over each other and no seed repeats a run
    )
    model.fit(csr_matrix(past.matrix(feedback)), show_progress=False)
    return Pairwise(
        model.item_factors,
        model.user_factors,
        feedback,
        settings["regularisation"],
        settings["seed"],
    )


# --- content


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
    words = [re.findall(r"\w+", text.lower()) for text in texts]
    index = {word: n for n, word in enumerate(sorted({word for text in words for word in text}))}
    counts = np.zeros((len(words), len(index)), np.float32)
    for item, text in enumerate(words):
        for word in text:
            counts[item, index[word]] += 1
    length = counts.sum(1, keepdims=True)
    in_items = (counts > 0).sum(0)
    idf = np.log1p((len(words) - in_items + 0.5) / (in_items + 0.5))
    weight = (
        idf * counts * (k1 + 1) / (counts + k1 * (1 - b + b * length / max(length.mean(), 1e-9)))
    )
    return np.asarray(counts @ weight.T.astype(np.float32))


@lru_cache(maxsize=2)
def text_vectors(texts: tuple[str, ...], encoder: str) -> Matrix:
    """[n, width], length 1, by an encoder as it was published."""
    out = encoded(texts, encoder, 64)
    return out / np.linalg.norm(out, axis=1, keepdims=True)


def encoded(texts: Sequence[str], encoder: str, max_tokens: int) -> Matrix:
    """Mean-pooled vectors [n, width] by an encoder as it was published."""
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


def frozen_encoder(past: Past, settings: Settings) -> Scorer:
    """Cosine of each item's text to the mean of the history's, by an encoder as it was
    published.
    """
    vectors = text_vectors(item_texts(past.catalogue, settings["dated"]), settings["encoder"])
    return ItemToItem(vectors @ vectors.T, settings["feedback"], settings["decay"])


# --- ours


@dataclass(frozen=True)
class Tasteloop:
    """The one place where the benchmark knows `tasteloop.recommender.recommend`."""

    recommender: recommend.Recommender

    def scores(self, rows: Rows) -> Matrix:
        nothing = np.zeros((len(rows), len(self.recommender.label_mean)), np.float32)
        folded = _folded(rows, self.recommender.decay)
        return self.recommender.score_terms(folded, nothing).scores()


def ours(
    name: str,
    about: str,
    encoder: str = "",
    options: fitting.RecommenderSettings | None = None,
) -> Method:
    """`tasteloop.recommender.recommend` without a fine-tuned model; with an encoder as it was
    published the items have vectors.
    """
    chosen = options or fitting.RecommenderSettings()

    def fit(past: Past, settings: Settings) -> Scorer:
        tuned = fitting.TunedSettings(
            **{name: value for name, value in settings.items() if name != "seed"}
        )
        ground = _ground(past.catalogue, encoder)
        return Tasteloop(fitting.fit_terms(_events(past), ground, chosen, tuned))

    def learn(task: Task) -> tuple[dict[str, Any], float]:
        """What the pipeline chooses on the validation window, λ included; its nDCG@10 is
        cross-fitted.
        """
        rows = task.validation
        nothing = np.zeros((len(rows), 1), np.float32)
        asked = weights.ValidationRows(_Histories(rows), nothing, rows.relevant, rows.group)
        ground = _ground(task.catalogue, encoder)
        tuned = tuning.tune(_events(task.tune), ground, asked, chosen)
        return asdict(tuned), tuned.ndcg

    search = ({name: _several(value) for name, value in chosen},)
    return Method(name, about, fit, search, learn=learn, package="implicit")


def _several(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


@dataclass(frozen=True)
class _Histories:
    """The rows' histories as `folding.Histories`."""

    rows: Rows

    @property
    def shape(self) -> tuple[int, int]:
        rows, items = self.rows.hidden.shape
        return rows, items

    @property
    def length(self) -> NDArray[np.int64]:
        return np.array([len(history) for history in self.rows.histories], np.int64)

    def fold(self, decay: float, rows: slice) -> folding.FoldedHistories:
        return _folded(self.rows.take(rows), decay)

    def hidden(self, rows: slice) -> NDArray[np.bool_]:
        return self.rows.hidden[rows]


def _folded(rows: Rows, decay: float) -> folding.FoldedHistories:
    length = np.array([len(history) for history in rows.histories])
    return folding.FoldedHistories.decayed(
        rows.matrix("liked", decay), rows.matrix("all", decay), length
    )


def _events(past: Past, feedback: Feedback = "all") -> collaborative.Past:
    known = past.events.of(feedback)
    user, events = past.user[known], past.events.take(known)
    order = np.lexsort((events.time, user))
    age = (past.cut - events.time[order]) / 86_400e6
    return collaborative.Past(
        user[order], events.item[order], age, events.liked[order], len(past.catalogue)
    )


def _ground(catalogue: Catalogue, encoder: str) -> fitting.FittingData:
    """Without a fine-tuned model nothing is known of interests, and that term is 0."""
    vectors, truth = np.zeros((len(catalogue), 1), np.float32), np.zeros((1, 1), np.float32)
    if encoder:
        vectors = text_vectors(item_texts(catalogue, False), encoder)
    return fitting.FittingData(
        vectors, catalogue, catalogue.label_names[:1], truth, [[]], TextSettings()
    )


@dataclass(frozen=True)
class Bundle:
    """A bundle's own ranking, with the encoder's terms."""

    session: Any
    catalogue: Catalogue

    def scores(self, rows: Rows) -> Matrix:
        histories = rows.event_lists(self.catalogue)
        theirs = np.array([self.session.catalogue.index[item] for item in self.catalogue.items])
        out = np.empty(rows.hidden.shape, np.float32)
        interests = self.session.interests(histories)
        for start in range(0, len(rows), 256):
            part = slice(start, start + 256)
            out[part] = self.session.score_terms(histories[part], interests[part]).scores()[
                :, theirs
            ]
        return out


def bundle(directory: Path) -> Method:
    """A bundle as the pipeline made it, fitted on what came before the test window and chosen on
    the validation one.
    """

    def fit(past: Past, settings: Settings) -> Scorer:
        from tasteloop.runtime.session import Session

        session = Session.load(directory)
        if absent := [item for item in past.catalogue.items if item not in session.catalogue.index]:
            raise TasteloopError(
                f"the bundle {directory} does not know {len(absent)} of the benchmark's items; make one of the same "
                "data with `tasteloop run`"
            )
        return Bundle(session, past.catalogue)

    about = "the whole recommender of a bundle, its settings as the pipeline chose them"
    return Method("tasteloop-bundle", about, fit, protocols=("time",), validated=False)


# --- the table

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
    ),
    Method(
        "markov",
        "first-order Markov chain: what came next after the newest item",
        markov,
        ({"feedback": BOTH, "pseudo_events": (1, 10, 100, 1000)},),
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
        ease_,
        ({"feedback": BOTH, "regularisation": (50, 100, 200, 300, 500, 1000, 2000, 3000, 5000)},),
    ),
    Method(
        "ease-decay",
        "EASE on a history that fades by rank, as our collaborative term",
        ease_,
        (
            {
                "feedback": BOTH,
                "regularisation": (200, 300, 500, 1000, 2000, 3000, 5000),
                "decay": (0.8, 0.9, 0.95, 0.98, 1.0),
            },
        ),
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
    ),
    ours("tasteloop", "ours, the terms that need no encoder"),
    ours(
        "tasteloop-no-nearby",
        "ours without the two terms of what stood near, λ fitted without them",
        options=fitting.RecommenderSettings(nearby_reach=0),
    ),
    ours("tasteloop-minilm", "ours, with frozen MiniLM for item texts", "minilm"),
)

METHODS: Mapping[str, Method] = {method.name: method for method in _METHODS}
OURS = ("tasteloop", "tasteloop-no-nearby", "tasteloop-minilm", "tasteloop-bundle")
