"""One pass of the monitor: look at the behaviour that has come, decide, and do what was decided.

`tasteloop.home` says where its files lie. A pass keeps nothing for the next one: whatever it
is killed at, the next pass carries on from the ledger.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pipelines.alerts import send
from pipelines.loop.answers import read_answers
from pipelines.loop.contracts import Answers, PassReport, Retrain, Retraining, Source
from pipelines.loop.incoming import source_of_files
from pipelines.loop.provenance import find_snapshots
from pipelines.loop.reference import load_reference
from pipelines.loop.retention import prune
from pipelines.loop.retraining import retrain as run_training_pipeline
from pipelines.loop.rollback import restore_previous_champion, roll_back_if_worse
from pipelines.settings import MONITORING, Settings
from serving.release import registry
from tasteloop.behaviour.events import ITEM, TIME
from tasteloop.behaviour.items import TITLE
from tasteloop.behaviour.snapshots import Snapshots
from tasteloop.errors import TasteloopError
from tasteloop.files import write_json
from tasteloop.home import Home
from validation.markup.formats import minute
from validation.monitor.decision import Decision, Evidence, Facts, decide, key_of
from validation.monitor.entries import RetrainingResult
from validation.monitor.execution import carry_out, resume, resume_rollbacks
from validation.monitor.history import HistoryEntry
from validation.monitor.ledger import Clock, Lease, Ledger, wall
from validation.monitor.windows import Span, beginning, closed, distinct, watermark

if TYPE_CHECKING:
    from serving.release.versions import LocalVersion
    from tasteloop.runtime.session import Session
    from validation.monitor.reference import Reference

log = logging.getLogger(__name__)

_CATCH_UP = 14  # newest closed windows that are looked at; older ones decide nothing


def watch_once(
    settings: Settings,
    clock: Clock = wall,
    source: Source | None = None,
    retrain: Retrain | None = None,
    answers: Answers | None = None,
    lease_seconds: float = 60.0,
) -> PassReport:
    """One pass of the monitor over the home of this process (TASTELOOP_HOME).

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

    In a home where nothing was trained yet there is nothing to watch:

    >>> import os, tempfile
    >>> from pipelines.settings import load_settings
    >>> before = dict(os.environ)
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     os.environ["TASTELOOP_HOME"] = directory
    ...     _ = os.environ.pop("MLFLOW_TRACKING_URI", None)
    ...     report = watch_once(load_settings("smoke"))
    >>> os.environ.clear(); os.environ.update(before)
    >>> report.champion, report.note
    (None, 'there is no champion yet; train one with `tasteloop run`')
    """
    ledger = Ledger(Home.current().monitor, clock)
    with ledger.lease(lease_seconds) as lease:
        return _Pass(
            lease,
            settings,
            clock,
            source or source_of_files(Home.current().incoming),
            retrain or run_training_pipeline,
            answers or read_answers,
        ).run()


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
        self.reference: Reference | None = None  # the champion's, once it is loaded

    def run(self) -> PassReport:
        recorded = set(MONITORING) - {"alerts"}  # whose address may hold a secret
        write_json(
            Home.current().monitor_settings, self.settings.model_dump(mode="json", include=recorded)
        )
        report = self.watch()
        if self.reference is not None:
            try:
                prune(self.lease, self.settings, self.reference)
            except TasteloopError as error:  # a disk that fills is told by the disk
                log.warning("%s", error)
        return report

    def watch(self) -> PassReport:
        # 1. what an earlier pass had begun. The registry is asked first: where it is away this
        # raises, so that what was begun waits rather than fails
        registry.pointer()
        rolled = resume_rollbacks(self.lease, restore_previous_champion)
        resumed = (*rolled, *resume(self.lease, self.train, self.alert))

        # 2. the champion, and the windows that have closed since
        champion = registry.champion()
        if champion is None:
            note = "there is no champion yet; train one with `tasteloop run`"
            return PassReport(None, resumed=resumed, note=note)
        reference, session = load_reference(champion, self.settings)
        self.reference = reference
        names, note = self.examine_windows(champion, reference, session)
        windows = tuple(names)
        evidence = self.ledger.evidence()
        own = _evidence_of(evidence, champion, reference)
        if not own:
            return PassReport(champion.version, windows, resumed=resumed, note=note)
        newest = max(own, key=lambda e: e.end)

        # 3. a champion that is worse than the one before
        rollback = self.roll_back(evidence, newest)
        if rollback is not None:
            return PassReport(
                champion.version, windows, resumed=resumed, rollback=rollback, note="rolled back"
            )

        # 4. the decision on the newest window. Earlier champions' windows whose data was refused
        # count too
        now = self.clock()
        others = [e for e in evidence if e.end < newest.end and e.champion != champion.digest]
        facts = self.gather_facts(champion, reference)
        decision = decide(
            [*others, *own], self.ledger.triggers(), now, self.settings.decision, facts
        )
        entry = carry_out(self.lease, decision, now, self.train, self.alert)
        return PassReport(champion.version, windows, entry, resumed)

    def examine_windows(
        self, champion: LocalVersion, reference: Reference, session: Session | None
    ) -> tuple[list[str], str]:
        """Examine the closed windows that the ledger does not have; their names, and a note where
        there is none.
        """
        # 1. which windows have closed
        cut = reference.settings.windows
        known = _evidence_of(self.ledger.evidence(), champion, reference)
        incoming = self.source(reference.end - cut.horizon)
        times = incoming.events[TIME]
        until = watermark(times, self.clock(), cut)
        learned = max(reference.end, self.learned_until(champion))
        since = max((e.end for e in known), default=None) or beginning(times, learned, cut)
        spans: list[Span] = []
        if until is not None and since is not None:
            spans = closed(times, since, until, cut)[-_CATCH_UP:]
        if not spans:
            come = (
                "nothing has come yet"
                if until is None
                else f"events are complete up to {minute(until)}"
            )
            return [], f"no window has closed since {minute(since or learned)}; {come}"

        # 2. each beside the reference
        from tasteloop.runtime.session import Session
        from validation.monitor.examination import examine
        from validation.monitor.sampling import Reader
        from validation.pages.window import window_page

        live = session or Session.load(champion.path)
        listed, newer = live.catalogue.items, []
        if incoming.items is not None:
            listed = sorted({*listed, *incoming.items[ITEM].drop_nulls()})
            position_of = live.catalogue.index
            titles = incoming.items.select(ITEM, TITLE).rows()
            newer = [title for item, title in titles if item not in position_of]
        reader = Reader.of(live, newer)
        for span in spans:
            around = Span(span.start - cut.horizon, span.end)
            evidence = examine(
                reference,
                reader,
                span,
                around.of(incoming.events),
                self.answers(around.start, around.end, champion.version),
                listed,
                self.settings.decision,
                Home.current().windows / f"{span.start}-{span.end}-{champion.digest[:12]}",
                window_page,
            )
            key = key_of(evidence.reference, evidence.window, evidence.champion)
            self.ledger.append(self.lease, "window", key, evidence.model_dump(mode="json"))
        return [span.name for span in spans], ""

    def learned_until(self, champion: LocalVersion) -> int:
        """End of the window that a retraining answered with this champion, which has read it; 0
        where none did.
        """
        windows = [
            entry.window
            for entry in self.ledger.history()
            if (entry.result, entry.version) == ("promoted", champion.version)
        ]
        return max((int(window.partition("/")[2]) for window in windows if window), default=0)

    def roll_back(self, evidence: Sequence[Evidence], newest: Evidence) -> HistoryEntry | None:
        """Go back to the champion before where the live one is worse, and give notice of it."""
        entry = roll_back_if_worse(self.lease, self.settings.rollback, evidence, newest)
        if entry is not None:
            self.notify("rollback", entry.key, newest.window, entry.reasons, entry.json())
        return entry

    def gather_facts(self, champion: LocalVersion, reference: Reference) -> Facts:
        """How much the champion was trained on, and how much has come since, where a decision rests
        on that.
        """
        if self.settings.decision.new_data is None:
            return Facts(trained=reference.end)
        since = max([reference.end, *(trigger.at for trigger in self.ledger.triggers())])
        events = distinct(self.source(since).events)
        snapshots = find_snapshots(champion.digest)
        return Facts(
            trained=reference.end,
            trained_events=None if snapshots is None else Snapshots.read(snapshots).events.height,
            new_events=events.filter(events[TIME] >= since).height,
        )

    def train(self, run: str, decision: Decision) -> RetrainingResult:
        evidence = self.evidence_behind(decision)
        assert evidence is not None, "a retraining rests on a window of the ledger"
        retraining = Retraining(
            run, decision, evidence.champion, evidence.end, self.source, self.settings
        )
        result = self.retrain(retraining)
        event = f"retraining.{result.result}"
        facts = result.json_facts()
        self.notify(event, decision.key, evidence.window, [result.reason or ""], facts)
        return result

    def alert(self, decision: Decision) -> None:
        evidence = self.evidence_behind(decision)
        log.warning("a human is needed: %s", "; ".join(decision.reasons))
        send(
            self.settings.alerts,
            decision.outcome,
            decision.key,
            "" if evidence is None else evidence.window,
            decision.model_dump(mode="json"),
            self.clock(),
        )

    def notify(
        self, event: str, key: str, window: str, reasons: Sequence[str], facts: dict[str, Any]
    ) -> None:
        """Send a notice that need not arrive."""
        log.info("%s: %s", event, "; ".join(reasons))
        try:
            send(self.settings.alerts, event, key, window, facts, self.clock())
        except Exception as error:
            log.warning("the notice of %s did not get through: %s", event, error)

    def evidence_behind(self, decision: Decision) -> Evidence | None:
        """The evidence of the newest window that a decision rests on."""
        for evidence in self.ledger.evidence():
            if key_of(evidence.reference, evidence.window, evidence.champion) == decision.key:
                return evidence
        return None


def _evidence_of(
    evidence: Sequence[Evidence], champion: LocalVersion, reference: Reference
) -> list[Evidence]:
    """The evidence of windows that were compared with this reference of this champion."""
    pair = (reference.digest, champion.digest)
    return [e for e in evidence if (e.reference, e.champion) == pair]
