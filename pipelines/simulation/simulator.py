"""The loop on a laptop: `pipelines.simulation.replay` through the serving endpoint and the monitor,
and what came of it.

The monitor has a clock of its own: it wakes a day after each week's end, sees what has arrived by
then, and reads the journal of a real server. An answer's time is that of the newest event of its
question, which the journal keeps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.loop.contracts import Incoming, Retraining
from pipelines.loop.monitoring import watch_once
from pipelines.settings import Settings
from pipelines.simulation.champion import make_champion, settings_for
from pipelines.simulation.conclusions import judge, record_window, summarise_window
from pipelines.simulation.homes import RESULT_FILE, begin_home, check_replaceable, use_home
from pipelines.simulation.quality import compare_qualities, question_points
from pipelines.simulation.replay import DAY, LATE, Replay, Visit
from pipelines.simulation.server import InProcess, SimulatedServer, read_journal_of
from pipelines.simulation.shifts import SHIFTS, Options
from serving.journal.feedback import MOST_FEEDBACK
from serving.release import registry
from tasteloop.answers import INTERESTS, RECOMMEND
from tasteloop.behaviour.events import ITEM, KIND, TIME, USER
from tasteloop.files import write_json
from tasteloop.journal import MODEL, NAMES, REQUEST, VERSION
from validation.monitor.windows import HOUR, WEEK

if TYPE_CHECKING:
    import polars as pl

    from tasteloop.runtime.session import Session

Say = Callable[[str], None]

_ASKED = 60  # visitors a week who ask
_QUESTIONS = 4  # each


@dataclass
class _Driver:
    """The replay's side of a pass: what has come by the clock, questions, feedback."""

    replay: Replay
    settings: Settings
    home: Path
    server: SimulatedServer | InProcess
    key: bytes
    clock: int = 0
    frames: list[pl.DataFrame] = field(default_factory=list)
    catalogue: pl.DataFrame | None = None
    followed: dict[tuple[str, int], dict[str, int]] = field(default_factory=dict)
    answered: set[str] = field(default_factory=set)
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

        known = read_journal_of(self.home)
        return known.filter(
            pl.col(TIME).is_between(since, until, closed="left") & (pl.col(VERSION) == version)
        )

    def ask(self, visits: Sequence[Visit], week: int) -> None:
        """Questions mid-sequence, at the points at which the champion was trained and validated."""
        from tasteloop.privacy.pseudonyms import pseudonym

        chance = np.random.default_rng([self.replay.options.seed, week, 0, 2])
        users, instances = [], []
        for visit in visits[:_ASKED]:
            cuts = question_points(visit.events, self.settings)
            for cut in sorted(chance.permutation(cuts)[:_QUESTIONS]):
                history = visit.events[max(0, cut - self.settings.prepare.text.history_limit) : cut]
                users.append(visit.user)
                instances.append({"events": [event.json() for event in history]})
                then = {
                    e.item: e.time for e in reversed(visit.events[cut:]) if e.item and e.positive()
                }
                self.followed[pseudonym(visit.user, self.key), history[-1].time or 0] = then  # type: ignore[assignment]
        for model in (INTERESTS, RECOMMEND):
            self.server.ask(model, users, instances)

    def feed(self, week: int) -> None:
        """A click on what was recommended, where the user went on to it; late and twice where
        labels are delayed.
        """
        import polars as pl

        chance = np.random.default_rng([self.replay.options.seed, week, 0, 3])
        delayed = self.replay.options.shift == "delayed-labels" and self.replay.shifted(week)
        rows = read_journal_of(self.home).filter(pl.col(MODEL) == RECOMMEND)
        for request, instance, user, time_, names in rows.select(
            REQUEST, "instance", USER, TIME, NAMES
        ).rows():
            if (name := f"{request} {instance}") in self.answered:
                continue
            self.answered.add(name)
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
            self.server.feed(due[start : start + MOST_FEEDBACK])


def simulate(
    options: Options, path: Path, root: Path, overrides: Sequence[str] = (), say: Say = print
) -> dict[str, Any]:
    """Replay, watch, decide, and retrain; what came of it beside what was expected.

    Args:
        path: the simulation's home; one that exists is replaced.
        root: where champions are kept, to be used again by other simulations.
        overrides: `section.key=value` on top of the profile `smoke` and this module's.

    Returns:
        {"met": bool, "failures": [...], "windows": [...], "detected_after": int | None,
        "false_triggers": int, "clean_windows": int, "retrainings": [...], "quality": {...}, ...}
    """
    shift = SHIFTS[options.shift]
    check_replaceable(path)  # this and the settings before minutes of training
    settings_for(path, overrides)
    swing = options.size if options.shift == "seasonal" else 0.0
    base, world = make_champion(root, swing, overrides, say)
    begin_home(base, path)
    say(
        f"{options.shift}, seed {options.seed}: {shift.about}; expected: {shift.expected}; in {path}"
    )
    return run_weeks(Replay(world, options), settings_for(base / "data", overrides), path, say)


def run_weeks(replay: Replay, settings: Settings, path: Path, say: Say) -> dict[str, Any]:
    """`simulate` in a home that has a champion."""
    from tasteloop.privacy.pseudonyms import pseudonym_key

    options, shift = replay.options, SHIFTS[replay.options.shift]
    windows: list[dict[str, Any]] = []
    with use_home(path):
        before = _champion_session()
        server: AbstractContextManager[Any] = (
            SimulatedServer(path) if options.serve else InProcess(path)
        )
        with server as live:
            driver = _Driver(replay, settings, path, live, pseudonym_key())
            ahead = driver.come(0)
            for week in range(options.weeks):
                driver.ask(ahead, week)
                driver.clock = replay.begin + (week + 1) * WEEK + DAY
                ahead = driver.come(week + 1)  # its first day moves the watermark
                driver.catalogue = replay.catalogue(week)
                driver.feed(week)
                report = watch_once(
                    settings,
                    clock=lambda: driver.clock,
                    source=driver.source,
                    retrain=None if options.retrain else _refuse_to_retrain,
                    answers=driver.answers,
                )
                windows.append(record_window(week, replay, report))
                say(summarise_window(windows[-1]))
                if windows[-1]["outcome"] == "retrain" == shift.expected and not options.retrain:
                    break
        measured = compare_qualities(before, _champion_session(), replay, settings)
    result = {
        **asdict(options),
        "severity": options.size,
        **judge(windows, shift, options),
        "quality": measured,
    }
    write_json(path / RESULT_FILE, result)
    return result


def _champion_session() -> Session:
    from tasteloop.runtime.session import Session

    live = registry.champion()
    assert live is not None, "a simulation has a champion"
    return Session.load(live.path)


def _refuse_to_retrain(_: Retraining) -> dict[str, Any]:
    return {"result": "failed", "reason": "--no-retrain"}
