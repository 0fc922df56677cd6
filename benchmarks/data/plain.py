"""The peer: the same rules and the same snapshots in plain pandas, as one writes them first. All of
it in memory.

It shares no rule with the code that it is compared with: kinds, cleaning, splits, texts and
pseudonyms are written here once more, from docs/data.md. Only the settings' values and the items
come from there.
"""

from __future__ import annotations

import hmac
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from tasteloop.behaviour.cleaning import CleaningSettings
    from tasteloop.behaviour.items import Catalogue
    from tasteloop.behaviour.snapshots import PrepareSettings
    from tasteloop.behaviour.text import TextSettings

COLUMNS = ["user", "item", "kind", "time", "value", "text"]
SECOND = 1_000_000  # µs
FIRST = 631_152_000 * SECOND  # 1990
LAST = 253_402_300_800 * SECOND - 1  # of the year 9999
VERBS = {
    "view": "viewed",
    "search": "searched",
    "click": "clicked",
    "rate": "rated",
    "review": "reviewed",
    "share": "shared",
    "purchase": "bought",
}
ROUNDING = 1e-6  # of a value as float32


def clean(source: Path, out: Path, settings: CleaningSettings, key: bytes) -> pd.DataFrame:
    """The events of a generated source, cleaned and by time; events.parquet and quarantine.parquet
    in `out`. The key makes pseudonyms.
    """
    frame = pd.read_parquet(source / "events.parquet").set_axis(COLUMNS, axis=1)
    frame["row"] = np.arange(1, len(frame) + 1)
    hidden = {
        user: hmac.digest(key, user.encode(), "sha256")[:16].hex()
        for user in frame["user"].dropna().unique()
    }
    frame["user"] = frame["user"].map(hidden)
    time_written, value_written = frame["time"].astype(str), frame["value"]

    # 1. rules that look at one row
    no_item, no_text, no_value = frame["item"].isna(), frame["text"].isna(), frame["value"].isna()
    kind = frame["kind"]
    broken = {
        "missing": frame["user"].isna() | kind.isna(),
        "unknown_kind": ~kind.isin(list(VERBS)),
        "impossible_time": (frame["time"] < FIRST) | (frame["time"] > LAST),
        "off_scale": (frame["value"] < 1) | (frame["value"] > 5),
        "incomplete": (no_item & (kind != "search"))
        | (no_text & (kind == "search"))
        | (no_value & (kind == "rate"))
        | (no_text & no_value & (kind == "review")),
    }
    frame["reason"] = np.select(list(broken.values()), list(broken), default=None)

    # 2. repetitions
    remaining = frame[frame["reason"].isna()]
    frame.loc[remaining.index[remaining.duplicated(COLUMNS)], "reason"] = "exact_duplicate"
    remaining = frame[frame["reason"].isna()].sort_values(["time", "row"])
    query = remaining["text"].where(remaining["item"].isna())
    groups = remaining.groupby(
        [remaining["user"], remaining["item"], remaining["kind"], query], dropna=False
    )
    since = remaining["time"] - groups["time"].shift()
    near = since <= settings.near_duplicate_seconds * SECOND
    frame.loc[remaining.index[near], "reason"] = "near_duplicate"

    # 3. items and users with too few events, until all that are left have enough
    limits = (("item", settings.min_item_events), ("user", settings.min_user_events))
    before, size = -1, int(frame["reason"].isna().sum())
    while size != before:
        before = size
        for column, least in limits:
            remaining = frame[frame["reason"].isna()]
            counts = remaining.groupby(column)[column].transform("size")
            frame.loc[remaining.index[counts < least], "reason"] = f"few_{column}_events"
        size = int(frame["reason"].isna().sum())

    # 4. both tables
    refused = frame[frame["reason"].notna()].copy()
    refused["time"] = time_written[refused.index]
    refused["value"] = value_written[refused.index].astype(str)
    refused[[*COLUMNS, "reason", "row"]].to_parquet(out / "quarantine.parquet", compression="zstd")
    accepted = frame[frame["reason"].isna()].sort_values(["time", "row"])
    events = accepted[COLUMNS].reset_index(drop=True)
    events["value"] = ((events["value"] - 1) / 4).astype("float32")
    events.to_parquet(out / "events.parquet", compression="zstd")
    return events


def prepare(
    events: pd.DataFrame, catalogue: Catalogue, settings: PrepareSettings, out: Path
) -> int:
    """Write snapshots.parquet; how many there are."""
    shares = [settings.train_share, settings.train_share + settings.validation_share]
    validation_from, test_from = (int(t) for t in events["time"].quantile(shares, "lower"))
    events = events.sort_values(["user", "time"], kind="stable").reset_index(drop=True)
    events.to_parquet(out / "by_user.parquet", compression="zstd")
    records = []
    for user, mine in events.groupby("user", sort=True):
        begin, times = int(mine.index[0]), mine["time"].tolist()
        known = mine.astype(object).where(mine.notna(), None)
        acts = known[["kind", "item", "value", "text"]].to_dict("records")
        liked = [
            (n, catalogue.index[act["item"]])
            for n, act in enumerate(acts)
            if act["item"] in catalogue.index and is_wanted(act, settings.text.positive)
        ]
        for cut in cuts(times, settings):
            future = [pair for pair in liked if pair[0] >= cut][: settings.horizon]
            if len(future) < settings.minimum_future:
                break
            now, last = times[cut - 1], times[future[-1][0]]
            if last < validation_from:
                split = "train"
            elif validation_from <= now and last < test_from:
                split = "validation"
            elif now >= test_from:
                split = "test"
            else:
                continue
            first = max(0, cut - settings.text.history_limit)
            records.append(
                {
                    "user": user,
                    "time": now,
                    "split": split,
                    "text": tell(acts[first:cut], catalogue, settings.text),
                    "events_seen": cut,
                    "history": list(range(begin + first, begin + cut)),
                    "future": [position for _, position in future],
                }
            )
    pd.DataFrame(records).to_parquet(out / "snapshots.parquet", compression="zstd")
    return len(records)


def cuts(times: list[int], settings: PrepareSettings) -> list[int]:
    """History lengths, each moved on to where the next event is strictly later."""
    lengths = set(settings.positions)
    lengths.update(range(max(settings.positions) + settings.stride, len(times), settings.stride))
    moved = set()
    for length in lengths:
        while 0 < length < len(times) and times[length] == times[length - 1]:
            length += 1
        if 0 < length < len(times):
            moved.add(length)
    return sorted(moved)


def is_wanted(act: dict[str, Any], threshold: float) -> bool:
    kind, value = act["kind"], act["value"]
    if act["item"] is None or kind == "search":
        return False
    if kind in ("click", "share", "purchase"):
        return True
    if value is None:
        return bool(kind == "view")
    return bool(value >= threshold - ROUNDING)


def tell(acts: list[dict[str, Any]], catalogue: Catalogue, settings: TextSettings) -> str:
    """A history as text: what it is about, then what was done, newest first."""
    counts: Counter[str] = Counter()
    likes = 0
    for act in acts:
        if act["item"] in catalogue.index and is_wanted(act, settings.positive):
            likes += 1
            counts.update(catalogue.labels[catalogue.index[act["item"]]])
    parts = []
    top = sorted(counts, key=lambda label: (-counts[label], label))[: settings.summary_labels]
    if top:
        shares = ", ".join(f"{label.lower()} {round(100 * counts[label] / likes)}" for label in top)
        parts.append(f"mostly {shares} of {len(acts)} events")
    last = ""
    for act in reversed(acts[-settings.max_events :]):
        verb, subject = verb_of(act, settings), subject_of(act, catalogue)
        parts.append(subject if verb == last else f"{verb} {subject}")
        last = verb
    return "; ".join(parts) or "no history"


def verb_of(act: dict[str, Any], settings: TextSettings) -> str:
    if act["kind"] not in ("rate", "review") or act["value"] is None:
        return VERBS[act["kind"]]
    if is_wanted(act, settings.positive):
        return "liked"
    return "disliked" if act["value"] < settings.negative else "tried"


def subject_of(act: dict[str, Any], catalogue: Catalogue) -> str:
    words = []
    if act["item"] is not None:
        position = catalogue.index.get(act["item"])
        words.append(act["item"] if position is None else catalogue.titles[position])
        if position is not None and catalogue.labels[position]:
            words.append(" ".join(label.lower() for label in catalogue.labels[position]))
    if act["text"]:
        words.append('"' + " ".join(act["text"].split()[:12])[:72] + '"')
    return ", ".join(words) or "something"
