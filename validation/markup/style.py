"""The colours of the pages, and the stylesheet that is written into each of them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path

# Text colours reach contrast 4.5 (WCAG AA) on `paper`, `card` and `wash`; a test computes it.
LIGHT = {
    "paper": "#fbfaf6",
    "card": "#ffffff",
    "wash": "#f1eee6",
    "ink": "#21242b",
    "quiet": "#5b606b",
    "line": "#dfdace",
    "accent": "#13606b",
    "good": "#1d6b43",
    "bad": "#a8281f",
    "warn": "#7d5200",
}
DARK = {
    "paper": "#14161a",
    "card": "#1b1e23",
    "wash": "#23272d",
    "ink": "#e7e4dc",
    "quiet": "#a4a9b2",
    "line": "#343941",
    "accent": "#6fc3c9",
    "good": "#7ccf9d",
    "bad": "#ff9a8f",
    "warn": "#e3b65c",
}


@cache
def stylesheet() -> str:
    """page.css with the palettes of both schemes before it."""
    return (
        f":root{{color-scheme:light dark;{_variables(LIGHT)}}}\n"
        f"@media (prefers-color-scheme:dark){{:root{{{_variables(DARK)}}}}}\n"
        f"@media print{{:root{{color-scheme:light;{_variables(LIGHT)}--paper:#fff;}}}}\n"
        + Path(__file__).with_name("page.css").read_text(encoding="utf-8")
    )


def _variables(colours: Mapping[str, str]) -> str:
    return "".join(f"--{name}:{value};" for name, value in colours.items())
