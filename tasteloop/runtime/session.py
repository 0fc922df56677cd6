"""A bundle as a session that answers: the one implementation behind the trainer's golden answers
and the server.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasteloop.answers import (
    HISTORY,
    INTENT,
    INTERESTS,
    LANGUAGES,
    RECOMMEND,
    SENTIMENT,
    SERVED_MODELS,
    Answer,
    K,
    tasks_of_model,
    why_absent,
)
from tasteloop.behaviour.events import Event
from tasteloop.behaviour.items import Catalogue
from tasteloop.behaviour.kinds import KINDS
from tasteloop.behaviour.text import TextSettings, behaviour_text
from tasteloop.bundle.card import BundleCard
from tasteloop.bundle.manifest import verify
from tasteloop.bundle.names import BASE_MODEL, ITEMS_FILE, MODELS_DIRECTORY, RECOMMENDER_FILE
from tasteloop.encoder.bag_of_words import BagOfWords, trust
from tasteloop.encoder.calibration import apply_calibration, confidence, from_log_odds, log_odds
from tasteloop.encoder.habits import Habits
from tasteloop.errors import TasteloopError
from tasteloop.language.hearing import Hearing, note_readings, note_stances
from tasteloop.language.reader import Reader, Reading, plain, unit
from tasteloop.language.titles import TitleIndex
from tasteloop.language.wishes import Origins, Wishes, is_saying
from tasteloop.metrics import top_k
from tasteloop.recommender.folding import FoldedHistories, mark_seen
from tasteloop.recommender.recommend import ASKED, Recommender, TermScores
from tasteloop.runtime.choice import choose
from tasteloop.runtime.encoders import Encoder, TextCache
from tasteloop.runtime.questions import EXCEPTIONS, Exceptions, Question, parse
from tasteloop.runtime.reasons import Detail, Ground, Reason, reasons_of
from tasteloop.runtime.sentences import Teller
from tasteloop.runtime.stages import stage

Matrix = NDArray[np.float32]
_ROWS = 256  # histories that are ranked at once, fewer where the catalogue is large:
_SCORES = 2**22  # of one term
_READ = 8192  # histories whose interests are computed at once
CACHE_MEGABYTES = 64.0
_READINGS = 2048  # texts whose meaning, and whose stance, is kept: an answer looks at each twice
# How probable a label is that is surely wanted: nobody keeps to what they searched for in every
# act.
WANTED = 0.95
NEUTRAL = 0.15  # words are neither for nor against an item where they are about so near to even


@dataclass(frozen=True)
class Recommendation:
    """An item with its score, which is the sum of its terms.

    Attributes:
        reasons: the terms by what they mean, with what they are made of (`runtime.reasons`); empty
            where nobody asked for them.
    """

    item: str
    title: str
    score: float
    terms: dict[str, float]
    reasons: tuple[Reason, ...] = ()


class Session:
    """Answers from a bundle; safe to share between threads.

    Attributes:
        labels: the K interest labels, none without that task; thresholds [K]: from which
            probability one is predicted.
        digest: the bundle's, "" for one that is not sealed yet.
        tasks: what it was trained for, each with a head of its own; models: what it answers.
        runtime: what runs the encoder, one of `engines.RUNTIMES`.
        encoders: by model; an encoder's `cache` counts its hits and misses.
    """

    def __init__(
        self,
        directory: Path,
        card: BundleCard,
        digest: str,
        runtime: str,
        cache_megabytes: float = 0,
    ) -> None:
        self.card, self.digest, self.runtime = card, digest, runtime
        self.labels = list(card.labels)
        self.tasks = [task for task in card.tasks if task in SERVED_MODELS]
        self.text = TextSettings.model_validate(card.text)
        self.catalogue = Catalogue.read(directory / ITEMS_FILE)
        share = cache_megabytes / len(card.models)
        self.encoders = {
            name: Encoder(directory / MODELS_DIRECTORY / name, runtime, share)
            for name in card.models
        }
        self.recommender = (
            Recommender.load(directory, card) if (directory / RECOMMENDER_FILE).exists() else None
        )
        self._habits = Habits.load(directory)
        self._stances = TextCache[float](_READINGS)
        self._listens: Reader | None = None
        self.listen(directory)
        self._bag: BagOfWords | None = None
        sentiment = card.tasks.get(SENTIMENT)
        if sentiment is not None and (sentiment.bag_of_words or sentiment.familiar) is not None:
            self._bag = BagOfWords.load(directory / MODELS_DIRECTORY / sentiment.model)

    @classmethod
    def load(cls, directory: Path, cache_megabytes: float = CACHE_MEGABYTES) -> Session:
        """From a sealed bundle, with the runtime that `choice.choose` says.

        Args:
            cache_megabytes: room for the vectors of texts that were read before.

        Raises:
            TasteloopError: a file is not what the manifest says.

        With the directory of a bundle in `bundle`:

        >>> session = Session.load(bundle)
        >>> session.models
        ('interests', 'recommend', 'sentiment')
        >>> [[best, second]] = session.recommend([[Event("rate", item="i1", value=1.0)]], k=2)
        >>> best.score >= second.score and best.score == sum(best.terms.values())
        True
        >>> [answer] = session.answer("sentiment", [{"text": "a warm and funny film"}])
        >>> sorted(answer)
        ['confident', 'probability', 'sentiment']
        >>> Session.load(Path("none"))
        Traceback (most recent call last):
            ...
        tasteloop.errors.TasteloopError: none is not a bundle: it has no manifest.json; `tasteloop
        run` makes one
        """
        digest, card = verify(directory), BundleCard.read(directory)
        return cls(directory, card, digest, choose(card, directory), cache_megabytes)

    @classmethod
    def open(cls, directory: Path, card: BundleCard, runtime: str | None = None) -> Session:
        """From a bundle that its trainer has not sealed yet, by default with the runtime that was
        chosen for it.
        """
        if runtime is None:
            assert card.runtime is not None, "a runtime was chosen"
            runtime = card.runtime.chosen
        return cls(directory, card, "", runtime)

    @property
    def models(self) -> tuple[str, ...]:
        return tasks_of_model(self.tasks)

    @property
    def has_interests(self) -> bool:
        return INTERESTS in self.tasks

    @property
    def has_sentiment(self) -> bool:
        return SENTIMENT in self.tasks

    @property
    def thresholds(self) -> Matrix:
        return np.array(self.card.tasks[INTERESTS].thresholds, np.float32)

    @property
    def sentiment_threshold(self) -> float:
        return self.card.tasks[SENTIMENT].thresholds[0]

    # --- the encoder ---

    def encoder(self, task: str) -> Encoder:
        return self.encoders[self.card.tasks[task].model]

    @property
    def reader(self) -> Encoder:
        """The encoder that reads behaviour and items."""
        return self.encoders[self.card.reading_model]

    def max_tokens(self, task: str) -> int:
        """The token budget of a task's texts."""
        return self.card.review_max_tokens if task == SENTIMENT else self.text.max_tokens

    def _logits(self, task: str, texts: Sequence[str]) -> Matrix:
        """[n, outputs of the task], before calibration."""
        encoder = self.encoder(task)
        return encoder.logits(task, encoder.pool(texts, self.max_tokens(task)))

    def item_texts(self) -> list[str]:
        """Each item's title, labels and text."""
        catalogue = self.catalogue
        return [
            ", ".join(part for part in (title, " ".join(labels).lower(), text) if part) or item
            for item, title, labels, text in zip(
                catalogue.items, catalogue.titles, catalogue.labels, catalogue.texts, strict=True
            )
        ]

    def item_vectors(self) -> Matrix:
        """[J, width], length 1: each item's text read by the encoder that reads behaviour."""
        return unit(self.reader.pool(self.item_texts(), self.text.max_tokens))

    # --- the answers ---

    def interests(self, histories: Sequence[Sequence[Event]]) -> Matrix:
        """Calibrated probabilities [n, K]; read in blocks of histories."""
        blocks = [
            from_log_odds(self.interest_terms(histories[start : start + _READ]))
            for start in range(0, max(len(histories), 1), _READ)
        ]
        return np.concatenate(blocks)

    def ranking_interests(self, histories: Sequence[Sequence[Event]]) -> Matrix:
        """What `rank` takes: the probabilities [n, K], and [n, 0] of a model without interests."""
        return (
            self.interests(histories)
            if self.has_interests
            else np.zeros((len(histories), 0), np.float32)
        )

    def interest_terms(
        self, histories: Sequence[Sequence[Event]]
    ) -> dict[str, NDArray[np.float64]]:
        """What the text and, where there are any, the habits add to the log-odds of every interest:
        [n, K] each.
        """
        if not self.has_interests:
            raise TasteloopError(why_absent(INTERESTS))
        histories = self.understood(histories)
        logits = self._logits("interests", [self.behaviour_text(history) for history in histories])
        own = None
        if self._habits is not None:
            own = self._habits.logits(histories, self.catalogue, self.labels, self.text)
        terms = log_odds(logits, self.card.tasks[INTERESTS].calibration, own)
        wishes = self.wishes(histories)
        if wishes is not None:
            terms["asked"] = _asked(sum(terms.values()), wishes)
        return terms

    # --- what was said ---

    def listen(self, directory: Path) -> None:
        """Load what reads wishes, where the bundle has it."""
        self._readings = TextCache[Reading](_READINGS)
        if BASE_MODEL in self.encoders:
            words = self.encoders[BASE_MODEL].words
            self._listens = Reader.load(directory, self.catalogue, self.labels, words)

    @property
    def listens(self) -> bool:
        """Whether it reads what people ask for in words."""
        return self._listens is not None

    def readings(self, texts: Sequence[str], newer: TitleIndex | None = None) -> list[Reading]:
        """What texts [n] about no item say; only of a session that `listens`.

        Args:
            newer: the catalogue's titles, and after them those that it did not have yet: what they
                name is not lacking.
        """
        reader = self._listens
        assert reader is not None, "a session that listens"
        readings = self._read(texts)
        if newer is None:
            return readings
        wider, first = replace(reader, titles=newer), len(self.catalogue)
        found = [wider.named_titles(plain(text)) for text in texts]
        named = [max((p for j, p in each.items() if j >= first), default=0.0) for each in found]
        return [
            replace(reading, unmet=reading.unmet * (1 - p))
            for reading, p in zip(readings, named, strict=True)
        ]

    def heard(
        self, model: str, questions: Sequence[Question], hearing: Hearing
    ) -> list[dict[str, Any]]:
        """What was understood of each question's words while it was answered, as the journal keeps
        it (`tasteloop.journal.HEARD`); empty where nothing is read of wishes, or the model is not
        asked about histories.
        """
        if not self.listens or SERVED_MODELS[model].input is not HISTORY:
            return []
        return [dict(hearing.of(question["events"])) for question in questions]

    def understood(self, histories: Sequence[Sequence[Event]]) -> Sequence[Sequence[Event]]:
        """Histories [n] in which what was written about an item, where no value says it, has the
        value that its words do: how probable it is that they are favourable. Words that are neither
        stay without, and so do all in a bundle from before words were read.
        """
        texts = [e.text for history in histories for e in history if _is_unvalued(e)]
        unique = list(dict.fromkeys(text for text in texts if text))
        is_earlier = self.recommender is not None and not self.recommender.opinions_count
        if not unique or not self.has_sentiment or is_earlier:
            return histories
        values = self.stance(unique)
        return [
            [
                replace(event, value=values[event.text or ""]) if _is_unvalued(event) else event
                for event in history
            ]
            for history in histories
        ]

    def stance(self, texts: Sequence[str]) -> dict[str, float | None]:
        """By text how probable it is that it is favourable; None where it is neither for nor
        against.
        """
        probabilities = self._stances.of(texts, lambda new: self.sentiment(new).tolist())
        stances = {
            text: None if abs(favourable - 0.5) < NEUTRAL else favourable
            for text, favourable in zip(texts, probabilities, strict=True)
        }
        note_stances(stances)
        return stances

    def wishes(self, histories: Sequence[Sequence[Event]]) -> Wishes | None:
        """What the users of histories [n] asked for in words; None where none did, or where the
        bundle was made before words were read.
        """
        if self._listens is None or not any(is_saying(e) for history in histories for e in history):
            return None
        return Wishes.of(histories, self._listens, self._read, self.text.history_limit)

    def origins(self, history: Sequence[Event]) -> Origins | None:
        """Which texts of a history its wishes come from; None where nothing was asked for."""
        if self._listens is None or not any(map(is_saying, history)):
            return None
        return Origins.of(history, self._listens, self._read, self.text.history_limit)

    def _read(self, texts: Sequence[str]) -> list[Reading]:
        reader = self._listens
        assert reader is not None, "somebody asked for something"
        readings = self._readings.of(
            texts, lambda new: reader.read(new, self.meaning, self.intents)
        )
        note_readings(dict(zip(texts, readings, strict=True)), self.labels)
        return readings

    def meaning(self, texts: Sequence[str]) -> Matrix:
        """[n, m] of length 1: texts by the encoder as it was published."""
        return unit(self.encoders[BASE_MODEL].pool(texts, self.text.max_tokens))

    def intents(self, texts: Sequence[str]) -> Matrix:
        """[n, 2] probabilities that clauses want something, and that they refuse it."""
        return apply_calibration(self._logits(INTENT, texts), self.card.tasks[INTENT].calibration)

    def behaviour_text(self, history: Sequence[Event]) -> str:
        """A history as the encoder reads it."""
        return behaviour_text(history, self.catalogue, self.text)

    def sentiment(self, texts: Sequence[str]) -> Matrix:
        """Calibrated probability [n] that a text is positive; nearer to a half the fewer of its
        words training had.
        """
        if not self.has_sentiment:
            raise TasteloopError(why_absent(SENTIMENT))
        logits, task, weight = self._logits(SENTIMENT, texts), self.card.tasks[SENTIMENT], None
        if self._bag is not None and task.bag_of_words is not None:
            logits = logits + task.bag_of_words * self._bag.logits(texts)[:, None]
        if self._bag is not None and task.familiar is not None:
            weight = trust(self._bag.familiarity(texts), *task.familiar)
        return apply_calibration(logits, task.calibration, trust=weight)[:, 0]

    def score_terms(self, histories: Sequence[Sequence[Event]], interests: Matrix) -> TermScores:
        """The terms of the ranking for histories [n] with their interests [n, K]."""
        assert self.recommender is not None, "a sealed bundle has a recommender"
        histories = self.understood(histories)
        recommender = self.recommender
        folded = FoldedHistories.of(
            histories, self.catalogue, recommender.decay, self.text, recommender.opinions_count
        )
        return self.recommender.score_terms(folded, interests, self.wishes(histories))

    def scores(self, histories: Sequence[Sequence[Event]], interests: Matrix) -> Matrix:
        """[n, J]: what `rank` orders items by, those that a history has consumed included; n is
        small enough for a matrix of rows and items.
        """
        return self.score_terms(histories, interests).scores()

    def recommend(
        self, histories: Sequence[Sequence[Event]], k: int = K
    ) -> list[list[Recommendation]]:
        """The k best items of each history that are not in it, best first; fewer where the
        catalogue ends.
        """
        return self.rank(histories, self.ranking_interests(histories), k)

    def rank(
        self,
        histories: Sequence[Sequence[Event]],
        interests: Matrix,
        k: int | Sequence[int],
        exceptions: Sequence[Exceptions | None] | None = None,
        details: Sequence[Detail] | None = None,
    ) -> list[list[Recommendation]]:
        """`recommend` with interests at hand, to one k or to each history's own; in blocks of rows,
        since each term is a matrix of rows and items.

        Args:
            exceptions: [n], what else each history leaves out or allows.
            details: [n] how far the reasons of each history's items are taken apart; None: they
                have none.
        """
        counts = [k] * len(histories) if isinstance(k, int) else list(k)
        exceptions = exceptions or [None] * len(histories)
        size = max(1, min(_ROWS, _SCORES // len(self.catalogue)))
        ranked: list[list[Recommendation]] = []
        for start in range(0, len(histories), size):
            block = slice(start, start + size)
            ranked += self._rank_block(
                histories[block],
                interests[block],
                counts[block],
                exceptions[block],
                None if details is None else details[block],
            )
        return ranked

    def _rank_block(
        self,
        histories: Sequence[Sequence[Event]],
        interests: Matrix,
        counts: Sequence[int],
        exceptions: Sequence[Exceptions | None],
        details: Sequence[Detail] | None,
    ) -> list[list[Recommendation]]:
        """The best items of each history [n], so many of each as `counts` [n] says."""
        # 1. positions of the best items that are not in the history
        histories = self.understood(histories)
        term_scores = self.score_terms(histories, interests)
        scores = term_scores.scores()
        seen = mark_seen(histories, self.catalogue)
        for left_out, exception in zip(seen, exceptions, strict=True):
            if exception is not None:
                left_out[self._positions(exception.repeatable)] = False
                left_out[self._positions(exception.left_out)] = True
        scores[seen] = -np.inf
        best = [row[:n] for row, n in zip(top_k(scores, max(counts)), counts, strict=True)]

        # 2. what each term contributes to them
        positions = np.unique(np.concatenate(best))
        contributions = term_scores.contributions(positions)
        ranked = []
        for row, items in enumerate(best):
            items = items[np.isfinite(scores[row, items])]
            said = [name for name in contributions if term_scores.asked[row] or name not in ASKED]
            columns = np.searchsorted(positions, items)
            terms = {name: contributions[name][row, columns] for name in said}
            reasons: Sequence[tuple[Reason, ...]] = [()] * len(items)
            if details is not None:
                reasons = self._reasons(
                    histories[row], term_scores, row, items, terms, details[row]
                )
            recommendations = [
                self._recommendation(
                    item, {name: values[n] for name, values in terms.items()}, reasons[n]
                )
                for n, item in enumerate(items.tolist())
            ]
            # equals may differ by a last digit
            ranked.append(sorted(recommendations, key=lambda each: -each.score))
        return ranked

    def _positions(self, items: Collection[str]) -> list[int]:
        """The positions of those items that the catalogue has."""
        index = self.catalogue.index
        return [index[item] for item in items if item in index]

    def _reasons(
        self,
        history: Sequence[Event],
        term_scores: TermScores,
        row: int,
        items: NDArray[np.int64],
        terms: Mapping[str, Matrix],
        detail: Detail,
    ) -> list[tuple[Reason, ...]]:
        """`reasons_of` items, by their positions, for the history of a row."""
        ground = self.ground(history)
        return reasons_of(ground, term_scores, row, items, terms, detail)

    def ground(self, history: Sequence[Event]) -> Ground:
        """What an understood history holds that items are recommended for."""
        counts = self.recommender is None or self.recommender.opinions_count
        return Ground(history, self.catalogue, self.labels, self.text, counts, self.origins)

    def _recommendation(
        self, item: int, terms: Mapping[str, np.float32], reasons: tuple[Reason, ...]
    ) -> Recommendation:
        parts = {name: float(value) + 0.0 for name, value in terms.items()}  # no -0.0
        return Recommendation(
            self.catalogue.items[item],
            self.catalogue.titles[item],
            sum(parts.values()),
            parts,
            reasons,
        )

    def answer(self, model: str, instances: Sequence[Any]) -> list[Answer]:
        """The public answers of a served model: `parse`, then `compute`."""
        return self.compute(model, parse(model, instances))

    def compute(self, model: str, questions: Sequence[Question]) -> list[Answer]:
        """Answers to questions that `parse` checked, of one request or of many.

        Args:
            model: interests, recommend or sentiment.
            questions: as `parse` returns them.

        Returns:
            One answer a question: {"interests": [{"label", "probability",
            ..}]}, {"recommendations": [{"item", "score", "reason", ..}]} or {"sentiment", ..}.
        """
        if not questions:
            return []
        return COMPUTE[model](self, questions)

    def _answer_interests(self, questions: Sequence[Question]) -> list[Answer]:
        probabilities = self.interests([question["events"] for question in questions])
        return [
            self._interests(row, question["k"])
            for row, question in zip(probabilities, questions, strict=True)
        ]

    def _answer_recommend(self, questions: Sequence[Question]) -> list[Answer]:
        histories = [question["events"] for question in questions]
        interests = self.ranking_interests(histories)
        counts = [question["k"] or K for question in questions]
        with stage("rank"):
            details: list[Detail] = [
                "against" if question.get("against", False) else "for" for question in questions
            ]
            exceptions = [question.get(EXCEPTIONS) for question in questions]
            ranked = self.rank(histories, interests, counts, exceptions, details)
            return [
                self._recommendations(recommended, question)
                for recommended, question in zip(ranked, questions, strict=True)
            ]

    def _answer_sentiment(self, questions: Sequence[Question]) -> list[Answer]:
        probabilities = self.sentiment([question["text"] for question in questions])
        return [self._sentiment(probability) for probability in probabilities]

    def confident(self, task: str, probabilities: Matrix) -> NDArray[np.bool_]:
        """Whether what is stated of each output is sure: right as often as the card's settings ask;
        same shape.
        """
        least = self.card.tasks[task].confident_from
        if least is None:
            return np.zeros(probabilities.shape, np.bool_)
        thresholds = (
            self.thresholds if task == "interests" else np.array([self.sentiment_threshold])
        )
        return np.asarray(confidence(probabilities, thresholds) >= np.float32(least))

    def _interests(self, probabilities: Matrix, k: int | None) -> Answer:
        sure = self.confident("interests", probabilities)
        rows = sorted(zip(-probabilities, self.labels, self.thresholds, sure, strict=True))
        return {
            "interests": [
                {
                    "label": label,
                    "probability": float(-p),
                    "predicted": bool(-p >= threshold),
                    "confident": bool(certain),
                }
                for p, label, threshold, certain in rows[:k]
            ]
        }

    def _sentiment(self, probability: float) -> Answer:
        positive = probability >= self.sentiment_threshold
        return {
            "sentiment": "positive" if positive else "negative",
            "probability": float(probability),
            "confident": bool(self.confident("sentiment", np.asarray(probability))),
        }

    def _recommendations(self, ranked: Sequence[Recommendation], question: Question) -> Answer:
        teller = self.teller(question)
        return {
            "recommendations": [
                {
                    "item": r.item,
                    "title": r.title,
                    "score": r.score,
                    **why(teller, r.reasons, question.get("against", False)),
                }
                for r in ranked
            ]
        }

    def teller(self, question: Question) -> Teller:
        """What tells the reasons of answers to a question about a history, in its language."""
        [history] = self.understood([question["events"]])
        return Teller(history, self.catalogue, self.text, question.get("language", LANGUAGES[0]))


def why(teller: Teller, reasons: Sequence[Reason], against: bool) -> dict[str, Any]:
    """The fields that say why an item is recommended and, where that is asked for, what speaks
    against it.
    """
    told: dict[str, Any] = {
        "reason": teller.speaks_for(reasons),
        "reasons": [reason.json() for reason in reasons],
    }
    if against:
        told["against"] = teller.speaks_against(reasons)
    return told


def _is_unvalued(event: Event) -> bool:
    """Whether words about an item say what a value would, and none is there."""
    if event.text is None or event.item is None or event.value is not None:
        return False
    kind = KINDS.get(event.kind)
    return kind is not None and kind.value_matters


def _asked(before: Any, wishes: Wishes) -> NDArray[np.float64]:
    """[n, K]: what was asked for adds to log-odds [n, K].

    Of a label that is wanted with probability q and refused with r the probability p becomes
    (p + q · max(0.95 - p, 0)) · (1 - r): with probability q the label is wanted now, whatever the
    history says.
    """
    from scipy.special import expit, logit

    p = expit(np.asarray(before, np.float64))
    wanted = p + wishes.wanted * np.maximum(WANTED - p, 0)
    after = wanted * (1 - wishes.refused)
    return np.asarray(logit(np.clip(after, 1e-6, 1 - 1e-6)) - logit(np.clip(p, 1e-6, 1 - 1e-6)))


COMPUTE: dict[str, Callable[[Session, Sequence[Question]], list[Answer]]] = {
    INTERESTS: Session._answer_interests,
    RECOMMEND: Session._answer_recommend,
    SENTIMENT: Session._answer_sentiment,
}
"""How each served model (`tasteloop.answers.SERVED_MODELS`) is computed: from questions, of one
request or of many, to an answer each.
"""
