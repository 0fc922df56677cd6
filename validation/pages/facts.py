"""What the site is about, read once into types: models, runs, rollouts, windows and decisions.

`SiteFacts` answers what several pages ask: which version a digest is, where a version stands, in
which rollouts it was the challenger. Everything is read leniently: what is missing stays None, and
pages say so.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tasteloop.errors import TasteloopError
from tasteloop.evaluation.record import Evaluation
from tasteloop.files import as_list, as_mapping, as_rows, as_text
from tasteloop.intervals import finite, whole
from tasteloop.verdicts import Rehearsal, Verdict
from validation.data.checks import ValidationRecord
from validation.monitor.decision import DecisionSettings, Evidence, Finding, drifted
from validation.monitor.history import HistoryEntry

_FILE_NAME = re.compile(r"[\w-][\w.-]*", re.A)

# a word for the outcome of a decision, of a run and of a rollout, and its tone
OUTCOME_TONES = {
    "healthy": "good",
    "watch": "warn",
    "retrain": "warn",
    "alert-human": "bad",
    "rollback": "bad",
}
RUN_TONES = {"promoted": "good", "unchanged": "quiet", "running": "warn"}
ROLLOUT_TONES = {"promoted": "good", "running": "warn", "aborted": "warn"}
WINDOW_STATES = {
    "void": ("data refused", "bad"),
    "severe": ("severe", "bad"),
    "slight": ("slight", "warn"),
    "none": ("as before", "good"),
    "unclear": ("cannot tell", "quiet"),
}


@dataclass(frozen=True)
class Link:
    """Words that lead somewhere where `href` is given; `code`: a digest rather than a name."""

    text: str
    href: str | None = None
    code: bool = False


@dataclass(frozen=True)
class Span:
    """The time of the data that a model learned from; µs since 1970 UTC, None where not known.

    Attributes:
        first, last: of its events.
        validation_from, test_from: where the two windows begin.
        snapshots: how many there are, by split.
    """

    first: float | None
    last: float | None
    validation_from: float | None
    test_from: float | None
    snapshots: Mapping[str, int | None]

    @classmethod
    def parse(cls, raw: object) -> Span | None:
        """None where nothing is on record."""
        value = as_mapping(raw)
        if not value:
            return None
        snapshots = as_mapping(value.get("snapshots"))
        return cls(
            first=finite(value.get("first")),
            last=finite(value.get("last")),
            validation_from=finite(value.get("validation_from")),
            test_from=finite(value.get("test_from")),
            snapshots={str(split): whole(count) for split, count in snapshots.items()},
        )


# What was recorded, by the name of its file without `.json`, as it is copied to the evidence.
# A model or a run parses it when a page first asks, which is after paths were cut in it.
Records = Mapping[str, Mapping[str, Any]]
MODEL_RECORDS = ("evaluation", "verdict", "rehearsal")
RUN_RECORDS = ("validation", "evaluation", "verdict")


def select_records(written: Mapping[str, Any], names: Sequence[str]) -> Records:
    """The records of these names; those that are missing, empty or no objects are left out."""
    records = {name: as_mapping(written.get(name)) for name in names}
    return {name: record for name, record in records.items() if record}


@dataclass(frozen=True)
class Model:
    """A version of the registry; times are µs since 1970 UTC, None where they are not known.

    Attributes:
        was: whether it was live before.
        replaced: the version in whose place it was promoted.
        records: evaluation, verdict and rehearsal, as far as they are on record.
        span: None where it is not known.
    """

    version: str
    digest: str
    created: float | None
    passed: bool
    rehearsed: bool
    live: bool
    was: bool
    promoted: float | None
    replaced: str | None
    records: Records
    span: Span | None

    @classmethod
    def parse(cls, row: Mapping[str, Any]) -> Model:
        """Raises KeyError where a version has no number or digest, and so cannot have a page."""
        return cls(
            version=str(row["version"]),
            digest=str(row["digest"]),
            created=finite(row.get("created")),
            passed=bool(row.get("passed")),
            rehearsed=bool(row.get("rehearsed")),
            live=bool(row.get("live")),
            was=bool(row.get("was")),
            promoted=finite(row.get("promoted")),
            replaced=as_text(row.get("replaced")),
            records=select_records(row, MODEL_RECORDS),
            span=Span.parse(row.get("span")),
        )

    @cached_property
    def evaluation(self) -> Evaluation:
        """Empty where none is on record."""
        return Evaluation.parse(self.records.get("evaluation"))

    @cached_property
    def verdict(self) -> Verdict | None:
        """None where none is on record."""
        return _verdict(self.records)

    @cached_property
    def rehearsal(self) -> Rehearsal | None:
        """None where none is on record."""
        return Rehearsal.parse(self.records["rehearsal"]) if "rehearsal" in self.records else None

    @property
    def folder(self) -> str:
        """Of its evidence, below the site."""
        return f"evidence/models/{self.version}"


@dataclass(frozen=True)
class RunStep:
    """A step of a run; `reused`: an earlier run had done it."""

    step: str
    event: str
    reused: bool
    seconds: float | None

    @classmethod
    def parse(cls, row: Mapping[str, Any]) -> RunStep:
        return cls(
            step=str(row.get("step")),
            event=str(row.get("event")),
            reused=bool(row.get("reused")),
            seconds=finite(row.get("seconds")),
        )


@dataclass(frozen=True)
class Run:
    """A run of the pipeline; `started` is in µs since 1970 UTC.

    Attributes:
        version: the one that it registered.
        records: validation, evaluation and verdict, as far as they are on record.
    """

    id: str
    outcome: str
    profile: str | None
    started: float | None
    seconds: float | None
    reason: str | None
    version: str | None
    steps: tuple[RunStep, ...]
    records: Records

    @classmethod
    def parse(cls, row: Mapping[str, Any]) -> Run:
        return cls(
            id=str(row["id"]),
            outcome=str(row.get("outcome")),
            profile=as_text(row.get("profile")),
            started=finite(row.get("started")),
            seconds=finite(row.get("seconds")),
            reason=as_text(row.get("reason")),
            version=str(row["version"]) if row.get("version") else None,
            steps=tuple(RunStep.parse(step) for step in as_rows(row.get("steps"))),
            records=select_records(row, RUN_RECORDS),
        )

    @cached_property
    def validation(self) -> ValidationRecord | None:
        """None where none is on record."""
        validation = self.records.get("validation")
        return None if validation is None else ValidationRecord.parse(validation)

    @cached_property
    def evaluation(self) -> Evaluation:
        """Empty where none is on record."""
        return Evaluation.parse(self.records.get("evaluation"))

    @cached_property
    def verdict(self) -> Verdict | None:
        """None where none is on record."""
        return _verdict(self.records)

    @property
    def folder(self) -> str:
        """Of its evidence, below the site."""
        return f"evidence/runs/{self.id}"

    @property
    def tone(self) -> str:
        return RUN_TONES.get(self.outcome, "bad")


@dataclass(frozen=True)
class RolloutSide:
    """What one side of a rollout did; seconds by quantile."""

    name: str
    version: str | None
    answers: int | None
    errors: int | None
    not_finite: int | None
    seconds: Mapping[str, float | None]

    @classmethod
    def parse(cls, name: str, side: object, counts: object) -> RolloutSide:
        """Read a side from its version and from the counts that were observed of it."""
        observed = as_mapping(counts)
        seconds = as_mapping(observed.get("seconds"))
        return cls(
            name=name,
            version=as_text(as_mapping(side).get("version")),
            answers=whole(observed.get("answers")),
            errors=whole(observed.get("errors")),
            not_finite=whole(observed.get("not_finite")),
            seconds={str(quantile): finite(value) for quantile, value in seconds.items()},
        )


@dataclass(frozen=True)
class Rollout:
    """A challenger beside the champion.

    Attributes:
        share: of the requests, that the challenger answers.
        started, ended: ISO 8601; ended: None while it runs.
        challenger: its digest.
        reasons: of the end; because: of what the rules say now.
        record: what its file holds.
    """

    id: str
    state: str
    shadow: bool
    share: float
    started: str | None
    ended: str | None
    challenger: str | None
    reasons: tuple[str, ...]
    because: tuple[str, ...]
    sides: tuple[RolloutSide, ...]
    record: Mapping[str, Any]

    @classmethod
    def parse(cls, row: Mapping[str, Any]) -> Rollout:
        observed = as_mapping(row.get("observed"))
        sides = [
            RolloutSide.parse(name, row.get(name), observed.get(name))
            for name in ("champion", "challenger")
        ]
        return cls(
            id=str(row["id"]),
            state=str(row.get("state")),
            shadow=bool(row.get("shadow")),
            share=finite(row.get("share")) or 0.0,
            started=as_text(row.get("started")),
            ended=as_text(row.get("ended")),
            challenger=as_text(as_mapping(row.get("challenger")).get("digest")),
            reasons=tuple(map(str, as_list(row.get("reasons")))),
            because=tuple(map(str, as_list(row.get("because")))),
            sides=tuple(sides),
            record=row,
        )

    @property
    def file(self) -> str:
        """Of its record, below the site."""
        return f"evidence/rollouts/{self.id}.json"

    @property
    def tone(self) -> str:
        return ROLLOUT_TONES.get(self.state, "bad")


@dataclass(frozen=True)
class Decided:
    """What was decided, and what came of it, as the pages show it."""

    number: int
    time: int
    outcome: str
    champion: str | None
    to: str | None
    reasons: tuple[str, ...]
    evidence: tuple[str, ...]
    result: str | None
    reason: str | None
    version: str | None
    run: str | None
    training_run: str | None
    attempts: int
    alerted: bool

    @classmethod
    def of(cls, entry: HistoryEntry) -> Decided:
        return cls(
            number=entry.number,
            time=entry.time,
            outcome=entry.outcome,
            champion=entry.champion,
            to=entry.to,
            reasons=entry.reasons,
            evidence=entry.evidence,
            result=entry.result,
            reason=entry.reason,
            version=entry.version,
            run=entry.run,
            training_run=entry.training_run,
            attempts=entry.attempts,
            alerted=entry.alerted,
        )

    @property
    def tone(self) -> str:
        return OUTCOME_TONES.get(self.outcome, "quiet")


@dataclass(frozen=True)
class Window:
    """A window as the pages show it.

    Attributes:
        state: void, severe, slight, none or unclear.
        worst: the finding that lies furthest, beside the effect that is acted on.
        level: its effect as a share of that one.
        act: the effect that is acted on.
        moved: the measures that drifted.
        page, evidently: where its reports are, below the site; None where there is none.
    """

    evidence: Evidence
    state: str
    worst: Finding | None
    level: float | None
    act: float | None
    moved: tuple[str, ...]
    page: str | None
    evidently: str | None

    @classmethod
    def judge(
        cls,
        evidence: Evidence,
        decision: DecisionSettings,
        page: str | None = None,
        evidently: str | None = None,
    ) -> Window:
        """How far a window lies from its reference, by these settings."""
        # 1. findings that can be judged, each beside the effect that is acted on
        judged: list[tuple[float, Finding]] = []
        for finding in evidence.findings:
            severity = decision.severity.get(finding.measure)
            if severity is None or finding.effect is None or finding.n < decision.minimum:
                continue
            judged.append((finding.effect / severity.act, finding))

        # 2. those of them that drifted
        drift = {finding.measure: drifted(finding, decision) for finding in evidence.findings}
        beyond = [(level, finding) for level, finding in judged if drift[finding.measure] != "no"]
        level, worst = max(beyond or judged, key=lambda pair: pair[0], default=(None, None))

        # 3. a word for all of them
        if evidence.problems:
            state = "void"
        elif "severe" in drift.values():
            state = "severe"
        elif beyond:
            state = "slight"
        else:
            state = "none" if judged else "unclear"
        return cls(
            evidence=evidence,
            state=state,
            worst=worst,
            level=level,
            act=decision.severity[worst.measure].act if worst else None,
            moved=tuple(sorted(finding.measure for _, finding in beyond)),
            page=page,
            evidently=evidently,
        )

    @property
    def start(self) -> int | None:
        first = self.evidence.window.partition("/")[0]
        return int(first) if first.isdecimal() else None

    @property
    def word(self) -> str:
        return WINDOW_STATES[self.state][0]

    @property
    def tone(self) -> str:
        return WINDOW_STATES[self.state][1]


@dataclass(frozen=True)
class ReportedWindow:
    """A window of the ledger; `report`: the directory of the report that its evidence is the hash
    of, None where that was removed.
    """

    evidence: Evidence
    report: Path | None = None


@dataclass(frozen=True)
class SiteRecords:
    """What a home knows, newest first.

    Attributes:
        made: when it was gathered, µs since 1970 UTC.
        notes: what could not be read, in words.
    """

    made: int
    models: tuple[Model, ...] = ()
    runs: tuple[Run, ...] = ()
    rollouts: tuple[Rollout, ...] = ()
    windows: tuple[ReportedWindow, ...] = ()
    decisions: tuple[Decided, ...] = ()
    notes: tuple[str, ...] = ()


class SiteFacts:
    """All that the site is about, newest first, with what several pages ask of it."""

    def __init__(self, records: SiteRecords, windows: Sequence[Window]) -> None:
        """Raises TasteloopError where a version, a run or a rollout cannot name a file."""
        self.made = records.made
        self.notes = records.notes
        self.models = records.models
        self.runs = records.runs
        self.rollouts = records.rollouts
        self.decisions = records.decisions
        self.windows = list(windows)
        names = [("version", model.version) for model in self.models]
        names += [("run", run.id) for run in self.runs]
        names += [("rollout", rollout.id) for rollout in self.rollouts]
        for kind, name in names:
            if not _FILE_NAME.fullmatch(name):
                raise TasteloopError(
                    f"{kind} {name!r} cannot name a file of the site: letters, digits, '-', '_' and '.' can"
                )
        self._by_version = {model.version: model for model in reversed(self.models)}
        self._by_digest = {model.digest: model for model in reversed(self.models)}
        # of several runs the first one, which made it
        self._run_of_version = {run.version: run for run in self.runs if run.version}
        self._by_evidence = {window.evidence.id: window for window in self.windows}

    @property
    def live(self) -> Model | None:
        return next((model for model in self.models if model.live), None)

    def model(self, version: str | None) -> Model | None:
        return self._by_version.get(str(version))

    def run_of(self, model: Model) -> Run | None:
        return self._run_of_version.get(model.version)

    def run(self, id: str | None) -> Run | None:
        return next((run for run in self.runs if run.id == id), None)

    def window_of(self, evidence: str) -> Window | None:
        return self._by_evidence.get(evidence)

    def trials(self, model: Model) -> list[Rollout]:
        """Rollouts in which a version was the challenger."""
        return [rollout for rollout in self.rollouts if rollout.challenger == model.digest]

    def version_link(self, version: str | None, up: str) -> Link:
        """A version as a link to its page, where it has one."""
        if version in (None, ""):
            return Link("–")
        href = f"{up}models/{version}.html" if self.model(version) else None
        return Link(str(version), href)

    def champion_link(self, digest: str | None, up: str) -> Link:
        """The version of a digest, or the beginning of the digest."""
        model = self._by_digest.get(str(digest))
        if model is None:
            return Link(str(digest)[:12], code=True)
        return self.version_link(model.version, up)

    def run_links(self, run: Run, up: str) -> list[Link]:
        """A run's pages: of its data, and of its evaluation, which may be its version's."""
        links = []
        if run.validation is not None:
            links.append(Link("validation", f"{up}{run.folder}/validation.html"))
        if "evaluation" in run.records:
            model = self.model(run.version)
            if model is None:
                links.append(Link("evaluation", f"{up}{run.folder}/evaluation.html"))
            elif "evaluation" in model.records:
                links.append(Link("evaluation", f"{up}{model.folder}/evaluation.html"))
        return links

    def standing(self, model: Model) -> tuple[str, str]:
        """Where a version stands, in a word and a tone."""
        trial = next(iter(self.trials(model)), None)
        if model.live:
            return "live", "good"
        if trial and trial.state == "running":
            return "on trial", "warn"
        if model.was:
            return "was live", "quiet"
        if model.promoted:
            return "taken back", "warn"
        if not model.passed:
            return "refused", "bad"
        if not model.rehearsed:
            return "not rehearsed", "warn"
        return ("rolled back", "warn") if trial else ("not promoted", "quiet")


def _verdict(records: Records) -> Verdict | None:
    return Verdict.parse(records["verdict"]) if "verdict" in records else None
