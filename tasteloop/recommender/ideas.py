"""What the terms of a score mean to a person, and the words in which each meaning is told.

Several terms can be one idea: `nearby` and `nearby_whole` each say a lot and take most of it back,
and what is left is that people who chose one thing chose the other. An idea is told by its net, the
sum of its terms, so that terms that cancel are told as the one thing they mean (ADR 0016).
`tasteloop.recommender.recommend` names the idea of every term, and an idea without words in every
language cannot be declared.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from string import Formatter
from typing import Literal

from tasteloop.answers import LANGUAGES
from tasteloop.errors import TasteloopError

Parts = Literal["acts", "words", "labels", "everybody"]
Words = Mapping[str, str]
"""A sentence's clause by language."""

# What each kind of parts has to say in every clause, so that none is told without its reason.
_NEEDED: dict[Parts, tuple[str, ...]] = {
    "acts": ("titles",),
    "words": ("said",),
    "labels": ("labels",),
    "everybody": (),
}
_ALTERNATIVE = {"titles": "acts"}  # the acts with their verbs name the titles too


@dataclass(frozen=True)
class Idea:
    """What one or several terms mean.

    Attributes:
        name: what answers call it (`kind` of a reason).
        parts: what it is made of: acts on items, words that the user wrote, labels, or everybody,
            which is no act of the user.
        clauses: by the way in which parts speak (`runtime.reasons` says which is which), a clause
            in each language. In braces stand {acts} ("liked “Alien”"), {titles}, {done} ("liked",
            in Chinese with what it was done to), {those} (it or these), {said} ("searched for
            “space opera”") and {labels}.

    Raises:
        TasteloopError: a clause lacks a language, or what its parts have to name.
    """

    name: str
    parts: Parts
    clauses: Mapping[str, Words]

    def __post_init__(self) -> None:
        if not self.clauses:
            raise TasteloopError(f"the idea {self.name!r} has no words: give it clauses")
        for way, words in self.clauses.items():
            for language in LANGUAGES:
                if not words.get(language):
                    raise TasteloopError(
                        f"the idea {self.name!r} has no words for {way!r} in {language!r}"
                    )
                fields = {field for _, field, _, _ in Formatter().parse(words[language]) if field}
                for name in _NEEDED[self.parts]:
                    if not fields & {name, _ALTERNATIVE.get(name, name)}:
                        raise TasteloopError(
                            f"the idea {self.name!r} does not say {{{name}}} for {way!r} in {language!r}"
                        )


ASKED_FOR = Idea(
    "asked",
    "words",
    {
        "label": {
            "en": "you {said}, and it is {labels}",
            "zh": "你{said}，而它属于{labels}",
        },
        "title": {
            "en": "you {said}, which sounds like its title",
            "zh": "你{said}，这与它的名字相符",
        },
        "near": {
            "en": "you {said}, and its description comes close to that",
            "zh": "你{said}，而它的介绍与此接近",
        },
        "far": {
            "en": "you {said}, and its description is far from that",
            "zh": "你{said}，而它的介绍与此相去甚远",
        },
    },
)
"""What the user asked for in words."""

REFUSED = Idea(
    "refused",
    "words",
    {
        "label": {
            "en": "it is {labels}, which you may have turned down when you {said}",
            "zh": "它属于{labels}，而你{said}，这可能是在拒绝它",
        },
        "title": {
            "en": "you {said}, which turns down its title",
            "zh": "你{said}，这是在拒绝它",
        },
    },
)
"""What the user refused in words; it never speaks for an item."""

COMPANY = Idea(
    "company",
    "acts",
    {
        "for": {
            "en": "you {acts}, and people who chose {those} also chose this",
            "zh": "你{acts}，而选择过{those}的人也选择了这一个",
        },
        "against": {
            "en": "you {acts}, and people who chose {those} rather chose other things",
            "zh": "你{acts}，而选择过{those}的人多半选择了别的",
        },
        "new for": {
            "en": "you {acts}, and people who chose {those} chose things described like this new one",
            "zh": "你{acts}，而选择过{those}的人也选择了与这个新内容相近的",
        },
        "new against": {
            "en": "you {acts}, and people who chose {those} rather chose things unlike this new one",
            "zh": "你{acts}，而选择过{those}的人多半选择了与这个新内容不同的",
        },
    },
)
"""What other people chose who chose what the user did: everything that is learned from who chose
what together."""

ALIKE = Idea(
    "alike",
    "acts",
    {
        "like": {
            "en": "it is like {titles}, which you {done}",
            "zh": "它与{titles}相似，而你{done}",
        },
        "unlike": {
            "en": "it is unlike {titles}, which you {done}",
            "zh": "它与{titles}不同，而你{done}",
        },
    },
)
"""How like the item is, by labels and description, to what the user acted on and judged."""

TASTE = Idea(
    "taste",
    "labels",
    {
        "often goes": {
            "en": "it goes with {labels}, which you lean towards",
            "zh": "它与你偏爱的{labels}相合",
        },
        "seldom lacks": {
            "en": "it has little to do with {labels}, which you seldom choose",
            "zh": "它与你很少选择的{labels}关系不大",
        },
        "often lacks": {
            "en": "it has little to do with {labels}, which you lean towards",
            "zh": "它与你偏爱的{labels}关系不大",
        },
        "seldom goes": {
            "en": "it goes with {labels}, which you seldom choose",
            "zh": "它与你很少选择的{labels}相合",
        },
        "expected goes": {
            "en": "it goes with {labels}, which we expect of you before we know your choices",
            "zh": "它与{labels}相合，在了解你的选择之前，这是我们对你的预期",
        },
        "expected lacks": {
            "en": "it has little to do with {labels}, which we expect of you before we know your choices",
            "zh": "它与{labels}关系不大，在了解你的选择之前，这是我们对你的预期",
        },
        "unexpected goes": {
            "en": "it goes with {labels}, which we do not expect of you before we know your choices",
            "zh": "它与{labels}相合，在了解你的选择之前，我们没有预期你会选它",
        },
        "unexpected lacks": {
            "en": "it has little to do with {labels}, which we do not expect of you before we know your choices",
            "zh": "它与{labels}关系不大，在了解你的选择之前，我们没有预期你会选它",
        },
    },
)
"""Which labels the user goes for, by their counts and by what the encoder reads."""

POPULARITY = Idea(
    "popularity",
    "everybody",
    {
        "more": {
            "en": "it is more popular than average at the moment",
            "zh": "它目前比一般内容更受欢迎",
        },
        "less": {
            "en": "it is less known than average at the moment",
            "zh": "它目前不如一般内容为人所知",
        },
        "new more": {
            "en": "it is new, and things described like it are more popular than average",
            "zh": "它是新内容，与它相近的内容比一般更受欢迎",
        },
        "new less": {
            "en": "it is new, and things described like it are less known than average",
            "zh": "它是新内容，与它相近的内容不如一般为人所知",
        },
    },
)
"""What everybody chose lately, whoever the user is."""

IDEAS = (ASKED_FOR, COMPANY, ALIKE, TASTE, POPULARITY, REFUSED)
"""Every idea, in the order in which equals are told."""

MORE: dict[Parts, Mapping[str, tuple[str, str]]] = {
    "acts": {
        "en": (
            ", and {n} more of your choices says so too",
            ", and {n} more of your choices say so too",
        ),
        "zh": ("，你的另外{n}个选择也这样表明", "，你的另外{n}个选择也这样表明"),
    },
    "words": {
        "en": (
            ", and {n} more of your searches says so too",
            ", and {n} more of your searches say so too",
        ),
        "zh": ("，你的另外{n}次搜索也这样表明", "，你的另外{n}次搜索也这样表明"),
    },
    "labels": {
        "en": (", and {n} more label says so too", ", and {n} more labels say so too"),
        "zh": ("，另外{n}个标签也这样表明", "，另外{n}个标签也这样表明"),
    },
}
"""What a clause ends with where one part more, or several, speak than it names."""

FRAMES: dict[str, Words] = {
    "for": {"en": "Because {clauses}.", "zh": "因为{clauses}。"},
    "against": {"en": "Against it: {clauses}.", "zh": "不利之处：{clauses}。"},
    "nothing for": {
        "en": "Hardly anything that we know speaks for it; it is the best of what is left.",
        "zh": "几乎没有什么特别支持它；它只是剩下内容中最好的。",
    },
    "nothing against": {
        "en": "Hardly anything speaks against it.",
        "zh": "几乎没有什么不利于它。",
    },
}
"""The sentence around the clauses: what speaks for an item, and what against."""


@dataclass(frozen=True)
class Joints:
    """What stands between clauses, names and acts, and before the last of each."""

    clause: str
    last_clause: str
    name: str
    last_name: str
    act: str
    last_act: str


JOINTS = {
    "en": Joints("; ", "; and ", ", ", " and ", ", ", " and "),
    "zh": Joints("；", "；", "、", "和", "，", "，还"),
}
"""By language how words stand in a row."""

NAMED: Words = {"en": "asked for {}", "zh": "提到了{}"}
"""What a user did to a title that they named in a text."""

THOSE: dict[str, tuple[str, str]] = {"en": ("it", "these"), "zh": ("它", "它们")}
"""By language what refers back to one title, and to several."""
