"""A small kit for self-contained HTML pages about data that nobody vouched for.

Markup is a type. `tag` escapes every child and every attribute that is not `Safe`, and only this
module makes `Safe` values, so a film named `</script><script>` is text wherever it appears. Joining
or formatting a `Safe` with ordinary string operations gives a plain `str` again, which is escaped
when it is used: forgetting is harmless. Pages hold no script, load nothing, and say so to the
browser in a Content Security Policy.
"""

from __future__ import annotations

import html
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeAlias

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"

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

_VOID = re.compile("br|hr|col")
_TAG = re.compile(
    "a|article|b|bdi|blockquote|br|caption|code|col|colgroup|dd|details|div|dl|dt|em|figcaption|figure|footer|"
    "h[1-4]|header|hr|i|li|main|nav|ol|p|pre|section|small|span|strong|sub|summary|sup|table|tbody|td|tfoot|th|"
    "thead|time|tr|ul|svg|g|title|desc|line|polyline|polygon|path|rect|circle|text"
)
_ATTRIBUTE = re.compile(
    "class|id|style|href|lang|dir|scope|colspan|rowspan|role|tabindex|open|datetime|title|(aria|data)-[a-z-]+|"
    "width|height|viewBox|x[12]?|y[12]?|cx|cy|r|d|points|transform|fill|stroke(-[a-z]+)?|text-anchor"
)
_TARGET = re.compile(r"#.*|(\.\./)*([\w-][\w.-]*/)*[\w-][\w.-]*\.(html|json)(#[\w.-]*)?", re.A)
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


class Safe(str):
    """Markup made by this module; everything else is text."""

    __slots__ = ()


# Safe, several of them, None (nothing), or any value, whose text is escaped
Child: TypeAlias = object


def escape(value: object) -> Safe:
    """The text of any value as inert HTML, also in quoted attributes; control characters become
    U+FFFD.
    """
    return value if isinstance(value, Safe) else Safe(html.escape(_CONTROL.sub("�", str(value))))


def join(children: Iterable[Child], between: str = "") -> Safe:
    return Safe(escape(between).join(_child(child) for child in children))


def tag(name: str, *children: Child, **attributes: object) -> Safe:
    """One element. `class_` means class and `aria_label` aria-label; None or False leaves an
    attribute out.

    Raises:
        ValueError: an element or attribute that could run or load something.
    """
    if not _TAG.fullmatch(name):
        raise ValueError(f"element {name!r} is not in this kit; known: {_TAG.pattern}")
    parts = [name]
    for key, value in attributes.items():
        key = key.rstrip("_").replace("_", "-")
        if not _ATTRIBUTE.fullmatch(key):
            raise ValueError(f"attribute {key!r} is not in this kit; known: {_ATTRIBUTE.pattern}")
        if key == "href" and not _TARGET.fullmatch(str(value)):
            raise ValueError(
                f"a page links only to itself and to pages beside it: '#…', 'a/b.html', not {value!r}"
            )
        if key == "style" and not re.fullmatch(r"--[a-z]+:[0-9.]+", str(value)):
            raise ValueError(f"a style attribute only sets a number, '--share:0.5', not {value!r}")
        if value is None or value is False:
            continue
        parts.append(
            key if value is True else f'{key}="{html.escape(_CONTROL.sub("�", str(value)))}"'
        )
    opening = "<" + " ".join(parts) + ">"
    return Safe(opening if _VOID.fullmatch(name) else f"{opening}{join(children)}</{name}>")


def _child(child: Child) -> str:
    if child is None:
        return ""
    if isinstance(child, list | tuple | map | filter) or hasattr(child, "__next__"):
        return join(child)  # type: ignore[arg-type]
    return escape(child)


def finite(value: object) -> float | None:
    """The value as a float, or None when it is not a finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


def number(value: object, digits: int = 3, signed: bool = False) -> str:
    """A number as people write it (1,234 · 0.125 · −0.031), or a dash when there is none."""
    x = finite(value)
    if x is None:
        return "–"
    if isinstance(value, int) and not signed:
        return f"{value:,}".replace("-", "−")
    text = f"{x:+,.{digits}f}" if signed else f"{x:,.{digits}f}"
    if not text.strip("+-0.,"):
        text = text.lstrip("+-")  # neither +0.000 nor -0.000
    return text.replace("-", "−")


@dataclass(frozen=True)
class Column:
    """A column's head; `name` is read out where the head shows no words, such as an axis."""

    title: Child
    numeric: bool = False
    name: str | None = None


def table(
    caption: str,
    columns: Sequence[Column | str],
    rows: Iterable[Sequence[Child]],
    note: str = "",
    full: bool = False,
) -> Safe:
    """A table whose first cell of each row is its header; it scrolls sideways where it does not
    fit.

    Args:
        note: said after the caption, less loudly.
        full: as wide as the page, for columns of sentences.
    """
    heads = [c if isinstance(c, Column) else Column(c) for c in columns]
    body = []
    for row in rows:
        cells = [
            tag("th", cell, scope="row")
            if i == 0
            else tag("td", cell, class_="num" if heads[i].numeric else None)
            for i, cell in enumerate(row)
        ]
        body.append(tag("tr", cells))
    head = [
        tag("th", c.title, scope="col", aria_label=c.name, class_="num" if c.numeric else None)
        for c in heads
    ]
    return tag(
        "div",
        tag(
            "table",
            tag("caption", tag("b", caption), note),
            tag("thead", tag("tr", head)),
            tag("tbody", body),
            class_="full" if full else None,
        ),
        class_="scroll",
        role="region",
        tabindex="0",
        aria_label=caption,
    )


def badge(text: str, tone: str) -> Safe:
    """A word in a tone: good, bad, warn or quiet. The word has the meaning, the colour repeats
    it.
    """
    return tag("span", text, class_=f"badge {tone}")


def moment(micros: object) -> Safe | str:
    """µs since 1970 UTC as people read it, to the minute; a dash where there is no time."""
    then = _utc(micros)
    return (
        "–" if then is None else tag("time", minute(micros), datetime=f"{then:%Y-%m-%dT%H:%M:%SZ}")
    )


def minute(micros: object) -> str:
    """µs since 1970 UTC to the minute, in words; a dash where there is no time."""
    then = _utc(micros)
    return "–" if then is None else f"{then:%Y-%m-%d %H:%M}"


def day(micros: object) -> str:
    """µs since 1970 UTC as a date; a dash where there is no time."""
    then = _utc(micros)
    return "–" if then is None else f"{then:%Y-%m-%d}"


def _utc(micros: object) -> datetime | None:
    x = finite(micros)
    try:
        return None if x is None else datetime.fromtimestamp(x / 1e6, UTC)
    except (ValueError, OverflowError, OSError):
        return None


def page(
    title: str, body: Child, lang: str = "en", banner: Child = None, foot: Child = None
) -> str:
    """A whole document: no script, no outside resource, light and dark by the reader's preference.

    Args:
        banner: what stands above on every page of a site; the first thing to reach is then a link
            past it.
        foot: what stands below.
    """
    top: Child = None
    if banner is not None:
        skip = tag("a", "Skip to content", href="#content", class_="skip")
        top = join([skip, tag("header", tag("div", banner), class_="banner")])
    return (
        f'<!doctype html>\n<html lang="{escape(lang)}">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n<meta name="referrer" content="no-referrer">\n'
        f"<title>{escape(title)}</title>\n<style>{_CSS}</style>\n</head>\n<body>\n"
        f"{_child(top)}{tag('main', body, id='content', class_='site' if top else None)}"
        f"{_child(tag('footer', tag('p', foot)) if foot is not None else None)}\n</body>\n</html>\n"
    )


# --- plots: inline SVG, each with a text alternative


_TICK_ROOM = 46.0  # pixels


@dataclass(frozen=True)
class Scale:
    """Numbers to pixels, with round ticks."""

    low: float
    high: float
    width: float = 220.0

    @classmethod
    def around(
        cls, values: Iterable[object], include: float | None = None, width: float = 220.0
    ) -> Scale:
        """A scale that holds all finite values with a margin."""
        found = [x for value in values if (x := finite(value)) is not None]
        if include is not None:
            found.append(include)
        low, high = (min(found), max(found)) if found else (0.0, 1.0)
        size = max(abs(low), abs(high), 1e-3)
        margin = 0.06 * (high - low) if high - low > 1e-6 * size else 0.05 * size
        return cls(low - margin, high + margin, width)

    def __call__(self, value: float) -> float:
        return round((value - self.low) / (self.high - self.low) * self.width, 2)

    def ticks(self, room: float = _TICK_ROOM) -> list[float]:
        """Round numbers inside the scale, at least `room` pixels apart for their labels."""
        least = room * (self.high - self.low) / self.width
        power = 10.0 ** math.floor(math.log10(least))
        step = next(m * power for m in (1, 2, 5, 10) if m * power >= least)
        first = math.ceil(self.low / step - 1e-9)
        return [round(i * step, 10) for i in range(first, math.floor(self.high / step + 1e-9) + 1)]


def axis(scale: Scale, signed: bool = False) -> Safe:
    """The ticks of interval plots, for the head of their column."""
    ticks = scale.ticks()
    digits = max((len(f"{tick:g}".partition(".")[2]) for tick in ticks), default=0)
    marks = [
        tag("text", number(float(tick), digits, signed), x=scale(tick), y=12, text_anchor="middle")
        for tick in ticks
    ]
    return tag(
        "svg",
        marks,
        class_="axis",
        role="presentation",
        aria_hidden="true",
        width=scale.width,
        height=16,
        viewBox=f"0 0 {scale.width:g} 16",
    )


def interval(
    measure: Mapping[str, object] | None, scale: Scale, tone: str = "accent", zero: bool = False
) -> Safe:
    """A point and its interval on a shared scale; the numbers stand in the row beside it."""
    height = 38  # of a row, so that the grid runs through
    y = height / 2
    marks: list[Child] = [
        tag("line", x1=scale(t), x2=scale(t), y1=0, y2=height, class_="grid") for t in scale.ticks()
    ]
    if zero and scale.low < 0 < scale.high:
        marks.append(tag("line", x1=scale(0), x2=scale(0), y1=0, y2=height, class_="zero"))
    m = measure or {}
    value, low, high = finite(m.get("value")), finite(m.get("low")), finite(m.get("high"))
    if low is not None and high is not None:
        marks.append(
            tag("line", x1=scale(low), x2=scale(high), y1=y, y2=y, class_=f"whisker {tone}")
        )
        marks += [
            tag("line", x1=scale(x), x2=scale(x), y1=y - 4, y2=y + 4, class_=f"whisker {tone}")
            for x in (low, high)
        ]
    if value is not None:
        marks.append(tag("circle", cx=scale(value), cy=y, r=4.5, class_=f"dot {tone}"))
    return tag(
        "svg",
        marks,
        class_="interval",
        role="presentation",
        aria_hidden="true",
        width=scale.width,
        height=height,
        viewBox=f"0 0 {scale.width:g} {height}",
    )


def bar(value: object, limit: float, tone: str = "accent", width: float = 120.0) -> Safe:
    """A bar from zero on the left to `limit` on the right."""
    x = finite(value) or 0.0
    length = min(abs(x) / limit, 1.0) * width if limit > 0 else 0.0
    mark = tag("rect", x=0, y=3, width=round(length, 2), height=8, class_=f"bar {tone}")
    return tag(
        "svg",
        tag("rect", x=0, y=3, width=width, height=8, class_="track"),
        mark,
        class_="barplot",
        role="presentation",
        aria_hidden="true",
        width=width,
        height=14,
        viewBox=f"0 0 {width:g} 14",
    )


def signed_bar(value: object, limit: float, width: float = 120.0) -> Safe:
    """A bar from the middle: to the right what adds, to the left what takes away."""
    x, half = finite(value) or 0.0, width / 2
    length = min(abs(x) / limit, 1.0) * half if limit > 0 else 0.0
    mark = tag(
        "rect",
        x=round(half if x >= 0 else half - length, 2),
        y=3,
        width=round(length, 2),
        height=8,
        class_=f"bar {'accent' if x >= 0 else 'bad'}",
    )
    return tag(
        "svg",
        tag("rect", x=0, y=3, width=width, height=8, class_="track"),
        mark,
        tag("line", x1=half, x2=half, y1=0, y2=14, class_="zero"),
        class_="barplot",
        role="presentation",
        aria_hidden="true",
        width=width,
        height=14,
        viewBox=f"0 0 {width:g} 14",
    )


@dataclass(frozen=True)
class Point:
    """One step of a trend; `label` stands below it where there is room, `about` is told on
    hovering.
    """

    label: str
    value: object
    low: object = None
    high: object = None
    tone: str = "accent"
    about: str = ""


def trend(
    name: str,
    points: Sequence[Point],
    least: float = 300.0,
    bound: float | None = None,
    line: bool = True,
) -> Safe:
    """Values over steps of equal width, oldest on the left, with their intervals.

    Args:
        least: width in pixels; it grows with the points.
        bound: a level that is drawn across.
        line: whether the values are joined.
    """
    left, top, tall, foot = 40.0, 10.0, 120.0, 24.0
    step = max((least - left - 16) / max(len(points), 1), 14.0)
    width = left + step * max(len(points), 1) + 16
    scale = Scale.around(
        [v for p in points for v in (p.value, p.low, p.high)], include=bound, width=tall
    )

    def x(index: int) -> float:
        return round(left + (index + 0.5) * step, 2)

    def y(value: float) -> float:
        return round(top + tall - scale(value), 2)

    ticks = scale.ticks(24.0)
    digits = max((len(f"{tick:g}".partition(".")[2]) for tick in ticks), default=0)
    marks: list[Child] = []
    for tick in ticks:
        marks.append(tag("line", x1=left, x2=width - 8, y1=y(tick), y2=y(tick), class_="grid"))
        marks.append(
            tag("text", number(float(tick), digits), x=left - 7, y=y(tick) + 4, text_anchor="end")
        )
    if bound is not None:
        marks.append(
            tag("line", x1=left, x2=width - 8, y1=y(bound), y2=y(bound), class_="diagonal")
        )
    known = [(i, p, v) for i, p in enumerate(points) if (v := finite(p.value)) is not None]
    if line and len(known) > 1:
        marks.append(
            tag("polyline", points=" ".join(f"{x(i)},{y(v)}" for i, _, v in known), class_="trace")
        )
    for i, p, value in known:
        low, high = finite(p.low), finite(p.high)
        told = tag("title", p.about or f"{p.label}: {number(value)}")
        whisker = None
        if low is not None and high is not None:
            whisker = tag(
                "line", x1=x(i), x2=x(i), y1=y(low), y2=y(high), class_=f"whisker {p.tone}"
            )
        marks.append(
            tag(
                "g", told, whisker, tag("circle", cx=x(i), cy=y(value), r=4, class_=f"dot {p.tone}")
            )
        )
    room = max((6.5 * len(p.label) for p in points), default=1.0) + 8
    every = max(1, math.ceil(room / step))
    labelled = range(len(points) - 1, -1, -every)  # the newest always has its label
    marks += [
        tag("text", points[i].label, x=x(i), y=top + tall + 18, text_anchor="middle")
        for i in labelled
    ]
    words = "No values."
    if known:
        (_, first, a), (_, last, b) = known[0], known[-1]
        values = [v for *_, v in known]
        words = (
            f"{len(known)} values from {first.label} ({number(a)}) to {last.label} ({number(b)}), "
            f"least {number(min(values))}, greatest {number(max(values))}."
        )
    return tag(
        "svg",
        marks,
        class_="trend",
        role="img",
        aria_label=f"{name}. {words}",
        width=round(width, 2),
        height=top + tall + foot,
        viewBox=f"0 0 {width:g} {top + tall + foot:g}",
    )


_SIDE, _LEFT, _TOP = 260.0, 52.0, 10.0


def _square(
    name: str, description: str, across: str, up: str, marks: Child, foot: float = 0.0
) -> Safe:
    """Unit square axes with a diagonal."""
    grid: list[Child] = []
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        x, y = _x(tick), _y(tick)
        grid.append(tag("line", x1=x, x2=x, y1=_TOP, y2=_TOP + _SIDE, class_="grid"))
        grid.append(tag("line", x1=_LEFT, x2=_LEFT + _SIDE, y1=y, y2=y, class_="grid"))
        label = f"{tick:g}"
        grid.append(tag("text", label, x=x, y=_TOP + _SIDE + foot + 16, text_anchor="middle"))
        grid.append(tag("text", label, x=_LEFT - 8, y=y + 4, text_anchor="end"))
    middle = _TOP + _SIDE / 2
    return tag(
        "svg",
        tag("title", name),
        tag("desc", description),
        grid,
        tag("line", x1=_x(0), y1=_y(0), x2=_x(1), y2=_y(1), class_="diagonal"),
        marks,
        tag(
            "text",
            across,
            x=_LEFT + _SIDE / 2,
            y=_TOP + _SIDE + foot + 36,
            text_anchor="middle",
            class_="label",
        ),
        tag(
            "text",
            up,
            transform=f"rotate(-90 12 {middle:g})",
            x=12,
            y=middle,
            text_anchor="middle",
            class_="label",
        ),
        class_="square",
        role="img",
        aria_label=f"{name}. {description}",
        viewBox=f"0 0 {_LEFT + _SIDE + 14:g} {_TOP + _SIDE + foot + 44:g}",
    )


def _x(value: float) -> float:
    return round(_LEFT + value * _SIDE, 2)


def _y(value: float) -> float:
    return round(_TOP + (1 - value) * _SIDE, 2)


def reliability_plot(name: str, bins: Sequence[Mapping[str, object]]) -> Safe:
    """What was predicted against what happened, one dot a bin, with the bins' sizes underneath.

    Args:
        bins: {"confidence", "frequency", "count"}; bins without a finite number in each, or empty
            ones, are left out.
    """
    points = []
    for b in bins:
        confidence, frequency, count = (
            finite(b.get(k)) for k in ("confidence", "frequency", "count")
        )
        if confidence is not None and frequency is not None and count:
            points.append((confidence, frequency, count))
    points.sort()
    most = max((count for *_, count in points), default=1.0)
    total = sum(count for *_, count in points)
    path = " ".join(f"{_x(c)},{_y(f)}" for c, f, _ in points)
    foot, base = 46.0, _TOP + _SIDE + 46.0
    marks: list[Child] = [tag("polyline", points=path, class_="curve")]
    for confidence, frequency, count in points:
        height = round(34 * count / most, 2)
        marks.append(tag("circle", cx=_x(confidence), cy=_y(frequency), r=4.5, class_="dot accent"))
        marks.append(
            tag(
                "rect",
                x=_x(confidence) - 5,
                y=base - height,
                width=10,
                height=height,
                class_="count",
            )
        )
    off = max(((abs(f - c), c, f) for c, f, _ in points), default=None)
    words = f"{len(points)} bins of {number(int(total))} predictions."
    if off:
        words += f" Furthest from the diagonal: predicted {off[1]:.2f}, observed {off[2]:.2f}."
    return _square(name, words, "predicted probability", "observed frequency", marks, foot)


def area_under(fpr: Sequence[float], tpr: Sequence[float]) -> float | None:
    """Area under a ROC curve by trapezoids; None when there is no curve."""
    if len(fpr) != len(tpr) or len(fpr) < 2 or any(finite(v) is None for v in [*fpr, *tpr]):
        return None
    return sum((fpr[i + 1] - fpr[i]) * (tpr[i + 1] + tpr[i]) / 2 for i in range(len(fpr) - 1))


def roc_plot(
    name: str, fpr: Sequence[float], tpr: Sequence[float], chosen: tuple[float, float] | None = None
) -> Safe | None:
    """A ROC curve of some 300 points with the operating point (fpr, tpr); None when there is no
    curve.
    """
    area = area_under(fpr, tpr)
    if area is None:
        return None
    step = max(1, len(fpr) // 300)
    keep = [*range(0, len(fpr) - 1, step), len(fpr) - 1]
    path = " ".join(f"{_x(fpr[i])},{_y(tpr[i])}" for i in keep)
    marks: list[Child] = [
        tag("polygon", points=f"{_x(0)},{_y(0)} {path} {_x(1)},{_y(0)}", class_="area"),
        tag("polyline", points=path, class_="curve"),
    ]
    words = f"Area under the curve {area:.3f}."
    if chosen:
        marks.append(tag("circle", cx=_x(chosen[0]), cy=_y(chosen[1]), r=5, class_="dot accent"))
        words += f" The chosen threshold finds {chosen[1]:.3f} of positives at {chosen[0]:.3f} false alarms."
    return _square(name, words, "false positive rate", "true positive rate", marks)


def confusion_matrix(caption: str, matrix: Sequence[Sequence[int]], names: Sequence[str]) -> Safe:
    """Counts by truth (rows) and prediction (columns), each cell shaded by its share of the row."""
    rows = []
    for truth, counts in zip(names, matrix, strict=True):
        total = sum(counts)
        cells = []
        for predicted, count in zip(names, counts, strict=True):
            share = count / total if total else 0.0
            cells.append(
                tag(
                    "td",
                    tag("b", number(int(count))),
                    tag("small", f"{share:.1%}"),
                    class_="shade " + ("right" if truth == predicted else "wrong"),
                    style=f"--share:{share:.3f}",
                )
            )
        rows.append(tag("tr", tag("th", f"was {truth}", scope="row"), cells))
    head = tag("tr", tag("td"), [tag("th", f"said {name}", scope="col") for name in names])
    return tag(
        "div",
        tag(
            "table",
            tag("caption", caption),
            tag("thead", head),
            tag("tbody", rows),
            class_="confusion",
        ),
        class_="scroll",
        role="region",
        tabindex="0",
        aria_label=caption,
    )


# --- style


def _palette(colours: Mapping[str, str]) -> str:
    return "".join(f"--{name}:{value};" for name, value in colours.items())


_CSS = (
    f":root{{color-scheme:light dark;{_palette(LIGHT)}}}"
    f"@media (prefers-color-scheme:dark){{:root{{{_palette(DARK)}}}}}"
    f"@media print{{:root{{color-scheme:light;{_palette(LIGHT)}--paper:#fff;}}}}"
    """
*{box-sizing:border-box}
html{font-size:100%;-webkit-text-size-adjust:100%;scroll-behavior:smooth}
body{margin:0;background:var(--paper);color:var(--ink);
  font:400 1rem/1.6 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue","Noto Sans",Arial,sans-serif}
main{max-width:70rem;margin:0 auto;padding:clamp(1.5rem,5vw,4.5rem) clamp(1rem,4vw,2.5rem) 5rem}
h1,h2,.figure{
  font-family:"Iowan Old Style",Charter,"Bitstream Charter","Palatino Linotype",Palatino,P052,Georgia,
    "Noto Serif",serif;
  font-weight:500;letter-spacing:-.012em;text-wrap:balance}
h1{font-size:clamp(2rem,5vw,3.1rem);line-height:1.12;margin:.35rem 0 .9rem}
h2{font-size:1.65rem;line-height:1.2;margin:0 0 .35rem}
h3{font-size:1rem;line-height:1.4;font-weight:650;margin:2rem 0 .5rem}
p{margin:.5rem 0 1rem;max-width:44rem}
a{color:var(--accent);text-underline-offset:.2em;text-decoration-thickness:.06em}
a:focus-visible,.scroll:focus-visible,.skip:focus,summary:focus-visible{outline:2px solid var(--accent);
  outline-offset:3px}
code{font:.86em/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;
  overflow-wrap:anywhere}
section{margin-top:4rem;padding-top:1.6rem;border-top:1px solid var(--line)}
section>p.quiet{margin:.2rem 0 1.6rem;font-size:.97rem}
.over code{text-transform:none;letter-spacing:.02em;font-weight:400}
.over{font-size:.78rem;font-weight:600;letter-spacing:.13em;text-transform:uppercase;color:var(--quiet);
  margin:0}
.lede{font-size:1.16rem;line-height:1.55;max-width:46rem}
.quiet,figcaption,caption,small{color:var(--quiet)}
.good{color:var(--good)}.bad{color:var(--bad)}.warn{color:var(--warn)}
nav{margin:1.6rem 0 0}
nav ul{list-style:none;display:flex;flex-wrap:wrap;gap:.35rem 1.3rem;margin:0;padding:0;font-size:.92rem}
.verdict{border-left:5px solid var(--quiet);padding-left:clamp(1rem,3vw,1.8rem)}
.verdict.good{border-color:var(--good);color:inherit}.verdict.bad{border-color:var(--bad);color:inherit}
.verdict.warn{border-color:var(--warn);color:inherit}
.verdict ul{margin:.4rem 0 0;padding-left:1.1rem;max-width:48rem}.verdict li{margin:.3rem 0}
.figures{display:grid;grid-template-columns:repeat(auto-fit,minmax(15rem,1fr));gap:1px;margin:2.5rem 0 0;
  background:var(--line);border:1px solid var(--line);border-radius:10px;overflow:hidden}
.figures>div{background:var(--card);padding:1.25rem 1.4rem 1.3rem}
.figures p{margin:0;font-size:.9rem;line-height:1.5}
.figures .figure{font-size:2.7rem;line-height:1.15;font-variant-numeric:tabular-nums lining-nums}
.badge{display:inline-block;min-width:4.6em;text-align:center;font-size:.78rem;font-weight:650;
  line-height:1.5;padding:.08rem .6rem;border:1px solid currentColor;border-radius:99px;white-space:nowrap}
.scroll{overflow-x:auto;margin:1rem 0 1.8rem;scrollbar-width:thin;scrollbar-color:var(--line) transparent}
table{border-collapse:collapse;font-size:.92rem;line-height:1.45;
  font-variant-numeric:tabular-nums lining-nums}
caption{text-align:left;font-size:.88rem;padding:0 0 .55rem}
caption b{color:var(--ink);font-size:1rem;font-weight:650;margin-right:.45em}
th,td{text-align:left;vertical-align:top;padding:.5rem 1.1rem .5rem 0;border-bottom:1px solid var(--line);
  font-weight:400}
thead th{vertical-align:bottom;font-size:.8rem;font-weight:600;color:var(--quiet);white-space:nowrap;
  border-bottom:1.5px solid var(--quiet)}
.full{width:100%}.full .wide{min-width:16rem}th:first-child{min-width:10.5rem}
.full th:first-child,.confusion th:first-child,.pair th:first-child{min-width:0}.num{min-width:4.4rem}
tbody th{font-weight:550}tr>:last-child{padding-right:.2rem}
tbody tr:last-child>*{border-bottom-color:transparent}
.num{text-align:right;white-space:nowrap}
.wide{overflow-wrap:anywhere;min-width:18rem}
td:has(>.interval),td:has(>.barplot){padding-top:0;padding-bottom:0;vertical-align:middle}
tr:has(>td>.interval)>*,tr:has(>td>.barplot)>*{vertical-align:middle}
figure{margin:0}figcaption{font-size:.88rem;line-height:1.5;margin-top:.4rem;max-width:24rem}
.plots{display:flex;flex-wrap:wrap;align-items:flex-start;gap:1.5rem 3.2rem;margin:0 0 1.8rem}
.plots>*{margin:1rem 0 0;max-width:100%}.plots figure{flex:0 1 19.5rem}
svg{overflow:visible;display:block}
svg text{font:11px system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans",Arial,sans-serif;fill:var(--quiet);
  font-variant-numeric:tabular-nums}
.square{width:100%;max-width:23rem;height:auto}.square .label{font-size:12px;fill:var(--ink)}
.grid{stroke:var(--line);stroke-width:1}.zero{stroke:var(--quiet);stroke-width:1.2}
.diagonal{stroke:var(--quiet);stroke-width:1.2;stroke-dasharray:3 4}
.curve{fill:none;stroke:var(--accent);stroke-width:2;stroke-linejoin:round}
.area{fill:var(--accent);opacity:.1}
.count{fill:var(--accent);opacity:.35}.track{fill:var(--wash)}
.whisker{stroke-width:1.8}.dot{stroke-width:2}
.whisker.accent,.dot.accent{stroke:var(--accent)}.dot.accent{fill:var(--accent)}
.whisker.quiet,.dot.quiet{stroke:var(--quiet)}.dot.quiet{fill:var(--card)}
.whisker.champion,.dot.champion{stroke:var(--warn)}.dot.champion{fill:var(--warn)}
.whisker.good,.dot.good{stroke:var(--good)}.dot.good{fill:var(--good)}
.whisker.bad,.dot.bad{stroke:var(--bad)}.dot.bad{fill:var(--bad)}
.bar.accent{fill:var(--accent)}.bar.quiet{fill:var(--quiet)}.bar.bad{fill:var(--bad)}
.bar.good{fill:var(--good)}
.confusion{width:auto;border-spacing:3px;border-collapse:separate}
.confusion thead th,.confusion tbody th{border:0;white-space:nowrap;vertical-align:middle;
  padding:.4rem .7rem .4rem 0}
.confusion thead th{text-align:center;padding:.3rem}.confusion thead td{border:0}
.shade{border:0;border-radius:6px;text-align:center;padding:.9rem .5rem!important;min-width:5.4rem}
.shade b{display:block;font-size:1.25rem;font-weight:600}.shade small{font-size:.82rem;color:inherit}
.right{background:color-mix(in srgb,var(--accent) calc(var(--share)*32%),var(--wash))}
.wrong{background:color-mix(in srgb,var(--bad) calc(var(--share)*32%),var(--wash))}
.example{background:var(--card);border:1px solid var(--line);border-radius:10px;
  padding:1.3rem clamp(1rem,3vw,1.7rem);margin:1.2rem 0}
.example h3{margin:0 0 .4rem}
.example blockquote{margin:0 0 1.1rem;padding-left:.9rem;border-left:2px solid var(--line);color:var(--quiet);
  font-size:.92rem;overflow-wrap:anywhere;max-width:56rem}
.pair{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,22rem),1fr));gap:.4rem 2.6rem}
.pair>*{min-width:0;margin-bottom:.4rem}
.reasons{font-weight:400;list-style:none;margin:.3rem 0 0;padding:0;display:grid;
  grid-template-columns:auto auto 1fr;gap:.1rem .8rem;align-items:center;
  font-size:.84rem;font-variant-numeric:tabular-nums}
.reasons li{display:contents}.reasons span{color:var(--quiet)}
.facts{display:grid;grid-template-columns:max-content 1fr;gap:.35rem 1.6rem;margin:1rem 0;font-size:.92rem}
.facts dt{color:var(--quiet)}.facts dd{margin:0;overflow-wrap:anywhere}
footer{margin-top:4rem;padding-top:1.2rem;border-top:1px solid var(--line);font-size:.88rem;
  color:var(--quiet)}
.trace{fill:none;stroke:var(--quiet);stroke-width:1.2;opacity:.7}
.whisker.warn,.dot.warn{stroke:var(--warn)}.dot.warn{fill:var(--warn)}
.skip{position:absolute;left:-200vw;top:.5rem;background:var(--card);padding:.3rem .9rem}
.skip:focus{left:1rem;z-index:1}
.banner{background:var(--card);border-bottom:1px solid var(--line)}
.banner>div,main.site,body>footer>p{max-width:78rem;margin:0 auto;padding-inline:clamp(1rem,4vw,2.5rem)}
.banner>div{padding-block:.65rem;display:flex;flex-wrap:wrap;align-items:baseline;gap:.2rem 1.8rem}
.banner nav{margin:0}.banner b{font-weight:650}
main.site{padding-block:clamp(1.4rem,3vw,2.4rem) 1rem}
body>footer{margin-top:1.5rem;padding-block:.8rem 2.5rem}
.site h1{font-size:clamp(1.7rem,4vw,2.4rem)}.site h2{font-size:1.3rem}.site .lede{font-size:1.05rem}
.site section{margin-top:2.4rem;padding-top:1.1rem}.site section>p.quiet{margin-bottom:1rem;font-size:.9rem}
.site table{font-size:.86rem}.site th,.site td{padding-block:.36rem}.site th:first-child{min-width:0}
.site tbody th,.site time,.site td a{white-space:nowrap}.site .wide{min-width:9.5rem}
.site thead th{white-space:normal}.site .scroll{margin:.6rem 0 1.2rem}
.site .num{min-width:3.4rem}
.site .figures{margin-top:1.4rem;grid-template-columns:repeat(auto-fit,minmax(min(100%,13rem),1fr))}
.site .figures>div{padding:.85rem 1.1rem .9rem}.site .figures p{font-size:.84rem}
.site .figures .figure{font-size:1.9rem}
.site td ul,.site dd ul{margin:0;padding-left:1rem}
.plot{margin:.4rem 0 1rem}.plot figcaption{margin:0 0 .2rem;max-width:none;color:var(--ink);font-weight:600}
.plots .plot{flex:0 0 auto}.plot .scroll{margin:0;padding-bottom:.3rem}
.chain{list-style:none;margin:1.2rem 0 0;padding:0 0 0 1.35rem;font-size:.92rem}
.site h1 .badge{font:650 .8rem/1.5 system-ui,sans-serif;letter-spacing:0;vertical-align:middle}
.chain li{position:relative;color:var(--ink);padding:0 0 .85rem;display:grid;gap:.1rem 1.2rem;
  grid-template-columns:8.5rem 6.6rem minmax(0,1fr) minmax(7rem,auto);align-items:baseline}
.chain li:before{content:"";position:absolute;left:-1.35rem;top:.35rem;width:.8rem;height:.8rem;
  border-radius:50%;background:var(--paper);border:2px solid var(--quiet)}
.chain li:after{content:"";position:absolute;left:-.92rem;top:1.3rem;bottom:-.2rem;width:1.5px;background:var(--line)}
.chain li:last-child:after{display:none}
.chain li.good:before{border-color:var(--good);background:var(--good)}
.chain li.bad:before{border-color:var(--bad);background:var(--bad)}
.chain li.warn:before{border-color:var(--warn);background:var(--warn)}
.chain .proof{text-align:right}.chain .badge{justify-self:start}
.chain .what,.chain .proof{overflow-wrap:anywhere}
@media (max-width:52rem){.chain li{grid-template-columns:auto 1fr}.chain .what,.chain .proof{
  grid-column:1/-1;text-align:left}}
@media (max-width:34rem){.facts{grid-template-columns:1fr;gap:0}.facts dd{margin-bottom:.6rem}}
@media print{
  body{font-size:10pt}main{max-width:none;padding:0}nav{display:none}section{margin-top:1.6rem}
  .scroll{overflow:visible}tr,figure,.example,.figures{break-inside:avoid}h2,h3,caption{break-after:avoid}
  *{-webkit-print-color-adjust:exact;print-color-adjust:exact}
}
@media (prefers-reduced-motion:reduce){html{scroll-behavior:auto}}
"""
)
