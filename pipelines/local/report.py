"""`tasteloop report`: the page of a run."""

from __future__ import annotations

from pathlib import Path

from pipelines.local.facts import list_runs
from tasteloop.errors import TasteloopError
from tasteloop.evaluation.record import EVALUATION_FILE, Evaluation
from tasteloop.files import atomic_write
from tasteloop.home import Home
from tasteloop.verdicts import VERDICT_FILE, Verdict


def write_page(run_id: str | None, output: Path | None) -> Path:
    """Write a run's page (by default of the last run that has one) and return where it is.

    Raises:
        TasteloopError: there is no such run, or none that has come so far.
    """
    home = Home.current()
    run_ids = [run_id] if run_id else [facts.id for facts in list_runs()]
    directories = [home.run(each) for each in run_ids]
    for directory in directories:
        target = output or home.reports / f"{directory.name}.html"
        if (directory / EVALUATION_FILE).is_file():
            from validation.pages.evaluation import write_report

            verdict = directory / VERDICT_FILE
            write_report(
                Evaluation.read(directory / EVALUATION_FILE),
                Verdict.read(verdict) if verdict.is_file() else None,
                target,
            )
            return target.absolute()
        if (directory / "validation.html").is_file():
            atomic_write(target, (directory / "validation.html").read_bytes())
            return target.absolute()
    if run_id and not directories[0].is_dir():
        known = ", ".join(facts.id for facts in list_runs()[:5])
        raise TasteloopError(f"no run {run_id!r}; the last ones: {known or 'none'}")
    raise TasteloopError(
        f"{'run ' + run_id if run_id else 'no run'} has got as far as a report; try: tasteloop run"
    )
