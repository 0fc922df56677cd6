"""Real behaviour replayed week by week, with a shift injected, through the serving endpoint and the monitor.

The world is ml-100k. Its users mostly come once and no two of its months are alike, so it is replayed in a time of its
own:

- A life is one user's real sequence of events. Breaks longer than `BREAK` are shortened to it, so that a life fits into
  a week, and before some events the user searches for words of the title that follows. The searches are the only events
  that are made up.
- Lives are split in three by a hash of what they hold. The first part is the champion's data: each life once, in one of
  the reference weeks. From the second, visitors are drawn for every replayed week, with replacement, each under a new
  pseudonym. The third is never replayed: on it a quality is measured before a shift, under it, and after a retraining.
- Films released from `NEW` on do not exist until the shift `new-catalogue` brings them.

So two weeks without a shift differ by chance alone. The monitor has a clock of its own: it wakes a day after each
week's end, sees what has arrived by then, and reads the journal of a real server. An answer's time is that of the
newest event of its question, which the journal keeps.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, date, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import tasteloop
from pipelines.monitoring import CATALOGUE, Incoming, Watched, watch_once
from pipelines.settings import Settings, load
from serving.journal import LATEST, MODEL, MOST_FEEDBACK, NAMES, REQUEST, VERSION
from serving.predictor import INTERESTS, RECOMMEND
from tasteloop.errors import TasteloopError
from tasteloop.events import EVENTS_SCHEMA, ITEM, KIND, SECOND, TIME, USER, Event
from tasteloop.files import atomic_directory, cache, home, read_json, read_parquet, write_json, write_parquet
from tasteloop.items import LABELS, RELEASED, TITLE
from validation.decision import HOUR, WEEK

if TYPE_CHECKING:
    import polars as pl

    from tasteloop.runtime import Session

Say = Callable[[str], None]
Life = tuple[Event, ...]  # times from its beginning, µs

DAY = 24 * HOUR
BREAK = 3 * HOUR
NEW = date(1997, 1, 1)
LEAST = 5  # events of a life
FIRST = int(datetime(2024, 1, 1, tzinfo=UTC).timestamp() * SECOND) // WEEK * WEEK  # on the grid of weekly windows
REFERENCE_WEEKS = 10  # the first and the last are never whole for the monitor: no event lies on their edges
PARTS = {"champion": 0.5, "visitors": 0.38, "judges": 0.12}
_SEASON = 4  # weeks of the seasonal swing
_BANDS = 3  # of popularity, within which tastes change places
_ASKED = 60  # visitors a week who ask
_QUESTIONS = 4  # each
_SEARCHES = 0.05  # of events that follow a search
_LATE = 2 * DAY
_SCRIPT = str.maketrans("abcdefghijklmnopqrstuvwxyz", "абкдефгхижклмнопярстувшьыз")

_OUTSIDE = ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "TASTELOOP_API_TOKEN", "TASTELOOP_API_TOKEN_FILE")
RESULT = "simulation.json"  # also what marks a home as a simulation's

PROFILE = "smoke"
OVERRIDES = (
    "ingest.max_users=null",
    "training.snapshots_an_epoch=1500",
    "watch.windows.hours=168",
    "watch.reference_windows=8",
    "recommender.half_life_days=[7, 30, 90]",
    "retraining.recent_days=14",
)


@dataclass(frozen=True)
class Shift:
    """What changes, what the monitor is expected to do, and what a severity is."""

    about: str
    expected: str  # nothing, retrain, alert-human
    unit: str = "not used"
    severity: float = 1.0


SHIFTS: dict[str, Shift] = {
    "stationary": Shift("nothing", "nothing"),
    "seasonal": Shift(
        f"who comes and how many, in a swing of {_SEASON} weeks that the reference has seen", "nothing",
        "swing of the number of visitors and of who they are", 0.3,
    ),
    "new-catalogue": Shift(f"films from {NEW.year} on appear", "retrain", "share of their real events that happen"),
    "taste-change": Shift(
        "visitors turn to other films of like popularity, with rarer labels", "retrain", "share of visitors"
    ),
    "bots": Shift("two users flood the log", "alert-human", "events of each, in the busiest user's", 4.0),
    "broken-field": Shift(
        "a field comes empty: values, or items where the seed is odd", "alert-human", "share of rows", 0.5
    ),
    "language": Shift("searches in Cyrillic letters", "alert-human", "share of visitors"),
    "delayed-labels": Shift(
        "events and feedback arrive late, out of order and twice", "nothing", "share that is up to two days late", 0.3
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Options:
    """One simulation.

    Attributes:
        start: the first week with the shift; the weeks before are as the reference.
        visitors: a week.
        severity: in the shift's unit; None: its default.
        serve: ask a real server over HTTP; False: the same session and journal in this process.
        retrain: carry a retraining out; False: the replay ends with the decision.
    """

    shift: str = "stationary"
    seed: int = 0
    weeks: int = 6
    start: int = 2
    visitors: int = 100
    severity: float | None = None
    serve: bool = True
    retrain: bool = True

    def __post_init__(self) -> None:
        if self.shift not in SHIFTS:
            raise TasteloopError(f"no shift {self.shift!r}; known: {', '.join(SHIFTS)}")
        if not (0 <= self.start < self.weeks and self.visitors >= 1 and self.seed >= 0):
            raise TasteloopError("weeks count from 0: the shift starts before the last; visitors are 1 or more")
        if self.size <= 0:
            raise TasteloopError(f"a severity is above 0 (here: {SHIFTS[self.shift].unit}), not {self.severity}")

    @property
    def size(self) -> float:
        return SHIFTS[self.shift].severity if self.severity is None else self.severity


# The world


@dataclass(frozen=True)
class World:
    """Lives by part, and the films."""

    lives: Mapping[str, Sequence[Life]]
    items: pl.DataFrame

    @classmethod
    def of(cls, events: pl.DataFrame, items: pl.DataFrame) -> World:
        """From a data set as ingest writes it. Which part a life is in depends on what it holds, not on a pseudonym."""
        new = set(items.filter(items[RELEASED] >= NEW)[ITEM])
        parts: dict[str, list[tuple[str, Life]]] = {part: [] for part in PARTS}
        for rows in events.sort(USER, TIME, ITEM).partition_by(USER, maintain_order=True):
            written = [Event(*row) for row in rows.select(KIND, ITEM, TIME, "value", "text").rows()]
            if sum(event.item not in new for event in written) < LEAST:
                continue
            name = hashlib.blake2b(repr(written).encode(), digest_size=8).hexdigest()
            parts[_part(int(name, 16) / 16**16)].append((name, _life(written)))
        return cls({part: [life for _, life in sorted(found)] for part, found in parts.items()}, items)

    @cached_property
    def new(self) -> frozenset[str]:
        return frozenset(self.items.filter(self.items[RELEASED] >= NEW)[ITEM])

    @cached_property
    def titles(self) -> dict[str, str]:
        return dict(self.items.select(ITEM, TITLE).rows())

    @cached_property
    def labels(self) -> dict[str, list[str]]:
        return dict(self.items.select(ITEM, LABELS).rows())

    def before(self, life: Life) -> Life:
        """Without the films that do not exist yet."""
        return tuple(event for event in life if event.item not in self.new)

    @cached_property
    def busiest(self) -> int:
        return max(len(life) for life in self.lives["champion"])

    @cached_property
    def tastes(self) -> dict[str, str]:
        """Which film takes whose place when tastes change: within a band of popularity, the most watched one's goes to
        the one whose labels are the rarest, and so on. One to one, so that what is liked together stays together."""
        counts: dict[str, int] = dict.fromkeys(sorted(set(self.items[ITEM]) - self.new), 0)
        mass: dict[str, float] = {}
        for event in (e for life in self.lives["champion"] for e in self.before(life) if e.item):
            counts[event.item or ""] += 1
            for label in (known := self.labels[event.item or ""]):
                mass[label] = mass.get(label, 0.0) + 1 / len(known)

        def common(item: str) -> float:
            known = self.labels[item]
            return sum(mass.get(label, 0.0) for label in known) / max(1, len(known))

        order = sorted(counts, key=lambda item: (-counts[item], item))
        bands = [[str(item) for item in band] for band in np.array_split(np.array(order), _BANDS)]
        return {a: b for band in bands for a, b in zip(band, sorted(band, key=common), strict=True)}

    def leaning(self, life: Life) -> float:
        """Share of a life's films that are dramas or romances: what the seasonal swing goes by."""
        films = [self.labels[event.item] for event in self.before(life) if event.item]
        return float(np.mean([bool({"Drama", "Romance"} & set(labels)) for labels in films]))


def _part(u: float) -> str:
    for part, share in PARTS.items():
        if u < share:
            return part
        u -= share
    return part


def _life(events: Sequence[Event]) -> Life:
    out: list[Event] = []
    now, before = 0, events[0].time
    for event in events:
        assert event.time is not None and before is not None
        now, before = now + min(event.time - before, BREAK), event.time
        out.append(replace(event, time=now))
    if now >= WEEK - HOUR:
        out = [replace(event, time=int((event.time or 0) * (WEEK - HOUR) / now)) for event in out]
    return tuple(out)


def searching(life: Life, titles: Mapping[str, str], chance: np.random.Generator) -> Life:
    """With searches a little before some of the events, one at least, for words of the title that follows."""
    before = chance.random(len(life)) < _SEARCHES
    before[int(chance.integers(len(life)))] = True
    out: list[Event] = []
    for event, searched in zip(life, before, strict=True):
        words = titles.get(event.item or "", "").lower().split()
        if searched and words:
            first = int(chance.random() * len(words))
            text = " ".join(words[first : first + 3])
            out.append(Event("search", None, max(0, (event.time or 0) - int(chance.integers(1, SECOND))), None, text))
        out.append(event)
    return tuple(sorted(out, key=lambda event: event.time or 0))


@dataclass(frozen=True)
class Visit:
    """One life in a week: the raw user id, and the events in the replay's time."""

    user: str
    events: Life


@dataclass(frozen=True)
class Replay:
    """What happens, week by week: deterministic in the world and the options."""

    world: World
    options: Options

    @property
    def begin(self) -> int:
        """Of the first replayed week, µs."""
        return FIRST + REFERENCE_WEEKS * WEEK

    def shifted(self, week: int) -> bool:
        return week >= self.options.start and self.options.shift not in ("stationary", "seasonal")

    def week(self, week: int) -> list[Visit]:
        """The visits of a replayed week, without machines and before anything is broken on the way."""
        n, lean = self._swing(REFERENCE_WEEKS + week)
        lives = self._drawn(round(n * self.options.visitors), lean, np.random.default_rng([self.options.seed, week]))
        out = []
        for k, life in enumerate(lives):
            chance = np.random.default_rng([self.options.seed, week, k])  # one's own: a shift moves no one else
            lived = self.lived(life, chance, self.shifted(week))
            name = f"{self.options.shift}-{self.options.seed}-{week}-{k}"
            out.append(placed(name, lived, self.begin + week * WEEK, chance))
        return out

    def lived(self, life: Life, chance: np.random.Generator, shifted: bool) -> Life:
        """A life as it is lived under the shift, with its searches."""
        shift, size = self.options.shift, self.options.size
        hit = (chance.random() < size) and shifted  # where the severity is a share of visitors
        if shifted and shift == "new-catalogue":
            kept = chance.random(len(life)) < size
            lived = tuple(e for e, k in zip(life, kept, strict=True) if k or e.item not in self.world.new)
        else:
            lived = self.world.before(life)
        if hit and shift == "taste-change":
            lived = tuple(replace(e, item=self.world.tastes[e.item]) if e.item else e for e in lived)
        lived = searching(lived, self.world.titles, chance)
        if hit and shift == "language":
            lived = tuple(replace(e, text=e.text.translate(_SCRIPT)) if e.text else e for e in lived)
        return lived

    def _swing(self, week: int) -> tuple[float, float]:
        """How many come, in usual weeks', and the chance that a visitor is of those who lean to dramas."""
        if self.options.shift != "seasonal":
            return 1.0, 0.5
        wave = self.options.size * float(np.sin(2 * np.pi * week / _SEASON))
        return 1 + wave, 0.5 + wave

    def _drawn(self, n: int, lean: float, chance: np.random.Generator) -> list[Life]:
        lives = self.world.lives["visitors"]
        if lean == 0.5:
            return [lives[k] for k in chance.integers(len(lives), size=n)]
        half = self._halves
        return [lives[int(chance.choice(half[chance.random() < lean]))] for _ in range(n)]

    @cached_property
    def _halves(self) -> dict[bool, list[int]]:
        leaning = [self.world.leaning(life) for life in self.world.lives["visitors"]]
        middle = float(np.median(leaning))
        return {side: [k for k, x in enumerate(leaning) if (x > middle) == side] for side in (True, False)}

    def arrivals(self, visits: Sequence[Visit], week: int, key: bytes) -> pl.DataFrame:
        """What the log gets of a week: the events contract, and `arrives`, when (µs)."""
        import polars as pl

        from tasteloop.privacy.pseudonyms import pseudonymise

        chance = np.random.default_rng([self.options.seed, week, 0, 1])
        rows = [(v.user, e.item, e.kind, e.time, e.value, e.text) for v in visits for e in v.events]
        if self.shifted(week) and self.options.shift == "bots":
            rows += self._bots(week, chance)
        frame = pl.DataFrame(rows, schema=dict(EVENTS_SCHEMA.to_polars()), orient="row")
        frame = frame.with_columns(pseudonymise(frame[USER], key).alias(USER), pl.col(TIME).alias("arrives"))
        if not self.shifted(week):
            return frame
        hit = pl.Series(chance.random(frame.height) < self.options.size)
        if self.options.shift == "broken-field":
            broken = ITEM if self.options.seed % 2 else "value"
            return frame.with_columns(pl.when(hit).then(None).otherwise(pl.col(broken)).alias(broken))
        if self.options.shift == "delayed-labels":
            late = pl.Series(chance.integers(0, _LATE, frame.height))
            later = pl.when(hit).then(pl.col("arrives") + late).otherwise("arrives")
            frame = frame.with_columns(later.alias("arrives"))
            again = frame.filter(hit).with_columns(pl.col("arrives") + HOUR)
            return pl.concat([frame, again]).sample(fraction=1, shuffle=True, seed=week)
        return frame

    def _bots(self, week: int, chance: np.random.Generator) -> list[tuple[Any, ...]]:
        items = sorted(self.world.tastes)
        n = round(self.options.size * self.world.busiest)
        times = self.begin + week * WEEK + chance.integers(0, WEEK, (2, n))
        return [
            (f"machine-{bot}", items[int(chance.integers(len(items)))], "view", int(t), None, None)
            for bot, row in enumerate(times) for t in row
        ]  # fmt: skip

    def catalogue(self, week: int) -> pl.DataFrame | None:
        """Today's, where it is newer than the champion's."""
        return self.world.items if self.options.shift == "new-catalogue" and self.shifted(week) else None


def placed(user: str, life: Life, begin: int, chance: np.random.Generator) -> Visit:
    """A life moved as a whole to a start at which it lies within the week."""
    start = begin + int(chance.integers(1, WEEK - (life[-1].time or 0)))
    return Visit(user, tuple(replace(event, time=start + (event.time or 0)) for event in life))


# The champion


def champion_data(world: World, seasonal: float, out: Path) -> None:
    """Write the data set that the champion learns from.

    Args:
        seasonal: the swing of the reference weeks; 0 for none.
    """
    import polars as pl

    from tasteloop.datasets.catalogue import CATALOGUE as SOURCES
    from tasteloop.privacy.pseudonyms import pseudonym_key, pseudonymise

    chance = np.random.default_rng(0)
    reference = Replay(world, Options("seasonal", severity=seasonal) if seasonal else Options())
    lives = world.lives["champion"]
    middle = float(np.median([world.leaning(life) for life in lives]))
    swing = [reference._swing(week) for week in range(REFERENCE_WEEKS)]
    weight = {
        side: np.array([n * (lean if side else 1 - lean) for n, lean in swing]) for side in (True, False)
    }  # of the weeks, for those who lean to dramas and for the others
    rows = []
    for k, life in enumerate(lives):
        chances = weight[world.leaning(life) > middle]
        week = int(chance.choice(REFERENCE_WEEKS, p=chances / chances.sum()))
        visit = placed(f"reference-{k}", reference.lived(life, chance, False), FIRST + week * WEEK, chance)
        rows += [(visit.user, e.item, e.kind, e.time, e.value, e.text) for e in visit.events]
    events = pl.DataFrame(rows, schema=dict(EVENTS_SCHEMA.to_polars()), orient="row").sort(TIME, USER)
    with atomic_directory(out) as directory:
        write_parquet(
            directory / "events.parquet", events.with_columns(pseudonymise(events[USER], pseudonym_key()).alias(USER))
        )
        write_parquet(directory / CATALOGUE, world.items.filter(~pl.col(ITEM).is_in(world.new)))
        write_json(
            directory / "ingest.json",
            {"source": "ml-100k, replayed", "terms": SOURCES["ml-100k"].terms, "base": str(out)},
        )


@contextmanager
def at(place: Path) -> Iterator[None]:
    """With a home of its own: the user's registry and tracking server are not seen."""
    before = dict(os.environ)
    os.environ["TASTELOOP_CACHE"] = str(cache())
    os.environ["TASTELOOP_HOME"] = str(place.absolute())
    for name in _OUTSIDE:
        os.environ.pop(name, None)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def settings_for(data: Path, overrides: Sequence[str] = ()) -> Settings:
    return load(PROFILE, [f"ingest.behaviour={json.dumps(str(data))}", *OVERRIDES, *overrides])


def found(root: Path, seasonal: float, overrides: Sequence[str], say: Say) -> tuple[Path, World]:
    """A home with a champion that was trained on the first part of the world: made once, and used again.

    Raises:
        TasteloopError: the pipeline promoted none.
    """
    from pipelines import local
    from serving import registry
    from tasteloop.datasets.ingest import EVENTS_FILE, ITEMS_FILE, IngestSettings, ingest

    made_of = repr((tasteloop.__version__, PARTS, LEAST, NEW, OVERRIDES, tuple(overrides), seasonal))
    place = root.absolute() / f"champion-{hashlib.sha256(made_of.encode()).hexdigest()[:12]}"
    with at(place):
        source, data = place / "ml-100k", place / "data"
        if not source.is_dir():
            ingest(IngestSettings(reviews=None), source)
        world = World.of(read_parquet(source / EVENTS_FILE), read_parquet(source / ITEMS_FILE))
        if registry.pointer() is None:
            if not data.is_dir():
                champion_data(world, seasonal, data)
            say(f"training the champion, once, in {place}")
            facts = local.run(settings_for(data, overrides), lambda line: logging.getLogger(__name__).debug("%s", line))
            if facts["outcome"] != "promoted":
                raise TasteloopError(f"the replay's champion was not promoted: {facts['outcome']}, {facts['reason']}")
    return place, world


# The server's side


class InProcess:
    """The server's answers without the server: its session, its journal."""

    def __init__(self, place: Path) -> None:
        self.directory = place / "journal"
        self.loaded: tuple[str, Session] | None = None

    def __enter__(self) -> InProcess:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def ask(self, model: str, users: Sequence[str], instances: Sequence[Mapping[str, Any]]) -> None:
        from serving import registry
        from serving.journal import Answered, now
        from tasteloop.privacy.pseudonyms import pseudonym, pseudonym_key
        from tasteloop.runtime import Session

        live = registry.champion()
        assert live is not None, "a simulation has a champion"
        if self.loaded is None or self.loaded[0] != live.version:
            self.loaded = (live.version, Session.load(live.path))
        outputs = self.loaded[1].answer(model, instances)
        key = pseudonym_key()
        hidden = [pseudonym(user, key) for user in users]
        answered = Answered(
            uuid.uuid4().hex, model, live.version, "in-process", now(), instances, outputs, users=hidden
        )
        with self._journal() as journal:
            journal.answered(answered)

    def feed(self, rows: Sequence[Mapping[str, Any]]) -> None:
        from serving.journal import now, parse_feedback

        with self._journal() as journal:
            journal.feedback(parse_feedback({"feedback": list(rows)}, now()))

    @contextmanager
    def _journal(self) -> Iterator[Any]:
        from serving.journal import Journal, JournalSettings

        journal = Journal(JournalSettings(directory=self.directory, bound=100_000))
        try:
            yield journal
        finally:
            journal.close()


class Server:
    """`python -m serving` beside us: it keeps the journal and follows the champion."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __enter__(self) -> Server:
        from serving.client import Client

        ready, log = self.place / "server.json", self.place / "server.log"
        ready.unlink(missing_ok=True)
        with log.open("ab") as written:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "serving", "--port", "0", "--grpc-port", "0", "--ready-file", str(ready),
                 "--journal-rows", "20000", "--max-wait", "60", "--timeout", "120", "--exit-with-parent"],
                stdin=subprocess.PIPE, stdout=written, stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONPATH": os.pathsep.join([_SOURCES, os.environ.get("PYTHONPATH", "")])},
            )  # fmt: skip
        self._until(ready.is_file, f"the server did not start; see {log}")
        self.client = Client(read_json(ready)["http"], timeout=120)
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait(60)
        self.client.close()

    def ask(self, model: str, users: Sequence[str], instances: Sequence[Mapping[str, Any]]) -> None:
        from serving import registry

        live = registry.pointer()
        assert live is not None, "a simulation has a champion"
        self._until(lambda: self._version() == live[0], f"the server does not follow to version {live[0]}")
        asked = [{**instance, USER: user} for user, instance in zip(users, instances, strict=True)]
        before = self._rows()
        for start in range(0, len(asked), 32):
            self.client.predict(model, asked[start : start + 32])
        self._until(lambda: self._rows() >= before + len(asked), "the journal does not show the answers")

    def feed(self, rows: Sequence[Mapping[str, Any]]) -> None:
        import httpx

        body = {"feedback": list(rows)}
        httpx.post(f"{self.client.url}/v1/feedback", json=body, timeout=60, trust_env=False).raise_for_status()

    def _version(self) -> str:
        blank = {"name": "events", "datatype": "BYTES", "shape": [1], "data": ['{"events": []}']}
        return str(self.client.infer(INTERESTS, [blank])["model_version"])

    def _rows(self) -> int:
        return int(_journal(self.place).height)

    def _until(self, holds: Callable[[], bool], otherwise: str) -> None:
        deadline = time.monotonic() + 300
        while not holds():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise TasteloopError(otherwise)
            time.sleep(0.2)


_SOURCES = str(Path(__file__).resolve().parents[1])


def _journal(place: Path) -> pl.DataFrame:
    """The journal in the replay's time: an answer's time is that of the newest event that it was asked with."""
    import polars as pl

    from serving.journal import read_journal

    directory = place / "journal"
    if not directory.is_dir():
        directory.mkdir()
    return read_journal(directory).filter(pl.col(LATEST).is_not_null()).with_columns(pl.col(LATEST).alias(TIME))


# The driver


@dataclass
class _Driver:
    replay: Replay
    settings: Settings
    place: Path
    served: Server | InProcess
    key: bytes
    clock: int = 0
    frames: list[pl.DataFrame] = field(default_factory=list)
    catalogue: pl.DataFrame | None = None
    followed: dict[tuple[str, int], dict[str, int]] = field(default_factory=dict)
    told: set[str] = field(default_factory=set)
    waiting: list[tuple[int, dict[str, Any]]] = field(default_factory=list)

    def come(self, week: int) -> list[Visit]:
        visits = self.replay.week(week)
        self.frames.append(self.replay.arrivals(visits, week, self.key))
        self.catalogue = self.replay.catalogue(week)
        return visits

    def source(self, since: int) -> Incoming:
        import polars as pl

        come = pl.concat(self.frames).filter((pl.col("arrives") <= self.clock) & (pl.col(TIME) >= since))
        return Incoming(come.drop("arrives"), self.catalogue)

    def answers(self, since: int, until: int, version: str) -> pl.DataFrame:
        import polars as pl

        known = _journal(self.place)
        return known.filter(pl.col(TIME).is_between(since, until, closed="left") & (pl.col(VERSION) == version))

    def ask(self, visits: Sequence[Visit], week: int) -> None:
        """Questions mid-sequence, at the points at which the champion was trained and validated."""
        from tasteloop.privacy.pseudonyms import pseudonym

        chance = np.random.default_rng([self.replay.options.seed, week, 0, 2])
        users, instances = [], []
        for visit in visits[:_ASKED]:
            cuts = cuts_of(visit.events, self.settings)
            for cut in sorted(chance.permutation(cuts)[:_QUESTIONS]):
                history = visit.events[max(0, cut - self.settings.prepare.text.history_limit) : cut]
                users.append(visit.user)
                instances.append({"events": [event.json() for event in history]})
                then = {e.item: e.time for e in reversed(visit.events[cut:]) if e.item and e.positive()}
                self.followed[pseudonym(visit.user, self.key), history[-1].time or 0] = then  # type: ignore[assignment]
        for model in (INTERESTS, RECOMMEND):
            self.served.ask(model, users, instances)

    def feed(self, week: int) -> None:
        """A click on what was recommended, where the user went on to it; late and twice where labels are delayed."""
        import polars as pl

        chance = np.random.default_rng([self.replay.options.seed, week, 0, 3])
        delayed = self.replay.options.shift == "delayed-labels" and self.replay.shifted(week)
        answered = _journal(self.place).filter(pl.col(MODEL) == RECOMMEND)
        for request, instance, user, time_, names in answered.select(REQUEST, "instance", USER, TIME, NAMES).rows():
            if (name := f"{request} {instance}") in self.told:
                continue
            self.told.add(name)
            then = self.followed.get((user, time_), {})
            for item in set(names) & set(then):
                row = {REQUEST: request, "instance": instance, KIND: "click", ITEM: item, TIME: then[item]}
                late = delayed and chance.random() < self.replay.options.size
                arrives = then[item] + (int(chance.integers(_LATE)) if late else 0)
                self.waiting += [(arrives + n * HOUR, row) for n in range(2 if late else 1)]
        due = [row for arrives, row in self.waiting if arrives <= self.clock]
        self.waiting = [(arrives, row) for arrives, row in self.waiting if arrives > self.clock]
        due = [due[k] for k in chance.permutation(len(due))] if delayed else due
        for start in range(0, len(due), MOST_FEEDBACK):
            self.served.feed(due[start : start + MOST_FEEDBACK])


def cuts_of(events: Sequence[Event], settings: Settings) -> list[int]:
    """History lengths at which snapshots are taken: what follows is strictly later, and holds enough to judge by."""
    rules = settings.prepare
    wanted = [*rules.positions, *range(max(rules.positions) + rules.stride, len(events), rules.stride)]
    out = []
    for cut in wanted:
        while 0 < cut < len(events) and events[cut].time == events[cut - 1].time:
            cut += 1
        future = sum(event.positive(rules.text.positive) for event in events[cut:])
        if cut < len(events) and cut not in out and future >= rules.minimum_future:
            out.append(cut)
    return out


def quality(session: Session, replay: Replay, shifted: bool, settings: Settings) -> dict[str, Any]:
    """nDCG@10 of the next liked films on the lives that are never replayed, as they are or under the shift."""
    from tasteloop.metrics import interval, ndcg

    histories, relevant, groups = [], [], []
    ids: dict[str, int] = {}
    for n, life in enumerate(replay.world.lives["judges"]):
        lived = replay.lived(life, np.random.default_rng([replay.options.seed, n]), shifted)
        for cut in cuts_of(lived, settings):
            liked = [e.item for e in lived[cut:] if e.item and e.positive(settings.prepare.text.positive)]
            histories.append(lived[max(0, cut - settings.prepare.text.history_limit) : cut])
            relevant.append([ids.setdefault(i, len(ids)) for i in dict.fromkeys(liked[: settings.prepare.horizon])])
            groups.append(n)
    ranked = np.full((len(histories), 10), -1)
    for row, items in enumerate(session.recommend(histories)):
        ranked[row, : len(items)] = [ids.setdefault(r.item, len(ids)) for r in items]
    return interval(ndcg(ranked, relevant), np.array(groups), draws=300).json()


def simulate(
    options: Options, place: Path, root: Path, overrides: Sequence[str] = (), say: Say = print
) -> dict[str, Any]:
    """Replay, watch, decide, and retrain; what came of it beside what was expected.

    Args:
        place: the simulation's home; one that is there is replaced.
        root: where champions are kept, to be used again by other simulations.
        overrides: `section.key=value` on top of the profile `smoke` and this module's.

    Returns:
        {"met": bool, "failures": [...], "windows": [...], "detected_after": int | None, "false_triggers": int,
        "clean_windows": int, "retrainings": [...], "quality": {...}, ...}
    """
    shift = SHIFTS[options.shift]
    base, world = found(root, options.size if options.shift == "seasonal" else 0.0, overrides, say)
    fresh(base, place)
    say(f"{options.shift}, seed {options.seed}: {shift.about}; expected: {shift.expected}; in {place}")
    return replayed(Replay(world, options), settings_for(base / "data", overrides), place, say)


def replayed(replay: Replay, settings: Settings, place: Path, say: Say) -> dict[str, Any]:
    """`simulate` in a home that has a champion."""
    from tasteloop.privacy.pseudonyms import pseudonym_key

    options, shift = replay.options, SHIFTS[replay.options.shift]
    windows: list[dict[str, Any]] = []
    with at(place):
        before = _champion_session()
        served: AbstractContextManager[Any] = Server(place) if options.serve else InProcess(place)
        with served as live:
            driver = _Driver(replay, settings, place, live, pseudonym_key())
            ahead = driver.come(0)
            for week in range(options.weeks):
                driver.ask(ahead, week)
                driver.clock = replay.begin + (week + 1) * WEEK + DAY
                ahead = driver.come(week + 1)  # its first day moves the watermark
                driver.catalogue = replay.catalogue(week)
                driver.feed(week)
                watched = watch_once(
                    settings,
                    clock=lambda: driver.clock,
                    source=driver.source,
                    retrain=None if options.retrain else (lambda asked: {"result": "failed", "reason": "--no-retrain"}),
                    answers=driver.answers,
                )
                windows.append(_window(week, replay, watched))
                say(told(windows[-1]))
                if windows[-1]["outcome"] == "retrain" == shift.expected and not options.retrain:
                    break
        measured = _qualities(before, _champion_session(), replay, settings)
    result = {**asdict(options), "severity": options.size, **judged(windows, shift, options), "quality": measured}
    write_json(place / RESULT, result)
    return result


def fresh(base: Path, place: Path) -> None:
    """A home that begins with the champion, and with nothing else."""
    if place.exists():
        if not (place / RESULT).is_file():
            raise TasteloopError(f"{place} is there and is no simulation's; name another --home, or remove it")
        shutil.rmtree(place)
    left = shutil.ignore_patterns("pipeline", "ml-100k", "data")
    with atomic_directory(place) as directory:
        shutil.copytree(base, directory, dirs_exist_ok=True, ignore=left)
        write_json(directory / RESULT, {})


def _champion_session() -> Session:
    from serving import registry
    from tasteloop.runtime import Session

    live = registry.champion()
    assert live is not None, "a simulation has a champion"
    return Session.load(live.path)


def _qualities(before: Session, after: Session, replay: Replay, settings: Settings) -> dict[str, Any]:
    if replay.options.shift not in ("taste-change", "new-catalogue"):
        return {}
    usual, lost = quality(before, replay, False, settings), quality(before, replay, True, settings)
    out = {"before": usual, "shifted": lost}
    if after.digest != before.digest:
        out["retrained"] = quality(after, replay, True, settings)
        gap = usual["value"] - lost["value"]
        out["regained"] = (out["retrained"]["value"] - lost["value"]) / gap if gap > 0 else None
    return out


def _window(week: int, replay: Replay, watched: Watched) -> dict[str, Any]:
    decision = watched.decision or {}
    return {
        "week": week,
        "shifted": replay.shifted(week),
        "champion": watched.champion,
        "windows": list(watched.windows),
        "outcome": "rollback" if watched.rollback else watched.outcome,
        "acted": watched.outcome in ("retrain", "alert-human"),
        "reasons": list(decision.get("reasons", ())) or [watched.note],
        "result": decision.get("result"),
    }


def judged(windows: Sequence[Mapping[str, Any]], shift: Shift, options: Options) -> dict[str, Any]:
    """What was expected beside what the passes did."""
    clean = [w for w in windows if not w["shifted"] or shift.expected == "nothing"]
    hit = [w for w in windows if w["shifted"] and shift.expected != "nothing"]
    false = sum(w["acted"] for w in clean)
    first = next((n for n, w in enumerate(hit, 1) if w["acted"]), None)
    retrainings = [w["result"] for w in windows if w["outcome"] == "retrain"]
    failures = [f"{false} false triggers in {len(clean)} windows without a shift"] if false else []
    if shift.expected != "nothing":
        answer = hit[first - 1]["outcome"] if first else None
        if first is None or first > 2:
            failures.append("the shift was not detected within two windows")
        elif answer != shift.expected:
            failures.append(f"the first answer was {answer}, not {shift.expected}")
        if shift.expected == "alert-human" and (n := sum(w["outcome"] == "retrain" for w in hit)):
            failures.append(f"retrained {n} times on what a retraining does not answer")
        if options.retrain and shift.expected == "retrain" and "promoted" not in retrainings:
            failures.append("no retrained model was promoted")
    return {
        "expected": shift.expected,
        "detected_after": first,
        "false_triggers": false,
        "clean_windows": len(clean),
        "retrainings": retrainings,
        "met": not failures,
        "failures": failures,
        "windows": list(windows),
    }


def told(window: Mapping[str, Any]) -> str:
    """One pass in one line."""
    mark = "shifted" if window["shifted"] else "usual"
    result = f" ({window['result']})" if window["result"] else ""
    reasons = "; ".join(window["reasons"])
    return f"week {window['week']:>2}  {mark:<8} {window['outcome'] or '-'}{result}: {reasons[:160]}"


def concluded(result: Mapping[str, Any]) -> list[str]:
    """The end of a simulation in a few lines."""
    after = result["detected_after"]
    lines = [
        f"expected        {result['expected']}",
        f"detected        {f'in window {after} of the shift' if after else 'no'}",
        f"false triggers  {result['false_triggers']} in {result['clean_windows']} windows without a shift",
        f"retrainings     {', '.join(str(r) for r in result['retrainings']) or 'none'}",
    ]
    names = {"before": "before the shift", "shifted": "under it", "retrained": "after the retraining"}
    for name, words in names.items():
        if found := result["quality"].get(name):
            lines.append(f"nDCG@10         {found['value']:.3f} ({found['low']:.3f} to {found['high']:.3f}) {words}")
    if (share := result["quality"].get("regained")) is not None:
        lines.append(f"regained        {share:.0%} of what was lost")
    return [*lines, *(f"not met         {failure}" for failure in result["failures"])]


def default_place(shift: str, seed: int) -> Path:
    return home() / "simulations" / f"{shift}-{seed}"
