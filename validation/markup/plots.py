"""Plots as inline SVG, each with a text alternative."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from tasteloop.intervals import Interval, finite
from validation.markup.elements import Child, Safe, tag
from validation.markup.formats import number

if TYPE_CHECKING:
    from tasteloop.evaluation.record import ReliabilityBin

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
        held = [number for number in map(finite, values) if number is not None]
        if include is not None:
            held.append(include)
        low, high = (min(held), max(held)) if held else (0.0, 1.0)
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
    measure: Interval | None, scale: Scale, tone: str = "accent", zero: bool = False
) -> Safe:
    """A point and its interval on a shared scale; the numbers stand in the row beside it."""
    height = 38  # of a row, so that the grid runs through
    y = height / 2
    marks: list[Child] = [
        tag("line", x1=scale(t), x2=scale(t), y1=0, y2=height, class_="grid") for t in scale.ticks()
    ]
    if zero and scale.low < 0 < scale.high:
        marks.append(tag("line", x1=scale(0), x2=scale(0), y1=0, y2=height, class_="zero"))
    value, low, high = (
        (None,) * 3 if measure is None else (measure.value, measure.low, measure.high)
    )
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
    heights = [finite(point.value) for point in points]
    known = [(i, points[i], height) for i, height in enumerate(heights) if height is not None]
    if line and len(known) > 1:
        marks.append(
            tag("polyline", points=" ".join(f"{x(i)},{y(v)}" for i, _, v in known), class_="trace")
        )
    for i, p, value in known:
        low, high = finite(p.low), finite(p.high)
        title = tag("title", p.about or f"{p.label}: {number(value)}")
        whisker = None
        if low is not None and high is not None:
            whisker = tag(
                "line", x1=x(i), x2=x(i), y1=y(low), y2=y(high), class_=f"whisker {p.tone}"
            )
        marks.append(
            tag(
                "g",
                title,
                whisker,
                tag("circle", cx=x(i), cy=y(value), r=4, class_=f"dot {p.tone}"),
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


def reliability_plot(name: str, bins: Sequence[ReliabilityBin]) -> Safe:
    """What was predicted against what happened, one dot a bin, with the bins' sizes underneath.

    Args:
        bins: those without a finite number in each place, or empty ones, are left out.
    """
    points = sorted(
        (each.confidence, each.frequency, each.count)
        for each in bins
        if each.confidence is not None and each.frequency is not None and each.count
    )
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


def area_under(fpr: Sequence[float | None], tpr: Sequence[float | None]) -> float | None:
    """Area under a ROC curve by trapezoids; None when there is no curve."""
    points = _curve(fpr, tpr)
    if points is None:
        return None
    return sum((x1 - x0) * (y0 + y1) / 2 for (x0, y0), (x1, y1) in pairwise(points))


def _curve(
    fpr: Sequence[float | None], tpr: Sequence[float | None]
) -> list[tuple[float, float]] | None:
    """The points of a ROC curve; None where fewer than two, or not all of them, are known."""
    xs = [number for number in map(finite, fpr) if number is not None]
    ys = [number for number in map(finite, tpr) if number is not None]
    if not len(xs) == len(ys) == len(fpr) == len(tpr) or len(xs) < 2:
        return None
    return list(zip(xs, ys, strict=True))


def roc_plot(
    name: str,
    fpr: Sequence[float | None],
    tpr: Sequence[float | None],
    chosen: tuple[float, float] | None = None,
) -> Safe | None:
    """A ROC curve of some 300 points with the operating point (fpr, tpr); None when there is no
    curve.
    """
    area, points = area_under(fpr, tpr), _curve(fpr, tpr)
    if area is None or points is None:
        return None
    drawn = [*points[: -1 : max(1, len(points) // 300)], points[-1]]
    path = " ".join(f"{_x(x)},{_y(y)}" for x, y in drawn)
    marks: list[Child] = [
        tag("polygon", points=f"{_x(0)},{_y(0)} {path} {_x(1)},{_y(0)}", class_="area"),
        tag("polyline", points=path, class_="curve"),
    ]
    words = f"Area under the curve {area:.3f}."
    if chosen:
        marks.append(tag("circle", cx=_x(chosen[0]), cy=_y(chosen[1]), r=5, class_="dot accent"))
        words += f" The chosen threshold finds {chosen[1]:.3f} of positives at {chosen[0]:.3f} false alarms."
    return _square(name, words, "false positive rate", "true positive rate", marks)


_LABEL, _TRACK, _ROW, _KEY = 150.0, 230.0, 26.0, 22.0  # pixels
_TALL = 120.0


def distribution(
    name: str, cells: Sequence[str], reference: Sequence[float], window: Sequence[float]
) -> Safe:
    """How a measure is spread over its cells in the reference and in a window: a pair of bars a
    cell, with the shares beside them.

    Args:
        cells: names of the cells, in the order in which they are drawn.
        reference, window: share of each cell; the shares of a side sum to 1 or less.
    """
    most = max([*reference, *window, 0.01])
    width, height = _LABEL + _TRACK + 130, _KEY + _ROW * len(cells) + 4
    marks: list[Child] = [
        tag("rect", x=_LABEL, y=4, width=10, height=8, class_="bar quiet"),
        tag("text", "reference", x=_LABEL + 14, y=12),
        tag("rect", x=_LABEL + 90, y=4, width=10, height=8, class_="bar accent"),
        tag("text", "window", x=_LABEL + 104, y=12),
    ]
    for row, (cell, before, now) in enumerate(zip(cells, reference, window, strict=True)):
        top = _KEY + _ROW * row
        label = cell if len(cell) <= 24 else cell[:23] + "…"
        bars = [
            tag(
                "rect",
                x=_LABEL,
                y=top + 3 + 9 * side,
                width=round(_TRACK * share / most, 2),
                height=8,
                class_=f"bar {tone}",
            )
            for side, (share, tone) in enumerate(((before, "quiet"), (now, "accent")))
        ]
        title = f"{cell}: {before:.1%} in the reference, {now:.1%} in the window"
        marks.append(
            tag(
                "g",
                tag("title", title),
                tag("text", label, x=_LABEL - 8, y=top + 15, text_anchor="end"),
                bars,
                tag("text", f"{before:.1%} → {now:.1%}", x=_LABEL + _TRACK + 8, y=top + 15),
            )
        )
    gaps = [abs(now - before) for before, now in zip(reference, window, strict=True)]
    words = "No cells."
    if gaps:
        most_moved = gaps.index(max(gaps))
        words = (
            f"{len(cells)} cells; {cells[most_moved]} moved most, from "
            f"{reference[most_moved]:.1%} of the reference to {window[most_moved]:.1%} of the window."
        )
    return tag(
        "svg",
        marks,
        class_="distribution",
        role="img",
        aria_label=f"{name}. {words}",
        width=width,
        height=height,
        viewBox=f"0 0 {width:g} {height:g}",
    )


def histogram(
    name: str, edges: Sequence[float], reference: Sequence[float], window: Sequence[float]
) -> Safe:
    """How a quantity is spread in the reference and in a window: two outlines over the same cells.

    The height is the share of a cell over its width, so that a wide cell does not look like much.

    Args:
        edges: of the cells, one more than there are cells, rising.
        reference, window: share of each cell.
    """
    left, top, wide = 16.0, _KEY, 420.0
    low, high = edges[0], edges[-1]
    widths = [max(b - a, 1e-9) for a, b in pairwise(edges)]
    heights = [
        [share / each for share, each in zip(side, widths, strict=True)]
        for side in (reference, window)
    ]
    most = max([*heights[0], *heights[1], 1e-9])

    def x(value: float) -> float:
        return round(left + (value - low) / max(high - low, 1e-9) * wide, 2)

    def outline(side: Sequence[float]) -> str:
        points = [f"{x(low)},{top + _TALL}"]
        for (a, b), height in zip(pairwise(edges), side, strict=True):
            y = round(top + _TALL * (1 - height / most), 2)
            points += [f"{x(a)},{y}", f"{x(b)},{y}"]
        return " ".join([*points, f"{x(high)},{top + _TALL}"])

    scale = Scale(low, high if high > low else low + 1e-9, wide)
    ticks = scale.ticks()
    digits = max((len(f"{tick:g}".partition(".")[2]) for tick in ticks), default=0)
    marks: list[Child] = [
        tag("rect", x=left, y=4, width=10, height=8, class_="bar quiet"),
        tag("text", "reference", x=left + 14, y=12),
        tag("rect", x=left + 90, y=4, width=10, height=8, class_="bar accent"),
        tag("text", "window", x=left + 104, y=12),
        tag("polygon", points=outline(heights[0]), class_="spread quiet"),
        tag("polygon", points=outline(heights[1]), class_="spread accent"),
        [
            tag(
                "text",
                number(float(tick), digits),
                x=x(tick),
                y=top + _TALL + 16,
                text_anchor="middle",
            )
            for tick in ticks
        ],
    ]
    means = [
        sum(share * (a + b) / 2 for share, (a, b) in zip(side, pairwise(edges), strict=True))
        for side in (reference, window)
    ]
    words = f"The mean is about {number(means[0])} in the reference and {number(means[1])} in the window."
    return tag(
        "svg",
        marks,
        class_="distribution",
        role="img",
        aria_label=f"{name}. {words}",
        width=wide + 2 * left,
        height=top + _TALL + 24,
        viewBox=f"0 0 {wide + 2 * left:g} {top + _TALL + 24:g}",
    )
