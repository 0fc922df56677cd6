"""The loop on a laptop: `pipelines.simulation.replay` through the serving endpoint and the monitor,
and what came of it.

The monitor has a clock of its own: it wakes a day after each week's end, sees what has arrived by
then, and reads the journal of a real server. An answer's time is that of the newest event of its
question, which the journal keeps.
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
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import tasteloop
from pipelines.loop.contracts import Incoming, PassReport
from pipelines.loop.incoming import CATALOGUE_FILE
from pipelines.loop.monitoring import watch_once
from pipelines.settings import Settings, load
from pipelines.simulation.replay import (
    DAY,
    FIRST,
    LATE,
    LEAST,
    NEW,
    PARTS,
    REFERENCE_WEEKS,
    SHIFTS,
    Options,
    Replay,
    Shift,
    Visit,
    World,
    placed,
)
from serving.journal.feedback import MOST_FEEDBACK, TOKEN
from tasteloop.answers import INTERESTS, RECOMMEND
from tasteloop.behaviour.events import EVENTS_SCHEMA, ITEM, KIND, TIME, USER, Event
from tasteloop.errors import TasteloopError
from tasteloop.files import (
    atomic_directory,
    cache,
    home,
    read_json,
    read_parquet,
    write_json,
    write_parquet,
)
from tasteloop.journal import LATEST, MODEL, NAMES, REQUEST, VERSION
from validation.monitor.windows import HOUR, WEEK

if TYPE_CHECKING:
    import polars as pl

    from tasteloop.runtime.session import Session

Say = Callable[[str], None]

_ASKED = 60  # visitors a week who ask
_QUESTIONS = 4  # each

_OUTSIDE = (
    "MLFLOW_TRACKING_URI",
    "MLFLOW_REGISTRY_URI",
    "TASTELOOP_API_TOKEN",
    "TASTELOOP_API_TOKEN_FILE",
)
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
    swing = [reference.swing(week) for week in range(REFERENCE_WEEKS)]
    weight = {
        side: np.array([n * (lean if side else 1 - lean) for n, lean in swing])
        for side in (True, False)
    }  # of the weeks, for those who lean to dramas and for the others
    rows = []
    for k, life in enumerate(lives):
        chances = weight[world.leaning(life) > middle]
        week = int(chance.choice(REFERENCE_WEEKS, p=chances / chances.sum()))
        visit = placed(
            f"reference-{k}", reference.lived(life, chance, False), FIRST + week * WEEK, chance
        )
        rows += [(visit.user, e.item, e.kind, e.time, e.value, e.text) for e in visit.events]
    events = pl.DataFrame(rows, schema=dict(EVENTS_SCHEMA.to_polars()), orient="row").sort(
        TIME, USER
    )
    with atomic_directory(out) as directory:
        write_parquet(
            directory / "events.parquet",
            events.with_columns(pseudonymise(events[USER], pseudonym_key()).alias(USER)),
        )
        write_parquet(
            directory / CATALOGUE_FILE, world.items.filter(~pl.col(ITEM).is_in(world.new))
        )
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
    """A home with a champion that was trained on the first part of the world: made once, and used
    again.

    Raises:
        TasteloopError: the pipeline promoted none.
    """
    from pipelines.local import runner as local
    from serving.release import registry
    from tasteloop.datasets.ingest import EVENTS_FILE, ITEMS_FILE, IngestSettings, ingest

    made_of = repr(
        (tasteloop.__version__, PARTS, LEAST, NEW, OVERRIDES, tuple(overrides), seasonal)
    )
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
            facts = local.run(
                settings_for(data, overrides),
                lambda line: logging.getLogger(__name__).debug("%s", line),
            )
            if facts.outcome != "promoted":
                raise TasteloopError(
                    f"the replay's champion was not promoted: {facts.outcome}, {facts.reason}"
                )
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
        from serving.journal.answered import Answered, now
        from serving.release import registry
        from tasteloop.privacy.pseudonyms import pseudonym, pseudonym_key
        from tasteloop.runtime.session import Session

        live = registry.champion()
        assert live is not None, "a simulation has a champion"
        if self.loaded is None or self.loaded[0] != live.version:
            self.loaded = (live.version, Session.load(live.path))
        outputs = self.loaded[1].answer(model, instances)
        key = pseudonym_key()
        hidden = [pseudonym(user, key) for user in users]
        answered = Answered(
            uuid.uuid4().hex,
            model,
            live.version,
            "in-process",
            now(),
            instances,
            outputs,
            users=hidden,
        )
        with self._journal() as journal:
            journal.answered(answered)

    def feed(self, rows: Sequence[Mapping[str, Any]]) -> None:
        from serving.journal.answered import now
        from serving.journal.feedback import parse_feedback

        with self._journal() as journal:
            journal.feedback(parse_feedback({"feedback": list(rows)}, now()))

    @contextmanager
    def _journal(self) -> Iterator[Any]:
        from serving.journal.writer import Journal
        from serving.settings import JournalSettings

        journal = Journal(JournalSettings(directory=self.directory, bound=100_000))
        try:
            yield journal
        finally:
            journal.close()


class Server:
    """`python -m serving` beside us: it keeps the journal and follows the champion."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.tokens: dict[str, str | None] = {}  # by request, for its feedback

    def __enter__(self) -> Server:
        from serving.client import Client

        ready, log = self.place / "server.json", self.place / "server.log"
        ready.unlink(missing_ok=True)
        with log.open("ab") as written:
            self.process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "serving",
                    "--port",
                    "0",
                    "--grpc-port",
                    "0",
                    "--ready-file",
                    str(ready),
                    "--journal-rows",
                    "20000",
                    "--max-wait",
                    "60",
                    "--timeout",
                    "120",
                    "--exit-with-parent",
                ],
                stdin=subprocess.PIPE,
                stdout=written,
                stderr=subprocess.STDOUT,
                env={
                    **os.environ,
                    "PYTHONPATH": os.pathsep.join([_SOURCES, os.environ.get("PYTHONPATH", "")]),
                },
            )
        self._until(ready.is_file, f"the server did not start; see {log}")
        self.client = Client(read_json(ready)["http"], timeout=120)
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait(60)
        self.client.close()

    def ask(self, model: str, users: Sequence[str], instances: Sequence[Mapping[str, Any]]) -> None:
        from serving.release import registry

        live = registry.pointer()
        assert live is not None, "a simulation has a champion"
        self._until(
            lambda: self._version() == live[0], f"the server does not follow to version {live[0]}"
        )
        asked = [{**instance, USER: user} for user, instance in zip(users, instances, strict=True)]
        before = self._rows()
        for start in range(0, len(asked), 32):
            answers = self.client.predict(model, asked[start : start + 32])
            self.tokens[answers.request] = answers.token
        self._until(
            lambda: self._rows() >= before + len(asked), "the journal does not show the answers"
        )

    def feed(self, rows: Sequence[Mapping[str, Any]]) -> None:
        import httpx

        # An earlier replay's answers may be in the journal too; their tokens went with it.
        given = [
            {**row, TOKEN: self.tokens[row[REQUEST]]} for row in rows if row[REQUEST] in self.tokens
        ]
        if not given:
            return
        body = {"feedback": given}
        httpx.post(
            f"{self.client.url}/v1/feedback", json=body, timeout=60, trust_env=False
        ).raise_for_status()

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


_SOURCES = str(Path(__file__).resolve().parents[2])


def _journal(place: Path) -> pl.DataFrame:
    """The journal in the replay's time: an answer's time is that of the newest event that it was
    asked with.
    """
    import polars as pl

    from serving.journal.reader import read_journal

    directory = place / "journal"
    if not directory.is_dir():
        directory.mkdir()
    return (
        read_journal(directory)
        .filter(pl.col(LATEST).is_not_null())
        .with_columns(pl.col(LATEST).alias(TIME))
    )


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

        come = pl.concat(self.frames).filter(
            (pl.col("arrives") <= self.clock) & (pl.col(TIME) >= since)
        )
        return Incoming(come.drop("arrives"), self.catalogue)

    def answers(self, since: int, until: int, version: str) -> pl.DataFrame:
        import polars as pl

        known = _journal(self.place)
        return known.filter(
            pl.col(TIME).is_between(since, until, closed="left") & (pl.col(VERSION) == version)
        )

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
                then = {
                    e.item: e.time for e in reversed(visit.events[cut:]) if e.item and e.positive()
                }
                self.followed[pseudonym(visit.user, self.key), history[-1].time or 0] = then  # type: ignore[assignment]
        for model in (INTERESTS, RECOMMEND):
            self.served.ask(model, users, instances)

    def feed(self, week: int) -> None:
        """A click on what was recommended, where the user went on to it; late and twice where
        labels are delayed.
        """
        import polars as pl

        chance = np.random.default_rng([self.replay.options.seed, week, 0, 3])
        delayed = self.replay.options.shift == "delayed-labels" and self.replay.shifted(week)
        answered = _journal(self.place).filter(pl.col(MODEL) == RECOMMEND)
        for request, instance, user, time_, names in answered.select(
            REQUEST, "instance", USER, TIME, NAMES
        ).rows():
            if (name := f"{request} {instance}") in self.told:
                continue
            self.told.add(name)
            then = self.followed.get((user, time_), {})
            for item in set(names) & set(then):
                row = {
                    REQUEST: request,
                    "instance": instance,
                    KIND: "click",
                    ITEM: item,
                    TIME: then[item],
                }
                late = delayed and chance.random() < self.replay.options.size
                arrives = then[item] + (int(chance.integers(LATE)) if late else 0)
                self.waiting += [(arrives + n * HOUR, row) for n in range(2 if late else 1)]
        due = [row for arrives, row in self.waiting if arrives <= self.clock]
        self.waiting = [(arrives, row) for arrives, row in self.waiting if arrives > self.clock]
        due = [due[k] for k in chance.permutation(len(due))] if delayed else due
        for start in range(0, len(due), MOST_FEEDBACK):
            self.served.feed(due[start : start + MOST_FEEDBACK])


def cuts_of(events: Sequence[Event], settings: Settings) -> list[int]:
    """History lengths at which snapshots are taken: what follows is strictly later, and holds
    enough to judge by.
    """
    rules = settings.prepare
    wanted = [
        *rules.positions,
        *range(max(rules.positions) + rules.stride, len(events), rules.stride),
    ]
    out = []
    for cut in wanted:
        while 0 < cut < len(events) and events[cut].time == events[cut - 1].time:
            cut += 1
        future = sum(event.positive(rules.text.positive) for event in events[cut:])
        if cut < len(events) and cut not in out and future >= rules.minimum_future:
            out.append(cut)
    return out


def quality(session: Session, replay: Replay, shifted: bool, settings: Settings) -> dict[str, Any]:
    """nDCG@10 of the next liked films on the lives that are never replayed, as they are or under
    the shift.
    """
    from tasteloop.metrics import interval, ndcg

    histories, relevant, groups = [], [], []
    ids: dict[str, int] = {}
    for n, life in enumerate(replay.world.lives["judges"]):
        lived = replay.lived(life, np.random.default_rng([replay.options.seed, n]), shifted)
        for cut in cuts_of(lived, settings):
            liked = [
                e.item for e in lived[cut:] if e.item and e.positive(settings.prepare.text.positive)
            ]
            histories.append(lived[max(0, cut - settings.prepare.text.history_limit) : cut])
            relevant.append(
                [
                    ids.setdefault(i, len(ids))
                    for i in dict.fromkeys(liked[: settings.prepare.horizon])
                ]
            )
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
        {"met": bool, "failures": [...], "windows": [...], "detected_after": int | None,
        "false_triggers": int, "clean_windows": int, "retrainings": [...], "quality": {...}, ...}
    """
    shift = SHIFTS[options.shift]
    check_replaceable(place)  # this and the settings before minutes of training
    settings_for(place, overrides)
    base, world = found(root, options.size if options.shift == "seasonal" else 0.0, overrides, say)
    fresh(base, place)
    say(
        f"{options.shift}, seed {options.seed}: {shift.about}; expected: {shift.expected}; in {place}"
    )
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
                    retrain=None
                    if options.retrain
                    else (lambda asked: {"result": "failed", "reason": "--no-retrain"}),
                    answers=driver.answers,
                )
                windows.append(_window(week, replay, watched))
                say(told(windows[-1]))
                if windows[-1]["outcome"] == "retrain" == shift.expected and not options.retrain:
                    break
        measured = _qualities(before, _champion_session(), replay, settings)
    result = {
        **asdict(options),
        "severity": options.size,
        **judged(windows, shift, options),
        "quality": measured,
    }
    write_json(place / RESULT, result)
    return result


def check_replaceable(place: Path) -> None:
    """Raises TasteloopError where a simulation's home can neither be made nor replaced."""
    if place.exists() and not (place / RESULT).is_file():
        raise TasteloopError(
            f"{place} is there and is no simulation's; name another --home, or remove it"
        )
    if parents := [parent for parent in place.absolute().parents if parent.is_file()]:
        raise TasteloopError(
            f"{parents[0]} is a file, so that --home {place} cannot be made; name another"
        )


def fresh(base: Path, place: Path) -> None:
    """A home that begins with the champion, and with nothing else."""
    check_replaceable(place)
    if place.exists():
        shutil.rmtree(place)
    left = shutil.ignore_patterns("pipeline", "ml-100k", "data")
    with atomic_directory(place) as directory:
        shutil.copytree(base, directory, dirs_exist_ok=True, ignore=left)
        write_json(directory / RESULT, {})


def _champion_session() -> Session:
    from serving.release import registry
    from tasteloop.runtime.session import Session

    live = registry.champion()
    assert live is not None, "a simulation has a champion"
    return Session.load(live.path)


def _qualities(
    before: Session, after: Session, replay: Replay, settings: Settings
) -> dict[str, Any]:
    if replay.options.shift not in ("taste-change", "new-catalogue"):
        return {}
    usual, lost = quality(before, replay, False, settings), quality(before, replay, True, settings)
    out: dict[str, Any] = {"before": usual, "shifted": lost}
    if after.digest != before.digest:
        out["retrained"] = quality(after, replay, True, settings)
        gap = usual["value"] - lost["value"]
        out["regained"] = (out["retrained"]["value"] - lost["value"]) / gap if gap > 0 else None
    return out


def _window(week: int, replay: Replay, watched: PassReport) -> dict[str, Any]:
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
    return (
        f"week {window['week']:>2}  {mark:<8} {window['outcome'] or '-'}{result}: {reasons[:160]}"
    )


def concluded(result: Mapping[str, Any]) -> list[str]:
    """The end of a simulation in a few lines."""
    after = result["detected_after"]
    lines = [
        f"expected        {result['expected']}",
        f"detected        {f'in window {after} of the shift' if after else 'no'}",
        f"false triggers  {result['false_triggers']} in {result['clean_windows']} windows without a shift",
        f"retrainings     {', '.join(str(r) for r in result['retrainings']) or 'none'}",
    ]
    names = {
        "before": "before the shift",
        "shifted": "under it",
        "retrained": "after the retraining",
    }
    for name, words in names.items():
        if found := result["quality"].get(name):
            lines.append(
                f"nDCG@10         {found['value']:.3f} ({found['low']:.3f} to {found['high']:.3f}) {words}"
            )
    if (share := result["quality"].get("regained")) is not None:
        lines.append(f"regained        {share:.0%} of what was lost")
    return [*lines, *(f"not met         {failure}" for failure in result["failures"])]


def default_place(shift: str, seed: int) -> Path:
    return home() / "simulations" / f"{shift}-{seed}"
