"""Who answers people's own words: peers, and ours as a bundle serves it.

To add one: a function that scores a film set's films for turns (or for plain queries), and a line
in `METHODS`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.quality.dialogues import Dialogues, Turn
from benchmarks.quality.embeddings import EncoderVectors
from benchmarks.quality.film_sets import FilmSet, Matrix, Ratings
from benchmarks.quality.titles import Title, join
from tasteloop.errors import TasteloopError

Settings = Mapping[str, Any]

# The last words of a conversation: with them 90 of 100 contexts are within an encoder's 96 tokens.
CONTEXT_WORDS = 64
SPEAKERS: Mapping[str, tuple[Any, ...]] = {"seeker": ("seeker",), "both": ("seeker", "recommender")}
_BLOCK = 256  # histories that a bundle scores at once

# Of words: Levy et al. 2015 recommend a window of 5 and 5 negatives; rare words have no neighbours.
_WINDOW, _NEGATIVES, _LEAST_COUNT, _WIDTH = 5, 5, 3, 200


@dataclass
class Resources:
    """What methods share: data, vectors of texts, and models that are fitted once.

    Attributes:
        encoders: the directory of each encoder, or the reason why there is none.
        reviews: texts that word vectors are fitted on beside the films'.
        bundle: of ours; None where there is none.
        cache: where vectors are kept.
    """

    data: Dialogues
    rated: Ratings
    sets: Sequence[FilmSet]
    encoders: Mapping[str, Path | str]
    reviews: Sequence[str]
    cache: Path
    bundle: Path | None = None
    report: Callable[[str], None] = lambda line: None
    _vectors: dict[str, EncoderVectors] = field(default_factory=dict)
    _ease: dict[float, Matrix] = field(default_factory=dict)
    _bundle_scores: dict[tuple[Any, ...], Matrix] = field(default_factory=dict)

    def film_set(self, name: str) -> FilmSet:
        return next(films for films in self.sets if films.name == name)

    def vectors(self, encoder: str, texts: Sequence[str]) -> Matrix:
        """[n, width], length 1."""
        if encoder not in self._vectors:
            directory = self.encoders[encoder]
            if isinstance(directory, str):
                raise TasteloopError(directory)
            self._vectors[encoder] = EncoderVectors(
                directory,
                self.cache / "vectors",
                lambda done, total: self.report(f"{encoder}: {done} of {total} texts read"),
            )
        return self._vectors[encoder].vectors(texts)

    def ease(self, regularisation: float) -> Matrix:
        """EASE's weights between the films of ml-1m [J, J] (Steck 2019, eq. 8)."""
        if regularisation not in self._ease:
            gram = self._together.astype(np.float64)
            gram[np.diag_indices(len(gram))] += regularisation
            precision = np.linalg.inv(gram)
            weights = precision / -np.diag(precision)
            weights[np.diag_indices(len(weights))] = 0
            self._ease[regularisation] = weights.astype(np.float32)
        return self._ease[regularisation]

    @cached_property
    def _together(self) -> Matrix:
        """[J, J]: how many users of ml-1m like both films."""
        liked = self.rated.liked
        together: Matrix = liked.T @ liked
        return together

    @cached_property
    def words(self) -> WordVectors:
        texts = dict.fromkeys(text for films in self.sets for text in films.texts)
        return WordVectors.fit([*texts, *self.reviews])

    @cached_property
    def session(self) -> Any:
        from tasteloop.runtime.session import Session

        if self.bundle is None:
            raise TasteloopError(
                "there is no champion in this home; train one with `tasteloop run`, or name a --bundle DIR"
            )
        return Session.load(self.bundle)

    def bundle_scores(self, histories: Sequence[Sequence[Any]]) -> Matrix:
        """[n, films of the bundle] by its served ranking; each different history is asked once."""
        known, session = self._bundle_scores, self.session
        missing = list(dict.fromkeys(h for h in map(tuple, histories) if h not in known))
        for start in range(0, len(missing), _BLOCK):
            block = missing[start : start + _BLOCK]
            scores = session.score_terms(block, session.ranking_interests(block)).scores()
            known.update(zip(block, scores, strict=True))
        return np.stack([known[tuple(history)] for history in histories])


@dataclass(frozen=True)
class Method:
    """A ranking of films.

    Attributes:
        score: [n, J] scores of a set's films for turns.
        ask: [n, J] the same for plain queries, of a method that reads text; None for another.
        search: settings that ReDial's validation turns decide between, in stages: each stage is
            searched with the best of those before it.
        begins_with: methods whose best settings this one takes over.
        tuned_on: the film set whose turns decide for every set; "" where each set decides itself.
        encoder: of the catalogue, where it needs one.
    """

    name: str
    about: str
    score: Callable[[FilmSet, Sequence[Turn], Settings, Resources], Matrix]
    ask: Callable[[FilmSet, Sequence[str], Settings, Resources], Matrix] | None = None
    search: tuple[Mapping[str, tuple[Any, ...]], ...] = ()
    begins_with: tuple[str, ...] = ()
    encoder: str = ""
    tuned_on: str = ""

    def candidates(self, stage: Mapping[str, tuple[Any, ...]], best: Settings) -> list[Settings]:
        return [
            {**best, **dict(zip(stage, values, strict=True))} for values in product(*stage.values())
        ]


# --- popularity


def popularity(
    films: FilmSet, asked: Sequence[Any], settings: Settings, resources: Resources
) -> Matrix:
    """How many users of ml-1m like a film; 0 for what is none of its films."""
    return np.tile(liked_by(films, resources), (len(asked), 1))


def liked_by(films: FilmSet, resources: Resources) -> Matrix:
    count = resources.rated.liked.sum(0)
    return np.where(films.rated >= 0, count[films.rated], 0).astype(np.float32)


def popularity_in_dialogues(
    films: FilmSet, asked: Sequence[Any], settings: Settings, resources: Resources
) -> Matrix:
    """How often ReDial's validation dialogues name a film."""
    return np.tile(named_in_dialogues(films, resources), (len(asked), 1))


def named_in_dialogues(films: FilmSet, resources: Resources) -> Matrix:
    count = np.zeros(len(films), np.float32)
    for name, often in resources.data.mentions_in_validation.items():
        if name in films.position_of_name:
            count[films.position_of_name[name]] += often
    return count


# --- methods that read text


def contexts(turns: Sequence[Turn], settings: Settings) -> list[str]:
    """What a text method reads of each turn."""
    return [turn.text(SPEAKERS[settings["speakers"]], CONTEXT_WORDS) for turn in turns]


def words_of(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


@dataclass(frozen=True)
class BM25:
    """Weights of words in texts (Robertson & Zaragoza 2009, eq. 3.15)."""

    index: Mapping[str, int]
    weights: Any  # sparse [J, words]

    @classmethod
    def fit(cls, texts: Sequence[str], k1: float, b: float) -> BM25:
        from scipy import sparse

        index, counts = _counted(tuple(texts))
        length = np.asarray(counts.sum(1)).ravel()
        in_texts = np.bincount(counts.indices, minlength=len(index))
        idf = np.log1p((len(texts) - in_texts + 0.5) / (in_texts + 0.5))
        row = np.repeat(np.arange(len(texts)), np.diff(counts.indptr))
        shrunk = k1 * (1 - b + b * length[row] / max(length.mean(), 1e-9))
        weight = idf[counts.indices] * counts.data * (k1 + 1) / (counts.data + shrunk)
        weights = sparse.csr_matrix((weight, counts.indices, counts.indptr), counts.shape)
        return cls(index, weights)

    def scores(self, queries: Sequence[str]) -> Matrix:
        """[n, J]; a word counts as often as a query holds it."""
        asked = word_counts([words_of(query) for query in queries], self.index)
        return np.asarray((asked @ self.weights.T).toarray(), np.float32)


def word_counts(texts: Sequence[Sequence[str]], index: Mapping[str, int]) -> Any:
    """Sparse [n, words]: how often each text holds each word that the index knows."""
    from scipy import sparse

    columns, values, ends = [], [], [0]
    for text in texts:
        known = Counter(index[word] for word in text if word in index)
        columns += list(known)
        values += list(known.values())
        ends.append(len(columns))
    shape = (len(texts), len(index))
    return sparse.csr_matrix((np.array(values, np.float64), np.array(columns, int), ends), shape)


@lru_cache(maxsize=4)
def _counted(texts: tuple[str, ...]) -> tuple[Mapping[str, int], Any]:
    """The words of texts, and sparse [texts, words] how often each has each."""
    words = [words_of(text) for text in texts]
    index = {word: n for n, word in enumerate(sorted({w for text in words for w in text}))}
    return index, word_counts(words, index)


@lru_cache(maxsize=8)
def _bm25(texts: tuple[str, ...], k1: float, b: float) -> BM25:
    return BM25.fit(texts, k1, b)


def ask_bm25(
    films: FilmSet, queries: Sequence[str], settings: Settings, resources: Resources
) -> Matrix:
    return _bm25(films.texts, settings["k1"], settings["b"]).scores(queries)


@dataclass(frozen=True)
class WordVectors:
    """Word vectors as skip-gram with negative sampling has them at its optimum: a factorisation of
    the shifted positive PMI (Levy & Goldberg 2014, sections 3.1 and 3.3), by truncated SVD with
    the square root of the singular values. A text is the mean of its words.
    """

    index: Mapping[str, int]
    vectors: Matrix  # [words, width]
    idf: Matrix  # [words]

    @classmethod
    def fit(cls, texts: Sequence[str]) -> WordVectors:
        from scipy import sparse
        from scipy.sparse.linalg import svds

        # 1. words, and how often each stands near each
        words = [words_of(text) for text in texts]
        often = Counter(word for text in words for word in text)
        known = sorted(word for word, count in often.items() if count >= _LEAST_COUNT)
        index = {word: n for n, word in enumerate(known)}
        left, right = [], []
        for text in words:
            numbers = np.array([index[word] for word in text if word in index], np.int64)
            for distance in range(1, min(_WINDOW, len(numbers) - 1) + 1):
                left.append(numbers[:-distance])
                right.append(numbers[distance:])
        a, b = (np.concatenate(each) if each else np.zeros(0, np.int64) for each in (left, right))
        shape = (len(index), len(index))
        near = sparse.coo_matrix((np.ones(len(a)), (a, b)), shape).tocsr()
        near = near + near.T

        # 2. log(P(word, context) / P(word) P(context)) - log(negatives), where positive
        total, count = near.sum(), np.asarray(near.sum(1)).ravel()
        pairs = near.tocoo()
        pmi = np.log(pairs.data * total / (count[pairs.row] * count[pairs.col]))
        pmi = np.maximum(pmi - np.log(_NEGATIVES), 0)
        shifted = sparse.csr_matrix((pmi, (pairs.row, pairs.col)), shape)
        shifted.eliminate_zeros()

        # 3. W = U sqrt(S); of few short texts no pair is above the shift
        u, s = np.zeros((len(index), 1)), np.zeros(1)
        if shifted.nnz:
            start = np.random.default_rng(0).standard_normal(len(index))
            u, s, _ = svds(shifted, min(_WIDTH, len(index) - 1), v0=start)
        in_texts = np.asarray((word_counts(words, index) > 0).sum(0)).ravel()
        idf = np.log1p((len(texts) - in_texts + 0.5) / (in_texts + 0.5))
        return cls(index, (u * np.sqrt(s)).astype(np.float32), idf.astype(np.float32))

    def means(self, texts: Sequence[str], weighted: bool) -> Matrix:
        """[n, width], length 1; zeros for a text without a known word."""
        counts = word_counts([words_of(text) for text in texts], self.index)
        if weighted:
            counts = counts.multiply(self.idf).tocsr()
        mean = np.asarray(counts @ self.vectors, np.float32)
        unit: Matrix = mean / np.maximum(np.linalg.norm(mean, axis=1, keepdims=True), 1e-9)
        return unit


def ask_word_vectors(
    films: FilmSet, queries: Sequence[str], settings: Settings, resources: Resources
) -> Matrix:
    weighted = settings["weights"] == "idf"
    return resources.words.means(queries, weighted) @ resources.words.means(films.texts, weighted).T


def encoder_asker(
    encoder: str,
) -> Callable[[FilmSet, Sequence[str], Settings, Resources], Matrix]:
    """Cosine of a query's vector and a film's, by a frozen encoder."""

    def ask(
        films: FilmSet, queries: Sequence[str], settings: Settings, resources: Resources
    ) -> Matrix:
        asked = resources.vectors(encoder, queries)
        scores: Matrix = asked @ resources.vectors(encoder, films.texts).T
        return scores

    return ask


def text_method(
    name: str,
    about: str,
    ask: Callable[[FilmSet, Sequence[str], Settings, Resources], Matrix],
    search: tuple[Mapping[str, tuple[Any, ...]], ...],
    **more: Any,
) -> Method:
    """A method that reads a turn's context as a query."""

    def score(
        films: FilmSet, turns: Sequence[Turn], settings: Settings, resources: Resources
    ) -> Matrix:
        return ask(films, contexts(turns, settings), settings, resources)

    return Method(name, about, score, ask, search, **more)


# --- methods that read which films were mentioned


def ease(films: FilmSet, turns: Sequence[Turn], settings: Settings, resources: Resources) -> Matrix:
    """EASE, fitted on who likes what in ml-1m, of the films mentioned; where none of them is known,
    popularity.
    """
    in_ratings = resources.film_set("ml-1m").position_of_name
    x = np.zeros((len(turns), len(resources.rated.films)), np.float32)
    for row, turn in enumerate(turns):
        for mention in turn.mentions:
            if mention.speaker in SPEAKERS[settings["mentioned_by"]] and mention.film in in_ratings:
                x[row, in_ratings[mention.film]] = 1
    scores = x @ resources.ease(settings["regularisation"])
    out = np.where(films.rated >= 0, scores[:, films.rated], 0).astype(np.float32)
    nothing = x.sum(1) == 0
    out[nothing] = np.log1p(liked_by(films, resources))
    return out


def standardise(scores: Matrix) -> Matrix:
    """Each row with mean 0 and deviation 1; a row that says nothing stays 0."""
    centred = scores - scores.mean(1, keepdims=True)
    return centred / np.maximum(scores.std(1, keepdims=True), 1e-9)


def ease_and_minilm(
    films: FilmSet, turns: Sequence[Turn], settings: Settings, resources: Resources
) -> Matrix:
    """EASE's score plus so many times MiniLM's, both standardised by row."""
    text = encoder_asker("minilm")(films, contexts(turns, settings), settings, resources)
    return standardise(ease(films, turns, settings, resources)) + np.float32(
        settings["weight"]
    ) * standardise(text)


# --- ours


def positions_in_bundle(films: FilmSet, resources: Resources) -> NDArray[np.int64]:
    """[J]: of each film its position in the bundle's catalogue, -1 where the bundle does not know
    it.
    """
    catalogue = resources.session.catalogue
    released = catalogue.released or [None] * len(catalogue)
    theirs = [
        Title.parse(title, date.year if date else None)
        for title, date in zip(catalogue.titles, released, strict=True)
    ]
    return np.array(join(films.titles, theirs).positions, np.int64)


def history(turn: Turn, item_of_name: Mapping[str, str], settings: Settings) -> list[Any]:
    """A conversation as events: what was said is searched for, a film that the seeker names is
    liked, and one that the recommender names counts as the settings say.
    """
    from tasteloop.behaviour.events import Event

    kinds = {"seeker": "like", "recommender": settings["recommender_mentions"]}
    speakers = SPEAKERS.get(settings["searches"], ())
    events: list[Event] = []
    for n, utterance in enumerate(turn.utterances):
        if utterance.speaker in speakers and utterance.text:
            events.append(Event("search", time=n + 1, text=utterance.text))
        for mention in turn.mentions:
            kind = kinds[mention.speaker]
            if mention.utterance == n and kind and mention.film in item_of_name:
                events.append(Event(kind, item_of_name[mention.film], n + 1))
    return events


def score_bundle(
    films: FilmSet, turns: Sequence[Turn], settings: Settings, resources: Resources
) -> Matrix:
    items = resources.session.catalogue.items
    known = positions_in_bundle(films, resources)
    redial = resources.film_set("redial")
    item_of_name = {
        film.name: items[position]
        for film, position in zip(redial.films, positions_in_bundle(redial, resources), strict=True)
        if position >= 0
    }
    histories = [history(turn, item_of_name, settings) for turn in turns]
    return score_histories(histories, known, resources)


def ask_bundle(
    films: FilmSet, queries: Sequence[str], settings: Settings, resources: Resources
) -> Matrix:
    from tasteloop.behaviour.events import Event

    histories = [[Event("search", time=1, text=query)] for query in queries]
    return score_histories(histories, positions_in_bundle(films, resources), resources)


def score_histories(
    histories: Sequence[Sequence[Any]], known: NDArray[np.int64], resources: Resources
) -> Matrix:
    """[n, J] by the served ranking; a film that the bundle does not know is below all it knows."""
    scores = resources.bundle_scores(histories)
    lowest = scores.min(1, keepdims=True) - 1
    of_films: Matrix = np.where(known >= 0, scores[:, known], lowest)
    return of_films


# --- genre and year, for soft attributes


FOLDS = 5


def genre_and_year(
    films: FilmSet,
    attributes: Sequence[str],
    pairs: Mapping[tuple[str, str], Sequence[tuple[int, int]]],
    raters: Sequence[str],
) -> tuple[Matrix, NDArray[np.int64]]:
    """A linear score of genres and year for each attribute, learned from pairs of other raters.

    Raters are put into five folds by a fixed random order; of each fold the scores are those of a
    logistic regression on the differences of pairs (Bradley & Terry 1952) of the other folds.

    Args:
        attributes: A; raters: R.
        pairs: of (rater, attribute): positions (with less, with more).

    Returns:
        scores [folds, A, J], and the fold of each rater [R].
    """
    from sklearn.linear_model import LogisticRegression

    features = genre_and_year_features(films)
    fold = np.random.default_rng(0).permutation(len(raters)) % FOLDS
    out = np.zeros((FOLDS, len(attributes), len(films)), np.float32)
    for k, (a, attribute) in product(range(FOLDS), enumerate(attributes)):
        others = [rater for rater, f in zip(raters, fold, strict=True) if f != k]
        known = [pair for rater in others for pair in pairs.get((rater, attribute), ())]
        if not known:
            continue
        low, high = np.array(known).T
        difference = features[high] - features[low]
        x = np.concatenate([difference, -difference])
        y = np.repeat([1, 0], len(difference))
        # the solver for few features and many rows
        model = LogisticRegression(fit_intercept=False, solver="newton-cholesky")
        fitted = model.fit(x, y)
        out[k, a] = features @ fitted.coef_[0]
    return out, fold


def genre_and_year_features(films: FilmSet) -> Matrix:
    """[J, genres + 1]: 1 for each genre, and the year of release in decades around the mean."""
    genres = sorted({genre for film in films.films for genre in film.genres})
    years = np.array([title.year or np.nan for title in films.titles], np.float64)
    years = np.nan_to_num((years - np.nanmean(years)) / 10)
    rows = [[genre in film.genres for genre in genres] for film in films.films]
    return np.column_stack([np.array(rows, np.float32), years]).astype(np.float32)


# --- the table

BOTH = {"speakers": ("both", "seeker")}
OURS = "tasteloop-bundle"

_METHODS: Iterable[Method] = (
    Method("popularity", "users of ml-1m who like a film", popularity, popularity),
    Method(
        "popularity-redial",
        "how often ReDial's validation dialogues name a film",
        popularity_in_dialogues,
        popularity_in_dialogues,
    ),
    text_method(
        "bm25",
        "the context as a query to title, genres, plot and people",
        ask_bm25,
        ({**BOTH, "k1": (0.5, 1.2, 2.0), "b": (0.3, 0.75)},),
    ),
    text_method(
        "word2vec",
        "cosine of mean word vectors, fitted on the films' texts and the reviews",
        ask_word_vectors,
        ({**BOTH, "weights": ("plain", "idf")},),
    ),
    text_method(
        "minilm",
        "cosine by all-MiniLM-L6-v2, frozen",
        encoder_asker("minilm"),
        (BOTH,),
        encoder="minilm",
    ),
    # it reads what is best for MiniLM: a search of its own would read each conversation twice
    text_method(
        "mpnet",
        "cosine by all-mpnet-base-v2, frozen",
        encoder_asker("mpnet"),
        (),
        begins_with=("minilm",),
        encoder="mpnet",
    ),
    Method(
        "ease",
        "EASE of ml-1m on the films mentioned; popularity where none is known",
        ease,
        search=(
            {
                "mentioned_by": ("both", "seeker"),
                "regularisation": (200.0, 500.0, 1000.0, 2000.0, 5000.0),
            },
        ),
    ),
    Method(
        "ease+minilm",
        "their sum, each standardised by turn",
        ease_and_minilm,
        search=({"weight": (0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5)},),
        begins_with=("ease", "minilm"),
        encoder="minilm",
    ),
    Method(
        OURS,
        "the bundle as it is served: what is said as searches, films mentioned as events",
        score_bundle,
        ask_bundle,
        search=(
            {"searches": ("seeker",), "recommender_mentions": ("view", "like", None)},
            {"searches": ("seeker", "both", "none")},
        ),
        tuned_on="ml-1m",
    ),
)

METHODS: Mapping[str, Method] = {method.name: method for method in _METHODS}
