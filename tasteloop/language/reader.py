"""Texts that users write, read as wishes: what they want, what they refuse, what they mean by it.

A text is cut into clauses (`tasteloop.language.clauses`). Of each clause three things are asked:

- what it does: wants something, refuses something, or neither, as an errand or a greeting;
- which labels it means: by a logistic regression whose few weights are shared by all labels, on how
  near the clause is to the label's name, to phrases that mean it, and to the items that bear it. So
  it reads labels that it was not fitted on;
- which titles it names (`tasteloop.language.titles`).

Texts are compared by an encoder as it was published, which knows what words mean before any
behaviour was seen, and is not trained further. What is fitted is fitted on phrases of our own
writing (`tasteloop.language.fitting`).
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tasteloop.behaviour.items import Catalogue
from tasteloop.bundle.arrays import mapped_arrays
from tasteloop.bundle.names import LANGUAGE_FILE
from tasteloop.language.clauses import clauses, cues
from tasteloop.language.intents import REFUSES, WANTS, spoken_in
from tasteloop.language.phrases import normalise
from tasteloop.language.spelling import Spelling
from tasteloop.language.titles import TitleIndex

Matrix = NDArray[np.float32]
Embed = Callable[[Sequence[str]], Matrix]
"""Texts -> vectors [n, d] of length 1."""
Intents = Callable[[Sequence[str]], Matrix]
"""Clauses -> probabilities [n, 2] that each wants something, and that it refuses it (`WANTS` and
`REFUSES`)."""

LABEL_FEATURES = (
    "nearest phrase",
    "phrases",
    "items",
    "nearest, centred",
    "items, centred",
    "nearest, ahead",
    "phrases, ahead",
    "items, ahead",
    "name",
)
_LEAST = 0.02  # a lower probability is none
_ASKS = 0.5  # from here on a clause wants something, for what counts clauses
_TITLE = 0.8  # from here on a clause is a title, whose words say nothing of labels
# The probability of its likeliest label at which a clause is as likely as not to mean one, and how
# quickly it becomes sure beyond that.
_ANYTHING, _UNSURE = 0.22, 0.06
_SIGNS = frozenset({"So", "Sk", "Sc", "Cs", "Co", "Cf", "Mn", "Cc"})  # categories of Unicode


@dataclass(frozen=True)
class Reading:
    """What one text says.

    Attributes:
        wanted, refused: [K] probability that it wants a label, that it refuses it.
        wish: [d] the direction of what it wants, as long as it is sure that it wants something.
        titles: [t] positions of items whose titles it names, and how probable that is.
        refused_titles: the same of items that it names to refuse them.
        asks: how many of its clauses want something.
        unmet: how many of these, by their probabilities, mean no label and name no title.
    """

    wanted: Matrix
    refused: Matrix
    wish: Matrix
    titles: dict[int, float] = field(default_factory=dict)
    refused_titles: dict[int, float] = field(default_factory=dict)
    asks: int = 0
    unmet: float = 0.0


@dataclass(frozen=True)
class Reader:
    """What was fitted, over K labels and vectors of d numbers.

    Attributes:
        phrases: [P, d] vectors of phrases that mean a label; label_of_phrase [P].
        items: [K, d] the mean vector of the items that bear a label, length 1.
        label_weights: [F + 1] of `LABEL_FEATURES` and 1.
        intent_weights: [5, 2] of `intent_features` and 1.
        title_weights: [F' + 1] of `titles.FEATURES` and 1.
        names: K names of labels, normalised, as they stand in texts.
        titles: of the catalogue; spelling: its words, and those of the language.
    """

    phrases: Matrix
    label_of_phrase: NDArray[np.int32]
    items: Matrix
    label_weights: Matrix
    title_weights: Matrix
    intent_weights: Matrix
    names: Sequence[str]
    titles: TitleIndex
    spelling: Spelling

    def save(self, directory: Path) -> None:
        """language.safetensors: the arrays; names and titles are the catalogue's."""
        from safetensors.numpy import save_file

        arrays = {f.name: getattr(self, f.name) for f in fields(self)}
        kept = {n: np.ascontiguousarray(a) for n, a in arrays.items() if isinstance(a, np.ndarray)}
        save_file(kept, directory / LANGUAGE_FILE)

    @classmethod
    def load(
        cls, directory: Path, catalogue: Catalogue, labels: Sequence[str], words: Sequence[str]
    ) -> Reader | None:
        """From a bundle; None where it was made without.

        Args:
            words: of the language, the most frequent first.
        """
        path = directory / LANGUAGE_FILE
        if not path.exists():
            return None
        return cls(
            **mapped_arrays(path),
            names=label_names(catalogue, labels),
            titles=TitleIndex.of(catalogue.titles),
            spelling=spelling_of(catalogue, labels, words),
        )

    def read(self, texts: Sequence[str], embed: Embed, intents: Intents) -> list[Reading]:
        """Read texts [n]."""
        # 1. the clauses of all texts, each read once
        texts = [self.spelling.correct(plain(text)) for text in texts]
        cut = [clauses(text) for text in texts]
        unique = list(dict.fromkeys(clause for each in cut for clause in each))
        if not unique:
            return [self._nothing() for _ in texts]
        row = {clause: n for n, clause in enumerate(unique)}
        vectors = embed(unique)
        does = self.does(unique, intents(unique))
        means = self.means(unique, vectors)

        # 2. text by text
        readings = []
        for text, own in zip(texts, cut, strict=True):
            rows = [row[clause] for clause in own]
            readings.append(self._reading(text, own, vectors[rows], does[rows], means[rows]))
        return readings

    def _nothing(self) -> Reading:
        none = np.zeros(len(self.names), np.float32)
        return Reading(none, none, np.zeros(self.items.shape[1], np.float32))

    def _reading(
        self, text: str, own: Sequence[str], vectors: Matrix, does: Matrix, means: Matrix
    ) -> Reading:
        if not len(own):
            return self._nothing()
        # 1. titles, of the whole text and of each clause
        wanted_titles: dict[int, float] = {}
        refused_titles: dict[int, float] = {}
        # a title is more often searched for than refused: that has to be likely
        refuses = np.maximum(2 * does[:, REFUSES] - 1, 0).tolist()
        likeliest = []  # title of the whole text, and of each clause
        for said, refused_by in zip([text, *own], [max(refuses), *refuses], strict=True):
            found = self.named_titles(said)
            likeliest.append(max(found.values(), default=0.0))
            for position, probability in found.items():
                # the "no" of a title that has one refuses nothing
                against = 0.0 if cues(self.titles.names[position])[0] else refused_by
                for kept, share in ((wanted_titles, 1 - against), (refused_titles, against)):
                    kept[position] = max(kept.get(position, 0.0), probability * share)

        # 2. labels, and the direction of what is wanted; a word of a title says little of a label
        title = np.maximum(np.array(likeliest[1:], np.float32), likeliest[0])[:, None]
        free = np.where(title >= _TITLE, 1 - title, 1)
        wanted = (does[:, [WANTS]] * means).max(0)
        refused = (does[:, [REFUSES]] * free * means).max(0)
        wish = (does[:, [WANTS]] * vectors).sum(0)
        length = float(np.linalg.norm(wish))
        asks = does[:, WANTS] >= _ASKS
        unmet = (1 - means.max(1, initial=0)) * (1 - title[:, 0])
        wish = wish * (float(does[:, WANTS].max()) / max(length, 1e-9))
        return Reading(
            (wanted * (1 - refused)).astype(np.float32),
            refused.astype(np.float32),
            wish.astype(np.float32),
            {j: p for j, p in wanted_titles.items() if p >= _LEAST},
            {j: p for j, p in refused_titles.items() if p >= _LEAST},
            int(asks.sum()),
            float(unmet[asks].sum()),
        )

    def does(self, clauses_read: Sequence[str], intents: Matrix) -> Matrix:
        """[n, 2] probabilities of what clauses do, from the head's [n, 2] and the clauses' cues."""
        x = intent_features(clauses_read, intents)
        z = x @ self.intent_weights[:-1] + self.intent_weights[-1]
        return np.asarray(1 / (1 + np.exp(-z)), np.float32)

    def means(self, texts: Sequence[str], vectors: Matrix) -> Matrix:
        """[n, K] probabilities that clauses mean labels, whether they want or refuse them."""
        if not self.names:
            return np.zeros((len(texts), 0), np.float32)
        x = self.label_features(texts, vectors)
        z = x @ self.label_weights[:-1] + self.label_weights[-1]
        means = np.asarray(1 / (1 + np.exp(-z)), np.float32)
        # What is nearest to a clause is meant by it, if anything is.
        most = means.max(1, keepdims=True)
        nothing = 1 / (1 + np.exp(_ANYTHING / _UNSURE))
        anything = (1 / (1 + np.exp(-(most - _ANYTHING) / _UNSURE)) - nothing) / (1 - nothing)
        return np.asarray(means * anything / np.maximum(most, 1e-9), np.float32)

    def label_features(
        self, texts: Sequence[str], vectors: Matrix, left_out: Sequence[int] | None = None
    ) -> Matrix:
        """[n, K, F] `LABEL_FEATURES`.

        Args:
            left_out: [n] a phrase for each text that is not compared with it; -1 for none.
        """
        near = vectors @ self.phrases.T
        if left_out is not None:
            rows = np.flatnonzero(np.asarray(left_out) >= 0)
            near[rows, np.asarray(left_out)[rows]] = -1
        count = len(self.names)
        nearest = np.full((len(texts), count), -1.0, np.float32)
        total = np.zeros((len(texts), count), np.float32)
        for k in range(count):
            of_label = near[:, self.label_of_phrase == k]
            nearest[:, k] = of_label.max(1)
            top = np.sort(of_label, 1)[:, -3:]
            total[:, k] = top.mean(1)
        items = vectors @ self.items.T
        named = np.array(
            [[_holds(text, name) for name in self.names] for text in map(normalise, texts)]
        )
        named = named.reshape(nearest.shape)
        centred = [each - each.mean(1, keepdims=True) for each in (nearest, items)]
        ahead = [_ahead(each) for each in (nearest, total, items)]
        return np.stack([nearest, total, items, *centred, *ahead, named], 2).astype(np.float32)

    def named_titles(self, text: str) -> dict[int, float]:
        """Positions of items whose title a text names, with how probable that is."""
        positions, features = self.titles.compare(text)
        z = features @ self.title_weights[:-1] + self.title_weights[-1]
        return {
            int(j): float(p)
            for j, p in zip(positions, 1 / (1 + np.exp(-z)), strict=True)
            if p >= _LEAST
        }


def _ahead(values: Matrix) -> Matrix:
    """[n, K]: by how much a value is above the highest of the others, in its row."""
    if values.shape[1] < 2:
        return np.zeros_like(values)
    two = np.sort(values, 1)[:, -2:]
    other = np.where(values == two[:, [1]], two[:, [0]], two[:, [1]])
    return np.asarray(values - other, np.float32)


def intent_features(texts: Sequence[str], intents: Matrix) -> Matrix:
    """[n, 4]: log-odds of the head's probabilities [n, 2], and two cues of the words."""
    clipped = np.clip(intents, 1e-4, 1 - 1e-4)
    said = np.array([cues(text) for text in texts], np.float32).reshape(-1, 2)
    refuses = said[:, 0] * (1 - said[:, 1])
    return np.concatenate(
        [np.log(clipped / (1 - clipped)), refuses[:, None], said[:, [1]]], 1
    ).astype(np.float32)


def label_names(catalogue: Catalogue, labels: Sequence[str]) -> list[str]:
    """What the labels are called in the language of a catalogue, normalised."""
    phrases = spoken_in(catalogue)[0]
    return [normalise(phrases.label(label)) for label in labels]


def spelling_of(catalogue: Catalogue, labels: Sequence[str], words: Sequence[str]) -> Spelling:
    """The words of a catalogue, of its labels and of what people say who mean them, and of the
    language.
    """
    said = [each for phrases in spoken_in(catalogue) for each in phrases.all()]
    texts = [text or "" for text in (*catalogue.titles, *catalogue.texts)]
    return Spelling.of([*texts, *labels, *said], words)


def unit(vectors: Matrix) -> Matrix:
    """Vectors [n, d] at length 1; those of length 0 stay."""
    norm = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(norm, 1e-9), np.float32)


def plain(text: str) -> str:
    """A text without signs that say nothing in words, such as emoji; its apostrophes are those of
    typewriters, as in the phrases.

    >>> plain("westerns 🤠 please"), plain("I don’t know")
    ('westerns   please', "I don't know")
    """
    text = text.replace("’", "'")
    return "".join(" " if unicodedata.category(char) in _SIGNS else char for char in text)


def _holds(text: str, name: str) -> float:
    """Whether a normalised text holds a label's name, or its plural, as whole words."""
    padded = f" {text} "
    forms = {name, f"{name}s", name.removesuffix("s"), f"{name}es", f"{name[:-1]}ies"}
    return float(any(f" {form} " in padded for form in forms if form))
