"""Spark writes what Polars writes, byte for byte: a standalone master and a worker, and Spark
Connect, on loopback.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from benchmarks.data.generated import generate
from tasteloop.behaviour.cleaning import CleaningSettings
from tasteloop.behaviour.partitions import DataSettings
from tasteloop.behaviour.prepare import prepare
from tasteloop.behaviour.snapshots import PrepareSettings
from tasteloop.behaviour.spark import session
from tasteloop.datasets.ingest import IngestResult, IngestSettings, ingest
from tasteloop.errors import TasteloopError
from tasteloop.files import read_json, sha256_tree, write_json
from validation.data.expectations import ValidationSettings, validate

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
ROOT = Path(__file__).parents[3]
EVENTS = 20_000
if not shutil.which("java"):
    pytest.skip(
        "no Java on this machine: apt-get install openjdk-17-jre-headless", allow_module_level=True
    )
pyspark = pytest.importorskip("pyspark", reason="no pyspark: pip install 'tasteloop[spark]'")


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


def _state(page: int) -> dict[str, Any]:
    with urllib.request.urlopen(f"http://127.0.0.1:{page}/json/", timeout=5) as answer:
        state: dict[str, Any] = json.load(answer)
    return state


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[DataSettings, int]]:
    """The settings of a running cluster with one worker, and the port of the master's page."""
    folder, home = tmp_path_factory.mktemp("spark"), Path(pyspark.__file__).parent
    address, page = f"spark://127.0.0.1:{(port := _free_port())}", _free_port()
    environment = {
        **os.environ,
        "SPARK_HOME": str(home),
        "SPARK_LOCAL_IP": "127.0.0.1",
        "SPARK_WORKER_DIR": str(folder / "worker"),
        "PYTHONPATH": str(ROOT),
    }
    master = ["Master", "--host", "127.0.0.1", "--port", str(port), "--webui-port", str(page)]
    worker = [
        "Worker",
        "--host",
        "127.0.0.1",
        "--cores",
        "2",
        "--memory",
        "1g",
        "--webui-port",
        str(_free_port()),
        address,
    ]
    processes = []
    try:
        for command in (master, worker):
            role = command[0].lower()
            with (folder / f"{role}.log").open("w") as log:
                command = [
                    str(home / "bin" / "spark-class"),
                    f"org.apache.spark.deploy.{role}.{command[0]}",
                    *command[1:],
                ]
                processes.append(
                    subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
                )
        for _ in range(240):
            try:
                if _state(page)["aliveworkers"]:
                    break
            except OSError:
                time.sleep(0.5)
        else:
            pytest.fail(
                (folder / "master.log").read_text()[-2000:]
                + (folder / "worker.log").read_text()[-2000:]
            )
        options = {
            "spark.driver.host": "127.0.0.1",
            "spark.driver.bindAddress": "127.0.0.1",
            "spark.ui.enabled": "false",
        }
        yield DataSettings(engine="spark", master=address, rows_a_part=6_000, options=options), page
        from pyspark.sql import SparkSession

        if active := SparkSession.getActiveSession():
            active.stop()
    finally:
        for process in reversed(processes):
            process.terminate()
            process.wait(30)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return generate(EVENTS, tmp_path_factory.mktemp("source") / "shop")


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TASTELOOP_PSEUDONYM_KEY", "a key for these tests only")
    monkeypatch.setenv("TASTELOOP_HOME", str(tmp_path / "home"))


def both(
    settings: IngestSettings, data: DataSettings, out: Path
) -> tuple[IngestResult, IngestResult]:
    """Ingested by Polars and by Spark, after their tables were compared row for row."""
    results = (
        ingest(settings, out / "polars", DataSettings()),
        ingest(settings, out / "spark", data),
    )
    for table in ("events", "quarantine", "items"):
        frames = [
            pl.read_parquet(out / engine / f"{table}.parquet") for engine in ("polars", "spark")
        ]
        assert_frame_equal(*frames, check_exact=True)
    return results


def test_ingest_validation_and_snapshots(
    cluster: tuple[DataSettings, int], source: Path, tmp_path: Path
) -> None:
    data, page = cluster
    mine, theirs = both(IngestSettings(behaviour=str(source), reviews=None), data, tmp_path)
    assert mine.rows_out > 0.9 * EVENTS
    assert (
        min(
            mine.removed[rule]
            for rule in ("missing", "off_scale", "exact_duplicate", "near_duplicate")
        )
        > 0
    )
    assert (theirs.removed, theirs.users, theirs.sha256) == (mine.removed, mine.users, mine.sha256)

    engines = {"polars": DataSettings(), "spark": data}
    for times in ("given", "order"):
        for engine, how in engines.items():
            record = read_json(tmp_path / engine / "ingest.json")
            write_json(tmp_path / engine / "ingest.json", record | {"times": times})
            prepare(
                tmp_path / engine, PrepareSettings(), tmp_path / f"{engine}-{times}-snapshots", how
            )
        folders = [tmp_path / f"{engine}-{times}-snapshots" for engine in engines]
        frames = [pl.read_parquet(folder / "snapshots.parquet") for folder in folders]
        assert frames[0].height > 1000
        assert_frame_equal(*frames, check_exact=True)
        assert len({sha256_tree(folder) for folder in folders}) == 1

    state = _state(page)
    assert [app["name"] for app in state["activeapps"]] == ["tasteloop"], (
        "it ran on the cluster, not beside it"
    )
    assert state["activeapps"][0]["cores"] == 2


def test_rare_items_and_their_users_go_together(
    cluster: tuple[DataSettings, int], source: Path, tmp_path: Path
) -> None:
    strict = CleaningSettings(min_item_events=3, min_user_events=30)
    mine, theirs = both(
        IngestSettings(behaviour=str(source), reviews=None, cleaning=strict), cluster[0], tmp_path
    )
    assert mine.removed["few_item_events"] and mine.removed["few_user_events"]
    assert theirs.sha256 == mine.sha256


def test_text_that_is_hard_to_read(cluster: tuple[DataSettings, int], tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(
        "user,item,kind,time,value,text\n"
        'é,"i,1",rate,2026-03-29T02:30:00,3,\n'  # a time that does not exist in Berlin
        'é,"i ""1""",review,2026-03-29T03:30:00,5,"two\nlines"\n'
        "é,,search,2026-03-29T03:30:00,,🎬 noir\né,,search,2026-03-29T03:30:00.5,, 🎬 noir \n"
        "é,i1,rate,2026-03-29T03:30:00,-0.0,\né,i1,rate,2026-03-29T03:30:00,0,\né,i1,rate,9999-12-31,1e400,\n"
        ",i1,view,2026-03-29T03:30:00,,\nzoë,i2,view,0001-01-01,,\nzoë,i2,view,2026-01-01,nan,\nzoë,i2,view,2026-01-02,,\n",
        encoding="utf-8",
    )
    columns = "{user: user, item: item, kind: kind, time: time, value: value, text: text}"
    (tmp_path / "m.yaml").write_text(
        f"events: a.csv\ncolumns: {columns}\nscale: [0, 5]\ntime: {{zone: Europe/Berlin}}\n"
    )
    settings = IngestSettings(
        behaviour=str(tmp_path / "m.yaml"),
        reviews=None,
        cleaning=CleaningSettings(min_user_events=1),
    )
    mine, theirs = both(
        settings, cluster[0].model_copy(update={"shared": tmp_path / "shared"}), tmp_path
    )
    assert (theirs.sha256, theirs.removed) == (mine.sha256, mine.removed)
    assert sum(mine.removed.values()) >= 5
    assert not list((tmp_path / "shared").iterdir())


def test_the_findings_of_validation_are_the_same(
    cluster: tuple[DataSettings, int], source: Path, tmp_path: Path
) -> None:
    ingest(IngestSettings(behaviour=str(source), reviews=None), tmp_path / "sound")
    shutil.copytree(tmp_path / "sound", tmp_path / "broken")
    events = pl.read_parquet(tmp_path / "sound" / "events.parquet")
    n = pl.int_range(pl.len())
    worse = events.with_columns(
        pl.when(n < 40).then(pl.lit("nowhere")).otherwise("item").alias("item"),
        pl.when(n == 50)
        .then(float("nan"))
        .when(n == 51)
        .then(1.5)
        .otherwise("value")
        .cast(pl.Float32)
        .alias("value"),
        pl.when(n == 60).then(pl.lit("veiw")).otherwise("kind").alias("kind"),
        pl.when(n == 70).then(-5).otherwise("time").alias("time"),
        pl.when(n == 80).then(pl.lit("alice")).otherwise("user").alias("user"),
    )
    pl.concat([worse, worse.tail(300)]).write_parquet(tmp_path / "broken" / "events.parquet")
    for case, passed in (("sound", True), ("broken", False)):
        found = []
        for engine, data in (("polars", DataSettings()), ("spark", cluster[0])):
            settings = ValidationSettings(kind_shares={"view": (0.2, 0.6)})
            result = validate(tmp_path / case, settings, tmp_path / case / engine, data=data)
            assert result.passed is passed, result.reason
            record = read_json(tmp_path / case / engine / "validation.json")
            # each engine has its own names of types, and Spark counts no rows for them
            told = ("observed", "unexpected", "rows")
            found.append(
                [
                    {**c, **dict.fromkeys(told)} if c["rule"].endswith(" type") else c
                    for c in record["checks"]
                ]
            )
            found[-1] = [
                {k: v for k, v in c.items() if k not in ("samples", "found")} for c in found[-1]
            ]
        assert found[0] == found[1]


@pytest.fixture
def connect(tmp_path: Path) -> Iterator[DataSettings]:
    """The settings of a Spark Connect server with workers of its own."""
    home, port = Path(pyspark.__file__).parent, _free_port()
    binding = "spark.connect.grpc.binding"
    options = {
        f"{binding}.address": "127.0.0.1",
        f"{binding}.port": port,
        "spark.ui.enabled": "false",
    }
    command = [
        home / "bin" / "spark-class",
        "org.apache.spark.deploy.SparkSubmit",
        "--master",
        "local[2]",
    ]
    command += ["--class", "org.apache.spark.sql.connect.service.SparkConnectServer"]
    command += [part for name, value in options.items() for part in ("--conf", f"{name}={value}")]
    own = {"SPARK_HOME": str(home), "SPARK_LOCAL_IP": "127.0.0.1", "PYTHONPATH": str(ROOT)}
    environment = {**os.environ, **own, "PYSPARK_PYTHON": sys.executable}
    environment.pop("TASTELOOP_PSEUDONYM_KEY")  # which no worker needs
    with (tmp_path / "connect.log").open("w") as log:
        process = subprocess.Popen(
            [*command, "spark-internal"], env=environment, stdout=log, stderr=log
        )
    try:
        for _ in range(240):
            assert process.poll() is None, (tmp_path / "connect.log").read_text()[-2000:]
            with socket.socket() as asking:
                if asking.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.5)
        yield DataSettings(engine="spark", remote=f"sc://127.0.0.1:{port}", rows_a_part=6_000)
    finally:
        process.terminate()
        process.wait(30)


def _whole(source: Path, data: DataSettings, out: Path) -> tuple[str, str, bool]:
    """What ingest, snapshots and validation make of a source: two digests, and whether it is
    sound.
    """
    ingested = ingest(IngestSettings(behaviour=str(source), reviews=None), out / "data", data)
    prepare(out / "data", PrepareSettings(), out / "snapshots", data)
    sound = validate(out / "data", ValidationSettings(), out / "validation", data=data).passed
    return json.dumps(ingested.sha256, sort_keys=True), sha256_tree(out / "snapshots"), sound


def test_over_spark_connect(connect: DataSettings, source: Path, tmp_path: Path) -> None:
    # in a process of its own: one that has a session on the cluster cannot have another over
    # Connect
    with ProcessPoolExecutor(1, get_context("spawn")) as other:
        theirs = other.submit(_whole, source, connect, tmp_path / "spark").result()
    assert theirs == (mine := _whole(source, DataSettings(), tmp_path / "polars"))
    assert mine[2] is True


def test_an_address_where_nobody_is() -> None:
    with pytest.raises(
        TasteloopError, match=r"no Spark Connect server at sc://127.0.0.1:\d+ .*data\.remote"
    ):
        session(DataSettings(engine="spark", remote=f"sc://127.0.0.1:{_free_port()}"))
