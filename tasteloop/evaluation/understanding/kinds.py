"""The kinds of questions: how cases of each are made, and when the answers pass.

A kind is declared once, in `KINDS` at the end. To add one, write a function that makes its cases
and one that judges the answers to a case, and add the declaration.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from tasteloop.answers import INTERESTS, RECOMMEND, SENTIMENT
from tasteloop.behaviour.events import Event
from tasteloop.evaluation.understanding.answers import CaseAnswers
from tasteloop.evaluation.understanding.cases import (
    Case,
    History,
    Material,
    after,
    searched,
    spread,
    then,
)
from tasteloop.language.phrases import Phrases, mistype
from tasteloop.language.plots import FEWEST_WORDS, MOST_WORDS

# How far an answer must move, or may. Probabilities are shown with two digits, and shares of the
# catalogue are means over the kin of an item.
RAISED = 0.05  # a probability: the least that a user sees as a change
SURE = 0.95  # from here on a probability need not rise further
AMONG_FIRST = 3  # labels, as a page shows them
MORE_ITEMS = 2  # of ten: one more of them comes about by any change of scores
HALF_OF_ITEMS = 5  # of ten: then so many bear the label that no more is asked
VISIBLE = 0.02  # a lower probability cannot be seen to fall
SAME = 0.01  # a probability: rounding, and the last digit of a quantised encoder
AGREE = 0.2  # of two paraphrases: beyond it one says "likely" and the other "perhaps"
NOISE = 0.1  # what case, order, emoji or a typing error may change
SAME_ITEMS = 7  # of ten that stay: as many as stay where one event of a long history is new
KIN = 0.005  # of the catalogue, on average over kin: 8 places of 1,682 films
ORDER = 0.001  # the same between two acts of which one says a little more


@dataclass(frozen=True)
class Judgement:
    """Whether an answer is right, and what it was, as the end of the case's sentence."""

    passed: bool
    seen: str


@dataclass(frozen=True)
class Kind:
    """One kind of question.

    Attributes:
        name: of its metric, `understanding.<name>`.
        question: what is asked, as a sentence for the page.
        asks: the served model that must be there.
        make: at most so many cases.
        judge: of the answers to a case; None where it cannot be judged, and does not count.
    """

    name: str
    question: str
    asks: str
    make: Callable[[Material, int], list[Case]]
    judge: Callable[[CaseAnswers], Judgement | None]


# --- wishes ---


def _sayings(material: Material, phrases: Phrases, label: str) -> list[tuple[str, str]]:
    """What says that a label is wanted, with the phrase that it was made of: by its name, and, as
    often, by what it is about.
    """
    named = [(template, template.format(label=phrases.label(label))) for template in phrases.wishes]
    meant = [(subject, subject) for subject in phrases.subjects.get(label, ())]
    repeats = max(1, len(named) // len(meant)) if meant else 0
    return named + repeats * meant


def _of_labels(
    material: Material, count: int, of: str, sayings: Callable[[Phrases, str], list[str]]
) -> Iterator[tuple[History, str, str, Phrases]]:
    """Histories, labels and what is said of them; each label, and each saying, equally often."""
    choices = material.random(of)
    spoken = [(label, each) for label in material.named_labels for each in material.phrases]
    turns: dict[tuple[str, str], Iterator[str]] = {}
    for history, (label, phrases) in spread(choices, count, material.histories, spoken):
        turn = turns.setdefault(
            (label, phrases.language), _in_turn(choices, sayings(phrases, label))
        )
        yield history, label, next(turn), phrases


def _in_turn(choices: random.Random, entries: Sequence[str]) -> Iterator[str]:
    """The entries in random order, again and again."""
    while True:
        yield from choices.sample(list(entries), len(entries))


def _wishes(material: Material, count: int) -> list[Case]:
    return _wishes_as("wish", material, count)


def _wishes_for_items(material: Material, count: int) -> list[Case]:
    return _wishes_as("wish_items", material, count)


def _wishes_as(kind: str, material: Material, count: int) -> list[Case]:
    def sayings(phrases: Phrases, label: str) -> list[str]:
        return [phrase for phrase, _ in _sayings(material, phrases, label)]

    cases = []
    for history, label, phrase, phrases in _of_labels(material, count, "wish", sayings):
        text = phrase.format(label=phrases.label(label))
        cases.append(_search_case(kind, history, text, phrase, phrases, label))
    return cases


def _search_case(
    kind: str,
    history: History,
    text: str,
    phrase: str,
    phrases: Phrases,
    label: str = "",
    item: int | None = None,
) -> Case:
    """A search about a label or an item, after a history; one phrase's cases are resampled
    together.
    """
    return Case(
        kind=kind,
        says=f'{after(history)}, the search "{text}"',
        unit=phrase,
        language=phrases.language,
        histories=(history, searched(history, text)),
        label=label,
        item=item,
    )


def _raises_label(answers: CaseAnswers) -> Judgement:
    before, now, place = answers.probability(0), answers.probability(1), answers.place(1)
    return Judgement(
        now >= min(before + RAISED, SURE) and place <= AMONG_FIRST,
        f"moves {answers.case.label} from {before:.2f} to {now:.2f}, to place {place}.",
    )


def _raises_items(answers: CaseAnswers) -> Judgement:
    before, now = answers.label_items(0), answers.label_items(1)
    return Judgement(
        now >= min(before + MORE_ITEMS, HALF_OF_ITEMS),
        f"gives {now} items of {answers.case.label} among the first ten, {before} before.",
    )


def _paraphrases(material: Material, count: int) -> list[Case]:
    choices = material.random("paraphrase")
    spoken = [(label, each) for label in material.named_labels for each in material.phrases]
    cases = []
    for history, (label, phrases) in spread(choices, count, material.histories, spoken):
        texts = sorted({text for _, text in _sayings(material, phrases, label)})
        one, other = choices.sample(texts, 2)
        cases.append(
            Case(
                kind="paraphrase",
                says=f'{after(history)}, the searches "{one}" and "{other}"',
                unit=label,
                language=phrases.language,
                histories=(history, searched(history, one), searched(history, other)),
                label=label,
            )
        )
    return cases


def _agree(answers: CaseAnswers) -> Judgement:
    before, one, other = (answers.probability(n) for n in range(3))
    raised = min(one, other) >= min(before + RAISED, SURE)
    return Judgement(
        raised and abs(one - other) <= AGREE,
        f"move {answers.case.label} from {before:.2f} to {one:.2f} and to {other:.2f}.",
    )


# --- refusals ---


def _refusals(kind: str) -> Callable[[Material, int], list[Case]]:
    """Cases of a kind that refuse a label; every fourth prefers another one."""

    def sayings(phrases: Phrases, label: str) -> list[str]:
        repeats = max(1, len(phrases.refusals) // (3 * len(phrases.contrasts)))
        return [*phrases.refusals, *repeats * phrases.contrasts]

    def make(material: Material, count: int) -> list[Case]:
        choices = material.random("other labels")
        cases = []
        for history, label, phrase, phrases in _of_labels(material, count, "refusal", sayings):
            others = [each for each in material.named_labels if each != label] or [label]
            other = phrases.label(choices.choice(others))
            text = phrase.format(label=phrases.label(label), other=other)
            cases.append(_search_case(kind, history, text, phrase, phrases, label))
        return cases

    return make


def _lowers_label(answers: CaseAnswers) -> Judgement | None:
    before, now = answers.probability(0), answers.probability(1)
    if before < VISIBLE:
        return None
    return Judgement(
        now <= max(before - RAISED, before / 2),
        f"moves {answers.case.label} from {before:.2f} to {now:.2f}.",
    )


def _has_no_items(answers: CaseAnswers) -> Judgement | None:
    before, now = answers.label_items(0), answers.label_items(1)
    if before == now == 0:
        return None
    return Judgement(
        now == 0,
        f"leaves {now} items of {answers.case.label} among the first ten, {before} before.",
    )


def _never_raises(answers: CaseAnswers) -> Judgement:
    before, now = answers.probability(0), answers.probability(1)
    items_before, items = answers.label_items(0), answers.label_items(1)
    return Judgement(
        now <= before + SAME and items <= items_before,
        f"moves {answers.case.label} from {before:.2f} to {now:.2f}, and its items among the first "
        f"ten from {items_before} to {items}.",
    )


# --- titles ---


def _titles(material: Material, count: int) -> list[Case]:
    choices = material.random("title")
    spoken = [(each, template) for each in material.phrases for template in each.titles]
    cases = []
    for history, item, (phrases, template) in spread(
        choices, count, material.histories, material.titled_items, spoken
    ):
        text = template.format(title=material.catalogue.titles[item])
        if not _knows(history, material, item):
            cases.append(_search_case("title", history, text, template, phrases, item=item))
    return cases


def _inexact_titles(material: Material, count: int) -> list[Case]:
    choices = material.random("title_inexact")
    spoken = [
        (each, template, way)
        for each in material.phrases
        for template in each.half_titles
        for way in ("half", "mistyped")
    ]
    cases = []
    for history, item, (phrases, template, way) in spread(
        choices, count, material.histories, material.titled_items, spoken
    ):
        title = material.catalogue.titles[item]
        part = material.half_title(item) if way == "half" else None
        text = template.format(title=part or mistype(title, choices))
        if not _knows(history, material, item):
            cases.append(_search_case("title_inexact", history, text, template, phrases, item=item))
    return cases


def _plots(material: Material, count: int) -> list[Case]:
    """Searches for what an item's text says: by its rarest words, or by its first clause."""
    choices = material.random("plot")
    spoken = [
        (each, template, way)
        for each in material.phrases
        for template in each.plots
        for way in ("words", "clause")
    ]
    cases = []
    for history, item, (phrases, template, way) in spread(
        choices, count, material.histories, material.plotted_items, spoken
    ):
        plots, length = material.plots, choices.randint(FEWEST_WORDS, MOST_WORDS)
        plot = plots.first_clause(item) if way == "clause" else plots.rarest_words(item, length)
        plot = plot or plots.rarest_words(item, FEWEST_WORDS)
        if plot and not _knows(history, material, item):
            text = template.format(plot=plot)
            cases.append(_search_case("plot", history, text, plot, phrases, item=item))
    return cases


def _knows(history: History, material: Material, item: int) -> bool:
    """Whether an item is in a history: it is not recommended again."""
    return any(event.item == material.catalogue.items[item] for event in history)


def _finds_item(answers: CaseAnswers) -> Judgement:
    items, item = answers.items(1), answers.case.item
    title = answers.answers.material.catalogue.titles[item if item is not None else 0]
    return Judgement(
        item in items,
        f'gives "{title}" at place {items.index(item) + 1}.'
        if item in items
        else f'does not give "{title}" among the first ten.',
    )


# --- what a user thinks of an item ---


def _opinions(
    kind: str, events: Callable[[Phrases], Sequence[tuple[str, str, Event]]]
) -> Callable[[Material, int], list[Case]]:
    """Cases of a kind in which something is done with an item.

    Args:
        events: what is done, of a language: its phrase, "" for an act without words; a clause in
            which `{title}` is the item's; the event without the item.
    """

    def make(material: Material, count: int) -> list[Case]:
        choices = material.random(kind)
        spoken = [(each, act) for each in material.review_phrases for act in events(each)]
        cases = []
        for history, item, (phrases, (phrase, clause, event)) in spread(
            choices, count, material.histories, material.telling_items, spoken
        ):
            if _knows(history, material, item):
                continue
            cases.append(
                Case(
                    kind=kind,
                    says=f"{after(history)}, {clause.format(title=_title(material, item))}",
                    unit=phrase or str(len(history)),
                    language=phrases.language if phrase else "",
                    histories=(history, then(history, _on(material, item, event))),
                    kin_of=item,
                )
            )
        return cases

    return make


def _on(material: Material, item: int, event: Event) -> Event:
    return Event(event.kind, material.catalogue.items[item], None, event.value, event.text)


def _title(material: Material, item: int) -> str:
    return material.catalogue.titles[item] or material.catalogue.items[item]


def _rated(value: float, word: str) -> Callable[[Phrases], list[tuple[str, str, Event]]]:
    act = ("", f'the {word} rating of "{{title}}"', Event("rate", value=value))
    return lambda phrases: [act]


def _loves(phrases: Phrases) -> list[tuple[str, str, Event]]:
    return _reviewed(phrases.loves)


def _hates(phrases: Phrases) -> list[tuple[str, str, Event]]:
    return _reviewed(phrases.hates)


def _reviewed(texts: Sequence[str]) -> list[tuple[str, str, Event]]:
    """Reviews in words alone, without a value."""
    return [
        (text, f'the review "{text}" of "{{title}}"', Event("review", text=text)) for text in texts
    ]


REJECTIONS = ("skip", "hide", "dislike")


def _rejections(phrases: Phrases) -> list[tuple[str, str, Event]]:
    return [("", f'the {kind} of "{{title}}"', Event(kind)) for kind in REJECTIONS]


def _raises_kin(answers: CaseAnswers) -> Judgement:
    before, now = answers.standing(0), answers.standing(1)
    return Judgement(now >= before + KIN, _moved_kin(before, now))


def _lowers_kin(answers: CaseAnswers) -> Judgement:
    before, now = answers.standing(0), answers.standing(1)
    return Judgement(now <= before - KIN, _moved_kin(before, now))


def _moved_kin(before: float, now: float) -> str:
    return f"moves its kin from above {before:.1%} to above {now:.1%} of all items, on average."


STRONGER = (
    ("view", "click"),
    ("click", "save"),
    ("save", "share"),
    ("save", "purchase"),
    ("click", "review"),
)
"""Two acts, of which the second says more; the review loves in words alone."""


def _strengths(material: Material, count: int) -> list[Case]:
    choices = material.random("strength")
    spoken = [
        (each, weak, strong, love)
        for each in material.review_phrases
        for weak, strong in STRONGER
        for love in each.loves
    ]
    cases = []
    for history, item, (phrases, weak, strong, love) in spread(
        choices, count, material.histories, material.telling_items, spoken
    ):
        if _knows(history, material, item):
            continue
        act = Event(strong, text=love if strong == "review" else None)
        what = f'the review "{love}"' if strong == "review" else f"a {strong}"
        title = _title(material, item)
        cases.append(
            Case(
                kind="strength",
                says=f'{after(history)}, a {weak} of "{title}", beside {what},',
                unit=f"{weak} {strong} {len(history)}",
                language=phrases.language if strong == "review" else "",
                histories=tuple(
                    then(history, _on(material, item, event)) for event in (Event(weak), act)
                ),
                kin_of=item,
            )
        )
    return cases


def _orders(answers: CaseAnswers) -> Judgement:
    weak, strong = answers.standing(0), answers.standing(1)
    return Judgement(
        strong >= weak + ORDER,
        f"puts the kin above {weak:.1%} of all items, and the other act above {strong:.1%}.",
    )


# --- what changes little ---


def _errands(material: Material, count: int) -> list[Case]:
    choices = material.random("no_taste")
    spoken = [(each, errand) for each in material.phrases for errand in each.errands]
    return [
        Case(
            kind="no_taste",
            says=f'{after(history)}, the search "{errand}"',
            unit=errand,
            language=phrases.language,
            histories=(history, searched(history, errand)),
        )
        for history, (phrases, errand) in spread(choices, count, material.histories, spoken)
    ]


def _stays(answers: CaseAnswers) -> Judgement:
    return _moves_little(answers, RAISED)


def _noises(material: Material, count: int) -> list[Case]:
    """The same search with and without noise, or the same history in another order."""
    choices = material.random("noise")

    def sayings(phrases: Phrases, label: str) -> list[str]:
        return [phrase for phrase, _ in _sayings(material, phrases, label)]

    noises = _in_turn(choices, list(NOISES))
    cases = []
    for history, label, phrase, phrases in _of_labels(material, count, "noise", sayings):
        noise = next(noises)
        text = phrase.format(label=phrases.label(label))
        noisy = NOISES[noise](text, choices)
        past = history
        if noise == "order":
            past = _exchanged(history, choices)
        cases.append(
            Case(
                kind="noise",
                says=f'{after(history)}, the search "{text}", beside "{noisy}"'
                + (" after two events in another order," if noise == "order" else ","),
                unit=f"{noise} {phrase}",
                language=phrases.language,
                histories=(searched(history, text), searched(past, noisy)),
            )
        )
    return cases


NOISES: dict[str, Callable[[str, random.Random], str]] = {
    "case": lambda text, choices: text.upper(),
    "emoji": lambda text, choices: f"{text} {choices.choice('🙏😊🍿')}",
    "punctuation": lambda text, choices: f"{text} !!!",
    "typing error": mistype,
    "order": lambda text, choices: text,
}
"""By name: what is done to a search."""


def _exchanged(history: History, choices: random.Random) -> History:
    """Two neighbouring events in exchanged order, each at the other's time."""
    if len(history) < 2:
        return history
    at = choices.randrange(len(history) - 1)
    one, other = history[at], history[at + 1]
    exchanged = (
        Event(other.kind, other.item, one.time, other.value, other.text),
        Event(one.kind, one.item, other.time, one.value, one.text),
    )
    return (*history[:at], *exchanged, *history[at + 2 :])


def _differs_little(answers: CaseAnswers) -> Judgement:
    return _moves_little(answers, NOISE)


def _moves_little(answers: CaseAnswers, allowed: float) -> Judgement:
    shift, label = answers.shift(0, 1)
    shared = len(set(answers.items(0)) & set(answers.items(1)))
    most = min(len(answers.items(0)), len(answers.items(1)))
    moved = f"moves {label} by {shift:.2f} and " if label else ""
    return Judgement(
        shift <= allowed and shared >= min(SAME_ITEMS, most),
        f"{moved}leaves {shared} of the first {most} items.",
    )


# --- languages, and statements ---


def _foreign_wishes(material: Material, count: int) -> list[Case]:
    choices = material.random("foreign")
    spoken = [
        (label, each, template)
        for label in material.named_labels
        for each in material.foreign_phrases
        if label in each.names or each.language == "en"
        for template in each.wishes
    ]
    cases = []
    for history, (label, phrases, template) in spread(choices, count, material.histories, spoken):
        text = template.format(label=phrases.label(label))
        cases.append(
            Case(
                kind="foreign",
                says=f'{after(history)}, the search "{text}"',
                unit=template,
                language=phrases.language,
                histories=(history, searched(history, text)),
                label=label,
            )
        )
    return cases


def _claims_nothing(answers: CaseAnswers) -> Judgement:
    new = [label for label in answers.newly_sure(0, 1) if label != answers.case.label]
    return Judgement(not new, f"makes the model sure of {', '.join(new) or 'nothing else'}.")


def _statements(kind: str, foreign: bool) -> Callable[[Material, int], list[Case]]:
    """Cases of a kind that are statements, each at most once, as many favourable as not."""

    def make(material: Material, count: int) -> list[Case]:
        choices = material.random("statement")
        spoken = material.foreign_review_phrases if foreign else material.review_phrases
        each = max(1, count // (2 * max(len(spoken), 1)))
        return [
            Case(
                kind=kind,
                says=f'The statement "{text}"',
                unit=text,
                language=phrases.language,
                text=text,
                favourable=favourable,
            )
            for phrases in spoken
            for texts, favourable in ((phrases.praise, True), (phrases.blame, False))
            for text in choices.sample(texts, min(each, len(texts)))
        ]

    return make


def _is_right(answers: CaseAnswers) -> Judgement:
    return Judgement(
        answers.favourable == answers.case.favourable,
        f"is called {_favour(answers.favourable)}, and is {_favour(answers.case.favourable)}.",
    )


def _is_surely_right(answers: CaseAnswers) -> Judgement | None:
    if not answers.is_sure:
        return None
    return Judgement(
        answers.favourable == answers.case.favourable,
        f"is surely called {_favour(answers.favourable)}, and is "
        f"{_favour(answers.case.favourable)}.",
    )


def _is_not_surely_wrong(answers: CaseAnswers) -> Judgement:
    wrong = answers.favourable != answers.case.favourable
    return Judgement(
        not (answers.is_sure and wrong),
        f"is surely called {_favour(answers.favourable)}, in a language that the reviews are not "
        f"in; it is {_favour(answers.case.favourable)}.",
    )


def _favour(favourable: bool) -> str:
    return "positive" if favourable else "negative"


KINDS = (
    Kind(
        "wish",
        f"A search raises the label that it is about by {RAISED:.2f}, to the first {AMONG_FIRST}.",
        INTERESTS,
        _wishes,
        _raises_label,
    ),
    Kind(
        "wish_items",
        f"A search brings {MORE_ITEMS} more items of its label among the first ten, or "
        f"{HALF_OF_ITEMS} of them.",
        RECOMMEND,
        _wishes_for_items,
        _raises_items,
    ),
    Kind(
        "paraphrase",
        f"Two ways to say one wish both raise its label by {RAISED:.2f}, and end within "
        f"{AGREE:.2f} of each other.",
        INTERESTS,
        _paraphrases,
        _agree,
    ),
    Kind(
        "refusal",
        f"A refusal lowers the label by {RAISED:.2f}, or to half.",
        INTERESTS,
        _refusals("refusal"),
        _lowers_label,
    ),
    Kind(
        "refusal_items",
        "After a refusal none of the first ten items bears the label.",
        RECOMMEND,
        _refusals("refusal_items"),
        _has_no_items,
    ),
    Kind(
        "refusal_never_raises",
        f"A refusal never raises the label by more than {SAME:.2f}, nor the number of its items.",
        INTERESTS,
        _refusals("refusal_never_raises"),
        _never_raises,
    ),
    Kind(
        "title",
        "A title that is searched for is among the first ten items.",
        RECOMMEND,
        _titles,
        _finds_item,
    ),
    Kind(
        "title_inexact",
        "A title that is half remembered or mistyped is among the first ten items.",
        RECOMMEND,
        _inexact_titles,
        _finds_item,
    ),
    Kind(
        "plot",
        f"An item of whose text {FEWEST_WORDS} to {MOST_WORDS} words or the first clause are "
        "searched for, no name among them, is among the first ten items.",
        RECOMMEND,
        _plots,
        _finds_item,
    ),
    Kind(
        "loved",
        f"The highest rating of an item raises its kin by {KIN:.1%} of the catalogue.",
        RECOMMEND,
        _opinions("loved", _rated(1.0, "highest")),
        _raises_kin,
    ),
    Kind(
        "hated",
        f"The lowest rating of an item lowers its kin by {KIN:.1%} of the catalogue.",
        RECOMMEND,
        _opinions("hated", _rated(0.0, "lowest")),
        _lowers_kin,
    ),
    Kind(
        "loved_in_words",
        f"A review that loves, in words alone, raises the item's kin by {KIN:.1%}.",
        RECOMMEND,
        _opinions("loved_in_words", _loves),
        _raises_kin,
    ),
    Kind(
        "hated_in_words",
        f"A review that hates, in words alone, lowers the item's kin by {KIN:.1%}.",
        RECOMMEND,
        _opinions("hated_in_words", _hates),
        _lowers_kin,
    ),
    Kind(
        "strength",
        "A stronger act raises kin further: view, click, save, share or purchase; a review that "
        f"loves, beside a click. By {ORDER:.1%} of the catalogue.",
        RECOMMEND,
        _strengths,
        _orders,
    ),
    Kind(
        "rejection",
        f"What is skipped, hidden or disliked lowers its kin by {KIN:.1%} of the catalogue.",
        RECOMMEND,
        _opinions("rejection", _rejections),
        _lowers_kin,
    ),
    Kind(
        "no_taste",
        f"What is no taste moves no label by more than {RAISED:.2f}, and leaves {SAME_ITEMS} of "
        "the first ten items.",
        RECOMMEND,
        _errands,
        _stays,
    ),
    Kind(
        "noise",
        f"Case, order, emoji and typing errors move no label by more than {NOISE:.2f}, and leave "
        f"{SAME_ITEMS} of the first ten items.",
        RECOMMEND,
        _noises,
        _differs_little,
    ),
    Kind(
        "foreign",
        "A search in a language that the catalogue is not in makes the model sure of no other "
        "label than the one that is meant.",
        INTERESTS,
        _foreign_wishes,
        _claims_nothing,
    ),
    Kind(
        "statement",
        "A short statement is read as favourable or not, negation included.",
        SENTIMENT,
        _statements("statement", foreign=False),
        _is_right,
    ),
    Kind(
        "statement_sure",
        "Of the short statements that the model is sure of, those that it reads rightly.",
        SENTIMENT,
        _statements("statement_sure", foreign=False),
        _is_surely_right,
    ),
    Kind(
        "foreign_statement",
        "A statement in a language that the reviews are not in is not surely read wrongly.",
        SENTIMENT,
        _statements("foreign_statement", foreign=True),
        _is_not_surely_wrong,
    ),
)
"""Every kind, in the order of the page."""
