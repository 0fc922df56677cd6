"""Bad data is refused with a reason, and nothing that data can be makes validation raise."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import narwhals as nw
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from tasteloop.behaviour import events as ev
from tasteloop.behaviour import items as it
from tasteloop.behaviour.kinds import KINDS
from tasteloop.behaviour.times import SECOND
from tasteloop.datasets.item_text import JoinCounts
from tasteloop.files import read_json, write_json, write_parquet
from tasteloop.privacy.pseudonyms import pseudonym
from tests.support import samples
from tests.support.pages import Reader
from validation.data.expectations import ValidationResult, ValidationSettings, validate
from validation.pages.dataset import write_page_beside

DAY = 86_400 * SECOND
USERS, ITEMS, EVENTS, REVIEWS = 20, 30, 400, 60


def frame(schema: nw.Schema, columns: dict[str, list[Any]]) -> pl.DataFrame:
    return pl.DataFrame(columns, schema=schema.to_polars())


def events() -> pl.DataFrame:
    kinds = [("rate", "view", "search", "rate")[i % 4] for i in range(EVENTS)]
    return frame(
        ev.EVENTS_SCHEMA,
        {
            ev.USER: [pseudonym(str(i % USERS), b"key" * 8) for i in range(EVENTS)],
            ev.ITEM: [
                None if kind == "search" else f"i{i % ITEMS}" for i, kind in enumerate(kinds)
            ],
            ev.KIND: kinds,
            ev.TIME: [10_000 * DAY + i * 60 * SECOND for i in range(EVENTS)],
            ev.VALUE: [(i % 5) / 4 if kind == "rate" else None for i, kind in enumerate(kinds)],
            ev.TEXT: ["a query" if kind == "search" else None for kind in kinds],
        },
    )


def items() -> pl.DataFrame:
    return frame(
        it.ITEMS_SCHEMA,
        {
            it.ITEM: [f"i{i}" for i in range(ITEMS)],
            it.TITLE: [f"Film {i}" for i in range(ITEMS)],
            it.LABELS: [["Drama", "War"] if i % 3 else ["Comedy"] for i in range(ITEMS)],
            it.TEXT: [None] * ITEMS,
            it.DOMAIN: ["film"] * ITEMS,
            it.RELEASED: [date(1995, 1, 1) if i % 2 else None for i in range(ITEMS)],
        },
    )


def reviews() -> pl.DataFrame:
    return frame(
        it.REVIEWS_SCHEMA,
        {
            it.REVIEW: [f"r{i}" for i in range(REVIEWS)],
            it.TEXT: [f"a review, number {i}" for i in range(REVIEWS)],
            it.SENTIMENT: [i % 2 for i in range(REVIEWS)],
            it.ITEM: [None] * REVIEWS,
            it.SOURCE: ["mine.csv"] * REVIEWS,
        },
    )


TABLES: dict[str, Callable[[], pl.DataFrame]] = {
    "events": events,
    "items": items,
    "reviews": reviews,
}


def dataset(path: Path, **tables: pl.DataFrame | None) -> Path:
    """A sound data set, with these tables instead of its own; None leaves a table out."""
    for name, made in TABLES.items():
        if (table := tables.get(name, made())) is not None and (
            name not in tables or tables[name] is not None
        ):
            write_parquet(path / f"{name}.parquet", table)
    write_json(path / "ingest.json", {"source": "test", "rows_in": EVENTS, "rows_out": EVENTS})
    return path


def run(
    path: Path, previous: Path | None = None, **bounds: Any
) -> tuple[ValidationResult, dict[str, Any]]:
    out = path / "out"
    result = validate(path, ValidationSettings(**bounds), out, previous)
    write_page_beside(out)
    record = read_json(out / "validation.json")
    assert (out / "validation.html").is_file()
    assert (
        record["passed"] is result.passed is (result.errors == 0)
        and record["reason"] == result.reason
    )
    return result, record


def failed(record: dict[str, Any]) -> list[str]:
    return [
        f"{c['severity']} {c['table']} {c['rule']}" for c in record["checks"] if not c["passed"]
    ]


def test_the_page_says_how_many_items_got_a_text(tmp_path: Path) -> None:
    path = dataset(tmp_path)
    joined = JoinCounts("plots.jsonl", rows=90, by_id=70, by_title=5, unmatched=15)
    joined = replace(joined, items=ITEMS, items_with_text=25)
    write_json(
        path / "ingest.json",
        {"rows_in": EVENTS, "rows_out": EVENTS, "item_text": joined.record()},
    )

    _, record = run(path)

    assert record["item_text"] == joined.record()
    page = re.sub(r"\s*<[^>]+>\s*", " ", (path / "out" / "validation.html").read_text())
    page = " ".join(page.split())
    assert "Texts about items" in page and "plots.jsonl" in page
    assert "joined by an item&#39;s id 70 joined by title and year 5" in page
    assert "of no item 15" in page
    assert f"Items {ITEMS} with a text 25" in page


def test_a_page_without_texts_says_nothing_of_them(tmp_path: Path) -> None:
    path = dataset(tmp_path)

    _, record = run(path)

    assert "item_text" not in record
    assert "Texts about items" not in (path / "out" / "validation.html").read_text()


def test_a_sound_data_set_passes_and_leaves_its_counts(tmp_path: Path) -> None:
    result, record = run(dataset(tmp_path))
    assert result.passed and failed(record) == []
    assert result.reason == f"0 errors, 0 warnings in {len(record['checks'])} checks"
    assert record["stats"] == {
        "events": EVENTS,
        "users": USERS,
        "kinds": {**dict.fromkeys(KINDS, 0), "rate": 200, "view": 100, "search": 100},
        "newest": 10_000 * DAY + (EVENTS - 1) * 60 * SECOND,
        "items": ITEMS,
        "labels": 3,
        "reviews": REVIEWS,
    }
    made = [check for check in record["checks"] if check["expectation"]]
    assert len(made) == len(record["checks"]) and all(
        c["expectation"].startswith("expect_") for c in made
    )


def test_reviews_are_optional_until_there_were_some(tmp_path: Path) -> None:
    bare = dataset(tmp_path / "bare", reviews=None)
    assert run(bare)[0].passed
    previous = tmp_path / "accepted.json"
    write_json(previous, {"reviews": 60})
    result, record = run(bare, previous)
    assert failed(record) == ["error reviews present"] and "as the 60 of the last" in result.reason


def changed(table: pl.DataFrame, column: str, value: Any, rows: int = 1) -> pl.DataFrame:
    """The first rows of a column set to a value, in the column's own type."""
    dtype = table.schema[column]
    new = pl.Series(column, [value] * rows, dtype=dtype)
    return table.with_columns(pl.concat([new, table[column][rows:]]).alias(column))


BROKEN: dict[str, tuple[dict[str, Callable[[], pl.DataFrame | None]], list[str]]] = {
    "unknown kind": (
        {"events": lambda: changed(events(), ev.KIND, "veiw", 2)},
        ["error events kind known"],
    ),
    "negative time": (
        {"events": lambda: changed(events(), ev.TIME, -5)},
        ["error events time possible"],
    ),
    "far future": (
        {"events": lambda: changed(events(), ev.TIME, 2**62)},
        ["error events time possible"],
    ),
    "null time": (
        {"events": lambda: changed(events(), ev.TIME, None)},
        ["error events time present"],
    ),
    "value above the scale": (
        {"events": lambda: changed(events(), ev.VALUE, 1.5)},
        ["error events value range"],
    ),
    "NaN value": (
        {"events": lambda: changed(events(), ev.VALUE, float("nan"))},
        ["error events value range"],
    ),
    "infinite value": (
        {"events": lambda: changed(events(), ev.VALUE, float("inf"))},
        ["error events value range"],
    ),
    "null user": (
        {"events": lambda: changed(events(), ev.USER, None)},
        ["error events user present"],
    ),
    "null kind": (
        {"events": lambda: changed(events(), ev.KIND, None)},
        ["error events kind present"],
    ),
    "raw user ids": (
        {"events": lambda: changed(events(), ev.USER, "ann@example.com")},
        ["error events pseudonyms"],
    ),
    "one duplicate": (
        {"events": lambda: pl.concat([events(), events()[:1]])},
        ["warning events no duplicates"],
    ),
    "many duplicates": (
        {"events": lambda: pl.concat([events(), events()[:50]])},
        ["error events no duplicates"],
    ),
    "an unlisted item": (
        {"events": lambda: changed(events(), ev.ITEM, "i999")},
        ["warning events items listed"],
    ),
    "unlisted items": ({"items": lambda: items()[:15]}, ["error events items listed"]),
    "a rating without value": (
        {"events": lambda: changed(events(), ev.VALUE, None)},
        ["warning events ratings have a value"],
    ),
    "a search without text": (
        {"events": lambda: changed(events(), ev.TEXT, None, 3)},
        ["warning events searches have a text"],
    ),
    "one user only": (
        {"events": lambda: events().with_columns(pl.lit(pseudonym("1", b"k" * 16)).alias(ev.USER))},
        ["error events enough users"],
    ),
    "few events": ({"events": lambda: events()[:80]}, ["error events enough events"]),
    "nothing positive": (
        {
            "events": lambda: events().with_columns(
                pl.col(ev.VALUE) * 0, pl.lit("rate").alias(ev.KIND)
            )
        },
        ["error events enough positives", "error events ratings have a value"],
    ),
    "one label only": (
        {"items": lambda: items().with_columns(pl.Series(it.LABELS, [["Drama"]] * ITEMS))},
        ["error labels enough labels"],
    ),
    "no labels": (
        {
            "items": lambda: items().with_columns(
                pl.Series(it.LABELS, [[]] * ITEMS, dtype=pl.List(pl.String))
            )
        },
        ["warning items labels present"],
    ),
    "blank label": (
        {"items": lambda: changed(items(), it.LABELS, ["Drama", " "])},
        ["error labels label not blank"],
    ),
    "label twice": (
        {"items": lambda: changed(items(), it.LABELS, ["Drama", "Drama"])},
        ["warning labels label once"],
    ),
    "item twice": (
        {"items": lambda: pl.concat([items(), items()[:1]])},
        ["error items item unique", "warning labels label once"],
    ),
    "a title missing": (
        {"items": lambda: changed(items(), it.TITLE, None)},
        ["warning items titled"],
    ),
    "titles missing": (
        {"items": lambda: changed(items(), it.TITLE, None, 5)},
        ["error items titled"],
    ),
    "titles blank": (
        {"items": lambda: changed(items(), it.TITLE, "  ", 5)},
        ["error items title not blank"],
    ),
    "empty events": ({"events": lambda: events()[:0]}, ["error events rows"]),
    "empty items": ({"items": lambda: items()[:0]}, ["error items rows"]),
    "empty reviews": ({"reviews": lambda: reviews()[:0]}, ["error reviews rows"]),
    "no items at all": ({"items": lambda: None}, ["error items readable"]),
    "a missing column": ({"events": lambda: events().drop(ev.KIND)}, ["error events columns"]),
    "missing labels": ({"items": lambda: items().drop(it.LABELS)}, ["error items columns"]),
    "time as text": (
        {"events": lambda: events().with_columns(pl.col(ev.TIME).cast(pl.String))},
        ["error events time type"],
    ),
    "value as float64": (
        {"events": lambda: events().with_columns(pl.col(ev.VALUE).cast(pl.Float64))},
        ["error events value type"],
    ),
    "items as numbers": (
        {"items": lambda: items().with_columns(pl.int_range(ITEMS).alias(it.ITEM))},
        ["error items item type"],
    ),
    "labels as text": (
        {"items": lambda: items().with_columns(pl.lit("Drama|War").alias(it.LABELS))},
        ["error items labels type"],
    ),
    "labels as numbers": (
        {"items": lambda: items().with_columns(pl.Series(it.LABELS, [[1, 2]] * ITEMS))},
        ["error items labels type"],
    ),
    "sentiment 2": (
        {"reviews": lambda: changed(reviews(), it.SENTIMENT, 2)},
        ["error reviews sentiment known"],
    ),
    "sentiment null": (
        {"reviews": lambda: changed(reviews(), it.SENTIMENT, None)},
        ["error reviews sentiment present"],
    ),
    "one sentiment": (
        {"reviews": lambda: reviews().with_columns(pl.lit(1, pl.Int8).alias(it.SENTIMENT))},
        ["error reviews balance"],
    ),
    "blank review": (
        {"reviews": lambda: changed(reviews(), it.TEXT, " ")},
        ["error reviews text not blank"],
    ),
    "review twice": (
        {"reviews": lambda: pl.concat([reviews(), reviews()[:1]])},
        ["error reviews review unique", "warning reviews text unique"],
    ),
}


@pytest.mark.parametrize(("tables", "expected"), BROKEN.values(), ids=BROKEN)
def test_each_fault_is_found_and_named(
    tmp_path: Path, tables: dict[str, Callable[[], pl.DataFrame | None]], expected: list[str]
) -> None:
    made = {name: make() for name, make in tables.items()}
    result, record = run(dataset(tmp_path, **{"reviews": None, **made}))
    assert failed(record) == expected
    assert result.passed is not any(name.startswith("error") for name in expected)


def test_the_reason_tells_the_rule_the_count_and_samples(tmp_path: Path) -> None:
    result, record = run(dataset(tmp_path, events=changed(events(), ev.KIND, "veiw", 2)))
    assert result.reason.endswith(
        f"events: kind is one of {', '.join(KINDS)}; 2 of 400 rows (0.50%) break it, such as 'veiw'"
    )
    (check,) = [c for c in record["checks"] if not c["passed"]]
    assert (check["unexpected"], check["rows"], check["samples"]) == (2, 400, ["'veiw'"])


def test_what_people_wrote_and_raw_ids_are_not_shown(tmp_path: Path) -> None:
    secret = changed(
        changed(events(), ev.TEXT, "my phone is 555-0100", 2), ev.USER, "ann@example.com", 2
    )
    twice = pl.concat([secret, secret[:2]])
    texts = changed(reviews(), it.TEXT, "I live at 5 Elm Street", 2)
    _, record = run(dataset(tmp_path, events=twice, reviews=texts))
    assert {
        "error events pseudonyms",
        "warning events no duplicates",
        "warning reviews text unique",
    } <= {*failed(record)}
    for name in ("validation.json", "validation.html"):
        text = (tmp_path / "out" / name).read_text()
        assert not any(word in text for word in ("555-0100", "ann@", "Elm Street"))


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("keep", [0, 3, 4, 0.5, -1])
def test_a_truncated_parquet_is_refused(tmp_path: Path, name: str, keep: float) -> None:
    file = dataset(tmp_path) / f"{name}.parquet"
    whole = file.read_bytes()
    file.write_bytes(whole[: int(len(whole) * keep) if 0 < keep < 1 else int(keep)])
    result, record = run(tmp_path)
    assert not result.passed and failed(record)[0] == f"error {name} readable"


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_damaged_bytes_never_raise(tmp_path: Path, data: st.DataObject) -> None:
    file = dataset(tmp_path, reviews=None) / "events.parquet"
    damaged = bytearray(file.read_bytes())
    for _ in range(data.draw(st.integers(1, 8))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    file.write_bytes(damaged)
    run(tmp_path)


def test_an_empty_directory_is_refused(tmp_path: Path) -> None:
    result, record = run(tmp_path)
    assert not result.passed
    assert failed(record) == [
        "error events readable",
        "error items readable",
        "warning ingest record",
    ]


def test_volume_is_compared_with_the_last_accepted_data_set(tmp_path: Path) -> None:
    path = dataset(tmp_path)
    previous = tmp_path / "accepted.json"
    assert run(path, previous)[0].passed  # there is none yet
    run(path)
    assert failed(run(path, path / "out" / "validation.json")[1]) == []
    write_json(previous, {"events": 1000, "users": 5, "items": None, "reviews": REVIEWS})
    result, record = run(path, previous)
    assert failed(record) == ["error events events kept", "warning events users grown"]
    assert (
        "at least 0.5 of the 1,000 events of the last accepted data set; found 400" in result.reason
    )


def test_labels_that_the_last_accepted_data_set_had_may_not_be_missing(tmp_path: Path) -> None:
    bare = items().with_columns(pl.Series(it.LABELS, [[]] * ITEMS, dtype=pl.List(pl.String)))
    path, previous = dataset(tmp_path, items=bare), tmp_path / "accepted.json"
    write_json(previous, {"labels": 3})

    result, record = run(path, previous)

    assert failed(record) == ["error items labels present"]
    assert "as those of the last accepted data set did (3 labels); found no labels" in result.reason


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"events": "many"}', '{"stats": 3}', '{"events": Infinity}']
)
def test_an_unreadable_last_data_set_is_a_warning(tmp_path: Path, text: str) -> None:
    previous = tmp_path / "accepted.json"
    previous.write_text(text)
    result, record = run(dataset(tmp_path), previous)
    assert result.passed and failed(record) == ["warning data set previous"]


def test_freshness_is_off_until_set(tmp_path: Path) -> None:
    old = dataset(tmp_path / "old")
    result, record = run(old, max_age_days=30)
    assert failed(record) == ["error events fresh"] and "found 1997-05-19" in result.reason
    now = int(time.time() * SECOND)
    late = events().with_columns(pl.col(ev.TIME) - pl.col(ev.TIME).max() + now)
    assert failed(run(dataset(tmp_path / "new", events=late), max_age_days=30)[1]) == []


def test_shares_of_kinds_have_bounds(tmp_path: Path) -> None:
    path = dataset(tmp_path)
    assert run(path, kind_shares={"rate": (0.4, 0.6), "purchase": (0, 0.1)})[0].passed
    result, record = run(path, kind_shares={"rate": (0.6, 1), "purchase": (0.1, 0.2)})
    assert failed(record) == ["error events share of rate", "error events share of purchase"]
    assert "the share of rate events lies in [0.6, 1]; found 0.5" in result.reason


@pytest.mark.parametrize(("kept", "expected"), [(400, []), (300, ["warning"]), (100, ["error"])])
def test_what_ingest_removed_is_judged(tmp_path: Path, kept: int, expected: list[str]) -> None:
    path = dataset(tmp_path)
    write_json(path / "ingest.json", {"rows_in": 400, "rows_out": kept})
    assert failed(run(path)[1]) == [f"{level} ingest few rejected" for level in expected]


@pytest.mark.parametrize("hostile", samples.HOSTILE)
def test_the_page_is_inert(tmp_path: Path, hostile: str) -> None:
    table = changed(changed(events(), ev.KIND, hostile), ev.ITEM, hostile, 2)
    twice = pl.concat(
        [items(), changed(items()[:1], it.ITEM, hostile), changed(items()[:1], it.ITEM, hostile)]
    )
    run(dataset(tmp_path, events=table, items=twice))
    page = (tmp_path / "out" / "validation.html").read_text()
    read = Reader(page)
    assert "The data is refused" in page and repr(hostile)[1:-1] in "".join(read.texts).replace(
        "\\'", "'"
    )
    assert not {"script", "img"} & set(read.tags)
    assert not [name for name, _ in read.attributes if name.startswith("on")]


def test_great_expectations_is_quiet(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run(dataset(tmp_path))
    shown = capfd.readouterr()
    assert "Calculating Metrics" not in shown.err + shown.out


@pytest.mark.parametrize(
    "wrong",
    [
        {"min_user": 3},
        {"kind_shares": {"veiw": (0, 1)}},
        {"kind_shares": {"view": (0.5, 0.1)}},
        {"max_unlisted": 2},
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ValidationSettings(**wrong)


def test_the_record_is_json(tmp_path: Path) -> None:
    table = changed(changed(events(), ev.VALUE, float("nan")), ev.TIME, -(2**62))
    run(dataset(tmp_path, events=table))
    text = (tmp_path / "out" / "validation.json").read_text()
    json.loads(text, parse_constant=lambda name: pytest.fail(name))


SOURCES: dict[str, tuple[dict[str, Any], list[str], str]] = {
    "a sound source": (
        {
            "unlisted": {"events": 2, "of": 300},
            "kinds": {"rate": {"rows": 9, "removed": {"missing": 1}}},
        },
        [],
        "",
    ),
    "items that the catalogue lacks": (
        {"unlisted": {"events": 30, "of": 300}},
        ["warning ingest items catalogued"],
        "at most 0.05 of the events name an item that the source's catalogue lacks; found 0.1",
    ),
    "mostly items that the catalogue lacks": (
        {"unlisted": {"events": 200, "of": 300}},
        ["error ingest items catalogued"],
        "at most 0.5 of the events name an item that the source's catalogue lacks; found 0.6667",
    ),
    "a kind that a rule removed": (
        {
            "kinds": {
                "review": {"rows": 1611, "removed": {"incomplete": 1611}},
                "rate": {"rows": 9, "removed": {}},
            }
        },
        ["warning ingest kinds kept"],
        "found review: incomplete removed 1,611 of 1,611 rows (100%)",
    ),
    "reviews that a rule removed": (
        {"kinds": {}, "reviews": 40, "reviews_rules": {"disputed_text": {"removed": 60}}},
        ["warning ingest kinds kept"],
        "found reviews of reviews.parquet: disputed_text removed 60 of 100 rows (60%)",
    ),
    "ids that are words for nothing": (
        {"null_words": {"user": {"NULL": 3}, "item": {"nan": 1}}},
        ["warning ingest no null words"],
        "found item 'nan' (1 row), user 'NULL' (3 rows)",
    ),
    "no catalogue, and what is no count": (
        {"unlisted": None, "kinds": [], "null_words": "x"},
        [],
        "",
    ),
}


@pytest.mark.parametrize(("said", "expected", "reason"), SOURCES.values(), ids=SOURCES)
def test_what_ingest_says_of_the_source_is_checked(
    tmp_path: Path, said: dict[str, Any], expected: list[str], reason: str
) -> None:
    path = dataset(tmp_path)
    write_json(
        path / "ingest.json", {"source": "test", "rows_in": EVENTS, "rows_out": EVENTS, **said}
    )

    result, record = run(path)

    assert failed(record) == expected
    assert reason in result.reason


def texts_of(record: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The checks on what people write, by rule."""
    return {check["rule"]: check for check in record["checks"] if check["table"] == "texts"}


def written(searches: str | None, opinions: str | None = None) -> pl.DataFrame:
    """The sound events with another text in every search and, if any, in every rating."""
    said = {"search": searches, "rate": opinions}
    text = pl.col(ev.KIND).replace_strict(said, default=None, return_dtype=pl.String)
    return events().with_columns(text.alias(ev.TEXT))


def test_data_without_texts_has_nothing_to_check_of_them(tmp_path: Path) -> None:
    silent = written(None).filter(pl.col(ev.KIND) != "search")

    result, record = run(dataset(tmp_path, events=silent))

    assert result.passed and texts_of(record) == {}


def test_usual_texts_pass_each_rule_with_the_share_that_came(tmp_path: Path) -> None:
    result, record = run(dataset(tmp_path, events=written("war films, please!", "nicely made")))

    checks = texts_of(record)
    assert result.passed and all(check["passed"] for check in checks.values())
    assert set(checks) == {
        "searches readable",
        "texts about items readable",
        "searches short",
        "in the catalogue's letters",
    }
    assert {check["found"] for check in checks.values()} == {"found 0"}


@pytest.mark.parametrize("text", ["می\u200cخواهم", "\u200fסרט\u200e", "👨\u200d👩\u200d👧 film"])
def test_signs_that_join_letters_or_turn_their_direction_are_ordinary_writing(
    tmp_path: Path, text: str
) -> None:
    _, record = run(dataset(tmp_path, events=written(text, "nicely made")))

    assert texts_of(record)["searches readable"]["passed"]


@pytest.mark.parametrize(
    "text",
    [None, "", "  ", "?!…", "\ufffd\ufffd\ufffd\ufffdr\ufffd", "caf\x82 \x90\x91 b\x93", "🤠🤠"],
)
def test_searches_that_nobody_can_read_are_refused_with_what_came_and_what_is_allowed(
    tmp_path: Path, text: str | None
) -> None:
    result, record = run(dataset(tmp_path, events=written(text, "nicely made")))

    check = texts_of(record)["searches readable"]
    assert not result.passed and (check["severity"], check["passed"]) == ("error", False)
    assert check["about"].startswith("at most 0.5 of the searches cannot be read")
    assert check["found"] == "found 1" and texts_of(record)["texts about items readable"]["passed"]
    assert check["about"] in result.reason


def test_a_few_unreadable_searches_are_a_warning(tmp_path: Path) -> None:
    some = events()
    few = (pl.int_range(pl.len()) % 20 == 2) & (pl.col(ev.KIND) == "search")
    some = some.with_columns(pl.when(few).then(pl.lit("")).otherwise(ev.TEXT).alias(ev.TEXT))

    result, record = run(dataset(tmp_path, events=some))

    check = texts_of(record)["searches readable"]
    assert result.passed and (check["severity"], check["found"]) == ("warning", "found 0.2")
    assert check["about"].startswith("at most 0.1 of the searches")


def test_texts_about_items_that_nobody_can_read_are_refused(tmp_path: Path) -> None:
    result, record = run(dataset(tmp_path, events=written("war films", "\x00\x01")))

    assert not result.passed and not texts_of(record)["texts about items readable"]["passed"]
    assert texts_of(record)["searches readable"]["passed"]


@pytest.mark.parametrize(
    ("text", "title", "passes"),
    [
        ("военные фильмы", "Film", False),
        ("战争片", "Film", False),
        ("war films (战)", "Film", True),
        ("战争片", "战争 电影", True),
        ("1984", "Film", True),
    ],
)
def test_texts_in_letters_that_the_catalogue_is_not_written_in_are_named(
    tmp_path: Path, text: str, title: str, passes: bool
) -> None:
    named = items().with_columns(pl.lit(title).alias(it.TITLE))

    result, record = run(dataset(tmp_path, events=written(text), items=named))

    check = texts_of(record).get("in the catalogue's letters", {"passed": True})
    assert result.passed and check["passed"] is passes
    if not passes:
        assert (check["severity"], check["found"]) == ("warning", "found 1")
        assert check["about"].startswith("at most 0.5 of the texts are mostly in letters")


def test_searches_as_long_as_a_page_are_named(tmp_path: Path) -> None:
    _, record = run(dataset(tmp_path, events=written("war films " * 30)))

    check = texts_of(record)["searches short"]
    assert (check["severity"], check["passed"]) == ("warning", False)
    assert "over 200 characters" in check["about"] and check["found"] == "found 1"
