"""What the users of training snapshots might have said, made up from what they went on to choose.

Behaviour data rarely has searches, so nothing in it teaches a model that the words "something
scary" say what comes next. In a share of the training snapshots (`training.speech_share`) words
are put into the history before its truth is learned:

- a wish: a label that the user went on to like, by name or by what people say who mean it;
- a title of an item that they went on to like, also half remembered or mistyped;
- words of its text, without names (`tasteloop.language.plots`), where it has one;
- a refusal of a label that they did not go on to like, or a preference of one to the other;
- a review: what they wrote of an item they had met, as favourable as their value for it.

Phrases are those of `training_phrases`, reviews those that sentiment is trained on. Snapshots of
the validation and the test window are never touched.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from tasteloop.behaviour.events import Event
from tasteloop.behaviour.items import Catalogue
from tasteloop.behaviour.text import TextSettings
from tasteloop.language.intents import spoken_in
from tasteloop.language.phrases import Phrases, search_for_title
from tasteloop.language.plots import FEWEST_WORDS, MOST_WORDS, Plots

_ACTS_BACK = 3  # a search stands before at most so many of the last acts, less one
_PREFERS = 0.3  # of the refusals name what is wanted instead
_REVIEWED = 8  # of the newest acts, one may be written about
_BY_NAME = 0.5  # of the wishes for a label that people also ask for without naming it


@dataclass(frozen=True)
class Chosen:
    """What a user went on to like.

    Attributes:
        items: positions in the catalogue; labels: what they are interested in, of the K labels.
    """

    items: Sequence[int]
    labels: Sequence[str]


class MadeUpSpeech:
    """Words for users of a catalogue with K labels.

    >>> catalogue = Catalogue(["1"], ["Heat"], [["Crime"]], [None])
    >>> speech = MadeUpSpeech(catalogue, ["Crime"], [], [], seed=0)
    >>> [event] = speech.spoken([], Chosen([0], ["Crime"]))
    >>> event.kind, "crime" in event.text or "Heat" in event.text
    ('search', True)
    """

    def __init__(
        self,
        catalogue: Catalogue,
        labels: Sequence[str],
        praise: Sequence[str],
        blame: Sequence[str],
        seed: int,
        text: TextSettings | None = None,
    ) -> None:
        self._text = text or TextSettings()
        self._catalogue, self._labels = catalogue, list(labels)
        self._praise, self._blame = praise, blame
        self._choices = random.Random(seed)
        self._languages = spoken_in(catalogue)
        self._plots = Plots(catalogue.titles, catalogue.texts)

    def spoken(self, history: Sequence[Event], chosen: Chosen) -> list[Event]:
        """The history with something said in it; as it was where nothing can be made up."""
        phrases = self._choices.choice(self._languages)
        ways = [self._wish, self._title, self._plot, self._refusal, self._reviewed]
        self._choices.shuffle(ways)
        for way in ways:
            said = way(phrases, chosen, history)
            if said is not None:
                return said
        return list(history)

    def _wish(
        self, phrases: Phrases, chosen: Chosen, history: Sequence[Event]
    ) -> list[Event] | None:
        if not chosen.labels:
            return None
        label = self._choices.choice(chosen.labels)
        subjects = phrases.subjects.get(label, ())
        by_name = not subjects or self._choices.random() < _BY_NAME
        said = phrases.label(label) if by_name else self._choices.choice(subjects)
        return self._searched(history, self._choices.choice(phrases.wishes).format(label=said))

    def _refusal(
        self, phrases: Phrases, chosen: Chosen, history: Sequence[Event]
    ) -> list[Event] | None:
        others = [label for label in self._labels if label not in chosen.labels]
        if not others:
            return None
        refused = phrases.label(self._choices.choice(others))
        if chosen.labels and self._choices.random() < _PREFERS:
            wanted = phrases.label(self._choices.choice(chosen.labels))
            template = self._choices.choice(phrases.contrasts)
            return self._searched(history, template.format(label=refused, other=wanted))
        template = self._choices.choice(phrases.refusals)
        return self._searched(history, template.format(label=refused))

    def _title(
        self, phrases: Phrases, chosen: Chosen, history: Sequence[Event]
    ) -> list[Event] | None:
        titles = [title for item in chosen.items if (title := self._catalogue.titles[item])]
        if not titles:
            return None
        title = self._choices.choice(titles)
        return self._searched(history, search_for_title(title, phrases, self._choices))

    def _plot(
        self, phrases: Phrases, chosen: Chosen, history: Sequence[Event]
    ) -> list[Event] | None:
        for item in self._choices.sample(chosen.items, len(chosen.items)):
            count = self._choices.randint(FEWEST_WORDS, MOST_WORDS)
            if plot := self._plots.rarest_words(item, count):
                return self._searched(
                    history, self._choices.choice(phrases.plots).format(plot=plot)
                )
        return None

    def _reviewed(
        self, phrases: Phrases, chosen: Chosen, history: Sequence[Event]
    ) -> list[Event] | None:
        """The history with words for one of its newest items that was liked, or disliked."""
        newest = range(len(history))[-_REVIEWED:]
        bounds = self._text.positive, self._text.negative
        felt = [n for n in newest if history[n].opinion(*bounds) and not history[n].text]
        if not felt:
            return None
        n = self._choices.choice(felt)
        texts = self._praise if history[n].opinion(*bounds) > 0 else self._blame
        if not texts:
            return None
        written = replace(history[n], text=self._choices.choice(texts))
        return [*history[:n], written, *history[n + 1 :]]

    def _searched(self, history: Sequence[Event], text: str) -> list[Event]:
        """The history with a search among its last acts."""
        at = max(len(history) - self._choices.randrange(_ACTS_BACK), 0)
        time = history[max(at - 1, 0)].time if history else None
        return [*history[:at], Event("search", time=time, text=text), *history[at:]]
