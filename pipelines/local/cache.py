"""kfp's local cache of steps, made sound.

It asks whether a cached step's artifacts exist. Here a hit also needs them unchanged, and the key
covers what the settings do not say: the sources' contents, the pseudonym key, the code, the
libraries (`fingerprint`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

from pipelines.local.facts import Outputs
from pipelines.local.moves import move_paths
from pipelines.settings import Settings
from tasteloop.files import read_json, sha256_file, sha256_tree, write_json
from tasteloop.home import Home

# The libraries that decide what a step's result is.
_DECIDING = (
    "great-expectations",
    "numpy",
    "polars",
    "scikit-learn",
    "tokenizers",
    "torch",
    "transformers",
)
_TRAINED = ("ingest", "prepare", "training")  # the sections that a checkpoint depends on
_HOME = "<home>"  # stands for the home in the cache's keys and entries

# What is called with a step's name and outputs when its earlier result is used again.
OnReuse = Callable[[str, Outputs], None]


def fingerprint(settings: Settings) -> str:
    """A digest of what decides the results of the steps and is in no setting."""
    from tasteloop.datasets.fetch import resolve_encoder
    from tasteloop.datasets.ingest import source_fingerprint
    from tasteloop.version import code_version

    encoder = resolve_encoder(settings.training.encoder)
    return _digest(
        source_fingerprint(settings.ingest),
        sha256_tree(Path(encoder)) if Path(encoder).is_dir() else encoder,
        code_version(),
        *(f"{name}=={metadata.version(name)}" for name in _DECIDING),
    )


def checkpoints_name(settings: Settings, fingerprint: str) -> str:
    """The name of the checkpoints of a fine-tuning on the same data with the same settings."""
    sections = [getattr(settings, section).model_dump_json() for section in _TRAINED]
    return _digest(fingerprint, *sections)[:16]


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


@contextmanager
def sealed_cache(directory: Path, on_reuse: OnReuse) -> Iterator[None]:
    """Let kfp's local runs inside use a cache whose artifacts must hash to what they did when their
    step ended.
    """
    from kfp import dsl
    from kfp.local import cache

    home = str(Home.current())

    def seal(outputs: Mapping[str, Any]) -> dict[str, str]:
        paths = {
            name: Path(output.path)
            for name, output in outputs.items()
            if isinstance(output, dsl.Artifact)
        }
        return {
            name: sha256_tree(path) if path.is_dir() else sha256_file(path)
            for name, path in paths.items()
        }

    class SealedCache(cache.LocalCache):  # type: ignore[misc]
        name = ""

        def compute_key(self, component_name: str, **parts: Any) -> str:
            self.name = component_name.removeprefix("comp-")
            return str(super().compute_key(component_name, **parts))

        # Keys and entries have paths below the home without the home, so that they hold after a
        # move.

        @staticmethod
        def _serialize_value_for_key(value: Any) -> Any:
            return move_paths(cache.LocalCache._serialize_value_for_key(value), home, _HOME)

        @staticmethod
        def _serialize_outputs(outputs: dict[str, Any]) -> dict[str, Any]:
            return dict(move_paths(cache.LocalCache._serialize_outputs(outputs), home, _HOME))

        @staticmethod
        def _deserialize_outputs(serialized: dict[str, Any]) -> dict[str, Any]:
            return dict(cache.LocalCache._deserialize_outputs(move_paths(serialized, _HOME, home)))

        def put(self, key: str, outputs: dict[str, Any]) -> None:
            write_json(directory / f"{key}.seal", seal(outputs))
            super().put(key, outputs)

        def get(self, key: str) -> dict[str, Any] | None:
            outputs: dict[str, Any] | None = super().get(key)
            if outputs is None or seal(outputs) != read_json(directory / f"{key}.seal"):
                return None
            plain = {
                name: output.path if isinstance(output, dsl.Artifact) else output
                for name, output in outputs.items()
            }
            on_reuse(self.name, plain)
            return outputs

    sealed = SealedCache(str(directory))
    original = cache.get_local_cache
    cache.get_local_cache = lambda: sealed  # kfp has no setting for it
    try:
        yield
    finally:
        cache.get_local_cache = original
