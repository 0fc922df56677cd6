"""A window's report where the data is hostile, sparse or not there."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from pathlib import Path

import polars as pl
import pytest

from tasteloop.errors import TasteloopError
from tasteloop.files import read_json, write_json
from tasteloop.runtime.session import Session
from tests.support.references import RULES, after, examined, journal
from validation.monitor.decision import decide
from validation.monitor.drift_report import EVIDENTLY, PAGE, REPORT, DriftReport
from validation.monitor.evidently_page import inert
from validation.monitor.reference import Reference, answers_schema

SCRIPT = "</script><script>alert(1)</script>"


def none() -> pl.DataFrame:
    return pl.DataFrame(schema=answers_schema()).drop("window")


@pytest.fixture(scope="module")
def hostile(
    reference: Reference,
    session: Session,
    behaviour: pl.DataFrame,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """The report on a window in which a third of the events are of a kind that is a script."""
    some = pl.int_range(pl.len()) % 3 == 0
    kinds = behaviour.with_columns(kind=pl.when(some).then(pl.lit(SCRIPT)).otherwise("kind"))
    span, events = after(reference, kinds)
    out = tmp_path_factory.mktemp("hostile") / "out"
    examined(reference, session, events, journal(session, behaviour, span.start), span, out)
    return out


def test_a_category_that_is_a_script_is_text_in_both_pages(hostile: Path) -> None:
    assert read_json(hostile / REPORT)["evidently"]["columns"]["kind"]["score"] > 0
    page = (hostile / EVIDENTLY).read_text()
    assert json.dumps(inert(SCRIPT))[1:-1] in page  # it is there, and reads like itself
    for name in (EVIDENTLY, PAGE):
        text = (hostile / name).read_text()
        assert SCRIPT not in text and "<script>alert" not in text


def test_a_report_that_is_read_is_the_one_that_was_written(hostile: Path) -> None:
    report = DriftReport.read(hostile)

    assert report.text() == (hostile / REPORT).read_text()
    assert {"kinds", "value"} <= set(report.distributions)


def test_a_file_that_is_no_report_is_refused_with_the_remedy(tmp_path: Path) -> None:
    write_json(tmp_path / REPORT, {"window": 3})

    with pytest.raises(TasteloopError, match=r"report\.json is no drift report .* remove it"):
        DriftReport.read(tmp_path)


def test_the_policy_names_every_script_by_its_hash(hostile: Path) -> None:
    page = (hostile / EVIDENTLY).read_text()
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', page)
    assert policy is not None and "default-src 'none'" in policy[1]
    assert "unsafe" not in re.findall(r"script-src ([^;]+)", policy[1])[0]
    scripts = re.findall(r"<script>(.*?)</script>", page, re.S)
    hashes = {
        f"sha256-{base64.b64encode(hashlib.sha256(s.encode()).digest()).decode()}" for s in scripts
    }
    assert set(re.findall(r"'(sha256-[^']+)'", policy[1])) == hashes
    ours = (hostile / PAGE).read_text()
    assert "Content-Security-Policy" in ours and "<script" not in ours


def test_one_user_says_nothing_and_is_no_drift(
    reference: Reference,
    session: Session,
    behaviour: pl.DataFrame,
    tmp_path: Path,
) -> None:
    one = behaviour.filter(pl.col("user") == behaviour["user"][0])
    span, events = after(reference, one)
    evidence, found = examined(
        reference, session, events, journal(session, one, span.start), span, tmp_path / "out"
    )
    assert any(
        "events, where the reference's windows had" in problem for problem in evidence.problems
    )
    assert all(f.p is None or f.n <= 1 for f in found.values())
    assert (tmp_path / "out" / PAGE).is_file()
    unchecked = evidence.model_copy(update={"problems": ()})
    assert decide([unchecked], [], span.end, RULES).outcome == "watch"


def test_an_empty_window_is_a_problem_and_has_a_page(
    reference: Reference,
    session: Session,
    behaviour: pl.DataFrame,
    tmp_path: Path,
) -> None:
    span, events = after(reference, behaviour.clear())
    evidence, found = examined(reference, session, events, none(), span, tmp_path / "out")
    assert found == {} and any("0 events" in problem for problem in evidence.problems)
    assert "The data failed its checks" in (tmp_path / "out" / PAGE).read_text()
    assert not (tmp_path / "out" / EVIDENTLY).exists()
    assert decide([evidence], [], span.end, RULES).outcome == "alert-human"


def test_without_answers_behaviour_alone_is_compared(
    reference: Reference,
    session: Session,
    behaviour: pl.DataFrame,
    tmp_path: Path,
) -> None:
    span, events = after(reference, behaviour)
    evidence, found = examined(reference, session, events, none(), span, tmp_path / "out")
    assert evidence.problems == () and {"labels", "items", "kinds"} <= set(found)
    assert not any(name.startswith("quality.") for name in found)
    assert all(f.effect is None for name, f in found.items() if name.startswith("prediction."))
    assert "recommendations" not in read_json(tmp_path / "out" / REPORT)["evidently"]
    assert (tmp_path / "out" / EVIDENTLY).is_file()


def test_items_whose_names_are_numbers_have_a_health() -> None:
    from tasteloop.answers import RECOMMEND
    from tasteloop.behaviour.items import Catalogue
    from tasteloop.journal import MODEL, NAMES, NUMBERS
    from validation.monitor.evidently_page import _health
    from validation.monitor.windows import RELEVANT

    items = [str(n) for n in range(40)]
    catalogue = Catalogue(
        items, items, [["odd" if n % 2 else "even"] for n in range(40)], [None] * 40
    )
    rows = [
        (
            RECOMMEND,
            str(n),
            items[n : n + 12],
            [1 - k / 20 for k in range(12)],
            items[n + 1 : n + 3],
        )
        for n in range(20)
    ]
    answers = pl.DataFrame(rows, schema=[MODEL, "request", NAMES, NUMBERS, RELEVANT], orient="row")
    seen = pl.DataFrame(
        {"user": [str(n % 7) for n in range(70)], "item": [str(n % 40) for n in range(70)]}
    )
    health = _health(seen, answers, answers.head(10), catalogue)
    assert health is not None and set(health) == {"reference", "current"}
    assert 0 < health["reference"]["Diversity"] <= 10 and 0 < health["current"]["Coverage"] <= 1
