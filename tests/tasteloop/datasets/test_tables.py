"""Files as real programs write them, and damaged ones: read alike by ingest, score and monitor, or
refused by name.
"""

from __future__ import annotations

import codecs
import gzip
import os
import resource
import zlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pipelines.loop.incoming import scan_events, source_of_files
from pipelines.loop.retention import _old_event_files
from tasteloop import decompression
from tasteloop.behaviour.cleaning import CleaningSettings
from tasteloop.behaviour.events import Event
from tasteloop.behaviour.times import likely_range, microseconds, parse_iso
from tasteloop.datasets import mapped, reviews, tables
from tasteloop.datasets.ingest import IngestSettings, ingest, source_fingerprint
from tasteloop.datasets.reading import read_times
from tasteloop.datasets.tables import read_table
from tasteloop.errors import TasteloopError
from tasteloop.files import read_json
from tasteloop.runtime.event_file import EventFile, Progress

MOMENT = datetime(2026, 3, 2, 9, 0, 0, tzinfo=UTC)
MICROS = microseconds(MOMENT)
MAPPING = """
events: {file}
columns: {{user: user, item: item, kind: kind, time: time}}
items: {{file: items.csv, columns: {{item: item, labels: labels}}}}
time: {{unit: {unit}}}
"""


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TASTELOOP_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TASTELOOP_PSEUDONYM_KEY", "a key for these tests only")


def by_ingest(path: Path, unit: str = "us") -> pl.DataFrame:
    (path.parent / "items.csv").write_text("item,labels\n7,Tools\n")
    (path.parent / "m.yaml").write_text(MAPPING.format(file=path.name, unit=unit))
    return mapped.read(path.parent / "m.yaml").events


def by_score(path: Path) -> pl.DataFrame:
    source = EventFile.open(path, "interests")
    frames = list(source._frames())
    for frame in frames:
        source._check(frame)
    return pl.concat(frames)


def by_monitor(path: Path) -> pl.DataFrame:
    return source_of_files(path)(0).events


READERS: dict[str, Callable[[Path], pl.DataFrame]] = {
    "ingest": by_ingest,
    "score": by_score,
    "monitor": by_monitor,
}
every_reader = pytest.mark.parametrize("read", READERS.values(), ids=READERS)


def parquet(path: Path, **columns: Any) -> Path:
    """Two events, with these columns instead of their own."""
    made = {
        "user": ["u1", "u2"],
        "item": ["7", "8"],
        "kind": ["click", "click"],
        "time": [MICROS, MICROS],
        **columns,
    }
    pq.write_table(pa.table(made), path)
    return path


def csv(
    path: Path, rows: str, header: str = "user,item,kind,time\n", encoding: str = "utf-8"
) -> Path:
    path.write_bytes((header + rows).encode(encoding))
    return path


# times


def stamps(unit: str, zone: str | None) -> pa.Array:
    return pa.array([MOMENT.replace(tzinfo=None)] * 2, pa.timestamp(unit)).cast(
        pa.timestamp(unit, zone)
    )


TIMES = {
    f"{unit} {zone}": stamps(unit, zone)
    for unit in ("s", "ms", "us", "ns")
    for zone in (None, "UTC")
}
TIMES |= {
    zone: pa.array([MOMENT] * 2, pa.timestamp("us", zone))
    for zone in ("America/New_York", "+05:30", "-03:00", "Mars/X")
}
TIMES |= {"integers": pa.array([MICROS] * 2), "floats": pa.array([float(MICROS)] * 2)}


@every_reader
@pytest.mark.parametrize("times", TIMES.values(), ids=TIMES)
def test_a_time_of_any_unit_and_zone_is_the_same_moment(
    tmp_path: Path, times: pa.Array, read: Callable[[Path], pl.DataFrame]
) -> None:
    path = parquet(tmp_path / "a.parquet", time=times)

    assert read(path)["time"].to_list() == [MICROS] * 2


@every_reader
def test_a_date_is_its_midnight(tmp_path: Path, read: Callable[[Path], pl.DataFrame]) -> None:
    path = parquet(tmp_path / "a.parquet", time=pa.array([MOMENT.date()] * 2))

    assert read(path)["time"].to_list() == [MICROS - 9 * 3_600_000_000] * 2


NO_TIMES = {
    "durations": (
        pa.array([timedelta(1)] * 2, pa.duration("us")),
        "column for time holds Duration",
    ),
    "times of day": (pa.array([MOMENT.time()] * 2), "column for time holds Time"),
    "booleans": (pa.array([True, False]), "column for time holds Boolean"),
    "lists": (pa.array([[1], [2]]), "column for time holds List"),
    "structs": (pa.array([{"a": 1}] * 2), "column for time holds Struct"),
    "seconds": (
        pa.array([MICROS // 1_000_000] * 2),
        "look like seconds .*2026-03-02T09:00:00Z|looks like seconds",
    ),
    "milliseconds": (pa.array([MICROS // 1_000] * 2), "looks? like milliseconds"),
    "nanoseconds": (pa.array([MICROS * 1_000] * 2), "looks? like nanoseconds"),
    "seconds as floats": (pa.array([MICROS / 1e6] * 2), "looks? like seconds"),
}


@every_reader
@pytest.mark.parametrize(("times", "says"), NO_TIMES.values(), ids=NO_TIMES)
def test_what_is_no_microsecond_is_refused_by_name(
    tmp_path: Path, times: pa.Array, says: str, read: Callable[[Path], pl.DataFrame]
) -> None:
    path = parquet(tmp_path / "a.parquet", time=times)

    with pytest.raises(TasteloopError, match=says) as raised:
        read(path)

    assert "a.parquet" in str(raised.value)


def test_the_monitor_refuses_text_for_a_time(tmp_path: Path) -> None:
    path = parquet(tmp_path / "a.parquet", time=["2026-03-02T09:00:00Z"] * 2)

    with pytest.raises(
        TasteloopError, match=r"the column for time holds String; allowed: dates with a time"
    ):
        by_monitor(path)


def test_score_reads_dates_as_text_and_refuses_seconds_by_their_row(tmp_path: Path) -> None:
    path = csv(
        tmp_path / "a.csv", "u,7,click,2026-03-02T10:00:00+01:00\nu,7,click,20260302T090000Z\n"
    )
    assert by_score(path)["time"].to_list() == [MICROS] * 2

    csv(path, f"u,7,click,{MICROS}\nu,7,click,1772442000\n")
    with pytest.raises(
        TasteloopError, match=r"row 2 of .*a\.csv: time .*looks like seconds, 2026-03-02T09:00:00Z"
    ):
        by_score(path)


@pytest.mark.parametrize(
    ("unit", "written", "says"),
    [
        ("iso", "1772442000", "are to be ISO 8601, and these look like seconds"),
        ("s", "1772442000000", "are to be seconds, and these look like milliseconds"),
        ("ms", "1772442000", "are to be milliseconds, and these look like seconds"),
        ("us", "1772442000000000000", "are to be microseconds, and these look like nanoseconds"),
    ],
)
def test_a_mapping_with_another_unit_is_told_the_one_to_set(
    tmp_path: Path, unit: str, written: str, says: str
) -> None:
    path = csv(tmp_path / "a.csv", f"u,7,click,{written}\n" * 3 + "u,7,click,soon\n")

    with pytest.raises(TasteloopError, match=says + r".*time: \{unit: "):
        by_ingest(path, unit)


def test_one_wrong_time_among_right_ones_is_a_row_of_the_quarantine(tmp_path: Path) -> None:
    path = csv(tmp_path / "a.csv", f"u,7,click,{MICROS}\n" * 3 + "u,7,click,1772442000\n")

    assert by_ingest(path)["time"].to_list() == [MICROS] * 3 + [1772442000]


def test_the_monitor_passes_over_one_wrong_time_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    times = [MICROS, MICROS, MICROS // 1_000_000]
    path = parquet(
        tmp_path / "a.parquet", user=["u"] * 3, item=["7"] * 3, kind=["click"] * 3, time=times
    )

    assert by_monitor(path).height == 2
    assert "1 of 3 rows have no user or no readable time" in caplog.text


@pytest.mark.parametrize(
    ("time", "unit"), [(1_772_442_000, "seconds"), (1_772_442_000_000.0, "milliseconds")]
)
def test_the_server_refuses_a_time_of_another_unit(time: float, unit: str) -> None:
    with pytest.raises(
        TasteloopError, match=rf"not {time}; it looks like {unit}, 2026-03-02T09:00:00Z"
    ):
        Event.parse({"kind": "view", "time": time}, "instances[0].events[0]")


def test_no_number_is_a_likely_time_in_two_units() -> None:
    ranges = sorted(likely_range(unit) for unit in ("s", "ms", "us", "ns"))

    assert all(before[1] <= after[0] for before, after in zip(ranges[:-1], ranges[1:], strict=True))


@pytest.mark.fuzz
@given(
    st.one_of(
        st.text("0123456789-:.,TZ+ ", max_size=34),
        st.builds(
            lambda moment, form, zone: moment.strftime(form) + zone,
            st.datetimes(datetime(1000, 1, 1), datetime(9999, 12, 31)),
            st.sampled_from(
                [
                    "%Y-%m-%dT%H:%M:%S.%f",
                    "%Y%m%dT%H%M%S",
                    "%Y-%m-%d %H:%M",
                    "%Y-%m-%d",
                    "%Y-%m-%dT%H",
                ]
            ),
            st.sampled_from(["", "Z", "+05:30", "-0800", "+01", " +02:00", "+24:00"]),
        ),
    )
)
@example("2026-02-30T00:00:00Z")
@example("2026-03-02T23:59:60Z")
@example("2026-03-02T09:00:00.1234567Z")
@example("0000-01-01")
@settings(max_examples=settings.default.max_examples)
def test_one_time_and_a_column_of_it_are_read_alike(written: str) -> None:
    column = pl.select(read_times(pl.lit(written), pl.String(), "iso")).item()

    assert parse_iso(written) == column or (
        written.strip().startswith("0000") and parse_iso(written) is None
    )


def test_retention_reads_times_as_the_monitor_does(tmp_path: Path) -> None:
    for name, unit in (("a", "ms"), ("b", "ns")):
        parquet(tmp_path / f"{name}.parquet", time=stamps(unit, None))

    assert _old_event_files(tmp_path, MICROS) == []
    assert len(_old_event_files(tmp_path, MICROS + 1)) == 2


# ids

FLOATS = {
    "floats": pa.array([7.0, None, float("nan"), 2.0**60]),
    "decimals": pa.array([Decimal("7.00"), None, None, Decimal(2**60)], pa.decimal128(30, 2)),
    "integers": pa.array([7, None, None, 2**60]),
    "dictionary": pa.array(["7", None, " ", str(2**60)]).dictionary_encode(),
    "binary": pa.array([b"7", None, b"", str(2**60).encode()]),
}


@pytest.mark.parametrize("ids", FLOATS.values(), ids=FLOATS)
def test_a_whole_number_is_the_same_id_in_every_type(tmp_path: Path, ids: pa.Array) -> None:
    columns = {"user": ["u"] * 4, "kind": ["click"] * 4, "time": [MICROS] * 4}
    path = parquet(tmp_path / "a.parquet", item=ids, **columns)
    expected = ["7", None, None, str(2**60)]

    assert by_ingest(path)["item"].to_list() == expected
    assert by_monitor(path)["item"].to_list() == expected


@pytest.mark.parametrize("read", [by_ingest, by_score])
def test_whole_numbers_that_a_csv_writes_as_floats_are_the_integers(
    tmp_path: Path, read: Callable[[Path], pl.DataFrame]
) -> None:
    ids = ("7.0", "1e+16", "1.5e+17", "12345678901234567.0", "v2.0", "1.5", "12E4", "007")
    path = csv(tmp_path / "a.csv", "".join(f"u,{item},click,{MICROS}\n" for item in ids))

    assert read(path)["item"].to_list() == [
        *("7", "10000000000000000", "150000000000000000", "12345678901234567"),
        *("v2.0", "1.5", "12E4", "007"),
    ]


def test_float_ids_meet_the_catalogue_and_what_it_lacks_is_counted(tmp_path: Path) -> None:
    rows = "".join(
        f"{n}.0,{item},click,{MICROS + n * 10**7}\n"
        for n, item in enumerate(("7.0", "7.0", "9.0", ""))
    )
    by_ingest(csv(tmp_path / "a.csv", rows))
    given = IngestSettings(
        behaviour=str(tmp_path / "m.yaml"),
        reviews=None,
        cleaning=CleaningSettings(min_user_events=1),
    )

    ingest(given, tmp_path / "out")

    assert read_json(tmp_path / "out" / "ingest.json")["unlisted"] == {"events": 1, "of": 3}
    assert pl.read_parquet(tmp_path / "out" / "items.parquet")["item"].to_list() == ["7", "9"]


def test_ingest_counts_words_for_nothing_and_what_each_rule_removed_of_a_kind(
    tmp_path: Path,
) -> None:
    rows = "".join(
        f"{user},{item},{kind},{MICROS + n * 10**7}\n"
        for n, (user, item, kind) in enumerate(
            [
                ("NULL", "7", "click"),
                ("\\N", "nan", "click"),
                ("u", "None", "view"),
                ("u", "7", "review"),
            ]
        )
    )
    by_ingest(csv(tmp_path / "a.csv", rows))
    given = IngestSettings(
        behaviour=str(tmp_path / "m.yaml"),
        reviews=None,
        cleaning=CleaningSettings(min_user_events=1),
    )

    ingest(given, tmp_path / "out")

    written = read_json(tmp_path / "out" / "ingest.json")
    assert written["null_words"] == {"user": {"NULL": 1, "\\N": 1}, "item": {"None": 1, "nan": 1}}
    assert written["kinds"] == {
        "view": {"rows": 1, "removed": {}},
        "click": {"rows": 2, "removed": {}},
        "review": {"rows": 1, "removed": {"incomplete": 1}},
    }


# types

WRONG = {
    "user": pa.array([["a"], ["b"]]),
    "item": pa.array([True, False]),
    "kind": pa.array([{"a": 1}, {"a": 2}]),
    "value": pa.array([True, False]),
    "text": pa.array([timedelta(1)] * 2, pa.duration("ms")),
}


@pytest.mark.parametrize("read", [by_score, by_monitor])
@pytest.mark.parametrize("column", WRONG)
def test_a_column_of_the_wrong_type_is_named_with_its_type(
    tmp_path: Path, column: str, read: Callable[[Path], pl.DataFrame]
) -> None:
    path = parquet(tmp_path / "a.parquet", **{column: WRONG[column]})

    with pytest.raises(
        TasteloopError, match=rf"a\.parquet: the column for {column} holds .*; allowed: "
    ):
        read(path)


@every_reader
def test_binary_that_is_no_text_is_named(
    tmp_path: Path, read: Callable[[Path], pl.DataFrame]
) -> None:
    path = parquet(tmp_path / "a.parquet", user=pa.array([b"u", b"\xff"]))

    with pytest.raises(
        TasteloopError, match=r"the column for user holds Binary that is not UTF-8 text"
    ):
        read(path)


def test_reviews_of_the_wrong_type_are_named(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": [["a"]], "sentiment": [1]}), tmp_path / "r.parquet")

    with pytest.raises(
        TasteloopError, match=r"r\.parquet: the column for text holds List\(String\)"
    ):
        reviews.read(tmp_path / "r.parquet")


@every_reader
def test_a_repeated_column_is_named(tmp_path: Path, read: Callable[[Path], pl.DataFrame]) -> None:
    made = pa.table(
        {"user": ["u"], "item": ["7"], "kind": ["click"], "time": [MICROS], "more": [1]}
    )
    pq.write_table(made.append_column("item", pa.array(["8"])), tmp_path / "a.parquet")

    with pytest.raises(TasteloopError, match=r"a\.parquet has the column 'item' more than once"):
        read(tmp_path / "a.parquet")


@pytest.mark.parametrize("read", [by_ingest, by_score])
def test_a_repeated_column_of_a_csv_matters_where_it_is_read(
    tmp_path: Path, read: Callable[[Path], pl.DataFrame]
) -> None:
    row = f"u,7,click,{MICROS},x,y\n"
    assert read(csv(tmp_path / "a.csv", row, "user,item,kind,time,more,more\n")).height == 1

    with pytest.raises(TasteloopError, match=r"a\.csv has the column 'item' more than once"):
        read(csv(tmp_path / "a.csv", row, "user,item,kind,time,more,item\n"))


# directories and names


@every_reader
def test_a_parquet_directory_is_a_table(
    tmp_path: Path, read: Callable[[Path], pl.DataFrame]
) -> None:
    folder = tmp_path / "a.parquet"
    (folder / "_temporary").mkdir(parents=True)
    for name in ("_SUCCESS", ".part-00000.parquet.crc", "_temporary/part-00002.parquet"):
        (folder / name).write_bytes(b"")
    for n in range(2):
        parquet(folder / f"part-0000{n}.snappy.parquet", user=[f"u{n}", f"v{n}"])

    found = read(folder)

    assert found.height == 4
    assert read is not by_score or found["user"].to_list() == ["u0", "v0", "u1", "v1"]


def test_a_column_that_spark_put_into_the_path_is_read(tmp_path: Path) -> None:
    for kind in ("click", "view"):
        (tmp_path / "a.parquet" / f"kind={kind}").mkdir(parents=True)
        table = pa.table({"user": ["u"], "item": ["7"], "time": [MICROS]})
        pq.write_table(table, tmp_path / "a.parquet" / f"kind={kind}" / "part-0.parquet")

    assert by_ingest(tmp_path / "a.parquet")["kind"].to_list() == ["click", "view"]


def test_a_directory_that_is_no_table_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.csv").mkdir()
    (tmp_path / "a.parquet").mkdir()

    with pytest.raises(TasteloopError, match=r"a\.csv is a directory; one of Parquet files"):
        read_table(tmp_path / "a.csv", {"user": "user"})
    with pytest.raises(TasteloopError, match=r"a\.parquet is a directory without a \.parquet file"):
        read_table(tmp_path / "a.parquet", {"user": "user"})


def test_the_fingerprint_follows_the_files_of_a_directory(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").mkdir()
    by_ingest(parquet(tmp_path / "a.parquet" / "part-0.parquet").parent)
    given = IngestSettings(behaviour=str(tmp_path / "m.yaml"), reviews=None)
    before = source_fingerprint(given)

    parquet(tmp_path / "a.parquet" / "part-0.parquet", user=["x", "y"])

    assert source_fingerprint(given) != before


@pytest.mark.parametrize("name", ["a.CSV", "a.Csv.GZ", "a.TSV", "a.Parquet"])
def test_endings_are_read_in_any_case(tmp_path: Path, name: str) -> None:
    text = f"user,item,kind,time\nu,7,click,{MICROS}\n"
    if name == "a.Parquet":
        parquet(tmp_path / name)
    else:
        text = text.replace(",", "\t") if "TSV" in name else text
        (tmp_path / name).write_bytes(
            gzip.compress(text.encode()) if "GZ" in name else text.encode()
        )

    assert by_ingest(tmp_path / name)["item"][0] == "7"


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.csv")

    with pytest.raises(TasteloopError, match="is no regular file"):
        read_table(tmp_path / "a.csv", {"user": "user"})


# damage

ROWS = "".join(f"SECRET{n},item{n % 7},click,{MICROS + n}\n" for n in range(3000))
TEXT = ("user,item,kind,time\n" + ROWS).encode()
PACKED = gzip.compress(TEXT)

DAMAGED = {
    "gzip cut in its head": (
        "a.csv.gz",
        PACKED[:9],
        "is cut short: its gzip data end after 0 bytes",
    ),
    "gzip cut in the middle": (
        "a.csv.gz",
        PACKED[: len(PACKED) // 2],
        "is cut short: its gzip data end after",
    ),
    "gzip cut in its end": ("a.csv.gz", PACKED[:-1], "is cut short: its gzip data end after"),
    "second member cut": (
        "a.csv.gz",
        PACKED + PACKED[:-9],
        "is cut short: its gzip data end after",
    ),
    "gzip with a wrong checksum": (
        "a.csv.gz",
        PACKED[:-8] + b"0000" + PACKED[-4:],
        "its gzip data is damaged",
    ),
    "something after the gzip": (
        "a.csv.gz",
        PACKED + b"more",
        "its gzip data is followed by something else",
    ),
    "empty gzip": ("a.csv.gz", gzip.compress(b""), "is empty"),
    "gzip under another name, cut": ("a.csv", PACKED[:-9], "is cut short"),
    "UTF-16": (
        "a.csv",
        TEXT.decode().encode("utf-16"),
        "is UTF-16 text; convert it: iconv -f UTF-16",
    ),
    "UTF-16 without a mark": (
        "a.csv",
        TEXT.decode().encode("utf-16-le"),
        "if it is UTF-16, convert it",
    ),
    "UTF-32": ("a.csv", codecs.BOM_UTF32_LE + TEXT.decode().encode("utf-32-le"), "is UTF-32 text"),
    "UTF-16 in gzip": ("a.csv.gz", gzip.compress(TEXT.decode().encode("utf-16")), "is UTF-16 text"),
    "Latin-1": (
        "a.csv",
        TEXT + b"SECRET,caf\xe9,click,1\n",
        "line 3002 is not UTF-8 .byte 0xe9.*iconv",
    ),
    "cut within a character": (
        "a.csv",
        TEXT + "SECRET,\xe9".encode()[:-1],
        "it is truncated: it ends within a",
    ),
    "zstd": ("a.csv", b"\x28\xb5\x2f\xfd" + TEXT, "compressed with zstd"),
    "zlib": ("a.csv", zlib.compress(TEXT), "compressed with zlib"),
    "zip": ("a.csv", b"PK\x03\x04" + TEXT, "is a zip archive, perhaps a spreadsheet"),
    "too many fields": (
        "a.csv",
        TEXT + b"SECRET,b,c,d,e\n",
        "more fields than the header: 5, not 4, in line 3002",
    ),
    "an open quote": ("a.csv", TEXT + b'"SECRET,b,c,d\n' + ROWS.encode(), "a quote is not closed"),
    "semicolons": ("a.csv", TEXT.replace(b",", b";"), "is separated by ';'"),
    "no header": ("a.csv", b"SECRET@example.com,b,c,d\n", "its first line is no header"),
}


@pytest.mark.parametrize(("name", "content", "says"), DAMAGED.values(), ids=DAMAGED)
def test_damaged_text_is_refused_with_the_true_reason_and_no_row(
    tmp_path: Path, name: str, content: bytes, says: str
) -> None:
    (tmp_path / name).write_bytes(content)

    with pytest.raises(TasteloopError, match=says) as raised:
        by_ingest(tmp_path / name)

    assert "SECRET" not in str(raised.value)
    assert "truncated" not in str(raised.value) or "cut" in str(says) or "truncated" in says


def test_a_row_that_cannot_be_read_far_into_a_file_is_refused_by_ingest(tmp_path: Path) -> None:
    by_ingest(csv(tmp_path / "a.csv", f"u,7,click,{MICROS}\n"))
    csv(tmp_path / "a.csv", f"u,7,click,{MICROS}\n" * 3000 + f'u,7,"click,{MICROS}\nSECRET')
    given = IngestSettings(behaviour=str(tmp_path / "m.yaml"), reviews=None)

    with pytest.raises(TasteloopError, match="a quote is not closed"):
        ingest(given, tmp_path / "out")


def test_gzip_of_many_members_and_text_with_a_mark_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.csv.gz").write_bytes(PACKED + gzip.compress(ROWS.encode()))
    (tmp_path / "b.csv").write_bytes(codecs.BOM_UTF8 + TEXT)

    assert by_ingest(tmp_path / "a.csv.gz").height == 6000
    assert by_ingest(tmp_path / "b.csv").height == 3000


def test_a_parquet_that_is_damaged_is_not_called_truncated(tmp_path: Path) -> None:
    path = parquet(tmp_path / "a.parquet")
    content = path.read_bytes()
    for damaged, says in (
        (content[:-1], "it is truncated"),
        (content[: len(content) // 2], "it is truncated"),
        (
            content[:-60] + b"\0" * 52 + content[-8:],
            "both its ends are there, and what lies between is damaged",
        ),
        (b"user,item\n" * 9, "it is something else under that name"),
        (content[:-4] + b"PARE", "is encrypted Parquet"),
    ):
        path.write_bytes(damaged)
        with pytest.raises(TasteloopError, match=says) as raised:
            by_ingest(path)
        assert ("truncated" in str(raised.value)) == ("truncated" in says)


def test_files_of_a_directory_that_do_not_fit_are_named(tmp_path: Path) -> None:
    folder = tmp_path / "a.parquet"
    folder.mkdir()
    parquet(folder / "part-0.parquet")
    parquet(folder / "part-1.parquet", item=[1, 2])

    with pytest.raises(
        TasteloopError, match="its files do not all have the same columns of the same types"
    ):
        by_ingest(folder)


def test_a_full_disk_is_not_blamed_on_the_table(tmp_path: Path) -> None:
    path = parquet(tmp_path / "a.parquet")

    with pytest.raises(OSError, match="No space left"), tables.whole_table(path):
        raise OSError(28, "No space left on device")


# bombs


def test_a_gzip_that_holds_too_much_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decompression, "FREE_BYTES", 1 << 20)
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(TEXT + b"a,b,c,1\n" * (1 << 18)))

    with pytest.raises(
        TasteloopError, match=r"a\.csv\.gz \(.* bytes\) holds more than .* 100 times its size"
    ):
        by_ingest(tmp_path / "a.csv.gz")


def test_a_parquet_of_one_row_over_and_over_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "_FREE_ROWS", 1 << 10)
    size = 1 << 21
    path = parquet(
        tmp_path / "a.parquet",
        **{
            name: pa.repeat(value, size)
            for name, value in (("user", "u"), ("item", "7"), ("kind", "click"))
        },
        time=pa.repeat(MICROS, size),
    )

    with pytest.raises(TasteloopError, match=r"a\.parquet \(.* bytes\) claims 2,097,152 rows"):
        by_ingest(path)


# anything at all

EXAMPLES = max(settings.default.max_examples // 2, 1)
MOST_GROWTH = 1 << 20  # kB of memory that all the examples of a test may take
SLOW = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]


def parquet_bytes(rows: int, **options: Any) -> bytes:
    sink = pa.BufferOutputStream()
    users = [f"u{n % 5}" for n in range(rows)]
    same = {"item": "7.0", "kind": "click", "value": 0.5, "text": "words"}
    columns = {
        "user": users,
        "time": [MICROS + n for n in range(rows)],
        **{c: [v] * rows for c, v in same.items()},
    }
    pq.write_table(pa.table(columns), sink, **options)
    return bytes(sink.getvalue())


FULL = b"user,item,kind,time,value,text\n" + b'u1,7.0,click,2026-03-02T09:00:00Z,0.5,"a, b"\n' * 30
WHOLE = {
    "a.csv": FULL,
    "a.csv.gz": gzip.compress(FULL) + gzip.compress(FULL),
    "a.tsv": FULL.replace(b",", b"\t"),
    "a.parquet": parquet_bytes(40),
    "b.parquet": parquet_bytes(
        40, compression="zstd", use_dictionary=False, data_page_version="2.0"
    ),
}


@st.composite
def damaged_files(draw: st.DrawFn) -> tuple[str, bytes]:
    """A sound file with some of its bytes changed, cut, repeated or replaced."""
    name = draw(st.sampled_from(list(WHOLE)))
    content = bytearray(WHOLE[name])
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(len(content) - 1, 0)))
        match draw(st.sampled_from(["flip", "cut", "insert", "repeat", "zero"])):
            case "flip" if content:
                content[at] ^= 1 << draw(st.integers(0, 7))
            case "cut":
                del content[at:]
            case "insert":
                content[at:at] = draw(
                    st.binary(max_size=20) | st.sampled_from([b'"', b"\n", b"\xff\xfe", b"\0"])
                )
            case "repeat":
                content[at:at] = content[at : at + 50]
            case "zero":
                content[at : at + 8] = bytes(8)
    return name, bytes(content)


def strange_columns() -> list[pa.Array]:
    """Three values of every kind that Arrow writes into Parquet."""
    moments = [datetime(1, 1, 1), None, datetime(9999, 12, 31)]
    offset = [datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=5.5)))] * 3
    return [
        *(
            pa.array(values)
            for values in (["a", None, "\0"], [1, None, -1], [2**63 - 1, None, -(2**63)])
        ),
        *(
            pa.array(values)
            for values in ([1.0, float("nan"), float("inf")], [1e300, -0.0, 5e-324])
        ),
        pa.array([2**64 - 1, 0, None], pa.uint64()),
        pa.array([1.5, None, 7.0], pa.float32()),
        *(
            pa.array(values)
            for values in ([True, None, False], [None] * 3, [["a"], None, []], [{"a": 1}, None, {}])
        ),
        pa.array([[("k", 1)], None, []], pa.map_(pa.string(), pa.int64())),
        pa.array([b"a", None, b"\xff"]),
        pa.array([b"abcd", None, b"\xff" * 4], pa.binary(4)),
        pa.array([Decimal("7.00"), None, Decimal("-0.01")], pa.decimal128(38, 2)),
        pa.array([Decimal(10) ** 60, None, Decimal(1)], pa.decimal256(70, 0)),
        pa.array(["a", None, "a"]).dictionary_encode(),
        *(pa.array(moments, pa.timestamp(unit)) for unit in ("s", "ms", "us")),
        *(
            pa.array(offset, pa.timestamp("us", zone))
            for zone in ("+05:30", "UTC", "Not/A_Zone", "")
        ),
        pa.array([10**9, None, 10**18], pa.timestamp("ns")),
        *(
            pa.array([1, None, 2], kind)
            for kind in (pa.time32("s"), pa.time64("us"), pa.duration("ns"))
        ),
        *(pa.array([1, None, 2**31 - 1], kind) for kind in (pa.date32(), pa.int32())),
        pa.array([None, "x" * 100_000, "1e+99"]),
    ]


@st.composite
def strange_tables(draw: st.DrawFn) -> tuple[str, bytes]:
    """A sound Parquet file whose columns are of any type and any number, some repeated."""
    names = ["user", "item", "kind", "time", "value", "text"]
    names = draw(
        st.lists(st.sampled_from(names), min_size=3, max_size=6, unique=draw(st.booleans()))
    )
    arrays = [draw(st.sampled_from(STRANGE)) for _ in names]
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_arrays(arrays, names), sink)
    return "a.parquet", bytes(sink.getvalue())


STRANGE = strange_columns()


def whole_ingest(path: Path) -> None:
    optional = "value: value, text: text"
    text = MAPPING.format(file=path.name, unit="iso").replace(
        "time: time}", f"time: time, {optional}}}"
    )
    (path.parent / "items.csv").write_text("item,labels\n7,Tools\n")
    (path.parent / "m.yaml").write_text(text)
    ingest(IngestSettings(behaviour=str(path.parent / "m.yaml"), reviews=None), path.parent / "out")


def whole_score(path: Path) -> None:
    source = EventFile.open(path, "interests")
    for _ in source.questions(path.parent, None, Progress(source.expected)):
        pass


def whole_reviews(path: Path) -> None:
    reviews.clean({"mine": reviews.read(path)})


def whole_monitor(path: Path) -> None:
    by_monitor(path)
    scan_events(path).select(pl.col("time").max())


@pytest.mark.fuzz
@pytest.mark.parametrize("read", [whole_ingest, whole_score, whole_monitor, whole_reviews])
@given(given=st.one_of(damaged_files(), strange_tables()))
@settings(max_examples=EXAMPLES, suppress_health_check=SLOW)
def test_any_file_is_a_table_or_is_refused(
    tmp_path_factory: pytest.TempPathFactory, read: Callable[[Path], None], given: tuple[str, bytes]
) -> None:
    name, content = given
    path = tmp_path_factory.mktemp("any") / name
    path.write_bytes(content)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    try:
        read(path)
    except TasteloopError as refused:
        assert str(path.parent) in str(refused)

    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MOST_GROWTH


@pytest.mark.fuzz
@given(
    st.one_of(
        st.binary(max_size=200),
        st.text("{}[]:,&*!|>-'\" \n\tabeiknost0123.~", max_size=200).map(str.encode),
    )
)
@settings(max_examples=EXAMPLES, suppress_health_check=SLOW)
def test_any_mapping_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = tmp_path_factory.mktemp("any") / "m.yaml"
    path.write_bytes(content)

    with pytest.raises(TasteloopError, match=r"m\.yaml"):
        mapped.load(path)
