"""What the monitor did in a simulation beside what was expected of it, and both in lines for a
console.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pipelines.loop.contracts import PassReport
from pipelines.simulation.replay import Replay
from pipelines.simulation.shifts import Options, Shift


def record_window(week: int, replay: Replay, report: PassReport) -> dict[str, Any]:
    """What the pass after a replayed week did, for simulation.json."""
    decision = report.decision or {}
    return {
        "week": week,
        "shifted": replay.shifted(week),
        "champion": report.champion,
        "windows": list(report.windows),
        "outcome": "rollback" if report.rollback else report.outcome,
        "acted": report.outcome in ("retrain", "alert-human"),
        "reasons": list(decision.get("reasons", ())) or [report.note],
        "result": decision.get("result"),
    }


def judge(windows: Sequence[Mapping[str, Any]], shift: Shift, options: Options) -> dict[str, Any]:
    """What was expected beside what the passes did."""
    clean = [w for w in windows if not w["shifted"] or shift.expected == "nothing"]
    hit = [w for w in windows if w["shifted"] and shift.expected != "nothing"]
    false = sum(w["acted"] for w in clean)
    first = next((n for n, w in enumerate(hit, 1) if w["acted"]), None)
    retrainings = [w["result"] for w in windows if w["outcome"] == "retrain"]
    failures = [f"{false} false triggers in {len(clean)} windows without a shift"] if false else []
    if shift.expected != "nothing":
        answer = hit[first - 1]["outcome"] if first else None
        if first is None or first > 2:
            failures.append("the shift was not detected within two windows")
        elif answer != shift.expected:
            failures.append(f"the first answer was {answer}, not {shift.expected}")
        if shift.expected == "alert-human" and (n := sum(w["outcome"] == "retrain" for w in hit)):
            failures.append(f"retrained {n} times on what a retraining does not answer")
        if options.retrain and shift.expected == "retrain" and "promoted" not in retrainings:
            failures.append("no retrained model was promoted")
    return {
        "expected": shift.expected,
        "detected_after": first,
        "false_triggers": false,
        "clean_windows": len(clean),
        "retrainings": retrainings,
        "met": not failures,
        "failures": failures,
        "windows": list(windows),
    }


def summarise_window(window: Mapping[str, Any]) -> str:
    """One pass in one line."""
    mark = "shifted" if window["shifted"] else "usual"
    result = f" ({window['result']})" if window["result"] else ""
    reasons = "; ".join(window["reasons"])
    return (
        f"week {window['week']:>2}  {mark:<8} {window['outcome'] or '-'}{result}: {reasons[:160]}"
    )


def summarise_result(result: Mapping[str, Any]) -> list[str]:
    """The end of a simulation in a few lines."""
    after = result["detected_after"]
    lines = [
        f"expected        {result['expected']}",
        f"detected        {f'in window {after} of the shift' if after else 'no'}",
        f"false triggers  {result['false_triggers']} in {result['clean_windows']} windows without a shift",
        f"retrainings     {', '.join(str(r) for r in result['retrainings']) or 'none'}",
    ]
    names = {
        "before": "before the shift",
        "shifted": "under it",
        "retrained": "after the retraining",
    }
    for name, words in names.items():
        if found := result["quality"].get(name):
            lines.append(
                f"nDCG@10         {found['value']:.3f} ({found['low']:.3f} to {found['high']:.3f}) {words}"
            )
    if (share := result["quality"].get("regained")) is not None:
        lines.append(f"regained        {share:.0%} of what was lost")
    return [*lines, *(f"not met         {failure}" for failure in result["failures"])]
