"""A run of the training pipeline on this machine, with kfp's subprocess runner.

A run writes `runs/<id>/` below the home: `run.json` (what `tasteloop status` reads),
`settings.yaml`, `steps.jsonl` (the steps' own events), `log.txt` (everything that was printed), and
copies of the validation, evaluation, verdict and report.
"""

from __future__ import annotations

import fcntl
import logging
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from components.step import LOCK
from pipelines.local.cache import checkpoints_name, fingerprint, sealed_cache
from pipelines.local.environment import (
    environment,
    interrupted_by_sigterm,
    variables_of_steps,
    wait_for_equal_run,
)
from pipelines.local.facts import FACTS_FILE, Outputs, RunEnd, RunFacts, StepFacts
from pipelines.local.progress import LOG_FILE, Progress, Say
from pipelines.settings import Settings
from tasteloop.errors import TasteloopError
from tasteloop.evaluation.record import EVALUATION_FILE, Evaluation
from tasteloop.files import as_text, make_directory, write_json
from tasteloop.home import Home
from tasteloop.redaction import redact, redact_strings
from tasteloop.verdicts import VERDICT_FILE


class Broken(Exception):
    """A step failed for a reason that is not the user's; the text names the log."""


def run(settings: Settings, say: Say) -> RunFacts:
    """Run the pipeline and return what `run.json` holds; `say` gets the lines for the console (rich
    markup).

    Raises:
        TasteloopError: a step refused its input, or the registry is lost.
        Broken: a step failed otherwise.
    """
    if settings.cluster:
        raise TasteloopError(
            f"profile {settings.profile!r} asks for a cluster; here use --profile local, or --set "
            "cluster=null, or write the graph for the cluster: tasteloop compile -o training.yaml"
        )
    from serving.release.mlflow_store import require_database

    require_database()
    data_and_code = fingerprint(settings)
    checkpoints = checkpoints_name(settings, data_and_code)
    lock_file = Home.current().run_locks / checkpoints
    with wait_for_equal_run(lock_file, say), _recorded(settings) as record:
        say(f"run [bold]{record.facts.id}[/] (profile {settings.profile}) in {record.directory}")
        with Progress(record.directory, say) as progress:
            is_complete = _execute(settings, data_and_code, checkpoints, progress)
        record.update(steps=tuple(progress.steps.values()))
        _conclude(record, is_complete)
    return record.facts


class RunRecord:
    """A run's directory and its facts as they become known."""

    def __init__(self, directory: Path, facts: RunFacts) -> None:
        self.directory, self.facts = directory, facts

    def update(self, **fields: Any) -> None:
        self.facts = self.facts.model_copy(update=fields)

    def write(self) -> None:
        write_json(self.directory / FACTS_FILE, self.facts.json_facts())


@contextmanager
def _recorded(settings: Settings) -> Iterator[RunRecord]:
    """A new run's record, written when the run begins and when it ends, however it ends."""
    # 1. its directory and what is known before it begins
    started = datetime.now(UTC)
    home = Home.current()
    run_id = f"{started:%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
    directory = home.run(run_id)
    make_directory(directory)
    resolved = redact_strings(settings.of_training())
    (directory / "settings.yaml").write_text(
        yaml.safe_dump(resolved, sort_keys=False), encoding="utf-8"
    )
    facts = RunFacts(
        id=run_id,
        home=str(home),
        profile=settings.profile,
        outcome="running",
        started=started.isoformat(timespec="seconds"),
        settings=resolved,
    )
    record = RunRecord(directory, facts)

    # 2. the run, as long as it lives with its lock held
    began = time.perf_counter()
    with (directory / LOCK).open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        record.write()
        try:
            yield record
        except BaseException as error:
            is_interrupted = isinstance(error, KeyboardInterrupt)
            record.update(
                outcome="interrupted" if is_interrupted else "failed", reason=redact(str(error))
            )
            raise
        finally:
            seconds = time.perf_counter() - began
            work = sum(step.seconds or 0 for step in record.facts.steps if not step.reused)
            record.update(
                seconds=round(seconds, 3), work=round(work, 3), overhead=round(seconds - work, 3)
            )
            record.write()


def _execute(settings: Settings, data_and_code: str, checkpoints: str, progress: Progress) -> bool:
    """Run the graph; False when a step failed."""
    from kfp import local

    from pipelines.graphs.training import training

    home = Home.current()
    with (
        tempfile.TemporaryDirectory(prefix="tasteloop-") as scratch,
        sealed_cache(home.step_cache, progress.reuse),
    ):
        local.init(
            local.SubprocessRunner(use_venv=False),
            pipeline_root=str(home.artifacts),
            workspace_root=str(Path(scratch) / "workspace"),
            raise_on_error=True,
            enable_caching=True,
        )
        variables = variables_of_steps(progress.directory, Path(scratch))
        with environment(variables), interrupted_by_sigterm(), redirect_stdout(progress):
            graph = training(settings, data_and_code, checkpoints)
            try:
                graph()
            # kfp's word for "a step failed"; which and why is in the events
            except RuntimeError as error:
                progress.flush()
                if all(step.event == "finished" for step in progress.steps.values()):
                    raise
                logging.getLogger(__name__).debug("%s", error)
                return False
    return True


def _conclude(record: RunRecord, is_complete: bool) -> None:
    """Read what happened from the steps' results into the facts.

    Raises:
        TasteloopError, Broken: a step failed.
    """
    record.update(artifacts=_artifacts(record.facts.steps))
    _copy_records(record)
    if not is_complete:
        _raise_failure(record)
    end = end_of({step.step: step.outputs for step in record.facts.steps})
    record.update(**end.model_dump(exclude_unset=True))


def _artifacts(steps: Sequence[StepFacts]) -> dict[str, Path]:
    """The paths among the steps' results, by name."""
    paths = {}
    for step in steps:
        for name, value in step.outputs.items():
            if isinstance(value, str) and os.path.isabs(value):
                paths[name] = Path(value)
    return paths


def _raise_failure(record: RunRecord) -> None:
    failed: StepFacts = next(step for step in record.facts.steps if step.event != "finished")
    if failed.known:
        raise TasteloopError(str(failed.message))
    message = failed.message or "the process ended without a word (out of memory?)"
    raise Broken(f"step {failed.step} broke: {message}; log: {record.directory / LOG_FILE}")


def end_of(outputs: Mapping[str, Outputs]) -> RunEnd:
    """How a run ended in which every step that began has finished.

    Args:
        outputs: of each step that ran, by its name.
    """
    from pipelines.graphs.training import GATE, PROMOTE, RECORD, STEPS

    # 1. a step said no
    for step in STEPS:
        if step.refusal is None or step.name not in outputs or outputs[step.name]["passed"]:
            continue
        outcome, code = step.refusal.outcome, step.refusal.exit_code
        reason = str(outputs[step.name]["reason"])
        if GATE.name not in outputs:
            return RunEnd(outcome=outcome, reason=reason, code=code)
        # there is a model, and a version of it if it was new
        version = as_text(outputs.get(RECORD.name, {}).get("version"))
        return RunEnd(outcome=outcome, reason=reason, version=version, code=code)

    # 2. nobody said no, but the model is the champion
    if PROMOTE.name not in outputs:
        reason = "the champion already is this model"
        return RunEnd(outcome="unchanged", reason=reason, code=0)

    # 3. it is the champion now
    return RunEnd(
        outcome="promoted",
        reason=str(outputs[GATE.name]["reason"]),
        version=as_text(outputs[PROMOTE.name]["version"]),
        code=0,
    )


def _copy_records(record: RunRecord) -> None:
    """Copy what was found and decided beside the run's facts, so that it outlives the artifacts."""
    directory, artifacts = record.directory, record.facts.artifacts
    sources = {
        "validation.json": "validation",
        "validation.html": "validation",
        EVALUATION_FILE: "evaluation",
        VERDICT_FILE: "verdict",
        "report.html": "verdict",
    }
    for file_name, artifact in sources.items():
        source = artifacts.get(artifact, Path()) / file_name
        if source.is_file():
            shutil.copy(source, directory / file_name)
    if (directory / EVALUATION_FILE).is_file():
        evaluation = Evaluation.read(directory / EVALUATION_FILE)
        record.update(
            metrics={name: interval.value for name, interval in evaluation.metrics.items()},
            understanding=evaluation.understanding_summary(),
        )
