"""The page of one model: from the events that it learned from to what was decided since."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tasteloop.evaluation.record import CHAMPION
from tasteloop.intervals import Interval
from validation.markup.elements import Child, Safe, join, tag
from validation.markup.environment import render
from validation.markup.formats import duration, interval_text, moment, number, plural, shortened
from validation.pages.evaluation import (
    HEADLINES,
    checks_of,
    difference_tone,
    measure_name,
    strongest,
    tally_checks,
)
from validation.pages.facts import (
    Decided,
    Model,
    Rollout,
    RolloutSide,
    Run,
    SiteFacts,
    Window,
)
from validation.pages.phrases import (
    anchor,
    counted,
    decisions_view,
    drift_view,
    metric_name,
)

UP = "../"  # from this page to the top of the site
NO_CANARY = "No canary was run."


@dataclass(frozen=True)
class Step:
    """A step from the data to today.

    Attributes:
        word, tone: how it ended, such as ("passed", "good").
        what: what was found.
        proof: a link to the evidence.
    """

    name: str
    word: str
    tone: str
    what: Child
    proof: Child = None


@dataclass(frozen=True)
class _Story:
    """A model with all that concerns it, newest first."""

    facts: SiteFacts
    model: Model
    run: Run | None
    trials: list[Rollout]
    windows: list[Window]
    decisions: list[Decided]


def model_page(facts: SiteFacts, model: Model) -> str:
    """models/<version>.html"""
    story = _Story(
        facts=facts,
        model=model,
        run=facts.run_of(model),
        trials=facts.trials(model),
        windows=[each for each in facts.windows if each.evidence.champion == model.digest],
        decisions=[each for each in facts.decisions if each.champion == model.digest],
    )
    question = f"Why is version {model.version} live?"
    return render(
        "model.html",
        made=facts.made,
        up=UP,
        current=False,
        headline=question if model.live else f"Version {model.version}",
        digest=model.digest[:12],
        standing=facts.standing(model),
        lede=lede(facts, model),
        steps=chain(story),
        note=_champion_then(story),
        measures=_measures(model),
        checks=checks_of(model.verdict) if model.verdict is not None else None,
        data=_data(story),
        run=story.run,
        trials=[_trial(trial) for trial in story.trials],
        no_canary=NO_CANARY,
        drift=drift_view(facts, story.windows, UP),
        decisions=decisions_view(facts, story.decisions, UP),
    )


def lede(facts: SiteFacts, model: Model) -> Child:
    """Since when it is or was live, and in whose place; or why it never was."""
    state, _ = facts.standing(model)
    if not model.promoted:
        if state in ("live", "was live"):
            return "It was promoted; when is not on record."
        return {
            "refused": "The gate refused it, so it was never live.",
            "not rehearsed": "It passed the gate and no rehearsal, so it was never live.",
            "on trial": "It answers beside the champion now.",
        }.get(state, "It passed the gate and was not promoted.")
    words: list[Child] = ["Promoted ", moment(model.promoted)]
    if model.replaced:
        words += [" in place of version ", anchor(facts.version_link(model.replaced, UP))]
    else:
        words += [", the first champion"]

    # what became of it since
    later = [other for other in facts.models if other.replaced == model.version]
    if state == "was live" and later:
        successor = later[-1]
        words += ["; version ", anchor(facts.version_link(successor.version, UP))]
        words += [" took its place ", moment(successor.promoted)]
    if state == "taken back":
        words += ["; the champion before it was made live again since"]
    for decided in facts.decisions if state == "live" else ():
        if (decided.to, decided.result) == (model.digest, "rolled back"):
            words += ["; made live again ", moment(decided.time), " in place of version "]
            words += [anchor(facts.champion_link(decided.champion, UP)), ", which was worse"]
            break
    return [*words, "."]


# The chain from the data to today


def chain(story: _Story) -> list[Step]:
    """Each step from the data to today, in the order in which they happened."""
    return [
        _request(story),
        _hashed_data(story.model),
        _validation(story),
        _training(story.run),
        _data_window(story.model),
        _measured(story.model),
        _gate(story.model),
        _rehearsal(story.model),
        _canary(story.trials),
        _promotion(story),
        _drift_since(story.windows),
        _decisions_since(story.decisions),
    ]


def _request(story: _Story) -> Step:
    """Which decision asked for the training."""
    runs = {story.run.id} if story.run else set()
    for decided in story.facts.decisions:
        if decided.outcome != "retrain":
            continue
        mine = {decided.training_run, decided.run} & runs
        if mine or decided.version == story.model.version:
            why = shortened("; ".join(decided.reasons))
            href = f"{UP}index.html#decision-{decided.number}"
            return Step("Asked for", decided.outcome, "warn", why, tag("a", "decision", href=href))
    return Step(
        "Asked for", "by hand", "quiet", "No decision of the monitor asked for this training."
    )


def _hashed_data(model: Model) -> Step:
    lineage = model.evaluation.lineage
    if not lineage.data:
        return Step("Data", "unknown", "warn", "The hash of its events is not on record.")
    source = f", source {lineage.source or 'unknown'}"
    proof = tag("a", "lineage", href=f"{UP}{model.folder}/evaluation.html#lineage")
    return Step(
        "Data", "hashed", "good", ["events ", tag("code", lineage.data[:16]), source], proof
    )


def _validation(story: _Story) -> Step:
    run = story.run
    if run is None or run.validation is None:
        what = "The validation of its data is not on record in this home."
        return Step("Validation", "unknown", "warn", what)
    validation = run.validation
    rules = plural(len(validation.checks), "rule")
    what = f"{rules}: errors {validation.errors}, warnings {validation.warnings}"
    links = [link for link in story.facts.run_links(run, UP) if link.text == "validation"]
    proof = join(map(anchor, links))
    if not validation.passed:
        return Step("Validation", "refused", "bad", what, proof)
    tone = "warn" if validation.warnings else "good"
    return Step("Validation", "accepted", tone, what, proof)


def _training(run: Run | None) -> Step:
    if run is None:
        what = "The run that made it is not on record in this home."
        return Step("Run", "elsewhere", "quiet", what)
    what = f"{run.id}, profile {run.profile}, {duration(run.seconds)}"
    proof = tag("a", "run", href=f"{UP}index.html#run-{run.id}")
    return Step("Run", run.outcome, run.tone, what, proof)


def _data_window(model: Model) -> Step:
    span = model.span
    if span is None:
        missing = "What time its data spans is not on record in this home."
        return Step("Data window", "unknown", "warn", missing, _see("data"))
    what: list[Child] = []
    if span.first or span.last:
        what += [moment(span.first), " to ", moment(span.last)]
    if span.test_from:
        what += ["; tested on what follows ", moment(span.test_from)]
    return Step("Data window", "known", "good", what, _see("data"))


def _measured(model: Model) -> Step:
    words = []
    for metric in HEADLINES:
        measure = model.evaluation.metrics.get(metric)
        if measure is not None:
            value = f"{number(measure.value)} ({interval_text(measure)})"
            words.append(f"{metric_name(metric)} {value}")
    if not words:
        return Step("Measures", "unknown", "warn", "Its evaluation is not on record.")
    proof = tag("a", "evaluation", href=f"{UP}{model.folder}/evaluation.html")
    return Step("Measures", "measured", "good", ", ".join(words), proof)


def _gate(model: Model) -> Step:
    word, tone = ("passed", "good") if model.passed else ("refused", "bad")
    if model.verdict is None:
        return Step("Gate", word, tone, "The checks are not on record.")
    failures = shortened("; ".join(model.verdict.failures))
    what = f"{tally_checks(model.verdict)} checks hold. {failures}"
    proof = tag("a", "verdict", href=f"{UP}{model.folder}/verdict.json")
    return Step("Gate", word, tone, what, proof)


def _rehearsal(model: Model) -> Step:
    if model.rehearsal is not None:
        word, tone = ("passed", "good") if model.rehearsal.passed else ("failed", "bad")
        proof = tag("a", "rehearsal", href=f"{UP}{model.folder}/rehearsal.json")
        return Step("Rehearsal", word, tone, model.rehearsal.reason, proof)
    if model.rehearsed:
        what = "It passed; what was asked is not on record."
        return Step("Rehearsal", "passed", "good", what)
    # a version that was refused is not rehearsed, so that is no warning
    tone = "warn" if model.passed else "quiet"
    return Step("Rehearsal", "none", tone, "No rehearsal is on record.")


def _canary(trials: Sequence[Rollout]) -> Step:
    if not trials:
        return Step("Canary", "none", "quiet", NO_CANARY, _see("canary"))
    trial = trials[0]
    kind = "in the shadow" if trial.shadow else "of the requests"
    what = f"{trial.share:.0%} {kind}. {shortened('; '.join(trial.reasons))}"
    proof = tag("a", "rollout", href=f"{UP}{trial.file}")
    return Step("Canary", trial.state, trial.tone, what, proof)


def _promotion(story: _Story) -> Step:
    model, (state, tone) = story.model, story.facts.standing(story.model)
    if not (model.live or model.was or model.promoted):
        state, tone = "none", "quiet"
    return Step("Promotion", state, tone, lede(story.facts, model))


def _drift_since(windows: Sequence[Window]) -> Step:
    if not windows:
        what = "No window with this champion was looked at."
        return Step("Drift since", "none", "quiet", what, _see("drift"))
    states = counted(window.word for window in windows)
    what = f"{plural(len(windows), 'window')}: {states}"
    return Step("Drift since", windows[0].word, windows[0].tone, what, _see("drift"))


def _decisions_since(decisions: Sequence[Decided]) -> Step:
    if not decisions:
        what = "Nothing was decided on this champion."
        return Step("Decisions since", "none", "quiet", what, _see("decisions"))
    last = decisions[0]
    counts = counted(decided.outcome for decided in decisions)
    return Step(
        "Decisions since",
        last.outcome,
        last.tone,
        [f"{counts}; the last one ", moment(last.time)],
        _see("decisions"),
    )


def _see(section: str) -> Safe:
    return tag("a", "below", href=f"#{section}", aria_label=f"below, {section}")


# The sections below it


@dataclass(frozen=True)
class _MeasureRow:
    """A metric, its difference to the champion of the time, and to the strongest baseline."""

    name: str
    measure: Interval
    champion: Interval
    champion_tone: str
    best: str
    baseline: Interval
    baseline_tone: str


def _measures(model: Model) -> list[_MeasureRow]:
    rows = []
    for metric, measure in model.evaluation.metrics.items():
        champion = model.evaluation.difference(CHAMPION, metric)
        best, baseline = strongest(model.evaluation, metric)
        rows.append(
            _MeasureRow(
                name=metric_name(metric),
                measure=measure,
                champion=champion,
                champion_tone=difference_tone(metric, champion),
                best=measure_name(best) if best else "–",
                baseline=baseline,
                baseline_tone=difference_tone(metric, baseline),
            )
        )
    return rows


def _champion_then(story: _Story) -> Child:
    champion = story.model.evaluation.champion
    if champion is None or not (champion.version or champion.digest):
        return "There was no champion to compare with."
    if champion.version:
        link = story.facts.version_link(champion.version, UP)
        return ["The champion then was version ", anchor(link), "."]
    link = story.facts.champion_link(champion.digest, UP)
    return ["The champion then was ", anchor(link), "."]


def _data(story: _Story) -> list[tuple[str, Child]]:
    """What a model learned from, as facts with names."""
    model, run = story.model, story.run
    facts: list[tuple[str, Child]] = [("bundle", tag("code", model.digest))]
    for name, value in model.evaluation.lineage.facts():
        if name not in ("bundle", "created") and value:
            facts.append((name, tag("code", value)))
    facts.append(("registered", [moment(model.created), " UTC"]))
    span = model.span
    if span is not None:
        times = {
            "first event": span.first,
            "validated on what follows": span.validation_from,
            "tested on what follows": span.test_from,
            "last event": span.last,
        }
        facts += [(name, [moment(time), " UTC"]) for name, time in times.items() if time]
        if span.snapshots:
            counts = [f"{split} {number(count)}" for split, count in span.snapshots.items()]
            facts.append(("snapshots", ", ".join(counts)))
    if run is not None and run.validation is not None:
        counts = [
            f"{number(count)} {name}" for name, count in run.validation.counts.items() if count
        ]
        if counts:
            facts.append(("counted", ", ".join(counts)))
    return facts


_QUANTILES = ("p50", "p95", "p99")


@dataclass(frozen=True)
class _SideRow:
    """What a side of a rollout did; its latencies by quantile."""

    side: RolloutSide
    milliseconds: list[float | None]


@dataclass(frozen=True)
class _Trial:
    """A rollout: what each side did, and what was decided."""

    rollout: Rollout
    kind: str
    share: str
    started: str
    ended: str
    reasons: tuple[str, ...]
    sides: list[_SideRow]
    quantiles: tuple[str, ...] = _QUANTILES


def _trial(rollout: Rollout) -> _Trial:
    sides = []
    for side in rollout.sides:
        seconds = [side.seconds.get(quantile) for quantile in _QUANTILES]
        milliseconds = [None if each is None else 1000 * each for each in seconds]
        sides.append(_SideRow(side, milliseconds))
    return _Trial(
        rollout=rollout,
        kind="Shadow" if rollout.shadow else "Canary",
        share=f"{rollout.share:.0%}",
        started=_iso(rollout.started),
        ended=_iso(rollout.ended),
        reasons=rollout.reasons or rollout.because,
        sides=sides,
    )


def _iso(text: str | None) -> str:
    return "now" if text is None else text[:16].replace("T", " ")
