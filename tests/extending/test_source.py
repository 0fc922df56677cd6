"""A data source costs two files: a reader beside the catalogue, and an entry in it.

The test does what docs/extending.md says, in a copy of the package, and takes the source from the
catalogue to snapshots. Nothing but the download is replaced: the archive lies in a local folder.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import tasteloop
from tasteloop.files import sha256_file

READER = '''
"""The loans of a library, as the package of its friends has them."""

from pathlib import Path

from tasteloop.datasets.reading import Behaviour, as_events, as_items
from tasteloop.datasets.tables import read_table, scan_table


def read(directory: Path, terms: str) -> Behaviour:
    loans, books = directory / "loans.csv", directory / "books.csv"
    columns = {"user": "card", "item": "book", "time": "day"}
    events = as_events(scan_table(loans, columns), loans, kind="click")
    described = {"item": "book", "title": "name", "labels": "shelf"}
    items = as_items(read_table(books, described), books, domain="book")
    return Behaviour(events, items, (0.0, 1.0), terms, path=loans)
'''

ENTRY = """
from tasteloop.datasets import library  # noqa: E402

_LOANS = Source(
    name="library-loans",
    gives="behaviour",
    archives=(Archive("{origin}", "{sha256}", ("data/loans.csv", "data/books.csv")),),
    description="Loans of a library.",
    terms="ours",
    read_behaviour=library.read,
)
CATALOGUE = {{**CATALOGUE, _LOANS.name: _LOANS}}
"""

RUN = """
import json, sys
from pathlib import Path
from tasteloop.behaviour.prepare import prepare
from tasteloop.behaviour.snapshots import PrepareSettings
from tasteloop.datasets.ingest import IngestSettings, ingest

out = Path(sys.argv[1])
read = ingest(IngestSettings(behaviour="library-loans", reviews=None), out / "dataset")
settings = PrepareSettings(train_share=0.5, validation_share=0.25, horizon=3, stride=1)
taken = prepare(out / "dataset", settings, out / "snapshots")
print(json.dumps({"rows": read.rows_out, "terms": read.terms, "labels": taken.labels}))
"""


def archive(folder: Path) -> Path:
    """A package with loans of 20 cards, 20 each, and the shelves of 12 books."""
    loans = "card,book,day\n" + "".join(
        f"c{n % 20},b{(n * 7 + n // 20) % 12},2026-01-01T00:{n // 60:02}:{n % 60:02}\n"
        for n in range(400)
    )
    books = "book,name,shelf\n" + "".join(f"b{n},Book {n},Shelf {n % 3}\n" for n in range(12))
    path = folder / "friends.zip"
    with zipfile.ZipFile(path, "w") as package:
        package.writestr("data/loans.csv", loans)
        package.writestr("data/books.csv", books)
    return path


def test_a_new_source_is_a_reader_and_an_entry(tmp_path: Path) -> None:
    package = shutil.copytree(Path(tasteloop.__file__).parent, tmp_path / "code" / "tasteloop")
    packed = archive(tmp_path)

    # the two files
    (package / "datasets" / "library.py").write_text(READER)
    with (package / "datasets" / "catalogue.py").open("a") as catalogue:
        catalogue.write(ENTRY.format(origin=packed.as_uri(), sha256=sha256_file(packed)))

    environment = os.environ | {
        "PYTHONPATH": str(tmp_path / "code"),
        "TASTELOOP_HOME": str(tmp_path / "home"),
        "TASTELOOP_CACHE": str(tmp_path / "cache"),
    }
    run = subprocess.run(
        [sys.executable, "-c", RUN, str(tmp_path / "out")],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    assert run.returncode == 0, run.stderr
    result = json.loads(run.stdout.splitlines()[-1])
    assert result == {"rows": 400, "terms": "ours", "labels": ["Shelf 0", "Shelf 1", "Shelf 2"]}
