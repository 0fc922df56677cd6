"""New items that are asked for in words: is the one that a user went on to choose found?

    python -m benchmarks.quality.new_items --bundle DIR --snapshots DIR      # a minute on two cores

A bundle is asked about rows of the test window whose users went on to choose an item that nobody
had met before. Each is given one search made from that item, with the phrases that models are
tested with (`tasteloop.evaluation.understanding.testing_phrases`): one of its labels by name, what
people say who mean that label, or its title, half remembered or mistyped. All new items are ranked
for the search. Peers are BM25 and the frozen encoder's cosine of the same search and the items'
titles, labels and texts, and the same bundle without the search. No earlier window has such rows,
so BM25 has the k1 and b, of six, that rank best in these: that can favour none but the peer.
Intervals are 95% bootstraps over users, differences are paired.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.quality.bundles import run
from benchmarks.quality.language_methods import BM25
from tasteloop import metrics
from tasteloop.behaviour.events import USER, Event
from tasteloop.behaviour.snapshots import FUTURE, TEST, Snapshots
from tasteloop.errors import TasteloopError
from tasteloop.evaluation.understanding.cases import searched
from tasteloop.evaluation.understanding.testing_phrases import TESTING
from tasteloop.language.phrases import Phrases, languages_of, search_for_title
from tasteloop.metrics import Array
from tasteloop.recommender.folding import mark_seen
from tasteloop.runtime.session import Session

K1, B = (0.5, 1.2, 2.0), (0.3, 0.75)
OURS = "tasteloop"
_BLOCK = 64  # searches that are scored at once


@dataclass(frozen=True)
class Asked:
    """n searches of one way of asking.

    Attributes:
        users: [n]; histories: n, without the search; texts: n searches.
        aims: [n] positions of the items that they are made from.
    """

    users: Array
    histories: list[list[Event]]
    texts: list[str]
    aims: list[int]


def by_name(session: Session, item: int, said: Phrases, choices: random.Random) -> str | None:
    """A label of the item by its name, in a phrase."""
    labels = _labels(session, item)
    if not labels:
        return None
    return choices.choice(said.wishes).format(label=said.label(choices.choice(labels)))


def by_meaning(session: Session, item: int, said: Phrases, choices: random.Random) -> str | None:
    """What people say who mean a label of the item and do not name it."""
    meant = [each for label in _labels(session, item) for each in said.subjects.get(label, ())]
    return choices.choice(meant) if meant else None


def by_title(session: Session, item: int, said: Phrases, choices: random.Random) -> str | None:
    """The item's title: whole, half remembered or mistyped."""
    title = session.catalogue.titles[item]
    return search_for_title(title, said, choices) if title else None


WAYS: dict[str, Callable[[Session, int, Phrases, random.Random], str | None]] = {
    "a label by its name": by_name,
    "what a label is about": by_meaning,
    "a title": by_title,
}


def _labels(session: Session, item: int) -> list[str]:
    return [label for label in session.catalogue.labels[item] if label in session.labels]


def searches(data: Snapshots, session: Session, way: str, seed: int) -> Asked:
    """A search for each row of the test window whose user chose a new item; of several, one is
    drawn.
    """
    assert session.recommender is not None, "a sealed bundle has a recommender"
    new = set(session.recommender.new.tolist())
    texts = [text or "" for text in (*session.catalogue.titles, *session.catalogue.texts)]
    spoken = [TESTING[language] for language in languages_of(texts)]
    rows, choices = data.split(TEST), random.Random(seed)
    kept, said, aims = [], [], []
    for row, future in enumerate(rows[FUTURE].to_list()):
        chosen = [item for item in future if item in new]
        if not chosen:
            continue
        aim = choices.choice(chosen)
        text = WAYS[way](session, aim, choices.choice(spoken), choices)
        if text is not None:
            kept.append(row)
            said.append(text)
            aims.append(aim)
    chosen_rows = rows[kept]
    return Asked(chosen_rows[USER].to_numpy(), list(data.histories(chosen_rows)), said, aims)


def rank(asked: Asked, session: Session, scores: Callable[[slice], Array]) -> Array:
    """[n, 10] positions of the best new items that a history has not consumed."""
    assert session.recommender is not None, "a sealed bundle has a recommender"
    is_new = np.zeros(len(session.catalogue), np.bool_)
    is_new[session.recommender.new] = True
    ranked = []
    for start in range(0, len(asked.texts), _BLOCK):
        part = slice(start, start + _BLOCK)
        hidden = mark_seen(asked.histories[part], session.catalogue) | ~is_new
        ranked.append(metrics.top_k(np.where(hidden, -np.inf, scores(part)), 10))
    return np.concatenate(ranked)


def ours(asked: Asked, session: Session, with_search: bool) -> Callable[[slice], Array]:
    """Scores by the bundle as it is served."""

    def scores(part: slice) -> Array:
        histories = [
            searched(tuple(history), text) if with_search else history
            for history, text in zip(asked.histories[part], asked.texts[part], strict=True)
        ]
        return session.scores(histories, session.ranking_interests(histories))

    return scores


def measure(
    data: Snapshots, session: Session, seed: int = 0, draws: int = 1000
) -> list[dict[str, Any]]:
    """For each way of asking a row a method: nDCG@10 and recall@10 of the item that was chosen.

    A way in which none of the items can be asked for, as by labels where they bear none, has none.

    Raises:
        TasteloopError: no user of the test window chose an item that nobody had met.
    """
    documents = session.item_texts()
    rows = [row for way in WAYS for row in _of_way(data, session, way, documents, seed, draws)]
    if not rows:
        raise TasteloopError(
            "no user of the test window chose an item that nobody had met, so that nothing new can be asked for; "
            "take snapshots with new items"
        )
    return rows


def _of_way(
    data: Snapshots, session: Session, way: str, documents: list[str], seed: int, draws: int
) -> Iterator[dict[str, Any]]:
    # 1. the searches, and BM25's best settings for them
    asked = searches(data, session, way, seed)
    if not asked.texts:
        return
    aims = [[aim] for aim in asked.aims]
    models = [BM25.fit(documents, k1, b) for k1 in K1 for b in B]

    def quality(model: BM25) -> float:
        ranked = rank(asked, session, lambda part: model.scores(asked.texts[part]))
        return metrics.ndcg(ranked, aims).value

    best = max(models, key=quality)

    # 2. each method's ranking
    meaning = session.meaning(documents) if session.listens else None
    methods: dict[str, Callable[[slice], Array]] = {
        OURS: ours(asked, session, with_search=True),
        "tasteloop, nothing asked": ours(asked, session, with_search=False),
        "bm25": lambda part: best.scores(asked.texts[part]),
    }
    if meaning is not None:
        methods["frozen encoder"] = lambda part: session.meaning(asked.texts[part]) @ meaning.T
    ranked = {name: rank(asked, session, scores) for name, scores in methods.items()}

    # 3. measures, and how far ours leads
    for name, best_items in ranked.items():
        ndcg, recall = metrics.ndcg(best_items, aims), metrics.recall_at(best_items, aims)
        of_ours = metrics.ndcg(ranked[OURS], aims)
        lead = metrics.difference(of_ours, ndcg, asked.users, draws=draws)
        yield {
            "way": way,
            "method": name,
            "searches": len(asked.texts),
            "users": len(np.unique(asked.users)),
            "ndcg@10": metrics.interval(ndcg, asked.users, draws=draws).json(),
            "recall@10": metrics.interval(recall, asked.users, draws=draws).json(),
            "ours_minus": lead.json(),
            "ours_times": of_ours.value / ndcg.value if ndcg.value else None,
        }


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """A line a method and way of asking."""
    lines = [
        "| asked by | method | nDCG@10 | recall@10 | tasteloop minus it | times it |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        of_ours = row["method"] == OURS
        times = "" if of_ours or row["ours_times"] is None else f"{row['ours_times']:.1f}"
        lines.append(
            f"| {row['way']} (n {row['searches']}) | {row['method']} | {_told(row['ndcg@10'])} "
            f"| {_told(row['recall@10'])} | {'' if of_ours else _told(row['ours_minus'], '+')} "
            f"| {times} |"
        )
    return "\n".join(lines)


def _told(interval: dict[str, Any], sign: str = "") -> str:
    value, low, high = (format(interval[key], f"{sign}.4f") for key in ("value", "low", "high"))
    return f"{value} ({low} to {high})"


def main(arguments: Sequence[str] | None = None) -> int:
    return run(__doc__, "searches", measure, markdown, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
