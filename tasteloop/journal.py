"""The journal's tables: what the server writes of its answers, and the monitor reads.

Rows are written by `serving.journal`; the names of the columns and their types stand here, since
both rooms must know them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasteloop.answers import CONFIDENT, PREDICTED
from tasteloop.behaviour.events import ITEM, KIND, TIME, USER, VALUE

if TYPE_CHECKING:
    import polars as pl

ANSWERS, FEEDBACK, FAILURES = "answers", "feedback", "failures"
KINDS = (ANSWERS, FEEDBACK, FAILURES)
"""Kinds of segments; a reader joins feedback to answers as a column of the same name."""

REQUEST, ANSWER, INSTANCE = "request", "answer", "instance"
MODEL, VERSION, ROLE = "model", "version", "role"
PROTOCOL, SECONDS = "protocol", "seconds"
EVENTS, LATEST, CHARACTERS, K, INPUT = "events", "latest", "characters", "k", "input"
NAMES, NUMBERS = "names", "numbers"
HEARD = "heard"
REASONS, CONTRIBUTION = "reasons", "contribution"
SEARCHES, UNDERSTOOD, ASKS, UNMET, REFUSALS = "searches", "understood", "asks", "unmet", "refusals"
WANTED, REFUSED = "wanted", "refused"
FAVOURABLE, NEUTRAL, UNFAVOURABLE = "favourable", "neutral", "unfavourable"
SURE = 0.5  # from this probability on a label or a title counts as meant, and a text as favourable
ARRIVED = "arrived"

CHAMPION, CHALLENGER = "champion", "challenger"
"""What a version was when it answered: the values of `role`."""


def heard_type() -> pl.Struct:
    """The type of HEARD: what the version understood of the words in a history, without the words.

    searches: texts about no item that were read; understood: of these, those of which it
    understood a label or a title; asks: clauses that want something; unmet: how many of these mean
    no label and no title, by their probabilities; refusals: texts that refuse something; wanted,
    refused: labels; favourable, neutral, unfavourable: texts about items without a value.
    """
    import polars as pl

    counts = (SEARCHES, UNDERSTOOD, ASKS, REFUSALS, FAVOURABLE, NEUTRAL, UNFAVOURABLE)
    return pl.Struct(
        {
            **dict.fromkeys(counts, pl.Int32()),
            UNMET: pl.Float32(),
            WANTED: pl.List(pl.String()),
            REFUSED: pl.List(pl.String()),
        }
    )


def reasons_type() -> pl.List:
    """The type of REASONS: of each entry of an answer what it rests on, as kinds of reasons
    (`tasteloop.recommender.ideas`) with what each adds; neither the sentence nor an act, a title or
    a word.
    """
    import polars as pl

    return pl.List(pl.List(pl.Struct({KIND: pl.String(), CONTRIBUTION: pl.Float32()})))


def schema(kind: str) -> dict[str, pl.DataType]:
    """The columns of a kind of segment; times in µs since 1970 UTC.

    answers: `request` and `instance` (its place in the request) name the row; `answer` is an id
    that no other request has, to which feedback is joined, null where a collector wrote the row;
    `role` is what the version was then, champion or challenger; `seconds` from its arrival in the
    queue. In outline what was asked: how many `events`, the time of the `latest`, how many
    `characters` of text, `k`; `input` is null unless text is allowed. `names` and `numbers` are
    labels with probabilities or items with scores, best first; `predicted` only for interests,
    `confident` for them and for sentiment. `heard` (`heard_type`) is null where the version reads
    no wishes, where what was asked about is no history, and where a collector wrote the row.
    `reasons` (`reasons_type`) stands beside `names`, for recommendations.
    feedback: `time` is when it happened, as the caller says; `arrived` is when it came; `answer` is
        that of the token.
    failures: requests that a version failed on for our reasons, whether or not another one answered
        them.

    Segments of an older version lack columns, which are read as null.
    """
    import polars as pl

    if kind == FAILURES:
        return {REQUEST: pl.String(), TIME: pl.Int64(), MODEL: pl.String(), VERSION: pl.String()}
    if kind == FEEDBACK:
        return {
            REQUEST: pl.String(),
            ANSWER: pl.String(),
            INSTANCE: pl.Int32(),
            TIME: pl.Int64(),
            ARRIVED: pl.Int64(),
            KIND: pl.String(),
            ITEM: pl.String(),
            VALUE: pl.Float32(),
        }
    return {
        REQUEST: pl.String(),
        ANSWER: pl.String(),
        INSTANCE: pl.Int32(),
        TIME: pl.Int64(),
        USER: pl.String(),
        MODEL: pl.String(),
        VERSION: pl.String(),
        ROLE: pl.String(),
        PROTOCOL: pl.String(),
        SECONDS: pl.Float32(),
        EVENTS: pl.Int32(),
        LATEST: pl.Int64(),
        CHARACTERS: pl.Int32(),
        K: pl.Int32(),
        INPUT: pl.String(),
        NAMES: pl.List(pl.String()),
        NUMBERS: pl.List(pl.Float32()),
        PREDICTED: pl.List(pl.Boolean()),
        CONFIDENT: pl.List(pl.Boolean()),
        HEARD: heard_type(),
        REASONS: reasons_type(),
    }
