"""Protocols as data, and the tasks they make of a data set.

A task is all that a method may see, in one form: what may be fitted before each window, and the
rows it is then asked about. Nothing in a `Past` is later than its cut, or on the hidden side of its
split; a row's history is what its user had done when the question was put, and what may not be
recommended is in `hidden`.

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
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tasteloop.behaviour.events import ITEM, KIND, TIME, USER, VALUE, Event, positive
from tasteloop.behaviour.items import Catalogue
from tasteloop.behaviour.prepare import prepare
from tasteloop.behaviour.snapshots import (
    EVENTS,
    EVENTS_SEEN,
    FUTURE,
    HISTORY,
    META,
    TEST,
    VALIDATION,
    PrepareSettings,
    Snapshots,
)
from tasteloop.errors import TasteloopError
from tasteloop.files import read_json, read_parquet

Matrix = NDArray[np.float32]
Numbers = NDArray[np.int64]
Mask = NDArray[np.bool_]
Feedback = Literal["liked", "all"]

DATA, SNAPSHOTS = "data", "snapshots"
_SITTING = 3_600_000_000  # µs: a longer gap between two events of a user ends a sitting


@dataclass(frozen=True)
class Protocol:
    """How a data set becomes a task.

    Attributes:
        split: by global time, or at random within each user (or item).
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
    split: Literal["time", "stratified"]
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
    )
}


@dataclass(frozen=True, eq=False)
class Interactions:
    """Events as columns, each [n].

    Attributes:
        user: number by first appearance in the data set, so that it does not depend on pseudonyms.
        item: position in the catalogue, -1 where the event has none.
        time: µs since 1970 UTC.
        value: in [0, 1], NaN where there is none.
        liked: what `tasteloop.behaviour.events.positive` says.
    """

    user: Numbers
    item: Numbers
    time: Numbers
    value: Matrix
    kind: NDArray[np.str_]
    liked: Mask

    def __len__(self) -> int:
        return len(self.user)

    def take(self, rows: Any) -> Interactions:
        """The events of these row numbers, or where a mask is true."""
        return Interactions(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))

    def of(self, feedback: Feedback) -> Mask:
        """[n]: has an item and is of this feedback."""
        return (self.item >= 0) & (self.liked if feedback == "liked" else True)


@dataclass(frozen=True, eq=False)
class Past:
    """What may be fitted. Compared by identity, so that what was computed of it can be kept.

    Attributes:
        events: by time.
        cut: the moment, in µs, before which all of it happened.
        users: the data set's numbers of the U users in it, ascending; user u of the matrix is
            `users[u]`.
    """

    events: Interactions
    catalogue: Catalogue
    cut: int
    users: Numbers

    @classmethod
    def of(cls, events: Interactions, catalogue: Catalogue, cut: int) -> Past:
        return cls(
            events.take(np.argsort(events.time, kind="stable")),
            catalogue,
            cut,
            np.unique(events.user),
        )

    @cached_property
    def user(self) -> Numbers:
        """[n]: row of the matrix of each event."""
        return np.searchsorted(self.users, self.events.user)

    @lru_cache(maxsize=2)  # noqa: B019  (a task has two of these, and lives as long as the process)
    def matrix(self, feedback: Feedback = "liked") -> Matrix:
        """[U, J] of 0 and 1."""
        out = np.zeros((max(1, len(self.users)), len(self.catalogue)), np.float32)
        which = self.events.of(feedback)
        out[self.user[which], self.events.item[which]] = 1
        return out

    def count(self, feedback: Feedback = "liked", days: float = np.inf) -> Matrix:
        """[J]: events of the last days before the cut."""
        which = self.events.of(feedback) & (self.cut - self.events.time <= days * 86_400e6)
        return np.bincount(self.events.item[which], minlength=len(self.catalogue)).astype(
            np.float32
        )


@dataclass(frozen=True, eq=False)
class Rows:
    """What is asked: to rank the items of the catalogue for each of n histories.

    Attributes:
        events: the table that histories are row numbers of.
        histories: n arrays, oldest event first.
        relevant: n arrays of item positions.
        hidden: [n, J] what may not be recommended: the history, and what the protocol does not
            rank.
        user: [n] row of the past's matrix where that holds exactly this history, -1 where the past
            does not know it.
        group: [n] the data set's number of the user; a bootstrap draws a user's rows together.
        time: [n] µs, when the question is put.
        seen: [n] events that the user had had by then.
    """

    events: Interactions
    histories: list[Numbers]
    relevant: list[Numbers]
    hidden: Mask
    user: Numbers
    group: Numbers
    time: Numbers
    seen: Numbers

    def __len__(self) -> int:
        return len(self.histories)

    def take(self, which: Any) -> Rows:
        """The rows of these numbers, or where a mask is true."""
        numbers = np.arange(len(self))[which]
        columns = {
            name: getattr(self, name)[numbers]
            for name in ("hidden", "user", "group", "time", "seen")
        }
        return replace(
            self,
            histories=[self.histories[n] for n in numbers],
            relevant=[self.relevant[n] for n in numbers],
            **columns,
        )

    def matrix(self, feedback: Feedback = "liked", decay: float = 1.0) -> Matrix:
        """[n, J]: each item of the history with `decay` to the power of how many events came after
        it.
        """
        out = np.zeros(self.hidden.shape, np.float32)
        length = np.array([len(h) for h in self.histories])
        row, flat = (
            np.repeat(np.arange(len(self)), length),
            np.concatenate([*self.histories, np.zeros(0, np.int64)]),
        )
        after = np.repeat(np.cumsum(length), length) - 1 - np.arange(len(flat))
        which = self.events.of(feedback)[flat]
        np.maximum.at(
            out,
            (row[which], self.events.item[flat[which]]),
            (decay ** after[which]).astype(np.float32),
        )
        return out

    def event_lists(self, catalogue: Catalogue) -> list[list[Event]]:
        """The histories as the library's own events."""
        e = self.events

        def event(i: int) -> Event:
            item = catalogue.items[e.item[i]] if e.item[i] >= 0 else None
            value = None if np.isnan(e.value[i]) else float(e.value[i])
            return Event(str(e.kind[i]), item, int(e.time[i]), value)

        return [[event(i) for i in history] for history in self.histories]


@dataclass(frozen=True, eq=False)
class Task:
    """A method is tuned by `validation` after fitting `tune`, then fitted on `fit` and asked about
    `test`.
    """

    protocol: Protocol
    catalogue: Catalogue
    tune: Past
    validation: Rows
    fit: Past
    test: Rows
    prepared: PrepareSettings | None = None

    @cached_property
    def slices(self) -> dict[str, Mask]:
        """Named parts of the test rows [n]; the empty ones are left out."""
        seen = self.test.seen
        bounds = {
            "1 event": (1, 1),
            "2-5 events": (2, 5),
            "6-20 events": (6, 20),
            "over 20 events": (21, np.inf),
        }
        masks = {name: (seen >= low) & (seen <= high) for name, (low, high) in bounds.items()}
        return {name: mask for name, mask in masks.items() if mask.any()}

    def thinned(self, every: int) -> Task:
        """The rows of one user in `every`."""
        validation, test = (
            rows.take(rows.group % every == 0) for rows in (self.validation, self.test)
        )
        return replace(self, validation=validation, test=test)


def collect(behaviour: str, work: Path, prepared: PrepareSettings | None = None) -> None:
    """Ingest a source and take its snapshots into `work`, once.

    Args:
        behaviour: a name of the catalogue, or what else `tasteloop.datasets.ingest` reads.
        prepared: settings of the snapshots; those of the profile `local` when absent.
    """
    from pipelines.settings import load_settings
    from tasteloop.datasets.ingest import IngestSettings, ingest

    if not (work / DATA).exists():
        ingest(IngestSettings(behaviour=behaviour, reviews=None), work / DATA)
    elif (found := read_json(work / DATA / "ingest.json")["source"]) != behaviour:
        raise TasteloopError(
            f"{work} holds a benchmark of {found!r}, not of {behaviour!r}; give another --out"
        )
    if read_json(work / DATA / "ingest.json").get("times") == "none":
        raise TasteloopError(f"{behaviour} has no times, and these protocols split by global time")
    settings = prepared or load_settings("local").prepare
    meta = work / SNAPSHOTS / META
    if not meta.exists() or PrepareSettings.model_validate(read_json(meta)["settings"]) != settings:
        prepare(work / DATA, settings, work / SNAPSHOTS)


def build(protocol: Protocol, work: Path) -> Task:
    """The task of a protocol, from what `collect` put into `work`."""
    data = Snapshots.read(work / SNAPSHOTS)
    return (
        _by_time(protocol, data, work)
        if protocol.split == "time"
        else _stratified(protocol, data, work)
    )


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
    return Task(
        protocol, catalogue, pasts[0], windows[VALIDATION], pasts[1], windows[TEST], settings
    )


def _snapshot_rows(snapshots: Any, table: Interactions, place: Numbers, items: int) -> Rows:
    histories = [np.sort(place[np.array(history)]) for history in snapshots[HISTORY].to_list()]
    hidden = np.zeros((len(histories), items), np.bool_)
    for row, history in enumerate(histories):
        seen = table.item[history]
        hidden[row, seen[seen >= 0]] = True
    group = np.array([table.user[history[-1]] for history in histories], np.int64)
    rows = Rows(
        table,
        histories,
        [np.array(future, np.int64) for future in snapshots[FUTURE].to_list()],
        hidden,
        np.full(len(histories), -1),
        group,
        snapshots[TIME].to_numpy().astype(np.int64),
        snapshots[EVENTS_SEEN].to_numpy().astype(np.int64),
    )
    return rows.take(np.lexsort((rows.time, rows.group)))


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
        hidden=rows.hidden | ~new,
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
    hidden = np.zeros((len(users), items), np.bool_)
    for row, history in enumerate(histories):
        hidden[row, table.item[history]] = True
    return Rows(
        table,
        histories,
        [
            np.unique(table.item[asked[slice(*np.searchsorted(table.user[asked], (u, u + 1)))]])
            for u in users
        ],
        hidden,
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
