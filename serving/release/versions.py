"""A registered version as the other rooms see it, and the tags in which MLflow keeps it."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

# Tags of a version. `key` is the fingerprint of what was recorded, `promoted` tells when it was
# last promoted and in whose place.
KEY_TAG, DIGEST_TAG, PASSED_TAG, REASONS_TAG = "key", "digest", "passed", "reasons"
REHEARSED_TAG, PROMOTED_TAG = "rehearsed", "promoted"


class VersionId(NamedTuple):
    """The registry's number of a version, and the digest of its bundle."""

    version: str
    digest: str


@dataclass(frozen=True)
class LocalVersion:
    """A version whose bundle is on this machine, at `path`, and complete."""

    version: str
    path: Path
    digest: str
    run_id: str


@dataclass(frozen=True)
class Version:
    """One line of `registry.versions()`; times are in milliseconds since 1970 UTC.

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


@dataclass(frozen=True)
class Promotion:
    """When a version was last promoted (milliseconds since 1970 UTC) and in whose place."""

    promoted: int | None = None
    replaced: str | None = None

    @classmethod
    def parse(cls, tag: str) -> Promotion:
        """From the tag's text; without what it does not say.

        >>> Promotion.parse('{"promoted": 1764000000000, "replaced": "3"}')
        Promotion(promoted=1764000000000, replaced='3')
        >>> Promotion.parse("")
        Promotion(promoted=None, replaced=None)
        """
        try:
            value = json.loads(tag)
        except ValueError:
            return cls()
        if not isinstance(value, dict):
            return cls()
        promoted, replaced = value.get("promoted"), value.get("replaced")
        return cls(
            promoted if isinstance(promoted, int) else None,
            replaced if isinstance(replaced, str) else None,
        )

    def tag(self) -> str:
        return json.dumps({"promoted": self.promoted, "replaced": self.replaced})


def parse_version(
    version: ModelVersion, champion: str | None, former_champions: Collection[str]
) -> Version:
    """MLflow's record of a version as ours.

    Args:
        champion: the version that is live.
        former_champions: versions that a rollback can go back to.
    """
    promotion = Promotion.parse(version.tags.get(PROMOTED_TAG, ""))
    number = str(version.version)
    return Version(
        version=number,
        digest=version.tags.get(DIGEST_TAG, ""),
        run_id=str(version.run_id),
        created=int(version.creation_timestamp or 0),
        passed=is_set(version, PASSED_TAG),
        rehearsed=is_set(version, REHEARSED_TAG),
        champion=number == champion,
        was=number in former_champions,
        promoted=promotion.promoted,
        replaced=promotion.replaced,
    )


def flag(value: bool) -> str:
    """A tag's text for yes and no."""
    return "true" if value else "false"


def is_set(version: ModelVersion, tag: str) -> bool:
    return bool(version.tags.get(tag) == flag(True))
