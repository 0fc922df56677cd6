"""Whether the live model is left alone, watched, trained anew, or put before a human; with reasons.

`decide` is pure: the evidence of closed windows, what was triggered before, a few facts and the
time go in, a decision comes out. It reads no clock and no file, so the same evidence always gives
the same answer.

The rules, in the order in which they speak:

1. A window whose data failed its checks is void. The newest one being void calls a human; while one
   of the last `windows` is void nothing is trained, since a training would read it.
2. A measure has drifted in a window when its users or rows are enough (`minimum`), its adjusted
   p-value is at most `alpha`, and its effect reaches the measure's severity and exceeds what the
   reference's own windows differ by. It is persistent when that is so in `needed` of the last
   `windows` sound windows, the newest among them. A quality of which it is not known how the
   reference's windows differ is watched only; its floor still holds.
3. A quality below its floor beyond doubt (the whole interval lies on the wrong side) needs no
   second window: truth was late enough. Calibration error has a ceiling instead.
4. A persistent measure is answered as its severity says. A schedule and new data also ask for a
  retraining.
5. What a promoted retraining answered is not answered again at once: most of its champion's
   reference is still from before the change. Until `settle` windows have closed since, the same
   measure is watched as long as it lies no further than it lay then. Other measures, and floors,
   are not held up.
6. A retraining waits while one is under way, for the cooldown after the last one, and for the
   weekly budget. Drift that `futile` retrainings in a row did not cure, or that the budget does not
   allow to be answered, calls a human.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, Field, model_validator

from validation.monitor.measure import Effect, Severity
from validation.monitor.measures import default_severities
from validation.monitor.qualities import QUALITIES
from validation.monitor.windows import HOUR, WEEK

Outcome = Literal["healthy", "watch", "retrain", "alert-human"]
Result = Literal["promoted", "unchanged", "rejected", "refused", "failed"]

Finite = Annotated[float, Field(allow_inf_nan=False)]
Probability = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Name = Annotated[str, Field(min_length=1)]


SEVERITY: dict[Name, Severity] = default_severities()
LESS_IS_BETTER = tuple(measure.name for measure in QUALITIES if measure.less_is_better)


class DecisionSettings(BaseModel, frozen=True, extra="forbid"):
    """When the loop acts."""

    minimum: int = Field(
        50, ge=1, description="Users or rows below which a window's measure says nothing."
    )
    alpha: float = Field(
        0.01, gt=0, lt=1, description="Greatest false discovery rate of a window's measures."
    )
    severity: dict[Name, Severity] = Field(
        SEVERITY, description="By measure; one that is not named is reported only."
    )
    windows: int = Field(3, ge=1, description="Newest sound windows that are looked at (m).")
    needed: int = Field(2, ge=1, description="In how many of them a measure must have drifted (n).")
    floors: dict[Name, Finite] = Field(
        {}, description="Least value of a quality; greatest for the calibration error."
    )
    schedule_days: float | None = Field(
        None, gt=0, allow_inf_nan=False, description="Retrain at least this often."
    )
    new_data: float | None = Field(
        None,
        gt=0,
        allow_inf_nan=False,
        description="Retrain when so many times the training's events are new.",
    )
    cooldown_hours: float = Field(
        24.0, ge=0, allow_inf_nan=False, description="From one retraining to the next."
    )
    weekly: int = Field(2, ge=0, description="Retrainings within seven days at most.")
    settle: int = Field(
        14,
        ge=0,
        description="Windows before a measure that the last retraining answered is trained on once more.",
    )
    futile: int = Field(
        2, ge=1, description="Retrainings in a row that promoted nothing before a human is called."
    )

    @model_validator(mode="after")
    def _needed_of_windows(self) -> DecisionSettings:
        if self.needed > self.windows:
            raise ValueError(f"needed ({self.needed}) cannot exceed windows ({self.windows})")
        return self


class Finding(BaseModel, frozen=True, extra="forbid"):
    """One measure in one window beside the reference; null where it could not be computed.

    Attributes:
        effect: how far from the reference, in the measure's unit; never negative. For a quality,
            how much worse.
        p: adjusted for all measures of the window.
        n: users or rows of the window behind it.
        detectable: the smallest effect that this window would have shown with a probability of at
            least 0.8.
        natural: the effect that a window without a shift could have, by how the reference's own
            windows differ.
        value, low, high: of a quality, with its 95% interval.
    """

    measure: Name
    effect: Effect | None = None
    p: Probability | None = None
    n: int = Field(0, ge=0)
    detectable: Effect | None = None
    natural: Effect | None = None
    value: Finite | None = None
    low: Finite | None = None
    high: Finite | None = None


class Evidence(BaseModel, frozen=True, extra="forbid"):
    """What one closed window says.

    Attributes:
        id: digest of the report that holds it.
        window: which window, `start/end`; end: its end, µs.
        reference, champion: digests of what it was compared with and of the bundle that was live.
        problems: checks that its data failed, in words; with any the window is void.
    """

    id: Name
    window: Name
    end: int
    reference: Name
    champion: Name
    findings: tuple[Finding, ...] = ()
    problems: tuple[str, ...] = ()


class Trigger(BaseModel, frozen=True, extra="forbid"):
    """A retraining that was decided; `result` is null while it runs."""

    key: Name
    at: int = Field(description="µs since 1970 UTC")
    champion: Name
    result: Result | None = None
    causes: tuple[str, ...] = ()


class Facts(BaseModel, frozen=True, extra="forbid"):
    """What the schedule and the volume are measured against; null where unknown."""

    trained: int | None = Field(
        None, description="Up to when the champion's data goes, µs since 1970 UTC."
    )
    trained_events: int | None = Field(None, ge=0, description="Events that it was trained on.")
    new_events: int | None = Field(
        None, ge=0, description="Events since, or since the last retraining."
    )


class Decision(BaseModel, frozen=True, extra="forbid"):
    """The outcome, a sentence for each reason, the evidence that it rests on, and its idempotency
    key.
    """

    outcome: Outcome
    reasons: tuple[str, ...]
    evidence: tuple[str, ...]
    key: str
    causes: tuple[str, ...] = ()


def key_of(reference: str, window: str, champion: str) -> str:
    """The name of "this evidence": the same for every monitor, at every time, however often it is
    looked at.
    """
    return hashlib.sha256("\0".join((reference, window, champion)).encode()).hexdigest()


def adjusted(p: Sequence[float | None]) -> list[float | None]:
    """Benjamini-Hochberg (1995) adjusted p-values, in the given order; None stays None and does not
    count.
    """
    known = sorted((value, index) for index, value in enumerate(p) if value is not None)
    out: list[float | None] = [None] * len(p)
    least = 1.0
    for rank in range(len(known), 0, -1):
        value, index = known[rank - 1]
        least = min(least, value * len(known) / rank)
        out[index] = least
    return out


def decide(
    evidence: Sequence[Evidence],
    triggers: Sequence[Trigger],
    now: int,
    settings: DecisionSettings,
    facts: Facts | None = None,
) -> Decision:
    """What to do about the newest window.

    Args:
        evidence: of at least one closed window, in any order; a window given twice counts once.
        triggers: all retrainings that were decided, in any order.
        now: µs since 1970 UTC.

    Raises:
        ValueError: no evidence.
    """
    if not evidence:
        raise ValueError("a decision needs the evidence of at least one closed window")
    ordered = sorted(evidence, key=lambda e: (e.end, e.window, e.id))
    newest = ordered[-1]
    same = {
        e.window: e
        for e in ordered
        if (e.reference, e.champion) == (newest.reference, newest.champion)
    }
    mine = [e for e in same.values() if not e.problems]
    sound = mine[-settings.windows :]
    recent = {e.window: e for e in ordered}  # whichever was the champion
    void = [e for e in list(recent.values())[-settings.windows :] if e.problems]
    key = key_of(newest.reference, newest.window, newest.champion)

    def answer(
        outcome: Outcome,
        reasons: Iterable[str],
        behind: Iterable[Evidence],
        causes: Iterable[str] = (),
    ) -> Decision:
        used = {newest.id, *(e.id for e in behind)}
        return Decision(
            outcome=outcome,
            reasons=tuple(reasons),
            evidence=tuple(dict.fromkeys(e.id for e in ordered if e.id in used)),
            key=key,
            causes=tuple(causes),
        )

    if newest.problems:
        return answer(
            "alert-human",
            [f"the data failed its checks, so nothing is trained: {p}" for p in newest.problems],
            [],
        )

    persistent = _persistent(sound, settings)
    beyond = [pair for pair in persistent if settings.severity[pair[0]].answer == "alert-human"]
    moved = [pair for pair in persistent if settings.severity[pair[0]].answer == "retrain"]
    settling = _settling(ordered, newest, triggers) if len(mine) < settings.settle else set()
    pressing = [pair for pair in moved if pair[0] not in settling]
    pressing += _below_floors(newest, settings)
    if beyond:
        why = "a retraining would not answer " + ", ".join(name for name, _ in beyond)
        reasoned = [*beyond, *pressing]
        return answer(
            "alert-human", [*(r for _, r in reasoned), why], sound, (name for name, _ in reasoned)
        )
    routine = _routine(triggers, facts or Facts(), now, settings)
    causes = [*pressing, *routine]
    if causes:
        names, reasons = [name for name, _ in causes], [reason for _, reason in causes]
        hindrance = _hindrance(triggers, newest, void, key, now, bool(pressing), settings)
        if hindrance is None:
            return answer("retrain", reasons, sound, names)
        outcome, why = hindrance
        return answer(outcome, [*reasons, why], [*sound, *void], names)
    noted = _noticed(sound, settings)
    if noted:
        reasons = [reason for _, reason in noted]
        if answered := sorted({name for name, _ in moved} & settling):
            reasons.append(
                f"the last retraining answered {', '.join(answered)}, and most of what its champion is compared with "
                f"is from before; {settings.settle - len(mine)} windows more are waited for, unless it moves further"
            )
        return answer("watch", reasons, sound, (name for name, _ in noted))
    with_effect = [
        f for f in newest.findings if f.measure in settings.severity and f.effect is not None
    ]
    enough = [f for f in with_effect if f.n >= settings.minimum]
    if not enough:
        most = max((f.n for f in with_effect), default=0)
        return answer(
            "watch",
            [f"too little to judge by: {most} users or rows at most, of {settings.minimum} needed"],
            [],
        )
    return answer("healthy", [f"none of {len(enough)} measures has drifted"], [])


def drifted(finding: Finding, settings: DecisionSettings) -> Literal["no", "slight", "severe"]:
    """Whether a measure has drifted in its window, for one that has a severity; "no" where nothing
    can be said.
    """
    severity = settings.severity.get(finding.measure)
    if (
        severity is None
        or finding.effect is None
        or finding.p is None
        or finding.n < settings.minimum
    ):
        return "no"
    if finding.p > settings.alpha or finding.effect <= (finding.natural or 0.0):
        return "no"
    # The reference's quality was measured on held-out snapshots, a window's where people happened
    # to ask: without what the reference's own windows differ by, a difference may be that of the
    # questions.
    unlike = finding.value is not None and finding.natural is None
    if finding.effect >= severity.act and not unlike:
        return "severe"
    return "slight" if finding.effect >= severity.watch else "no"


def _persistent(sound: Sequence[Evidence], settings: DecisionSettings) -> list[tuple[str, str]]:
    """Measures that are severe in the newest window and in enough of them, with a sentence each."""
    severe = [{f.measure: f for f in e.findings if drifted(f, settings) == "severe"} for e in sound]
    out = []
    for name, finding in severe[-1].items() if severe else ():
        count = sum(name in found for found in severe)
        if count >= settings.needed:
            out.append(
                (name, f"{_describe(finding, settings)}; so in {count} of {len(sound)} windows")
            )
    return sorted(out)


def _settling(
    ordered: Sequence[Evidence], newest: Evidence, triggers: Sequence[Trigger]
) -> set[str]:
    """Measures that the retraining which made the newest champion answered, and that lie no further
    since.

    None after a rollback to the champion whose drift it answered.
    """
    promoted = max(
        (t for t in triggers if t.result == "promoted"), key=lambda t: (t.at, t.key), default=None
    )
    if promoted is None or promoted.champion == newest.champion:
        return set()
    then = next(
        (e for e in ordered if key_of(e.reference, e.window, e.champion) == promoted.key), None
    )
    before, now = ({f.measure: f.effect for f in e.findings} if e else {} for e in (then, newest))
    return {
        name for name in promoted.causes if (now.get(name) or 0.0) <= (before.get(name) or -1.0)
    }


def _noticed(sound: Sequence[Evidence], settings: DecisionSettings) -> list[tuple[str, str]]:
    """What is severe for the first time, or slight again and again."""
    out = []
    for finding in sound[-1].findings:
        state = drifted(finding, settings)
        past = [f for e in sound[:-1] for f in e.findings if f.measure == finding.measure]
        again = 1 + sum(drifted(f, settings) != "no" for f in past)
        if state == "severe" or (state == "slight" and again >= settings.needed):
            out.append(
                (
                    finding.measure,
                    f"{_describe(finding, settings)}; in {again} of {len(sound)} windows",
                )
            )
    return sorted(out)


def _below_floors(newest: Evidence, settings: DecisionSettings) -> list[tuple[str, str]]:
    out = []
    for finding in newest.findings:
        floor = settings.floors.get(finding.measure)
        if (
            floor is None
            or finding.low is None
            or finding.high is None
            or finding.n < settings.minimum
        ):
            continue
        less = finding.measure in LESS_IS_BETTER
        if finding.low > floor if less else finding.high < floor:
            side, bound = ("above", "ceiling") if less else ("below", "floor")
            interval = f"{finding.low:.4f} to {finding.high:.4f}"
            out.append(
                (
                    finding.measure,
                    f"{finding.measure} ({interval}) lies {side} its {bound} of {floor:g}",
                )
            )
    return sorted(out)


def _routine(
    triggers: Sequence[Trigger], facts: Facts, now: int, settings: DecisionSettings
) -> list[tuple[str, str]]:
    out = []
    last = max(
        [t.at for t in triggers] + ([facts.trained] if facts.trained is not None else []),
        default=None,
    )
    if (
        settings.schedule_days is not None
        and last is not None
        and now - last >= settings.schedule_days * 24 * HOUR
    ):
        out.append(("schedule", f"the last training is {(now - last) / HOUR / 24:.1f} days old"))
    if (
        settings.new_data is not None
        and facts.new_events is not None
        and facts.trained_events is not None
    ):
        needed = settings.new_data * facts.trained_events
        if facts.new_events >= max(needed, 1):
            out.append(
                (
                    "new_data",
                    f"{facts.new_events:,} events are new, beside {facts.trained_events:,} trained on",
                )
            )
    return out


def _hindrance(
    triggers: Sequence[Trigger],
    newest: Evidence,
    void: Sequence[Evidence],
    key: str,
    now: int,
    pressing: bool,
    settings: DecisionSettings,
) -> tuple[Outcome, str] | None:
    """What forbids a retraining now. Where drift presses for one in vain, a human is called."""
    louder: Outcome = "alert-human" if pressing else "watch"
    if void:
        names = ", ".join(e.window for e in void)
        return (
            louder,
            f"nothing is trained while the data of {names} failed its checks: a training would read it",
        )
    ordered = sorted(triggers, key=lambda t: (t.at, t.key))
    if any(t.key == key for t in ordered):
        return "watch", "this evidence has triggered its retraining already"
    if any(t.result is None for t in ordered):
        return "watch", "a retraining is under way"
    mine = [t for t in ordered if t.champion == newest.champion]
    in_vain = 0
    for trigger in reversed(mine):
        if trigger.result == "promoted":
            break
        in_vain += 1
    if pressing and in_vain >= settings.futile:
        return (
            "alert-human",
            f"the last {in_vain} retrainings promoted nothing: another one would not help",
        )
    if ordered and now - ordered[-1].at < settings.cooldown_hours * HOUR:
        left = settings.cooldown_hours - max(0, now - ordered[-1].at) / HOUR
        return (
            "watch",
            f"the cooldown after the last retraining has {left:.1f} of {settings.cooldown_hours:g} hours left",
        )
    lately = sum(t.at > now - WEEK for t in ordered)
    if lately >= settings.weekly:
        return louder, f"{lately} retrainings within seven days, of {settings.weekly} allowed"
    return None


def _describe(finding: Finding, settings: DecisionSettings) -> str:
    severity = settings.severity[finding.measure]
    natural = "" if finding.natural is None else f", {finding.natural:.3f} natural"
    level = "act" if (finding.effect or 0.0) >= severity.act else "watch"
    bound = severity.act if level == "act" else severity.watch
    return (
        f"{finding.measure} moved by {finding.effect:.3f} ({level} from {bound:g}{natural}; p = {finding.p:.4f}, "
        f"n = {finding.n:,})"
    )
