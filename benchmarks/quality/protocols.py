"""Protocols as data, and the tasks they make of a data set.

- `time`: the snapshots of `tasteloop.behaviour.snapshots.prepare` (docs/adr/0002), nothing of their
  rows changed.
- `shuffled`: as `time`, with the order of the events within each sitting of a user drawn at random,
  in what is fitted and in the histories alike. People who rate films go through pages that
  somebody else ordered (Fan et al. 2023, arXiv:2307.09985): what a method owes to that order is
  lost here. A sitting ends with a gap of an hour. What follows a row's history stays what it was.
- `stratified`: a random share of each user's ratings trains, the rest tests, every test rating is
  relevant. With seed 42, a share of 0.75 and the ratings in the order of their file these are the
  rows of `python_stratified_split` of github.com/recommenders-team/recommenders, whose README
  publishes results; the random numbers are the same ones.
- `last_out`: of data in order without times, each user's last positive act is asked after all that
  came before it, and the one before it validates (docs/adr/0002); the snapshots of `prepare`.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from benchmarks.quality.dialogues import VARIABLE
from benchmarks.quality.tasks import Interactions, Mask, Numbers, Past, Rows, Task
from tasteloop.behaviour.events import ITEM, KIND, TIME, USER, VALUE, positive
from tasteloop.behaviour.prepare import prepare
from tasteloop.behaviour.snapshots import (
    EVENTS,
    EVENTS_SEEN,
    FUTURE,
    HISTORY,
    ITEMS,
    META,
    TEST,
    VALIDATION,
    PrepareSettings,
    Snapshots,
)
from tasteloop.errors import TasteloopError
from tasteloop.files import (
    atomic_directory,
    read_json,
    read_parquet,
    write_json,
    write_parquet,
)

DATA, SNAPSHOTS = "data", "snapshots"
# A data set of the directory that `VARIABLE` names, by the name that `--data` gives it.
FILES = {"games": "shop/Games-6k.test.inter.gz"}
# A source, and the share of its users that is kept, those who did least, by the name that `--data`
# gives it: few users who say little, and all items.
THINNED = {"ml-1m-thin": ("ml-1m", 0.1)}
_SITTING = 3_600_000_000  # µs: a longer gap between two events of a user ends a sitting


@dataclass(frozen=True)
class Protocol:
    """How a data set becomes a task.

    Attributes:
        split: by global time, at random within each user (or item), or each user's last act out,
            which is for data in order without times alone.
        within: what a stratified split keeps its share of.
        share: of a stratified split that trains; the same share of that trains before validation.
        seed: of the stratified split and of which items are held out; validation uses the next one.
        held_out: share of the items that are new: taken out of everything that is fitted and of the
            histories, and the only ones that are ranked. Validation holds out others.
        kept: so many of a new item's training interactions stay.
        shuffled: whether the order of events within a sitting is drawn at random.
        standard: run where no protocol is named.
    """

    name: str
    about: str
    split: Literal["time", "stratified", "last_out"]
    within: Literal["user", "item"] = "user"
    share: float = 0.75
    seed: int = 42
    held_out: float = 0.0
    kept: int = 0
    shuffled: bool = False
    standard: bool = True


PROTOCOLS: Mapping[str, Protocol] = {
    p.name: p
    for p in (
        Protocol(
            "time", "global time, snapshots inside later users' sessions, full ranking", "time"
        ),
        Protocol(
            "shuffled",
            "as time, the order of events within a sitting (gaps below an hour) drawn at random",
            "time",
            shuffled=True,
            standard=False,
        ),
        Protocol(
            "stratified",
            "75/25 of each user's ratings at random, every test rating relevant",
            "stratified",
        ),
        Protocol(
            "stratified_item",
            "the same within each item, as the notebook behind the published table has it",
            "stratified",
            within="item",
            standard=False,
        ),
        Protocol(
            "cold_items",
            "as time; a tenth of the items is new and ranked alone",
            "time",
            held_out=0.1,
        ),
        Protocol(
            "few_items",
            "as cold_items, with at most five training interactions of each left",
            "time",
            held_out=0.1,
            kept=5,
        ),
        Protocol(
            "last_out",
            "in order without times: each user's last act after all before it, full ranking",
            "last_out",
        ),
    )
}


def protocols_of(times: str) -> list[Protocol]:
    """Those that data with such times (`ingest.json`) can be measured by."""
    in_order = times == "order"
    return [p for p in PROTOCOLS.values() if (p.split == "last_out") == in_order]


def locate(data: str) -> str:
    """The source that a name of `FILES` stands for; any other is one itself.

    Raises:
        TasteloopError: no such file below the directory that the environment names.
    """
    if data not in FILES:
        return data
    path = Path(os.environ.get(VARIABLE, "")) / FILES[data]
    if not os.environ.get(VARIABLE) or not path.is_file():
        where = f"{path} is no file" if os.environ.get(VARIABLE) else f"{VARIABLE} is not set"
        raise TasteloopError(
            f"{data} are not measured: {where}; set {VARIABLE} to a directory with {FILES[data]} (docs/benchmarks.md)"
        )
    return str(path)


def times_of(work: Path) -> str:
    """What the data set in `work` knows of times: given, order."""
    return str(read_json(work / DATA / "ingest.json").get("times", "given"))


def collect(behaviour: str, work: Path, prepared: PrepareSettings | None = None) -> None:
    """Ingest a source and take its snapshots into `work`, once.

    Args:
        behaviour: a name of the catalogue or of `THINNED`, or what else
            `tasteloop.datasets.ingest` reads.
        prepared: settings of the snapshots; those of the profile `local` when absent.
    """
    from pipelines.settings import load_settings
    from tasteloop.datasets.ingest import IngestSettings, ingest

    if not (work / DATA).exists():
        source, share = THINNED.get(behaviour, (behaviour, 1.0))
        whole = work / DATA if share == 1 else work / "whole"
        ingest(IngestSettings(behaviour=source, reviews=None), whole)
        if share < 1:
            _keep_thinnest(whole, share, behaviour, work / DATA)
            shutil.rmtree(whole)
    elif (found := read_json(work / DATA / "ingest.json")["source"]) != behaviour:
        raise TasteloopError(
            f"{work} holds a benchmark of {found!r}, not of {behaviour!r}; give another --out"
        )
    if times_of(work) == "none":
        raise TasteloopError(
            f"{behaviour} has neither times nor an order, and these protocols split by one of them"
        )
    settings = prepared or load_settings("local").prepare
    meta = work / SNAPSHOTS / META
    if not meta.exists() or PrepareSettings.model_validate(read_json(meta)["settings"]) != settings:
        prepare(work / DATA, settings, work / SNAPSHOTS)


def _keep_thinnest(whole: Path, share: float, name: str, out: Path) -> None:
    """The data set `whole` with the share of its users who have the fewest events, and all items;
    of users with as many, those who come first.
    """
    import polars as pl

    events = read_parquet(whole / EVENTS)
    users = events.group_by(USER, maintain_order=True).len().sort("len", maintain_order=True)[USER]
    thinnest = users.head(round(share * len(users)))
    kept = events.filter(pl.col(USER).is_in(thinnest.implode()))
    about = read_json(whole / "ingest.json")
    digest = hashlib.sha256(f"{about['sha256']}\0{name}\0{share}".encode()).hexdigest()
    with atomic_directory(out) as directory:
        shutil.copyfile(whole / ITEMS, directory / ITEMS)
        write_parquet(directory / EVENTS, kept)
        about |= {"source": name, "sha256": digest, "rows_out": len(kept), "users": len(thinnest)}
        write_json(directory / "ingest.json", about)


def build(protocol: Protocol, work: Path) -> Task:
    """The task of a protocol, from what `collect` put into `work`."""
    data = Snapshots.read(work / SNAPSHOTS)
    if protocol.split == "stratified":
        return _stratified(protocol, data, work)
    return _by_time(protocol, data, work)


def _table(data: Snapshots, work: Path) -> tuple[Interactions, Numbers]:
    """All events by user and time, and where each row of the snapshots' own table went."""
    import narwhals as nw

    appeared = read_parquet(work / DATA / EVENTS)[USER].unique(maintain_order=True)
    number = {user: n for n, user in enumerate(appeared.to_list())}
    events = data.events
    liked: Any = nw.from_native(events).select(liked=positive(data.text.positive)).to_native()
    table = Interactions(
        np.array([number[user] for user in events[USER].to_list()], np.int64),
        np.array([data.catalogue.index.get(item, -1) for item in events[ITEM].to_list()], np.int64),
        events[TIME].to_numpy().astype(np.int64),
        np.array(events[VALUE].to_list(), np.float32),  # None becomes NaN
        np.array(events[KIND].to_list(), np.str_),
        liked["liked"].to_numpy(),
    )
    order = np.lexsort((np.arange(len(table)), table.time, table.user))
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    return table.take(order), place


# --- by time


def _by_time(protocol: Protocol, data: Snapshots, work: Path) -> Task:
    table, place = _table(data, work)
    catalogue, settings = data.catalogue, PrepareSettings.model_validate(data.meta["settings"])
    new_in_test, new_in_validation = _new_items(
        protocol, table, data.meta["validation_from"], len(catalogue)
    )
    windows = {}
    for window, new in ((VALIDATION, new_in_validation), (TEST, new_in_test)):
        rows = _snapshot_rows(data.split(window), table, place, len(catalogue))
        if protocol.held_out:
            # what is new in the test window is not seen before it either
            unknown = new | new_in_test
            rows = _rank_only(rows, new, unknown)
            if not len(rows):
                raise TasteloopError(
                    f"protocol {protocol.name}: no {window} row has a relevant item among the new ones"
                )
        if protocol.shuffled:
            rows = _shuffle_histories(rows, protocol.seed)
        windows[window] = rows
    pasts = []
    for cut, unknown in (
        (data.meta["validation_from"], new_in_test | new_in_validation),
        (data.meta["test_from"], new_in_test),
    ):
        events = table.take(table.time < cut)
        if protocol.held_out:
            events = events.take(_without(events, unknown, protocol))
        if protocol.shuffled:
            events = _shuffle_sittings(events, protocol.seed)
        pasts.append(Past.of(events, catalogue, cut))
    if protocol.split == "last_out":
        # what a user did before the act that is asked is in the past, and nothing else of them is
        for window, past in zip((VALIDATION, TEST), pasts, strict=True):
            known = np.searchsorted(past.users, windows[window].group)
            windows[window] = replace(windows[window], user=known)
    earlier = []
    # what is new in the test window would have to be taken out of them too
    for cut, snapshots in [] if protocol.held_out else data.earlier_windows():
        rows = _snapshot_rows(snapshots, table, place, len(catalogue))
        events = table.take(table.time < cut)
        if protocol.shuffled:
            rows = _shuffle_histories(rows, protocol.seed)
            events = _shuffle_sittings(events, protocol.seed)
        earlier.append((Past.of(events, catalogue, cut), rows))
    return Task(
        protocol,
        catalogue,
        pasts[0],
        windows[VALIDATION],
        pasts[1],
        windows[TEST],
        settings,
        earlier=tuple(earlier),
    )


def _snapshot_rows(snapshots: Any, table: Interactions, place: Numbers, items: int) -> Rows:
    histories = [np.sort(place[np.array(history)]) for history in snapshots[HISTORY].to_list()]
    group = np.array([table.user[history[-1]] for history in histories], np.int64)
    rows = Rows(
        table,
        histories,
        [np.array(future, np.int64) for future in snapshots[FUTURE].to_list()],
        [_items(table, history) for history in histories],
        np.ones(items, np.bool_),
        np.full(len(histories), -1),
        group,
        snapshots[TIME].to_numpy().astype(np.int64),
        snapshots[EVENTS_SEEN].to_numpy().astype(np.int64),
    )
    return rows.take(np.lexsort((rows.time, rows.group)))


def _items(table: Interactions, history: Numbers) -> Numbers:
    """The items of some events."""
    items = table.item[history]
    return np.unique(items[items >= 0])


def _shuffle_sittings(events: Interactions, seed: int) -> Interactions:
    """Events by user and time, with all but the times drawn at random within each sitting."""
    order = _order_within_sittings(events.user, events.time, np.random.default_rng(seed))
    return replace(events.take(order), time=events.time)


def _shuffle_histories(rows: Rows, seed: int) -> Rows:
    """The rows with each history's order drawn at random within its sittings; no event that came
    after a row's question is among them.
    """
    random = np.random.default_rng(seed)
    histories = []
    for history in rows.histories:
        events = rows.events.take(history)
        histories.append(history[_order_within_sittings(events.user, events.time, random)])
    return replace(rows, histories=histories)


def _order_within_sittings(user: Numbers, time: Numbers, random: np.random.Generator) -> Numbers:
    """[n] an order of events by user and time that moves each within its sitting alone."""
    begins = (np.diff(user) != 0) | (np.diff(time) >= _SITTING)
    sitting = np.concatenate([[0], np.cumsum(begins)])[: len(user)]
    return np.lexsort((random.random(len(user)), sitting))


def _new_items(protocol: Protocol, table: Interactions, cut: int, items: int) -> tuple[Mask, Mask]:
    """[J] twice: the items that are new in the test window, and others that are in the validation
    window.

    Drawn among those that somebody liked, and where some interactions are kept, liked before the
    validation window.
    """
    eligible = table.of("liked") & (table.time < cut) if protocol.kept else table.of("liked")
    among = np.unique(table.item[eligible])
    among = np.random.default_rng(protocol.seed).permutation(among)
    count = round(protocol.held_out * len(among))
    masks = np.zeros((2, items), np.bool_)
    masks[0, among[:count]] = masks[1, among[count : 2 * count]] = True
    return masks[0], masks[1]


def _rank_only(rows: Rows, new: Mask, unknown: Mask) -> Rows:
    """Rows with a relevant item among the new ones, which alone are ranked; no history shows an
    unknown one.
    """
    rows = replace(
        rows,
        histories=[
            h[~((rows.events.item[h] >= 0) & unknown[rows.events.item[h]])] for h in rows.histories
        ],
        relevant=[relevant[new[relevant]] for relevant in rows.relevant],
        ranked=new,
    )
    return rows.take([n for n, relevant in enumerate(rows.relevant) if len(relevant)])


def _without(events: Interactions, unknown: Mask, protocol: Protocol) -> Mask:
    """[n]: all events but those of unknown items, of each of which `kept` at random stay."""
    of_unknown = (events.item >= 0) & unknown[events.item]
    keep = ~of_unknown
    if protocol.kept:
        random = np.random.default_rng(protocol.seed + 1).random(len(events))
        order = np.lexsort((random, events.item))
        item = events.item[order]
        rank = np.arange(len(order)) - np.searchsorted(item, item)  # from 0 within each item
        keep[order[(rank < protocol.kept)]] = True
    return keep


# --- stratified


def _stratified(protocol: Protocol, data: Snapshots, work: Path) -> Task:
    table, _ = _table(data, work)
    catalogue, settings = data.catalogue, PrepareSettings.model_validate(data.meta["settings"])
    rows = np.flatnonzero(table.item >= 0)
    rows = rows[_source_order(table.take(rows), data, work)]
    by = (table.user if protocol.within == "user" else table.item)[rows]
    fitted = _share(by, protocol.share, protocol.seed)
    train, test = rows[fitted], rows[~fitted]
    tuned = _share(by[fitted], protocol.share, protocol.seed + 1)
    cut = int(table.time.max()) + 1
    sides = ((train[tuned], train[~tuned]), (train, test))
    pasts = [Past.of(table.take(np.sort(known)), catalogue, cut) for known, _ in sides]
    windows = [
        _user_rows(table, known, asked, past, len(catalogue))
        for (known, asked), past in zip(sides, pasts, strict=True)
    ]
    return Task(protocol, catalogue, pasts[0], windows[0], pasts[1], windows[1], settings)


def _share(by: Numbers, share: float, seed: int) -> Mask:
    """[n]: a random share of each group's rows, its count rounded half to even; the random numbers
    go by row.
    """
    random = np.random.RandomState(seed).rand(len(by))
    order = np.lexsort((random, by))
    group = by[order]
    rank = np.arange(len(order)) - np.searchsorted(group, group) + 1
    count = np.bincount(group)[group]
    out = np.empty(len(by), np.bool_)
    out[order] = rank <= np.round(share * count)
    return out


def _user_rows(table: Interactions, known: Numbers, asked: Numbers, past: Past, items: int) -> Rows:
    """One row a user who has something on both sides."""
    users = np.intersect1d(table.user[known], table.user[asked])
    known, asked = np.sort(known), np.sort(asked)  # the table is by user and time
    histories = [known[slice(*np.searchsorted(table.user[known], (u, u + 1)))] for u in users]
    return Rows(
        table,
        histories,
        [
            np.unique(table.item[asked[slice(*np.searchsorted(table.user[asked], (u, u + 1)))]])
            for u in users
        ],
        [_items(table, history) for history in histories],
        np.ones(items, np.bool_),
        np.searchsorted(past.users, users),
        users,
        np.array([table.time[history[-1]] for history in histories], np.int64),
        np.array([len(history) for history in histories], np.int64),
    )


def _source_order(events: Interactions, data: Snapshots, work: Path) -> Numbers:
    """The events in the order of the file they came in, which the published split draws its numbers
    by.

    ml-100k's is in the cache; of other data the order is that of the data set, by time.
    """
    if data.meta["source"] != "ml-100k":
        return np.lexsort((np.arange(len(events)), events.time))
    from tasteloop.datasets.fetch import fetch_origin
    from tasteloop.privacy.pseudonyms import pseudonym_key, pseudonymise

    origin, directory = fetch_origin("ml-100k")
    assert origin.read_behaviour is not None, "ml-100k gives behaviour"
    written = origin.read_behaviour(directory, "").events
    appeared = read_parquet(work / DATA / EVENTS)[USER].unique(maintain_order=True)
    number = {user: n for n, user in enumerate(appeared.to_list())}
    users = pseudonymise(written[USER], pseudonym_key()).to_list()
    place = {
        (number.get(user, -1), data.catalogue.index.get(item, -1)): n
        for n, (user, item) in enumerate(zip(users, written[ITEM].to_list(), strict=True))
    }
    try:
        keys = [place[key] for key in zip(events.user.tolist(), events.item.tolist(), strict=True)]
    except KeyError:
        raise TasteloopError(
            f"{work} was made with another pseudonym key than this installation's; remove it and run again"
        ) from None
    return np.argsort(keys, kind="stable")
