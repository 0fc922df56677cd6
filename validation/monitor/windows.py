"""Windows of behaviour: which are closed, whether their data can be trusted, and which answers'
truth is known.

Time is the events' own. The watermark says how far it has come: the newest event, less the lateness
that is waited for. Events in the monitor's future do not move it, so a sender's wrong clock cannot
close a window early. A window is closed once the watermark has passed its end, and stays what it
was: what comes later is late, and counts in no window.

An answer's truth is what its user did within the horizon after it. It counts in the window in which
the horizon ends, once, and only what lies inside the horizon counts: so no answer looks worse for
being young, or better for being old.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, Field, model_validator

from tasteloop.behaviour.events import ITEM, KIND, TEXT, TIME, USER, VALUE
from tasteloop.behaviour.kinds import KINDS, words_needing, words_without
from tasteloop.journal import FEEDBACK, NAMES

if TYPE_CHECKING:
    import polars as pl

HOUR = 3_600_000_000  # µs
WEEK = 7 * 24 * HOUR

RELEVANT, CLICKED = "relevant", "clicked"  # columns that `outcomes` adds to the journal's

Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
_COLUMNS = (USER, ITEM, KIND, TIME, VALUE, TEXT)


class WindowSettings(BaseModel, frozen=True, extra="forbid"):
    """How time is cut."""

    hours: float | None = Field(
        24.0, gt=0, allow_inf_nan=False, description="Length of a window; null: by count."
    )
    events: int | None = Field(None, ge=1, description="Events of a window instead of a length.")
    lateness_hours: float = Field(
        2.0, ge=0, allow_inf_nan=False, description="How long late events are waited for."
    )
    horizon_hours: float = Field(
        24.0, gt=0, allow_inf_nan=False, description="What follows an answer so soon is its truth."
    )

    @model_validator(mode="after")
    def _one_measure(self) -> WindowSettings:
        if (self.hours is None) == (self.events is None):
            raise ValueError(
                "a window has a length in hours or a number of events: set one, and the other to null"
            )
        return self

    @property
    def horizon(self) -> int:
        """µs"""
        return int(self.horizon_hours * HOUR)


class CheckSettings(BaseModel, frozen=True, extra="forbid"):
    """When a window's data cannot be trusted; shares lie in [0, 1]."""

    volume: tuple[float, float] = Field(
        (0.2, 5.0), description="Of the reference's least and most events a window."
    )
    rise: Share = Field(
        0.2, description="How much higher the share of empty or unlisted values may be."
    )
    invalid: Share = Field(0.01, description="Unknown kinds, or values outside [0, 1].")
    duplicates: Share = Field(0.5, description="Exact repetitions; they are removed in any case.")
    flood: float = Field(
        3.0,
        ge=1,
        description="Times the reference's busiest user from which a user may be a machine.",
    )
    flooded: Share = Field(0.1, description="Events of such users.")
    enough: int = Field(30, ge=1, description="Rows below which a share is not judged.")


@dataclass(frozen=True, order=True)
class Span:
    """From `start` on and before `end`, µs since 1970 UTC."""

    start: int
    end: int

    @property
    def name(self) -> str:
        return f"{self.start}/{self.end}"

    def of(self, frame: pl.DataFrame, shift: int = 0) -> pl.DataFrame:
        """The rows whose time, `shift` later, lies in it."""
        import polars as pl

        return frame.filter(
            pl.col(TIME).is_between(self.start - shift, self.end - shift, closed="left")
        )


def watermark(times: pl.Series, now: int, settings: WindowSettings) -> int | None:
    """Up to where no event is waited for any more; None without events before `now`."""
    newest: Any = times.filter(times <= now).max()
    return None if newest is None else int(newest) - int(settings.lateness_hours * HOUR)


def beginning(times: pl.Series, since: int, settings: WindowSettings) -> int | None:
    """Where the first window after `since` begins: with the first event, whatever lies between;
    None without one.
    """
    first: Any = times.filter(times >= since).min()
    if first is None or settings.hours is None:
        return None if first is None else int(first)
    length = int(settings.hours * HOUR)
    return max(-(-since // length), int(first) // length) * length


def closed(times: pl.Series, since: int, until: int, settings: WindowSettings) -> list[Span]:
    """The windows that begin at `since` or later and end by the watermark `until`, oldest first.

    By length they lie on a grid from 1970 on, whoever asks and whenever; one without events is a
    window too. By count each begins where the one before ended, and events of one instant are never
    parted.
    """
    if settings.hours is not None:
        length = int(settings.hours * HOUR)
        return [
            Span(n * length, (n + 1) * length) for n in range(-(-since // length), until // length)
        ]
    assert settings.events is not None
    ahead = times.filter((times >= since) & (times < until)).sort()
    out: list[Span] = []
    start, position = since, 0
    while position + settings.events < len(ahead):
        end = int(ahead[position + settings.events])
        position = int(ahead.search_sorted(end, side="left"))
        # an instant fuller than a window
        if end == start or position == 0 or (out and end == out[-1].end):
            later = ahead.filter(ahead > end)
            if not len(later):
                break
            end = int(later[0])
            position = int(ahead.search_sorted(end, side="left"))
        out.append(Span(start, end))
        start = end
    return out


def distinct(events: pl.DataFrame) -> pl.DataFrame:
    """Without exact repetitions, ordered by user, time and the rest: the same rows in any order
    give the same table.
    """
    return events.select(_COLUMNS).unique().sort(USER, TIME, KIND, ITEM, VALUE, TEXT)


# Whether the data can be trusted


class RowShare(BaseModel, frozen=True):
    """A share of n rows."""

    share: float
    n: int


class WindowFacts(BaseModel, frozen=True):
    """What `problems` compares of a window with the reference's windows.

    Attributes:
        rows: how many came, repetitions included.
        events, users: without repetitions.
        busiest: events of the user who has most.
        shares: of rows that are empty or unlisted, by what they are, in words.
        invalid: the share of events with an unknown kind or a value outside [0, 1].
        values: how many different values there are.
        rated: events with a value.
    """

    rows: int
    events: int
    users: int
    busiest: int
    shares: dict[str, RowShare]
    invalid: float
    values: int
    rated: int


def facts(rows: pl.DataFrame, listed: Sequence[str], delivered: int | None = None) -> WindowFacts:
    """Count what `problems` compares.

    Args:
        rows: behaviour, repetitions removed; `delivered`: how many rows came, with them.
    """
    import polars as pl

    shares = {}
    for name, of, bad in (
        (
            "ratings without a value",
            pl.col(KIND).is_in(words_needing("value")),
            pl.col(VALUE).is_null(),
        ),
        (
            "events without an item",
            ~pl.col(KIND).is_in(words_without("item")),
            pl.col(ITEM).is_null(),
        ),
        (
            "searches without a text",
            pl.col(KIND).is_in(words_needing("text")),
            pl.col(TEXT).is_null() | (pl.col(TEXT) == ""),
        ),
        (
            "reviews without a text",
            pl.col(KIND).is_in(words_needing("text", "value")),
            pl.col(TEXT).is_null() | (pl.col(TEXT) == ""),
        ),
        (
            "events on items that no catalogue lists",
            pl.col(ITEM).is_not_null(),
            ~pl.col(ITEM).is_in(listed),
        ),
    ):
        table = rows.filter(of)
        shares[name] = RowShare(share=float(table.select(bad.mean()).item() or 0.0), n=table.height)
    invalid = ~pl.col(KIND).is_in(list(KINDS)) | (
        pl.col(VALUE).is_not_null() & ~pl.col(VALUE).is_between(0, 1)
    )
    rated = rows.filter(pl.col(VALUE).is_not_null())
    counts = rows.group_by(USER).len()["len"]
    return WindowFacts(
        rows=rows.height if delivered is None else delivered,
        events=rows.height,
        users=rows[USER].n_unique(),
        busiest=int(counts.max() or 0),  # type: ignore[arg-type]
        shares=shares,
        invalid=float(rows.select(invalid.fill_null(True).mean()).item() or 0.0),
        values=rated[VALUE].n_unique() if rated.height else 0,
        rated=rated.height,
    )


def problems(
    rows: pl.DataFrame,
    now: WindowFacts,
    reference: Sequence[WindowFacts],
    settings: CheckSettings,
) -> list[str]:
    """Why a window's data cannot be trusted, in words; nothing where it can.

    Args:
        rows: the window's behaviour, repetitions removed.
        now: its `facts`, against today's catalogue.
        reference: those of the reference's windows.
    """
    import polars as pl

    out = []

    # 1. volume and repetitions
    volumes = [each.events for each in reference]
    low, high = settings.volume[0] * min(volumes), settings.volume[1] * max(volumes)
    if not low <= now.events <= high:
        out.append(
            f"{now.events:,} events, where the reference's windows had {min(volumes):,} to {max(volumes):,} "
            f"(allowed: {low:,.0f} to {high:,.0f})"
        )
    repeated = 1 - now.events / now.rows if now.rows else 0.0
    if repeated > settings.duplicates:
        out.append(
            f"{repeated:.0%} of the rows repeat others exactly (allowed: {settings.duplicates:.0%})"
        )

    # 2. empty, unlisted, invalid and constant values
    for name, bad in now.shares.items():
        before = [each.shares[name] for each in reference]
        usual = max((each.share for each in before if each.n >= settings.enough), default=0.0)
        if bad.n >= settings.enough and bad.share > usual + settings.rise:
            out.append(
                f"{bad.share:.0%} {name}, where the reference's windows had at most {usual:.0%}"
            )
    if now.invalid > settings.invalid:
        out.append(
            f"{now.invalid:.1%} of the events have an unknown kind or a value outside [0, 1]"
        )
    varied = all(each.values > 1 for each in reference if each.rated)
    if now.rated >= settings.enough and now.values == 1 and varied:
        out.append(
            "every value is the same, where the reference has several: a constant was written upstream"
        )

    # 3. automated traffic
    busiest = settings.flood * max(each.busiest for each in reference)
    counts = rows.group_by(USER).len().filter(pl.col("len") > busiest)
    flooded = int(counts["len"].sum()) / now.events if now.events else 0.0
    if flooded > settings.flooded:
        out.append(
            f"{flooded:.0%} of the events come from {counts.height} users with more than {busiest:,.0f} events each: "
            "automated traffic?"
        )
    return out


# Truth


def outcomes(
    answers: pl.DataFrame, events: pl.DataFrame, horizon: int, positive: float
) -> pl.DataFrame:
    """Answers with what followed within the horizon (µs): `relevant` items, and whether a named one
    was `clicked`.

    Args:
        answers: rows of the journal, with `feedback`; without a user only feedback tells.
        events: behaviour; a positive event of the user later than the answer is an outcome.
        positive: value from which a rating is positive.
    """
    import narwhals as nw
    import polars as pl

    from tasteloop.behaviour.events import positive as is_positive

    rows = answers.with_row_index("row").with_columns(pl.col(USER).cast(pl.String))
    inside = (pl.col("then") > pl.col(TIME)) & (pl.col("then") <= pl.col(TIME) + horizon)

    # 1. what users did afterwards
    wanted = nw.from_native(distinct(events)).filter(is_positive(positive)).to_native()
    behaved = (
        rows.filter(pl.col(USER).is_not_null())
        .select("row", USER, TIME)
        .join(wanted.select(USER, ITEM, pl.col(TIME).alias("then")), on=USER)
        .filter(inside)
        .select("row", ITEM, "then")
    )

    # 2. what they reported of the answers
    entries = (
        rows.select("row", TIME, FEEDBACK).explode(FEEDBACK).filter(pl.col(FEEDBACK).is_not_null())
    )
    feedback = entries.select(
        "row",
        TIME,
        *(pl.col(FEEDBACK).struct.field(name) for name in (KIND, ITEM, VALUE)),
        pl.col(FEEDBACK).struct.field(TIME).alias("then"),
    ).filter(inside)
    liked = nw.from_native(feedback).filter(is_positive(positive)).to_native()

    # 3. both by answer: items in the order in which they followed, and whether a named one was
    # responded to
    relevant = (
        pl.concat([behaved, liked.select("row", ITEM, "then")])
        .sort("row", "then", ITEM)
        .unique(["row", ITEM], keep="first", maintain_order=True)
        .group_by("row", maintain_order=True)
        .agg(pl.col(ITEM).alias(RELEVANT))
    )
    named = rows.select("row", NAMES).explode(NAMES).rename({NAMES: ITEM})
    responses = [kind.word for kind in KINDS.values() if kind.is_response]
    responded = feedback.filter(pl.col(KIND).is_in(responses))
    clicked = responded.join(named, on=["row", ITEM])["row"].unique()
    return (
        rows.join(relevant, on="row", how="left")
        .with_columns(
            pl.col(RELEVANT).fill_null(pl.lit([], dtype=pl.List(pl.String))),
            pl.col("row").is_in(clicked.implode()).alias(CLICKED),
        )
        .sort("row")
        .drop("row")
    )
