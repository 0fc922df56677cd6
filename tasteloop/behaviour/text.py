"""A history as the text that BERT reads: one function for training and for serving.

    mostly drama 50, comedy 25 of 12 events; liked Fargo, crime drama thriller; Heat, action crime;
    disliked Twister, …

First what the whole history is about, then the acts, newest first: where the token budget ends, the
oldest are lost. The verb is said when it changes, so that a run of the same acts costs no tokens.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import chain
from operator import attrgetter

from pydantic import BaseModel, Field

from tasteloop.behaviour.events import Event
from tasteloop.behaviour.items import Catalogue
from tasteloop.behaviour.kinds import KINDS, words_that_are_no_acts

# of a review or a query; not every script puts spaces between words
_QUOTED_WORDS, _QUOTED_CHARACTERS = 12, 72
_NO_ACTS = frozenset(words_that_are_no_acts())


class TextSettings(BaseModel, frozen=True, extra="forbid"):
    """How a history becomes text."""

    max_tokens: int = Field(
        96, ge=8, le=512, description="Token budget of one history, special tokens included."
    )
    max_events: int = Field(
        32, ge=1, description="Acts told one by one; more never fit the budget."
    )
    summary_labels: int = Field(8, ge=0, description="Labels named in the opening summary.")
    history_limit: int = Field(
        200, ge=1, description="Newest events that count as the history at all."
    )
    positive: float = Field(0.7, ge=0, le=1, description="Value from which a rating is a like.")
    negative: float = Field(0.4, ge=0, le=1, description="Value below which a rating is a dislike.")


def in_order(history: Sequence[Event], limit: int) -> list[Event]:
    """The newest `limit` acts, oldest first. Where an event has no time, the given order is
    trusted. What was merely shown is no act.
    """
    events = [event for event in history if event.kind not in _NO_ACTS]
    if all(event.time is not None for event in events):
        events.sort(key=attrgetter("time"))
    return events[-limit:]


def behaviour_text(history: Sequence[Event], catalogue: Catalogue, settings: TextSettings) -> str:
    """The text of a history.

    Args:
        history: one user's events; `in_order` decides their order.
        catalogue: titles and labels; an item that it does not know appears with its id.
        settings: token and event budgets.

    Returns:
        One line of plain text; for an empty history the words "no history".
    """
    events = in_order(history, settings.history_limit)
    recent = events[-settings.max_events :]
    verbs = [_verb(event, settings) for event in recent]
    subjects = [_subject(event, catalogue) for event in recent]
    return _compose(
        [_liked_labels(event, catalogue, settings) for event in events], verbs, subjects, settings
    )


class TextsOfEvents:
    """`behaviour_text` of many histories that are slices of one list of events. What an event adds
    to a text is computed once.
    """

    def __init__(
        self, events: Sequence[Event], catalogue: Catalogue, settings: TextSettings
    ) -> None:
        self._settings = settings
        self._liked = [_liked_labels(event, catalogue, settings) for event in events]
        self._verbs = [_verb(event, settings) for event in events]
        subjects: dict[tuple[str | None, str | None], str] = {}
        self._subjects: list[str] = []
        for event in events:
            key = event.item, event.text
            if key not in subjects:
                subjects[key] = _subject(event, catalogue)
            self._subjects.append(subjects[key])

    def text(self, begin: int, end: int) -> str:
        """The text of the events [begin, end): one user's, in order, at most `history_limit`."""
        recent = slice(max(begin, end - self._settings.max_events), end)
        return _compose(
            self._liked[begin:end], self._verbs[recent], self._subjects[recent], self._settings
        )


def _compose(
    liked: Sequence[Sequence[str] | None],
    verbs: Sequence[str],
    subjects: Sequence[str],
    settings: TextSettings,
) -> str:
    """The text of a history.

    Args:
        liked: the labels of each event's item; None where the event is no like.
        verbs, subjects: what was done with what, of the newest events, the oldest of them first.
    """
    if not liked:
        return "no history"
    parts = [_summary(liked, settings)]
    last = ""
    for verb, what in zip(reversed(verbs), reversed(subjects), strict=True):
        parts.append(what if verb == last else f"{verb} {what}")
        last = verb
    return "; ".join(filter(None, parts))


def _summary(liked: Sequence[Sequence[str] | None], settings: TextSettings) -> str:
    """Shares of labels among the liked events, in percent."""
    likes = [labels for labels in liked if labels is not None]
    counts = Counter(chain.from_iterable(likes))
    top = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))[: settings.summary_labels]
    if not top:
        return ""
    shares = ", ".join(f"{label.lower()} {round(100 * n / len(likes))}" for label, n in top)
    return f"mostly {shares} of {len(liked)} events"


def _liked_labels(event: Event, catalogue: Catalogue, settings: TextSettings) -> list[str] | None:
    """The labels of the event's item; None where the item is unknown or not liked."""
    is_like = event.item in catalogue.index and event.positive(settings.positive)
    return _labels(event, catalogue) if is_like else None


def _labels(event: Event, catalogue: Catalogue) -> list[str]:
    position = catalogue.index.get(event.item or "")
    return [] if position is None else catalogue.labels[position]


def _verb(event: Event, settings: TextSettings) -> str:
    kind, grade = KINDS[event.kind], _grade(event, settings)
    return kind.verb if kind.graded_verbs is None or grade is None else kind.graded_verbs[grade]


def told_act(event: Event, settings: TextSettings, language: str) -> str:
    """What a user is told that they did, with {} for the item's title or the words.

    >>> told_act(Event("rate", "50", value=1.0), TextSettings(), "en")
    'liked {}'
    >>> told_act(Event("cart", "50"), TextSettings(), "zh")
    '把{}放进了购物车'
    """
    kind = KINDS[event.kind]
    grade = _grade(event, settings)
    if language == "zh":
        return kind.said_zh if kind.graded_zh is None or grade is None else kind.graded_zh[grade]
    if kind.graded_verbs is not None and grade is not None:
        return kind.graded_verbs[grade] + " {}"
    return kind.said or kind.verb + " {}"


def _grade(event: Event, settings: TextSettings) -> int | None:
    """Which of a kind's three graded verbs is meant: 0 high, 1 middling, 2 low; None without a
    value.
    """
    if event.value is None:
        return None
    if event.positive(settings.positive):
        return 0
    return 2 if event.value < settings.negative else 1


def _subject(event: Event, catalogue: Catalogue) -> str:
    words = []
    if event.item is not None:
        position = catalogue.index.get(event.item)
        words.append(event.item if position is None else catalogue.titles[position])
        if labels := _labels(event, catalogue):
            words.append(" ".join(label.lower() for label in labels))
    if event.text:
        words.append('"' + " ".join(event.text.split()[:_QUOTED_WORDS])[:_QUOTED_CHARACTERS] + '"')
    return ", ".join(words) or "something"
