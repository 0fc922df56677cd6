"""MLflow's store (tracking and registry), opened by one process at a time.

All work on it happens under one file lock in the home, so that compare-and-swap is atomic between
the processes of a machine (and of machines that share that directory). MLflow's own API has no
compare-and-swap: two machines with homes of their own and one remote store can still promote at the
same moment, and the later one wins.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlparse

from serving.release.database import (
    address,
    relocate_artifacts,
    sqlite_path,
    tracking_uri,
)
from serving.release.last_versions import had_versions, last_champion, registry_lost
from tasteloop import files
from tasteloop.errors import TasteloopError
from tasteloop.home import Home
from tasteloop.redaction import redact

if TYPE_CHECKING:
    from mlflow import MlflowClient

MODEL = "tasteloop"  # the registered model, and the experiment of its runs

_QUIET = {
    "MLFLOW_CONFIGURE_LOGGING": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}
_SQLITE_HEADER = b"SQLite format 3\0"  # how such a file begins
_STORE_PACKAGES = ("mlflow", "sqlalchemy", "sqlite3", "requests", "alembic")
_DAMAGE = re.compile("malformed|not a database|no such (table|column)")  # in SQLite's messages
_LOCK_SECONDS = 120.0


@contextmanager
def open_store(artifacts: bool = True) -> Iterator[MlflowClient]:
    """The client, alone: the lock also keeps two first users from creating the database at once.

    Args:
        artifacts: whether their locations are needed. Who needs none rewrites none, so that two
            machines that see one home at different paths do not rewrite them in turn for ever.

    Raises:
        RegistryLost: the store is damaged, or has no champion although this home has had one.
        TasteloopError: the store does not answer.
    """
    home, uri = Home.current(), tracking_uri()
    database = sqlite_path(uri)
    with lock_store(), _translate_errors(database):
        if database is not None:
            _check_database(database)
        client = connect(uri, home)
        if database is not None:
            _reopen_if_replaced(client, uri, database)
            if artifacts and database.absolute() == home.registry:
                relocate_artifacts(database, home.registry_artifacts.as_uri(), MODEL)
        yield client


def lock_store() -> AbstractContextManager[None]:
    return files.locked(Home.current().registry_lock, _LOCK_SECONDS, 0.05)


def is_unused() -> bool:
    """Whether the local store was never used. Creating it takes seconds that no question need wait
    for.

    Raises:
        RegistryLost: it was in use, and is missing or empty now.
    """
    database = Home.current().registry
    if os.environ.get("MLFLOW_TRACKING_URI") or (database.exists() and database.stat().st_size):
        return False
    _check_database(database)
    return True


def require_database() -> None:
    """Refuse a lost database at once, before hours of work that would end at it; MLflow is not
    imported for it.

    Raises:
        RegistryLost: the SQLite file is missing, empty or none, although it was in use.
    """
    database = sqlite_path(tracking_uri())
    if database is not None:
        _check_database(database)


def _check_database(database: Path) -> None:
    """Before MLflow opens it: it would make a new registry of a file that is missing or empty."""
    try:
        with database.open("rb") as stream:
            start = stream.read(len(_SQLITE_HEADER))
    except FileNotFoundError:
        start = b""
    except OSError as error:
        raise TasteloopError(
            f"the registry {database} cannot be read: {error.strerror}; mend that and try again"
        ) from None
    if start and start != _SQLITE_HEADER:
        raise registry_lost(f"{database} is no SQLite database")
    if not start and had_versions():
        raise registry_lost(f"{database} is {'empty' if database.exists() else 'missing'}")


@contextmanager
def _translate_errors(database: Path | None) -> Iterator[None]:
    """Say in one message what MLflow, its database or the network had to say in a traceback."""
    try:
        yield
    except TasteloopError:
        raise
    except Exception as error:
        if type(error).__module__.partition(".")[0] not in _STORE_PACKAGES:
            raise
        # redacted before it is cut
        text = redact(str(error).strip() or type(error).__name__)
        message = text.splitlines()[0][:300]
        if database is not None and _DAMAGE.search(str(error)):
            raise registry_lost(f"{database} is damaged ({message})") from error
        raise TasteloopError(
            f"the registry {address()} cannot be asked: {message}. Look whether it is there and try again"
        ) from error


@cache
def connect(uri: str, home: Home) -> MlflowClient:
    """A client of the store, in which the model and its experiment exist.

    Raises:
        RegistryLost: the store has no model, although this home has had a champion.
    """
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    from mlflow import MlflowClient

    client = MlflowClient(
        tracking_uri=uri, registry_uri=os.environ.get("MLFLOW_REGISTRY_URI") or uri
    )
    model_exists = bool(client.search_registered_models(f"name = '{MODEL}'"))
    if not model_exists and last_champion() is not None:
        raise registry_lost(f"the registry {address()} has no model {MODEL!r}")
    if client.get_experiment_by_name(MODEL) is None:
        is_local = urlparse(uri).scheme not in ("http", "https")
        location = home.registry_artifacts.as_uri() if is_local else None
        client.create_experiment(MODEL, location)
    if not model_exists:
        client.create_registered_model(MODEL)
    return client


# by URI: device and inode of the database that the client's connections read
_open_files: dict[str, tuple[int, int]] = {}


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
    if _open_files.setdefault(uri, present) != present:
        registry_client = client._get_registry_client()  # type: ignore[no-untyped-call]
        for store in (client._tracking_client.store, registry_client.store):
            engine = getattr(store, "engine", None)
            if engine is not None:
                engine.dispose()
        _open_files[uri] = present
