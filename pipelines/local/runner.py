"""A run of the training pipeline on this machine: kfp's subprocess runner, its cache made sound, a
console.

A run writes `runs/<id>/` below the home: `run.json` (what `tasteloop status` reads),
`settings.yaml`, `steps.jsonl` (the steps' own events), `log.txt` (everything that was printed), and
copies of the validation, evaluation, verdict and report.

A home can be moved, or restored from a backup elsewhere: what is written with absolute paths below
it is read with the same paths below the home of today.

kfp's local cache asks whether a cached step's artifacts exist. Here a hit also needs them
unchanged, and the key covers what the settings do not say: the sources' contents, the pseudonym
key, the code, the libraries.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import logging
import os
import secrets
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import IO, Any

import yaml

from components.step import EVENTS, LOCK, MARK, QUIET, RUN
from pipelines.settings import Settings
from tasteloop.errors import TasteloopError
from tasteloop.files import (
    atomic_write,
    home,
    make_directory,
    read_json,
    sha256_file,
    sha256_tree,
    write_json,
)
from tasteloop.redaction import redact, redact_strings

_DECIDING = (
    "great-expectations",
    "numpy",
    "polars",
    "scikit-learn",
    "tokenizers",
    "torch",
    "transformers",
)

Say = Callable[[str], None]


class Broken(Exception):
    """A step failed for a reason that is not the user's; the text names the log."""


def run(settings: Settings, say: Say) -> dict[str, Any]:
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
    fingerprint = _fingerprint(settings)
    checkpoints = _digest(fingerprint, *(getattr(settings, s).model_dump_json() for s in _TRAINED))[
        :16
    ]
    with _alone(checkpoints, say), _recorded(settings) as (directory, facts):
        say(f"run [bold]{facts['id']}[/] (profile {settings.profile}) in {directory}")
        with _Watch(directory, say) as watch:
            done = _execute(settings, fingerprint, checkpoints, watch)
        facts["steps"] = list(watch.steps.values())
        _conclude(facts, directory, done)
    return facts


_TRAINED = ("ingest", "prepare", "training")  # the sections that a checkpoint depends on


def _fingerprint(settings: Settings) -> str:
    from tasteloop.datasets.fetch import resolve_encoder
    from tasteloop.datasets.ingest import source_fingerprint
    from tasteloop.version import code_version

    encoder = resolve_encoder(settings.training.encoder)
    return _digest(
        source_fingerprint(settings.ingest),
        sha256_tree(Path(encoder)) if Path(encoder).is_dir() else encoder,
        code_version(),
        *(f"{name}=={metadata.version(name)}" for name in _DECIDING),
    )


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


@contextmanager
def _alone(work: str, say: Say) -> Iterator[None]:
    """Wait while another run trains on the same data with the same settings, then use its
    results.
    """
    path = home() / "pipeline" / "locks" / work
    make_directory(path.parent)
    with path.open("wb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another run is doing the same work; waiting to use its results")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def _recorded(settings: Settings) -> Iterator[tuple[Path, dict[str, Any]]]:
    """A new run's directory and its facts, written when the run begins and when it ends, however it
    ends.
    """
    started = datetime.now(UTC)
    run_id = f"{started:%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
    directory = home() / "runs" / run_id
    make_directory(directory)
    resolved = redact_strings(settings.of_training())
    (directory / "settings.yaml").write_text(
        yaml.safe_dump(resolved, sort_keys=False), encoding="utf-8"
    )
    facts: dict[str, Any] = {
        "id": run_id,
        "home": str(home()),
        "profile": settings.profile,
        "outcome": "running",
        "started": started.isoformat(timespec="seconds"),
        "settings": resolved,
    }
    began = time.perf_counter()
    with (directory / LOCK).open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        write_json(directory / "run.json", facts)
        try:
            yield directory, facts
        except BaseException as error:
            interrupted = isinstance(error, KeyboardInterrupt)
            facts.update(
                outcome="interrupted" if interrupted else "failed", reason=redact(str(error))
            )
            raise
        finally:
            seconds = time.perf_counter() - began
            work = sum(s.get("seconds", 0) for s in facts.get("steps", []) if not s["reused"])
            facts.update(
                seconds=round(seconds, 3), work=round(work, 3), overhead=round(seconds - work, 3)
            )
            write_json(directory / "run.json", facts)


def is_alive(directory: Path) -> bool:
    """Whether the run that writes to this directory still lives."""
    try:
        with (directory / LOCK).open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _execute(settings: Settings, fingerprint: str, checkpoints: str, watch: _Watch) -> bool:
    """Run the graph; False when a step failed."""
    from kfp import local

    from pipelines.graphs.training import training

    root = home() / "pipeline"
    with tempfile.TemporaryDirectory(prefix="tasteloop-") as scratch, _cache(root / "cache", watch):
        environment = {
            **QUIET,
            RUN: str(watch.directory),
            "TMPDIR": scratch,  # kfp leaves the steps' sources in there
            "HF_HUB_OFFLINE": "1",  # what a step needs was fetched for the fingerprint
            "PYTHONUNBUFFERED": "1",  # progress is shown as it is made
            "PYTHONPATH": os.pathsep.join(filter(None, [_SOURCES, os.environ.get("PYTHONPATH")])),
        }
        local.init(
            local.SubprocessRunner(use_venv=False),
            pipeline_root=str(root / "artifacts"),
            workspace_root=str(Path(scratch) / "workspace"),
            raise_on_error=True,
            enable_caching=True,
        )
        with _environment(environment), _terminable(), redirect_stdout(watch):
            graph = training(settings, fingerprint, checkpoints)
            try:
                graph()
            # kfp's word for "a step failed"; which and why is in the events
            except RuntimeError as error:
                watch.flush()
                if not any(s["event"] != "finished" for s in watch.steps.values()):
                    raise
                logging.getLogger(__name__).debug("%s", error)
                return False
    return True


_SOURCES = str(Path(__file__).resolve().parents[2])


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM ends a run as Ctrl-C does: recorded, its steps interrupted."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _cache(root: Path, watch: _Watch) -> Iterator[None]:
    """kfp's local cache, sealed: for a hit every artifact must hash to what it was when the step
    ended.
    """
    from kfp import dsl
    from kfp.local import cache

    here = str(home())

    def seal(outputs: Mapping[str, Any]) -> dict[str, str]:
        paths = {name: Path(a.path) for name, a in outputs.items() if isinstance(a, dsl.Artifact)}
        return {name: sha256_tree(p) if p.is_dir() else sha256_file(p) for name, p in paths.items()}

    class SealedCache(cache.LocalCache):  # type: ignore[misc]
        name = ""

        def compute_key(self, component_name: str, **parts: Any) -> str:
            self.name = component_name.removeprefix("comp-")
            return str(super().compute_key(component_name, **parts))

        # Keys and entries have paths below the home without the home, so that they hold after a
        # move.

        @staticmethod
        def _serialize_value_for_key(value: Any) -> Any:
            return move_paths(cache.LocalCache._serialize_value_for_key(value), here, _HOME)

        @staticmethod
        def _serialize_outputs(outputs: dict[str, Any]) -> dict[str, Any]:
            return dict(move_paths(cache.LocalCache._serialize_outputs(outputs), here, _HOME))

        @staticmethod
        def _deserialize_outputs(serialized: dict[str, Any]) -> dict[str, Any]:
            return dict(cache.LocalCache._deserialize_outputs(move_paths(serialized, _HOME, here)))

        def put(self, key: str, outputs: dict[str, Any]) -> None:
            write_json(root / f"{key}.seal", seal(outputs))
            super().put(key, outputs)

        def get(self, key: str) -> dict[str, Any] | None:
            outputs: dict[str, Any] | None = super().get(key)
            if outputs is None or seal(outputs) != read_json(root / f"{key}.seal"):
                return None
            plain = {k: v.path if isinstance(v, dsl.Artifact) else v for k, v in outputs.items()}
            watch.reused(self.name, plain)
            return outputs

    sealed = SealedCache(str(root))
    original = cache.get_local_cache
    cache.get_local_cache = lambda: sealed  # kfp has no setting for it
    try:
        yield
    finally:
        cache.get_local_cache = original


_HOME = "<home>"  # begins a path below the home in the cache
_ARTIFACTS = "/pipeline/artifacts/"  # below the home


def move_paths(value: Any, before: str, now: str) -> Any:
    """A JSON value whose strings that are paths below one directory are the same paths below
    another.
    """
    match value:
        case str() if value == before or value.startswith(f"{before}/"):
            return now + value[len(before) :]
        case dict():
            return {key: move_paths(each, before, now) for key, each in value.items()}
        case list():
            return [move_paths(each, before, now) for each in value]
    return value


def _home_of(facts: Mapping[str, Any]) -> str:
    """The home that a run was in. Runs of earlier versions did not say it, but where their
    artifacts were.
    """
    paths = (str(path) for path in facts.get("artifacts", {}).values())
    return str(
        facts.get("home")
        or next((p.partition(_ARTIFACTS)[0] for p in paths if _ARTIFACTS in p), home())
    )


class _Watch(io.TextIOBase):
    """Stands in for stdout while kfp runs: all goes to the log, the steps' own lines to the console
    as well.

    `steps` maps a step's name to its last event, in the order in which the steps ran.
    """

    def __init__(self, directory: Path, say: Say) -> None:
        self.directory, self.say = directory, say
        self.steps: dict[str, dict[str, Any]] = {}
        self._log: IO[str] = (directory / "log.txt").open("w", encoding="utf-8")
        (directory / EVENTS).touch()
        self._events: IO[str] = (directory / EVENTS).open(encoding="utf-8")
        self._running = ""
        self._line = ""

    def write(self, text: str) -> int:
        *lines, self._line = (self._line + text).split("\n")
        # whole lines: what comes in parts would hide a secret's end
        for line in map(redact, lines):
            self._log.write(f"{line}\n")
            if line.lstrip().startswith(MARK):
                self._drain()
            elif self._running and line.strip():
                self.say(f"    [dim]{_plain(line.removeprefix('    ').rstrip())}[/]")
        return len(text)

    def flush(self) -> None:
        if not self._log.closed:
            self._drain()
            self._log.flush()

    def close(self) -> None:
        super().close()  # which flushes
        self._log.write(redact(self._line))
        self._log.close()
        self._events.close()

    def reused(self, name: str, outputs: Mapping[str, Any]) -> None:
        self._drain()
        self.steps[name] = {"step": name, "event": "finished", "reused": True, "outputs": outputs}
        self.say(f"[green]=[/] {name}: nothing changed, result used again")

    def _drain(self) -> None:
        for line in self._events:
            event = json.loads(line)
            name = event["step"]
            self.steps[name] = {**event, "reused": False}
            self._running = name if event["event"] == "started" else ""
            match event["event"]:
                case "started":
                    self.say(f"[cyan]>[/] {name}")
                case "finished":
                    self.say(f"[green]✓[/] {name}: {event['seconds']:.1f} s")
                case _:
                    self.say(f"[red]✗[/] {name}: {event['seconds']:.1f} s")


def _plain(text: str) -> str:
    return text.replace("[", r"\[")


def _conclude(facts: dict[str, Any], directory: Path, done: bool) -> None:
    """Read what happened from the steps' results into the facts; raise for a step that failed."""
    steps = {s["step"]: s for s in facts["steps"]}
    outputs: dict[str, Any] = {name: s.get("outputs", {}) for name, s in steps.items()}
    facts["artifacts"] = {
        k: v
        for step in outputs.values()
        for k, v in step.items()
        if isinstance(v, str) and os.path.isabs(v)
    }
    _keep(facts, directory)
    if not done:
        failed = next(s for s in facts["steps"] if s["event"] != "finished")
        if failed.get("known"):
            raise TasteloopError(failed["message"])
        why = failed.get("message", "the process ended without a word (out of memory?)")
        raise Broken(f"step {failed['step']} broke: {why}; log: {directory / 'log.txt'}")
    facts.update(_outcome(outputs))


def _outcome(outputs: Mapping[str, Any]) -> dict[str, Any]:
    """How a run ended in which every step that began has finished: outcome, reason and exit code.

    Args:
        outputs: of each step that ran, by its name.
    """
    from pipelines.graphs.training import GATE, PROMOTE, RECORD, STEPS

    # 1. a step said no
    for step in STEPS:
        if step.refusal and step.name in outputs and not outputs[step.name]["passed"]:
            outcome = {"outcome": step.refusal.outcome, "reason": outputs[step.name]["reason"]}
            if GATE.name in outputs:  # there is a model, and a version of it if it was new
                outcome["version"] = outputs.get(RECORD.name, {}).get("version")
            return {**outcome, "code": step.refusal.exit_code}

    # 2. nobody said no, but the model is the champion
    if PROMOTE.name not in outputs:
        return {
            "outcome": "unchanged",
            "reason": "the champion already is this model",
            "code": 0,
        }

    # 3. it is the champion now
    return {
        "outcome": "promoted",
        "reason": outputs[GATE.name]["reason"],
        "version": outputs[PROMOTE.name]["version"],
        "code": 0,
    }


def _keep(facts: dict[str, Any], directory: Path) -> None:
    """Copy the run's verdicts beside it, so that they outlive the artifacts."""
    made = {name: Path(path) for name, path in facts["artifacts"].items()}
    wanted = {
        "validation.json": made.get("validation", Path()) / "validation.json",
        "validation.html": made.get("validation", Path()) / "validation.html",
        "evaluation.json": made.get("evaluation", Path()) / "evaluation.json",
        "verdict.json": made.get("verdict", Path()) / "verdict.json",
        "report.html": made.get("verdict", Path()) / "report.html",
    }
    for name, source in wanted.items():
        if source.is_file():
            shutil.copy(source, directory / name)
    if (directory / "evaluation.json").is_file():
        measured = read_json(directory / "evaluation.json")["metrics"]
        facts["metrics"] = {
            name: (interval or {}).get("value") for name, interval in measured.items()
        }


def runs() -> list[dict[str, Any]]:
    """The facts of all runs, newest first; one that was killed says so.

    Their paths are below the home of today; `home` is the one that the run was in.
    """
    found = []
    for path in sorted((home() / "runs").glob("*/run.json"), reverse=True):
        facts = read_json(path)
        before = _home_of(facts)
        facts = {**move_paths(facts, before, str(home())), "home": before}
        if facts["outcome"] == "running" and not is_alive(path.parent):
            facts["outcome"] = "killed"
        found.append(facts)
    return found


def tell(facts: Mapping[str, Any], say: Say) -> None:
    """The end of a run in a few lines: what happened, why, and what to do next."""
    version = f", version {facts['version']}" if facts.get("version") else ""
    colour = "green" if facts["code"] == 0 else "red"
    say(f"[bold {colour}]{facts['outcome']}[/]{version}")
    for reason in facts["reason"].split("; "):
        say(f"  {_plain(reason)}")
    say(
        f"[dim]{facts['seconds']:.1f} s, of which {facts['overhead']:.1f} s were not the steps' own work[/]"
    )
    if facts["outcome"] == "promoted":
        say("next: tasteloop serve, tasteloop report")
    else:
        say("more: tasteloop report")


def page(run_id: str | None, output: Path | None) -> Path:
    """Write a run's page (the last run with one by default) and return where it is."""
    candidates = (
        [home() / "runs" / run_id]
        if run_id
        else [home() / "runs" / facts["id"] for facts in runs()]
    )
    for directory in candidates:
        target = output or home() / "reports" / f"{directory.name}.html"
        if (directory / "evaluation.json").is_file():
            from validation.pages.evaluation import write_report

            verdict = directory / "verdict.json"
            write_report(
                read_json(directory / "evaluation.json"),
                read_json(verdict) if verdict.is_file() else None,
                target,
            )
            return target.absolute()
        if (directory / "validation.html").is_file():
            atomic_write(target, (directory / "validation.html").read_bytes())
            return target.absolute()
    if run_id and not candidates[0].is_dir():
        known = ", ".join(facts["id"] for facts in runs()[:5])
        raise TasteloopError(f"no run {run_id!r}; the last ones: {known or 'none'}")
    raise TasteloopError(
        f"{'run ' + run_id if run_id else 'no run'} has got as far as a report; try: tasteloop run"
    )
