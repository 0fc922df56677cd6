"""The films that are ranked: MovieLens' two lists, ReDial's, and those of soft attributes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from benchmarks.quality.dialogues import Comparison, Dialogues, Film
from benchmarks.quality.titles import Join, Title, join
from tasteloop.behaviour.events import ITEM, USER, VALUE
from tasteloop.behaviour.items import LABELS, RELEASED, TITLE

Matrix = NDArray[np.float32]
Positions = NDArray[np.int64]

LIKED_FROM = 0.75  # 4 and 5 of 5 stars


@dataclass(frozen=True)
class Ratings:
    """The films of a MovieLens source, and who liked which.

    Attributes:
        films: J, with genres; titles [J] with years.
        liked: [U, J] of 0 and 1.
    """

    films: tuple[Film, ...]
    titles: tuple[Title, ...]
    liked: Matrix

    @classmethod
    def read(cls, source: str, described: Mapping[str, Film]) -> Ratings:
        """From the catalogue's source of that name; `described` has the films' texts by number."""
        from tasteloop.datasets.fetch import fetch_origin

        origin, directory = fetch_origin(source)
        assert origin.read_behaviour is not None, f"{source} gives behaviour"
        behaviour = origin.read_behaviour(directory, "")
        items, events = behaviour.items, behaviour.events
        assert items is not None, f"{source} describes its films"
        films = []
        for item, title, labels, released in items.select(
            ITEM, TITLE, LABELS, RELEASED
        ).iter_rows():
            text = described.get(str(item), Film(""))
            name = f"{title} ({released.year})" if released else title
            genres = tuple(label.lower() for label in labels or ())
            films.append(Film(name, genres, text.plot, text.people, text.number))
        position = {item: n for n, item in enumerate(items[ITEM].to_list())}
        low, high = behaviour.scale
        value = (events[VALUE].to_numpy() - low) / (high - low)
        users, user = np.unique(events[USER].to_numpy(), return_inverse=True)
        item = np.array([position.get(each, -1) for each in events[ITEM].to_list()])
        liked = np.zeros((len(users), len(films)), np.float32)
        rows = (value >= LIKED_FROM - 1e-6) & (item >= 0)
        liked[user[rows], item[rows]] = 1
        return cls(tuple(films), tuple(Title.parse(film.name) for film in films), liked)


@dataclass(frozen=True)
class FilmSet:
    """Films that are ranked together.

    Attributes:
        films: J.
        texts: [J]: what a text method reads of each. A film that ReDial describes has ReDial's
            description in every set, so that each film is read once.
        position_of_name: of a name in ReDial's list -> the position here.
        rated: [J] position among the films of ml-1m, -1 where it is none of them.
        joins: counts of the rule that joined ReDial's list with this one, and this one with
            ml-1m's.
    """

    name: str
    about: str
    films: tuple[Film, ...]
    texts: tuple[str, ...]
    position_of_name: Mapping[str, int]
    rated: Positions
    joins: Mapping[str, Mapping[str, int]]

    def __len__(self) -> int:
        return len(self.films)

    @cached_property
    def titles(self) -> tuple[Title, ...]:
        return tuple(Title.parse(film.name) for film in self.films)


def film_set(
    name: str, about: str, films: Sequence[Film], data: Dialogues, rated: Ratings
) -> FilmSet:
    """Join a list of films with ReDial's and with those of ml-1m."""
    titles = tuple(Title.parse(film.name) for film in films)
    names = tuple(data.films)
    redial_titles = tuple(Title.parse(each) for each in names)
    to_ratings = join(titles, rated.titles)
    joins = {"with ml-1m": counts(to_ratings, films, rated.films)}
    if tuple(film.name for film in films) == names:
        position_of_name = {each: n for n, each in enumerate(names)}
        described = list(films)
    else:
        from_redial, to_redial = join(redial_titles, titles), join(titles, redial_titles)
        joins["of ReDial's films"] = counts(from_redial, tuple(data.films.values()), films)
        position_of_name = {
            each: n for each, n in zip(names, from_redial.positions, strict=True) if n >= 0
        }
        described = [
            data.films[names[n]] if n >= 0 and data.films[names[n]].plot else film
            for film, n in zip(films, to_redial.positions, strict=True)
        ]
    texts = tuple(film_text(film) for film in described)
    return FilmSet(
        name,
        about,
        tuple(films),
        texts,
        position_of_name,
        np.array(to_ratings.positions, np.int64),
        joins,
    )


def film_text(film: Film) -> str:
    """Title, genres, plot and people; an encoder that reads only so much loses people first."""
    parts = (film.name, ", ".join(film.genres), film.plot.rstrip("."), ", ".join(film.people))
    return ". ".join(part for part in parts if part)


def counts(found: Join, first: Sequence[Film], second: Sequence[Film]) -> dict[str, int]:
    """A join's counts, and how often IMDb's numbers agree where both lists have one."""
    agree = differ = 0
    for film, position in zip(first, found.positions, strict=True):
        if position >= 0 and film.number and second[position].number:
            agree += film.number == second[position].number
            differ += film.number != second[position].number
    return {**found.counts, "imdb_agrees": agree, "imdb_differs": differ}


def compared_films(comparisons: Sequence[Comparison]) -> list[str]:
    """The titles that soft attributes compare, in the order in which they first come."""
    titles: dict[str, None] = {}
    for comparison in comparisons:
        titles |= dict.fromkeys((*comparison.about, *comparison.less, *comparison.more))
    return list(titles)


def describe(titles: Sequence[str], data: Dialogues, rated: Ratings) -> list[Film]:
    """Films of which only the title is given, as ReDial or else ml-1m describes them."""
    parsed = [Title.parse(title) for title in titles]
    films = tuple(data.films.values())
    in_redial = join(parsed, [Title.parse(film.name) for film in films]).positions
    in_ratings = join(parsed, rated.titles).positions
    out = []
    for title, a, b in zip(titles, in_redial, in_ratings, strict=True):
        known = films[a] if a >= 0 else rated.films[b] if b >= 0 else Film(title)
        out.append(Film(title, known.genres, known.plot, known.people, known.number))
    return out
