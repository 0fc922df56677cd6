"""From a bundle and its data to a reference, and from a window to its report."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from tasteloop.errors import TasteloopError
from tasteloop.files import read_json
from tasteloop.runtime.session import Session
from tests.support.pages import CHROMIUM, HEADLESS
from tests.support.references import HOURS, RULES, SETTINGS, after, examined, journal
from validation.monitor.drift_report import EVIDENTLY, PAGE, REPORT
from validation.monitor.evidently_page import evidently, inert, seal
from validation.monitor.measure import Side
from validation.monitor.reference import (
    META,
    PROFILE,
    Reference,
    answers_schema,
    rows_of,
    save_reference,
)
from validation.monitor.sampling import Reader
from validation.monitor.windows import HOUR, WindowSettings, distinct

HOSTILE = (
    "</script><script>document.title='ran'</script><img src=x onerror=\"document.title='ran'\">"
)


def test_a_reference_is_read_back_and_the_same_again(
    reference: Reference, session: Session, tiny_snapshots: Path, tmp_path: Path
) -> None:
    again = save_reference(session, tiny_snapshots, SETTINGS, tmp_path / "again")
    assert again.digest == reference.digest and again.spans == reference.spans
    assert reference.champion == session.digest
    assert {
        "kinds",
        "labels",
        "items",
        "value",
        "activity",
        "embedding",
        "prediction.items",
    } <= set(reference.profile)
    assert reference.answers().height > 50
    assert "text" not in reference.sample().columns
    assert [span.end - span.start for span in reference.spans] == [HOURS * HOUR] * len(
        reference.spans
    )


def test_a_damaged_or_impossible_reference_is_refused(
    reference: Reference, session: Session, tiny_snapshots: Path, tmp_path: Path
) -> None:
    long = SETTINGS.model_copy(update={"windows": WindowSettings(hours=10_000)})
    with pytest.raises(TasteloopError, match="choose shorter windows"):
        save_reference(session, tiny_snapshots, long, tmp_path / "long")
    for name in (META, PROFILE):
        (tmp_path / name).write_bytes((reference.directory / name).read_bytes()[:100])
        with pytest.raises(TasteloopError):
            Reference.read(tmp_path)
        (tmp_path / name).write_bytes((reference.directory / name).read_bytes())


def test_the_same_behaviour_again_has_not_drifted(
    reference: Reference, session: Session, behaviour: pl.DataFrame, tmp_path: Path
) -> None:
    span, events = after(reference, behaviour)
    answers = journal(session, behaviour, span.start)
    evidence, found = examined(reference, session, events, answers, span, tmp_path / "out")
    assert evidence.problems == ()
    for name in ("labels", "kinds", "items", "value", "embedding.auc"):
        severity = RULES.severity[name]
        finding = found[name]
        assert finding.effect is not None and finding.p is not None and finding.n >= 50, name
        assert finding.effect < severity.watch or finding.p > RULES.alpha, finding
    assert found["quality.f1"].value is not None
    # the same rows in another order, and twice: the same evidence but for the count of rows
    shuffled = events.sample(fraction=1, shuffle=True, seed=1)
    again, _ = examined(reference, session, shuffled, answers.reverse(), span, tmp_path / "again")
    assert again.id == evidence.id
    doubled, _ = examined(
        reference, session, pl.concat([events, shuffled]), answers, span, tmp_path / "twice"
    )
    assert doubled.findings == evidence.findings


def test_a_change_of_taste_is_seen_where_it_happened(
    reference: Reference, session: Session, behaviour: pl.DataFrame, tmp_path: Path
) -> None:
    catalogue = session.catalogue
    drama = [
        i
        for i, labels in zip(catalogue.items, catalogue.labels, strict=True)
        if labels == ["Drama"]
    ]
    rng = np.random.default_rng(0)
    moved = behaviour.with_columns(item=pl.Series(rng.choice(drama, behaviour.height)))
    span, events = after(reference, moved)
    evidence, found = examined(
        reference, session, events, journal(session, moved, span.start), span, tmp_path / "out"
    )
    for name in ("labels", "items", "embedding.auc", "embedding.mmd"):
        finding = found[name]
        assert (finding.effect or 0) >= RULES.severity[name].act, finding
        assert (finding.p or 1) <= RULES.alpha, finding
    assert (found["kinds"].effect, found["kinds"].p) == (0, 1)
    report = read_json(tmp_path / "out" / REPORT)
    assert report["evidently"]["columns"]["label"]["score"] > 0.3
    assert report["evidently"]["columns"]["kind"]["score"] == pytest.approx(0, abs=1e-9)
    assert set(report["evidently"]["recommendations"]) == {"reference", "current"}
    assert {"Diversity", "Novelty", "Personalization", "PopularityBiasMetric", "Coverage"} <= set(
        report["evidently"]["recommendations"]["current"]
    )
    assert json.loads((tmp_path / "out" / REPORT).read_text())["findings"] == [
        f.model_dump() for f in evidence.findings
    ]


def test_a_broken_field_and_silence_are_problems(
    reference: Reference, session: Session, behaviour: pl.DataFrame, tmp_path: Path
) -> None:
    span, events = after(reference, behaviour.with_columns(value=pl.lit(None, pl.Float32)))
    none = pl.DataFrame(schema=answers_schema()).drop("window")
    evidence, _ = examined(reference, session, events, none, span, tmp_path / "out")
    assert any("ratings without a value" in problem for problem in evidence.problems)
    assert "The data failed its checks" in (tmp_path / "out" / PAGE).read_text()
    silent, found = examined(reference, session, events.clear(), none, span, tmp_path / "silent")
    assert any("0 events" in problem for problem in silent.problems) and found == {}


def hostile_rows(
    reference: Reference, session: Session, behaviour: pl.DataFrame
) -> tuple[pl.DataFrame, pl.DataFrame]:
    events = distinct(behaviour).with_columns(
        kind=pl.lit(HOSTILE), item=pl.lit(HOSTILE), window=pl.lit(0, pl.Int32)
    )
    answers = pl.DataFrame(schema=answers_schema())
    side = Side(events, answers, Reader.of(session), SETTINGS.drift, reference.book)
    return reference.sample(), rows_of(side, SETTINGS)


def dom(page: Path) -> str:
    """The document after its scripts have run."""
    command = [
        str(CHROMIUM),
        *HEADLESS,
        f"--user-data-dir={page.with_name('profile')}",
        "--virtual-time-budget=5000",
        "--dump-dom",
        page.as_uri(),
    ]
    environment = {**os.environ, "HOME": str(page.parent)}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=200, env=environment, check=True
    )
    return done.stdout


def test_evidently_s_page_holds_no_markup_of_the_data(
    reference: Reference, session: Session, behaviour: pl.DataFrame
) -> None:
    none = pl.DataFrame(
        schema={**answers_schema(), "relevant": pl.List(pl.String), "clicked": pl.Boolean}
    )
    page, numbers = evidently(
        *hostile_rows(reference, session, behaviour), none, none, session.catalogue
    )
    data = page.partition("<script>var global")[0]  # after it comes Evidently's own library
    assert json.dumps(inert(HOSTILE))[1:-1] in data
    assert data.count("<script>") == data.count("</script>") == 1 and "<img" not in data
    assert "recommendations" not in numbers.model_dump()
    with pytest.raises(TasteloopError, match="is not kept"):
        seal(page.replace("</body>", "<script>more()</script></body>"))


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_nothing_in_a_hostile_name_runs_in_a_browser(
    reference: Reference, session: Session, behaviour: pl.DataFrame, tmp_path: Path
) -> None:
    none = pl.DataFrame(
        schema={**answers_schema(), "relevant": pl.List(pl.String), "clicked": pl.Boolean}
    )
    page, _ = evidently(*hostile_rows(reference, session, behaviour), none, none, session.catalogue)
    policed = tmp_path / EVIDENTLY
    policed.write_text(page)
    shown = dom(policed)
    assert "<title>ran</title>" not in shown and "document.title='ran'</script>" not in shown
    assert "kind" in shown[shown.index('id="root_') :]  # Evidently's own scripts ran, and drew

    def attacked(text: str) -> str:
        return text.replace("</body>", f"{HOSTILE}</body>")

    policed.write_text(attacked(page))  # even where markup got through, the policy holds
    assert "<title>ran</title>" not in dom(policed)
    open_page = tmp_path / "open.html"
    start = page.index("<meta charset")
    open_page.write_text(
        attacked(page[:start] + page[page.index(">", page.index("Content-Security")) + 1 :])
    )
    assert "<title>ran</title>" in dom(open_page)  # without it the attack works: this test can fail
