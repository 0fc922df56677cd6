"""Reasons as a sentence that a person would say. The words stand in `recommender.ideas`, beside
what they mean, and of acts in `behaviour.kinds`.

Titles, labels and searched words are foreign text: they are quoted, shortened and freed of control
characters. A page still has to escape the sentence.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from tasteloop.behaviour.events import Event
from tasteloop.behaviour.items import Catalogue
from tasteloop.behaviour.text import TextSettings, told_act
from tasteloop.recommender.ideas import ALIKE, FRAMES, JOINTS, MORE, THOSE
from tasteloop.recommender.ideas import NAMED as NAMED_IN_TEXT
from tasteloop.runtime.reasons import NAMED, Part, Reason, told

LONGEST = 60
"""Characters of a title or of searched words in a sentence; what is longer ends in an ellipsis."""
POINT = 0.01
"""A word that changes a probability by less is not told."""


@dataclass(frozen=True)
class InterestWords:
    """How it is told why an interest has its probability.

    Attributes:
        known: in braces the probability and that of a user without a history; because: comes
            before acts; act: one of them, and by how much it changed the probability; others: one
            other act, or several; end: ends the sentence.
        unknown: of a user without a history; something: what an act was done to, where neither
            item nor words say.
    """

    known: str
    because: str
    act: str
    others: tuple[str, str]
    end: str
    unknown: str
    something: str


INTEREST = {
    "en": InterestWords(
        "Expected at {now}, and at {before} of someone whom we do not know",
        ": because you ",
        "{act} ({by} points)",
        ("; {n} other act makes {by} points", "; {n} other acts make {by} points"),
        ".",
        "Expected at {now}, as of everybody whom we do not know yet.",
        "something",
    ),
    "zh": InterestWords(
        "预计为{now}，而对还不了解的人预计为{before}",
        "：因为你",
        "{act}（{by}个百分点）",
        ("；另外{n}个行为带来{by}个百分点", "；另外{n}个行为带来{by}个百分点"),
        "。",
        "预计为{now}，与还不了解的任何人一样。",
        "某项内容",
    ),
}


@dataclass(frozen=True)
class SentimentWords:
    """How it is told which words move a sentiment.

    Attributes:
        read: in braces the sentiment and the probability that the text is favourable; first,
            without: a word, and the probability without it; none: where no word alone matters.
        sentiments: what the two are called.
    """

    read: str
    first: str
    without: str
    end: str
    none: str
    sentiments: Mapping[str, str]


SENTIMENT = {
    "en": SentimentWords(
        "Read as {sentiment}: {now} favourable",
        "; without {word} it would be {then}",
        ", without {word} {then}",
        ".",
        "; no single word changes that by a point.",
        {"positive": "positive", "negative": "negative"},
    ),
    "zh": SentimentWords(
        "判断为{sentiment}：好评概率{now}",
        "；去掉{word}会是{then}",
        "，去掉{word}会是{then}",
        "。",
        "；没有哪个词单独使它改变一个百分点。",
        {"positive": "正面", "negative": "负面"},
    ),
}


def tell_sentiment(
    language: str, sentiment: str, probability: float, without: Sequence[tuple[str, float]]
) -> str:
    """How a text is read, and what it would be without single words.

    Args:
        without: words, and the probability without each, the one that matters most first; those
            that change it by less than a point are not told.
    """
    words = SENTIMENT[language]
    sentence = words.read.format(sentiment=words.sentiments[sentiment], now=_percent(probability))
    mattering = [(word, p) for word, p in without if abs(p - probability) >= POINT][:NAMED]
    if not mattering:
        return sentence + words.none
    for n, (word, p) in enumerate(mattering):
        template = words.without if n else words.first
        sentence += template.format(word=quoted(word), then=_percent(p))
    return sentence + words.end


def _percent(probability: float) -> str:
    return f"{100 * probability:.1f}%"


def _points(change: float) -> str:
    return f"{100 * change:+.1f}"


_QUOTES = str.maketrans({"“": "'", "”": "'"})


def quoted(text: str) -> str:
    """Foreign text as a sentence may hold it.

    >>> quoted("Alien\\x00\\n(1979)"), quoted('say “so”')
    ('“Alien (1979)”', "“say 'so'”")
    """
    if not text.isprintable():
        # what is cut off anyway is not cleaned
        kept = (char if char.isprintable() else " " for char in text[: 4 * LONGEST])
        text = "".join(kept) + ("…" if len(text) > 4 * LONGEST else "")
    shown = " ".join(text[: 4 * LONGEST].split()).translate(_QUOTES)
    if len(shown) > LONGEST:
        shown = shown[: LONGEST - 1].rstrip() + "…"
    return f"“{shown}”"


class Teller:
    """Tells the reasons of answers to one history in one language."""

    def __init__(
        self, history: Sequence[Event], catalogue: Catalogue, text: TextSettings, language: str
    ) -> None:
        self._history, self._catalogue, self._text = history, catalogue, text
        self._language = language
        self._joints = JOINTS[language]
        # acts are told again and again: what they are called, and their verbs
        self._titles: dict[str, str] = {}
        self._verbs: dict[int, str] = {}

    def speaks_for(self, reasons: Sequence[Reason]) -> str:
        """Why an item is recommended."""
        return self._sentence(reasons, 1, "for")

    def speaks_against(self, reasons: Sequence[Reason]) -> str:
        """What speaks against it."""
        return self._sentence(reasons, -1, "against")

    def names(self, names: Iterable[str]) -> str:
        """Names in a row: “a”, “b” and “c”."""
        return self.listed([quoted(name) for name in names])

    def listed(self, words: Sequence[str]) -> str:
        return _joined(words, self._joints.name, self._joints.last_name)

    def act(self, event: Event, what: str) -> str:
        """An act with what it was done to: liked “Alien”."""
        return " ".join(told_act(event, self._text, self._language).format(what).split())

    def title(self, event: Event) -> str:
        """The title of an act's item; its id, where the catalogue does not know it."""
        return self._name(event.item or "")

    def _name(self, item: str) -> str:
        position = self._catalogue.index.get(item)
        return item if position is None else self._catalogue.titles[position] or item

    def interest(
        self,
        probability: float,
        baseline: float,
        moved: Sequence[tuple[Sequence[int], float]],
    ) -> str:
        """Why an interest has its probability, and which acts moved it by how much.

        Args:
            baseline: the probability without a history.
            moved: acts, by their positions in the question, and what they changed, the largest
                first; what they changed adds up to the difference of both probabilities.
        """
        words = INTEREST[self._language]
        now, before = _percent(probability), _percent(baseline)
        if not moved:
            return words.unknown.format(now=now)
        singles = [(events[0], by) for events, by in moved if len(events) == 1][:NAMED]
        told_acts = [
            words.act.format(act=self._did(self._history[event]), by=_points(by))
            for event, by in singles
        ]
        others = sum(len(events) for events, _ in moved) - len(singles)
        sentence = words.known.format(now=now, before=before)
        if told_acts:
            sentence += words.because + _joined(told_acts, self._joints.act, self._joints.last_act)
        if others:
            rest = sum(by for _, by in moved) - sum(by for _, by in singles)
            sentence += words.others[others > 1].format(n=others, by=_points(rest))
        return sentence + words.end

    def _verb(self, event: int) -> str:
        """What was done, with {} for what it was done to."""
        verb = self._verbs.get(event)
        if verb is None:
            act = self._history[event]
            verb = NAMED_IN_TEXT[self._language]
            if act.item is not None:
                verb = told_act(act, self._text, self._language)
            self._verbs[event] = verb
        return verb

    def _title(self, item: str) -> str:
        """The title of an item as sentences hold it."""
        title = self._titles.get(item)
        if title is None:
            title = self._titles[item] = quoted(self._name(item))
        return title

    def _did(self, event: Event) -> str:
        if event.item is None:
            what = quoted(event.text) if event.text else INTEREST[self._language].something
        else:
            what = quoted(self.title(event))
        return self.act(event, what)

    def _sentence(self, reasons: Sequence[Reason], sign: int, frame: str) -> str:
        chosen = told([reason.contribution for reason in reasons], sign)
        clauses = [clause for n in chosen for clause in self._clauses(reasons[n])]
        if not clauses:
            return FRAMES[f"nothing {frame}"][self._language]
        joined = _joined(clauses, self._joints.clause, self._joints.last_clause)
        return FRAMES[frame][self._language].format(clauses=joined)

    def _clauses(self, reason: Reason) -> list[str]:
        """What one idea says: a clause for each way in which its parts speak."""
        idea, language = reason.idea, self._language
        clauses = [idea.clauses[way][language] for way in reason.ways]
        more = reason.more
        groups: dict[tuple[str, str, tuple[str, ...]], list[Part]] = {}
        for part in reason.parts:
            groups.setdefault(self._group(reason, part), []).append(part)
        clauses += [
            idea.clauses[way][language].format(**self._fields(idea.parts, parts))
            for (way, _, _), parts in groups.items()
        ]
        if more and clauses:
            clauses[-1] += MORE[idea.parts][language][more > 1].format(n=more)
        return clauses

    def _group(self, reason: Reason, part: Part) -> tuple[str, str, tuple[str, ...]]:
        """Parts of one group are told in one clause."""
        if reason.idea is ALIKE and part.event is not None:
            return part.way, self._verb(part.event), ()
        return part.way, "", part.labels if reason.idea.parts == "words" else ()

    def _fields(self, kind: str, parts: Sequence[Part]) -> dict[str, str]:
        """What stands in the braces of a clause."""
        if kind == "labels":
            return {"labels": self.names(part.labels[0] for part in parts)}
        events = [part.event for part in parts if part.event is not None]
        if kind == "words":
            texts = dict.fromkeys(self._did(self._history[event]) for event in events)
            return {"said": self.listed(list(texts)), "labels": self.names(parts[0].labels)}

        # acts: those of one verb stand together
        by_verb: dict[str, list[str]] = {}
        for part in parts:
            if part.event is not None and part.item is not None:
                by_verb.setdefault(self._verb(part.event), []).append(self._title(part.item))
        acts = [verb.format(self.listed(titles)) for verb, titles in by_verb.items()]
        those = THOSE[self._language][len(events) > 1]
        fields = {
            "acts": _joined(acts, self._joints.act, self._joints.last_act),
            "those": those,
        }
        if len(by_verb) == 1:
            [(verb, titles)] = by_verb.items()
            done = verb.format(those if self._language == "zh" else "")
            fields |= {"titles": self.listed(titles), "done": " ".join(done.split())}
        return fields


def _joined(words: Sequence[str], between: str, last: str) -> str:
    """Words in a row, with something else before the last."""
    return between.join(words[:-1]) + last + words[-1] if len(words) > 1 else "".join(words)
