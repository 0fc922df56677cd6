"""Who answers in a simulation: a server beside this process, or its session and journal in it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

from serving.journal.feedback import TOKEN
from tasteloop.answers import INTERESTS
from tasteloop.behaviour.events import TIME, USER
from tasteloop.errors import TasteloopError
from tasteloop.files import read_json
from tasteloop.journal import LATEST, REQUEST

if TYPE_CHECKING:
    import polars as pl

    from tasteloop.runtime.session import Session

_SOURCES = str(Path(__file__).resolve().parents[2])
_BATCH = 32  # questions of a request
_PATIENCE = 300  # seconds for what the server must do next
_POLL = 0.2  # seconds between two looks at whether it has


class AnsweringServer(Protocol):
    """What answers a simulation's questions and hears of clicks, while its block runs."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    def ask(self, model: str, users: Sequence[str], instances: Sequence[Mapping[str, Any]]) -> None:
        """Ask the champion one question for each raw user id; the answers are in the journal."""

    def send_feedback(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Tell of clicks: rows of `POST /v1/feedback`."""


class InProcessServer:
    """The server's answers without the server: its session and its journal in this process."""

    def __init__(self, home: Path) -> None:
        self.directory = home / "journal"
        self.loaded: tuple[str, Session] | None = None  # a version, and the session of its bundle

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def ask(self, model: str, users: Sequence[str], instances: Sequence[Mapping[str, Any]]) -> None:
        from serving.journal.answered import Answered, now
        from tasteloop.language.hearing import listening
        from tasteloop.privacy.pseudonyms import pseudonym, pseudonym_key
        from tasteloop.runtime.questions import parse

        version, session = self._champion()
        key = pseudonym_key()
        questions = parse(model, instances)
        with listening() as hearing:
            answers = session.compute(model, questions)
        answered = Answered(
            uuid.uuid4().hex,
            model,
            version,
            "in-process",
            now(),
            instances,
            answers,
            users=[pseudonym(user, key) for user in users],
            heard=session.heard(model, questions, hearing),
        )
        with self._journal() as journal:
            journal.answered(answered)

    def send_feedback(self, rows: Sequence[Mapping[str, Any]]) -> None:
        from serving.journal.answered import now
        from serving.journal.feedback import parse_feedback

        with self._journal() as journal:
            journal.feedback(parse_feedback({"feedback": list(rows)}, now()))

    def _champion(self) -> tuple[str, Session]:
        """The champion's version and its session, which is loaded once for each version."""
        from serving.release import registry
        from tasteloop.runtime.session import Session

        live = registry.champion()
        assert live is not None, "a simulation has a champion"
        if self.loaded is None or self.loaded[0] != live.version:
            self.loaded = (live.version, Session.load(live.path))
        return self.loaded

    @contextmanager
    def _journal(self) -> Iterator[Any]:
        from serving.journal.writer import Journal
        from serving.settings import JournalSettings

        journal = Journal(JournalSettings(directory=self.directory, bound=100_000))
        try:
            yield journal
        finally:
            journal.close()


class SimulatedServer:
    """`python -m serving` beside this process: it writes the journal and follows the champion."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.tokens: dict[str, str | None] = {}  # by request, for its feedback

    def __enter__(self) -> Self:
        from serving.client import Client

        ready, log = self.home / "server.json", self.home / "server.log"
        ready.unlink(missing_ok=True)
        options = {
            "--port": "0",
            "--grpc-port": "0",
            "--ready-file": str(ready),
            "--journal-rows": "20000",
            "--max-wait": "60",
            "--timeout": "120",
        }
        arguments = [word for option in options.items() for word in option]
        python_path = os.pathsep.join([_SOURCES, os.environ.get("PYTHONPATH", "")])
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "serving", *arguments, "--exit-with-parent"],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONPATH": python_path},
            )
        self._wait_until(ready.is_file, f"the server did not start; see {log}")
        self.client = Client(read_json(ready)["http"], timeout=120)
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait(60)
        self.client.close()

    def ask(self, model: str, users: Sequence[str], instances: Sequence[Mapping[str, Any]]) -> None:
        from serving.release import registry

        # 1. the server answers with the champion
        live = registry.pointer()
        assert live is not None, "a simulation has a champion"
        self._wait_until(
            lambda: self._version() == live[0], f"the server does not follow to version {live[0]}"
        )

        # 2. the questions, and the tokens of their answers
        questions = [
            {**instance, USER: user} for user, instance in zip(users, instances, strict=True)
        ]
        before = self._rows()
        for start in range(0, len(questions), _BATCH):
            answers = self.client.predict(model, questions[start : start + _BATCH])
            self.tokens[answers.request] = answers.token

        # 3. the journal has the answers
        self._wait_until(
            lambda: self._rows() >= before + len(questions), "the journal does not show the answers"
        )

    def send_feedback(self, rows: Sequence[Mapping[str, Any]]) -> None:
        import httpx

        # An earlier replay's answers may be in the journal too; their tokens went with it.
        answered = [
            {**row, TOKEN: self.tokens[row[REQUEST]]} for row in rows if row[REQUEST] in self.tokens
        ]
        if not answered:
            return
        response = httpx.post(
            f"{self.client.url}/v1/feedback",
            json={"feedback": answered},
            timeout=60,
            trust_env=False,
        )
        response.raise_for_status()

    def _version(self) -> str:
        blank = {"name": "events", "datatype": "BYTES", "shape": [1], "data": ['{"events": []}']}
        return str(self.client.infer(INTERESTS, [blank])["model_version"])

    def _rows(self) -> int:
        return int(read_simulated_journal(self.home).height)

    def _wait_until(self, holds: Callable[[], bool], otherwise: str) -> None:
        """Wait until a condition holds.

        Raises:
            TasteloopError: it does not, or the server has ended; `otherwise` is the message.
        """
        deadline = time.monotonic() + _PATIENCE
        while not holds():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise TasteloopError(otherwise)
            time.sleep(_POLL)


def read_simulated_journal(home: Path) -> pl.DataFrame:
    """The journal in the replay's time: an answer's time is that of the newest event of its
    question.
    """
    import polars as pl

    from serving.journal.reader import read_journal

    directory = home / "journal"
    if not directory.is_dir():
        directory.mkdir()
    has_events = pl.col(LATEST).is_not_null()
    return read_journal(directory).filter(has_events).with_columns(pl.col(LATEST).alias(TIME))
