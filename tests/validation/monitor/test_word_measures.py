"""What people ask for, refuse and say of items is watched, and what is new in it is seen."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest

from tasteloop.behaviour.events import EVENTS_SCHEMA
from tasteloop.behaviour.items import Catalogue
from tasteloop.behaviour.text import TextSettings
from tasteloop.language.hearing import Gist
from validation.monitor.decision import DecisionSettings, Evidence, Finding, decide
from validation.monitor.drift import codebook, findings, natural_bounds, profile
from validation.monitor.evidently_page import evidently
from validation.monitor.measure import Side
from validation.monitor.reference import STANCE, WISH, WatchSettings, answers_schema, rows_of
from validation.monitor.sampling import WINDOW, Codebook, DriftSettings, Reader
from validation.monitor.word_measures import WORDS

SETTINGS = DriftSettings(draws=999, texts=400)
WINDOWS, USERS = 6, 40
ASKS, LACKS, REFUSES = "a western please", "garden chairs please", "no western"


def listen(texts: Sequence[str]) -> list[Gist]:
    """A reader of rules: it knows one label, and refusals by their first word."""
    out = []
    for text in texts:
        western, refuses = "western" in text, text.startswith("no ")
        wanted = ("Western",) if western and not refuses else ()
        refused = ("Western",) if refuses else ()
        asks = int("please" in text)
        out.append(Gist(wanted, refused, "title" in text, refuses, asks, asks * (1.0 - western)))
    return out


def stance(texts: Sequence[str]) -> Mapping[str, float | None]:
    known = {"loved it": 0.95, "hated it": 0.05}
    return {text: known.get(text) for text in texts}


def encode(texts: Sequence[str]) -> Any:
    return np.array([[len(text), text.count("e")] for text in texts], np.float32)


CATALOGUE = Catalogue(["f1", "f2"], ["One", "Two"], [["Western"], ["Comedy"]], [None, None])
READER = Reader(CATALOGUE, TextSettings(), encode, None, stance, listen)


def behaviour(
    windows: int,
    search: Callable[[int], str | None] = lambda n: (ASKS, REFUSES, ASKS, ASKS)[n % 4],
    review: Callable[[int], str | None] = lambda n: ("loved it", "hated it")[n % 2],
    value: Callable[[int], float | None] = lambda n: float(n % 2 == 0),
) -> pl.DataFrame:
    """In each window every user searches, and reviews a film: even users for it."""
    rows = []
    for window in range(windows):
        for n in range(USERS):
            user = f"u{window}-{n}"
            if (text := search(n)) is not None:
                rows.append((user, None, "search", n, None, text, window))
            rows.append((user, "f1", "review", n, value(n), review(n), window))
    schema = {**EVENTS_SCHEMA.to_polars(), WINDOW: pl.Int32()}
    return pl.DataFrame(rows, schema=schema, orient="row")


def heard(windows: int, lacks: float = 0.0) -> pl.DataFrame:
    """A journal of which a share of the users asked for what the catalogue lacks."""
    rows = []
    for window in range(windows):
        for n in range(USERS):
            asks = {"searches": 1, "asks": 1, "unmet": float(n < lacks * USERS), "refusals": 0}
            rows.append({"request": f"{window}-{n}", "user": f"u{window}-{n}", "heard": asks})
            rows[-1] |= {"model": "recommend", "instance": 0, "time": n, WINDOW: window}
    return pl.DataFrame(rows, schema=answers_schema())


NO_ANSWERS = pl.DataFrame(schema=answers_schema())


def side(
    events: pl.DataFrame,
    answers: pl.DataFrame = NO_ANSWERS,
    book: Codebook | None = None,
    reader: Reader = READER,
) -> Side:
    if book is None:
        book = codebook(events, answers, reader, SETTINGS)
    return Side(events, answers, reader, SETTINGS, book)


def compared(before: Side, now: Side) -> dict[str, Finding]:
    reference = profile(before)
    natural = natural_bounds(reference, SETTINGS)
    found = findings(reference, profile(now), natural, {}, SETTINGS)
    return {finding.measure: finding for finding in found}


def outcomes(before: Side, now: Side) -> list[str]:
    """What is decided in two windows alike after a reference."""
    rules = DecisionSettings(minimum=20, alpha=0.05)
    found = tuple(compared(before, now).values())
    evidence = [
        Evidence(id=str(n), window=f"{n}/{n + 1}", end=n, reference="r", champion="c")
        for n in range(2)
    ]
    evidence = [each.model_copy(update={"findings": found}) for each in evidence]
    return [decide(evidence[: n + 1], [], 0, rules).outcome for n in range(2)]


@pytest.fixture(scope="module")
def usual() -> Side:
    return side(behaviour(WINDOWS), heard(WINDOWS))


def test_words_as_before_are_no_drift(usual: Side) -> None:
    found = compared(usual, side(behaviour(1), heard(1), usual.book))

    for measure in WORDS:
        finding = found[measure.name]
        assert finding.effect == 0 and finding.n >= 20, finding


@pytest.mark.parametrize(
    ("search", "moved", "effect"),
    [
        (lambda n: LACKS if n % 2 else ASKS, "wishes.unmet", 0.5),
        (lambda n: REFUSES if n % 3 else ASKS, "refusals", 0.4),
        (lambda n: "hello" if n % 2 else ASKS, "wishes", 0.5),
    ],
)
def test_what_is_asked_for_is_seen_where_it_changes(
    usual: Side, search: Callable[[int], str], moved: str, effect: float
) -> None:
    found = compared(usual, side(behaviour(1, search), heard(1), usual.book))

    assert found[moved].effect == pytest.approx(effect, abs=0.1)
    assert (found[moved].p or 1) <= 0.05
    for other in ("stance", "stance.agreement", "prediction.heard"):
        assert found[other].effect == 0


def test_a_human_is_called_where_the_catalogue_lacks_what_is_asked_for(usual: Side) -> None:
    events = behaviour(1, lambda n: LACKS if n % 3 == 0 else ASKS)

    assert outcomes(usual, side(events, heard(1), usual.book)) == ["watch", "alert-human"]


def test_irony_is_seen_beside_the_value_and_calls_a_human(usual: Side) -> None:
    ironic = behaviour(1, review=lambda n: ("hated it", "loved it")[n % 2])
    found = compared(usual, side(ironic, heard(1), usual.book))

    assert found["stance.agreement"].effect == pytest.approx(1, abs=0.05)
    assert found["stance"].effect == 0  # as many are favourable as before
    assert outcomes(usual, side(ironic, heard(1), usual.book)) == ["watch", "alert-human"]


@pytest.mark.parametrize(
    "value", [lambda _: None, lambda _: 0.5], ids=["without a value", "neither for nor against"]
)
def test_words_beside_which_no_value_says_anything_do_not_disagree(
    usual: Side, value: Callable[[int], float | None]
) -> None:
    samples = profile(side(behaviour(1, value=value), heard(1), usual.book))

    assert "stance.agreement" not in samples and len(samples["stance"]) == USERS


def test_the_journal_alone_shows_what_is_lacking(usual: Side) -> None:
    silent = behaviour(1, search=lambda _: None)
    found = compared(usual, side(silent, heard(1, lacks=0.5), usual.book))

    assert found["prediction.heard"].effect == pytest.approx(0.5, abs=0.1)
    assert (found["wishes.unmet"].effect, found["wishes.unmet"].n) == (None, 0)


def test_without_words_or_a_reader_of_them_nothing_is_measured_and_nothing_fails(
    usual: Side,
) -> None:
    silent = behaviour(1, lambda _: None, lambda _: None)
    old_journal = heard(1).drop("heard")
    deaf = replace(READER, stance=None, listen=None)
    names = {measure.name for measure in WORDS}
    for some in (
        side(silent, NO_ANSWERS, usual.book),
        side(silent, old_journal, usual.book),
        side(behaviour(1), NO_ANSWERS, usual.book, deaf),
    ):
        assert not names & set(profile(some))
        found = compared(usual, some)
        assert {found[name].effect for name in names} == {None}
    # and a reference without words is compared with a window that has some
    assert not names & set(compared(side(silent), side(behaviour(1), heard(1))))


def test_evidently_sees_what_was_understood_and_no_text(usual: Side) -> None:
    settings = WatchSettings(drift=SETTINGS)
    before = rows_of(usual, settings)
    ironic = behaviour(1, lambda n: LACKS, lambda n: ("hated it", "loved it")[n % 2])
    now = rows_of(side(ironic, heard(1), usual.book), settings)

    assert set(before[WISH].drop_nulls()) == {"a label", "refuses"}
    assert set(now[WISH].drop_nulls()) == {"asks for what is lacking"}
    assert set(before[STANCE].drop_nulls()) == {"favourable", "unfavourable"}
    assert set(now[STANCE].drop_nulls()) == {"opposite of the value"}
    assert before[WISH].drop_nulls().len() == WINDOWS * USERS  # one of each unit
    none = pl.DataFrame(schema={**answers_schema(), "relevant": pl.List(pl.String)})
    _, numbers = evidently(before, now, none, none, CATALOGUE)
    assert numbers.columns is not None
    apart = float(np.sqrt(np.log(2)))  # Jensen-Shannon, of what has nothing in common
    assert numbers.columns[WISH].score == pytest.approx(apart, abs=0.01)
    assert numbers.columns[STANCE].score == pytest.approx(apart, abs=0.01)
    # a sample of before these columns
    _, earlier = evidently(before.drop(WISH, STANCE), now, none, none, CATALOGUE)
    assert earlier.columns is not None and not {WISH, STANCE} & set(earlier.columns)


def test_at_most_so_many_texts_are_read_and_always_the_same(usual: Side) -> None:
    read: list[str] = []

    def counting(texts: Sequence[str]) -> list[Gist]:
        read.extend(texts)
        return listen(texts)

    few = replace(usual, settings=DriftSettings(draws=199, texts=50))
    counted = replace(few, reader=replace(READER, listen=counting))
    places = [search.row for search in counted.searches]

    profile(counted)

    assert len(read) == len(places) == 50
    assert places == [search.row for search in replace(counted).searches]
