"""A zip that is too large for one package, and therefore comes in parts."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from tasteloop.decompression import read_bounded
from tasteloop.errors import TasteloopError
from tasteloop.files import sha256_file


def joined_zip(
    parts: tuple[str, ...], sha256: str, members: tuple[str, ...]
) -> Callable[[Path], None]:
    """A conversion for `Source`: joins the parts in a directory, checks the zip that they make, and
    leaves its members in their place.

    Args:
        parts: names of the parts, in order.
        sha256: of the zip; of any other nothing is read.
        members: paths in the zip; each is kept under its last part.
    """

    def convert(directory: Path) -> None:
        # 1. the zip, of which no part stays on the disk twice
        joined = directory / parts[0]
        with joined.open("ab") as file:
            for name in parts[1:]:
                part = directory / name
                with part.open("rb") as stream:
                    shutil.copyfileobj(stream, file, 1 << 20)
                part.unlink()
        if (digest := sha256_file(joined)) != sha256:
            raise TasteloopError(
                f"{', '.join(parts)} joined have SHA-256 {digest}, the catalogue says {sha256}; nothing was "
                "kept. Fetch the source again"
            )

        # 2. its members, each a plain file
        try:
            with zipfile.ZipFile(joined) as archive:
                for member in members:
                    packed = archive.getinfo(member).compress_size
                    target = directory / PurePosixPath(member).name
                    with archive.open(member) as stream, target.open("xb") as file:
                        file.writelines(read_bounded(stream, packed, member))
        except (zipfile.BadZipFile, KeyError, OSError, EOFError) as error:
            raise TasteloopError(
                f"cannot read the members of {', '.join(parts)} joined: {error}"
            ) from error
        joined.unlink()

    return convert
