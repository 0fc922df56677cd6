"""What people say, in lists of our own writing, apart from what asks with them.

There are two sets of lists. `testing_phrases` asks a model what it understands; `training_phrases`
is for whoever trains one. A test holds that no phrase stands in both, so that a model is never
asked what it has learned by heart. A phrase is added to one list of one of the two files, and
nowhere else.
"""

from __future__ import annotations

import random
import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields

ENGLISH, CHINESE = "en", "zh"
LANGUAGES = (ENGLISH, CHINESE)

# What the labels of films are called in Chinese; a name is no phrase, so both purposes share it.
CHINESE_FILM_LABELS = {
    "Action": "动作片",
    "Adventure": "冒险片",
    "Animation": "动画片",
    "Children's": "儿童片",
    "Comedy": "喜剧片",
    "Crime": "犯罪片",
    "Documentary": "纪录片",
    "Drama": "剧情片",
    "Fantasy": "奇幻片",
    "Film-Noir": "黑色电影",
    "Horror": "恐怖片",
    "Musical": "歌舞片",
    "Mystery": "悬疑片",
    "Romance": "爱情片",
    "Sci-Fi": "科幻片",
    "Thriller": "惊悚片",
    "War": "战争片",
    "Western": "西部片",
}

_SHORTEST = 4  # letters of half a title: fewer are not remembered
_SPOKEN = 0.2  # of the letters: from this share on a language counts as one that the texts are in
_HAN = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff]")


@dataclass(frozen=True)
class Phrases:
    """The phrases of one language for one purpose.

    Attributes:
        wishes: searches for a label; `{label}` is its name in lower case.
        subjects: by the label of a film, what people say who mean it and do not name it; used
            where the catalogue has this label.
        names: what a label of a film is called in this language, where that is not its own name.
        refusals: searches that refuse a label; contrasts: that prefer `{other}` to `{label}`.
        titles: searches for an item whose title is remembered.
        half_titles: searches for one of whose title some words are remembered.
        plots: searches for one of which it is remembered what it is about.
        loves, hates: reviews that say it in words alone.
        errands: what is no taste.
        praise, blame: short statements that are favourable, and unfavourable.
    """

    language: str
    wishes: tuple[str, ...]
    subjects: Mapping[str, tuple[str, ...]]
    refusals: tuple[str, ...]
    contrasts: tuple[str, ...]
    titles: tuple[str, ...]
    half_titles: tuple[str, ...]
    plots: tuple[str, ...]
    loves: tuple[str, ...]
    hates: tuple[str, ...]
    errands: tuple[str, ...]
    praise: tuple[str, ...]
    blame: tuple[str, ...]
    names: Mapping[str, str] = field(default_factory=dict)

    def all(self) -> Iterator[str]:
        """Every phrase of every list; a label's name is no phrase."""
        for each in fields(self):
            phrases = getattr(self, each.name)
            if each.name == "subjects":
                for subject in phrases.values():
                    yield from subject
            elif isinstance(phrases, tuple):
                yield from phrases

    def label(self, name: str) -> str:
        """A label as a sentence of this language names it."""
        return self.names.get(name, name).lower()


def normalise(phrase: str) -> str:
    """A phrase without what makes no other phrase of it: case, punctuation, spaces, accents.

    >>> normalise("  No {label},  PLEASE! ")
    'no label please'
    """
    plain = unicodedata.normalize("NFKD", phrase.casefold())
    words = "".join(
        char if char.isalnum() else " " for char in plain if not unicodedata.combining(char)
    )
    return " ".join(words.split())


def languages_of(texts: list[str]) -> tuple[str, ...]:
    """The languages, of those there are phrases in, that texts are in.

    >>> languages_of(["Toy Story", "Heat"]), languages_of(["很好看"]), languages_of([])
    (('en',), ('zh',), ('en',))
    """
    letters = [char for text in texts for char in text if char.isalpha()]
    han = sum(bool(_HAN.match(char)) for char in letters)
    if not letters:
        return (ENGLISH,)
    share = {CHINESE: han / len(letters), ENGLISH: 1 - han / len(letters)}
    return tuple(language for language in LANGUAGES if share[language] >= _SPOKEN)


def mistype(text: str, choices: random.Random) -> str:
    """The text with one typing error inside a word of at least four letters: two letters exchanged,
    one lost or one doubled. Without such a word a letter is doubled.

    >>> mistype("Jurassic Park", random.Random(1))
    'Jurasisc Park'
    """
    words = text.split(" ")
    long = [n for n, word in enumerate(words) if len(word) >= 4 and word.isalpha()]
    if not long:
        at = choices.randrange(len(text)) if text else 0
        return text[:at] + text[at : at + 1] + text[at:]
    n = choices.choice(long)
    word = words[n]
    at = choices.randrange(1, len(word) - 2)
    error = choices.choice(("exchanged", "lost", "doubled"))
    if error == "exchanged":
        word = word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    elif error == "lost":
        word = word[:at] + word[at + 1 :]
    else:
        word = word[:at] + word[at] + word[at:]
    words[n] = word
    return " ".join(words)


def search_for_title(title: str, phrases: Phrases, choices: random.Random) -> str:
    """A search for a title: whole, half remembered or mistyped, alone or in a phrase."""
    said, templates = title, phrases.titles
    way = choices.choice(("whole", "half", "mistyped"))
    if way == "half":
        said, templates = _half(title, choices), phrases.half_titles
    elif way == "mistyped":
        said = mistype(title, choices)
    return choices.choice(("{title}", *templates)).format(title=said)


def _half(title: str, choices: random.Random) -> str:
    """Some neighbouring words of a title, not all; a title of one word is whole."""
    words = title.split()
    if len(words) < 2:
        return title
    length = choices.randrange(1, len(words))
    start = choices.randrange(len(words) - length + 1)
    part = " ".join(words[start : start + length])
    return part if len(part) >= _SHORTEST else title
