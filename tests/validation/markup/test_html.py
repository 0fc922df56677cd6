"""Whatever data holds comes out of the page kit as text."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasteloop.evaluation.record import ReliabilityBin
from tasteloop.intervals import Interval
from tests.support import samples
from tests.support.pages import Reader, luminance
from validation.markup import elements, environment, formats, plots, style


@given(st.text())
def test_text_stays_text(text: str) -> None:
    made = elements.tag("p", text, title=text)
    read = Reader(made)
    assert read.tags == ["p"]
    assert [name for name, _ in read.attributes] == ["title"]
    if not elements.CONTROL.search(text) and "\r" not in text:
        assert "".join(read.texts) == text == read.attributes[0][1]


@pytest.mark.parametrize("hostile", samples.HOSTILE)
def test_hostile_text_is_inert_everywhere(hostile: str) -> None:
    bins = [ReliabilityBin(confidence=0.5, frequency=0.5, count=1)]
    body = [
        environment.table(
            hostile,
            [hostile, environment.Column(hostile, name=hostile)],
            [[hostile, hostile]],
            note=hostile,
        ),
        environment.badge(hostile, hostile),
        plots.reliability_plot(hostile, bins),
        plots.roc_plot(hostile, [0.0, 1.0], [0.0, 1.0]),
        environment.confusion_matrix(hostile, [[1, 2], [3, 4]], [hostile, "b"]),
    ]
    read = Reader(environment.page(hostile, body, lang=hostile))
    assert not {"script", "img", "iframe", "object", "link"} & set(read.tags)
    assert not [name for name, _ in read.attributes if name.startswith("on")]
    assert hostile in "".join(read.texts)


def test_forgetting_is_harmless() -> None:
    safe = elements.tag("b", "x")
    assert elements.tag("p", safe) == "<p><b>x</b></p>"
    for plain in (safe + "<i>", f"{safe}", safe.upper(), safe[1:], "".join([safe])):
        assert not isinstance(plain, elements.Safe) and "&lt;" in elements.tag("p", plain)


@pytest.mark.parametrize(
    ("name", "attributes"),
    [
        ("script", {}),
        ("iframe", {}),
        ("a", {"href": "javascript:alert(1)"}),
        ("a", {"href": "https://example.com"}),
        ("p", {"onclick": "x()"}),
        ("p", {"style": "background:url(https://example.com)"}),
        ("p", {"x onload": "1"}),
        ("p><script", {}),
    ],
)
def test_what_could_run_or_load_is_not_in_the_kit(name: str, attributes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="kit|itself|sets"):
        elements.tag(name, **attributes)


def test_a_page_forbids_scripts_and_loads_nothing() -> None:
    page = environment.page("t", "b")
    assert "default-src 'none'; style-src 'unsafe-inline'; img-src data:" in page
    assert "<script" not in page and "http://" not in page and "https://" not in page
    assert page.startswith("<!doctype html>") and '<html lang="en">' in page


@pytest.mark.parametrize(
    ("value", "options", "text"),
    [
        (1234, {}, "1,234"),
        (-3, {}, "−3"),
        (0.12345, {}, "0.123"),
        (-0.0312, {"signed": True}, "−0.031"),
        (0.0312, {"signed": True}, "+0.031"),
        (-0.0001, {"signed": True}, "0.000"),
        (None, {}, "–"),
        (math.nan, {}, "–"),
        (math.inf, {}, "–"),
        ("<b>", {}, "–"),
        (True, {}, "–"),
    ],
)
def test_numbers_for_people(value: object, options: dict[str, bool], text: str) -> None:
    assert formats.number(value, **options) == text


@given(st.lists(st.floats(-1e9, 1e9), max_size=5))
def test_a_scale_holds_its_values_and_its_ticks_stay_apart(values: list[float]) -> None:
    scale = plots.Scale.around(values)
    assert all(-1e-6 <= scale(value) <= scale.width + 1e-6 for value in values)
    ticks = [scale(tick) for tick in scale.ticks()]
    assert len(ticks) <= 6 and all(b - a > 40 for a, b in zip(ticks, ticks[1:], strict=False))


@pytest.mark.parametrize(
    "measure", [None, {}, {"value": None, "low": None, "high": None}, {"value": math.nan}]
)
def test_a_measure_that_is_missing_is_drawn_as_nothing(measure: dict[str, object] | None) -> None:
    assert "circle" not in plots.interval(Interval.parse(measure), plots.Scale(0, 1))


def test_curves() -> None:
    assert plots.area_under([0.0, 0.0, 1.0], [0.0, 1.0, 1.0]) == 1.0
    assert plots.area_under([0.0, 1.0], [0.0, 1.0]) == 0.5
    assert (
        plots.roc_plot("r", [], []) is None
        and plots.roc_plot("r", [0.0, math.nan], [0.0, 1.0]) is None
    )
    long = [i / 9999 for i in range(10_000)]
    assert len(plots.roc_plot("r", long, long) or "") < 20_000
    bins = [ReliabilityBin.parse({"confidence": math.nan, "frequency": 0.1, "count": 3})]
    assert "0 bins" in plots.reliability_plot("r", [*bins, ReliabilityBin.parse({})])


def test_tables_can_be_heard() -> None:
    made = environment.table(
        "Scores",
        ["Model", environment.Column(plots.axis(plots.Scale(0, 1)), name="drawn")],
        [["a", "b"]],
    )
    assert "<caption><b>Scores</b></caption>" in made
    assert '<th scope="col">Model</th>' in made and '<th scope="row">a</th>' in made
    assert 'aria-label="drawn"' in made and 'role="region"' in made and 'tabindex="0"' in made


def mixed(a: str, b: str, share: float) -> str:
    pairs = [(int(a[i : i + 2], 16), int(b[i : i + 2], 16)) for i in (1, 3, 5)]
    return "#" + "".join(f"{round(x * share + y * (1 - share)):02x}" for x, y in pairs)


@pytest.mark.parametrize("palette", [style.LIGHT, style.DARK], ids=["light", "dark"])
def test_text_is_readable_in_both_schemes(palette: dict[str, str]) -> None:
    def contrast(a: str, b: str) -> float:
        low, high = sorted((luminance(a), luminance(b)))
        return (high + 0.05) / (low + 0.05)

    for ground in ("paper", "card", "wash"):
        for text in ("ink", "quiet", "accent", "good", "bad", "warn"):
            assert contrast(palette[text], palette[ground]) >= 4.5, (text, ground)
    strongest = float(re.findall(r"calc\(var\(--share\)\*(\d+)%\)", style.stylesheet())[0]) / 100
    for shade in ("accent", "bad"):  # the confusion matrix
        assert contrast(palette["ink"], mixed(palette[shade], palette["wash"], strongest)) >= 4.5
