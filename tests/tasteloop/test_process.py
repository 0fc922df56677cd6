"""What our processes write is their user's alone, whatever the umask; what is made to be shown
keeps the user's.
"""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
WRITE = """
import os, pathlib, sqlite3
os.umask(0)
from tasteloop import process
from tasteloop.files import atomic_directory, atomic_file, cache, write_json
from tasteloop.home import Home
from tasteloop.privacy.pseudonyms import pseudonym_key
process.begin()
pseudonym_key()
write_json(Home.current().run("x") / "run.json", {})
with atomic_directory(Home.current().path / "bundle") as folder, atomic_file(folder / "a" / "b") as path:
    path.write_text("b")
database = sqlite3.connect(Home.current().registry)
database.execute("PRAGMA journal_mode=WAL")
database.execute("CREATE TABLE t (x)")
database.commit()
write_json(cache() / "x.json", {})
with process.shareable():
    write_json(pathlib.Path("site") / "index.json", {})
"""


def modes(program: str, folder: Path) -> dict[str, int]:
    """Permission bits of everything that a program left, by path; it stays alive until they are
    read.
    """
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "HOME": str(folder),
        "TASTELOOP_HOME": str(folder / "home"),
        "TASTELOOP_CACHE": str(folder / "cache"),
    }
    ending = "\nprint('done', flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", program + ending],
        cwd=folder,
        env=environment,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None and any(line == "done\n" for line in process.stdout)
        found = {
            p.relative_to(folder).as_posix(): stat.S_IMODE(p.stat().st_mode)
            for p in folder.rglob("*")
        }
        process.communicate("\n")
    return found


def test_home_and_cache_are_open_to_their_user_alone(tmp_path: Path) -> None:
    found = modes(WRITE, tmp_path)

    own = {path: mode for path, mode in found.items() if path.split("/")[0] in ("home", "cache")}
    assert {
        "home/mlflow.db",
        "home/mlflow.db-wal",
        "home/pseudonym.key",
        "home/bundle/a/b",
        "cache/x.json",
    } <= {*own}
    assert {path: oct(mode) for path, mode in own.items() if mode & 0o077} == {}
    assert found["site"] == 0o777 and found["site/index.json"] == 0o666


def test_a_home_made_by_a_program_that_only_imports_us_is_closed_too(tmp_path: Path) -> None:
    program = (
        "from tasteloop.files import write_json\nfrom tasteloop.home import Home\n"
        "write_json(Home.current().runs / 'x.json', {})"
    )

    found = modes(program, tmp_path)

    assert found["home"] == 0o700 and found["home/runs"] == 0o700


def test_a_home_that_is_shared_with_a_group_stays_shared_with_it_alone(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home").chmod(0o2770)

    found = modes(WRITE, tmp_path)

    assert found["home/runs/x/run.json"] == 0o660
    assert found["home/pseudonym.key"] == 0o600
    assert {
        path: oct(mode) for path, mode in found.items() if path.startswith("home") and mode & 0o007
    } == {}


SAY = """
import logging, sys, threading
from serving.observe import telemetry
from tasteloop import process
process.begin()
url = "http://user:" + "h0rse-battery@h/"
def fail():
    raise OSError(url)
for formatter in (telemetry.JsonLines(), telemetry.Plain()):
    handler = logging.StreamHandler()
    handler.setFormatter(formatter)
    logging.getLogger().handlers = [handler]
    try:
        fail()
    except OSError:
        logging.getLogger("library").exception("asking %s failed", url)
thread = threading.Thread(target=fail)
thread.start()
thread.join()
fail()
"""


def test_no_log_line_of_any_logger_and_no_traceback_shows_a_secret(tmp_path: Path) -> None:
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", SAY], env=environment, capture_output=True, text=True
    )

    assert done.stderr.count("asking http://***@h/ failed") == 2
    # two of the log, a thread's, the program's
    assert done.stderr.count("OSError: http://***@h/") == 4
    assert "h0rse-battery" not in done.stderr
