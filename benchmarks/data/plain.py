"""The peer: the same rules and the same snapshots in plain pandas, as one writes them first. All of
it in memory.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from tasteloop.behaviour.events import KINDS, LATEST, SECOND, CleaningSettings, Event
from tasteloop.behaviour.items import Catalogue
from tasteloop.behaviour.snapshots import PrepareSettings, _positions, _split
from tasteloop.behaviour.text import behaviour_text
from tasteloop.privacy.pseudonyms import pseudonym, pseudonym_key

COLUMNS = ["user", "item", "kind", "time", "value", "text"]
FIRST = 631_152_000 * SECOND  # 1990


def clean(source: Path, out: Path, settings: CleaningSettings) -> pd.DataFrame:
    """The events of a generated source, cleaned and by time; events.parquet and quarantine.parquet
    in `out`.
    """
    frame = pd.read_parquet(source / "events.parquet").set_axis(COLUMNS, axis=1)
    frame["row"] = np.arange(1, len(frame) + 1)
    key = pseudonym_key()
    hidden = {user: pseudonym(user, key) for user in frame["user"].dropna().unique()}
    frame["user"] = frame["user"].map(hidden)
    written = frame["time"].astype(str), frame["value"]

    no_item, no_text, no_value = frame["item"].isna(), frame["text"].isna(), frame["value"].isna()
    kind = frame["kind"]
    broken = {
        "missing": frame["user"].isna() | kind.isna(),
        "unknown_kind": ~kind.isin(KINDS),
        "impossible_time": (frame["time"] < FIRST) | (frame["time"] > LATEST),
        "off_scale": (frame["value"] < 1) | (frame["value"] > 5),
        "incomplete": (no_item & (kind != "search"))
        | (no_text & (kind == "search"))
        | (no_value & (kind == "rate"))
        | (no_text & no_value & (kind == "review")),
    }
    frame["reason"] = np.select(list(broken.values()), list(broken), default=None)
    kept = frame[frame["reason"].isna()]
    frame.loc[kept.index[kept.duplicated(COLUMNS)], "reason"] = "exact_duplicate"
    kept = frame[frame["reason"].isna()].sort_values(["time", "row"])
    query = kept["text"].where(kept["item"].isna())
    since = (
        kept["time"]
        - kept.groupby([kept["user"], kept["item"], kept["kind"], query], dropna=False)[
            "time"
        ].shift()
    )
    near = since <= settings.near_duplicate_seconds * SECOND
    frame.loc[kept.index[near], "reason"] = "near_duplicate"
    size = -1
    while size != (size := frame["reason"].isna().sum()):
        for column, least in (
            ("item", settings.min_item_events),
            ("user", settings.min_user_events),
        ):
            kept = frame[frame["reason"].isna()]
            counts = kept.groupby(column)[column].transform("size")
            frame.loc[kept.index[counts < least], "reason"] = f"few_{column}_events"

    refused = frame[frame["reason"].notna()].copy()
    refused["time"], refused["value"] = (
        written[0][refused.index],
        written[1][refused.index].astype(str),
    )
    refused[[*COLUMNS, "reason", "row"]].to_parquet(out / "quarantine.parquet", compression="zstd")
    events = (
        frame[frame["reason"].isna()].sort_values(["time", "row"])[COLUMNS].reset_index(drop=True)
    )
    events["value"] = ((events["value"] - 1) / 4).astype("float32")
    events.to_parquet(out / "events.parquet", compression="zstd")
    return events


def prepare(
    events: pd.DataFrame, catalogue: Catalogue, settings: PrepareSettings, out: Path
) -> int:
    """Write snapshots.parquet; how many there are."""
    cuts = events["time"].quantile(
        [settings.train_share, settings.train_share + settings.validation_share], "lower"
    )
    events = events.sort_values(["user", "time"], kind="stable").reset_index(drop=True)
    events.to_parquet(out / "by_user.parquet", compression="zstd")
    records = []
    for user, mine in events.groupby("user", sort=True):
        begin, times = int(mine.index[0]), mine["time"].tolist()
        known = mine.astype(object).where(mine.notna(), None)
        acts = [
            Event(*row)
            for row in known[["kind", "item", "time", "value", "text"]].itertuples(index=False)
        ]
        liked = [
            (n, catalogue.index[act.item])
            for n, act in enumerate(acts)
            if act.positive(settings.text.positive) and act.item in catalogue.index
        ]
        for cut in _positions(times, settings):
            future = [pair for pair in liked if pair[0] >= cut][: settings.horizon]
            if len(future) < settings.minimum_future:
                break
            split = _split(
                times[cut - 1], times[future[-1][0]], (int(cuts.iloc[0]), int(cuts.iloc[1]))
            )
            if split is None:
                continue
            first = max(0, cut - settings.text.history_limit)
            records.append(
                {
                    "user": user,
                    "time": times[cut - 1],
                    "split": split,
                    "text": behaviour_text(acts[first:cut], catalogue, settings.text),
                    "events_seen": cut,
                    "history": list(range(begin + first, begin + cut)),
                    "future": [position for _, position in future],
                }
            )
    pd.DataFrame(records).to_parquet(out / "snapshots.parquet", compression="zstd")
    return len(records)
