"""What the registry, the runs, the rollouts and the monitor's ledger know, gathered for the site's
pages.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.local.facts import RunFacts, list_runs
from tasteloop.errors import TasteloopError
from tasteloop.evaluation.record import Evaluation
from tasteloop.files import read_json, sha256_file
from tasteloop.home import Home
from validation.monitor.decision import DecisionSettings
from validation.monitor.drift_report import REPORT
from validation.monitor.ledger import Ledger
from validation.pages.facts import (
    MODEL_RECORDS,
    RUN_RECORDS,
    Decided,
    Model,
    ReportedWindow,
    Rollout,
    Run,
    SiteRecords,
    Span,
    select_records,
)
from validation.pages.site import write_site

if TYPE_CHECKING:
    from serving.release.versions import Version


def write(out: Path) -> dict[str, Any]:
    """Write the site of this home; where it is, and how much is in it."""
    records = gather()
    decision, notes = _decision_settings()
    records = replace(records, notes=(*records.notes, *notes))
    counts = write_site(records, out, decision)
    return {"site": str(out.absolute()), "index": str(out.absolute() / "index.html"), **counts}


def _decision_settings() -> tuple[DecisionSettings, list[str]]:
    """By which the last pass of the monitor decided, and notes; the defaults before the first
    one.
    """
    path = Home.current().monitor_settings
    if not path.is_file():
        return DecisionSettings(), []
    try:
        return DecisionSettings.model_validate(read_json(path)["decision"]), []
    except (TasteloopError, ValueError, KeyError, TypeError):
        note = f"{path} is not of this version: drift is shown by the default settings"
        return DecisionSettings(), [note]


def gather() -> SiteRecords:
    """All that this home knows; what cannot be read is left out, and a note says so."""
    from serving.release.rollout import rollout_history

    notes: list[str] = []

    # 1. the monitor's ledger
    ledger = Ledger(Home.current().monitor)
    windows: list[ReportedWindow] = []
    decisions: list[Decided] = []
    try:
        reports = dict(_reports(ledger.directory))
        newest_first = sorted(ledger.evidence(), key=lambda e: (e.end, e.window), reverse=True)
        windows = [ReportedWindow(each, reports.get(each.id)) for each in newest_first]
        decisions = [Decided.of(entry) for entry in ledger.history()[::-1]]
    except TasteloopError as error:
        notes.append(str(error))

    # 2. rollouts
    rollouts: list[Rollout] = []
    try:
        states = [rollout.status().model_dump(mode="json") for rollout in rollout_history()]
        rollouts = [Rollout.parse(state) for state in states]
    except TasteloopError as error:
        notes.append(str(error))

    # 3. runs, and the versions that they made
    recorded = list_runs()
    runs = {facts.id: _run(facts) for facts in recorded}
    models, foreign = _models(recorded, runs, rollouts)
    for id in foreign:
        runs[id] = replace(runs[id], version=None)
    return SiteRecords(
        made=int(datetime.now(UTC).timestamp() * 1e6),
        models=tuple(models),
        runs=tuple(runs.values()),
        rollouts=tuple(rollouts),
        windows=tuple(windows),
        decisions=tuple(decisions),
        notes=tuple(notes),
    )


def _run(facts: RunFacts) -> Run:
    directory = Home.current().run(facts.id)
    records = {name: _json(directory / f"{name}.json") for name in RUN_RECORDS}
    return Run.parse({**facts.json_facts(), "started": _micros(facts.started), **records})


def _models(
    recorded: Sequence[RunFacts], runs: Mapping[str, Run], rollouts: Sequence[Rollout]
) -> tuple[list[Model], set[str]]:
    """The versions of the registry, and the ids of runs whose version is of another registry."""
    from serving.release import registry

    models: list[Model] = []
    foreign: set[str] = set()
    for version in registry.versions():
        # 1. the first run that made it; runs are newest first
        same_number = [facts for facts in recorded if facts.version == version.version]
        mine = [facts for facts in same_number if _has_recorded(facts, version)]
        foreign |= {facts.id for facts in same_number if facts not in mine}
        first = mine[-1] if mine else None

        # 2. its evidence; what the registry lacks is its run's
        evidence = {
            Path(name).stem: _loads(text)
            for name, text in registry.evidence(version.version).items()
        }
        of_run = runs[first.id].records if first else {}
        records = {
            **select_records(of_run, MODEL_RECORDS),
            **select_records(evidence, MODEL_RECORDS),
        }

        # 3. when it was promoted
        promoted = None if version.promoted is None else version.promoted * 1000
        replaced = version.replaced
        # promoted before the registry kept it
        if promoted is None and (version.champion or version.was):
            evaluation = Evaluation.parse(records.get("evaluation"))
            promoted, replaced = _promotion(version.version, first, rollouts, evaluation)
        model = Model(
            version=version.version,
            digest=version.digest,
            created=version.created * 1000,
            passed=version.passed,
            rehearsed=version.rehearsed,
            live=version.champion,
            was=version.was,
            promoted=promoted,
            replaced=replaced,
            records=records,
            span=_span(first) if first else None,
        )
        models.append(model)
    return models, foreign


def _has_recorded(facts: RunFacts, version: Version) -> bool:
    """Whether a run recorded this version, and not one of the same number in another registry."""
    outputs = {step.step: step.outputs for step in facts.steps}
    return outputs.get("record", {}).get("mlflow_run") in (None, version.run_id)


def _promotion(
    version: str, run: RunFacts | None, rollouts: Sequence[Rollout], evaluation: Evaluation
) -> tuple[int | None, str | None]:
    """When a version was promoted and in whose place, by the run or the rollout that did it."""
    for rollout in rollouts:
        champion, challenger = rollout.sides
        if (rollout.state, challenger.version) == ("promoted", version) and rollout.ended:
            return _micros(rollout.ended), champion.version
    for step in run.steps if run else ():
        if (step.step, step.event) == ("promote", "finished") and step.time is not None:
            compared = evaluation.champion
            return int(step.time * 1e6), compared.version if compared else None
    return None, None


def _span(facts: RunFacts) -> Span | None:
    """The time that a run's data spans, where its artifacts are still there."""
    import polars as pl

    from tasteloop.behaviour.events import TIME
    from tasteloop.datasets.ingest import EVENTS_FILE

    span: dict[str, Any] = {}
    events = facts.artifacts.get("dataset", Path()) / EVENTS_FILE
    if events.is_file():
        try:
            ends = (
                pl.scan_parquet(events)
                .select(first=pl.col(TIME).min(), last=pl.col(TIME).max())
                .collect()
            )
            span |= ends.row(0, named=True)
        except (OSError, pl.exceptions.PolarsError):
            pass  # no longer complete: the page says that it is not known
    prepared = _json(facts.artifacts.get("snapshots", Path()) / "snapshots.json") or {}
    span |= {
        key: prepared[key]
        for key in ("validation_from", "test_from", "snapshots")
        if key in prepared
    }
    return Span.parse(span)


def _reports(directory: Path) -> Iterator[tuple[str, Path]]:
    """Drift reports by the hash that their evidence has."""
    for path in directory.rglob(REPORT):
        yield sha256_file(path), path.parent


def _json(path: Path) -> Any:
    return _loads(path.read_text(encoding="utf-8", errors="replace")) if path.is_file() else None


def _loads(text: str) -> Any:
    """JSON; None where it is not complete, and for NaN and infinity."""
    try:
        return json.loads(text, parse_constant=lambda _: None)
    except ValueError:
        return None


def _micros(iso: str) -> int:
    return int(datetime.fromisoformat(iso).timestamp() * 1e6)
