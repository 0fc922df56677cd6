"""SASRec and BERT4Rec of `rectools`, in an environment of their own (`make bench-peers`): both ends
of the pipe.

`rectools` holds numpy below 2, so it cannot live beside the core. Here the harness starts this file
with that environment's python and talks to it in lines of JSON; tables go over as Parquet, scores
come back as .npy.

Train up to so many epochs in all; write a matrix [n, items]:

    {"do": "train", "model": "sasrec", "past": FILE, "settings": {...}, "seed": 0, "epochs": 10}
    {"do": "score", "rows": FILE, "n": 100, "items": 1682, "out": FILE}

A row is scored from its own history: to `rectools` each row is a user of a data set whose
interactions are the rows' histories, so nothing of a user that the model was trained on is used
beside what the row shows.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from benchmarks.quality.method import Method
    from benchmarks.quality.tasks import Matrix, Past, Rows

PYTHON = Path(__file__).parents[2] / ".venv-peers" / "bin" / "python"
MODELS = {
    "sasrec": "SASRec (Kang & McAuley 2018), `rectools`",
    "bert4rec": "BERT4Rec (Sun et al. 2019), `rectools`",
}
_SESSION = 100  # events that a model reads, the default; half the users have no more than 64
# for sets on which a search takes hours
_FIXED = {"feedback": ("liked",), "factors": (64,), "dropout": (0.2,), "epochs": (20,)}
_NEVER = np.float32(-1e9)  # what the model does not know comes last


# --- the harness's end


class Peer:
    """A process that holds one model and goes on training it."""

    def __init__(self, model: str, past: Past, settings: dict[str, Any], seed: int) -> None:
        import subprocess
        import tempfile

        self.folder = tempfile.TemporaryDirectory(prefix="tasteloop-peer-")
        self.feedback = settings["feedback"]
        self.items = len(past.catalogue)
        self.memory = 0.0
        self.epochs = 0
        self._asked = {
            "do": "train",
            "model": model,
            "past": self._path("past.parquet"),
            "seed": seed,
        }
        self._asked["settings"] = {
            k: v for k, v in settings.items() if k not in ("feedback", "epochs", "seed")
        }
        which = past.events.of(self.feedback)
        self.fallback = past.count(self.feedback)
        _write(self._asked["past"], past.user[which], past.events.item[which])
        self.process = subprocess.Popen(
            [str(PYTHON), __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONWARNINGS": "ignore"},
        )

    def train(self, epochs: int) -> Peer:
        """Up to so many epochs in all."""
        self._ask({**self._asked, "epochs": epochs})
        self.epochs = epochs
        return self

    def scores(self, rows: Rows) -> Matrix:
        histories = [h[rows.events.of(self.feedback)[h]] for h in rows.histories]
        row = np.repeat(np.arange(len(rows)), [len(h) for h in histories])
        _write(
            self._path("rows.parquet"),
            row,
            rows.events.item[np.concatenate([*histories, np.zeros(0, np.int64)])],
        )
        out = self._path("scores.npy")
        self._ask(
            {
                "do": "score",
                "rows": self._path("rows.parquet"),
                "n": len(rows),
                "items": self.items,
                "out": out,
            }
        )
        scores: Matrix = np.load(out, allow_pickle=False)
        nothing = (scores <= _NEVER).all(1)
        # of a history without a known item there is nothing to read
        scores[nothing] = self.fallback
        return scores

    def close(self) -> None:
        self.process.stdin.close()  # type: ignore[union-attr]
        self.process.wait(30)
        self.folder.cleanup()

    def _path(self, name: str) -> str:
        return str(Path(self.folder.name) / name)

    def _ask(self, question: dict[str, Any]) -> None:
        assert self.process.stdin and self.process.stdout
        try:
            self.process.stdin.write(json.dumps(question) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise RuntimeError(
                f"{PYTHON} ended with {self.process.wait()}; its last words are above"
            )
        self.memory = max(self.memory, json.loads(line)["memory_mb"])


def _write(path: str, user: Any, item: Any) -> None:
    """user, item, and each event's place among its user's."""
    import polars as pl

    from tasteloop.files import write_parquet

    write_parquet(
        Path(path), pl.DataFrame({"user": user, "item": item, "place": np.arange(len(user))})
    )


def _fit(model: str) -> Any:
    """Goes on with the process at hand where only more epochs are asked for, as a search does."""
    held: dict[str, Any] = {}

    def fit(past: Past, settings: Any) -> Peer:
        wanted = {k: v for k, v in settings.items() if k != "epochs"}
        peer = held.get("peer")
        if peer and (
            held["past"] is not past or held["wanted"] != wanted or peer.epochs > settings["epochs"]
        ):
            peer.close()
            peer = None
        if peer is None:
            peer = Peer(model, past, settings, settings["seed"])
            held.update(peer=peer, past=past, wanted=wanted)
        return peer.train(settings["epochs"])

    return fit


def peers() -> dict[str, Method]:
    from benchmarks.quality.method import Method

    search = (
        {"feedback": ("all", "liked"), "factors": (64,), "dropout": (0.2,), "epochs": (10, 20, 40)},
        {"dropout": (0.5,), "epochs": (20, 40, 80)},
    )
    searched = [
        Method(name, about, _fit(name), search, random=True, package="rectools", ordered=True)
        for name, about in MODELS.items()
    ]
    fixed = Method(
        "sasrec-fixed",
        f"{MODELS['sasrec']}, its settings fixed",
        _fit("sasrec"),
        (_FIXED,),
        random=True,
        package="rectools",
        ordered=True,
        validated=False,
    )
    return {method.name: method for method in (*searched, fixed)}


# --- the peers' end: no import of ours


def _dataset(path: str) -> Any:
    import pandas as pd
    from rectools import Columns
    from rectools.dataset import Dataset

    table = pd.read_parquet(path)
    table = table.rename(columns={"user": Columns.User, "item": Columns.Item})
    table[Columns.Weight] = 1.0
    table[Columns.Datetime] = pd.Timestamp("2000-01-01") + pd.to_timedelta(
        table.pop("place"), unit="s"
    )
    return Dataset.construct(table)


def _model(name: str, settings: dict[str, Any]) -> Any:
    from rectools.models import BERT4RecModel, SASRecModel

    kind = {"sasrec": SASRecModel, "bert4rec": BERT4RecModel}[name]
    return kind(
        n_factors=settings["factors"],
        dropout_rate=settings["dropout"],
        session_max_len=_SESSION,
        n_blocks=2,
        n_heads=2,
        lr=1e-3,
        batch_size=64,
        verbose=0,
        deterministic=True,
        recommend_torch_device="cpu",
    )


def _score(model: Any, question: dict[str, Any]) -> None:
    from rectools import Columns

    scores = np.full((question["n"], question["items"]), _NEVER, np.float32)
    data = _dataset(question["rows"])
    users = data.user_id_map.external_ids
    if len(users):
        table = model.recommend(
            users, data, k=question["items"], filter_viewed=False, on_unsupported_targets="ignore"
        )
        scores[table[Columns.User].to_numpy(), table[Columns.Item].to_numpy()] = table[
            Columns.Score
        ].to_numpy()
    np.save(question["out"], scores, allow_pickle=False)


def serve() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is not an answer
    import logging
    import resource

    for name in ("pytorch_lightning", "lightning.pytorch"):
        logging.getLogger(name).setLevel(logging.ERROR)
    model, data, epochs = None, None, 0
    for line in sys.stdin:
        question = json.loads(line)
        if question["do"] == "train":
            if model is None:
                from pytorch_lightning import seed_everything

                seed_everything(question["seed"], verbose=False)
                model, data = (
                    _model(question["model"], question["settings"]),
                    _dataset(question["past"]),
                )
            if (more := question["epochs"] - epochs) > 0:
                model.fit_partial(data, min_epochs=more, max_epochs=more)
                epochs += more
        else:
            _score(model, question)
        print(
            json.dumps({"memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}),
            file=answers,
        )
        answers.flush()


if __name__ == "__main__":
    serve()
