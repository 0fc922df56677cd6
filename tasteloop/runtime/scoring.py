"""Offline scoring: a whole file of behaviour through the same session that the server asks.

`tasteloop.runtime.event_file` reads the file and asks the questions; here they are answered and the
answers are written as a table.
"""

from __future__ import annotations

import logging
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasteloop.answers import BOOL, BYTES, FP32, MOST_K, SERVED_MODELS, Answer
from tasteloop.behaviour.events import ITEM, USER
from tasteloop.errors import TasteloopError
from tasteloop.files import atomic_file
from tasteloop.runtime.event_file import ROW, EventFile, Progress
from tasteloop.runtime.session import Session

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ScoreResult:
    """Rows read, users (or texts) scored, rows written, digest of the bundle, seconds."""

    events: int
    scored: int
    rows: int
    digest: str
    runtime: str
    seconds: float


def score(
    bundle: Path, events: Path, out: Path, model: str = "interests", k: int | None = None
) -> ScoreResult:
    """Answer for every user of an events file, or, for sentiment, every event with a text.

    Args:
        bundle: a sealed bundle.
        events: a table (`tasteloop.datasets.tables`) with the columns of the events contract: user,
            kind, and item, time, value, text where there are any; no others are read. `time` is a
            date, µs since 1970 or ISO 8601.
        out: .parquet, written whole or not at all. interests: user, rank, label, probability,
            predicted, confident;
            recommend: user, rank, item, title, score, reason and one column a term; sentiment: row,
            user, item, sentiment, probability, confident.
        model: interests, recommend or sentiment.
        k: how many labels or items of each user; by default all labels, 10 items.

    Raises:
        TasteloopError: an unknown model, no such file, not of its format, a column missing, or a
            row that is no event, by its number from 1.
    """
    import pyarrow.parquet as pq

    began = time.monotonic()
    if model not in SERVED_MODELS:
        raise TasteloopError(f"unknown model {model!r}; known: {', '.join(SERVED_MODELS)}")
    if k is not None and not (1 <= k <= MOST_K and "k" in SERVED_MODELS[model].input.options):
        takes_k = " and ".join(name for name, m in SERVED_MODELS.items() if "k" in m.input.options)
        raise TasteloopError(f"k is {k}; it is a number from 1 to {MOST_K}, for {takes_k}")
    if out.suffix != ".parquet":
        raise TasteloopError(f"{out}: answers are written as Parquet; name a .parquet file")
    source = EventFile.open(events, model)  # a bad file is told before a model is loaded
    session = Session.load(bundle)
    if model not in session.models:
        headless = [name for name in session.models if not SERVED_MODELS[name].has_head]
        known = ", ".join([*session.tasks, *headless])
        raise TasteloopError(f"this model was not trained for {model}; it knows {known}")
    schema = _schema(model, session).with_metadata(
        {
            "tasteloop.bundle": session.digest,
            "tasteloop.model": model,
            "tasteloop.runtime": session.runtime,
        }
    )
    scored = rows = 0
    progress = Progress(source.expected)
    with (
        tempfile.TemporaryDirectory(prefix="tasteloop-score-") as folder,
        atomic_file(out) as temporary,
        pq.ParquetWriter(temporary, schema, compression="zstd") as writer,
    ):
        for keyed in source.questions(Path(folder), k, progress):
            questions = [question for _, question in keyed]
            answers = session.compute(model, questions)
            table = _table(model, [key for key, _ in keyed], answers, schema)
            writer.write_table(table)
            scored += len(keyed)
            rows += len(table)
            progress.scored(scored, sum(len(q.get("events", "1")) for q in questions))
    seconds = time.monotonic() - began
    what = "texts" if SERVED_MODELS[model].input.is_text else "users"
    log.info("scored %d %s of %d events in %.1f s: %s", scored, what, source.read, seconds, out)
    return ScoreResult(source.read, scored, rows, session.digest, session.runtime, seconds)


def _schema(model: str, session: Session) -> Any:
    """The columns of the answers: whom or what each row is about, its rank, the model's fields and,
    of a recommendation, a column for each of its terms.
    """
    import pyarrow as pa

    served = SERVED_MODELS[model]
    types = {BYTES: pa.string(), FP32: pa.float32(), BOOL: pa.bool_()}
    columns = [(USER, pa.string())]
    if served.input.is_text:
        columns = [(ROW, pa.int64()), *columns, (ITEM, pa.string())]
    if served.ranking:
        columns.append(("rank", pa.int32()))
    columns += [
        (field.name, types[field.datatype])
        for field in served.fields
        if not (field.is_json or field.is_optional)
    ]
    if served.has("reasons"):
        assert session.recommender is not None, "a sealed bundle has a recommender"
        columns += [(term, pa.float32()) for term in session.recommender.weights]
    return pa.schema(columns)


def _table(model: str, keys: list[tuple[Any, ...]], answers: list[Answer], schema: Any) -> Any:
    """Answers as rows, one for each entry: a ranked answer has several."""
    import pyarrow as pa

    served = SERVED_MODELS[model]
    key_columns = (ROW, USER, ITEM) if served.input.is_text else (USER,)
    rows: list[dict[str, Any]] = []
    for key, answer in zip(keys, answers, strict=True):
        subject = dict(zip(key_columns, key, strict=True))
        for rank, entry in enumerate(served.entries(answer), 1):
            terms: dict[str, float] = {}
            for reason in entry.get("reasons", ()):
                terms |= reason["terms"]
            rows.append({**subject, "rank": rank, **entry, **terms})
    return pa.Table.from_pylist(rows, schema)
