"""Parts of the users on disk: what is written does not depend on how many there are."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import polars as pl
import pytest
import yaml
from polars.testing import assert_frame_equal

from benchmarks.data import plain
from benchmarks.data.generated import generate
from benchmarks.data.run import exponent, summary
from tasteloop.behaviour.cleaning import CleaningSettings
from tasteloop.behaviour.items import Catalogue
from tasteloop.behaviour.partitions import DataSettings
from tasteloop.behaviour.prepare import prepare
from tasteloop.behaviour.snapshots import PrepareSettings
from tasteloop.behaviour.spark import session
from tasteloop.datasets.ingest import IngestSettings, ingest
from tasteloop.errors import TasteloopError
from tasteloop.files import sha256_tree
from tasteloop.privacy.pseudonyms import pseudonym_key

EVENTS = 12_000
ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return generate(EVENTS, tmp_path_factory.mktemp("source") / "shop")


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TASTELOOP_PSEUDONYM_KEY", "a key for these tests only")


@pytest.mark.parametrize(
    "strict", [CleaningSettings(), CleaningSettings(min_item_events=3, min_user_events=20)]
)
def test_many_parts_give_the_bytes_of_one(
    source: Path, tmp_path: Path, strict: CleaningSettings
) -> None:
    seen = []
    for rows in (1_000_000, 2_500):
        data, out = DataSettings(rows_a_part=rows), tmp_path / str(rows)
        result = ingest(
            IngestSettings(behaviour=str(source), reviews=None, cleaning=strict),
            out / "dataset",
            data,
        )
        prepare(out / "dataset", PrepareSettings(), out / "snapshots", data)
        assert not [p for p in out.rglob("*") if p.name in ("work", "users")]
        seen.append((result.sha256, result.removed, result.users, sha256_tree(out / "snapshots")))
    assert seen[0] == seen[1]


def test_a_damaged_end_of_the_file_leaves_nothing(tmp_path: Path) -> None:
    rows = "".join(f"u{n % 9},i{n},view,{n}\n" for n in range(5000))
    (tmp_path / "a.csv").write_text("user,item,kind,time\n" + rows + "u1,i1,view,1,SECRET\n")
    columns = "{user: user, item: item, kind: kind, time: time}"
    (tmp_path / "m.yaml").write_text(f"events: a.csv\ncolumns: {columns}\ntime: {{unit: s}}\n")
    settings = IngestSettings(behaviour=str(tmp_path / "m.yaml"), reviews=None)
    with pytest.raises(TasteloopError, match="more fields") as raised:
        ingest(settings, tmp_path / "out", DataSettings(rows_a_part=1000))
    assert "SECRET" not in str(raised.value)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.csv", "m.yaml"]


def test_plain_pandas_says_the_same(source: Path, tmp_path: Path) -> None:
    ingest(IngestSettings(behaviour=str(source), reviews=None), tmp_path / "dataset")
    prepare(tmp_path / "dataset", PrepareSettings(), tmp_path / "snapshots")
    events = plain.clean(source.parent, tmp_path, CleaningSettings(), pseudonym_key())
    ours = pl.read_parquet(tmp_path / "dataset" / "events.parquet")
    assert_frame_equal(pl.from_pandas(events), ours)
    quarantine = pl.read_parquet(tmp_path / "dataset" / "quarantine.parquet")
    theirs = pl.read_parquet(tmp_path / "quarantine.parquet")
    assert_frame_equal(
        theirs.select("user", "time", "reason", "row"),
        quarantine.select("user", "time", "reason", "row"),
    )
    plain.prepare(
        events, Catalogue.read(tmp_path / "dataset" / "items.parquet"), PrepareSettings(), tmp_path
    )
    snapshots = pl.read_parquet(tmp_path / "snapshots" / "snapshots.parquet")
    theirs = pl.read_parquet(tmp_path / "snapshots.parquet")
    assert_frame_equal(theirs.cast(dict(snapshots.schema)), snapshots)


def test_without_pyspark_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyspark.errors", None)
    with pytest.raises(
        TasteloopError, match=r"data.engine is spark, but .* pip install 'tasteloop\[spark\]'"
    ):
        session(DataSettings(engine="spark"))
    with pytest.raises(ValueError, match="master"):
        DataSettings(master="http://example.com")


def test_the_connect_server_is_what_the_guide_points_at() -> None:
    guide = (ROOT / "docs" / "cluster.md").read_text()
    blocks = [
        yaml.safe_load(b)
        for b in re.findall(r"```yaml\n(.*?)```", guide, re.DOTALL)
        if b.startswith("data:")
    ]
    (data,) = [DataSettings.model_validate(block["data"]) for block in blocks]
    application, service = yaml.safe_load_all(
        (ROOT / "infra" / "k8s" / "components" / "spark" / "connect.yaml").read_text()
    )
    assert (application["kind"], service["kind"]) == ("SparkApplication", "Service")
    assert service["spec"]["selector"] == application["spec"]["driver"]["labels"]
    assert (
        data.remote == f"sc://{service['metadata']['name']}:{service['spec']['ports'][0]['port']}"
    )
    for role in ("driver", "executor"):
        (mount,) = application["spec"][role]["volumeMounts"]
        assert str(data.shared).startswith(mount["mountPath"])
        assert mount["name"] in [volume["name"] for volume in application["spec"]["volumes"]]


def test_the_growth_exponent_is_of_time_over_events() -> None:
    rows = [
        {"engine": "polars", "events": n, "seconds": 2 + n**1.2 / 1e6, "peak_gb": 1}
        for n in (10**6, 10**7, 10**8)
    ]
    assert exponent(rows[1:]) == pytest.approx(1.2, abs=0.01)
    assert exponent(rows) == exponent(rows[1:]), (
        "of three, the smallest, where starting counts, is left out"
    )
    assert exponent(rows[:1]) is None
    assert exponent([{**rows[0], "failed": "killed"}, rows[1]]) is None
    slow = [
        {**row, "engine": "pandas", "seconds": 4 * row["seconds"], "peak_gb": 5} for row in rows
    ]
    found = summary([*rows, *slow])["polars_beside_pandas"]
    assert found["10000000"] == {"times_faster": 4.0, "share_of_memory": 0.2}


def test_what_lies_between_is_gone_also_where_the_work_failed(tmp_path: Path) -> None:
    for _ in range(2):  # a second try finds nothing of the first in its way
        with pytest.raises(OSError, match="full"), DataSettings().work(tmp_path) as folder:
            (folder / "part").write_bytes(b"half")
            raise OSError("full")
    assert not list(tmp_path.iterdir())
