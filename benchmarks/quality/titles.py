"""The rule that joins films of two lists by their titles; it is fixed here, and its counts are
printed with every table.

A title is compared by its forms: in lower case, without accents and punctuation, with "&" read as
"and" and an article behind a comma moved to the front, so that "Usual Suspects, The" is "the usual
suspects". What stands in brackets is another form ("Shichinin no samurai"), without "a.k.a.". Three
rules are tried in turn:

1. `exact`: a form in common, and the same year; of two such films, which are one film listed twice,
   the first;
2. `next_year`: a form in common with one film, and years that differ by one, as dates of release
   do by country;
3. `no_year`: a form in common with one film alone, where one of the two has no year.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

RULES = ("exact", "next_year", "no_year")

_YEAR = re.compile(r"\s*\((\d{4})\)\s*$")
_BRACKETS = re.compile(r"\(([^()]*)\)")
_ALSO_KNOWN_AS = re.compile(r"^\s*(a\.?k\.?a\.?|also known as)\s+", re.IGNORECASE)
_ARTICLE_LAST = re.compile(
    r"^(.*), (the|a|an|das|der|die|el|il|l'|la|le|les|los|las)$", re.IGNORECASE
)


@dataclass(frozen=True)
class Title:
    """A title, read once.

    Attributes:
        forms: what it is compared by, the main one first.
        year: of release, or None where the title has none.

    >>> Title.parse("Seven Samurai, The (Shichinin no samurai) (1954)")
    Title(forms=('the seven samurai', 'shichinin no samurai'), year=1954)
    """

    forms: tuple[str, ...]
    year: int | None

    @classmethod
    def parse(cls, text: str, year: int | None = None) -> Title:
        """Read a title; a year in brackets at its end counts before the one beside it."""
        if match := _YEAR.search(text):
            year, text = int(match[1]), text[: match.start()]
        main = _BRACKETS.sub(" ", text)
        others = [_ALSO_KNOWN_AS.sub("", each) for each in _BRACKETS.findall(text)]
        forms = [form for each in (main, *others) if (form := normalise(each))]
        return cls(tuple(dict.fromkeys(forms)), year)


def normalise(title: str) -> str:
    """One form of a title: words of lower-case letters and digits.

    >>> normalise("Amélie & Schindler's List, The")
    'the amelie and schindlers list'
    """
    plain = unicodedata.normalize("NFKD", title.strip())
    plain = "".join(letter for letter in plain if not unicodedata.combining(letter)).lower()
    plain = _ARTICLE_LAST.sub(r"\2 \1", plain).replace("&", " and ")
    return " ".join(re.findall(r"\w+", re.sub(r"['’`]", "", plain)))


@dataclass(frozen=True)
class Join:
    """What joining one list of titles with another found.

    Attributes:
        positions: for each title of the first list its position in the second, or -1.
        counts: how many were joined by each rule, how many are ambiguous, how many are absent.
    """

    positions: tuple[int, ...]
    counts: dict[str, int]


def join(first: Sequence[Title], second: Sequence[Title]) -> Join:
    """Find each title of the first list in the second, by the rules of this module.

    >>> found = join([Title.parse("The Matrix (1999)")], [Title.parse("Matrix, The (1999)")])
    >>> found.positions, found.counts["exact"]
    ((0,), 1)
    """
    of_form = _positions_of_forms(second)
    found = [_find(title, second, of_form) for title in first]
    counts = Counter(dict.fromkeys((*RULES, "ambiguous", "absent"), 0))
    counts.update(outcome for _, outcome in found)
    return Join(tuple(position for position, _ in found), dict(counts))


def _find(
    title: Title, second: Sequence[Title], of_form: Mapping[str, Sequence[int]]
) -> tuple[int, str]:
    """The position in the second list, or -1, and the rule or the reason."""
    next_year, no_year = [], []
    candidates = sorted({n for form in title.forms for n in of_form.get(form, ())})
    for n in candidates:
        year = second[n].year
        if title.year is None or year is None:
            no_year.append(n)
        elif year == title.year:
            return n, "exact"
        elif abs(year - title.year) == 1:
            next_year.append(n)
    if len(next_year) == 1:
        return next_year[0], "next_year"
    if len(candidates) == 1 and no_year:
        return no_year[0], "no_year"
    return -1, "ambiguous" if next_year or no_year else "absent"


def _positions_of_forms(titles: Iterable[Title]) -> dict[str, list[int]]:
    out: dict[str, list[int]] = defaultdict(list)
    for position, title in enumerate(titles):
        for form in title.forms:
            out[form].append(position)
    return dict(out)
