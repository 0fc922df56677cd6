"""Registered versions of the model and the champion pointer, in MLflow's registry.

By default everything is on this machine: the SQLite file `<home>/mlflow.db` and artifacts under
`<home>/mlartifacts`; `MLFLOW_TRACKING_URI` names another store. Every version is a bundle directory
with its evaluation and verdict. The alias `@champion` says which version is live, the registered
model's tag `champions` which were live before it, oldest first. `serving.release.promotion` moves
them.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from serving.release import runs
from serving.release.bundles import fetch_bundle
from serving.release.database import address
from serving.release.last_versions import last_champion, note_champion, registry_lost
from serving.release.mlflow_store import MODEL, is_unused, open_store
from serving.release.versions import (
    DIGEST_TAG,
    KEY_TAG,
    PASSED_TAG,
    REASONS_TAG,
    REHEARSED_TAG,
    LocalVersion,
    Version,
    VersionId,
    flag,
    is_set,
    parse_version,
)
from tasteloop import files
from tasteloop.bundle.manifest import verify
from tasteloop.errors import TasteloopError
from tasteloop.evaluation.record import EVALUATION_FILE, Evaluation
from tasteloop.verdicts import REHEARSAL_FILE, VERDICT_FILE, Rehearsal, Verdict

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

CHAMPION_ALIAS = "champion"
HISTORY_TAG = "champions"  # of the registered model
EVIDENCE_FILES = (EVALUATION_FILE, VERDICT_FILE, REHEARSAL_FILE)  # kept in the run of a version


@dataclass(frozen=True)
class RecordedVersion:
    """A registered version; not `new` where the same bundle, evaluation and verdict had been
    recorded before.
    """

    version: str
    run_id: str
    new: bool


def record(
    bundle: Path,
    evaluation: Path,
    verdict: Verdict,
    settings: Mapping[str, Any],
    report: Path | None = None,
) -> RecordedVersion:
    """Log a run (settings, metrics, bundle, evaluation, verdict, report) and register its bundle.

    The same bundle, evaluation and verdict make one version however often they are recorded; a run
    that was killed while it was logged is marked failed and logged again.

    Args:
        evaluation: the file of an `Evaluation`.
        settings: nested; logged flat, as `finetune.epochs`.

    Raises:
        TasteloopError: a bundle that is not complete, or an evaluation that is missing or cut off.
    """
    digest = verify(bundle)
    measured = Evaluation.read(evaluation)
    key = _fingerprint([digest, files.sha256_file(evaluation), verdict.json()])
    passed = flag(verdict.passed)
    with open_store() as client:
        # 1. a version that was recorded before
        existing = client.search_model_versions(f"name = '{MODEL}' AND tag.`{KEY_TAG}` = '{key}'")
        if existing:
            return RecordedVersion(str(existing[0].version), str(existing[0].run_id), new=False)

        # 2. the run with all its files
        tags = {KEY_TAG: key, DIGEST_TAG: digest, PASSED_TAG: passed}
        runs.fail_unfinished_runs(client, key)
        run_id, artifacts = runs.log_run(client, tags, measured, settings)
        client.log_artifacts(run_id, str(bundle), "bundle")
        client.log_artifact(run_id, str(evaluation))
        client.log_dict(run_id, verdict.json(), VERDICT_FILE)
        if report is not None:
            client.log_artifact(run_id, str(report))
        client.set_terminated(run_id)

        # 3. the version
        reasons = "; ".join(verdict.reasons)
        version = client.create_model_version(
            MODEL,
            f"{artifacts}/bundle",
            run_id,
            tags={**tags, REASONS_TAG: reasons[:5000]},
            await_creation_for=30,
        )
        return RecordedVersion(str(version.version), run_id, new=True)


def _fingerprint(parts: list[object]) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def attach_rehearsal(version: str, rehearsal: Path) -> None:
    """Attach a rehearsal's outcome (`rehearsal.json`) to the version that it rehearsed.

    Raises:
        TasteloopError: it is about another bundle, or does not say about which and how it ended.
    """
    outcome = Rehearsal.read(rehearsal)
    if not outcome.digest and not outcome.reason:
        raise TasteloopError(
            f"{rehearsal} is not a rehearsal's outcome: neither digest nor reason is there; rehearse version {version}"
        )
    with open_store() as client:
        candidate = registered_version(client, version)
        # a damaged bundle has no digest, and the rehearsal has failed for it
        is_damaged = not outcome.passed and not outcome.digest
        if not is_damaged and outcome.digest != candidate.tags[DIGEST_TAG]:
            raise TasteloopError(
                f"{rehearsal} is about the bundle {outcome.digest[:12]}, not about version {version} "
                f"({candidate.tags[DIGEST_TAG][:12]}); rehearse that version's bundle"
            )
        client.log_artifact(candidate.run_id, str(rehearsal))
        client.set_model_version_tag(MODEL, version, REHEARSED_TAG, flag(outcome.passed))


# Questions


def champion() -> LocalVersion | None:
    """The live version, its bundle verified; None while nothing has been promoted.

    Raises:
        TasteloopError: a bundle that is missing or not complete.
    """
    if is_unused():
        return None
    with open_store() as client:
        live = live_version(client)
        return fetch_bundle(live) if live else None


def pointer() -> VersionId | None:
    """Version and digest of the champion, nothing verified nor fetched; None while nothing has been
    promoted.
    """
    if is_unused():
        return None
    with open_store(artifacts=False) as client:
        live = live_version(client)
        return version_id(live) if live else None


def previous() -> VersionId | None:
    """Version and digest of the champion before this one: where a rollback goes. None where there
    is none.
    """
    if is_unused():
        return None
    with open_store(artifacts=False) as client:
        live = live_version(client)
        former = former_champions(client, live) if live else []
        return version_id(registered_version(client, former[-1])) if former else None


def find(version: str) -> LocalVersion:
    """Any registered version, its bundle verified."""
    with open_store() as client:
        return fetch_bundle(registered_version(client, version))


def source(version: str) -> tuple[str, str]:
    """Where the store keeps the bundle of a version that passed gate and rehearsal, and its digest.

    Raises:
        TasteloopError: no such version, or one that has not passed.
    """
    with open_store() as client:
        candidate = registered_version(client, version)
        require_passed(candidate)
        uri = client.get_model_version_download_uri(MODEL, candidate.version)
        return str(uri), str(candidate.tags[DIGEST_TAG])


def versions() -> list[Version]:
    """All registered versions, newest first."""
    if is_unused():
        return []
    with open_store(artifacts=False) as client:
        live = live_version(client)
        former = former_champions(client, live) if live else []
        registered = client.search_model_versions(f"name = '{MODEL}'", max_results=1000)
    newest_first = sorted(registered, key=lambda version: int(version.version), reverse=True)
    number = str(live.version) if live else None
    return [parse_version(version, number, former) for version in newest_first]


def evidence(version: str) -> dict[str, str]:
    """What was measured and decided about a version, as its run keeps it: JSON by file name,
    without what is gone.
    """
    with open_store() as client, tempfile.TemporaryDirectory(prefix="tasteloop-") as folder:
        run_id = str(registered_version(client, version).run_id)
        existing = {entry.path for entry in client.list_artifacts(run_id)}
        texts = {}
        for name in EVIDENCE_FILES:
            if name in existing:
                path = Path(client.download_artifacts(run_id, name, folder))
                texts[name] = path.read_text(encoding="utf-8")
        return texts


# Within an open store


def live_version(client: MlflowClient) -> ModelVersion | None:
    """The version that the alias `@champion` names; the home remembers it.

    Raises:
        RegistryLost: there is none, although this home has had one.
    """
    from mlflow.exceptions import MlflowException

    try:
        version = client.get_registered_model(MODEL).aliases.get(CHAMPION_ALIAS)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST" or last_champion() is None:
            raise
        raise registry_lost(f"the registry {address()} has no model {MODEL!r} any more") from None
    if version is None:
        if last_champion() is not None:
            raise registry_lost(f"the registry {address()} has no champion")
        return None
    live = client.get_model_version(MODEL, str(version))
    note_champion(version_id(live))
    return live


def former_champions(client: MlflowClient, live: ModelVersion) -> list[str]:
    """The versions that were live before, oldest first; what a killed promotion left is passed
    over.
    """
    tags = client.get_registered_model(MODEL).tags
    history: list[str] = json.loads(tags.get(HISTORY_TAG, "[]"))
    while history and history[-1] == str(live.version):
        history.pop()
    return history


def registered_version(client: MlflowClient, version: str) -> ModelVersion:
    """Raises TasteloopError, with the versions that are registered, for one that is not."""
    from mlflow.exceptions import MlflowException

    try:
        return client.get_model_version(MODEL, version)
    except MlflowException:
        registered = client.search_model_versions(f"name = '{MODEL}'")
        numbers = sorted((str(each.version) for each in registered), key=int)
        raise TasteloopError(
            f"there is no version {version!r}; registered: {', '.join(numbers) or 'none'}"
        ) from None


def require_passed(candidate: ModelVersion) -> None:
    """Raises TasteloopError for a version that has not passed gate and rehearsal."""
    for tag, examination in ((PASSED_TAG, "the gate"), (REHEARSED_TAG, "a rehearsal")):
        if not is_set(candidate, tag):
            raise TasteloopError(
                f"version {candidate.version} has not passed {examination}, so it cannot be promoted"
            )


def version_id(version: ModelVersion) -> VersionId:
    return VersionId(str(version.version), version.tags[DIGEST_TAG])
