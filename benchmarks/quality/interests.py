"""Interests beside simple models, selective prediction, and curves over history length and horizon.

    python -m benchmarks.quality.interests --bundle DIR --snapshots DIR              # about 6
    minutes on two cores python -m benchmarks.quality.interests --bundle DIR --snapshots DIR
    --no-frozen  # without encoding by MiniLM: 2

Nothing is trained but the simple models: the bundle is a finished one, the snapshots those it was
made from. Every method gives scores, is calibrated on the validation window by the same function,
and gets its thresholds there in two
ways: one for all labels (the best micro-F1) and one for each label, as the bundle does. Intervals
are 95% bootstraps over users (reviews for sentiment), differences are paired. Markdown on standard
output, or `--json`.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tasteloop import metrics
from tasteloop.behaviour.items import SENTIMENT
from tasteloop.behaviour.snapshots import (
    EVENTS_SEEN,
    FUTURE,
    SPLIT,
    TEST,
    TEXT,
    TRAIN,
    USER,
    VALIDATION,
    Snapshots,
)
from tasteloop.encoder.calibration import (
    apply_calibration,
    average_precision,
    calibrate,
    choose_thresholds,
    confidence,
    from_log_odds,
    one_vs_rest,
)
from tasteloop.errors import TasteloopError
from tasteloop.evaluation.baselines import own_frequencies, score_by_words
from tasteloop.interests.vectors import mean_pooled
from tasteloop.metrics import Array, Measure
from tasteloop.runtime.session import Session

OURS = "tasteloop"
DIFFERENCES = {
    "micro-F1": "ours_minus",
    "micro-F1, one threshold": "ours_minus_one",
    "macro-F1": "ours_minus_macro",
}
LENGTHS = ((1, 1), (2, 5), (6, 20), (21, 50), (51, 10**9))
HORIZONS = (1, 3, 5, 10)
COVERAGES = (1.0, 0.75, 0.5, 0.25, 0.1)


@dataclass(frozen=True)
class Scores:
    """Log-odds of one method on both windows, [n, K] each."""

    validation: Array
    test: Array

    @classmethod
    def of(cls, validation: Array, test: Array) -> Scores:
        """From scores in [0, 1]."""
        clipped = (np.clip(p, 1e-3, 1 - 1e-3) for p in (validation, test))
        return cls(*(np.log(p / (1 - p)).astype(np.float32) for p in clipped))


@dataclass(frozen=True)
class Decided:
    """A method's probabilities and decisions on the test window."""

    probabilities: Array
    one: Array
    several: Array

    @classmethod
    def by(cls, scores: Scores, truth: Array) -> Decided:
        """Calibrated, and thresholds chosen, on the validation window's truth."""
        calibration = calibrate(scores.validation, truth)
        before, after = (
            apply_calibration(z, calibration) for z in (scores.validation, scores.test)
        )
        grid = np.linspace(0.02, 0.95, 94)
        threshold = max(
            grid, key=lambda t: metrics.micro_f1((before >= t).astype(float), truth).value
        )
        several = after >= choose_thresholds(before, truth)
        return cls(after, (after >= threshold).astype(np.float32), several.astype(np.float32))


@dataclass(frozen=True)
class Bench:
    """What is measured on, and how finely."""

    data: Snapshots
    session: Session
    draws: int
    seed: int

    def interval(self, measure: Measure, groups: Array) -> dict[str, Any]:
        return metrics.interval(measure, groups, self.seed, self.draws).json()

    def difference(self, a: Measure, b: Measure, groups: Array) -> dict[str, Any]:
        return metrics.difference(a, b, groups, self.seed, self.draws).json()


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bundle", type=Path, required=True, help="a sealed bundle")
    parser.add_argument(
        "--snapshots", type=Path, required=True, help="what `tasteloop step prepare` wrote for it"
    )
    parser.add_argument(
        "--frozen",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="frozen MiniLM + logistic",
    )
    parser.add_argument(
        "--vectors",
        type=Path,
        help="keep MiniLM's vectors in this .safetensors file, or take them from it",
    )
    parser.add_argument("--draws", type=int, default=1000, help="bootstrap resamples (%(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the results as JSON, too")
    parser.add_argument("--json", action="store_true", help="print JSON only")
    options = parser.parse_args()
    try:
        bench = Bench(
            Snapshots.read(options.snapshots),
            Session.load(options.bundle),
            options.draws,
            options.seed,
        )
        results = measure(bench, options)
    except TasteloopError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if options.out:
        from tasteloop.files import write_json

        write_json(options.out, results)
    print(json.dumps(results, indent=2) if options.json else markdown(results))
    return 0


def measure(bench: Bench, options: argparse.Namespace) -> dict[str, Any]:
    data, session = bench.data, bench.session
    if session.labels != data.labels:
        raise TasteloopError(
            f"the bundle knows {len(session.labels)} labels, the snapshots {len(data.labels)}: not its own"
        )
    test, validation = data.split(TEST), data.split(VALIDATION)
    truth, users = data.truth(test), test[USER].to_numpy()
    methods, shown = _methods(bench, options)
    decided = {name: Decided.by(scores, data.truth(validation)) for name, scores in methods.items()}
    thresholds = session.thresholds
    # the bundle's own
    decided[OURS] = Decided(shown, decided[OURS].one, (shown >= thresholds).astype(np.float32))
    results: dict[str, Any] = {
        "bundle": session.digest,
        "source": data.meta["source"],
        "snapshots": {"test": len(test), "users": len(set(users)), "validation": len(validation)},
        "draws": bench.draws,
        "quality": [_quality(bench, name, decided, truth, users) for name in decided],
        "labels": _labels(data.labels, decided, truth),
        "selective": _selective_interests(bench, shown, thresholds, truth, users),
        "by_history": _by_history(bench, decided, truth, users, test[EVENTS_SEEN].to_numpy()),
        "by_horizon": _by_horizon(bench, methods, validation, test, users),
    }
    if session.has_sentiment and (reviews := data.reviews()) is not None:
        _say("sentiment of the test reviews")
        results["selective"] += _selective_sentiment(bench, reviews.filter(reviews[SPLIT] == TEST))
    return results


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


# --- methods


def _methods(bench: Bench, options: argparse.Namespace) -> tuple[dict[str, Scores], Array]:
    """Every method's scores, ours first, and our probabilities on the test window as they are
    served.
    """
    data, session = bench.data, bench.session
    validation, test = data.split(VALIDATION), data.split(TEST)
    histories = data.histories(validation), data.histories(test)
    _say(f"reading {len(validation)} + {len(test)} histories")
    terms = [session.interest_terms(h) for h in histories]
    methods = {OURS: Scores(*(sum(t.values()).astype(np.float32) for t in terms))}  # type: ignore[attr-defined]
    if len(terms[0]) > 1:
        methods["encoder alone"] = Scores(*(t["text"].astype(np.float32) for t in terms))
        methods["habits alone"] = Scores(*(t["habits"].astype(np.float32) for t in terms))
    _say("bag of words")
    methods["bag of words"] = Scores.of(*score_by_words(data, validation, test))
    if options.frozen:
        methods["frozen MiniLM"] = _frozen(data, options.vectors)
    methods["own frequencies"] = Scores.of(*(own_frequencies(h, data) for h in histories))
    share = data.truth(data.split(TRAIN)).mean(0)
    methods["majority"] = Scores.of(*(np.tile(share, (len(h), 1)) for h in histories))
    return methods, from_log_odds(terms[1])


def _frozen(data: Snapshots, keep: Path | None) -> Scores:
    """The base encoder's mean-pooled vectors of the behaviour text, and a logistic model a label on
    them.
    """
    from safetensors.numpy import load_file, save_file

    splits = {name: data.split(name) for name in (TRAIN, VALIDATION, TEST)}
    if keep is not None and keep.exists():
        vectors = load_file(keep)
        if any(len(vectors[name]) != len(rows) for name, rows in splits.items()):
            raise TasteloopError(
                f"{keep} holds vectors of other snapshots; remove it or name another file"
            )
    else:
        _say(
            "frozen MiniLM: "
            + ", ".join(f"{len(rows)} {name} texts" for name, rows in splits.items())
        )
        vectors = {
            n: mean_pooled(r[TEXT].to_list(), "minilm", data.text.max_tokens)
            for n, r in splits.items()
        }
        if keep is not None:
            save_file(vectors, keep)
    truth = {name: data.truth(rows) for name, rows in splits.items()}
    scale = vectors[TRAIN].std(0) + 1e-6
    x = {name: (v - vectors[TRAIN].mean(0)) / scale for name, v in vectors.items()}
    weights, bias = one_vs_rest(
        x[TRAIN], truth[TRAIN], x[VALIDATION], truth[VALIDATION], (30.0, 300.0, 3000.0)
    )
    return Scores(*((x[name] @ weights + bias).astype(np.float32) for name in (VALIDATION, TEST)))


# --- measures


def _quality(
    bench: Bench, name: str, decided: dict[str, Decided], truth: Array, users: Array
) -> dict[str, Any]:
    mine, theirs = decided[OURS], decided[name]
    micro = metrics.micro_f1
    return {
        "method": name,
        "micro_f1": bench.interval(micro(theirs.several, truth), users),
        "macro_f1": bench.interval(metrics.macro_f1(theirs.several, truth), users),
        "micro_f1_one": bench.interval(micro(theirs.one, truth), users),
        "macro_f1_one": bench.interval(metrics.macro_f1(theirs.one, truth), users),
        "average_precision": average_precision(theirs.probabilities, truth),
        "ece": bench.interval(metrics.ece(theirs.probabilities, truth), users),
        # against their better micro-F1, which is with one threshold for most
        "ours_minus": bench.difference(micro(mine.several, truth), micro(theirs.one, truth), users),
        "ours_minus_one": bench.difference(micro(mine.one, truth), micro(theirs.one, truth), users),
        "ours_minus_macro": bench.difference(
            metrics.macro_f1(mine.several, truth), metrics.macro_f1(theirs.one, truth), users
        ),
    }


def _labels(labels: list[str], decided: dict[str, Decided], truth: Array) -> list[dict[str, Any]]:
    from sklearn.metrics import roc_auc_score

    def auc(probabilities: Array, there: Array) -> float | None:
        return float(roc_auc_score(there, probabilities)) if 0 < there.mean() < 1 else None

    return [
        {
            "label": label,
            "support": int(truth[:, k].sum()),
            "f1": {
                n: metrics.macro_f1(d.several[:, [k]], truth[:, [k]]).value
                for n, d in decided.items()
            },
            "auc": {n: auc(d.probabilities[:, k], truth[:, k]) for n, d in decided.items()},
        }
        for k, label in enumerate(labels)
        if truth[:, k].any()
    ]


def _selective_interests(
    bench: Bench, probabilities: Array, thresholds: Array, truth: Array, users: Array
) -> list[dict[str, Any]]:
    """Precision of the predicted labels, the surest first; then of those that the bundle calls
    confident.
    """
    said = probabilities >= thresholds
    sure = np.where(said, confidence(probabilities, thresholds), -np.inf)
    rule = said & bench.session.confident("interests", probabilities)
    return _selective(
        bench, "interests", "precision of predicted labels", sure, truth > 0, rule, users
    )


def _selective_sentiment(bench: Bench, reviews: Any) -> list[dict[str, Any]]:
    """Accuracy of the surest reviews, and of those that the bundle calls confident."""
    session = bench.session
    probability = session.sentiment(reviews[TEXT].to_list())
    cut = np.float32(session.sentiment_threshold)
    right = (probability >= cut) == (reviews[SENTIMENT].to_numpy() > 0)
    sure, rule = (
        confidence(probability, cut)[:, None],
        session.confident("sentiment", probability)[:, None],
    )
    return _selective(
        bench, "sentiment", "accuracy", sure, right[:, None], rule, np.arange(len(reviews))
    )


def _selective(
    bench: Bench, task: str, what: str, sure: Array, right: Array, rule: Array, groups: Array
) -> list[dict[str, Any]]:
    stated = np.isfinite(sure)
    levels = np.sort(sure[stated])[::-1]
    picks = [
        (f"{share:.0%} surest", stated & (sure >= levels[max(int(share * len(levels)) - 1, 0)]))
        for share in COVERAGES
    ]
    least = bench.session.card.tasks[task].confident_from
    picks.append(
        ("confident, by the bundle" + ("" if least is None else f" (from {least:.2f})"), rule)
    )
    return [
        {
            "task": task,
            "measure": what,
            "statements": name,
            "coverage": float(picked.sum() / stated.sum()),
            "estimate": bench.interval(
                Measure(
                    np.stack([(picked & right).sum(1), picked.sum(1)], 1).astype(float),
                    metrics.ratio(),
                ),
                groups,
            ),
        }
        for name, picked in picks
    ]


def _by_history(
    bench: Bench, decided: dict[str, Decided], truth: Array, users: Array, seen: Array
) -> list[dict[str, Any]]:
    out = []
    for low, high in LENGTHS:
        rows = (seen >= low) & (seen <= high)
        if not rows.any():
            continue
        name = str(low) if low == high else f"{low}-{high}" if high < 10**9 else f"over {low - 1}"
        said = {method: decisions.several[rows] for method, decisions in decided.items()}
        out.append({"events": name} | _curve(bench, said, truth[rows], users[rows]))
    return out


def _by_horizon(
    bench: Bench, methods: dict[str, Scores], validation: Any, test: Any, users: Array
) -> list[dict[str, Any]]:
    """The next h positive items instead of all of the snapshot's; calibration and thresholds of
    each horizon's own.
    """
    data, out = bench.data, []
    for horizon in HORIZONS:
        known, asked = (
            data.truth(rows.with_columns(rows[FUTURE].list.head(horizon)))
            for rows in (validation, test)
        )
        said = {name: Decided.by(scores, known).several for name, scores in methods.items()}
        out.append({"next": horizon} | _curve(bench, said, asked, users))
    return out


def _curve(bench: Bench, said: dict[str, Array], truth: Array, users: Array) -> dict[str, Any]:
    micro: dict[str, Measure] = {
        name: metrics.micro_f1(decisions, truth) for name, decisions in said.items()
    }
    return {
        "snapshots": len(truth),
        "micro_f1": {name: bench.interval(measure, users) for name, measure in micro.items()},
        "ours_minus": {
            name: bench.difference(micro[OURS], measure, users)
            for name, measure in micro.items()
            if name != OURS
        },
    }


# --- tables


def markdown(results: dict[str, Any]) -> str:
    counts = results["snapshots"]
    quality, names = results["quality"], [row["method"] for row in results["quality"]]
    header = ["micro-F1", "macro-F1", "micro-F1, one threshold", "macro-F1, one threshold"]
    parts = [
        f"Interests on {results['source']}: {counts['test']} test snapshots of {counts['users']} users; bundle "
        f"{results['bundle'][:12]}; 95% intervals over users, {results['draws']} draws.",
        _table(
            [
                "method",
                *header,
                "average precision",
                "ECE",
                *(f"ours - theirs, {what}" for what in DIFFERENCES),
            ],
            [_quality_row(row) for row in quality],
        ),
        "Thresholds of the validation window. Micro-F1 and macro-F1: ours with one a label, theirs with the one of "
        "their best micro-F1; one threshold: both with that.",
        "F1 by label, with a threshold a label:",
        _by_label(results["labels"], "f1", names),
        "Area under the ROC curve by label:",
        _by_label(results["labels"], "auc", names),
        "Selective prediction:",
        _table(
            ["task", "statements", "coverage", "measure", "value"],
            [
                [
                    r["task"],
                    r["statements"],
                    f"{r['coverage']:.3f}",
                    r["measure"],
                    _number(r["estimate"]),
                ]
                for r in results["selective"]
            ],
        ),
        "Micro-F1 by events seen:",
        _curves(results["by_history"], "events", names),
        "Micro-F1 by horizon, in next positive items:",
        _curves(results["by_horizon"], "next", names),
    ]
    return "\n\n".join(parts)


def _quality_row(row: dict[str, Any]) -> list[str]:
    values = [_number(row[key]) for key in ("micro_f1", "macro_f1", "micro_f1_one", "macro_f1_one")]
    minus = ["" if row["method"] == OURS else _signed(row[key]) for key in DIFFERENCES.values()]
    return [row["method"], *values, f"{row['average_precision']:.3f}", _number(row["ece"]), *minus]


def _by_label(rows: list[dict[str, Any]], key: str, names: list[str]) -> str:
    lines = [
        [row["label"], str(row["support"]), *(_plain(row[key][name]) for name in names)]
        for row in rows
    ]
    return _table(["label", "support", *names], lines)


def _curves(rows: list[dict[str, Any]], first: str, names: list[str]) -> str:
    others = [name for name in names if name != OURS]
    return _table(
        [first, "snapshots", *names, *(f"ours - {n}" for n in others)],
        [
            [
                str(r[first]),
                str(r["snapshots"]),
                *(_number(r["micro_f1"][n]) for n in names),
                *(_signed(r["ours_minus"][n]) for n in others),
            ]
            for r in rows
        ],
    )


def _table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _number(e: dict[str, Any], form: str = ".3f") -> str:
    if e["value"] is None:
        return "-"
    return f"{e['value']:{form}} ({e['low']:{form}} to {e['high']:{form}})"


def _signed(e: dict[str, Any]) -> str:
    return _number(e, "+.3f")


def _plain(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


if __name__ == "__main__":
    sys.exit(main())
