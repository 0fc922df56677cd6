"""What the registry, the runs, the rollouts and the monitor's ledger know, gathered for the site's
pages.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipelines.local.facts import RunFacts, list_runs
from tasteloop.errors import TasteloopError
from tasteloop.files import read_json, sha256_file
from tasteloop.home import Home
from validation.monitor.decision import DecisionSettings


def write(out: Path) -> dict[str, Any]:
    """Write the site of this home; where it is, and how much is in it."""
    from validation.pages.site import write_site

    facts = gather()
    counts = write_site(facts, out, _decision(facts["notes"]))
    return {"site": str(out.absolute()), "index": str(out.absolute() / "index.html"), **counts}


def _decision(notes: list[str]) -> DecisionSettings:
    """By which the last pass of the monitor decided; the defaults before the first one."""
    path = Home.current().monitor_settings
    try:
        return (
            DecisionSettings.model_validate(read_json(path)["decision"])
            if path.is_file()
            else DecisionSettings()
        )
    except (TasteloopError, ValueError, KeyError, TypeError):
        notes.append(f"{path} is not of this version: drift is shown by the default settings")
        return DecisionSettings()


def gather() -> dict[str, Any]:
    """Plain mappings, newest first, times in µs since 1970 UTC; what cannot be read is left out and
    said in `notes`.

    versions: version, digest, created, passed, rehearsed, live, was (live before), promoted and
        replaced (in whose place), evaluation, verdict and rehearsal as JSON, span (of the data's
        time).
    runs: id, profile, outcome, reason, started, seconds, version, steps, validation, evaluation,
        verdict.
    rollouts: `serving.release.rollout.RolloutStatus`. decisions: `Ledger.history`.
    windows: `validation.monitor.decision.Evidence`, and `report`, the directory whose report.json
        has the evidence's hash.
    """
    from serving.release.rollout import rollout_history
    from validation.monitor.ledger import Ledger

    notes: list[str] = []
    made = [_run(facts) for facts in list_runs()]
    ledger = Ledger(Home.current().monitor)
    windows: list[dict[str, Any]] = []
    decisions: list[dict[str, Any]] = []
    try:
        reports = dict(_reports(ledger.directory))
        seen = sorted(ledger.evidence(), key=lambda e: (e.end, e.window), reverse=True)
        windows = [{**e.model_dump(), "report": reports.get(e.id)} for e in seen]
        decisions = [entry.json() for entry in ledger.history()[::-1]]
    except TasteloopError as error:
        notes.append(str(error))
    try:
        rollouts = [rollout.status().model_dump(mode="json") for rollout in rollout_history()]
    except TasteloopError as error:
        rollouts = []
        notes.append(str(error))
    return {
        "made": int(datetime.now(UTC).timestamp() * 1e6),
        "versions": _versions(made, rollouts),
        "runs": made,
        "rollouts": rollouts,
        "windows": windows,
        "decisions": decisions,
        "notes": notes,
    }


def _run(facts: RunFacts) -> dict[str, Any]:
    directory = Home.current().run(facts.id)
    written = facts.json_facts()
    kept = ("id", "profile", "outcome", "reason", "seconds", "version", "steps")
    return {
        **{key: written[key] for key in kept if key in written},
        "started": _micros(facts.started),
        "span": _span(facts),
        **{
            name: _json(directory / f"{name}.json")
            for name in ("validation", "evaluation", "verdict")
        },
    }


def _versions(made: list[dict[str, Any]], rollouts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    from serving.release import registry

    found = []
    for version in registry.versions():
        mine = [run for run in made if _made(run, version)]
        for run in made:
            if run not in mine and run.get("version") == version.version:
                del run["version"]  # of another registry
        run = mine[-1] if mine else {}  # the first that made it
        told = {
            Path(name).stem: _loads(text)
            for name, text in registry.evidence(version.version).items()
        }
        evaluation = told.get("evaluation") or run.get("evaluation")
        promoted, replaced = version.promoted, version.replaced
        # promoted before the registry kept it
        if promoted is None and (version.champion or version.was):
            promoted, replaced = _promotion(version.version, run, rollouts, evaluation)
        else:
            promoted = promoted and promoted * 1000
        found.append(
            {
                "version": version.version,
                "digest": version.digest,
                "created": version.created * 1000,
                "passed": version.passed,
                "rehearsed": version.rehearsed,
                "live": version.champion,
                "was": version.was,
                "promoted": promoted,
                "replaced": replaced,
                "evaluation": evaluation,
                "verdict": told.get("verdict") or run.get("verdict"),
                "rehearsal": told.get("rehearsal"),
                "span": run.get("span"),
            }
        )
    return found


def _made(run: Mapping[str, Any], version: Any) -> bool:
    """Whether a run recorded this version, and not one of the same number in another registry."""
    steps = {s["step"]: s.get("outputs") or {} for s in run.get("steps", [])}
    recorded = steps.get("record", {}).get("mlflow_run")
    return run.get("version") == version.version and recorded in (None, version.run_id)


def _promotion(
    version: str, run: Mapping[str, Any], rollouts: list[dict[str, Any]], evaluation: Any
) -> tuple[int | None, str | None]:
    """When a version was promoted and in whose place, by the run or the rollout that did it."""
    for rollout in rollouts:
        if rollout["state"] == "promoted" and rollout["challenger"]["version"] == version:
            return _micros(rollout["ended"]), rollout["champion"]["version"]
    compared = ((evaluation or {}).get("champion") or {}).get("version")
    for step in run.get("steps", []):
        if step["step"] == "promote" and step["event"] == "finished" and "time" in step:
            return int(step["time"] * 1e6), None if compared is None else str(compared)
    return None, None


def _span(facts: RunFacts) -> dict[str, Any] | None:
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
            pass  # no longer whole: the page says that it is not known
    prepared = _json(facts.artifacts.get("snapshots", Path()) / "snapshots.json") or {}
    span |= {
        key: prepared[key]
        for key in ("validation_from", "test_from", "snapshots")
        if key in prepared
    }
    return span or None


def _reports(directory: Path) -> Iterator[tuple[str, Path]]:
    """Drift reports by the hash that their evidence has."""
    from validation.monitor.drift_report import REPORT

    for path in directory.rglob(REPORT):
        yield sha256_file(path), path.parent


def _json(path: Path) -> Any:
    return _loads(path.read_text(encoding="utf-8", errors="replace")) if path.is_file() else None


def _loads(text: str) -> Any:
    """JSON; None where it is not whole, and for NaN and infinity."""
    try:
        return json.loads(text, parse_constant=lambda _: None)
    except ValueError:
        return None


def _micros(iso: str) -> int:
    return int(datetime.fromisoformat(iso).timestamp() * 1e6)
