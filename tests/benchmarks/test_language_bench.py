"""The language benchmark on invented dialogues: titles are joined by the rule, no answer leaks into
what is asked, and measures are those computed by hand.
"""

from __future__ import annotations

import dataclasses
import gzip
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.quality import language
from benchmarks.quality.dialogues import (
    FILES,
    REPEATED,
    VARIABLE,
    Dialogues,
    Film,
    Mention,
    Turn,
    Utterance,
    data_directory,
    read,
)
from benchmarks.quality.embeddings import EncoderVectors
from benchmarks.quality.film_sets import FilmSet, Ratings, film_set
from benchmarks.quality.language import Asked, Bench, Judged, Options, pairs_recall, rank
from benchmarks.quality.language_methods import (
    BM25,
    METHODS,
    OURS,
    Resources,
    WordVectors,
    history,
    standardise,
)
from benchmarks.quality.language_report import markdown, verdicts
from benchmarks.quality.titles import Title, join
from tasteloop.errors import TasteloopError

FILMS = {
    "1": ("The Red Kite (1990)", ["drama"], "A boy repairs a kite and a friendship.", "tt0000001"),
    "2": ("Night Ferry (1991)", ["horror"], "A ferry drifts, and nobody is steering.", "tt0000002"),
    "3": ("Amélie & Bruno (1992)", ["romance"], "Two bakers fall in love.", "tt0000003"),
    "4": ("Gold Dust (1993)", ["western"], "Two cowboys look for gold.", "tt0000004"),
    "5": ("Moon Harvest (2015)", ["sci-fi"], "Farmers leave for the moon.", "tt0000005"),
    "6": ("Gold Dust", ["western"], "A film without a year.", ""),
}


# --- invented data, in the files' own form


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text.encode()))


def _test_turn(number: str, context: list[str], entity: list[str], rec: list[str]) -> str:
    row = {"dialog_id": number, "turn_id": 1, "context": context, "entity": entity, "rec": rec}
    return json.dumps({**row, "resp": "", "template": []})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory with two or three of everything."""
    directory = tmp_path_factory.mktemp("bench-data")
    films = {
        number: {
            "name": name,
            "genre": genres,
            "plot": plot,
            "director": ["Ada Stone"],
            "writer": [],
            "star": ["Ben Wood"],
            "imdb_id": imdb,
        }
        for number, (name, genres, plot, imdb) in FILMS.items()
    }
    _write(directory / "dialogue/redial-films.json.gz", json.dumps(films))
    turns = [
        _test_turn(
            "t1",
            ["I liked The Red Kite (1990)", "Try Night Ferry (1991)", "never! and the gold dust?"],
            ["The Red Kite (1990)", "Night Ferry (1991)", "Eve"],
            ["Night Ferry (1991)", "Gold Dust (1993)", "Moon Harvest (2015)"],
        ),
        _test_turn("t2", ["", "Hello", "Something for two cowboys"], [], ["Gold Dust (1993)"]),
        _test_turn("t3", ["Night Ferry (1991)?"], ["Night Ferry (1991)"], ["Night Ferry (1991)"]),
    ]
    _write(directory / "dialogue/redial-test-turns.jsonl.gz", "\n".join(turns))
    said = [
        (7, "Hi"),
        (7, "I love @1 "),
        (8, "then  @4 and @1"),
        (7, "seen it"),
        (8, "@2"),
    ]
    dialogue = {
        "conversationId": "v1",
        "initiatorWorkerId": 7,
        "respondentWorkerId": 8,
        "movieMentions": {n: FILMS[n][0] for n in ("1", "2", "4")},
        "messages": [{"senderWorkerId": worker, "text": text} for worker, text in said],
    }
    _write(directory / "dialogue/redial-valid.jsonl.gz", json.dumps(dialogue))
    _write(directory / "dialogue/iard.json.gz", json.dumps(_iard()))
    _write(
        directory / "dialogue/soft-attributes.csv.gz",
        "rater_id,reference_title,soft_attribute,less_than,about_as,more_than\n"
        '1,Gold Dust (1993),scary,"[""The Red Kite (1990)""]",,"[""Night Ferry (1991)""]"\n'
        '2,Gold Dust (1993),scary,"[""Night Ferry (1991)""]","[""The Red Kite (1990)""]",\n',
    )
    text = {
        "source": "ml-1m",
        "movie_id": 10,
        "title": "Red Kite, The (1990)",
        "imdb_id": "0000001",
        "plot": "A boy and\u2028his kite.",
        "director": "Ada Stone",
        "actors": "N/A",
    }
    _write(directory / "film/film-text.jsonl.gz", json.dumps(text, ensure_ascii=False))
    return directory


def _iard() -> dict[str, Any]:
    def said(position: int, role: str, text: str, *intents: str) -> dict[str, Any]:
        return {
            "utterance_pos": position,
            "role": role,
            "utterance_text": text,
            "top-level intent/action": list(intents),
            "sub-intent/action": [],
        }

    rows = [
        said(1, "seeker", "Something like @1 <The Red Kite  (1990)> please", "AskForRec"),
        said(2, "recommender", "@2 <Night Ferry (1991)> or @4 <Gold Dust (1993)> ", "Recommend"),
        said(3, "seeker", "No horror", "GiveFeedback"),
        said(4, "recommender", "It is about cowboys", "Respond"),
        said(5, "seeker", "Then @4 <Gold Dust (1993)> it is", "GiveFeedback"),
        said(6, "recommender", "And @5 <Moon Harvest (2015)>  ?", "Recommend"),
        said(7, "seeker", "That too", "GiveFeedback"),
    ]
    dialogue = {
        "accepted_recommendation": [5, 7],
        "dialogue_info": {str(row["utterance_pos"]): row for row in rows},
    }
    return {"i1": dialogue, "v1": dialogue}


@pytest.fixture(scope="module")
def data(folder: Path) -> Dialogues:
    return read(folder)


@pytest.fixture(scope="module")
def rated() -> Ratings:
    """Four films of "ml-1m": the first two are liked together, the last by nobody."""
    names = ("Red Kite, The (1990)", "Night Ferry (1992)", "Gold Dust (1993)", "Unknown (1980)")
    liked = np.array([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0]], np.float32)
    films = tuple(Film(name, ("drama",)) for name in names)
    return Ratings(films, tuple(Title.parse(name) for name in names), liked)


@pytest.fixture(scope="module")
def resources(
    data: Dialogues, rated: Ratings, tiny_encoder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Resources:
    compared = [data.films[FILMS[n][0]] for n in ("1", "2", "4")]
    lists = {
        "ml-100k": rated.films[:3],
        "ml-1m": rated.films,
        "redial": tuple(data.films.values()),
        "soft-attributes": compared,
    }
    sets = [film_set(name, name, films, data, rated) for name, films in lists.items()]
    encoders: dict[str, Path | str] = {"minilm": tiny_encoder, "mpnet": "no network"}
    reviews = ["a kite and a boy", "cowboys and gold and a kite"] * 3
    return Resources(data, rated, sets, encoders, reviews, tmp_path_factory.mktemp("kept"))


# --- titles


@pytest.mark.parametrize(
    ("first", "second", "rule"),
    [
        ("The Red Kite (1990)", "Red Kite, The (1990)", "exact"),
        ("Amélie & Bruno (1992)", "Amelie and Bruno (1992)", "exact"),
        ("Shichinin (1954)", "Seven Men, The (a.k.a. Shichinin) (1954)", "exact"),
        ("It's a Kite! (1990)", "Its a kite (1991)", "next_year"),
        ("The Red Kite", "Red Kite, The (1990)", "no_year"),
        ("The Red Kite (1990)", "The Red Kite (1993)", "absent"),
        ("Red Kite (1990)", "Blue Kite (1990)", "absent"),
    ],
)
def test_titles_are_joined_by_the_first_rule_that_holds(first: str, second: str, rule: str) -> None:
    found = join([Title.parse(first)], [Title.parse("Other (1990)"), Title.parse(second)])

    assert found.positions == (-1 if rule == "absent" else 1,)
    assert found.counts[rule] == 1 and sum(found.counts.values()) == 1


def test_a_title_without_a_year_names_none_of_two_films() -> None:
    twice = [Title.parse("Gold Dust (1993)"), Title.parse("Gold Dust (2005)")]

    found = join([Title.parse("Gold Dust")], twice)

    assert found.positions == (-1,) and found.counts["ambiguous"] == 1


def test_a_join_counts_what_other_numbers_say_of_it(resources: Resources) -> None:
    joins = resources.film_set("ml-1m").joins["of ReDial's films"]

    # kite and one "Gold Dust" by year, ferry a year apart, the other "Gold Dust" has no year
    assert (joins["exact"], joins["next_year"], joins["no_year"]) == (2, 1, 1)
    assert joins["absent"] == 2 and joins["imdb_agrees"] == 0


# --- what is asked


def test_a_turn_asks_for_films_that_are_new_in_the_conversation(data: Dialogues) -> None:
    first, second = data.test

    # the ferry was named with its year, and gold dust without it
    assert first.answers == ("Moon Harvest (2015)",)
    assert first.repeated == 2
    assert second.answers == ("Gold Dust (1993)",) and not second.mentions
    assert data.left_out["films of test turns named before without their year"] == 1
    assert data.left_out["test turns without a new film"] == 1


def test_a_separator_of_lines_within_a_text_splits_no_row(data: Dialogues) -> None:
    assert data.catalogues["ml-1m"]["10"].plot == "A boy and his kite."


def test_a_mention_has_its_speaker_and_is_a_film_in_whole_words(data: Dialogues) -> None:
    mentions = data.test[0].mentions

    assert mentions == (
        Mention("The Red Kite (1990)", "seeker", 0),
        Mention("Night Ferry (1991)", "recommender", 1),
    )


def test_validation_turns_have_the_form_of_test_turns(data: Dialogues) -> None:
    first, second = data.validation

    assert first.utterances == (Utterance("seeker", "Hi I love The Red Kite (1990)"),)
    assert first.answers == ("Gold Dust (1993)",) and first.repeated == 1
    assert [mention.film for mention in second.mentions] == [
        "The Red Kite (1990)",
        "Gold Dust (1993)",
    ]
    assert second.answers == ("Night Ferry (1991)",)
    assert data.mentions_in_validation == {
        "The Red Kite (1990)": 2,
        "Gold Dust (1993)": 1,
        "Night Ferry (1991)": 1,
    }


def test_a_request_ends_before_its_accepted_film_was_brought_up(data: Dialogues) -> None:
    named, following = data.requests

    # dialogue v1 decides settings, so that it is not asked again
    assert {named.dialogue, following.dialogue} == {"i1"}
    assert named.answers == ("Gold Dust (1993)",)
    assert [u.text for u in named.utterances] == ["Something like The Red Kite (1990) please"]
    assert following.answers == ("Moon Harvest (2015)",)
    assert len(following.utterances) == 5 and len(following.mentions) == 3


def test_no_context_holds_an_answer(data: Dialogues) -> None:
    for turn in (*data.test, *data.validation, *data.requests):
        said = turn.text(("seeker", "recommender"), 1000)
        assert not any(answer in said for answer in turn.answers)
        assert not {mention.film for mention in turn.mentions} & set(turn.answers)


def test_a_context_is_what_was_said_last() -> None:
    turn = Turn("d", (Utterance("seeker", "one two"), Utterance("recommender", "three")), (), ())

    assert turn.text(("seeker", "recommender"), 2) == "two three"
    assert turn.text(("seeker",), 2) == "one two"


def test_films_that_the_context_names_are_not_ranked(data: Dialogues, resources: Resources) -> None:
    films = resources.film_set("redial")
    asked = Asked.of(data.test, films)
    scores = np.tile(np.arange(len(films), 0, -1, dtype=np.float32), (2, 1))

    ranked = rank(scores, asked, 6)

    names = [[films.films[n].name for n in row if n >= 0] for row in ranked]
    assert names[0] == [
        "Amélie & Bruno (1992)",
        "Gold Dust (1993)",
        "Moon Harvest (2015)",
        "Gold Dust",
    ]
    assert len(names[1]) == len(films)


def test_an_answer_under_another_name_of_a_mentioned_film_is_none(resources: Resources) -> None:
    films = resources.film_set("ml-1m")
    mentioned = (Mention("Gold Dust", "seeker", 0),)
    turn = Turn("d", (Utterance("seeker", "Gold Dust"),), mentioned, ("Gold Dust (1993)",))

    assert not Asked.of([turn], films).turns


# --- measures


def test_measures_by_hand() -> None:
    ranked = np.array([[3, 1, 2], [0, 1, 2]])
    relevant = [[1], [2, 5]]

    found = language.measures(ranked, relevant)

    assert found["recall@1"].value == 0
    assert found["recall@10"].value == pytest.approx((1 + 1 / 2) / 2)
    ideal = 1 + 1 / np.log2(3)
    assert found["ndcg@10"].value == pytest.approx((1 / np.log2(3) + 0.5 / ideal) / 2)


def test_recall_over_pairs_counts_repeated_films_as_missed(
    data: Dialogues, resources: Resources
) -> None:
    asked = Asked.of(data.test, resources.film_set("redial"))
    ranked = np.array([asked.relevant[0], [-1]])

    # two answers, of which one is hit; two films of the first turn that were named before, and one
    # of the third turn, which has no other
    assert data.left_out[REPEATED] == 3
    assert pairs_recall(ranked, asked, data.left_out[REPEATED]) == pytest.approx(1 / 5)


def test_pairs_by_hand(resources: Resources) -> None:
    films = resources.film_set("soft-attributes")
    judged = Judged.of(resources, films, "")
    kite, ferry, gold = 0.0, 1.0, 0.0

    right = judged.right(np.array([[[kite, ferry, gold]]], np.float32), np.array([0, 0]))

    # rater 1: kite < gold (a tie), gold < ferry, kite < ferry; rater 2: ferry < kite, ferry < gold
    assert right[:, 0].tolist() == [[2.5, 3], [0, 2]]
    assert judged.over_raters(right).value == pytest.approx((2.5 / 3 + 0) / 2)
    assert judged.by_attribute(right) == {"scary": pytest.approx((2.5 / 3 + 0) / 2)}


# --- methods


def test_bm25_by_hand() -> None:
    model = BM25.fit(["gold gold dust", "dust"], k1=1.0, b=0.0)

    scores = model.scores(["gold", "unknown"])

    idf = np.log1p((2 - 1 + 0.5) / (1 + 0.5))
    assert scores[0] == pytest.approx([idf * 2 * 2 / (2 + 1), 0])
    assert scores[1].tolist() == [0, 0]


def test_words_of_the_same_neighbours_are_near() -> None:
    """Twenty groups of two words that stand beside the same two others."""
    texts = [f"{word}{n} {near}{n}" for n in range(20) for word in "ab" for near in "xy"]
    model = WordVectors.fit(texts * 5)

    near = model.means(["a1", "b1", "a2", "unknown"], weighted=False)

    assert near[0] @ near[1] > near[0] @ near[2] + 0.5
    assert near[3].tolist() == [0] * near.shape[1]


def test_ease_finds_what_is_liked_together_and_else_what_is_popular(
    data: Dialogues, resources: Resources
) -> None:
    films = resources.film_set("ml-1m")
    settings = {"mentioned_by": "seeker", "regularisation": 1.0}

    scores = METHODS["ease"].score(films, data.test, settings, resources)

    kite, ferry, gold, unknown = range(4)
    assert scores[0, ferry] > max(scores[0, gold], scores[0, unknown])
    assert scores[1].argmax() in (kite, ferry) and scores[1, unknown] == 0


def test_a_row_that_says_nothing_stays_nothing() -> None:
    found = standardise(np.array([[1, 3], [2, 2]], np.float32))

    assert found.tolist() == [[-1, 1], [0, 0]]


def test_a_conversation_becomes_searches_and_likes(data: Dialogues) -> None:
    items = {"The Red Kite (1990)": "10", "Night Ferry (1991)": "11"}
    settings = {"searches": "seeker", "recommender_mentions": "view"}

    events = history(data.test[0], items, settings)

    assert [(e.kind, e.item, e.time) for e in events] == [
        ("search", None, 1),
        ("like", "10", 1),
        ("view", "11", 2),
        ("search", None, 3),
    ]
    silent = {"searches": "none", "recommender_mentions": None}
    assert [e.kind for e in history(data.test[0], items, silent)] == ["like"]


def test_a_text_is_read_once(tiny_encoder: Path, tmp_path: Path) -> None:
    read_texts: list[int] = []
    first = EncoderVectors(tiny_encoder, tmp_path, lambda done, total: read_texts.append(total))
    vectors = first.vectors(["a kite", "gold dust", "a kite"])

    again = EncoderVectors(tiny_encoder, tmp_path, lambda done, total: read_texts.append(total))

    assert np.array_equal(again.vectors(["gold dust", "a kite"]), vectors[[1, 0]])
    assert read_texts == [2]
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1)


# --- a run


@pytest.fixture(scope="module")
def results(
    folder: Path, resources: Resources, tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[dict[str, Any], list[str], Path]]:
    """Two runs over the invented data, with the tiny bundle, which knows none of its films."""
    out = tmp_path_factory.mktemp("language")
    lines: list[str] = []
    resources.bundle = tiny_bundle
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, str(folder))
        patch.setattr(language, "gather", lambda data, options, report: resources)
        options = Options(out, bundle=tiny_bundle)
        language.run(options, lambda line: None)
        yield language.run(options, lines.append), lines, out
    resources.bundle = None


def test_every_method_is_measured_or_says_why_not(
    results: tuple[dict[str, Any], list[str], Path],
) -> None:
    found, lines, out = results

    assert [(r["task"], r["films"]) for r in found["rankings"]] == [
        (task, films) for task in ("redial", "iard") for films in language.SETS
    ]
    for ranking in found["rankings"]:
        by_name = {entry["method"]: entry for entry in ranking["methods"]}
        assert set(by_name) == set(METHODS)
        assert by_name["mpnet"]["refused"] == "not run: no network"
        measured = [entry for entry in ranking["methods"] if "metrics" in entry]
        assert len(measured) == len(METHODS) - 1
        assert all(e["metrics"][language.MAIN]["value"] is not None for e in measured)
        assert ("ours_minus_this" in by_name["bm25"]) and "ours_minus_this" not in by_name[OURS]
    # of the second run
    assert all("(kept)" in line for line in lines if " · recall" in line or ": recall@" in line)
    assert (out / "table.md").read_text() == markdown(found)


def test_the_query_about_two_cowboys_finds_the_western(
    results: tuple[dict[str, Any], list[str], Path],
) -> None:
    ranking = next(
        r for r in results[0]["rankings"] if r["task"] == "redial" and r["films"] == "redial"
    )
    bm25 = next(entry for entry in ranking["methods"] if entry["method"] == "bm25")

    assert bm25["slices"]["no film mentioned"]["value"] == 1
    assert ranking["slices"] == {"a film mentioned": 1, "no film mentioned": 1}


def test_soft_attributes_have_genre_and_year_beside_text(
    results: tuple[dict[str, Any], list[str], Path],
) -> None:
    tables = {table["films"]: table for table in results[0]["attributes"]}

    assert tables["all"]["pairs"] == 5 and tables["all"]["raters"] == 2
    names = {entry["method"] for entry in tables["all"]["methods"]}
    assert {"genre+year", "minilm", "bm25", OURS} <= names and "ease" not in names


def test_a_method_is_refused_where_the_one_that_it_begins_with_is(
    resources: Resources, tmp_path: Path
) -> None:
    encoders = {"minilm": "no disk", "mpnet": resources.encoders["minilm"]}
    altered = dataclasses.replace(resources, encoders=encoders)
    bench = Bench(Options(tmp_path, only=("mpnet", "popularity")), altered, "", lambda line: None)

    ranking = bench.ranking("redial", resources.data.test, resources.film_set("redial"))

    by_name = {entry["method"]: entry for entry in ranking["methods"]}
    assert by_name["mpnet"]["refused"] == "not run: no disk"
    assert "metrics" in by_name["popularity"]


def test_films_that_no_validation_turn_asks_for_get_the_first_settings(
    resources: Resources, tmp_path: Path
) -> None:
    lines: list[str] = []
    unasked = dataclasses.replace(
        resources, data=dataclasses.replace(resources.data, validation=())
    )
    bench = Bench(Options(tmp_path), unasked, "", lines.append)

    found = bench.settings(METHODS["bm25"], resources.film_set("redial"))

    assert found == {"speakers": "both", "k1": 0.5, "b": 0.3}
    assert len(lines) == 1 and "no validation turn" in lines[0] and "bm25" in lines[0]


def test_a_kept_ranking_is_of_its_films_sources_and_precision(
    resources: Resources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    films = resources.film_set("redial")
    bench = Bench(Options(tmp_path), resources, "", lambda line: None)

    def fingerprint(of: FilmSet = films) -> str:
        return bench._fingerprint("redial", METHODS["minilm"], of)

    monkeypatch.setattr("tasteloop.runtime.machine.has_bf16", lambda: False)
    found = {"first": fingerprint(), "again": fingerprint()}
    found["order"] = fingerprint(
        dataclasses.replace(films, films=films.films[::-1], texts=films.texts[::-1])
    )
    found["texts"] = fingerprint(dataclasses.replace(films, texts=("", *films.texts[1:])))
    monkeypatch.setattr("tasteloop.runtime.machine.has_bf16", lambda: True)
    found["precision"] = fingerprint()
    monkeypatch.setattr(language, "_SOURCES", ("ml-1m",))
    found["sources"] = fingerprint()

    assert found["first"] == found["again"]
    assert len(set(found.values())) == len(found) - 1


def test_where_ours_loses_comes_first() -> None:
    def entry(name: str, low: float, high: float) -> dict[str, Any]:
        middle = (low + high) / 2
        return {"method": name, "ours_minus_this": {"value": middle, "low": low, "high": high}}

    lines = list(verdicts([entry("a", 0.1, 0.2), entry("b", -0.1, 0.1), entry("c", -0.2, -0.1)]))

    assert [line.split(":")[0].split()[-1] for line in lines] == ["c", "b", "a"]
    assert "loses" in lines[0] and "chance" in lines[1] and "ahead" in lines[2]


@pytest.mark.parametrize(
    ("options", "said"),
    [({"only": ("bm52",)}, "no method 'bm52'"), ({"sets": ("ml",)}, "no film set 'ml'")],
)
def test_a_name_that_is_not_known(tmp_path: Path, options: Any, said: str) -> None:
    with pytest.raises(TasteloopError, match=said):
        language.run(Options(tmp_path, **options), lambda line: None)


def test_without_data_the_message_says_what_to_get_from_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    with pytest.raises(TasteloopError) as unset:
        data_directory()
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    with pytest.raises(TasteloopError) as empty:
        data_directory()

    for name, origin in FILES.items():
        assert f"{name}: {origin}" in str(unset.value)
        assert name in str(empty.value)


# --- the real files


@pytest.mark.skipif(
    not os.environ.get(VARIABLE), reason=f"{VARIABLE} names no directory with the real dialogues"
)
def test_the_real_files_are_read_and_leak_nothing() -> None:
    data = read(data_directory())

    assert (len(data.test), len(data.validation), len(data.requests)) == (3079, 2738, 359)
    assert sum(len(comparison.pairs()) for comparison in data.comparisons) == 197_511
    for turn in (*data.test, *data.validation, *data.requests):
        said = turn.text(("seeker", "recommender"), 10_000)
        assert not {mention.film for mention in turn.mentions} & set(turn.answers)
        # an entry of the list is a year alone
        dated = [answer for answer in turn.answers if answer.endswith(")") and answer != "(2007)"]
        assert not any(answer in said for answer in dated)
