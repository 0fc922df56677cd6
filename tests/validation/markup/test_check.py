"""The last look at a page finds what a template should not hold."""

from __future__ import annotations

import pytest

from tests.support import samples
from validation.markup.check import check_page
from validation.markup.environment import page
from validation.markup.plots import distribution, histogram


@pytest.mark.parametrize(
    ("markup", "message"),
    [
        ("<script>x()</script>", "script"),
        ("<img src='x.png'>", "img"),
        ("<p onclick='x()'>x</p>", "onclick"),
        ("<a href='https://example.org'>x</a>", "links only"),
        ("<p style='background:url(x)'>x</p>", "style"),
        ("<p>never closed", "not closed"),
        ("<b><i>crossed</b></i>", "not open"),
    ],
)
def test_what_runs_loads_or_is_left_open_is_refused(markup: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_page(markup)


def test_a_page_of_ours_passes() -> None:
    text = page("title", "body", banner="above", foot="below")
    assert check_page(text) == text


@pytest.mark.parametrize("hostile", samples.HOSTILE)
def test_distributions_hold_names_as_text(hostile: str) -> None:
    drawing = distribution(hostile, [hostile, "other"], [0.9, 0.1], [0.4, 0.6])
    text = page("drift", drawing)
    assert hostile not in text
    assert "90.0% → 40.0%" in text


def test_a_distribution_says_what_moved_most_for_those_who_do_not_see_it() -> None:
    drawing = distribution("kinds", ["view", "rate"], [0.9, 0.1], [0.4, 0.6])
    assert "2 cells; view moved most, from 90.0% of the reference to 40.0% of the window" in drawing


def test_the_area_of_a_histogram_is_the_share_and_not_the_width_of_its_cells() -> None:
    drawing = histogram("value", [0.0, 1.0, 3.0], [0.5, 0.5], [0.5, 0.5])
    assert "The mean is about 1.250 in the reference and 1.250 in the window" in drawing
    heights = {point.split(",")[1] for point in drawing.split('points="')[1].split('"')[0].split()}
    assert len(heights) == 3  # the ground, and each cell's height: the wide one is half as high
