"""The evaluation page: complete, inert, and readable in light and dark."""

from __future__ import annotations

import math
import os
import subprocess
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from tasteloop.evaluation.record import EVALUATION_FILE, Evaluation
from tasteloop.files import write_json
from tasteloop.verdicts import VERDICT_FILE, Verdict
from tests.support import samples
from tests.support.pages import CHROMIUM, HEADLESS, Reader
from tests.support.samples import RULES
from validation.gate.gates import Bounds, GateSettings, decide
from validation.markup.style import DARK, LIGHT
from validation.pages.evaluation import write_report


def written(tmp_path: Path, found: dict[str, Any], judged: bool = True) -> str:
    evaluation = Evaluation.parse(found)
    verdict = decide(evaluation, RULES) if judged else None
    return write_report(evaluation, verdict, tmp_path / "report.html").read_text()


def test_everything_is_on_the_page(tmp_path: Path) -> None:
    text = "".join(Reader(written(tmp_path, samples.evaluation())).texts)
    for expected in (
        "The candidate passes",
        "13 of 13 checks hold",
        "0.629",
        "0.617 to 0.641",
        "own frequencies",
        "+0.061",
        "nDCG@10",
        "recent popularity",
        "EASE",
        "Drama",
        "Film-Noir",
        "calibration error",
        "1,085",
        "84.7%",
        "Area under the curve 0.923",
        "users=cold",
        "0.171 to 0.251",
        "The Full Monty (1997)",
        "interest: Drama",
        "+0.610",
        "−0.080",
        "version 6",
        "2026-11-24 10:00 UTC",
        "must lie above 0",
    ):
        assert expected in text, expected


def test_a_refusal_says_why_at_the_top(tmp_path: Path) -> None:
    found = samples.worsened(samples.evaluation(), "recommend.ndcg@10", 0.03)
    text = "".join(Reader(written(tmp_path, found)).texts)
    assert "The gate says no" in text
    assert text.index("may be worse than the champion's") < text.index("Every rule of the gate")


@pytest.mark.parametrize("hostile", samples.HOSTILE)
def test_hostile_text_is_inert_wherever_it_stands(tmp_path: Path, hostile: str) -> None:
    def poisoned(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: poisoned(entry) for key, entry in value.items()}
        if isinstance(value, list):
            return [poisoned(entry) for entry in value]
        return hostile if isinstance(value, str) else value

    found = poisoned(samples.evaluation())
    found["metrics"][f"interests.{hostile}"] = samples.measure(0.5, 0.1, 10)
    found["baselines"][hostile] = found["baselines"].pop("ease")
    found["differences"][hostile] = found["differences"].pop("ease")
    found["lineage"][hostile] = hostile
    judged = decide(Evaluation.parse(samples.evaluation()), RULES)
    verdict = Verdict.parse(poisoned(judged.json()))
    page = write_report(Evaluation.parse(found), verdict, tmp_path / "report.html").read_text()
    read = Reader(page)
    assert hostile in "".join(read.texts)
    assert not {"script", "img", "iframe"} & set(read.tags)
    assert not [name for name, _ in read.attributes if name.startswith("on")]
    assert "<script" not in page and "<img" not in page


def test_the_page_shows_what_there_is(tmp_path: Path) -> None:
    assert "Evaluated, not yet judged" in written(tmp_path, {}, judged=False)
    assert "The gate says no" in written(tmp_path, {})
    first = samples.evaluation()
    first["champion"] = None
    del first["differences"]["champion"]
    assert "none, this is the first model" in written(tmp_path, first)
    alone = {
        key: value for key, value in samples.evaluation().items() if key in ("schema", "metrics")
    }
    assert "micro-F1" in written(tmp_path, alone)
    unchanged = samples.evaluation()
    unchanged["champion"]["digest"] = unchanged["lineage"]["bundle"]
    assert "Nothing to promote" in written(tmp_path, unchanged)
    without = {k: v for k, v in samples.evaluation().items() if k != "confusion"}
    without["metrics"] = {
        k: v for k, v in without["metrics"].items() if not k.startswith("sentiment.")
    }
    assert "<h2>Sentiment</h2>" not in written(tmp_path, without)


@pytest.mark.parametrize("broken", [None, math.nan, math.inf, "x", [], {}, -1, True])
def test_no_broken_value_breaks_the_page(tmp_path: Path, broken: Any) -> None:
    whole = samples.evaluation()
    for key, part in whole.items():
        written(tmp_path, {**whole, key: broken}, judged=False)
        if isinstance(part, dict):
            for name in part:
                written(tmp_path, {**whole, key: {**part, name: broken}}, judged=False)
        if isinstance(part, list) and part and isinstance(part[0], dict):
            for name in part[0]:
                written(tmp_path, {**whole, key: [{**part[0], name: broken}, broken]}, judged=False)
    found = deepcopy(whole)
    for measure in found["metrics"].values():
        measure["value"] = measure["low"] = measure["high"] = broken
    assert "The gate says no" in written(tmp_path, found)


def test_the_page_is_made_from_json(tmp_path: Path) -> None:
    evaluation = Evaluation.parse(samples.evaluation())
    verdict = decide(evaluation, RULES)
    write_json(tmp_path / EVALUATION_FILE, evaluation.json())
    write_json(tmp_path / VERDICT_FILE, verdict.json())
    from_files = Evaluation.read(tmp_path / EVALUATION_FILE), Verdict.read(tmp_path / VERDICT_FILE)

    a = write_report(evaluation, verdict, tmp_path / "a.html").read_bytes()
    b = write_report(*from_files, tmp_path / "b.html").read_bytes()

    assert a == b
    assert len(a) < 300_000


def photograph(page: Path, scheme: str, width: int = 1200, height: int = 1600) -> Path:
    """A screenshot in a colour scheme; `preferredColorScheme` is 0 for dark and 1 for light."""
    picture = page.with_name(f"{page.stem}-{scheme}.png")
    command = [
        str(CHROMIUM),
        *HEADLESS,
        f"--user-data-dir={page.with_name('profile-' + scheme)}",
        f"--window-size={width},{height}",
        "--virtual-time-budget=3000",
        f"--blink-settings=preferredColorScheme={int(scheme == 'light')}",
        f"--screenshot={picture}",
        page.as_uri(),
    ]
    environment = {**os.environ, "HOME": str(page.parent)}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=120, env=environment, check=False
    )
    assert picture.exists(), done.stderr[-2000:]
    return picture


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_the_page_looks_right_in_light_and_dark(tmp_path: Path) -> None:
    from PIL import Image, ImageChops

    found = samples.evaluation()
    found["examples"][0]["recommendations"][0]["title"] = samples.HOSTILE[0]
    found["per_label"][0]["label"] = samples.HOSTILE[1]
    written(tmp_path, found)
    pictures = {}
    for scheme, palette in (("light", LIGHT), ("dark", DARK)):
        picture = Image.open(photograph(tmp_path / "report.html", scheme)).convert("RGB")
        ground = tuple(int(palette["paper"][i : i + 2], 16) for i in (1, 3, 5))
        assert picture.size == (1200, 1600)
        assert all(picture.getpixel(corner) == ground for corner in ((2, 2), (1197, 2), (2, 1590)))
        blank = Image.new("RGB", picture.size, ground)
        box = ImageChops.difference(picture, blank).getbbox()
        assert box and box[3] - box[1] > 1400  # written on from top to bottom
        colours = {colour for _, colour in picture.getcolors(1 << 24)}
        for name in ("ink", "good", "accent", "line"):
            assert tuple(int(palette[name][i : i + 2], 16) for i in (1, 3, 5)) in colours, name
        pictures[scheme] = picture
    assert ImageChops.difference(pictures["light"], pictures["dark"]).getbbox()


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_the_page_does_not_scroll_sideways_on_a_phone(tmp_path: Path) -> None:
    """In a frame as narrow as a phone nothing reaches into the margin on the right."""
    from PIL import Image

    written(tmp_path, samples.evaluation())
    frame = tmp_path / "phone.html"
    frame.write_text(
        "<style>body{margin:0;background:#f0f}iframe{border:0;width:390px;height:2400px}</style>"
        '<iframe src="report.html"></iframe>'
    )
    picture = Image.open(photograph(frame, "light", 600, 2400)).convert("RGB")
    ground = tuple(int(LIGHT["paper"][i : i + 2], 16) for i in (1, 3, 5))
    assert {picture.getpixel((x, y)) for x in range(382, 390) for y in range(0, 2300, 7)} == {
        ground
    }
    assert picture.getpixel((500, 1000)) == (255, 0, 255)


def test_what_is_understood_has_a_section_with_sentences_about_what_is_not(tmp_path: Path) -> None:
    text = "".join(Reader(written(tmp_path, samples.evaluation())).texts)

    section = text[text.index("Kinds of questions") :]
    for expected in (
        "0.550",
        "+0.530",
        "A search raises the label that it is about.",
        'the search "cowboys" moves Western from 0.04 to 0.04.',
    ):
        assert expected in section, expected
    assert section.index("Western") < section.index("Horror")


def test_the_first_screen_says_how_much_is_understood(tmp_path: Path) -> None:
    text = "".join(Reader(written(tmp_path, samples.evaluation())).texts)

    first = text[: text.index("Kinds of questions")]
    assert "Understanding, questions passed" in first
    assert "0 of 2 kinds of questions pass; weakest: refusal 0.250, wish 0.550" in first


def test_a_model_that_was_asked_no_questions_has_no_such_section(tmp_path: Path) -> None:
    found = samples.evaluation()
    del found["understanding"]

    page = written(tmp_path, found)
    assert "Kinds of questions" not in page and "Understanding, questions passed" not in page


def test_a_bound_that_only_reports_is_shown_as_not_met(tmp_path: Path) -> None:
    rules = GateSettings(**{**dict(RULES), "reported": Bounds(floors={"understanding.wish": 0.9})})
    evaluation = Evaluation.parse(samples.evaluation())
    verdict = decide(evaluation, rules)

    page = write_report(evaluation, verdict, tmp_path / "report.html")

    text = "".join(Reader(page.read_text()).texts)
    assert "The candidate passes" in text
    assert "1 reported as not met" in text
    assert "understanding.wish is 0.5500, below its floor of 0.9" in text
