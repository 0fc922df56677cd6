"""Where the registry is: an SQLite file of the home, or the store that MLFLOW_TRACKING_URI names.

MLflow writes absolute locations of artifacts into its database. The first who opens the database of
a home that was moved, or restored elsewhere, rewrites them.
"""

from __future__ import annotations

import logging
import os
import re
import sqlite3
from contextlib import closing, suppress
from functools import cache
from pathlib import Path
from urllib.parse import quote, unquote

from tasteloop.home import Home
from tasteloop.redaction import redact

logger = logging.getLogger(__name__)

_PLAIN_PATH = re.compile(r"[\w/ .,+=~-]+")  # paths that need no escape in an SQLite URI
_LOCATION_COLUMNS = (  # where MLflow's database has the absolute locations of artifacts
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
    ("logged_models", "artifact_location"),
)


def tracking_uri() -> str:
    """`MLFLOW_TRACKING_URI`, else the SQLite file in the home."""
    return os.environ.get("MLFLOW_TRACKING_URI") or sqlite_uri(Home.current().registry)


def sqlite_uri(path: Path) -> str:
    """The SQLAlchemy URI of an SQLite file whose path may have any character.

    SQLAlchemy takes `?` for the end of a path and decodes `%`. A path that has more than plain
    characters is therefore handed to SQLite itself as a `file:` URI. Its slashes are escaped too:
    MLflow makes the folders above the first slash of what it reads there, which would be folders
    that nobody asked for.

    >>> sqlite_uri(Path("/data/mlflow.db"))
    'sqlite:////data/mlflow.db'
    >>> sqlite_path(sqlite_uri(Path("/data/100%/mlflow.db")))
    PosixPath('/data/100%/mlflow.db')
    """
    if _PLAIN_PATH.fullmatch(str(path)):
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
    path = uri.removeprefix("sqlite:///")
    if _PLAIN_PATH.fullmatch(path):
        return Path(path)
    from sqlalchemy import make_url

    database = make_url(uri).database or ""
    if database.startswith("file:"):
        database = unquote(database.removeprefix("file:"))
    return Path(database)


def remote_address() -> str | None:
    """The registry's address without a password; None where it is the file of this home."""
    uri = tracking_uri()
    return None if sqlite_path(uri) == Home.current().registry else redact(uri)


def address() -> str:
    """Where the registry is, for messages: without a password."""
    return remote_address() or str(Home.current().registry)


def change_stamp() -> tuple[int, ...] | None:
    """What differs after any change of a store on this machine, its time in ns first; None for
    another store.
    """
    path = sqlite_path(tracking_uri())
    if path is None:
        return None
    stats = []
    for suffix in ("", "-wal"):
        with suppress(FileNotFoundError):  # a write-ahead log comes and goes
            stats.append(path.with_name(path.name + suffix).stat())
    times = [stat.st_mtime_ns for stat in stats]
    return (max(times, default=0), *times, *(stat.st_size for stat in stats))


def relocate_artifacts(database: Path, location: str, experiment: str) -> None:
    """Rewrite the locations of artifacts where the home is another one than when they were logged.

    Args:
        location: URI of the home's artifacts now.
        experiment: the one whose location tells where they were.
    """
    with closing(sqlite3.connect(database)) as connection:
        query = "SELECT artifact_location FROM experiments WHERE name = ?"
        row = connection.execute(query, (experiment,)).fetchone()
        recorded = str(row[0]) if row else location
        artifacts = Home.current().registry_artifacts.name
        of_a_home = recorded.startswith("file:") and Path(recorded).name == artifacts
        if recorded == location or not of_a_home:
            return
        with connection:  # one transaction
            for table, column in _LOCATION_COLUMNS:
                connection.execute(
                    f"UPDATE {table} SET {column} = ? || substr({column}, ?) "
                    f"WHERE {column} = ? OR substr({column}, 1, ?) = ?",
                    (location, len(recorded) + 1, recorded, len(recorded) + 1, f"{recorded}/"),
                )
    logger.info("the artifacts of the registry are in %s now, no longer in %s", location, recorded)
