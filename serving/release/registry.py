"""Versions of the model and which of them is live, in MLflow (tracking and registry).

By default everything is on this machine: the SQLite file `<home>/mlflow.db` and artifacts under
`<home>/mlartifacts`; `MLFLOW_TRACKING_URI` names another store. Every version is a bundle directory
with its evaluation and verdict. The alias `@champion` says which version is live, the registered
model's tag `champions` which were live before it, oldest first.

A promotion writes that history (and when and in whose place) first and moves the alias last; a
rollback moves the alias first. A history that ends in the live version itself therefore is what a
killed process left, and reads as if the end were not there: at any point the state is the one
before or the one after.

A home remembers its last champion in `champion.json`. A registry without a champion, in a home that
has had one, is not a new registry but a lost one (an emptied file, another server): it is refused,
since a gate that asked it would compare a candidate with nothing. MLflow writes absolute paths; the
first who opens the database of a home that was moved or restored elsewhere rewrites them.

All of it happens under one file lock in `home()`, so that compare-and-swap is atomic between the
processes of a machine (and of machines that share that directory). MLflow's own API has no
compare-and-swap: two machines with homes of their own and one remote store can still promote at the
same moment, and the later one wins.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import re
import sqlite3
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote, urlparse
from urllib.request import url2pathname

from tasteloop import files
from tasteloop.errors import TasteloopError
from tasteloop.redaction import redact

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

logger = logging.getLogger(__name__)

MODEL = "tasteloop"
CHAMPION = "champion"

_HISTORY = "champions"
_KEY, _DIGEST, _PASSED, _REASONS, _REHEARSED = "key", "digest", "passed", "reasons", "rehearsed"
_PROMOTED = "promoted"  # when, and in whose place
# a version's run keeps them
EVALUATION, VERDICT, REHEARSAL = "evaluation.json", "verdict.json", "rehearsal.json"
_QUIET = {
    "MLFLOW_CONFIGURE_LOGGING": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}
DATABASE, ARTIFACTS = "mlflow.db", "mlartifacts"
# the champion that this home saw last; its version is null after `reset`
LAST_CHAMPION = "champion.json"
# the version that a server of this home served last: what a start falls back on
SERVED = "served.json"
_LEDGER = Path("monitor", "ledger.jsonl")  # whose entries are about champions
_SQLITE = b"SQLite format 3\0"  # how such a file begins
_PLAIN = re.compile(r"[\w/ .,+=~-]+")  # paths that need no escape in an SQLite URI
_LOCATIONS = (  # where MLflow's database has the absolute locations of artifacts
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
    ("logged_models", "artifact_location"),
)
_LOCK_SECONDS = 120.0
_REMEMBERED = 1000  # champions in the history


class ChampionMoved(TasteloopError):
    """The champion is no longer the one that the gate compared the candidate with."""


class RegistryLost(TasteloopError):
    """What the home's registry was is damaged, or has no champion although this home has had
    one.
    """


@dataclass(frozen=True)
class Recorded:
    """A registered version; not `new` where the same bundle, evaluation and verdict were there
    already.
    """

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
        promoted, replaced: when it was last promoted and in which version's place; None where it
            never was, or was before that was written down.
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
    return os.environ.get("MLFLOW_TRACKING_URI") or sqlite_uri(files.home() / DATABASE)


def sqlite_uri(path: Path) -> str:
    """The SQLAlchemy URI of an SQLite file whose path may have any character.

    SQLAlchemy takes `?` for the end of a path and decodes `%`. A path that has more than plain
    characters is therefore handed to SQLite itself as a `file:` URI. Its slashes are escaped too:
    MLflow makes the folders above the first slash of what it reads there, which would be folders
    that nobody asked for.
    """
    if _PLAIN.fullmatch(str(path)):
        return f"sqlite:///{path}"
    from sqlalchemy import URL

    return URL.create(
        "sqlite", database="file:" + quote(str(path), safe=""), query={"uri": "true"}
    ).render_as_string()


@cache
def sqlite_path(uri: str) -> Path | None:
    """The file of an SQLite URI; None for another store."""
    if not uri.startswith("sqlite:///"):
        return None
    if _PLAIN.fullmatch(path := uri.removeprefix("sqlite:///")):
        return Path(path)
    from sqlalchemy import make_url

    database = make_url(uri).database or ""
    return Path(
        unquote(database.removeprefix("file:")) if database.startswith("file:") else database
    )


def require_database() -> None:
    """Refuse a lost database at once, before hours of work that would end at it; MLflow is not
    imported for it.

    Raises:
        RegistryLost: the SQLite file is missing, empty or none, although it was in use.
    """
    if (database := sqlite_path(tracking_uri())) is not None:
        _check_database(database)


def record(
    bundle: Path,
    evaluation: Path,
    verdict: Mapping[str, Any],
    settings: Mapping[str, Any],
    report: Path | None = None,
) -> Recorded:
    """Log a run (settings, metrics, bundle, evaluation, verdict, report) and register its bundle.

    The same bundle, evaluation and verdict make one version however often they are recorded; a run
    that was killed while it was logged is marked failed and logged again.

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
    """Version and digest of the champion, nothing verified nor fetched; None while nothing has been
    promoted.
    """
    if _nothing_yet():
        return None
    with _registry(artifacts=False) as client:
        live = _live(client)
        return (str(live.version), live.tags[_DIGEST]) if live else None


def mark() -> tuple[int, ...] | None:
    """What differs after any change of a store on this machine, its time in ns first; None for
    another store.
    """
    path = sqlite_path(tracking_uri())
    if path is None:
        return None
    found = []
    for suffix in ("", "-wal"):
        with suppress(FileNotFoundError):  # a write-ahead log comes and goes
            found.append(path.with_name(path.name + suffix).stat())
    times = [stat.st_mtime_ns for stat in found]
    return (max(times, default=0), *times, *(stat.st_size for stat in found))


def find(version: str) -> Champion:
    """Any registered version, its bundle verified."""
    with _registry() as client:
        return _resolve(_version(client, version))


def find_bundle(digest: str) -> Path:
    """The bundle with a digest, whole, where it is on this machine; the registry is not asked.

    Raises:
        TasteloopError: it is not here, or not whole.
    """
    for path in [
        files.cache() / "bundles" / digest,
        *(files.home() / ARTIFACTS).glob("*/artifacts/bundle"),
    ]:
        manifest = path / "manifest.json"
        if manifest.is_file() and files.sha256_file(manifest) == digest:
            _verify(path)
            return path
    raise TasteloopError(
        f"there is no bundle {digest[:12]} below {files.home() / ARTIFACTS}; restore it from a backup"
    )


def source(version: str) -> tuple[str, str]:
    """Where the store keeps the bundle of a version that passed gate and rehearsal, and its digest.

    Raises:
        TasteloopError: no such version, or one that has not passed.
    """
    with _registry() as client:
        found = _version(client, version)
        _ready(found)
        return str(client.get_model_version_download_uri(MODEL, found.version)), str(
            found.tags[_DIGEST]
        )


def versions() -> list[Version]:
    """All registered versions, newest first."""
    if _nothing_yet():
        return []
    with _registry(artifacts=False) as client:
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
    """What was measured and decided about a version, as its run keeps it: JSON by file name,
    without what is gone.
    """
    with _registry() as client, tempfile.TemporaryDirectory(prefix="tasteloop-") as folder:
        run_id = str(_version(client, version).run_id)
        there = {entry.path for entry in client.list_artifacts(run_id)}
        names = [name for name in (EVALUATION, VERDICT, REHEARSAL) if name in there]
        return {
            n: Path(client.download_artifacts(run_id, n, folder)).read_text(encoding="utf-8")
            for n in names
        }


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
        live, candidate = _live(client), _version(client, version)
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
        told = {
            "promoted": int(time.time() * 1000),
            "replaced": str(live.version) if live else None,
        }
        client.set_model_version_tag(MODEL, version, _PROMOTED, json.dumps(told))
        client.set_registered_model_alias(MODEL, CHAMPION, version)
        _remember(candidate)
        return promoted


def _ready(candidate: ModelVersion) -> None:
    for tag, what in ((_PASSED, "the gate"), (_REHEARSED, "a rehearsal")):
        if candidate.tags.get(tag) != _flag(True):
            raise TasteloopError(
                f"version {candidate.version} has not passed {what}, so it cannot be promoted"
            )


def previous() -> tuple[str, str] | None:
    """Version and digest of the champion before this one: where a rollback goes. None where there
    is none.
    """
    if _nothing_yet():
        return None
    with _registry(artifacts=False) as client:
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
            raise ChampionMoved(
                f"{_named(expected)} is live no more, {_named(present)} is: nothing was rolled back"
            )
        history = _history(client, live) if live else []
        if not live or not history:
            raise TasteloopError(nowhere.format(f"version {live.version}" if live else "none"))
        candidate = _version(client, history[-1])
        previous = _resolve(candidate)
        client.set_registered_model_alias(MODEL, CHAMPION, previous.version)
        client.set_registered_model_tag(MODEL, _HISTORY, json.dumps(history[:-1]))
        _remember(candidate)
        return previous


def reset() -> Path | None:
    """Begin without a champion: set a lost registry aside, and forget that this home has had one.

    Returns:
        where the database is now; None where there was none, or the registry is a server.

    Raises:
        TasteloopError: the registry is not lost, or cannot be asked.
    """
    try:
        live = pointer()
    except RegistryLost:
        pass
    else:
        found = (
            f"has a champion, version {live[0]} ({live[1][:12]})" if live else "has had no champion"
        )
        raise TasteloopError(
            f"the registry {address()} {found}: nothing is lost, and nothing was reset"
        )
    home, database, aside = files.home(), sqlite_path(tracking_uri()), None
    with _locked():
        if database is not None and database.exists():
            stamp = f"lost-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}"
            for suffix in ("-wal", "-shm", "-journal", ""):
                with suppress(FileNotFoundError):
                    database.with_name(database.name + suffix).rename(
                        database.with_name(f"{DATABASE}{suffix}.{stamp}")
                    )
            aside = database.with_name(f"{DATABASE}.{stamp}")
        (home / SERVED).unlink(missing_ok=True)
        files.write_json(home / LAST_CHAMPION, {"version": None, "digest": None, "registry": None})
    _client.cache_clear()
    return aside


def _locked() -> AbstractContextManager[None]:
    return files.locked(files.home() / "registry.lock", _LOCK_SECONDS, 0.05)


@contextmanager
def _registry(artifacts: bool = True) -> Iterator[MlflowClient]:
    """The client, alone: the lock also keeps two first users from creating the database at once.

    Args:
        artifacts: whether their locations are needed. Who needs none rewrites none, so that two
            machines that see one home at different paths do not rewrite them in turn for ever.
    """
    home, uri = files.home(), tracking_uri()
    database = sqlite_path(uri)
    with _locked(), _plain_errors(database):
        if database is not None:
            _check_database(database)
        client = _client(uri, home)
        if database is not None:
            _reopen_if_replaced(client, uri, database)
            if artifacts and database.absolute() == home / DATABASE:
                _relocate(database, (home / ARTIFACTS).as_uri())
        yield client


@contextmanager
def _plain_errors(database: Path | None) -> Iterator[None]:
    """Say in one message what MLflow, its database or the network had to say in a traceback."""
    try:
        yield
    except TasteloopError:
        raise
    except Exception as error:
        if type(error).__module__.partition(".")[0] not in (
            "mlflow",
            "sqlalchemy",
            "sqlite3",
            "requests",
            "alembic",
        ):
            raise
        # before it is cut
        said = redact(str(error).strip() or type(error).__name__).splitlines()[0][:300]
        if database is not None and re.search(
            "malformed|not a database|no such (table|column)", str(error)
        ):
            raise _lost(f"{database} is damaged ({said})") from error
        raise TasteloopError(
            f"the registry {address()} cannot be asked: {said}. Look whether it is there and try again"
        ) from error


def _check_database(database: Path) -> None:
    """Before MLflow opens it: it would make a new registry of a file that is missing or empty."""
    try:
        with database.open("rb") as stream:
            start = stream.read(len(_SQLITE))
    except FileNotFoundError:
        start = b""
    except OSError as error:
        raise TasteloopError(
            f"the registry {database} cannot be read: {error.strerror}; mend that and try again"
        ) from None
    if start and start != _SQLITE:
        raise _lost(f"{database} is no SQLite database")
    if not start and _had_versions():
        raise _lost(f"{database} is {'empty' if database.exists() else 'missing'}")


def _relocate(database: Path, present: str) -> None:
    """Have the artifacts where this home is now: MLflow wrote down where it was when they were
    logged.
    """
    with closing(sqlite3.connect(database)) as connection:
        query = "SELECT artifact_location FROM experiments WHERE name = ?"
        recorded = str((connection.execute(query, (MODEL,)).fetchone() or [present])[0])
        if recorded == present or not (
            recorded.startswith("file:") and recorded.endswith(f"/{ARTIFACTS}")
        ):
            return
        with connection:  # one transaction
            for table, column in _LOCATIONS:
                connection.execute(
                    f"UPDATE {table} SET {column} = ? || substr({column}, ?) "
                    f"WHERE {column} = ? OR substr({column}, 1, ?) = ?",
                    (present, len(recorded) + 1, recorded, len(recorded) + 1, f"{recorded}/"),
                )
    logger.info("the artifacts of the registry are in %s now, no longer in %s", present, recorded)


# by URI: device and inode of the database that its connections read
_opened: dict[str, tuple[int, int]] = {}


def _reopen_if_replaced(client: MlflowClient, uri: str, database: Path) -> None:
    """Close MLflow's connections where the file is another one than they read, such as one from a
    backup.
    """
    try:
        stat = database.stat()
    except FileNotFoundError:
        raise TasteloopError(
            f"{database} was removed while this process used it; start it again"
        ) from None
    present = (stat.st_dev, stat.st_ino)
    if _opened.setdefault(uri, present) != present:
        registered = client._get_registry_client()  # type: ignore[no-untyped-call]
        for store in (client._tracking_client.store, registered.store):
            if engine := getattr(store, "engine", None):
                engine.dispose()
        _opened[uri] = present


# What the home remembers


def _remember(version: ModelVersion) -> None:
    """Note the champion, once it is. A process that is killed before leaves that to whoever asks
    for it next.
    """
    noted = {
        "version": str(version.version),
        "digest": version.tags[_DIGEST],
        "registry": _server(),
    }
    path = files.home() / LAST_CHAMPION
    try:
        if _noted() != noted:
            files.write_json(path, noted)
    except OSError as error:
        logger.warning("%s cannot be written (%s)", path, error.strerror)


def _noted() -> dict[str, Any] | None:
    """What `champion.json` holds; None without one, and an empty one where it cannot be read."""
    path = files.home() / LAST_CHAMPION
    if not path.exists():
        return None
    try:
        return dict(files.read_json(path))
    except (TasteloopError, TypeError, ValueError):
        return {}


def _last_champion() -> str | None:
    """The champion that this home has had, in words; None where it has had none.

    A home of a version that wrote no `champion.json` knows from what its server or its monitor
    wrote.
    """
    home, noted = files.home(), _noted()
    if noted is None and (home / SERVED).exists():
        noted = dict(files.as_mapping(_read_or_none(home / SERVED)))
    if noted is None:
        ledger = home / _LEDGER
        return f"one that {ledger} is about" if ledger.exists() and ledger.stat().st_size else None
    if "version" in noted and noted["version"] is None:
        return None
    where = f" of {noted['registry']}" if noted.get("registry") else ""
    return f"version {noted.get('version', 'unknown')} ({str(noted.get('digest', ''))[:12] or 'unknown'}){where}"


def _had_versions() -> bool:
    """Whether a registry was in use here: a champion is remembered, or a version's artifacts are
    still there.
    """
    # begun anew
    if (noted := _noted()) is not None and "version" in noted and noted["version"] is None:
        return False
    artifacts = files.home() / ARTIFACTS
    return _last_champion() is not None or (artifacts.is_dir() and any(artifacts.iterdir()))


def _read_or_none(path: Path) -> Any:
    try:
        return files.read_json(path)
    except TasteloopError:
        return None


def _lost(what: str) -> RegistryLost:
    last = _last_champion()
    had = f"this home has had a champion: {last}" if last else "this home has had versions"
    return RegistryLost(
        f"{what}, but {had}. Restore the registry from a backup (docs/operations.md); or, to begin without a champion, "
        "run `tasteloop reset-registry`"
    )


def _server() -> str | None:
    """The registry's address where it is no file of this home, without a password."""
    uri = tracking_uri()
    return None if sqlite_path(uri) == files.home() / DATABASE else redact(uri)


def address() -> str:
    """Where the registry is, for messages: without a password."""
    return _server() or str(files.home() / DATABASE)


@cache
def _client(uri: str, home: Path) -> MlflowClient:
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    from mlflow import MlflowClient

    client = MlflowClient(
        tracking_uri=uri, registry_uri=os.environ.get("MLFLOW_REGISTRY_URI") or uri
    )
    known = client.search_registered_models(f"name = '{MODEL}'")
    if not known and _last_champion() is not None:
        raise _lost(f"the registry {address()} has no model {MODEL!r}")
    if client.get_experiment_by_name(MODEL) is None:
        local = urlparse(uri).scheme not in ("http", "https")
        client.create_experiment(MODEL, (home / ARTIFACTS).as_uri() if local else None)
    if not known:
        client.create_registered_model(MODEL)
    return client


def _nothing_yet() -> bool:
    """Whether the local store was never used. Creating it takes seconds that no question need wait
    for.
    """
    database = files.home() / DATABASE
    if os.environ.get("MLFLOW_TRACKING_URI") or (database.exists() and database.stat().st_size):
        return False
    _check_database(database)
    return True


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
    # MLflow takes 100 parameters a call
    for start in range(0, max(len(metrics), len(parameters)), 100):
        client.log_batch(
            run.info.run_id,
            metrics[start : start + 100],
            parameters[start : start + 100],
            synchronous=True,
        )
    return run.info.run_id, str(run.info.artifact_uri)


def _metrics(measured: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Each metric with its interval."""
    groups = {"": measured.get("metrics", {})}
    groups |= {
        f"baseline.{name}.": values for name, values in measured.get("baselines", {}).items()
    }
    groups |= {
        f"difference.{name}.": values for name, values in measured.get("differences", {}).items()
    }
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
    """As MLflow allows: `@` becomes `_at_`, any other character it refuses (the `=` of a slice)
    `_`.
    """
    return re.sub(r"[^\w .:/-]", "_", text.replace("@", "_at_"))


def _live(client: MlflowClient) -> ModelVersion | None:
    from mlflow.exceptions import MlflowException

    try:
        version = client.get_registered_model(MODEL).aliases.get(CHAMPION)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST" or _last_champion() is None:
            raise
        raise _lost(f"the registry {address()} has no model {MODEL!r} any more") from None
    if version is None:
        if _last_champion() is not None:
            raise _lost(f"the registry {address()} has no champion")
        return None
    live = client.get_model_version(MODEL, str(version))
    _remember(live)
    return live


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
        known = ", ".join(
            sorted(
                (str(v.version) for v in client.search_model_versions(f"name = '{MODEL}'")), key=int
            )
        )
        raise TasteloopError(
            f"there is no version {version!r}; registered: {known or 'none'}"
        ) from None


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
                fetched = Path(
                    download_artifacts(source, dst_path=str(temporary), tracking_uri=tracking_uri())
                )
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
