"""The command line: what it costs to ask it something, and how it says no."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

import tasteloop
from pipelines.cli import main

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "transformers", "mlflow", "kserve", "great_expectations", "sklearn")


@dataclass
class Answer:
    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def cli(tmp_path, monkeypatch, capsys):
    """The command in this process, with a home and a cache of its own."""
    monkeypatch.setenv("TASTELOOP_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TASTELOOP_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)

    def run(*arguments: str) -> Answer:
        monkeypatch.setattr("sys.argv", ["tasteloop", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        code = ended.value.code
        return Answer(code if isinstance(code, int) else 0, *capsys.readouterr())

    return run


def loaded_by(code: str) -> set[str]:
    program = f"import sys\n{code}\nprint(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    run = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(run.stdout.split())


def test_help_imports_nothing_heavy():
    loaded = loaded_by(
        "from pipelines.cli import app\n"
        "from typer.testing import CliRunner\n"
        "assert CliRunner().invoke(app, ['--help']).exit_code == 0"
    )
    assert not loaded & {*HEAVY, "kfp", "polars", "pandas", "numpy"}


def test_settings_graph_and_compile_import_no_torch(tmp_path):
    loaded = loaded_by(
        "from pathlib import Path\n"
        "from pipelines.settings import load\n"
        "from pipelines.training import compile_to\n"
        f"compile_to(load('cluster'), Path({str(tmp_path / 'graph.yaml')!r}))"
    )
    assert "kfp" in loaded
    assert not loaded & set(HEAVY)


def test_help_names_every_command_and_the_exit_codes(cli):
    answer = cli("--help")
    assert answer.returncode == 0
    for command in (
        "run",
        "step",
        "compile",
        "status",
        "report",
        "serve",
        "predict",
        "rollback",
        "rollout",
        "journal",
        "data",
        "bench",
    ):
        assert f" {command} " in answer.stdout
    assert "Exit codes" in answer.stdout


def test_version(cli):
    assert cli("--version").stdout == f"tasteloop {tasteloop.__version__}\n"


STEPS = (
    "ingest", "validate", "prepare", "finetune", "fit-recommender", "champion", "evaluate", "gate", "record",
    "rehearse", "promote",
)  # fmt: skip


def test_step_lists_the_steps(cli):
    for answer in (cli("step"), cli("step", "--help")):
        assert answer.returncode == 0
        for name in STEPS:
            assert f"  {name} " in answer.stdout


@pytest.mark.parametrize("name", STEPS)
def test_every_step_teaches_its_options(cli, name):
    answer = cli("step", name, "--help")
    assert answer.returncode == 0, answer.stderr
    assert f"usage: tasteloop step {name}" in answer.stdout
    assert ("--out" in answer.stdout) == (name not in ("champion", "record", "promote"))


def test_a_step_runs_alone_and_says_where_its_output_is(cli, tmp_path):
    ratings = "".join(f"{u},{i},{1 + (u + i) % 5},{10**9 + 60 * i}\n" for u in range(20) for i in range(20))
    (tmp_path / "ratings.csv").write_text(f"userId,movieId,rating,timestamp\n{ratings}")
    movies = "".join(f"{i},Film {i},{'Drama' if i % 2 else 'Comedy'}\n" for i in range(20))
    (tmp_path / "movies.csv").write_text(f"movieId,title,genres\n{movies}")
    mine = (
        "--set",
        f"ingest.behaviour={tmp_path}",
        "--set",
        "ingest.reviews=null",
        "--out",
        str(tmp_path / "out"),
    )
    answer = cli("step", "ingest", *mine, "--json")
    assert answer.returncode == 0, answer.stderr
    dataset = Path(json.loads(answer.stdout)["dataset"])
    assert (dataset / "events.parquet").is_file()

    answer = cli("step", "validate", "--dataset", str(dataset), "--out", str(tmp_path / "out"), "--json")
    assert answer.returncode == 0, answer.stdout
    assert json.loads(answer.stdout)["passed"] is True

    strict = ("--set", "validation.min_users=1000")
    answer = cli("step", "validate", "--dataset", str(dataset), "--out", str(tmp_path / "no"), "--json", *strict)
    assert answer.returncode == 4
    assert json.loads(answer.stdout)["passed"] is False


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("run", "--profile", "nope"), "no profile 'nope'; known: cluster, local, smoke"),
        (("run", "--set", "training.epohcs=3"), "unknown setting 'training.epohcs'"),
        (("run", "--profile", "cluster"), "tasteloop compile"),
        (("run", "--profile", "smoke", "--set", "ingest.behaviour=/no/such/place"), "/no/such/place"),
        (("step", "nope"), "no step 'nope'; known: ingest, validate"),
        (("compile", "-o", "graph.json"), "name a .yaml file"),
        (("report",), "tasteloop run"),
        (("report", "--run", "nope"), "no run 'nope'"),
        (("rollback",), "no previous champion"),
        (("rollout", "start", "--version", "1"), "there is no champion to compare with"),
        (("rollout", "start", "--version", "1", "--share", "1.5"), "share 1.5"),
        (("rollout", "start", "--version", "1", "--rule", "answer=3"), "known, with their defaults: answers=500"),
        (("rollout", "promote"), "no rollout is running"),
        (("rollout", "abort"), "tasteloop rollout start"),
        (("journal", "describe"), "no journal in"),
        (("data", "fetch", "nope"), "ml-100k"),
        (("data", "describe", "nope"), "ml-100k"),
        (("predict", "taste"), "known: interests, recommend, sentiment"),
        (("predict", "interests"), "--events"),
        (("predict", "sentiment"), "--text"),
        (("predict", "interests", "--events", "[{"), "not JSON"),
        (("predict", "interests", "--events", "3.json"), "3.json"),
        (("predict", "sentiment", "--text", "fine", "--url", "http://127.0.0.1:9"), "no server at"),
    ],
)
def test_a_mistake_is_one_message_and_exit_code_2(cli, arguments, said):
    answer = cli(*arguments)
    assert answer.returncode == 2, answer.stderr
    assert answer.stderr.startswith("error: ")
    assert said in answer.stderr
    assert "Traceback" not in answer.stderr


def test_the_process_ends_with_the_code_and_without_a_traceback(tmp_path, monkeypatch):
    monkeypatch.setenv("TASTELOOP_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    command = [sys.executable, "-m", "pipelines.cli", "serve", "--port", "0"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: there is no champion")


def test_status_of_an_empty_home_is_json(cli, tmp_path):
    answer = cli("status", "--json")
    assert answer.returncode == 0, answer.stderr
    home = str(tmp_path / "home")
    assert json.loads(answer.stdout) == {"home": home, "champion": None, "versions": [], "runs": []}
    assert not Path(home).exists()


def test_data_list_and_describe(cli):
    names = [row["name"] for row in json.loads(cli("data", "list", "--json").stdout)]
    assert {"ml-100k", "rotten-tomatoes", "minilm"} <= set(names)
    facts = json.loads(cli("data", "describe", "ml-100k", "--json").stdout)
    assert len(facts["sha256"]) == 64
    assert "redistribution" in facts["terms"]
    assert "terms: " in cli("data", "describe", "ml-100k").stdout
