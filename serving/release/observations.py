"""What servers observe of both sides of a rollout: counts that add up over requests and servers."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, Field

from tasteloop.answers import SERVED_MODELS, model_of

_ITEM_BUCKETS = 32  # into which items are hashed, so that a tally stays small
# The latency histogram: where its first bucket ends, by which factor each end is above the one
# before, and its last bucket.
_FIRST_END_SECONDS, _GROWTH, _LAST_BUCKET = 1e-4, 1.1, 200

Count = Annotated[int, Field(ge=0)]
Key = TypeVar("Key", int, str)


class Tally(BaseModel, frozen=True, extra="forbid"):
    """What one side did: counts that add up over servers.

    Attributes:
        answers: instances answered; errors: requests that failed for our reasons; not_finite:
            answers with a NaN.
        latency: requests by bucket; bucket b ends at 0.1 ms times 1.1 to the b.
        outcomes: by model, instances by their first answer.
    """

    answers: Count = 0
    errors: Count = 0
    not_finite: Count = 0
    latency: dict[int, Count] = {}
    outcomes: dict[str, dict[str, Count]] = {}

    def __add__(self, other: Tally) -> Tally:
        outcomes = {
            model: _add(self.outcomes.get(model, {}), other.outcomes.get(model, {}))
            for model in {*self.outcomes, *other.outcomes}
        }
        return Tally(
            answers=self.answers + other.answers,
            errors=self.errors + other.errors,
            not_finite=self.not_finite + other.not_finite,
            latency=_add(self.latency, other.latency),
            outcomes=outcomes,
        )

    @property
    def error_rate(self) -> float:
        total = self.answers + self.errors
        return self.errors / total if total else 0.0

    def latency_quantile(self, q: float) -> float | None:
        """The upper end, in seconds, of the bucket that holds this share of the requests; None
        without any.
        """
        left = q * sum(self.latency.values())
        for bucket, count in sorted(self.latency.items()):
            left -= count
            if left <= 1e-9:
                return _FIRST_END_SECONDS * _GROWTH**bucket
        return None


class Agreement(BaseModel, frozen=True, extra="forbid"):
    """How a shadow's answers compare with the champion's to the same instances; sums, over
    `compared` instances.
    """

    compared: Count = 0
    first: Count = Field(0, description="instances whose first answer differs")
    overlap: float = Field(0.0, description="sum of the shares of names that both gave")
    distance: float = Field(
        0.0, description="sum of mean absolute differences of numbers that mean the same"
    )

    def __add__(self, other: Agreement) -> Agreement:
        return Agreement(
            compared=self.compared + other.compared,
            first=self.first + other.first,
            overlap=self.overlap + other.overlap,
            distance=self.distance + other.distance,
        )


class Observation(BaseModel, frozen=True, extra="forbid"):
    """Both sides. In shadow mode both tallies count the requests that the two of them answered."""

    champion: Tally = Tally()
    challenger: Tally = Tally()
    agreement: dict[str, Agreement] = {}
    skipped: Count = Field(0, description="requests that the shadow had no spare time for")

    def __add__(self, other: Observation) -> Observation:
        none = Agreement()
        agreement = {
            model: self.agreement.get(model, none) + other.agreement.get(model, none)
            for model in {*self.agreement, *other.agreement}
        }
        return Observation(
            champion=self.champion + other.champion,
            challenger=self.challenger + other.challenger,
            agreement=agreement,
            skipped=self.skipped + other.skipped,
        )


def tally_answers(model: str, answers: Sequence[Mapping[str, Any]], seconds: float | None) -> Tally:
    """What one request's answers (V1) add.

    >>> tally = tally_answers("sentiment", [{"sentiment": "positive", "probability": 0.75}], 0.01)
    >>> tally.answers, tally.outcomes
    (1, {'sentiment': {'7/10': 1}})
    """
    outcomes: dict[str, int] = {}
    for answer in answers:
        outcome = _first_answer(model, answer)
        outcomes[outcome] = outcomes.get(outcome, 0) + 1
    return Tally(
        answers=len(answers),
        not_finite=sum(not all_finite([answer]) for answer in answers),
        latency={} if seconds is None else {_latency_bucket(seconds): 1},
        outcomes={model: outcomes},
    )


def compare_answers(
    champion: Sequence[Mapping[str, Any]], challenger: Sequence[Mapping[str, Any]]
) -> Agreement:
    """The agreement of two sides' answers to the same instances."""
    total = Agreement()
    for ours, theirs in zip(champion, challenger, strict=True):
        our_numbers, their_numbers = _numbers_by_name(ours), _numbers_by_name(theirs)
        common = our_numbers.keys() & their_numbers.keys()
        model = model_of(ours)
        if model is None or SERVED_MODELS[model].ranking is not None:
            pairs = [(our_numbers[name], their_numbers[name]) for name in common]
        else:
            # an unranked number is the probability of one thing, whatever the answer is called
            pairs = list(zip(our_numbers.values(), their_numbers.values(), strict=True))
        total += Agreement(
            compared=1,
            first=int(next(iter(our_numbers), None) != next(iter(their_numbers), None)),
            overlap=len(common) / max(len(our_numbers), len(their_numbers), 1),
            distance=sum(abs(x - y) for x, y in pairs) / len(pairs) if pairs else 0.0,
        )
    return total


def all_finite(answers: Sequence[Mapping[str, Any]]) -> bool:
    """Whether no number of V1 answers is NaN or infinite."""
    numbers = [number for answer in answers for number in _numbers_by_name(answer).values()]
    return all(map(math.isfinite, numbers))


def _numbers_by_name(answer: Mapping[str, Any]) -> dict[str, float]:
    """The names that an answer ranks, with their numbers."""
    model = model_of(answer)
    assert model is not None, "an answer of a served model"
    return SERVED_MODELS[model].numbers(answer)


def _first_answer(model: str, answer: Mapping[str, Any]) -> str:
    """The first answer as one of a bounded number of names: an interest's label, an item's bucket,
    the decile of an unranked probability.
    """
    served = SERVED_MODELS[model]
    if served.ranking is None:
        probability = answer[served.number]
        return f"{min(int(10 * probability), 9)}/10" if math.isfinite(probability) else "not finite"
    first = next(iter(_numbers_by_name(answer)), "")
    if not served.is_catalogue or not first:
        return first
    hashed = hashlib.blake2b(first.encode(), digest_size=4).digest()
    return f"items {hashed[0] % _ITEM_BUCKETS}"


def _latency_bucket(seconds: float) -> int:
    if not seconds > _FIRST_END_SECONDS:  # NaN too
        return 0
    bucket = math.ceil(math.log(seconds / _FIRST_END_SECONDS) / math.log(_GROWTH))
    return min(bucket, _LAST_BUCKET)


def _add(a: Mapping[Key, int], b: Mapping[Key, int]) -> dict[Key, int]:
    return {key: a.get(key, 0) + b.get(key, 0) for key in {**a, **b}}
