"""What the score of an item rests on, as a person would put it: ideas, and what each is made of.

The terms of a score are added up by the idea that they stand for (`recommender.ideas`), so that the
contributions of the ideas add up to the score as its terms do. Each idea is taken apart into what
the user did: items that they acted on, texts that they wrote, labels. A part is the sum of what its
source adds through all terms of the idea. ADR 0016 says how this is defined, and why.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tasteloop.behaviour.events import Event
from tasteloop.behaviour.items import Catalogue
from tasteloop.behaviour.text import TextSettings, in_order
from tasteloop.language.wishes import TEXTS, Origins, is_saying
from tasteloop.recommender.ideas import ALIKE, COMPANY, IDEAS, POPULARITY, TASTE, Idea
from tasteloop.recommender.recommend import ASKED, IDEA_OF_TERM, TermParts, TermScores

Numbers = NDArray[Any]
Detail = Literal["for", "against", "all"]

NAMED = 3
"""Parts of an idea that are named; those beyond are counted."""
TOLD_PARTS = 0.95
"""Named and counted parts make up so much of what speaks for an idea, or against it."""
TOLD_IDEAS = 0.85
"""Ideas that a sentence tells make up so much of what speaks for an item, or against it."""
SMALL = 0.02
"""A smaller share of all that is said for and against an item is hardly anything, and not told."""
LEAST = 1e-6
"""A smaller contribution is rounding."""

_OF_SEEN = frozenset({"factors_seen", "spectral", "nearby", "nearby_whole"})
_EVEN = 1e-6  # so near to everybody's a label is not below it
_THROUGH = 2  # labels that are named of what one text means


class Part(NamedTuple):
    """A part of an idea that is named.

    Attributes:
        contribution: what it adds to the score, through all terms of the idea.
        way: how it speaks, one of the idea's clauses.
        event: its act or text, by its position in the question; None of a label.
        item: which was acted on, or named in the text.
        labels: the label that it is, or through which labels a text speaks.
    """

    contribution: float
    way: str
    event: int | None = None
    labels: tuple[str, ...] = ()
    item: str | None = None

    def json(self) -> dict[str, Any]:
        """The part as answers have it."""
        found: dict[str, Any] = {} if self.event is None else {"event": self.event}
        if self.item is not None:
            found["item"] = self.item
        if self.labels and self.event is None:
            found["label"] = self.labels[0]
        elif self.labels:
            found["labels"] = list(self.labels)
        return {**found, "contribution": self.contribution}


class Reason(NamedTuple):
    """What one idea adds to a score.

    Attributes:
        contribution: the sum of its terms.
        terms: what each of them adds.
        parts: those that say most of what the idea comes to, largest first, where it was taken
            apart; `more`: how many others are needed to make up `TOLD_PARTS` of that.
        ways: how an idea that has no parts speaks.
    """

    idea: Idea
    contribution: float
    terms: Mapping[str, float]
    parts: tuple[Part, ...] = ()
    more: int = 0
    ways: tuple[str, ...] = ()

    def json(self) -> dict[str, Any]:
        """The reason as answers have it."""
        what = [part.json() for part in self.parts]
        return {
            "kind": self.idea.name,
            "contribution": self.contribution,
            "terms": self.terms,
            "what": what,
            "more": self.more,
        }


def told(contributions: Sequence[float], sign: int) -> list[int]:
    """Which ideas speak for an item (1), or against it (-1), by their places: the largest, until
    `TOLD_IDEAS` of what does is told. One that is a small share of all that is said is not told.

    >>> told([2.0, -1.0, 0.4, 0.001], 1), told([2.0, -1.0, 0.4, 0.001], -1)
    ([0, 2], [1])
    """
    everything = mass = 0.0
    speaking = []
    for place, contribution in enumerate(contributions):
        everything += abs(contribution)
        if sign * contribution > 0:
            mass += sign * contribution
            speaking.append((-sign * contribution, place))
    least = max(LEAST, SMALL * everything)
    chosen: list[int] = []
    so_far = 0.0
    for size, place in sorted(speaking):
        if -size <= least or so_far >= TOLD_IDEAS * mass:
            break
        chosen.append(place)
        so_far -= size
    return chosen


class Ground:
    """What one history holds that items are recommended for.

    Args:
        history: with values where texts about items say them (`Session.understood`).
        labels: the K interest labels.
        opinions_count: of the recommender.
        origins: says where the history's wishes come from; it is asked where a wish is told.
    """

    def __init__(
        self,
        history: Sequence[Event],
        catalogue: Catalogue,
        labels: Sequence[str],
        text: TextSettings,
        opinions_count: bool,
        origins: Callable[[Sequence[Event]], Origins | None],
    ) -> None:
        self.labels = labels
        self._origins = origins
        self._history, self._catalogue, self._text = history, catalogue, text
        self._opinions_count = opinions_count
        self._events: dict[tuple[str, int], int] = {}

    @cached_property
    def origins(self) -> Origins | None:
        """Where the history's wishes come from; None where nothing was asked for."""
        return self._origins(self._history)

    def name_of(self, item: int) -> str:
        """The id of an item."""
        return self._catalogue.items[item]

    @cached_property
    def label_names(self) -> list[str]:
        """Every label of the catalogue."""
        return self._catalogue.label_names

    @cached_property
    def _newest_first(self) -> list[int]:
        return positions_in_order(self._history, self._text.history_limit)[::-1]

    @cached_property
    def said(self) -> list[int]:
        """Positions in the history of the texts about no item, as `Origins` numbers them."""
        said = [n for n in self._newest_first if is_saying(self._history[n])]
        return said[:TEXTS][::-1]

    def event_of(self, term: str, item: int) -> int:
        """The act on an item that a term counts, by its position in the history: of `opinion` the
        newest that has one, of terms of what was liked the newest positive one, of others the
        newest that does not reject it. An idea of both kinds of terms names the positive one.
        Where the item was only named (`asked_kin`), it is the text that names it.
        """
        found = self._events.get((term, item))
        if found is None:
            found = self._events[term, item] = self._find(term, self._catalogue.items[item])
        return found

    def _find(self, term: str, item: str) -> int:
        visited = None
        for position in self._newest_first:
            event = self._history[position]
            if event.item != item:
                continue
            opinion = event.opinion(self._text.positive, self._text.negative)
            if term == "opinion":
                if opinion:
                    return position
                continue
            if event.positive(self._text.positive) and term not in _OF_SEEN:
                return position
            if term == "asked_kin":
                continue
            if visited is None and (opinion >= 0 or not self._opinions_count):
                visited = position
                if term in _OF_SEEN:
                    break
        if visited is not None:
            return visited
        assert self.origins is not None, "a term counts acts of the history, and titles it names"
        return self.said[self.origins.titles_by[self._catalogue.index[item]]]


def positions_in_order(history: Sequence[Event], limit: int) -> list[int]:
    """Positions in the question of the events that count as the history, oldest first."""
    position = dict(zip(map(id, history), range(len(history)), strict=True))
    return [position[id(event)] for event in in_order(history, limit)]


def reasons_of(
    ground: Ground,
    scores: TermScores,
    row: int,
    items: NDArray[np.int64],
    terms: Mapping[str, Numbers],
    detail: Detail = "for",
) -> list[tuple[Reason, ...]]:
    """The reasons of some items for one history, largest contribution first.

    Args:
        scores: the terms of histories, and the row of this one.
        items: [p] their positions; terms: [p] what each term contributes.
        detail: which ideas are taken apart into what the user did: those that speak "for" an item,
            also those "against" it, or "all".
    """
    # 1. terms by what they mean
    own: dict[str, dict[str, list[float]]] = {}
    for name, values in terms.items():
        # no -0.0
        own.setdefault(IDEA_OF_TERM[name].name, {})[name] = (values + 0.0).tolist()
    ideas = [idea for idea in IDEAS if idea.name in own]
    nets = [list(map(sum, zip(*own[idea.name].values(), strict=True))) for idea in ideas]

    # 2. which are taken apart, of which items
    apart: list[list[int]] = [[] for _ in ideas]
    for n, contributions in enumerate(zip(*nets, strict=True)):
        chosen = told(contributions, 1)
        if detail == "against":
            chosen += told(contributions, -1)
        if detail == "all":
            chosen = [at for at, value in enumerate(contributions) if abs(value) > LEAST]
        for place in chosen:
            apart[place].append(n)

    # 3. what they are made of
    found: list[list[Reason]] = [[] for _ in items]
    popularity, is_new = scores.recommender.everybody(items)
    is_known = bool(scores.folded.seen[row].any())
    for idea, net, columns in zip(ideas, nets, apart, strict=True):
        named: dict[int, tuple[tuple[Part, ...], int]] = {}
        if columns and idea is not POPULARITY:
            at = np.array(columns)
            is_heard = any(name in ASKED for name in own[idea.name])
            heard = ground.origins if is_heard else None
            parts = scores.explain(row, items[at], heard, own[idea.name].keys())
            if parts:
                sign = np.sign([net[n] for n in columns])
                made_of = _Decomposition(idea, ground, parts, is_known)
                named = dict(zip(columns, made_of.named(sign, is_new[at]), strict=True))
        numbers = own[idea.name]
        for n, contribution in enumerate(net):
            ways: tuple[str, ...] = ()
            if idea is POPULARITY:
                way = "more" if popularity[n] > 0 else "less"
                ways = (f"new {way}" if is_new[n] else way,)
            chosen_parts, more = named.get(n, ((), 0))
            of_item = {name: values[n] for name, values in numbers.items()}
            found[n].append(Reason(idea, contribution, of_item, chosen_parts, more, ways))
    for each in found:
        each.sort(key=_contribution, reverse=True)
    return [tuple(each) for each in found]


def _contribution(reason: Reason) -> float:
    return reason.contribution


class _Decomposition:
    """What one idea is made of, for p items.

    Args:
        parts: of its terms, as `TermScores.explain` returns them.
    """

    def __init__(
        self, idea: Idea, ground: Ground, parts: Mapping[str, TermParts], is_known: bool
    ) -> None:
        self._idea, self._ground, self._is_known = idea, ground, is_known
        self._parts = dict(parts)
        self._names: Sequence[str] = ground.labels
        self._of_term = {name: each.sources for name, each in parts.items()}
        if idea is TASTE:
            # interest has the labels of the model, taste those of the catalogue
            self._names = list(dict.fromkeys([*ground.labels, *ground.label_names]))
            place = {name: n for n, name in enumerate(self._names)}
            if "taste" in parts:
                of_catalogue = [place[name] for name in ground.label_names]
                self._of_term["taste"] = np.array(of_catalogue, np.int64)

        # each source once, and what it adds through all terms [s, p]
        self._sources = np.unique(np.concatenate(list(self._of_term.values())))
        count = next(iter(parts.values())).contributions.shape[1]
        self._total = np.zeros((len(self._sources), count))
        self._rows: list[list[tuple[str, int]]] = [[] for _ in self._sources]
        for name, each in parts.items():
            places = np.searchsorted(self._sources, self._of_term[name])
            if each.labels is None:  # a source has one row
                self._total[places] += each.contributions
            else:
                np.add.at(self._total, places, each.contributions)
            if idea is not COMPANY:
                for row, place_of_row in enumerate(places.tolist()):
                    self._rows[place_of_row].append((name, row))

    def named(
        self, sign: NDArray[Any], is_new: NDArray[np.bool_]
    ) -> list[tuple[tuple[Part, ...], int]]:
        """For each of p items the largest parts that speak as the idea does (`sign`), and how many
        more there are to tell.
        """
        if not len(self._sources):
            return [((), 0)] * len(sign)
        speaking = np.maximum(self._total * sign, 0)
        order = np.argsort(-speaking, axis=0, kind="stable")
        largest = speaking[order, np.arange(len(sign))]
        so_far = np.cumsum(largest, 0)
        counted = ((so_far - largest < TOLD_PARTS * so_far[-1]) & (largest > 0)).sum(0)
        found = []
        for n, most in enumerate(counted.tolist()):
            named = order[: min(NAMED, most), n].tolist()
            parts = tuple(self._part(source, n, bool(is_new[n])) for source in named)
            found.append((parts, most - len(parts)))
        return found

    def _part(self, place: int, n: int, is_new: bool) -> Part:
        """A source's part of the n-th item."""
        value, source = float(self._total[place, n]), int(self._sources[place])
        if self._idea is COMPANY:
            way = "for" if value > 0 else "against"
            way = f"new {way}" if is_new else way
            event = self._ground.event_of("", source)
            return Part(value, way, event, item=self._ground.name_of(source))

        # the row that says most of it says how
        sign = 1 if value > 0 else -1
        rows = sorted(
            (sign * float(self._parts[name].contributions[row, n]), name, row)
            for name, row in self._rows[place]
        )
        _, term, row = rows[-1]
        relation = self._parts[term].relation[row, n]
        if self._idea is ALIKE:
            event = self._ground.event_of(term, source)
            way = "like" if relation > 0 else "unlike"
            return Part(value, way, event, item=self._ground.name_of(source))
        if self._idea is TASTE:
            leans = self._parts[term].leaning[row] > -_EVEN
            who = ("often", "seldom") if self._is_known else ("expected", "unexpected")
            way = f"{who[0] if leans else who[1]} {'goes' if relation > 0 else 'lacks'}"
            return Part(value, way, None, (self._names[source],))

        # texts
        event = self._ground.said[source]
        if self._label(term, row) is not None:
            found = [self._label(name, at) for size, name, at in rows[::-1] if size > 0]
            labels = [label for label in found if label is not None]
            return Part(value, "label", event, tuple(labels[:_THROUGH]))
        if term == "asked_text":
            return Part(value, "near" if relation > 0 else "far", event)
        return Part(value, "title", event)

    def _label(self, term: str, row: int) -> str | None:
        """The label through which a text speaks in a row of a term."""
        labels = self._parts[term].labels
        return None if labels is None or labels[row] < 0 else self._names[int(labels[row])]
