"""The site "Why is this model live?": static pages over models, runs, drift windows and decisions.

    <directory>/index.html              what is live, every model, window, decision and run
    <directory>/models/<version>.html   one model: from the events that it learned from to what was
                                        decided since
    <directory>/evidence/...            copies of the reports and JSON files that the pages rest on
    <directory>/site.json               what was counted; a directory without it is not replaced

Everything is inside the directory and every link is relative, so that it can be moved or published
whole. Paths of the machine are cut down to their last part. What is missing is said.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from tasteloop.errors import TasteloopError
from tasteloop.files import atomic_directory, atomic_write, read_json, write_json
from validation.data.checks import VALIDATION_FILE
from validation.monitor.decision import DecisionSettings
from validation.monitor.drift_report import EVIDENTLY, PAGE, REPORT
from validation.pages.dataset import write_data_report
from validation.pages.evaluation import write_report
from validation.pages.facts import (
    Model,
    ReportedWindow,
    Run,
    SiteFacts,
    SiteRecords,
    Window,
)
from validation.pages.model import model_page
from validation.pages.overview import overview_page

FORMAT = 1
MARK = "site.json"
EVIDENTLY_PAGES = 10  # of the newest windows: each is several megabytes
_PATH = re.compile(
    r"(?<![\w.<>~/-])(?:file:/{1,2})?/(?:[^\s/<>\"'`\\|;,()&=]+/)+([^\s/<>\"'`\\|;,()&=]*)"
)
_DECISION = DecisionSettings()


def write_site(
    records: SiteRecords, out: Path, decision: DecisionSettings = _DECISION
) -> dict[str, int]:
    """Write the site, whole or not at all; a site that was there is replaced.

    Args:
        records: what `pipelines.loop.site.gather` read of a home.
        decision: when a measure counts as drifted.

    Returns:
        how many models, runs, windows, decisions and pages there are.

    Raises:
        TasteloopError: the directory holds something else, or cannot be written.
    """
    target = out.expanduser().absolute()
    target = target.resolve() if target.is_symlink() else target
    if target.exists() and not _is_replaceable(target):
        raise TasteloopError(
            f"{out} is not empty and holds no site of ours (no {MARK}), so it is not replaced; name another directory"
        )
    try:
        with atomic_directory(target) as directory:
            return _write(portable(records), decision, directory)
    except OSError as error:
        raise TasteloopError(
            f"the site cannot be written to {out}: {error}; name another directory"
        ) from error


def _is_replaceable(directory: Path) -> bool:
    """Whether it is an empty directory or a site of ours."""
    if not directory.is_dir():
        return False
    if not any(directory.iterdir()):
        return True
    try:
        mark = read_json(directory / MARK)
    except TasteloopError:
        return False
    return isinstance(mark, dict) and "format" in mark


def portable(value: Any) -> Any:
    """A value without absolute paths: each is cut down to its last part, in texts, lists, mappings
    and records.

    >>> portable(["in '/var/x/y.csv', row 3"])
    ["in '…/y.csv', row 3"]
    """
    if isinstance(value, str):
        return _PATH.sub(r"…/\1", value)
    if isinstance(value, Mapping):
        return {portable(key): portable(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(portable(part) for part in value)
    if isinstance(value, BaseModel):
        return value.model_copy(update={name: portable(part) for name, part in value})
    if is_dataclass(value) and not isinstance(value, type):
        parts = {field.name: portable(getattr(value, field.name)) for field in fields(value)}
        return replace(value, **parts)
    return value


def _write(records: SiteRecords, decision: DecisionSettings, directory: Path) -> dict[str, int]:
    # 1. reports of windows, which their pages link to
    windows = []
    for position, window in enumerate(records.windows):
        with_evidently = position < EVIDENTLY_PAGES
        windows.append(_copy_window(window, decision, directory, with_evidently))
    facts = SiteFacts(records, windows)

    # 2. reports and records of runs, models and rollouts
    for run in facts.runs:
        _write_run(facts, run, directory)
    for model in facts.models:
        _write_model(model, directory)
    for rollout in facts.rollouts:
        write_json(directory / rollout.file, rollout.record)

    # 3. the pages over them
    pages = {f"models/{model.version}.html": model_page(facts, model) for model in facts.models}
    pages["index.html"] = overview_page(facts)
    for name, text in pages.items():
        atomic_write(directory / name, text)
    counts = {
        "models": len(facts.models),
        "runs": len(facts.runs),
        "windows": len(facts.windows),
        "decisions": len(facts.decisions),
        "pages": len(pages),
    }
    write_json(directory / MARK, {"format": FORMAT, "made": facts.made, **counts})
    return counts


def _copy_window(
    window: ReportedWindow, decision: DecisionSettings, directory: Path, with_evidently: bool
) -> Window:
    """Judge a window, and copy its report; a record that names a path of the machine stays out."""
    evidence, source = window.evidence, window.report
    if source is None:
        return Window.judge(evidence, decision)
    folder = f"evidence/windows/{evidence.id[:16]}"
    (directory / folder).mkdir(parents=True, exist_ok=True)
    copied = []
    for name in (PAGE, REPORT, EVIDENTLY) if with_evidently else (PAGE, REPORT):
        report = source / name
        if not report.is_file():
            continue
        if name == REPORT and _PATH.search(report.read_text(encoding="utf-8")):
            continue
        shutil.copyfile(report, directory / folder / name)
        copied.append(name)
    page, evidently = (f"{folder}/{name}" if name in copied else None for name in (PAGE, EVIDENTLY))
    return Window.judge(evidence, decision, page, evidently)


def _write_run(facts: SiteFacts, run: Run, directory: Path) -> None:
    """A run's records and pages; the evaluation of one that made a version is its version's."""
    folder = directory / run.folder
    if run.validation is not None:
        write_json(folder / VALIDATION_FILE, run.records["validation"])
        write_data_report(run.validation, folder / "validation.html")
    if "evaluation" in run.records and facts.model(run.version) is None:
        write_report(run.evaluation, run.verdict, folder / "evaluation.html")


def _write_model(model: Model, directory: Path) -> None:
    folder = directory / model.folder
    for name, record in model.records.items():
        write_json(folder / f"{name}.json", record)
    if "evaluation" in model.records:
        write_report(model.evaluation, model.verdict, folder / "evaluation.html")
