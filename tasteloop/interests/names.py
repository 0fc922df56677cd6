"""Names of groups: the words of their titles and texts that set them apart."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Sequence
from textwrap import shorten

import numpy as np
from numpy.typing import NDArray

SEPARATOR = " / "

_WORDS = 3  # of a name
_TITLE = 40  # characters of a title in a name
# Items of a group that bear a word of its name: a share of them, between these. With fewer, film
# titles gave names such as "deceiver / darn / dear".
_LEAST_ITEMS, _LEAST_SHARE, _ENOUGH_ITEMS = 3, 0.05, 20
_LEAST_Z = (
    2.0  # how far beyond the catalogue's share of a word a group's must lie, in standard errors
)
_HAN = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_RUN = re.compile(rf"[{_HAN}]+|[^\W\d_{_HAN}]+(?:'[^\W\d_{_HAN}]+)*")
_IS_HAN = re.compile(rf"[{_HAN}]")
# Chinese characters that hold a sentence together; a pair with one of them names nothing
_HAN_STOPS = frozenset(
    "的了是在和与及或也就都而着把被对从到以为于之其这那我你他她它们个有不很吗呢吧啊"
)
_ENGLISH = (
    "vol",
    "vs",
    "de",
    "la",
    "le",
    "el",
    "der",
    "die",
    "das",
    "edition",
    "new",
    "part",
    "using",
)


def words_of(text: str) -> list[str]:
    """The words of a text that can name something: lower case, two letters or more, no stop word.

    Chinese is not written with spaces between words: its pairs of characters stand for them.

    >>> words_of("The Empire Strikes Back (1980)")
    ['empire', 'strikes']
    >>> words_of("科幻电影 2")
    ['科幻', '幻电', '电影']
    """
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    words: list[str] = []
    for run in _RUN.findall(unicodedata.normalize("NFKC", text).lower().replace("\u2019", "'")):
        if _IS_HAN.match(run):
            pairs = [run[i : i + 2] for i in range(len(run) - 1)]
            words += [pair for pair in pairs if not _HAN_STOPS & set(pair)]
        elif len(run := run.removesuffix("'s")) > 1 and run not in ENGLISH_STOP_WORDS:
            words.append(run)
    return [word for word in words if word not in _ENGLISH]


def names_of(
    texts: Sequence[str],
    groups: NDArray[np.int64],
    taken: NDArray[np.int64],
    titles: Sequence[str],
    reserved: Collection[str] = (),
) -> list[str]:
    """A name for each group: up to three words, joined by ` / `, that no other name has.

    A word's score in a group is the z of a test of proportions: how far the share of the group's
    items that bear it lies above the catalogue's, in standard errors. A word belongs to the group
    in which its score is highest, so that it never names two. A group that fewer than two words set
    apart is also called after its item that most users took: `sea / like Star Wars`.

    Args:
        texts: of n items. groups: [n] from 0. taken: [n] users who took an item.
        titles: of n items.
        reserved: names that are in use already.
    """
    count = int(groups.max()) + 1
    size = np.bincount(groups, minlength=count)
    in_group: dict[str, Counter[int]] = {}
    for text, k in zip(texts, groups.tolist(), strict=True):
        for word in set(words_of(text)):
            in_group.setdefault(word, Counter())[k] += 1

    # 1. each word's group, and its score there
    scores: list[list[tuple[float, str]]] = [[] for _ in range(count)]
    for word, counts in in_group.items():
        share = counts.total() / len(texts)
        if counts.total() == len(texts):
            continue
        z = {
            k: (n / size[k] - share) / (share * (1 - share) / size[k]) ** 0.5
            for k, n in counts.items()
        }
        k = max(sorted(z), key=z.__getitem__)
        least = max(_LEAST_ITEMS, min(_LEAST_SHARE * size[k], _ENOUGH_ITEMS))
        if counts[k] >= least and z[k] >= _LEAST_Z:
            scores[k].append((-z[k], word))

    # 2. names
    names: list[str] = []
    used = set(reserved)
    for k in range(count):
        chosen: list[str] = []
        for _, word in sorted(scores[k]):
            if len(chosen) < _WORDS and not any(_alike(word, other) for other in chosen):
                chosen.append(word)
        members = np.flatnonzero(groups == k)
        first = _shortened(titles[int(members[np.argmax(taken[members])])])
        name = SEPARATOR.join(chosen if len(chosen) > 1 else [*chosen, f"like {first}"])
        if name in used and len(chosen) > 1:
            name = f"{name} ({first})"
        plain, number = name, 1
        while name in used:
            number += 1
            name = f"{plain} ({number})"
        used.add(name)
        names.append(name)
    return names


def _shortened(title: str) -> str:
    """A title at 40 characters at most, cut between words where it has any.

    >>> _shortened("Star  Wars"), len(_shortened("很" * 50))
    ('Star Wars', 40)
    """
    end = " …"
    short = shorten(title, _TITLE, placeholder=end)
    return short if short != end.strip() else title[: _TITLE - len(end)] + end


def _alike(word: str, other: str) -> bool:
    """Whether two words are one in two forms, or two pairs of one Chinese word.

    >>> _alike("game", "games"), _alike("科幻", "幻电"), _alike("war", "warm")
    (True, True, False)
    """
    shorter, longer = sorted((word, other), key=len)
    if _IS_HAN.match(word):
        return word[-1] == other[0] or word[0] == other[-1]
    return longer in {shorter, f"{shorter}s", f"{shorter}es", f"{shorter}'s"}
