"""What a bundle was made from: the run that made it, its data set and its snapshots, as far as they
are still here.

A retraining begins with them, and retention keeps what they name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pipelines.local.facts import RunFacts, list_runs
from pipelines.local.moves import move_paths
from tasteloop.bundle.names import MANIFEST_FILE
from tasteloop.datasets.ingest import INGEST_FILE
from tasteloop.files import as_mapping, read_json, sha256_file
from tasteloop.home import Home
from validation.monitor.reference import DATASET, SNAPSHOTS, data_path


@dataclass(frozen=True)
class Provenance:
    """The artifacts of the run that made a bundle.

    Attributes:
        artifacts: their paths by name, such as dataset, snapshots, bundle.
        ingested: what the run read, as its settings name it: a path, or a source of the catalogue.
            None where only the artifacts are known, as of a run on a cluster.
        home: the home that the run was in, which may have been moved since; None: this one.
    """

    artifacts: Mapping[str, Path]
    ingested: Path | None = None
    home: str | None = None

    @classmethod
    def of_run(cls, facts: RunFacts) -> Provenance:
        ingested = as_mapping(facts.settings.get("ingest")).get("behaviour")
        return cls(facts.artifacts, Path(ingested) if ingested else None, facts.home or None)

    @property
    def snapshots(self) -> Path:
        return self.artifacts[SNAPSHOTS]

    @property
    def base_dataset(self) -> Path:
        """The data set from before anything was monitored. A retrained champion's own data began
        with it, so what one retraining leaves out is not lost to the next.
        """
        window = self.ingested / INGEST_FILE if self.ingested else None
        # a user's own data set has no such file, and one that ingest wrote names no base
        base = read_json(window).get("base") if window and window.is_file() else None
        if base is None:
            return self.artifacts[DATASET]
        # relative to the home; in earlier versions absolute, below the home that the run was in
        here = Home.current().path
        return here / str(move_paths(base, self.home or str(here), str(here)))


def find_provenance(digest: str) -> Provenance | None:
    """What the bundle of a digest was made from: of the newest run that made it and whose artifacts
    are still here, else of the copies that its promotion kept; None where there is neither.
    """
    for facts in list_runs():
        made_from = Provenance.of_run(facts)
        manifest = made_from.artifacts.get("bundle", Path()) / MANIFEST_FILE
        is_this_bundle = manifest.is_file() and sha256_file(manifest) == digest
        if is_this_bundle and made_from.snapshots.is_dir():
            return made_from
    copies = data_path(digest)
    if not copies.is_dir():
        return None
    return Provenance({name: copies / name for name in (DATASET, SNAPSHOTS)})


def find_snapshots(digest: str) -> Path | None:
    """The snapshots that a bundle was trained on; None where they are no longer here."""
    made_from = find_provenance(digest)
    return None if made_from is None else made_from.snapshots
