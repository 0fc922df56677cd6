"""How well a model ranks on lives that are never replayed: before a shift, under it, and after a
retraining.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.settings import Settings
from pipelines.simulation.replay import Replay
from tasteloop.behaviour.events import Event
from tasteloop.behaviour.snapshots import history_lengths
from tasteloop.intervals import Interval
from tasteloop.metrics import interval, ndcg

if TYPE_CHECKING:
    from tasteloop.runtime.session import Session

ANSWERED_BY_RETRAINING = ("taste-change", "new-catalogue")
_RANKS = 10  # of nDCG@10
_DRAWS = 300  # of the bootstrap


@dataclass(frozen=True)
class QualityComparison:
    """nDCG@10 of the next liked films on the judges' lives.

    Attributes:
        before: the first champion on usual lives.
        shifted: the same on lives under the shift.
        retrained: the last champion on lives under the shift; None where it is still the first.
        regained: the share of the loss that the last champion made good; None without a loss.
    """

    before: Interval | None = None
    shifted: Interval | None = None
    retrained: Interval | None = None
    regained: float | None = None

    def json(self) -> dict[str, Any]:
        """What was measured; `regained` is null where a retraining found nothing lost."""
        measured = {"before": self.before, "shifted": self.shifted, "retrained": self.retrained}
        record: dict[str, Any] = {
            name: ndcg.json() for name, ndcg in measured.items() if ndcg is not None
        }
        if self.retrained is not None:
            record["regained"] = self.regained
        return record


NO_QUALITY = QualityComparison()
"""Of a shift that a retraining does not answer: nothing is measured."""


def question_points(events: Sequence[Event], settings: Settings) -> list[int]:
    """History lengths after which a champion is asked: those at which it was trained and validated,
    where enough follows to judge the answer by.
    """
    rules = settings.prepare
    times = [event.time or 0 for event in events]
    points = []
    for length in history_lengths(times, rules):
        positive = [event for event in events[length:] if event.positive(rules.text.positive)]
        if len(positive) >= rules.minimum_future:
            points.append(length)
    return points


def measure_quality(
    session: Session, replay: Replay, shifted: bool, settings: Settings
) -> Interval:
    """nDCG@10 of the next liked films on the lives that are never replayed, as they are or under
    the shift.
    """
    rules = settings.prepare
    positions: dict[str, int] = {}

    def position_of(item: str) -> int:
        return positions.setdefault(item, len(positions))

    # 1. histories, the films that were liked next, and whose life it is
    histories, relevant, owners = [], [], []
    for owner, life in enumerate(replay.world.lives["judges"]):
        chance = np.random.default_rng([replay.options.seed, owner])
        events = replay.apply_shift(life, chance, shifted)
        for length in question_points(events, settings):
            future = events[length:]
            liked = [e.item for e in future if e.item and e.positive(rules.text.positive)]
            histories.append(events[max(0, length - rules.text.history_limit) : length])
            relevant.append([position_of(i) for i in dict.fromkeys(liked[: rules.horizon])])
            owners.append(owner)

    # 2. what is recommended after each history; -1 where a list is shorter
    ranked = np.full((len(histories), _RANKS), -1)
    for row, recommended in enumerate(session.recommend(histories)):
        ranked[row, : len(recommended)] = [position_of(r.item) for r in recommended]
    return interval(ndcg(ranked, relevant), np.array(owners), draws=_DRAWS)


def compare_qualities(
    before: Session, after: Session, replay: Replay, settings: Settings
) -> QualityComparison:
    """The champion's quality as usual and under the shift, the retrained model's, and the share of
    the loss that it regained; nothing for shifts that a retraining does not answer.
    """
    if replay.options.shift not in ANSWERED_BY_RETRAINING:
        return NO_QUALITY
    usual = measure_quality(before, replay, False, settings)
    shifted = measure_quality(before, replay, True, settings)
    if after.digest == before.digest:
        return QualityComparison(usual, shifted)
    retrained = measure_quality(after, replay, True, settings)
    return QualityComparison(usual, shifted, retrained, _regained(usual, shifted, retrained))


def _regained(usual: Interval, shifted: Interval, retrained: Interval) -> float | None:
    assert usual.value is not None and shifted.value is not None and retrained.value is not None
    loss = usual.value - shifted.value
    return (retrained.value - shifted.value) / loss if loss > 0 else None
