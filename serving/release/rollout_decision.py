"""What to do with a challenger: the rules, and the decision that they make of an observation.

The rules, for what the defaults of `Rules` leave open:

- errors: roll back as soon as the challenger's error rate is surely (Wilson's lower bound) above
  the champion's by more than `errors`, and at least 3 errors are there. One answer that is not
  finite is enough.
- latency: roll back if the challenger's 95th percentile is more than `latency_ratio` times the
  champion's and more than `latency_seconds` above it. Not judged in the shadow, which works in
  spare time.
- answers: roll back if the distributions of a model's first answers (interest label, item, decile
  of the probability) differ in total variation by more than `shift` beyond what chance explains.
- promote when both sides have `answers` answers and none of these hold; roll back after `hours`
  without them.

Chance: with n and m answers the expected distance of two equal distributions p is at most
1/2 sum_i sqrt(p_i (1 - p_i) (1/n + 1/m)), and it exceeds its expectation by t with a probability of
at most exp(-2 t^2 / (1/n + 1/m)) (McDiarmid 1989), since one answer moves it by 1/n or 1/m.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from pydantic import BaseModel, Field, ValidationError

from serving.release.observations import Observation, Tally
from tasteloop.errors import TasteloopError
from tasteloop.metrics import wilson

_SURE = 3.0  # standard deviations of "surely"
_FEWEST_ERRORS = 3

RolloutVerdict = Literal["wait", "promote", "roll back"]


class Rules(BaseModel, frozen=True, extra="forbid"):
    """When a challenger is promoted and when it is rolled back."""

    answers: int = Field(500, ge=1, description="answers of each side before it can be promoted")
    errors: float = Field(
        0.005, ge=0, le=1, allow_inf_nan=False, description="how much higher the error rate may be"
    )
    latency_ratio: float = Field(
        1.5, ge=1, allow_inf_nan=False, description="how many times the champion's p95"
    )
    latency_seconds: float = Field(
        0.005, ge=0, allow_inf_nan=False, description="a difference too small to matter"
    )
    shift: float = Field(
        0.25, ge=0, le=1, allow_inf_nan=False, description="total variation beyond chance"
    )
    confidence: float = Field(
        0.999, gt=0, lt=1, allow_inf_nan=False, description="of that bound on chance"
    )
    hours: float = Field(
        72, gt=0, allow_inf_nan=False, description="without a verdict before it is rolled back"
    )


def parse_rules(options: Sequence[str]) -> Rules:
    """Rules of `key=value` strings, the others by default.

    Raises:
        TasteloopError: an unknown key or a value that does not fit.

    >>> parse_rules(["answers=2000"]).answers
    2000
    """
    try:
        return Rules.model_validate(dict(option.partition("=")[::2] for option in options))
    except ValidationError as error:
        problem = error.errors()[0]
        name = ".".join(map(str, problem["loc"]))
        known = ", ".join(f"{key}={field.default}" for key, field in Rules.model_fields.items())
        raise TasteloopError(
            f"rule {name!r}: {problem['msg']}; known, with their defaults: {known}"
        ) from None


class RolloutDecision(BaseModel, frozen=True, extra="forbid"):
    """A verdict, and a sentence for each rule."""

    verdict: RolloutVerdict
    reasons: tuple[str, ...]


class _RuleCheck(NamedTuple):
    passed: bool
    reason: str


def decide(
    observation: Observation, rules: Rules, shadow: bool = False, hours: float = 0.0
) -> RolloutDecision:
    """What to do with a challenger; pure.

    Args:
        hours: since the rollout began.

    >>> decide(Observation(challenger=Tally(answers=40, errors=10)), Rules()).verdict
    'roll back'
    """
    champion, challenger = observation.champion, observation.challenger
    checks = [
        _check_errors(champion, challenger, rules),
        _check_finite(challenger),
        _check_shift(champion, challenger, rules),
        _RuleCheck(True, "latency is not judged in the shadow")
        if shadow
        else _check_latency(champion, challenger, rules),
    ]
    failed = tuple(check.reason for check in checks if not check.passed)
    if failed:
        return RolloutDecision(verdict="roll back", reasons=failed)
    reasons = tuple(check.reason for check in checks)
    if min(champion.answers, challenger.answers) >= rules.answers:
        return RolloutDecision(verdict="promote", reasons=reasons)
    counts = (
        f"{champion.answers} answers of the champion and {challenger.answers} of the challenger; "
        f"{rules.answers} of each"
    )
    if hours >= rules.hours:
        reason = f"after {hours:.0f} hours there are only {counts} were asked"
        return RolloutDecision(verdict="roll back", reasons=(reason,))
    return RolloutDecision(verdict="wait", reasons=(f"{counts} are needed", *reasons))


def _check_errors(champion: Tally, challenger: Tally, rules: Rules) -> _RuleCheck:
    allowed = champion.error_rate + rules.errors
    low, _ = wilson(challenger.errors, challenger.answers + challenger.errors, _SURE)
    surely_above = challenger.errors >= _FEWEST_ERRORS and low > allowed
    enough = min(champion.answers, challenger.answers) >= rules.answers
    above = enough and challenger.error_rate > allowed
    rates = (
        f"error rate {challenger.error_rate:.4f} against the champion's {champion.error_rate:.4f}"
    )
    return _RuleCheck(not (surely_above or above), f"{rates}, allowed {allowed:.4f}")


def _check_finite(challenger: Tally) -> _RuleCheck:
    return _RuleCheck(
        not challenger.not_finite, f"{challenger.not_finite} answers that are not finite"
    )


def _check_latency(champion: Tally, challenger: Tally, rules: Rules) -> _RuleCheck:
    ours, theirs = champion.latency_quantile(0.95), challenger.latency_quantile(0.95)
    if ours is None or theirs is None:
        return _RuleCheck(True, "no latency was measured yet")
    quantiles = f"p95 {1000 * theirs:.1f} ms against the champion's {1000 * ours:.1f} ms"
    if min(champion.answers, challenger.answers) < rules.answers:
        return _RuleCheck(True, quantiles)
    allowed = max(rules.latency_ratio * ours, ours + rules.latency_seconds)
    return _RuleCheck(theirs <= allowed, f"{quantiles}, allowed {1000 * allowed:.1f} ms")


def _check_shift(champion: Tally, challenger: Tally, rules: Rules) -> _RuleCheck:
    """The model whose first answers differ most, beyond chance."""
    largest_excess, finding = None, "no model was answered by both yet"
    for model in sorted({*champion.outcomes} & {*challenger.outcomes}):
        distance, chance = total_variation(
            champion.outcomes[model], challenger.outcomes[model], 1 - rules.confidence
        )
        excess = distance - chance
        if largest_excess is None or excess > largest_excess:
            largest_excess = max(excess, 0.0)
            finding = f"first answers of {model} differ by {distance:.3f}, of which chance explains {chance:.3f}"
    passed = largest_excess is None or largest_excess <= rules.shift
    return _RuleCheck(passed, f"{finding}; allowed beyond it {rules.shift:.3f}")


def total_variation(
    a: Mapping[str, int], b: Mapping[str, int], alpha: float
) -> tuple[float, float]:
    """Total variation of two samples, and what it stays under with probability 1 - alpha where they
    are of one kind.
    """
    n, m = sum(a.values()), sum(b.values())
    if not n or not m:
        return 0.0, 1.0
    inverse = 1 / n + 1 / m
    distance = expected = 0.0
    for name in {**a, **b}:
        x, y = a.get(name, 0), b.get(name, 0)
        distance += abs(x / n - y / m) / 2
        p = (x + y) / (n + m)
        expected += math.sqrt(p * (1 - p) * inverse) / 2
    return distance, min(expected + math.sqrt(math.log(1 / alpha) / 2 * inverse), 1.0)
