"""The bundles of registered versions: found on this machine or fetched here, and verified."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlparse
from urllib.request import url2pathname

from serving.release.database import tracking_uri
from serving.release.versions import DIGEST_TAG, LocalVersion
from tasteloop import files
from tasteloop.bundle.manifest import verify
from tasteloop.errors import TasteloopError
from tasteloop.home import Home

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion


def fetch_bundle(version: ModelVersion) -> LocalVersion:
    """Bring the version's bundle here where it is not, and verify it.

    Raises:
        TasteloopError: it is gone, not complete, or another one.
    """
    digest = version.tags[DIGEST_TAG]
    path = _local_path(str(version.source), digest)
    if not path.is_dir():
        raise TasteloopError(
            f"the bundle of version {version.version} is gone: no directory {path}; "
            "restore it, or promote another version"
        )
    actual = verify(path)
    if actual != digest:
        raise TasteloopError(
            f"the bundle of version {version.version} at {path} is another one "
            f"({actual[:12]} instead of {digest[:12]}); restore it, or promote another version"
        )
    return LocalVersion(str(version.version), path, digest, str(version.run_id))


def _local_path(source: str, digest: str) -> Path:
    """Where a bundle lies on this machine: at its source, or in the cache, fetched where needed."""
    location = urlparse(source)
    if location.scheme in ("", "file"):
        return Path(url2pathname(location.path))
    path = files.cache() / "bundles" / digest
    if not path.exists():
        _download(source, path)
    return path


def _download(source: str, path: Path) -> None:
    from mlflow.artifacts import download_artifacts

    with files.atomic_directory(path) as temporary:
        fetched = Path(
            download_artifacts(source, dst_path=str(temporary), tracking_uri=tracking_uri())
        )
        if fetched != temporary:
            for entry in list(fetched.iterdir()):
                entry.rename(temporary / entry.name)


def find_bundle(digest: str) -> Path:
    """The bundle with a digest, complete, where it is on this machine; the registry is not asked.

    Raises:
        TasteloopError: it is not here, or not complete.
    """
    artifacts = Home.current().registry_artifacts
    for path in [files.cache() / "bundles" / digest, *artifacts.glob("*/artifacts/bundle")]:
        manifest = path / "manifest.json"
        if manifest.is_file() and files.sha256_file(manifest) == digest:
            verify(path)
            return path
    raise TasteloopError(
        f"there is no bundle {digest[:12]} below {artifacts}; restore it from a backup"
    )
