"""What a home remembers of its versions: its last champion, and the version that it served last.

`champion.json` names the last champion. A registry without a champion, in a home that has had one,
is not a new registry but a lost one (an emptied file, another server): it is refused, since a gate
that asked it would compare a candidate with nothing.

`served.json` names the version that a server of this home served last: what a start falls back on.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from serving.release.database import remote_address
from serving.release.versions import VersionId
from tasteloop import files
from tasteloop.errors import TasteloopError
from tasteloop.home import Home

logger = logging.getLogger(__name__)


class RegistryLost(TasteloopError):
    """The home's registry is damaged, or has no champion although this home has had one."""


@dataclass(frozen=True)
class LastChampion:
    """What `champion.json` says, as far as it can be read.

    Attributes:
        registry: its address; None where it is a file of the home.
        was_reset: since then this home has begun anew, without a champion.
    """

    version: str | None = None
    digest: str | None = None
    registry: str | None = None
    was_reset: bool = False

    @classmethod
    def parse(cls, value: object) -> LastChampion:
        """From JSON; a damaged file still says that there was a champion.

        >>> LastChampion.parse({"version": "3", "digest": "0f", "registry": None}).describe()
        'version 3 (0f)'
        >>> LastChampion.parse("damaged").describe()
        'version unknown (unknown)'
        >>> LastChampion.parse({"version": None}).was_reset
        True
        """
        if not isinstance(value, Mapping):
            return cls()
        texts = {
            name: None if value.get(name) is None else str(value[name])
            for name in ("version", "digest", "registry")
        }
        return cls(**texts, was_reset="version" in value and value["version"] is None)

    def describe(self) -> str:
        where = f" of {self.registry}" if self.registry else ""
        digest = (self.digest or "")[:12] or "unknown"
        return f"version {self.version or 'unknown'} ({digest}){where}"


def note_champion(champion: VersionId) -> None:
    """Remember the champion, once it is. A process that is killed before leaves that to whoever
    asks for it next.
    """
    _note(LastChampion(champion.version, champion.digest, remote_address()))


def _note(last: LastChampion) -> None:
    path = Home.current().champion_pointer
    try:
        if _noted() != last:
            _write(last)
    except OSError as error:
        logger.warning("%s cannot be written (%s)", path, error.strerror)


def _write(last: LastChampion) -> None:
    noted = {"version": last.version, "digest": last.digest, "registry": last.registry}
    files.write_json(Home.current().champion_pointer, noted)


def _noted() -> LastChampion | None:
    """What `champion.json` holds; None without one."""
    path = Home.current().champion_pointer
    return LastChampion.parse(_read(path)) if path.exists() else None


def last_champion() -> str | None:
    """The champion that this home has had, in words; None where it has had none.

    A home of a version that wrote no `champion.json` knows from what its server or its monitor
    wrote.
    """
    home, noted = Home.current(), _noted()
    if noted is None and home.served_version.exists():
        noted = LastChampion.parse(_read(home.served_version))
    if noted is None:
        ledger = home.ledger
        has_entries = ledger.exists() and ledger.stat().st_size > 0
        return f"one that {ledger} is about" if has_entries else None
    return None if noted.was_reset else noted.describe()


def had_versions() -> bool:
    """Whether a registry was in use here: a champion is remembered, or a version's artifacts are
    still there.
    """
    noted = _noted()
    if noted is not None and noted.was_reset:
        return False
    artifacts = Home.current().registry_artifacts
    return last_champion() is not None or (artifacts.is_dir() and any(artifacts.iterdir()))


def forget_versions() -> None:
    """Begin without a champion and without a version that was served."""
    Home.current().served_version.unlink(missing_ok=True)
    _write(LastChampion(was_reset=True))


def registry_lost(loss: str) -> RegistryLost:
    """The error for a loss (`… is missing`), with what the home has had and what to do."""
    last = last_champion()
    had = f"this home has had a champion: {last}" if last else "this home has had versions"
    return RegistryLost(
        f"{loss}, but {had}. Restore the registry from a backup (docs/operations.md); or, to begin without a champion, "
        "run `tasteloop reset-registry`"
    )


def served_version() -> VersionId | None:
    """The version that a server of this home served last; None where none is known."""
    value = _read(Home.current().served_version)
    if not isinstance(value, Mapping) or not {"version", "digest"} <= value.keys():
        return None
    return VersionId(str(value["version"]), str(value["digest"]))


def note_served(version: VersionId) -> None:
    """Remember what is served, for a later start; a home that cannot be written is no reason not to
    serve.
    """
    if version == served_version():
        return
    path = Home.current().served_version
    try:
        files.write_json(path, {"version": version.version, "digest": version.digest})
    except OSError as error:
        logger.warning("%s cannot be written (%s)", path, error.strerror)


def _read(path: Path) -> object:
    """A JSON file's value; None where there is none or it cannot be read."""
    try:
        return files.read_json(path)
    except TasteloopError:
        return None
