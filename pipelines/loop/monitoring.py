"""The monitoring loop on this machine: look at what has come, decide, and do what was decided.

    <home>/incoming/*.parquet               events as they come (the events contract; users are
    pseudonyms already) <home>/incoming/items.parquet           today's catalogue, where it is newer
    than the champion's <home>/journal/                         what was answered, and the feedback
    <home>/monitor/references/<digest>/     what the champion was trained and validated on
    <home>/monitor/windows/<window>/        one closed window beside it
    <home>/monitor/ledger.jsonl             what was decided, and what came of it
    <home>/monitor/settings.json            by which the last pass decided
    <home>/monitor/metrics.prom             the same as the ledger for Prometheus' textfile
    collector

`watch_once` is one pass. It keeps nothing between two passes: whatever it is killed at, the next
pass carries on from the ledger.
"""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from pipelines.settings import MONITORING, Settings
from tasteloop.behaviour.events import (
    EVENTS_SCHEMA,
    ITEM,
    KIND,
    PER_UNIT,
    TEXT,
    TIME,
    USER,
    likely_range,
)
from tasteloop.behaviour.items import ITEMS_SCHEMA
from tasteloop.behaviour.kinds import words_that_are_no_acts
from tasteloop.errors import TasteloopError
from tasteloop.files import home, write_json
from validation.markup.formats import minute
from validation.monitor.decision import Decision, Evidence, Facts, Outcome, Result, decide, key_of
from validation.monitor.ledger import (
    Clock,
    Lease,
    Ledger,
    carry_out,
    resume,
    resume_rollbacks,
    roll_back,
    wall,
)
from validation.monitor.rollback import ERRORS, Window, share, windows_of, worse
from validation.monitor.windows import Span, beginning, closed, distinct, watermark

if TYPE_CHECKING:
    import polars as pl

    from pipelines.local.facts import RunFacts
    from serving.release.versions import LocalVersion
    from tasteloop.runtime.session import Session
    from validation.monitor.reference import Reference

log = logging.getLogger(__name__)

LEDGER = "monitor"  # a directory below the home
WINDOWS, RETRAININGS, METRICS, SETTINGS = "windows", "retrainings", "metrics.prom", "settings.json"
INCOMING, CATALOGUE = "incoming", "items.parquet"
_CATCH_UP = 14  # newest closed windows that are looked at; older ones decide nothing


@dataclass(frozen=True)
class Incoming:
    """What has come so far.

    Attributes:
        events: of the events contract, in any order, repetitions and late ones included.
        items: today's catalogue (the items contract); None: the champion's.
    """

    events: pl.DataFrame
    items: pl.DataFrame | None = None


Source = Callable[[int], Incoming]
"""From a time (µs) to what has come of that time or later. It may give more."""

Answers = Callable[[int, int, str], "pl.DataFrame"]
"""From a span (µs, the end excluded) and a version to its rows of the journal, as
`serving.journal.writer.read_journal` gives them."""


@dataclass(frozen=True)
class Retraining:
    """A retraining that was decided.

    Attributes:
        run: its id; after a kill the same one comes again, and is carried on.
        champion: digest of the champion whose drift it answers.
        until: end of the newest window, µs: no event from then on is read.
    """

    run: str
    decision: Decision
    champion: str
    until: int
    source: Source
    settings: Settings


Retrain = Callable[[Retraining], dict[str, Any]]
"""Trains, gates and promotes; answers {"result": "promoted" | "unchanged" | "rejected" |
"refused" | "failed", "reason": ..., ...} for the ledger. After a kill it is
called again with the same `run`, and must promote once."""


@dataclass(frozen=True)
class Watched:
    """What one pass saw and did.

    Attributes:
        champion: version that was live when it began; None where there is none.
        windows: names of the windows that it looked at for the first time.
        decision: the ledger's entry on the newest window, with `outcome`, `reasons`, `result`
            (`Ledger.history`); None where no window has closed since the reference.
        resumed: entries of what another pass had begun.
        rollback: the ledger's entry of an automatic rollback.
        note: why there is no decision, in words.
    """

    champion: str | None
    windows: tuple[str, ...] = ()
    decision: dict[str, Any] | None = None
    resumed: tuple[dict[str, Any], ...] = ()
    rollback: dict[str, Any] | None = None
    note: str = ""

    @property
    def outcome(self) -> str | None:
        """healthy, watch, retrain, alert-human; None without a decision."""
        return None if self.decision is None else str(self.decision["outcome"])

    def json(self) -> dict[str, Any]:
        return {"outcome": self.outcome, **vars(self)}


def watch_once(
    settings: Settings,
    clock: Clock = wall,
    source: Source | None = None,
    retrain: Retrain | None = None,
    answers: Answers | None = None,
    lease_seconds: float = 60.0,
) -> Watched:
    """One pass of the monitor over `tasteloop.files.home()` (TASTELOOP_HOME).

    A simulation drives it in process: a clock of its own (µs), its own events and answers as of
    that clock, and a retraining of its own or, by default, the training pipeline. The journal's
    times, the events' and the clock's must be of one time.

    Args:
        settings: the profile's; the sections of `pipelines.settings.MONITORING` are the monitor's,
            the others a retraining's.
        clock: now, µs since 1970 UTC. It decides no window: the events' own time does.
        source: `<home>/incoming` by default.
        retrain: `pipelines.loop.retraining.retrain` by default, the training pipeline with the gate
            against the champion.
        answers: the journal under the home by default.
        lease_seconds: how long a monitor that is gone on another machine keeps this one waiting.

    Raises:
        Held: another monitor is at work.
        LeaseLost: another one took over; it carries on.
        TasteloopError: input that cannot be read, or a champion whose reference cannot be made.
    """
    ledger = Ledger(home() / LEDGER, clock)
    with ledger.lease(lease_seconds) as lease:
        return _Pass(
            lease,
            settings,
            clock,
            source or directory(home() / INCOMING),
            retrain or _retrain,
            answers or journal,
        ).run()


def _retrain(asked: Retraining) -> dict[str, Any]:
    from pipelines.loop.retraining import retrain

    return retrain(asked)


class _Pass:
    def __init__(
        self,
        lease: Lease,
        settings: Settings,
        clock: Clock,
        source: Source,
        retrain: Retrain,
        answers: Answers,
    ) -> None:
        self.lease, self.ledger, self.settings, self.clock = lease, lease.ledger, settings, clock
        self.source, self.answers = source, answers
        self.retrain = retrain
        self.reference: Reference | None = None  # the champion's, once it was found

    def run(self) -> Watched:
        known = set(MONITORING) - {"alerts"}  # whose address may hold a secret
        write_json(home() / LEDGER / SETTINGS, self.settings.model_dump(mode="json", include=known))
        watched = self.look()
        if self.reference is not None:
            from pipelines.loop.retention import prune

            try:
                prune(self.lease, self.settings, self.reference)
            except TasteloopError as error:  # a disk that fills is told by the disk
                log.warning("%s", error)
        return watched

    def look(self) -> Watched:
        from serving.release import registry

        # raises where the registry is away: what was begun waits too, rather than fails
        registry.pointer()
        rolled = resume_rollbacks(self.lease, _roll_back)
        resumed = (*rolled, *resume(self.lease, self.train, self.alert))
        champion = registry.champion()
        if champion is None:
            return Watched(
                None,
                resumed=resumed,
                note="there is no champion yet; train one with `tasteloop run`",
            )
        reference, session = reference_of(champion, self.settings)
        self.reference = reference
        fresh, note = self.examine(champion, reference, session)
        evidence = self.ledger.evidence()
        mine = [
            e for e in evidence if (e.reference, e.champion) == (reference.digest, champion.digest)
        ]
        seen = Watched(champion.version, tuple(fresh), resumed=resumed, note=note)
        if not mine:
            return seen
        newest = max(mine, key=lambda e: e.end)
        if (rollback := self.roll_back(evidence, newest)) is not None:
            return Watched(
                champion.version,
                tuple(fresh),
                resumed=resumed,
                rollback=rollback,
                note="rolled back",
            )
        now = self.clock()
        # void ones count
        others = [e for e in evidence if e.end < newest.end and e.champion != champion.digest]
        facts = self.facts(champion, reference)
        decision = decide(
            [*others, *mine], self.ledger.triggers(), now, self.settings.decision, facts
        )
        entry = carry_out(self.lease, decision, now, self.train, self.alert)
        return Watched(champion.version, tuple(fresh), entry, resumed)

    def examine(
        self, champion: LocalVersion, reference: Reference, session: Session | None
    ) -> tuple[list[str], str]:
        """Look at the closed windows that the ledger does not have; their names, and a note where
        there is none.
        """
        cut = reference.settings.windows
        known = [
            e
            for e in self.ledger.evidence()
            if (e.reference, e.champion) == (reference.digest, champion.digest)
        ]
        incoming = self.source(reference.end - cut.horizon)
        times = incoming.events[TIME]
        until = watermark(times, self.clock(), cut)
        learned = max(reference.end, self.learned_until(champion))
        since = max((e.end for e in known), default=None) or beginning(times, learned, cut)
        spans = (
            closed(times, since, until, cut)[-_CATCH_UP:]
            if until is not None and since is not None
            else []
        )
        if not spans:
            seen = (
                "nothing has come yet"
                if until is None
                else f"events are complete up to {minute(until)}"
            )
            return [], f"no window has closed since {minute(since or learned)}; {seen}"
        from tasteloop.runtime.session import Session
        from validation.monitor.drift_report import examine
        from validation.monitor.sampling import Reader
        from validation.pages.window import window_page

        reader = Reader.of(session or Session.load(champion.path))
        listed = reader.catalogue.items
        if incoming.items is not None:
            listed = sorted({*listed, *incoming.items[ITEM].drop_nulls()})
        for span in spans:
            around = Span(span.start - cut.horizon, span.end)
            found = examine(
                reference,
                reader,
                span,
                around.of(incoming.events),
                self.answers(around.start, around.end, champion.version),
                listed,
                self.settings.decision,
                home() / LEDGER / WINDOWS / f"{span.start}-{span.end}-{champion.digest[:12]}",
                window_page,
            )
            key = key_of(found.reference, found.window, found.champion)
            self.ledger.append(self.lease, "window", key, found.model_dump(mode="json"))
        return [span.name for span in spans], ""

    def learned_until(self, champion: LocalVersion) -> int:
        """End of the window that a retraining answered with this champion, which has read it; 0
        where none did.
        """
        answered = [e for e in self.ledger.history() if e["result"] == "promoted" and e["window"]]
        ends = [
            int(e["window"].partition("/")[2])
            for e in answered
            if e.get("version") == champion.version
        ]
        return max(ends, default=0)

    def roll_back(self, evidence: Sequence[Evidence], newest: Evidence) -> dict[str, Any] | None:
        """Where the live champion is worse than the one before: the ledger's entry of going
        back.
        """
        from serving.release import registry

        rules = self.settings.rollback
        before = registry.previous() if rules.automatic else None
        if before is None or before[1] == newest.champion:
            return None
        live = registry.pointer()
        sides = [(newest.champion, live[0] if live else ""), (before[1], before[0])]
        mine, theirs = (
            [*_with_errors(windows_of(evidence, digest), version)] for digest, version in sides
        )
        reasons = worse(mine, theirs, rules)
        if not reasons:
            return None
        entry = roll_back(self.lease, newest, before[1], reasons, _roll_back)
        self.tell("rollback", entry["key"], newest.window, entry["reasons"], entry)
        return entry

    def facts(self, champion: LocalVersion, reference: Reference) -> Facts:
        if self.settings.decision.new_data is None:
            return Facts(trained=reference.end)
        from tasteloop.behaviour.snapshots import Snapshots

        since = max([reference.end, *(t.at for t in self.ledger.triggers())])
        events = distinct(self.source(since).events)
        snapshots = snapshots_of(champion.digest)
        return Facts(
            trained=reference.end,
            trained_events=None if snapshots is None else Snapshots.read(snapshots).events.height,
            new_events=events.filter(events[TIME] >= since).height,
        )

    def train(self, run: str, decision: Decision) -> dict[str, Any]:
        about = next(
            e
            for e in self.ledger.evidence()
            if key_of(e.reference, e.window, e.champion) == decision.key
        )
        made = self.retrain(
            Retraining(run, decision, about.champion, about.end, self.source, self.settings)
        )
        self.tell(
            f"retraining.{made['result']}",
            decision.key,
            about.window,
            [made.get("reason", "")],
            made,
        )
        return made

    def alert(self, decision: Decision) -> None:
        from pipelines.alerts import send

        window = next(
            (
                e.window
                for e in self.ledger.evidence()
                if key_of(e.reference, e.window, e.champion) == decision.key
            ),
            "",
        )
        log.warning("a human is needed: %s", "; ".join(decision.reasons))
        send(
            self.settings.alerts,
            decision.outcome,
            decision.key,
            window,
            decision.model_dump(mode="json"),
            self.clock(),
        )

    def tell(
        self, what: str, key: str, window: str, reasons: Sequence[str], body: Mapping[str, Any]
    ) -> None:
        """A notice that need not arrive."""
        from pipelines.alerts import send

        log.info("%s: %s", what, "; ".join(reasons))
        try:
            send(self.settings.alerts, what, key, window, dict(body), self.clock())
        except Exception as error:
            log.warning("the notice of %s did not get through: %s", what, error)


def _with_errors(windows: Mapping[str, Window], version: str) -> Iterator[Window]:
    """Each window with the share of its requests that the version failed on, where the journal
    tells.
    """
    from serving.journal.writer import REQUEST, VERSION, read_failures

    for name, measures in windows.items():
        start, end = map(int, name.split("/"))
        answered = journal(start, end, version)[REQUEST].n_unique()
        failures = (
            read_failures(home() / "journal", start, end) if (home() / "journal").is_dir() else None
        )
        failed = 0 if failures is None else failures.filter(failures[VERSION] == version).height
        total = answered + failed
        yield {**measures, ERRORS: share(failed, total)} if total else measures


def _roll_back(entry: dict[str, Any]) -> dict[str, Any]:
    from serving.release import promotion, registry

    try:
        live = promotion.rollback(expected=entry["champion"])
    except promotion.ChampionMoved as moved:
        pointer = registry.pointer()
        if pointer is None or pointer[1] != entry["to"]:
            return {"result": "moved", "reason": str(moved)}
        # a monitor that was killed had done it
        return {"result": "rolled back", "version": pointer[0]}
    return {"result": "rolled back", "version": live.version}


def watch_every(
    settings: Settings,
    seconds: float,
    say: Callable[[str], None],
    passed: Callable[[Watched], None] | None = None,
    source: Source | None = None,
) -> None:
    """A pass every so many seconds, a line each, until SIGTERM or Ctrl-C, which is a clean end.

    A pass that fails, or finds another monitor at work, says so, and the next one tries again. A
    retraining that is interrupted is carried on by the next monitor.
    """

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        while True:
            began = time.monotonic()
            now = f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S}"
            try:
                watched = watch_once(settings, source=source)
                write_metrics()
                say(f"{now}  {line(watched)}")
                if passed:
                    passed(watched)
            except TasteloopError as error:
                say(f"{now}  {error}")
            except Exception as error:
                log.exception("a pass of the monitor broke")
                say(f"{now}  broke: {type(error).__name__}: {error}")
            time.sleep(max(1.0, seconds - (time.monotonic() - began)))
    except KeyboardInterrupt:
        say("stopped")
    finally:
        signal.signal(signal.SIGTERM, before)


# What it looks at


def directory(place: Path) -> Source:
    """Events from a Parquet file, or from all of a directory but its `items.parquet`, which is the
    catalogue.

    Write files under another name and rename them: one that ends in .parquet is taken to be whole.
    """

    def read(since: int) -> Incoming:
        import polars as pl

        from tasteloop.datasets.reading import as_items
        from tasteloop.datasets.tables import read_table

        paths = [place] if place.is_file() else event_files(place)
        tables = [_events(path, since) for path in paths]
        items = None
        if (catalogue := place / CATALOGUE).is_file():
            items = as_items(
                read_table(catalogue, {column: column for column in ITEMS_SCHEMA}), catalogue
            )
        return Incoming(pl.concat([pl.DataFrame(schema=EVENTS_SCHEMA.to_polars()), *tables]), items)

    return read


def event_files(directory: Path) -> list[Path]:
    """The files and directories of events, each a table of its own."""
    if not directory.is_dir():
        return []
    tables = (path for path in sorted(directory.iterdir()) if path.suffix.lower() == ".parquet")
    return [path for path in tables if path.name != CATALOGUE and path.name[0] not in "._"]


def scan_events(path: Path) -> pl.LazyFrame:
    """The contract's columns; one that is missing is empty, and the window's checks say so.

    Raises:
        TasteloopError: user, kind or time is missing, or a column holds what cannot be read. Times
            are dates with a time of any unit and zone, or microseconds. Text is refused: a program
            writes these files, by the contract.
    """
    import polars as pl

    from tasteloop.datasets.reading import check_types, check_unit, read_ids, read_times, read_value
    from tasteloop.datasets.tables import scan_table

    needed = {column: column for column in (USER, KIND, TIME)}
    optional = {column: column for column in EVENTS_SCHEMA if column not in needed}
    table = scan_table(path, needed, optional, empty=True, parquet=True)
    check_types(table, path)
    schema = table.collect_schema()
    dtype = schema[TIME]
    if not (dtype.is_temporal() or dtype.is_numeric() or dtype == pl.Null):
        raise TasteloopError(
            f"{path}: the column for time holds {dtype}; allowed: dates with a time of any unit and zone, or integers "
            "of microseconds since 1970 UTC (docs/data.md)"
        )
    check_unit(table, path, "us")
    micros = read_times(pl.col(TIME), dtype, "us")
    other = pl.any_horizontal(
        micros.is_between(*likely_range(u), closed="left") for u in PER_UNIT if u != "us"
    )
    return table.select(
        read_ids(USER, schema),
        read_ids(ITEM, schema),
        read_ids(KIND, schema),
        pl.when(~other).then(micros).alias(TIME),
        read_value(schema).cast(pl.Float32),
        (pl.col(TEXT) if TEXT in schema else pl.lit(None)).cast(pl.String).alias(TEXT),
    )


def _events(path: Path, since: int) -> pl.DataFrame:
    import polars as pl

    from tasteloop.datasets.tables import collect

    read = collect(scan_events(path), path)
    kept = read.filter(pl.col(USER).is_not_null() & pl.col(TIME).is_not_null())
    if lost := read.height - kept.height:
        log.warning(
            "%s: %d of %d rows have no user or no readable time: passed over",
            path,
            lost,
            read.height,
        )
    # what was merely shown is in no history, and so in no reference
    is_act = ~pl.col(KIND).is_in(words_that_are_no_acts()).fill_null(False)
    return kept.filter((pl.col(TIME) >= since) & is_act)


def journal(since: int, until: int, version: str) -> pl.DataFrame:
    """A version's rows of the journal under the home; none where no server keeps one."""
    import polars as pl

    from serving.journal.writer import VERSION, read_journal
    from validation.monitor.reference import answers_schema

    place = home() / "journal"
    if not place.is_dir():
        return pl.DataFrame(schema=answers_schema()).drop("window")
    start, end = (
        datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=t) for t in (since, until)
    )
    return read_journal(place, start, end).filter(pl.col(VERSION) == version)


def reference_of(champion: LocalVersion, settings: Settings) -> tuple[Reference, Session | None]:
    """The champion's reference, made where it is missing or was made with other settings or for
    other measures; the session if it was loaded.

    Raises:
        TasteloopError: it is missing, and the data of the champion's run is no longer here.
    """
    from validation.monitor.reference import META, Reference, reference_path, save_reference

    kept = reference_path(champion.digest)
    there = Reference.read(kept) if (kept / META).is_file() else None
    if there is not None and there.is_current(settings.watch):
        return there, None
    snapshots = snapshots_of(champion.digest)
    if snapshots is None:
        if there is not None:
            log.warning(
                "the reference %s was made with other settings or measures, and its data is gone: it stays",
                kept,
            )
            return there, None
        raise TasteloopError(
            f"version {champion.version} ({champion.digest[:12]}) has no reference in {kept}, and no run under "
            f"{home() / 'runs'} has the snapshots that it was trained on; train here with `tasteloop run`"
        )
    from tasteloop.runtime.session import Session

    session = Session.load(champion.path)
    log.info("making the reference of version %s", champion.version)
    return save_reference(session, snapshots, settings.watch, kept), session


def run_of_bundle(digest: str) -> RunFacts | None:
    """The newest run that made a bundle and whose artifacts are still here; None where there is
    none.

    Of a run on a cluster its promotion kept them; of that only `artifacts` are known.
    """
    from pipelines.local.facts import RunFacts, list_runs
    from tasteloop.bundle.names import MANIFEST_FILE
    from tasteloop.files import sha256_file
    from validation.monitor.reference import DATASET, SNAPSHOTS, data_path

    for facts in list_runs():
        made = facts.artifacts
        manifest = made.get("bundle", Path()) / MANIFEST_FILE
        if manifest.is_file() and sha256_file(manifest) == digest and made["snapshots"].is_dir():
            return facts
    kept = data_path(digest)
    return (
        RunFacts(artifacts={name: kept / name for name in (DATASET, SNAPSHOTS)})
        if kept.is_dir()
        else None
    )


def snapshots_of(digest: str) -> Path | None:
    """The snapshots that a bundle was trained on."""
    facts = run_of_bundle(digest)
    return None if facts is None else facts.artifacts["snapshots"]


# What it says


def line(watched: Watched) -> str:
    """One pass in one line."""
    windows = f"{len(watched.windows)} new windows" if len(watched.windows) != 1 else "1 new window"
    said = [f"version {watched.champion or 'none'}", windows]
    said += [
        f"carried on: {entry['outcome']} {entry['result'] or ''}".rstrip()
        for entry in watched.resumed
    ]
    if watched.rollback is not None:
        said.append(
            f"rollback: {watched.rollback['result']}: {'; '.join(watched.rollback['reasons'])}"
        )
    elif watched.decision is not None:
        result = f" ({watched.decision['result']})" if watched.decision["result"] else ""
        said.append(f"{watched.outcome}{result}: {'; '.join(watched.decision['reasons'])}")
    else:
        said.append(watched.note)
    return ", ".join(said)


def write_metrics() -> Path:
    """What the ledger says, for Prometheus' textfile collector; replaced whole."""
    from prometheus_client import CollectorRegistry, Gauge, write_to_textfile

    ledger = Ledger(home() / LEDGER)
    history, evidence = ledger.history(), ledger.evidence()
    registry = CollectorRegistry()

    def gauge(name: str, about: str, *labels: str) -> Gauge:
        return Gauge(f"tasteloop_monitor_{name}", about, labels, registry=registry)

    gauge("last_pass_timestamp_seconds", "When the monitor last came through").set_to_current_time()
    outcomes = gauge("decision", "1 for the newest decision's outcome", "outcome")
    decisions = [entry for entry in history if entry["outcome"] != "rollback"]
    for outcome in get_args(Outcome):
        outcomes.labels(outcome).set(bool(decisions) and decisions[-1]["outcome"] == outcome)
    retrainings = gauge("retrainings", "Retrainings so far, by what came of them", "result")
    for result in get_args(Result):
        retrainings.labels(result).set(
            sum(e["outcome"] == "retrain" and e["result"] == result for e in decisions)
        )
    waiting = sum(e["outcome"] == "alert-human" and not e["alerted"] for e in decisions)
    gauge("alerts_waiting", "Alerts that no webhook has taken yet").set(waiting)
    rollbacks = gauge("rollbacks", "Automatic rollbacks so far")
    rollbacks.set(sum(e["outcome"] == "rollback" and e["result"] == "rolled back" for e in history))
    if (journal_kept := home() / "journal").is_dir():
        from serving.journal.writer import damaged

        lost = damaged(journal_kept)
        gauge(
            "journal_damaged_segments",
            "Segments of the journal that could not be read and were set aside",
        ).set(len(lost))
        rows = sum(segment["rows"] or 0 for segment in lost)
        gauge("journal_lost_rows", "Rows of those segments, as far as they still tell").set(rows)
    if evidence:
        newest = max(evidence, key=lambda e: e.end)
        gauge("window_end_timestamp_seconds", "Where the newest closed window ends").set(
            newest.end / 1e6
        )
        gauge("window_problems", "Checks that the newest window's data failed").set(
            len(newest.problems)
        )
        effect = gauge("effect", "How far the newest window lies from the reference", "measure")
        quality = gauge("quality", "Mature quality in the newest window", "measure", "bound")
        for finding in newest.findings:
            if finding.effect is not None:
                effect.labels(finding.measure).set(finding.effect)
            for bound in ("value", "low", "high"):
                if (number := getattr(finding, bound)) is not None:
                    quality.labels(finding.measure, bound).set(number)
    path = home() / LEDGER / METRICS
    write_to_textfile(str(path), registry)  # renames
    return path


def tell(entry: Mapping[str, Any]) -> str:
    """An entry of the ledger's history in a few lines."""
    start, _, end = (entry["window"] or "/").partition("/")
    span = f"{minute(int(start))} to {minute(int(end))}" if start and end else "unknown window"
    lines = [f"{entry['number']:>5}  {entry['outcome']:<12} {span}  {entry['key'][:12]}"]
    lines += [f"       {reason}" for reason in entry["reasons"]]
    if entry["outcome"] == "rollback":
        lines.append(f"       to {entry['to'][:12]}: {entry['result'] or 'under way'}")
    elif entry["attempts"] or entry["result"]:
        came = entry["result"] or f"under way, attempt {entry['attempts']}"
        lines.append(
            f"       run {entry.get('run', '?')}: {came}"
            + (f" ({entry['reason']})" if "reason" in entry else "")
        )
    if entry["alerted"]:
        lines.append("       a human was told")
    return "\n".join(lines)
