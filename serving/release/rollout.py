"""A rollout: a challenger answers a share of the requests, or scores them in the shadow, until the
rules decide.

Its state is one file, `rollout.json` under the home, replaced whole and changed under a lock, so
that servers and the command line share it; the next rollout moves it to `rollouts/`. Servers add
what they observed; `decide` makes of it a verdict with reasons.

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

import hashlib
import json
import math
import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, Field, ValidationError

from tasteloop import files
from tasteloop.answers import SERVED_MODELS, model_of
from tasteloop.errors import TasteloopError

STATE, PAST = "rollout.json", "rollouts"
_LOCK_SECONDS = 30.0
_Z = 3.0  # standard deviations of "surely"
_FEWEST_ERRORS = 3
_BUCKETS = 32  # of items
_FINEST, _GROWTH, _WIDEST = 1e-4, 1.1, 200  # the latency histogram: seconds, factor, buckets

Share = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0)]
Verdict = Literal["wait", "promote", "roll back"]
State = TypeVar("State", bound="Rollout | None")


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


def rules(given: Sequence[str]) -> Rules:
    """Rules of `key=value` strings, the others by default.

    Raises:
        TasteloopError: an unknown key or a value that does not fit.
    """
    try:
        return Rules.model_validate(dict(one.partition("=")[::2] for one in given))
    except ValidationError as error:
        problem = error.errors()[0]
        name = ".".join(map(str, problem["loc"]))
        known = ", ".join(f"{key}={field.default}" for key, field in Rules.model_fields.items())
        raise TasteloopError(
            f"rule {name!r}: {problem['msg']}; known, with their defaults: {known}"
        ) from None


# What is observed


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
            model: _sum(self.outcomes.get(model, {}), other.outcomes.get(model, {}))
            for model in {*self.outcomes, *other.outcomes}
        }
        return Tally(
            answers=self.answers + other.answers,
            errors=self.errors + other.errors,
            not_finite=self.not_finite + other.not_finite,
            latency=_sum(self.latency, other.latency),
            outcomes=outcomes,
        )

    @property
    def error_rate(self) -> float:
        asked = self.answers + self.errors
        return self.errors / asked if asked else 0.0

    def quantile(self, q: float) -> float | None:
        """The upper end, in seconds, of the bucket that holds this share of the requests; None
        without any.
        """
        left = q * sum(self.latency.values())
        for bucket, count in sorted(self.latency.items()):
            left -= count
            if left <= 1e-9:
                return _FINEST * _GROWTH**bucket
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


class Observed(BaseModel, frozen=True, extra="forbid"):
    """Both sides. In shadow mode both tallies count the requests that the two of them answered."""

    champion: Tally = Tally()
    challenger: Tally = Tally()
    agreement: dict[str, Agreement] = {}
    skipped: Count = Field(0, description="requests that the shadow had no spare time for")

    def __add__(self, other: Observed) -> Observed:
        models = {*self.agreement, *other.agreement}
        none = Agreement()
        return Observed(
            champion=self.champion + other.champion,
            challenger=self.challenger + other.challenger,
            agreement={
                m: self.agreement.get(m, none) + other.agreement.get(m, none) for m in models
            },
            skipped=self.skipped + other.skipped,
        )


def tally(model: str, answers: Sequence[Mapping[str, Any]], seconds: float | None) -> Tally:
    """What one request's answers (V1) add."""
    outcomes: dict[str, int] = {}
    for answer in answers:
        outcome = _outcome(model, answer)
        outcomes[outcome] = outcomes.get(outcome, 0) + 1
    return Tally(
        answers=len(answers),
        not_finite=sum(not finite([answer]) for answer in answers),
        latency={} if seconds is None else {_bucket(seconds): 1},
        outcomes={model: outcomes},
    )


def agreement(
    champion: Sequence[Mapping[str, Any]], challenger: Sequence[Mapping[str, Any]]
) -> Agreement:
    """Of two sides' answers to the same instances."""
    total = Agreement()
    for ours, theirs in zip(champion, challenger, strict=True):
        a, b = _named(ours), _named(theirs)
        common = a.keys() & b.keys()
        model = model_of(ours)
        is_ranked = model is None or SERVED_MODELS[model].ranking is not None
        # An unranked number is the probability of one thing, whatever the answer is called.
        pairs = (
            [(a[name], b[name]) for name in common] if is_ranked else [(*a.values(), *b.values())]
        )
        total += Agreement(
            compared=1,
            first=int(next(iter(a), None) != next(iter(b), None)),
            overlap=len(common) / max(len(a), len(b), 1),
            distance=sum(abs(x - y) for x, y in pairs) / len(pairs) if pairs else 0.0,
        )
    return total


def finite(answers: Sequence[Mapping[str, Any]]) -> bool:
    """Whether every number of V1 answers is one."""
    return all(math.isfinite(number) for answer in answers for number in _named(answer).values())


def _named(answer: Mapping[str, Any]) -> dict[str, float]:
    """The names that an answer ranks, with their numbers."""
    model = model_of(answer)
    assert model is not None, "an answer of a served model"
    return SERVED_MODELS[model].numbers(answer)


def _outcome(model: str, answer: Mapping[str, Any]) -> str:
    """The first answer as one of a bounded number of names."""
    served = SERVED_MODELS[model]
    if served.ranking is None:
        probability = answer[served.number]
        return f"{min(int(10 * probability), 9)}/10" if math.isfinite(probability) else "not finite"
    first = next(iter(_named(answer)), "")
    if not served.is_catalogue or not first:
        return first
    return f"items {hashlib.blake2b(first.encode(), digest_size=4).digest()[0] % _BUCKETS}"


def _bucket(seconds: float) -> int:
    if not seconds > _FINEST:
        return 0
    return min(math.ceil(math.log(seconds / _FINEST) / math.log(_GROWTH)), _WIDEST)


def _sum(a: Mapping[Any, int], b: Mapping[Any, int]) -> dict[Any, int]:
    return {key: a.get(key, 0) + b.get(key, 0) for key in {**a, **b}}


# The decision


class Decision(BaseModel, frozen=True, extra="forbid"):
    """A verdict, and a sentence for each rule."""

    verdict: Verdict
    reasons: tuple[str, ...]


def decide(observed: Observed, rules: Rules, shadow: bool = False, hours: float = 0.0) -> Decision:
    """What to do with a challenger; pure.

    Args:
        hours: since the rollout began.
    """
    us, them = observed.champion, observed.challenger
    checks = [_errors(us, them, rules), _finite(them), _shift(us, them, rules)]
    checks.append(
        (True, "latency is not judged in the shadow") if shadow else _latency(us, them, rules)
    )
    reasons = tuple(reason for _, reason in checks)
    if failed := tuple(reason for passed, reason in checks if not passed):
        return Decision(verdict="roll back", reasons=failed)
    fewer = min(us.answers, them.answers)
    if fewer < rules.answers:
        seen = f"{us.answers} answers of the champion and {them.answers} of the challenger; {rules.answers} of each"
        if hours >= rules.hours:
            return Decision(
                verdict="roll back",
                reasons=(f"after {hours:.0f} hours there are only {seen} were asked",),
            )
        return Decision(verdict="wait", reasons=(f"{seen} are needed", *reasons))
    return Decision(verdict="promote", reasons=reasons)


def _errors(us: Tally, them: Tally, rules: Rules) -> tuple[bool, str]:
    allowed = us.error_rate + rules.errors
    from tasteloop.metrics import wilson

    low, _ = wilson(them.errors, them.answers + them.errors, _Z)
    sure = them.errors >= _FEWEST_ERRORS and low > allowed
    enough = min(us.answers, them.answers) >= rules.answers
    bad = sure or (enough and them.error_rate > allowed)
    said = f"error rate {them.error_rate:.4f} against the champion's {us.error_rate:.4f}"
    return not bad, f"{said}, allowed {allowed:.4f}"


def _finite(them: Tally) -> tuple[bool, str]:
    return not them.not_finite, f"{them.not_finite} answers that are not finite"


def _latency(us: Tally, them: Tally, rules: Rules) -> tuple[bool, str]:
    ours, theirs = us.quantile(0.95), them.quantile(0.95)
    if ours is None or theirs is None:
        return True, "no latency was measured yet"
    said = f"p95 {1000 * theirs:.1f} ms against the champion's {1000 * ours:.1f} ms"
    if min(us.answers, them.answers) < rules.answers:
        return True, said
    allowed = max(rules.latency_ratio * ours, ours + rules.latency_seconds)
    return theirs <= allowed, f"{said}, allowed {1000 * allowed:.1f} ms"


def _shift(us: Tally, them: Tally, rules: Rules) -> tuple[bool, str]:
    """The model whose first answers differ most, beyond chance."""
    worst, said = 0.0, "no model was answered by both yet"
    for model in sorted({*us.outcomes} & {*them.outcomes}):
        distance, chance = variation(us.outcomes[model], them.outcomes[model], 1 - rules.confidence)
        excess = distance - chance
        if said.startswith("no model") or excess > worst:
            worst = max(excess, 0.0)
            said = f"first answers of {model} differ by {distance:.3f}, of which chance explains {chance:.3f}"
    return worst <= rules.shift, f"{said}; allowed beyond it {rules.shift:.3f}"


def variation(a: Mapping[str, int], b: Mapping[str, int], alpha: float) -> tuple[float, float]:
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


# Who answers


def draw(salt: str, key: str) -> float:
    """A number in [0, 1), always the same for one key in one rollout."""
    hashed = hashlib.blake2b(f"{salt}\0{key}".encode(errors="replace"), digest_size=8).digest()
    return int.from_bytes(hashed, "big") / 2**64


# The state


class Side(BaseModel, frozen=True, extra="forbid"):
    version: str
    digest: str


class Rollout(BaseModel, frozen=True, extra="forbid"):
    """The last rollout, running or ended."""

    format: Literal[1] = 1
    id: str
    state: Literal["running", "promoted", "rolled back", "aborted"] = "running"
    champion: Side
    challenger: Side
    share: Share
    shadow: bool = False
    automatic: bool = True
    rules: Rules = Rules()
    started: str
    ended: str | None = None
    reasons: tuple[str, ...] = ()
    observed: Observed = Observed()

    @property
    def running(self) -> bool:
        return self.state == "running"

    def decision(self) -> Decision:
        """What the rules say now."""
        hours = (datetime.now(UTC) - datetime.fromisoformat(self.started)).total_seconds() / 3600
        return decide(self.observed, self.rules, self.shadow, hours)


def current() -> Rollout | None:
    """The last rollout of this home; None while there was none.

    Raises:
        TasteloopError: a file that is not a rollout's.
    """
    path = files.home() / STATE
    return _read(path) if path.exists() else None


def history() -> list[Rollout]:
    """All rollouts of this home, the last one first."""
    last = current()
    found = [
        *([last] if last else []),
        *(_read(path) for path in (files.home() / PAST).glob("*.json")),
    ]
    # the last one may just be moving there
    once = {rollout.id: rollout for rollout in reversed(found)}
    return sorted(once.values(), key=lambda rollout: rollout.started, reverse=True)


def _read(path: Path) -> Rollout:
    try:
        return Rollout.model_validate(files.read_json(path))
    except ValidationError as error:
        problem = error.errors()[0]
        place = ".".join(map(str, problem["loc"]))
        raise TasteloopError(
            f"{path} is not a rollout of this version ({place}: {problem['msg']}); remove it and start again"
        ) from None


def start(
    version: str,
    share: float,
    shadow: bool = False,
    automatic: bool = True,
    rules: Rules | None = None,
) -> Rollout:
    """Begin to roll a registered version out; servers that follow the registry take part within a
    second or so.

    Args:
        share: of the requests, in (0, 1]: answered by the challenger, or scored by the shadow.
        automatic: whether servers promote or roll back when the rules say so, or only report it.

    Raises:
        TasteloopError: one is running, the version is the champion or has not passed gate and
            rehearsal.
    """
    from serving.release import registry

    if not 0 < share <= 1:
        raise TasteloopError(
            f"share {share:g}: a number above 0 and up to 1 is expected, such as 0.1"
        )
    live = registry.champion()
    if live is None:
        raise TasteloopError(
            "there is no champion to compare with; promote a first version with `tasteloop run`"
        )
    known = {v.version: v for v in registry.versions()}
    if version not in known:
        raise TasteloopError(
            f"there is no version {version!r}; registered: {', '.join(sorted(known, key=int))}"
        )
    if known[version].champion:
        raise TasteloopError(f"version {version} is the champion already; roll out another one")
    for passed, what in (
        (known[version].passed, "the gate"),
        (known[version].rehearsed, "a rehearsal"),
    ):
        if not passed:
            raise TasteloopError(
                f"version {version} has not passed {what}, so it cannot be rolled out"
            )
    found = registry.find(version)  # verified
    new = Rollout(
        id=uuid.uuid4().hex[:12],
        champion=Side(version=live.version, digest=live.digest),
        challenger=Side(version=found.version, digest=found.digest),
        share=share,
        shadow=shadow,
        automatic=automatic,
        rules=rules or Rules(),
        started=_now(),
    )

    def begin(before: Rollout | None) -> Rollout:
        if before is not None and before.running:
            raise TasteloopError(
                f"version {before.challenger.version} is being rolled out since {before.started}; end that with "
                "`tasteloop rollout promote` or `tasteloop rollout abort` first"
            )
        return new

    return _change(begin)


def promote(reasons: Sequence[str] = ("promoted by hand",), identity: str | None = None) -> Rollout:
    """Make the running rollout's challenger the champion, if the champion still is the one it was
    compared with.
    """
    from serving.release import promotion

    rollout = _running(identity)
    promotion.promote(rollout.challenger.version, rollout.champion.digest)
    return end(rollout.id, "promoted", reasons) or rollout


def abort(reason: str = "aborted by hand") -> Rollout:
    """End the running rollout; the champion answers all requests again."""
    rollout = _running(None)
    return end(rollout.id, "aborted", (reason,)) or rollout


def end(
    identity: str, state: Literal["promoted", "rolled back", "aborted"], reasons: Sequence[str]
) -> Rollout | None:
    """End a rollout unless that was done already; the last one as it then is."""

    def conclude(rollout: Rollout | None) -> Rollout | None:
        if rollout is None or rollout.id != identity or not rollout.running:
            return rollout
        return rollout.model_copy(
            update={"state": state, "ended": _now(), "reasons": tuple(reasons)}
        )

    return _change(conclude)


def observe(identity: str, seen: Observed) -> Rollout | None:
    """Add what a server observed since it last did; the rollout as it then is."""

    def add(rollout: Rollout | None) -> Rollout | None:
        if rollout is None or rollout.id != identity or not rollout.running:
            return rollout
        return rollout.model_copy(update={"observed": rollout.observed + seen})

    return _change(add)


def _running(identity: str | None) -> Rollout:
    rollout = current()
    if rollout is None or not rollout.running or identity not in (None, rollout.id):
        raise TasteloopError(
            "no rollout is running; begin one with `tasteloop rollout start --version N --share 0.1`"
        )
    return rollout


def _change(change: Callable[[Rollout | None], State]) -> State:
    with files.locked(files.home() / "rollout.lock", _LOCK_SECONDS, 0.01):
        before = current()
        after = change(before)
        if after is not None and after is not before:
            if before is not None and before.id != after.id:
                files.write_json(
                    files.home() / PAST / f"{before.id}.json", json.loads(before.model_dump_json())
                )
            files.write_json(files.home() / STATE, json.loads(after.model_dump_json()))
        return after


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def status() -> dict[str, Any] | None:
    """The last rollout with what the rules say of it now, for people and scripts."""
    rollout = current()
    return tell(rollout) if rollout else None


def tell(rollout: Rollout) -> dict[str, Any]:
    """A rollout with what the rules say of it now."""
    said = rollout.decision()
    told = json.loads(rollout.model_dump_json(exclude={"observed"}))
    return {
        **told,
        "verdict": said.verdict,
        "because": list(said.reasons),
        "observed": _told(rollout.observed),
    }


def _told(observed: Observed) -> dict[str, Any]:
    def side(t: Tally) -> dict[str, Any]:
        latency = {name: t.quantile(q) for name, q in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))}
        return {
            "answers": t.answers,
            "errors": t.errors,
            "not_finite": t.not_finite,
            "seconds": latency,
        }

    return {
        "champion": side(observed.champion),
        "challenger": side(observed.challenger),
        "agreement": {
            model: {
                "compared": a.compared,
                "first_differs": a.first / a.compared,
                "overlap": a.overlap / a.compared,
                "distance": a.distance / a.compared,
            }
            for model, a in sorted(observed.agreement.items())
            if a.compared
        },
        "skipped": observed.skipped,
    }
