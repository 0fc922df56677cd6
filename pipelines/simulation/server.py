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
from typing import TYPE_CHECKING, Any

from serving.journal.feedback import TOKEN
from tasteloop.answers import INTERESTS
from tasteloop.behaviour.events import TIME, USER
from tasteloop.errors import TasteloopError
from tasteloop.files import read_json
from tasteloop.journal import LATEST, REQUEST

if TYPE_CHECKING:
    import polars as pl

    from tasteloop.runtime.session import Session


class InProcess:
    """The server's answers without the server: its session, its journal."""

    def __init__(self, home: Path) -> None:
        self.directory = home / "journal"
        self.loaded: tuple[str, Session] | None = None

    def __enter__(self) -> InProcess:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def ask(self, model: str, users: Sequence[str], instances: Sequence[Mapping[str, Any]]) -> None:
        from serving.journal.answered import Answered, now
        from serving.release import registry
        from tasteloop.privacy.pseudonyms import pseudonym, pseudonym_key
        from tasteloop.runtime.session import Session

        live = registry.champion()
        assert live is not None, "a simulation has a champion"
        if self.loaded is None or self.loaded[0] != live.version:
            self.loaded = (live.version, Session.load(live.path))
        outputs = self.loaded[1].answer(model, instances)
        key = pseudonym_key()
        hidden = [pseudonym(user, key) for user in users]
        answered = Answered(
            uuid.uuid4().hex,
            model,
            live.version,
            "in-process",
            now(),
            instances,
            outputs,
            users=hidden,
        )
        with self._journal() as journal:
            journal.answered(answered)

    def feed(self, rows: Sequence[Mapping[str, Any]]) -> None:
        from serving.journal.answered import now
        from serving.journal.feedback import parse_feedback

        with self._journal() as journal:
            journal.feedback(parse_feedback({"feedback": list(rows)}, now()))

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
    """`python -m serving` beside us: it keeps the journal and follows the champion."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.tokens: dict[str, str | None] = {}  # by request, for its feedback

    def __enter__(self) -> SimulatedServer:
        from serving.client import Client

        ready, log = self.home / "server.json", self.home / "server.log"
        ready.unlink(missing_ok=True)
        with log.open("ab") as written:
            self.process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "serving",
                    "--port",
                    "0",
                    "--grpc-port",
                    "0",
                    "--ready-file",
                    str(ready),
                    "--journal-rows",
                    "20000",
                    "--max-wait",
                    "60",
                    "--timeout",
                    "120",
                    "--exit-with-parent",
                ],
                stdin=subprocess.PIPE,
                stdout=written,
                stderr=subprocess.STDOUT,
                env={
                    **os.environ,
                    "PYTHONPATH": os.pathsep.join([_SOURCES, os.environ.get("PYTHONPATH", "")]),
                },
            )
        self._until(ready.is_file, f"the server did not start; see {log}")
        self.client = Client(read_json(ready)["http"], timeout=120)
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait(60)
        self.client.close()

    def ask(self, model: str, users: Sequence[str], instances: Sequence[Mapping[str, Any]]) -> None:
        from serving.release import registry

        live = registry.pointer()
        assert live is not None, "a simulation has a champion"
        self._until(
            lambda: self._version() == live[0], f"the server does not follow to version {live[0]}"
        )
        questions = [
            {**instance, USER: user} for user, instance in zip(users, instances, strict=True)
        ]
        before = self._rows()
        for start in range(0, len(questions), 32):
            answers = self.client.predict(model, questions[start : start + 32])
            self.tokens[answers.request] = answers.token
        self._until(
            lambda: self._rows() >= before + len(questions), "the journal does not show the answers"
        )

    def feed(self, rows: Sequence[Mapping[str, Any]]) -> None:
        import httpx

        # An earlier replay's answers may be in the journal too; their tokens went with it.
        answered = [
            {**row, TOKEN: self.tokens[row[REQUEST]]} for row in rows if row[REQUEST] in self.tokens
        ]
        if not answered:
            return
        body = {"feedback": answered}
        httpx.post(
            f"{self.client.url}/v1/feedback", json=body, timeout=60, trust_env=False
        ).raise_for_status()

    def _version(self) -> str:
        blank = {"name": "events", "datatype": "BYTES", "shape": [1], "data": ['{"events": []}']}
        return str(self.client.infer(INTERESTS, [blank])["model_version"])

    def _rows(self) -> int:
        return int(read_journal_of(self.home).height)

    def _until(self, holds: Callable[[], bool], otherwise: str) -> None:
        deadline = time.monotonic() + 300
        while not holds():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise TasteloopError(otherwise)
            time.sleep(0.2)


_SOURCES = str(Path(__file__).resolve().parents[2])


def read_journal_of(home: Path) -> pl.DataFrame:
    """The journal in the replay's time: an answer's time is that of the newest event that it was
    asked with.
    """
    import polars as pl

    from serving.journal.reader import read_journal

    directory = home / "journal"
    if not directory.is_dir():
        directory.mkdir()
    return (
        read_journal(directory)
        .filter(pl.col(LATEST).is_not_null())
        .with_columns(pl.col(LATEST).alias(TIME))
    )
