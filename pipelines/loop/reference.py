"""The reference of the live champion: read, or made from its data where it is missing."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from pipelines.loop.provenance import find_snapshots
from pipelines.settings import Settings
from tasteloop.errors import TasteloopError
from tasteloop.home import Home
from validation.monitor.reference import META, Reference, reference_path, save_reference

if TYPE_CHECKING:
    from serving.release.versions import LocalVersion
    from tasteloop.runtime.session import Session

log = logging.getLogger(__name__)


def load_reference(champion: LocalVersion, settings: Settings) -> tuple[Reference, Session | None]:
    """The champion's reference, made where it is missing or was made with other settings or for
    other measures; and the champion's session, if it was loaded for that.

    Raises:
        TasteloopError: it is missing, and the data of the champion's run is no longer here.
    """
    directory = reference_path(champion.digest)
    existing = Reference.read(directory) if (directory / META).is_file() else None
    if existing is not None and existing.is_current(settings.watch):
        return existing, None
    snapshots = find_snapshots(champion.digest)
    if snapshots is None:
        if existing is not None:
            log.warning(
                "the reference %s was made with other settings or measures, and its data is gone: it stays",
                directory,
            )
            return existing, None
        raise TasteloopError(
            f"version {champion.version} ({champion.digest[:12]}) has no reference in {directory}, and no run under "
            f"{Home.current().runs} has the snapshots that it was trained on; train here with `tasteloop run`"
        )
    from tasteloop.runtime.session import Session

    session = Session.load(champion.path)
    log.info("making the reference of version %s", champion.version)
    return save_reference(session, snapshots, settings.watch, directory), session
