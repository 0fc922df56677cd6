"""The command line: what it costs to ask it something, and how it says no."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints

import pytest
import typer

import tasteloop
from pipelines.cli.app import app, main

ROOT = Path(__file__).parents[3]
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
    program = (
        f"import sys\n{code}\nprint(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return set(run.stdout.split())


def test_help_imports_nothing_heavy():
    loaded = loaded_by(
        "from pipelines.cli.app import app\n"
        "from typer.testing import CliRunner\n"
        "assert CliRunner().invoke(app, ['--help']).exit_code == 0"
    )
    assert not loaded & {*HEAVY, "kfp", "polars", "pandas", "numpy"}


def test_settings_graph_and_compile_import_no_torch(tmp_path):
    loaded = loaded_by(
        "from pathlib import Path\n"
        "from pipelines.settings import load_settings\n"
        "from pipelines.graphs.compile import compile_to\n"
        f"compile_to(load_settings('cluster'), Path({str(tmp_path / 'graph.yaml')!r}))"
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
    "ingest",
    "validate",
    "prepare",
    "finetune",
    "fit-recommender",
    "champion",
    "evaluate",
    "gate",
    "record",
    "rehearse",
    "promote",
)


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
    ratings = "".join(
        f"{u},{i},{1 + (u + i) % 5},{10**9 + 60 * i}\n" for u in range(20) for i in range(20)
    )
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

    answer = cli(
        "step", "validate", "--dataset", str(dataset), "--out", str(tmp_path / "out"), "--json"
    )
    assert answer.returncode == 0, answer.stdout
    assert json.loads(answer.stdout)["passed"] is True

    strict = ("--set", "validation.min_users=1000")
    answer = cli(
        "step",
        "validate",
        "--dataset",
        str(dataset),
        "--out",
        str(tmp_path / "no"),
        "--json",
        *strict,
    )
    assert answer.returncode == 4
    assert json.loads(answer.stdout)["passed"] is False


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("run", "--profile", "nope"), "no profile 'nope'; known: cluster, local, mpnet, smoke"),
        (("run", "--set", "training.epohcs=3"), "unknown setting 'training.epohcs'"),
        (("run", "--profile", "cluster"), "tasteloop compile"),
        (
            ("run", "--profile", "smoke", "--set", "ingest.behaviour=/no/such/place"),
            "/no/such/place",
        ),
        (("step", "nope"), "no step 'nope'; known: ingest, validate"),
        (("compile", "-o", "graph.json"), "name a .yaml file"),
        (("report",), "tasteloop run"),
        (("report", "--run", "nope"), "no run 'nope'"),
        (("rollback",), "no previous champion"),
        (("rollout", "start", "--version", "1"), "there is no champion to compare with"),
        (("rollout", "start", "--version", "1", "--share", "1.5"), "share 1.5"),
        (
            ("rollout", "start", "--version", "1", "--rule", "answer=3"),
            "known, with their defaults: answers=500",
        ),
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


DIGITS = "9" * 5000
DEEP = "[" * 200  # tests/tasteloop/test_yaml.py goes to 20,000
REQUIRED = {  # what a command cannot do without, beside what a test gives it
    "compile": ("-o", "graph.yaml"),
    "predict": ("recommend", "--events", "[]"),
    "score": ("--events", "events.parquet", "-o", "answers.parquet"),
    "monitor": ("--once",),
    "rollout start": ("--version", "1"),
    "cluster deploy": ("--version", "1", "--image", "i"),
    "cluster canary": ("--version", "1", "--image", "i"),
    "cluster promote": ("--version", "1"),
    "cluster manifest": ("--version", "1", "--image", "i", "--uri", "s3://b/m", "--digest", "d"),
    "data fetch": ("minilm",),
    "data describe": ("minilm",),
}


def commands(group=None, path=()) -> dict[str, Any]:
    """Every command by its name."""
    group = group or typer.main.get_command(app)
    every = {}
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            every |= commands(command, (*path, name))
        else:
            every[" ".join((*path, name))] = command
    return every


COMMANDS = commands()
NUMBERS = [
    (name, parameter.opts[0])
    for name, command in COMMANDS.items()
    for parameter in command.params
    if get_type_hints(inspect.unwrap(command.callback)).get(parameter.name)
    in (int, float, int | None, float | None)
]


def with_parameter(wanted: str) -> list[str]:
    return [
        name for name, command in COMMANDS.items() if any(p.name == wanted for p in command.params)
    ]


def assert_refused(answer: Answer) -> None:
    assert answer.returncode == 2, answer
    assert "Traceback" not in answer.stderr and "rror" in answer.stderr
    assert len(answer.stderr) < 9_000  # what came is quoted, not repeated


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_refuses_an_unknown_option(cli, name):
    answer = cli(*name.split(), *REQUIRED.get(name, ()), "--no-such-option")

    assert_refused(answer)
    assert "--no-such-option" in answer.stderr


@pytest.mark.parametrize("value", ["ten", DIGITS, "-9", "1e400", "nan"])
@pytest.mark.parametrize(("name", "option"), NUMBERS)
def test_every_number_of_every_command_is_bounded(cli, name, option, value):
    answer = cli(*name.split(), *REQUIRED.get(name, ()), f"{option}={value}")

    assert_refused(answer)
    assert option.strip("-") in answer.stderr


@pytest.mark.parametrize("name", with_parameter("profile"))
def test_every_command_with_a_profile_refuses_one_that_cannot_be_read(cli, tmp_path, name):
    (tmp_path / "folder.yaml").mkdir()
    (tmp_path / "deep.yaml").write_text(DEEP)
    (tmp_path / "digits.yaml").write_text(f"ingest: {{max_users: {DIGITS}}}")
    (tmp_path / "latin.yaml").write_bytes(b"ingest: \xff")
    for profile in (
        "folder.yaml",
        "deep.yaml",
        "digits.yaml",
        "latin.yaml",
        "none.yaml",
        "deep.yaml/x.yaml",
    ):
        answer = cli(*name.split(), *REQUIRED.get(name, ()), "--profile", str(tmp_path / profile))

        assert_refused(answer)
        assert profile in answer.stderr
    assert_refused(cli(*name.split(), *REQUIRED.get(name, ()), "--profile", "x" * 5000))


SETTING = {
    "simulate": "prepare.horizon",
    "cluster deploy": "replicas",
    "cluster canary": "replicas",
    "cluster manifest": "replicas",
}


@pytest.mark.parametrize("name", with_parameter("set"))
def test_every_command_with_settings_refuses_absurd_ones(cli, name):
    key = SETTING.get(name, "ingest.max_users")
    for value in (
        DIGITS,
        DEEP,
        "{a: 1, a: 2}",
        "!!int ten",
        "0x" + "f" * 5000,
        "ten",
        "1e300",
        "9" * 19,
    ):
        answer = cli(*name.split(), *REQUIRED.get(name, ()), "--set", f"{key}={value}")

        assert_refused(answer)
        assert key in answer.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("compile", "-o", "{file}/graph.yaml"), "{file}"),
        (("compile", "-o", "{folder}.yaml"), "{folder}.yaml"),
        (("submit", "--host", "http://127.0.0.1:8O80"), "is no address of a server"),
        (
            (
                "submit",
                "--pipeline",
                "scoring",
                "--argument",
                "events=x",
                "--argument",
                f"k={DIGITS}",
            ),
            "k is a whole number",
        ),
        (
            (
                "submit",
                "--pipeline",
                "scoring",
                "--argument",
                "events=x",
                "--argument",
                "k=" + "[" * 20_000,
            ),
            "k is a whole number",
        ),
        (("submit", "--cron", DIGITS), "five fields"),
        (
            ("predict", "recommend", "--events", "[]", "--url", "http://127.0.0.1:8O80"),
            "is no address of a server",
        ),
        (("predict", "recommend", "--events", "[]", "--url", ""), "is no address of a server"),
        (("predict", "recommend", "--events", "{folder}"), "{folder}"),
        (("predict", "recommend", "--events", "{file}"), "is not JSON"),
        (
            ("predict", "recommend", "--events", "{binary}"),
            "neither JSON nor a file that can be read",
        ),
        (("predict", "recommend", "--events", "/dev/zero"), "send a shorter history"),
        (("predict", "recommend", "--events", "[" * 100_000), "is not JSON"),
        (("predict", "recommend", "--events", f"[{DIGITS}]"), "is not JSON"),
        (
            ("predict", "recommend", "--events", "x" * 5000),
            "neither JSON nor a file that can be read",
        ),
        (("report", "--run", DIGITS), "name too long"),
        (("report", "--site", "{file}"), "{file}"),
        (("report", "--site", "{file}/site"), "{file}"),
        (("score", "--events", "{folder}", "-o", "{file}", "--bundle", "{folder}"), "{f"),
        (
            ("score", "--events", "none.csv", "-o", "answers.parquet", "--bundle", "{file}"),
            "none.csv",
        ),
        (("monitor", "--once", "--events", "none"), "no such file"),
        (("monitor", "--every", f"{DIGITS}d"), "up to a year"),
        (("monitor", "--every", "²s"), "up to a year"),
        (("simulate", "--home", "{file}"), "{file}"),
        (("simulate", "--home", "{file}/home"), "{file}"),
        (("serve", "--port", "0", "--bundle", "{file}"), "{file}"),
        (("serve", "--port", "0", "--bundle", "{folder}"), "{folder}"),
        (("rollout", "start", "--version", "1", "--rule", f"answers={DIGITS}"), "answers"),
        (("journal", "describe", "--directory", "{file}"), "{file}"),
        (("bench", "quality", "--quick", "--out", "{file}/bench"), "{file}"),
        (
            ("step", "ingest", "--set", "ingest.behaviour={folder}", "--out", "{folder}/out"),
            "{folder}",
        ),
        (
            ("step", "ingest", "--set", "ingest.behaviour={folder}.yaml", "--out", "{folder}/out"),
            "{folder}.yaml",
        ),
    ],
)
def test_a_path_an_address_or_a_number_that_cannot_be_is_one_message(
    cli, tmp_path, arguments, said
):
    places = {name: tmp_path / name for name in ("file", "folder", "binary")}
    places["file"].write_text("x")
    places["binary"].write_bytes(b"\xff\xfe\x00")
    places["folder"].mkdir()
    (tmp_path / "folder.yaml").mkdir()

    def fill(text: str) -> str:
        for name, path in places.items():
            text = text.replace(f"{{{name}}}", str(path))
        return text

    answer = cli(*map(fill, arguments))

    assert_refused(answer)
    assert (fill(said) if said != "{f" else str(tmp_path)) in answer.stderr


HOMELESS = {
    "run": ("--profile", "smoke", "--set", "ingest.reviews=null"),
    "report": (),
    "simulate": (),
    "serve": ("--port", "0"),
    "step": ("ingest", "--set", "ingest.reviews=null", "--out", "out"),
}


@pytest.mark.parametrize("name", ["step", *(name for name in COMMANDS if name != "step")])
def test_every_command_names_a_home_that_cannot_be(cli, tmp_path, monkeypatch, name):
    (tmp_path / "file").write_text("x")
    for home in (
        str(tmp_path / "file"),
        str(tmp_path / "file" / "home"),
        "/" + "x" * 300,
        "~no-such-user/home",
    ):
        monkeypatch.setenv("TASTELOOP_HOME", home)

        answer = cli(*name.split(), *HOMELESS.get(name, REQUIRED.get(name, ())))

        assert_refused(answer)
        assert answer.stderr.startswith("error: TASTELOOP_HOME")


@pytest.fixture
def small(tmp_path, tiny_encoder) -> tuple[str, ...]:
    """Settings that need no download."""
    (tmp_path / "ratings.csv").write_text("userId,movieId,rating,timestamp\n1,2,3,1000000000\n")
    (tmp_path / "movies.csv").write_text("movieId,title,genres\n2,Film,Drama\n")
    values = {
        "ingest.behaviour": tmp_path,
        "ingest.reviews": "null",
        "training.encoder": tiny_encoder,
    }
    return tuple(part for key, value in values.items() for part in ("--set", f"{key}={value}"))


def test_a_home_in_which_nothing_can_be_made_is_named(cli, tmp_path, monkeypatch, small):
    monkeypatch.setenv("TASTELOOP_HOME", "/proc/tasteloop")  # not even root makes a directory there

    for arguments in (
        ("run", "--profile", "smoke", *small),
        ("step", "ingest", *small, "--out", str(tmp_path / "out")),
        ("monitor", "--once"),
        ("cluster", "manifest", "--version", "1", "--image", "i"),
    ):
        answer = cli(*arguments)

        assert_refused(answer)
        assert answer.stderr.splitlines()[-1].startswith("error: ") and "/proc/" in answer.stderr


def test_a_key_path_that_is_a_directory_is_named(cli, tmp_path, small):
    key = tmp_path / "home" / "pseudonym.key"
    key.mkdir(parents=True)

    for arguments in (
        ("run", "--profile", "smoke", *small),
        ("step", "ingest", *small, "--out", str(tmp_path / "out")),
    ):
        answer = cli(*arguments)

        assert_refused(answer)
        assert f"{key} is no file" in answer.stderr


def test_the_process_ends_with_the_code_and_without_a_traceback(tmp_path, monkeypatch):
    monkeypatch.setenv("TASTELOOP_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    command = [sys.executable, "-m", "pipelines.cli", "serve", "--port", "0"]
    ended = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
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


def test_the_list_of_commands_breaks_no_sentence() -> None:
    """Typer keeps a line break inside a docstring's first paragraph in the list of commands."""
    import inspect

    def commands(group: typer.Typer) -> list[object]:
        nested = [g.typer_instance for g in group.registered_groups]
        own = [command.callback for command in group.registered_commands]
        return own + [one for inner in nested if inner for one in commands(inner)]

    for command in commands(app):
        first = (inspect.getdoc(command) or "").partition("\n\n")[0]
        assert first and "\n" not in first, command
