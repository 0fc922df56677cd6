"""Searches in words of others' writing: does a bundle read what they want and refuse?

    python -m benchmarks.quality.other_words --bundle DIR --snapshots DIR    # a minute on two cores

`other_words.jsonl` beside this file holds 639 searches for films, 492 in English and 147 in
Chinese, with the genres that each wants and refuses. Whoever wrote them had seen neither the model
nor the phrases that it learns from or is tested with, and no model is tuned on them: they say how
far what holds on phrases of our own writing holds on others'. What stood among the phrases that are
learned, too, is left out. Each is asked after the history of a user of
the test window, and judged as `tasteloop.evaluation.understanding.kinds` judges: a wanted label
rises by .05, a refused one falls by .05 or to half and is never raised, and what asks for nothing
moves no label by more than .05. A language that the catalogue is not in is not learned: its row
says what happens then. Intervals are 95% bootstraps over texts.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.quality.bundles import run
from tasteloop import metrics
from tasteloop.behaviour.snapshots import TEST, Snapshots
from tasteloop.errors import TasteloopError
from tasteloop.evaluation.understanding.cases import searched
from tasteloop.evaluation.understanding.kinds import RAISED, SAME, SURE, VISIBLE
from tasteloop.metrics import Array
from tasteloop.runtime.session import Session

TEXTS = Path(__file__).with_name("other_words.jsonl")
QUESTIONS = {
    "wish": "every label that is wanted rises",
    "refusal": "every label that is refused falls",
    "never raises": "no label that is refused rises",
    "no taste": "no label moves",
}


@dataclass(frozen=True)
class Text:
    """A search, with the labels that it wants and refuses; kind is how it is built."""

    kind: str
    language: str
    text: str
    wants: tuple[str, ...]
    refuses: tuple[str, ...]


def read_texts(labels: Iterable[str], path: Path = TEXTS) -> list[Text]:
    """The texts of which a model knows all labels."""
    known = set(labels)
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    texts = [
        Text(r["kind"], r["language"], r["text"], tuple(r["wants"]), tuple(r["refuses"]))
        for r in rows
    ]
    return [text for text in texts if {*text.wants, *text.refuses} <= known]


def judge(
    text: Text, labels: Sequence[str], before: Array, now: Array
) -> Iterator[tuple[str, bool]]:
    """What is asked of a text, and whether it holds.

    Args:
        labels: K; before, now: [K] their probabilities without and with the search.
    """
    place = {label: k for k, label in enumerate(labels)}
    wants, refuses = ([place[label] for label in each] for each in (text.wants, text.refuses))
    if wants:
        yield "wish", all(now[k] >= min(before[k] + RAISED, SURE) for k in wants)
    falling = [k for k in refuses if before[k] >= VISIBLE]
    if falling:
        yield "refusal", all(now[k] <= max(before[k] - RAISED, before[k] / 2) for k in falling)
    if refuses:
        yield "never raises", all(now[k] <= before[k] + SAME for k in refuses)
    if not wants and not refuses:
        yield "no taste", bool(np.abs(now - before).max() <= RAISED)


def measure(
    data: Snapshots, session: Session, seed: int = 0, draws: int = 1000
) -> list[dict[str, Any]]:
    """A row for each language, question and kind of text, and for all kinds together.

    Raises:
        TasteloopError: the bundle knows none of the labels.
    """
    # 1. each text after somebody's history
    texts = read_texts(session.labels)
    if not any(text.wants for text in texts):
        raise TasteloopError(
            f"the bundle knows none of the genres of {TEXTS.name}, but {session.labels}; take one "
            "that was trained on ml-100k or ml-1m"
        )
    test = data.split(TEST)
    drawn = random.Random(seed).choices(range(len(test)), k=len(texts))
    histories = list(data.histories(test[drawn]))
    asked = [
        searched(tuple(history), text.text) for history, text in zip(histories, texts, strict=True)
    ]
    before, now = session.interests(histories), session.interests(asked)

    # 2. shares of what holds
    held: dict[tuple[str, str, str], list[bool]] = {}
    for text, *rows in zip(texts, before, now, strict=True):
        for question, holds in judge(text, session.labels, *rows):
            for kind in (text.kind, "all"):
                held.setdefault((text.language, question, kind), []).append(holds)
    return [
        {
            "language": language,
            "question": question,
            "kind": kind,
            **_share(holds, draws),
        }
        for (language, question, kind), holds in sorted(held.items())
    ]


def _share(holds: Sequence[bool], draws: int) -> dict[str, Any]:
    rows = np.array(holds, np.bool_)
    share = metrics.share_of(rows, np.ones_like(rows))
    return metrics.interval(share, np.arange(len(rows)), draws=draws).json()


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """A line for each language, question and kind."""
    lines = ["| language | asked | texts | share that holds |", "|---|---|---|---|"]
    for row in rows:
        value, low, high = (f"{row[key]:.3f}".lstrip("0") for key in ("value", "low", "high"))
        lines.append(
            f"| {row['language']} | {QUESTIONS[row['question']]} | {row['kind']} (n {row['n']}) "
            f"| {value} ({low} to {high}) |"
        )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    return run(__doc__, "histories", measure, markdown, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
