"""How well a model ranks on lives that are never replayed: before a shift, under it, and after a
retraining.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.settings import Settings
from pipelines.simulation.replay import Replay
from tasteloop.behaviour.events import Event
from tasteloop.behaviour.snapshots import history_lengths
from tasteloop.metrics import interval, ndcg

if TYPE_CHECKING:
    from tasteloop.runtime.session import Session


def question_points(events: Sequence[Event], settings: Settings) -> list[int]:
    """History lengths after which a champion is asked: those at which it was trained and validated,
    where enough follows to judge the answer by.
    """
    rules = settings.prepare
    times = [event.time or 0 for event in events]
    points = []
    for length in history_lengths(times, rules):
        wanted = [event for event in events[length:] if event.positive(rules.text.positive)]
        if len(wanted) >= rules.minimum_future:
            points.append(length)
    return points


def measure_quality(
    session: Session, replay: Replay, shifted: bool, settings: Settings
) -> dict[str, Any]:
    """nDCG@10 of the next liked films on the lives that are never replayed, as they are or under
    the shift.
    """
    histories, relevant, groups = [], [], []
    ids: dict[str, int] = {}
    for n, life in enumerate(replay.world.lives["judges"]):
        lived = replay.lived(life, np.random.default_rng([replay.options.seed, n]), shifted)
        for cut in question_points(lived, settings):
            liked = [
                e.item for e in lived[cut:] if e.item and e.positive(settings.prepare.text.positive)
            ]
            histories.append(lived[max(0, cut - settings.prepare.text.history_limit) : cut])
            relevant.append(
                [
                    ids.setdefault(i, len(ids))
                    for i in dict.fromkeys(liked[: settings.prepare.horizon])
                ]
            )
            groups.append(n)
    ranked = np.full((len(histories), 10), -1)
    for row, items in enumerate(session.recommend(histories)):
        ranked[row, : len(items)] = [ids.setdefault(r.item, len(ids)) for r in items]
    return interval(ndcg(ranked, relevant), np.array(groups), draws=300).json()


def compare_qualities(
    before: Session, after: Session, replay: Replay, settings: Settings
) -> dict[str, Any]:
    """The champion's quality as usual and under the shift, the retrained model's, and the share of
    the loss that it regained; nothing for shifts that a retraining does not answer.
    """
    if replay.options.shift not in ("taste-change", "new-catalogue"):
        return {}
    usual = measure_quality(before, replay, False, settings)
    lost = measure_quality(before, replay, True, settings)
    out: dict[str, Any] = {"before": usual, "shifted": lost}
    if after.digest != before.digest:
        out["retrained"] = measure_quality(after, replay, True, settings)
        gap = usual["value"] - lost["value"]
        out["regained"] = (out["retrained"]["value"] - lost["value"]) / gap if gap > 0 else None
    return out
