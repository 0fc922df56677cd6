"""A kind of behaviour costs one file: an entry in the tuple of kinds.

The test does what docs/extending.md says, in a copy of the package, and follows the kind from a
mapping to what is trained on, what a request may hold, and what the API's document says.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import tasteloop

DECLARATION = """    Kind("applaud", "applauded", 0.9, aliases=("Clap",)),
)

KINDS: """

RUN = """
import json, sys
from pathlib import Path
import narwhals as nw
import polars as pl
from serving.journal.feedback import parse_feedback
from tasteloop.behaviour.events import Event, positive
from tasteloop.behaviour.items import Catalogue
from tasteloop.behaviour.text import TextSettings, behaviour_text
from tasteloop.datasets.ingest import IngestSettings, ingest
from validation.data.expectations import ValidationSettings

work = Path(sys.argv[1])
read = ingest(IngestSettings(behaviour=str(work / "acts.yaml"), reviews=None), work / "dataset")
events = pl.read_parquet(work / "dataset" / "events.parquet")
wanted = nw.from_native(events).select(positive().alias("wanted"))["wanted"].to_list()
event = Event.parse({"kind": "applaud", "item": "a"}, "event")
feedback = parse_feedback({"feedback": [{"request": "r", "kind": "applaud", "item": "a"}]}, 1)
print(json.dumps({
    "kinds": events["kind"].unique().to_list(),
    "removed": sum(read.removed.values()),
    "positive": [all(wanted), event.positive()],
    "text": behaviour_text([event], Catalogue(["a"], ["Aria"], [["Opera"]], [None]), TextSettings()),
    "feedback": feedback[0]["kind"],
    "validation": list(ValidationSettings(kind_shares={"applaud": (0, 1)}).kind_shares),
}))
"""


def test_a_new_kind_is_an_entry(tmp_path: Path) -> None:
    package = shutil.copytree(Path(tasteloop.__file__).parent, tmp_path / "code" / "tasteloop")
    rows = "".join(f"u{n % 2},i{n},Clap,{1_772_442_000 + 60 * n}\n" for n in range(20))
    (tmp_path / "acts.csv").write_text("user,item,type,at\n" + rows)
    (tmp_path / "acts.yaml").write_text(
        "events: acts.csv\ncolumns: {user: user, item: item, kind: type, time: at}\n"
        "time: {unit: s}\n"
    )

    # the one file
    kinds = package / "behaviour" / "kinds.py"
    kinds.write_text(kinds.read_text().replace(")\n\nKINDS: ", DECLARATION, 1))

    environment = os.environ | {
        "PYTHONPATH": str(tmp_path / "code"),
        "TASTELOOP_HOME": str(tmp_path / "home"),
    }
    run = subprocess.run(
        [sys.executable, "-c", RUN, str(tmp_path)],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout.splitlines()[-1]) == {
        "kinds": ["applaud"],
        "removed": 0,
        "positive": [True, True],
        "text": "mostly opera 100 of 1 events; applauded Aria, opera",
        "feedback": "applaud",
        "validation": ["applaud"],
    }
