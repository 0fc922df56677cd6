"""People who ask for films in their own words, read once from the files of `TASTELOOP_BENCH_DATA`.

ReDial (Li et al. 2018) as RUCAIBox/iEvaLM-CRS prepared it, IARD (Cai & Chen 2020), whose dialogues
come from ReDial, and soft attributes (Balog et al. 2021). A turn is what was said before a
recommender names films; the films that are new in the conversation are its answers.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from benchmarks.quality.titles import Title, normalise
from tasteloop.errors import TasteloopError

Speaker = Literal["seeker", "recommender"]

VARIABLE = "TASTELOOP_BENCH_DATA"
FILES: Mapping[str, str] = {
    "dialogue/redial-test-turns.jsonl.gz": "turns of ReDial's test dialogues, as "
    "https://github.com/RUCAIBox/iEvaLM-CRS prepares them (data: CC BY 4.0)",
    "dialogue/redial-valid.jsonl.gz": "ReDial's validation dialogues, from the same repository",
    "dialogue/redial-films.json.gz": "the films of ReDial with genres, plot and people, from the "
    "same repository",
    "dialogue/iard.json.gz": "the annotated dialogues of "
    "https://github.com/wanlingcai1997/umap_2020_IARD (MIT)",
    "dialogue/soft-attributes.csv.gz": "the judgements of "
    "https://github.com/google-research-datasets/soft-attributes (CC BY 4.0)",
    "film/film-text.jsonl.gz": "plot, director and actors of MovieLens' films, from "
    "https://github.com/vectorsss/movielens_100k_1m_extension",
}
"""What the benchmark reads, and where each file comes from."""

REPEATED = "repeated films of test turns"
"""In `Dialogues.left_out`; those of turns that are not asked for lack of a new film count too."""

# A title of two words or of eight letters is seldom said by chance; "It" or "Up" is.
_NAMED_WORDS, _NAMED_LETTERS = 2, 8
_FILM_NUMBER = re.compile(r"@(\d+)")
_IARD_FILM = re.compile(r"@(\d+)\s*<\s*(.*?)\s*>")
_MISSING_TEXT = frozenset({"", "N/A"})


# --- what the files hold


@dataclass(frozen=True)
class Film:
    """A film as a list describes it.

    Attributes:
        name: as the list writes it, with the year where it has one.
        people: directors, then actors.
        number: IMDb's, without leading zeros; "" where the list has none.
    """

    name: str
    genres: tuple[str, ...] = ()
    plot: str = ""
    people: tuple[str, ...] = ()
    number: str = ""


@dataclass(frozen=True)
class Utterance:
    speaker: Speaker
    text: str


@dataclass(frozen=True)
class Mention:
    """A film that somebody named: its name in the list of ReDial, and in which utterance."""

    film: str
    speaker: Speaker
    utterance: int


@dataclass(frozen=True)
class Turn:
    """What was said until a recommender names films.

    Attributes:
        dialogue: the conversation, which is drawn as a whole in the bootstrap.
        utterances: everything said before, in order.
        mentions: the films named in it, each once, in order.
        answers: the films that are named next and were not named before.
        repeated: how many were named next that had been named before; they are not asked for.
    """

    dialogue: str
    utterances: tuple[Utterance, ...]
    mentions: tuple[Mention, ...]
    answers: tuple[str, ...]
    repeated: int = 0

    def text(self, speakers: Iterable[Speaker], words: int) -> str:
        """The last words that these speakers said, oldest first."""
        chosen = set(speakers)
        said = " ".join(u.text for u in self.utterances if u.speaker in chosen)
        return " ".join(said.split()[-words:])


@dataclass(frozen=True)
class Comparison:
    """A rater's judgement: films with less, about as much and more of an attribute than another.

    `about` includes the film of reference.
    """

    rater: str
    attribute: str
    less: tuple[str, ...]
    about: tuple[str, ...]
    more: tuple[str, ...]

    def pairs(self) -> list[tuple[str, str]]:
        """Pairs (film with less, film with more) that the judgement states."""
        return [
            (low, high)
            for lower, higher in (
                (self.less, self.about),
                (self.about, self.more),
                (self.less, self.more),
            )
            for low in lower
            for high in higher
        ]


@dataclass(frozen=True)
class Dialogues:
    """All that the benchmark asks.

    Attributes:
        films: ReDial's, by their name.
        catalogues: MovieLens' films with their texts, by source and number.
        validation, test: ReDial's turns.
        mentions_in_validation: how often each film is named in ReDial's validation dialogues.
        requests: IARD's turns up to an accepted film.
        comparisons: of soft attributes.
        left_out: what was not asked, and why, as counts.
    """

    films: Mapping[str, Film]
    catalogues: Mapping[str, Mapping[str, Film]]
    validation: tuple[Turn, ...]
    test: tuple[Turn, ...]
    mentions_in_validation: Mapping[str, int]
    requests: tuple[Turn, ...]
    comparisons: tuple[Comparison, ...]
    left_out: Mapping[str, int]


# --- reading


def data_directory() -> Path:
    """The directory that `TASTELOOP_BENCH_DATA` names, with all files of `FILES`.

    Raises:
        TasteloopError: the variable is not set, or a file is not there; the message says which,
            and where each comes from.
    """
    named = os.environ.get(VARIABLE)
    if not named:
        raise TasteloopError(
            f"{VARIABLE} names no directory. This benchmark reads data that may not be distributed with it; put "
            f"these files into a directory and name it in {VARIABLE}:\n" + _origins(FILES)
        )
    directory = Path(named).expanduser().absolute()
    absent = [name for name in FILES if not (directory / name).is_file()]
    if absent:
        raise TasteloopError(f"{directory} ({VARIABLE}) lacks:\n" + _origins(absent))
    return directory


def _origins(names: Iterable[str]) -> str:
    return "\n".join(f"  {name}: {FILES[name]}" for name in names)


def read(directory: Path) -> Dialogues:
    """Read and check everything in a directory that `data_directory` accepted."""
    described = _json(directory, "dialogue/redial-films.json.gz")
    films: dict[str, Film] = {}
    for entry in described.values():
        film = _redial_film(entry)
        films.setdefault(film.name, film)
    name_of_number = {number: _tidy(entry["name"]) for number, entry in described.items()}

    dialogues = _lines(directory, "dialogue/redial-valid.jsonl.gz")
    validation, counts = _validation_turns(dialogues, name_of_number)
    test, named = _test_turns(_lines(directory, "dialogue/redial-test-turns.jsonl.gz"), films)
    validated = {str(dialogue["conversationId"]) for dialogue in dialogues}
    annotated = _json(directory, "dialogue/iard.json.gz")
    requests = [
        turn
        for number, dialogue in annotated.items()
        if number not in validated
        for turn in _requests(number, dialogue, name_of_number)
    ]
    return Dialogues(
        films=films,
        catalogues=_catalogues(_lines(directory, "film/film-text.jsonl.gz")),
        validation=tuple(turn for turn in validation if turn.answers),
        test=tuple(turn for turn in test if turn.answers),
        mentions_in_validation=counts,
        requests=tuple(requests),
        comparisons=tuple(_comparisons(directory / "dialogue/soft-attributes.csv.gz")),
        left_out={
            "test turns without a new film": sum(not turn.answers for turn in test),
            REPEATED: sum(turn.repeated for turn in test),
            "films of test turns named before without their year": named,
            "dialogues of IARD that are in ReDial's validation dialogues": len(
                validated & set(annotated)
            ),
        },
    )


def _json(directory: Path, name: str) -> Any:
    return json.loads(_text(directory, name))


def _lines(directory: Path, name: str) -> list[Any]:
    # `splitlines` would also split at U+2028 and its like, which JSON allows within a text
    return [json.loads(line) for line in _text(directory, name).split("\n") if line.strip()]


def _text(directory: Path, name: str) -> str:
    path = directory / name
    try:
        return gzip.decompress(path.read_bytes()).decode()
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise TasteloopError(
            f"{path} cannot be read ({error}); get it again: {FILES[name]}"
        ) from error


def _tidy(text: str) -> str:
    return " ".join(text.split())


def _number(identifier: str | None) -> str:
    return (identifier or "").removeprefix("tt").lstrip("0")


def _redial_film(entry: Mapping[str, Any]) -> Film:
    return Film(
        _tidy(entry["name"]),
        tuple(entry.get("genre") or ()),
        _tidy(entry.get("plot") or ""),
        (*(entry.get("director") or ()), *(entry.get("star") or ())),
        _number(entry.get("imdb_id")),
    )


def _catalogues(rows: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, Film]]:
    """MovieLens' films by source and number, where the file describes them."""
    out: dict[str, dict[str, Film]] = {}
    for row in rows:
        words = {key: _tidy(row.get(key) or "") for key in ("plot", "director", "actors")}
        words = {key: "" if text in _MISSING_TEXT else text for key, text in words.items()}
        people = [name for key in ("director", "actors") for name in words[key].split(", ") if name]
        film = Film(
            _tidy(row["title"]), (), words["plot"], tuple(people), _number(row.get("imdb_id"))
        )
        out.setdefault(row["source"], {})[str(row["movie_id"])] = film
    return out


# --- ReDial


def _test_turns(
    rows: Iterable[Mapping[str, Any]], films: Mapping[str, Film]
) -> tuple[list[Turn], int]:
    """Turns, and how many films were taken out of their answers because the context names them
    without their year.

    The speakers of a context take turns, and the seeker begins, with an empty utterance where the
    recommender spoke first.
    """
    turns, named = [], 0
    for row in rows:
        utterances = [
            Utterance("seeker" if n % 2 == 0 else "recommender", _tidy(text))
            for n, text in enumerate(row["context"])
        ]
        entities = dict.fromkeys(_tidy(name) for name in row["entity"])
        mentions = _mentions([name for name in entities if name in films], utterances)
        turn, dropped = _turn(
            str(row["dialog_id"]), utterances, mentions, [_tidy(name) for name in row["rec"]]
        )
        turns.append(turn)
        named += dropped
    return turns, named


def _mentions(names: Iterable[str], utterances: Sequence[Utterance]) -> list[Mention]:
    """Each name where it first stands as whole words, in the order of the conversation.

    The list of entities is that of a program that also finds "Eve" in "never": what stands nowhere
    as whole words is no mention.
    """
    found = []
    for name in names:
        pattern = re.compile(rf"(?<!\w){re.escape(name)}(?!\w)")
        for n, utterance in enumerate(utterances):
            if pattern.search(utterance.text):
                found.append(Mention(name, utterance.speaker, n))
                break
    return sorted(found, key=lambda mention: mention.utterance)


def _turn(
    dialogue: str,
    utterances: Sequence[Utterance],
    mentions: Sequence[Mention],
    named_next: Iterable[str],
) -> tuple[Turn, int]:
    """A turn whose answers are new in the conversation, and how many films were left out because
    the context names them without their year.
    """
    before = {mention.film for mention in mentions}
    said = f" {normalise(' '.join(u.text for u in utterances))} "
    answers, repeated, named = [], 0, 0
    for film in dict.fromkeys(named_next):
        if film in before:
            repeated += 1
        elif is_named(film, said):
            repeated += 1
            named += 1
        else:
            answers.append(film)
    return Turn(dialogue, tuple(utterances), tuple(mentions), tuple(answers), repeated), named


def is_named(film: str, said: str) -> bool:
    """Whether a normalised text between spaces holds a form of the film's title that is long enough
    not to be there by chance.

    >>> is_named("Super Troopers (2001)", " i love super troopers ")
    True
    """
    return any(
        f" {form} " in said
        for form in Title.parse(film).forms
        if len(form.split()) >= _NAMED_WORDS or len(form) >= _NAMED_LETTERS
    )


def _validation_turns(
    dialogues: Iterable[Mapping[str, Any]], name_of_number: Mapping[str, str]
) -> tuple[list[Turn], dict[str, int]]:
    """Turns in the form of the test turns, and how often each film is named.

    Films stand as `@number` in these texts; consecutive messages of one speaker are one utterance.
    """
    turns: list[Turn] = []
    counts: dict[str, int] = {}
    for dialogue in dialogues:
        titles = {number: _tidy(name or "") for number, name in dialogue["movieMentions"].items()}
        names = {**titles, **name_of_number}
        utterances: list[Utterance] = []
        films_of: list[list[str]] = []
        for message in dialogue["messages"]:
            is_seeker = message["senderWorkerId"] == dialogue["initiatorWorkerId"]
            speaker: Speaker = "seeker" if is_seeker else "recommender"
            numbers = _FILM_NUMBER.findall(message["text"])
            text = _FILM_NUMBER.sub(lambda match: names.get(match[1], match[0]), message["text"])  # noqa: B023
            films = [name_of_number[number] for number in numbers if number in name_of_number]
            if utterances and utterances[-1].speaker == speaker:
                utterances[-1] = Utterance(speaker, f"{utterances[-1].text} {_tidy(text)}")
                films_of[-1] += films
            else:
                utterances.append(Utterance(speaker, _tidy(text)))
                films_of.append(films)
        for films in films_of:
            for film in films:
                counts[film] = counts.get(film, 0) + 1
        number = str(dialogue["conversationId"])
        turns += _turns_of(number, utterances, films_of)
    return turns, counts


def _turns_of(
    dialogue: str, utterances: Sequence[Utterance], films_of: Sequence[Sequence[str]]
) -> list[Turn]:
    """A turn before each utterance of the recommender that names films."""
    turns: list[Turn] = []
    mentions: list[Mention] = []
    known: set[str] = set()
    for n, (utterance, films) in enumerate(zip(utterances, films_of, strict=True)):
        if utterance.speaker == "recommender" and films:
            turns.append(_turn(dialogue, utterances[:n], tuple(mentions), films)[0])
        for film in dict.fromkeys(films):
            if film not in known:
                known.add(film)
                mentions.append(Mention(film, utterance.speaker, n))
    return turns


# --- IARD


def _requests(
    number: str, dialogue: Mapping[str, Any], name_of_number: Mapping[str, str]
) -> list[Turn]:
    """A turn for each accepted film of an annotated dialogue.

    IARD marks the seeker's utterance that accepts. The film is one that this utterance names and
    the recommender had brought up; else those that were new in the nearest recommendation before
    it. The context ends before the film was brought up.
    """
    rows = sorted(dialogue["dialogue_info"].values(), key=lambda row: row["utterance_pos"])
    utterances, films_of = [], []
    for row in rows:
        text = _IARD_FILM.sub(lambda match: _tidy(match[2]), row["utterance_text"])
        utterances.append(Utterance(row["role"], _tidy(text)))
        numbers = [match[0] for match in _IARD_FILM.findall(row["utterance_text"])]
        films_of.append([name_of_number[n] for n in numbers if n in name_of_number])
    first: dict[str, int] = {}
    for n, films in enumerate(films_of):
        for film in films:
            first.setdefault(film, n)
    recommends = ["Recommend" in row["top-level intent/action"] for row in rows]
    at_position = {row["utterance_pos"]: n for n, row in enumerate(rows)}

    turns: dict[tuple[str, ...], Turn] = {}
    for position in dialogue["accepted_recommendation"]:
        accepted = at_position[position]
        brought_up = [
            film
            for film in films_of[accepted]
            if first[film] < accepted and utterances[first[film]].speaker == "recommender"
        ]
        begin = first[brought_up[-1]] if brought_up else -1
        answers = brought_up[-1:]
        for n in reversed(range(accepted)):
            if answers:
                break
            if utterances[n].speaker == "recommender" and recommends[n]:
                begin = n
                answers = [film for film in dict.fromkeys(films_of[n]) if first[film] == n]
        if not answers:
            continue
        mentions = [
            Mention(film, utterances[n].speaker, n)
            for film, n in sorted(first.items(), key=lambda pair: pair[1])
            if n < begin
        ]
        turn, _ = _turn(number, utterances[:begin], mentions, answers)
        if turn.answers:
            turns.setdefault(turn.answers, turn)
    return list(turns.values())


# --- soft attributes


def _comparisons(path: Path) -> list[Comparison]:
    with gzip.open(path) as stream:
        rows = list(csv.DictReader(io.TextIOWrapper(stream, encoding="utf-8", newline="")))
    out = []
    for row in rows:
        less, about, more = (
            tuple(_tidy(title) for title in json.loads(row[column] or "[]"))
            for column in ("less_than", "about_as", "more_than")
        )
        about = (*about, _tidy(row["reference_title"]))
        out.append(Comparison(row["rater_id"], row["soft_attribute"], less, about, more))
    return out
