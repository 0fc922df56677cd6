"""Versions of the model and which of them is live, in MLflow (tracking and registry).

By default everything is on this machine: `sqlite:///<home>/mlflow.db` and artifacts under
`<home>/mlartifacts`; `MLFLOW_TRACKING_URI` names another store. Every version is a bundle directory with
its evaluation and verdict. The alias `@champion` says which version is live, the registered model's tag
`champions` which were live before it, oldest first.

A promotion writes that history (and when and in whose place) first and moves the alias last; a rollback moves the
alias first. A history that ends in the live version itself therefore is what a killed process left, and reads as if
the end were not there: at any point the state is the one before or the one after.

All of it happens under one file lock in `home()`, so that compare-and-swap is atomic between the processes
of a machine (and of machines that share that directory). MLflow's own API has no compare-and-swap: two
machines with homes of their own and one remote store can still promote at the same moment, and the later
one wins.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import re
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlparse
from urllib.request import url2pathname

from tasteloop import files
from tasteloop.errors import TasteloopError

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

logger = logging.getLogger(__name__)

MODEL = "tasteloop"
CHAMPION = "champion"

_HISTORY = "champions"
_KEY, _DIGEST, _PASSED, _REASONS, _REHEARSED = "key", "digest", "passed", "reasons", "rehearsed"
_PROMOTED = "promoted"  # when, and in whose place
EVALUATION, VERDICT, REHEARSAL = "evaluation.json", "verdict.json", "rehearsal.json"  # a version's run keeps them
_QUIET = {
    "MLFLOW_CONFIGURE_LOGGING": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}
_LOCK_SECONDS = 120.0
_REMEMBERED = 1000  # champions in the history


class ChampionMoved(TasteloopError):
    """The champion is no longer the one that the gate compared the candidate with."""


@dataclass(frozen=True)
class Recorded:
    """A registered version; not `new` where the same bundle, evaluation and verdict were there already."""

    version: str
    run_id: str
    new: bool


@dataclass(frozen=True)
class Champion:
    """A version whose bundle is here, at `path`, and whole."""

    version: str
    path: Path
    digest: str
    run_id: str


@dataclass(frozen=True)
class Version:
    """One line of `versions()`; times are in milliseconds since 1970 UTC.

    Attributes:
        champion: it is live.
        was: it was live before the champion, and a rollback can go back to it.
        promoted, replaced: when it was last promoted and in which version's place; None where it never was, or was
            before that was written down.
    """

    version: str
    digest: str
    run_id: str
    created: int
    passed: bool
    rehearsed: bool
    champion: bool
    was: bool = False
    promoted: int | None = None
    replaced: str | None = None


def tracking_uri() -> str:
    """`MLFLOW_TRACKING_URI`, else the SQLite file under `home()`."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{files.home() / 'mlflow.db'}"


def record(
    bundle: Path,
    evaluation: Path,
    verdict: Mapping[str, Any],
    settings: Mapping[str, Any],
    report: Path | None = None,
) -> Recorded:
    """Log a run (settings, metrics, bundle, evaluation, verdict, report) and register its bundle.

    The same bundle, evaluation and verdict make one version however often they are recorded; a run that was
    killed while it was logged is marked failed and logged again.

    Args:
        verdict: {"passed": bool, "reasons": [str], ...}
        settings: nested; logged flat, as `finetune.epochs`.

    Raises:
        TasteloopError: a bundle that is not whole, or an evaluation that is missing or cut off.
    """
    digest = _verify(bundle)
    measured = files.read_json(evaluation)
    key = _fingerprint([digest, files.sha256_file(evaluation), verdict])
    with _registry() as client:
        if known := client.search_model_versions(f"name = '{MODEL}' AND tag.`{_KEY}` = '{key}'"):
            return Recorded(str(known[0].version), str(known[0].run_id), new=False)
        run_id, artifacts = _log_run(client, key, digest, measured, verdict, settings)
        client.log_artifacts(run_id, str(bundle), "bundle")
        client.log_artifact(run_id, str(evaluation))
        client.log_dict(run_id, dict(verdict), VERDICT)
        if report is not None:
            client.log_artifact(run_id, str(report))
        client.set_terminated(run_id)
        version = client.create_model_version(
            MODEL,
            f"{artifacts}/bundle",
            run_id,
            tags={
                _KEY: key,
                _DIGEST: digest,
                _PASSED: _flag(verdict["passed"] is True),
                _REASONS: "; ".join(map(str, verdict.get("reasons", [])))[:5000],
            },
            await_creation_for=30,
        )
        return Recorded(str(version.version), run_id, new=True)


def champion() -> Champion | None:
    """The live version, its bundle verified; None while nothing has been promoted.

    Raises:
        TasteloopError: a bundle that is missing or not whole.
    """
    if _nothing_yet():
        return None
    with _registry() as client:
        live = _live(client)
        return _resolve(live) if live else None


def pointer() -> tuple[str, str] | None:
    """Version and digest of the champion, nothing verified nor fetched; None while nothing has been promoted."""
    if _nothing_yet():
        return None
    with _registry() as client:
        live = _live(client)
        return (str(live.version), live.tags[_DIGEST]) if live else None


def mark() -> tuple[int, ...] | None:
    """What differs after any change of a store on this machine, its time in ns first; None for another store."""
    uri = tracking_uri()
    if not uri.startswith("sqlite:///"):
        return None
    path = uri.removeprefix("sqlite:///")
    found = []
    for suffix in ("", "-wal"):
        with suppress(FileNotFoundError):  # a write-ahead log comes and goes
            found.append(Path(path + suffix).stat())
    times = [stat.st_mtime_ns for stat in found]
    return (max(times, default=0), *times, *(stat.st_size for stat in found))


def find(version: str) -> Champion:
    """Any registered version, its bundle verified."""
    with _registry() as client:
        return _resolve(_version(client, version))


def source(version: str) -> tuple[str, str]:
    """Where the store keeps the bundle of a version that passed gate and rehearsal, and its digest.

    Raises:
        TasteloopError: no such version, or one that has not passed.
    """
    with _registry() as client:
        found = _version(client, version)
        _ready(found)
        return str(client.get_model_version_download_uri(MODEL, found.version)), str(found.tags[_DIGEST])


def versions() -> list[Version]:
    """All registered versions, newest first."""
    if _nothing_yet():
        return []
    with _registry() as client:
        live = _live(client)
        before = _history(client, live) if live else []
        found = client.search_model_versions(f"name = '{MODEL}'", max_results=1000)
    return [
        Version(
            version=str(version.version),
            digest=version.tags.get(_DIGEST, ""),
            run_id=str(version.run_id),
            created=int(version.creation_timestamp or 0),
            passed=version.tags.get(_PASSED) == _flag(True),
            rehearsed=version.tags.get(_REHEARSED) == _flag(True),
            champion=live is not None and version.version == live.version,
            was=str(version.version) in before,
            **json.loads(version.tags.get(_PROMOTED, "{}")),
        )
        for version in sorted(found, key=lambda version: int(version.version), reverse=True)
    ]


def evidence(version: str) -> dict[str, str]:
    """What was measured and decided about a version, as its run keeps it: JSON by file name, without what is gone."""
    with _registry() as client, tempfile.TemporaryDirectory(prefix="tasteloop-") as folder:
        run_id = str(_version(client, version).run_id)
        there = {entry.path for entry in client.list_artifacts(run_id)}
        names = [name for name in (EVALUATION, VERDICT, REHEARSAL) if name in there]
        return {n: Path(client.download_artifacts(run_id, n, folder)).read_text(encoding="utf-8") for n in names}


def rehearsed(version: str, rehearsal: Path) -> None:
    """Attach a rehearsal's outcome (`rehearsal.json`) to the version that it rehearsed.

    Raises:
        TasteloopError: it is about another bundle.
    """
    outcome = files.read_json(rehearsal)
    with _registry() as client:
        candidate = _version(client, version)
        damaged = not outcome["passed"] and not outcome["digest"]  # the bundle could not be told
        if not damaged and outcome["digest"] != candidate.tags[_DIGEST]:
            raise TasteloopError(
                f"{rehearsal} is about the bundle {outcome['digest'][:12]}, not about version {version} "
                f"({candidate.tags[_DIGEST][:12]}); rehearse that version's bundle"
            )
        client.log_artifact(candidate.run_id, str(rehearsal))
        client.set_model_version_tag(MODEL, version, _REHEARSED, _flag(outcome["passed"] is True))


def promote(version: str, expected: str | None) -> Champion:
    """Make a version the champion if the champion still is the one that its gate compared it with.

    Promoting the champion again changes nothing, so that a killed promotion can be tried again.

    Args:
        expected: digest of the champion at the gate's time; None or "" where there was none.

    Raises:
        ChampionMoved: another version was promoted meanwhile.
        TasteloopError: the gate or the rehearsal did not pass, or the bundle is not whole.
    """
    with _registry() as client:
        candidate, live = _version(client, version), _live(client)
        if live is not None and live.version == candidate.version:
            return _resolve(live)
        present = live.tags[_DIGEST] if live else None
        if present != (expected or None):
            raise ChampionMoved(
                f"version {version} was compared with {_named(expected)}, but the champion now is "
                f"{_named(present)}: compare it again (run the pipeline once more)"
            )
        _ready(candidate)
        promoted = _resolve(candidate)
        if live is not None:
            history = [*_history(client, live), str(live.version)]
            client.set_registered_model_tag(MODEL, _HISTORY, json.dumps(history[-_REMEMBERED:]))
        told = {"promoted": int(time.time() * 1000), "replaced": str(live.version) if live else None}
        client.set_model_version_tag(MODEL, version, _PROMOTED, json.dumps(told))
        client.set_registered_model_alias(MODEL, CHAMPION, version)
        return promoted


def _ready(candidate: ModelVersion) -> None:
    for tag, what in ((_PASSED, "the gate"), (_REHEARSED, "a rehearsal")):
        if candidate.tags.get(tag) != _flag(True):
            raise TasteloopError(f"version {candidate.version} has not passed {what}, so it cannot be promoted")


def previous() -> tuple[str, str] | None:
    """Version and digest of the champion before this one: where a rollback goes. None where there is none."""
    if _nothing_yet():
        return None
    with _registry() as client:
        live = _live(client)
        history = _history(client, live) if live else []
        return (history[-1], _version(client, history[-1]).tags[_DIGEST]) if history else None


def rollback(expected: str | None = None) -> Champion:
    """Make the previous champion live again. Promote A, B, C: one rollback gives B, the next A.

    Args:
        expected: digest of the champion that shall go; None: whichever it is.

    Raises:
        ChampionMoved: another one is live.
        TasteloopError: there is no previous champion, or its bundle is not whole.
    """
    nowhere = "there is no previous champion to go back to (live: {})"
    if _nothing_yet():
        raise TasteloopError(nowhere.format("none"))
    with _registry() as client:
        live = _live(client)
        if expected is not None and (present := live.tags[_DIGEST] if live else None) != expected:
            raise ChampionMoved(f"{_named(expected)} is live no more, {_named(present)} is: nothing was rolled back")
        history = _history(client, live) if live else []
        if not live or not history:
            raise TasteloopError(nowhere.format(f"version {live.version}" if live else "none"))
        previous = _resolve(_version(client, history[-1]))
        client.set_registered_model_alias(MODEL, CHAMPION, previous.version)
        client.set_registered_model_tag(MODEL, _HISTORY, json.dumps(history[:-1]))
        return previous


@contextmanager
def _registry() -> Iterator[MlflowClient]:
    """The client, alone: the lock also keeps two first users from creating the database at once."""
    home = files.home()
    with files.locked(home / "registry.lock", _LOCK_SECONDS, 0.05):
        yield _client(tracking_uri(), home)


@cache
def _client(uri: str, home: Path) -> MlflowClient:
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    try:
        client = MlflowClient(tracking_uri=uri, registry_uri=os.environ.get("MLFLOW_REGISTRY_URI") or uri)
        if client.get_experiment_by_name(MODEL) is None:
            local = urlparse(uri).scheme not in ("http", "https")
            client.create_experiment(MODEL, (home / "mlartifacts").as_uri() if local else None)
        if not client.search_registered_models(f"name = '{MODEL}'"):
            client.create_registered_model(MODEL)
    except MlflowException as error:
        raise TasteloopError(f"the registry {uri} cannot be used: {error}") from error
    return client


def _nothing_yet() -> bool:
    """Whether the local store was never used. Creating it takes seconds that no question need wait for."""
    return not os.environ.get("MLFLOW_TRACKING_URI") and not (files.home() / "mlflow.db").exists()


def _log_run(
    client: MlflowClient,
    key: str,
    digest: str,
    measured: Mapping[str, Any],
    verdict: Mapping[str, Any],
    settings: Mapping[str, Any],
) -> tuple[str, str]:
    """A new run's id and artifact URI, its parameters and metrics logged."""
    from mlflow.entities import Metric, Param

    experiment = client.get_experiment_by_name(MODEL)
    assert experiment is not None
    for left in client.search_runs(
        [experiment.experiment_id], f"tags.`{_KEY}` = '{key}' AND attributes.status = 'RUNNING'"
    ):
        client.set_terminated(left.info.run_id, "FAILED")
    lineage = {f"lineage.{name}": str(value) for name, value in measured.get("lineage", {}).items()}
    run = client.create_run(
        experiment.experiment_id,
        tags={_KEY: key, _DIGEST: digest, _PASSED: _flag(verdict["passed"] is True), **lineage},
        run_name=digest[:12],
    )
    now = int(time.time() * 1000)
    metrics = [Metric(name, value, now, 0) for name, value in _metrics(measured)]
    parameters = [Param(name, value) for name, value in _flat(settings)]
    for start in range(0, max(len(metrics), len(parameters)), 100):  # MLflow takes 100 parameters a call
        client.log_batch(
            run.info.run_id, metrics[start : start + 100], parameters[start : start + 100], synchronous=True
        )
    return run.info.run_id, str(run.info.artifact_uri)


def _metrics(measured: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Each metric with its interval."""
    groups = {"": measured.get("metrics", {})}
    groups |= {f"baseline.{name}.": values for name, values in measured.get("baselines", {}).items()}
    groups |= {f"difference.{name}.": values for name, values in measured.get("differences", {}).items()}
    for prefix, values in groups.items():
        for name, estimate in values.items():
            for part, suffix in (("value", ""), ("low", ".low"), ("high", ".high")):
                number = (estimate or {}).get(part)
                if isinstance(number, int | float) and math.isfinite(number):
                    yield _name(f"{prefix}{name}{suffix}"), float(number)


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            text = value if isinstance(value, str) else json.dumps(value, default=str)
            yield _name(f"{prefix}{name}"), text[:6000]


def _name(text: str) -> str:
    """As MLflow allows: `@` becomes `_at_`, any other character it refuses (the `=` of a slice) `_`."""
    return re.sub(r"[^\w .:/-]", "_", text.replace("@", "_at_"))


def _live(client: MlflowClient) -> ModelVersion | None:
    registered = client.get_registered_model(MODEL)
    version = registered.aliases.get(CHAMPION)
    return client.get_model_version(MODEL, str(version)) if version is not None else None


def _history(client: MlflowClient, live: ModelVersion) -> list[str]:
    history: list[str] = json.loads(client.get_registered_model(MODEL).tags.get(_HISTORY, "[]"))
    while history and history[-1] == str(live.version):
        history.pop()
    return history


def _version(client: MlflowClient, version: str) -> ModelVersion:
    from mlflow.exceptions import MlflowException

    try:
        return client.get_model_version(MODEL, version)
    except MlflowException:
        known = ", ".join(sorted((str(v.version) for v in client.search_model_versions(f"name = '{MODEL}'")), key=int))
        raise TasteloopError(f"there is no version {version!r}; registered: {known or 'none'}") from None


def _resolve(version: ModelVersion) -> Champion:
    """Bring the version's bundle here where it is not, and verify it."""
    digest = version.tags[_DIGEST]
    source = str(version.source)
    location = urlparse(source)
    if location.scheme in ("", "file"):
        path = Path(url2pathname(location.path))
    else:
        path = files.cache() / "bundles" / digest
        if not path.exists():
            from mlflow.artifacts import download_artifacts

            with files.atomic_directory(path) as temporary:
                fetched = Path(download_artifacts(source, dst_path=str(temporary), tracking_uri=tracking_uri()))
                for entry in list(fetched.iterdir()) if fetched != temporary else []:
                    entry.rename(temporary / entry.name)
    if not path.is_dir():
        raise TasteloopError(
            f"the bundle of version {version.version} is gone: no directory {path}; "
            "restore it, or promote another version"
        )
    if (found := _verify(path)) != digest:
        raise TasteloopError(
            f"the bundle of version {version.version} at {path} is another one "
            f"({found[:12]} instead of {digest[:12]}); restore it, or promote another version"
        )
    return Champion(str(version.version), path, digest, str(version.run_id))


def _verify(bundle: Path) -> str:
    """The digest of a bundle, all of its files checked against the manifest."""
    from tasteloop.bundle import verify

    digest: str = verify(bundle)
    return digest


def _fingerprint(parts: list[Any]) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def _flag(value: bool) -> str:
    return "true" if value else "false"


def _named(digest: str | None) -> str:
    return f"the champion {digest[:12]}" if digest else "no champion"
