"""A history as the text that BERT reads: one function for training and for serving.

    mostly drama 50, comedy 25 of 12 events; liked Fargo, crime drama thriller; Heat, action crime; disliked Twister, …

First what the whole history is about, then the acts, newest first: where the token budget ends, the oldest are lost.
The verb is said when it changes, so that a run of the same acts costs no tokens.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from operator import attrgetter

from pydantic import BaseModel, Field

from tasteloop.events import Event
from tasteloop.items import Catalogue

_VERBS = {
    "view": "viewed",
    "search": "searched",
    "click": "clicked",
    "rate": "rated",
    "review": "reviewed",
    "share": "shared",
    "purchase": "bought",
}
_OPINIONS = ("rate", "review")
_QUOTED_WORDS, _QUOTED_CHARACTERS = 12, 72  # of a review or a query; not every script puts spaces between words


class TextSettings(BaseModel, frozen=True, extra="forbid"):
    """How a history becomes text."""

    max_tokens: int = Field(96, ge=8, le=512, description="Token budget of one history, special tokens included.")
    max_events: int = Field(32, ge=1, description="Acts told one by one; more never fit the budget.")
    summary_labels: int = Field(8, ge=0, description="Labels named in the opening summary.")
    history_limit: int = Field(200, ge=1, description="Newest events that count as the history at all.")
    positive: float = Field(0.7, ge=0, le=1, description="Value from which a rating is a like.")
    negative: float = Field(0.4, ge=0, le=1, description="Value below which a rating is a dislike.")


def in_order(history: Sequence[Event], limit: int) -> list[Event]:
    """The newest `limit` events, oldest first. Where an event has no time, the given order is trusted."""
    events = list(history)
    if all(event.time is not None for event in events):
        events.sort(key=attrgetter("time"))
    return events[-limit:]


def behaviour_text(history: Sequence[Event], catalogue: Catalogue, settings: TextSettings) -> str:
    """The text of a history.

    Args:
        history: one user's events; `in_order` decides their order.
        catalogue: titles and labels; an item that it does not know is told by its id.
        settings: token and event budgets.

    Returns:
        One line of plain text; for an empty history the words "no history".
    """
    events = in_order(history, settings.history_limit)
    if not events:
        return "no history"
    parts = [_summary(events, catalogue, settings)]
    last = ""
    for event in reversed(events[-settings.max_events :]):
        verb, told = _verb(event, settings), _told(event, catalogue)
        parts.append(told if verb == last else f"{verb} {told}")
        last = verb
    return "; ".join(part for part in parts if part)


def _summary(events: list[Event], catalogue: Catalogue, settings: TextSettings) -> str:
    """Shares of labels among the liked events, in percent."""
    liked = [e for e in events if e.positive(settings.positive) and e.item in catalogue.index]
    counts = Counter(label for e in liked for label in _labels(e, catalogue))
    top = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))[: settings.summary_labels]
    if not top:
        return ""
    shares = ", ".join(f"{label.lower()} {round(100 * n / len(liked))}" for label, n in top)
    return f"mostly {shares} of {len(events)} events"


def _labels(event: Event, catalogue: Catalogue) -> list[str]:
    position = catalogue.index.get(event.item or "")
    return [] if position is None else catalogue.labels[position]


def _verb(event: Event, settings: TextSettings) -> str:
    if event.kind in _OPINIONS and event.value is not None:
        if event.positive(settings.positive):
            return "liked"
        return "disliked" if event.value < settings.negative else "tried"
    return _VERBS[event.kind]


def _told(event: Event, catalogue: Catalogue) -> str:
    words = []
    if event.item is not None:
        position = catalogue.index.get(event.item)
        words.append(event.item if position is None else catalogue.titles[position])
        if labels := _labels(event, catalogue):
            words.append(" ".join(label.lower() for label in labels))
    if event.text:
        words.append('"' + " ".join(event.text.split()[:_QUOTED_WORDS])[:_QUOTED_CHARACTERS] + '"')
    return ", ".join(words) or "something"
