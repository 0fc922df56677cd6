"""The loop on a laptop: `pipelines.simulation.replay` through the serving endpoint and the monitor,
and what came of it.

The monitor has a clock of its own: it wakes a day after each week's end, sees what has arrived by
then, and reads the journal of a real server. An answer's time is that of the newest event of its
question, which the journal keeps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.loop.contracts import Incoming, Retraining
from pipelines.loop.monitoring import watch_once
from pipelines.settings import Settings
from pipelines.simulation.champion import load_simulation_settings, make_champion, overrides_of
from pipelines.simulation.conclusions import SimulationResult, WeekRecord, judge
from pipelines.simulation.homes import RESULT_FILE, begin_home, check_replaceable, use_home
from pipelines.simulation.quality import compare_qualities, question_points
from pipelines.simulation.replay import DAY, MOST_DELAY, Replay, Visit
from pipelines.simulation.server import (
    AnsweringServer,
    InProcessServer,
    SimulatedServer,
    read_simulated_journal,
)
from pipelines.simulation.shifts import SHIFTS, Options
from serving.journal.feedback import MOST_FEEDBACK
from serving.release import registry
from tasteloop.answers import INTERESTS, RECOMMEND
from tasteloop.behaviour.events import ITEM, KIND, TIME, USER, Event
from tasteloop.files import write_json
from tasteloop.journal import INSTANCE, MODEL, NAMES, REQUEST, VERSION
from validation.monitor.entries import RetrainingResult
from validation.monitor.windows import HOUR, WEEK

if TYPE_CHECKING:
    import polars as pl

    from tasteloop.runtime.session import Session

Say = Callable[[str], None]

_ASKING_VISITORS = 60  # a week
_QUESTIONS = 4  # of each of them


@dataclass(frozen=True)
class _Feedback:
    """A click on what was recommended, and when the server hears of it (µs)."""

    arrives: int
    row: dict[str, Any]


@dataclass
class _Driver:
    """The replay's side of a pass: the behaviour that has arrived, questions, and feedback.

    Attributes:
        key: makes pseudonyms of raw user ids.
        clock: the monitor's time, µs.
        arrivals: what the log got of each week so far.
        catalogue: of the week that the monitor looks at; None while it is the champion's.
        liked_later: by pseudonym and time of a question, the items that its user liked afterwards,
            each with the time of the act.
        followed: answers whose clicks are made already, each as "request instance".
        pending: clicks that were made, and that the server has not heard of yet.
    """

    replay: Replay
    settings: Settings
    home: Path
    server: AnsweringServer
    key: bytes
    clock: int = 0
    arrivals: list[pl.DataFrame] = field(default_factory=list)
    catalogue: pl.DataFrame | None = None
    liked_later: dict[tuple[str, int], dict[str, int]] = field(default_factory=dict)
    followed: set[str] = field(default_factory=set)
    pending: list[_Feedback] = field(default_factory=list)

    def receive_week(self, week: int) -> list[Visit]:
        """Let the log get a week's behaviour; returns its visits."""
        visits = self.replay.visits(week)
        self.arrivals.append(self.replay.arrivals(visits, week, self.key))
        self.catalogue = self.replay.catalogue(week)
        return visits

    def incoming(self, since: int) -> Incoming:
        """The behaviour that has arrived by the clock, from `since` on (µs)."""
        import polars as pl

        has_arrived = pl.col("arrives") <= self.clock
        events = pl.concat(self.arrivals).filter(has_arrived & (pl.col(TIME) >= since))
        return Incoming(events.drop("arrives"), self.catalogue)

    def answers(self, since: int, until: int, version: str) -> pl.DataFrame:
        """The rows of the journal in a span of the replay's time (µs) that a version answered."""
        import polars as pl

        in_span = pl.col(TIME).is_between(since, until, closed="left")
        return read_simulated_journal(self.home).filter(in_span & (pl.col(VERSION) == version))

    def ask_questions(self, visits: Sequence[Visit], week: int) -> None:
        """Ask for visitors in the middle of their visit, at the history lengths at which the
        champion was trained and validated, and remember what they liked afterwards.
        """
        from tasteloop.privacy.pseudonyms import pseudonym

        chance = np.random.default_rng([self.replay.options.seed, week, 0, 2])
        limit = self.settings.prepare.text.history_limit
        users, instances = [], []
        for visit in visits[:_ASKING_VISITORS]:
            points = question_points(visit.events, self.settings)
            for length in sorted(chance.permutation(points)[:_QUESTIONS]):
                history = visit.events[max(0, length - limit) : length]
                users.append(visit.user)
                instances.append({"events": [event.json() for event in history]})
                question = pseudonym(visit.user, self.key), history[-1].time or 0
                self.liked_later[question] = _liked_items(visit.events[length:])
        for model in (INTERESTS, RECOMMEND):
            self.server.ask(model, users, instances)

    def send_feedback(self, week: int) -> None:
        """Click on what was recommended, where the user went on to it. Where labels are delayed,
        some clicks come late and twice.
        """
        chance = np.random.default_rng([self.replay.options.seed, week, 0, 3])
        options = self.replay.options
        is_delayed = options.shift == "delayed-labels" and self.replay.is_shifted(week)

        # 1. clicks on answers that are new in the journal
        for request, instance, user, time, items in self._recommendations():
            answer = f"{request} {instance}"
            if answer in self.followed:
                continue
            self.followed.add(answer)
            liked = self.liked_later.get((user, time), {})
            for item in items:
                if item not in liked:
                    continue
                clicked = liked[item]
                row = {
                    REQUEST: request,
                    INSTANCE: instance,
                    KIND: "click",
                    ITEM: item,
                    TIME: clicked,
                }
                is_late = is_delayed and chance.random() < options.size
                arrives = clicked + (int(chance.integers(MOST_DELAY)) if is_late else 0)
                repetitions = 2 if is_late else 1
                self.pending += [_Feedback(arrives + n * HOUR, row) for n in range(repetitions)]

        # 2. what has arrived by the clock goes to the server
        due = [feedback.row for feedback in self.pending if feedback.arrives <= self.clock]
        self.pending = [feedback for feedback in self.pending if feedback.arrives > self.clock]
        if is_delayed:
            due = [due[k] for k in chance.permutation(len(due))]
        for start in range(0, len(due), MOST_FEEDBACK):
            self.server.send_feedback(due[start : start + MOST_FEEDBACK])

    def _recommendations(self) -> list[tuple[str, int, str, int, list[str]]]:
        """Of each answer with recommendations in the journal: request, instance, user, time (µs)
        and items.
        """
        import polars as pl

        journal = read_simulated_journal(self.home).filter(pl.col(MODEL) == RECOMMEND)
        return journal.select(REQUEST, INSTANCE, USER, TIME, NAMES).rows()


def _liked_items(events: Sequence[Event]) -> dict[str, int]:
    """Item -> the time (µs) of the first event that says that its user wants it."""
    liked: dict[str, int] = {}
    for event in events:
        if event.item and event.positive() and event.item not in liked:
            assert event.time is not None, "replayed events have times"
            liked[event.item] = event.time
    return liked


def simulate(
    options: Options, path: Path, root: Path, overrides: Sequence[str] = (), say: Say = print
) -> SimulationResult:
    """Replay, watch, decide, and retrain; what came of it beside what was expected.

    Args:
        path: the simulation's home; one that exists is replaced.
        root: where champions are kept, to be used again by other simulations.
        overrides: `section.key=value` on top of the profile `smoke` and this module's.

    Returns:
        What simulation.json in the home has, too.

    Raises:
        TasteloopError: options or settings that are not allowed, a path that holds something else,
            a champion that was not promoted, or a server that does not start.
    """
    shift = SHIFTS[options.shift]
    check_replaceable(path)  # this and the settings before minutes of training
    own = overrides_of(options, overrides)
    load_simulation_settings(path, own)
    base, world = make_champion(root, options, overrides, say)
    begin_home(base, path)
    say(
        f"{options.shift}, seed {options.seed}: {shift.description}; "
        f"expected: {shift.expected}; in {path}"
    )
    settings = load_simulation_settings(base / "data", own)
    return run_weeks(Replay(world, options), settings, path, say)


def run_weeks(replay: Replay, settings: Settings, path: Path, say: Say) -> SimulationResult:
    """`simulate` in a home that has a champion."""
    from tasteloop.privacy.pseudonyms import pseudonym_key

    options, shift = replay.options, SHIFTS[replay.options.shift]
    weeks: list[WeekRecord] = []
    with use_home(path):
        before = _champion_session()
        server = SimulatedServer(path) if options.serve else InProcessServer(path)
        with server:
            driver = _Driver(replay, settings, path, server, pseudonym_key())
            visits = driver.receive_week(0)
            for week in range(options.weeks):
                # 1. the week's questions; then the next week begins, which moves the watermark
                driver.ask_questions(visits, week)
                driver.clock = replay.begin + (week + 1) * WEEK + DAY
                visits = driver.receive_week(week + 1)
                driver.catalogue = replay.catalogue(week)
                driver.send_feedback(week)

                # 2. the monitor's pass
                report = watch_once(
                    settings,
                    clock=lambda: driver.clock,
                    source=driver.incoming,
                    retrain=None if options.retrain else _refuse_to_retrain,
                    answers=driver.answers,
                )
                record = WeekRecord.of(week, replay, report)
                weeks.append(record)
                say(record.line())
                if record.outcome == "retrain" == shift.expected and not options.retrain:
                    break
        quality = compare_qualities(before, _champion_session(), replay, settings)
    result = SimulationResult(options, judge(weeks, shift, options), quality)
    write_json(path / RESULT_FILE, result.json())
    return result


def _champion_session() -> Session:
    from tasteloop.runtime.session import Session

    live = registry.champion()
    assert live is not None, "a simulation has a champion"
    return Session.load(live.path)


def _refuse_to_retrain(_: Retraining) -> RetrainingResult:
    return RetrainingResult(result="failed", reason="--no-retrain")
