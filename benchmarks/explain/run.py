"""Reasons in words, measured: whether sentences contradict their numbers, what they cover, and what
they cost.

    python -m benchmarks.explain --bundle BUNDLE --snapshots SNAPSHOTS

BUNDLE is a sealed bundle, SNAPSHOTS what the step `prepare` wrote. Questions are the histories of
held-out users (`--split`), every third with a search at its end, every fifth told in Chinese. What
is recommended to each is explained and checked by `benchmarks.explain.checker`. Then the answer is
timed with its reasons and without, in processor time, batch by batch in turn, on the same
questions, with no text kept from before.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.explain.checker import Checker, coverage, explained_numbers
from tasteloop.behaviour.snapshots import TEST, Snapshots
from tasteloop.runtime.explain import explain
from tasteloop.runtime.questions import Question, parse
from tasteloop.runtime.session import Session

SEARCHES = (
    "space opera",
    "cowboys and gunslingers, but no comedy",
    "something like alien",
    "no horror",
    "a warm film about growing up",
    "animated adventures for children",
    "a murder mystery in the rain",
    "please nothing with singing",
)


def questions_of(snapshots: Path, split: str, count: int, k: int) -> list[Question]:
    """So many histories of a split, evenly spaced, as questions."""
    data = Snapshots.read(snapshots)
    rows = data.split(split)
    places = np.linspace(0, len(rows) - 1, count).round().astype(int)
    instances = []
    for n, history in enumerate(data.histories(rows[places])):
        events = [event.json() for event in history]
        if n % 3 == 0:
            said: dict[str, Any] = {"kind": "search", "text": SEARCHES[n // 3 % len(SEARCHES)]}
            if events and "time" in events[-1]:
                said["time"] = events[-1]["time"] + 1
            events.append(said)
        language = "zh" if n % 5 == 0 else "en"
        instances.append({"events": events, "k": k, "language": language, "against": True})
    return parse("recommend", instances)


def check(session: Session, questions: Sequence[Question]) -> dict[str, Any]:
    """Contradictions, coverage, and sentences of the first recommendations."""
    checker = Checker(session)
    problems: list[str] = []
    covered: list[float] = []
    by_name: list[float] = []
    off = 0.0
    told: list[tuple[str, str, str, str]] = []
    sentences = 0
    for question in questions:
        [explanation] = explain(session, "recommend", [question])
        [history] = session.understood([question["events"]])
        asked = {**question, "events": history}
        for rank, entry in enumerate(explanation["recommendations"]):
            for side, sentence in (("for", entry["reason"]), ("against", entry["against"])):
                sentences += 1
                problems += [
                    f"{entry['title']}: {sentence}: {problem}"
                    for problem in checker.problems(asked, entry, sentence, side)
                ]
            share = coverage(asked, entry, entry["reason"], checker)
            named = coverage(asked, entry, entry["reason"], checker, counted=False)
            if share is not None and named is not None:
                covered.append(share)
                by_name.append(named)
            off = max(off, explained_numbers(entry))
            if rank == 0:
                told.append(
                    (question["language"], entry["title"], entry["reason"], entry["against"])
                )
    return {
        "sentences": sentences,
        "problems": problems,
        "covered": np.array(covered),
        "by_name": np.array(by_name),
        "off": off,
        "told": told,
    }


def without_reasons(session: Session, questions: Sequence[Question]) -> list[dict[str, Any]]:
    """The same answers with the numbers alone."""
    histories = [question["events"] for question in questions]
    interests = session.ranking_interests(histories)
    ranked = session.rank(histories, interests, [question["k"] or 10 for question in questions])
    return [
        {
            "recommendations": [
                {"item": r.item, "title": r.title, "score": r.score, "reasons": r.terms}
                for r in each
            ]
        }
        for each in ranked
    ]


def cost(session: Session, questions: Sequence[Question], batch: int) -> tuple[float, ...]:
    """Median seconds of processor time of a question without and with reasons, the ratio of their
    sums, and its 95% bootstrap interval over the batches.
    """
    pairs = []
    told: Callable[[Sequence[Question]], Any] = lambda asked: session.compute("recommend", asked)  # noqa: E731
    plain: Callable[[Sequence[Question]], Any] = lambda asked: without_reasons(session, asked)  # noqa: E731
    batches = [questions[n : n + batch] for n in range(0, len(questions), batch)]
    for n, asked in enumerate(batches):
        seconds = {}
        # whichever comes first alternates
        for name, compute in [("plain", plain), ("told", told)][:: 1 if n % 2 else -1]:
            began = time.process_time()
            compute(asked)
            seconds[name] = time.process_time() - began
        if n >= 4:  # the first ones warm up
            pairs.append((seconds["plain"], seconds["told"]))
    if len(pairs) < 2:
        raise SystemExit(f"{len(batches)} batches of {batch} are too few: raise --timed")
    measured = np.array(pairs)
    rng = np.random.default_rng(0)
    drawn = measured[rng.integers(0, len(measured), (2000, len(measured)))].sum(1)
    low, high = np.quantile(drawn[:, 1] / drawn[:, 0], (0.025, 0.975))
    ratio = measured[:, 1].sum() / measured[:, 0].sum()
    return (
        statistics.median(measured[:, 0].tolist()) / batch,
        statistics.median(measured[:, 1].tolist()) / batch,
        float(ratio),
        float(low),
        float(high),
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--snapshots", type=Path, required=True)
    parser.add_argument("--split", default=TEST)
    parser.add_argument("--answers", type=int, default=1000)
    parser.add_argument("--timed", type=int, default=300)
    parser.add_argument("--show", type=int, default=20, help="sentences that are printed")
    arguments = parser.parse_args()
    session = Session.load(arguments.bundle, cache_megabytes=0)

    questions = questions_of(arguments.snapshots, arguments.split, arguments.answers, 1)
    found = check(session, questions)
    print(f"answers: {len(questions)}, sentences: {found['sentences']}")
    print(f"contradictions: {len(found['problems'])}")
    for problem in found["problems"][:20]:
        print(f"  {problem}")
    for name, shares in (("covered", found["covered"]), ("by name alone", found["by_name"])):
        print(
            f"{name}: at least .8 in {np.mean(shares >= 0.8):.3f} of answers, "
            f"median {np.median(shares):.3f}, tenth percentile {np.quantile(shares, 0.1):.3f}"
        )
    print(f"numbers are off by at most {found['off']:.1e}")
    length = [len(told[2]) for told in found["told"] if told[0] == "en"]
    print(
        f"characters of an English sentence: median {statistics.median(length)}, most {max(length)}"
    )

    timed = questions_of(arguments.snapshots, arguments.split, arguments.timed, 10)
    plain = [{**question, "against": False} for question in timed]
    for name, asked, batch in (
        ("one", plain, 1),
        ("one, with against", timed, 1),
        ("16", plain, 16),
    ):
        without, told, ratio, low, high = cost(session, asked, batch)
        print(
            f"questions at once: {name}; ms a question without {1000 * without:.2f}, "
            f"with {1000 * told:.2f}; ratio {ratio:.3f} ({low:.3f} to {high:.3f})"
        )

    shown = np.linspace(0, len(found["told"]) - 1, arguments.show).round().astype(int)
    for language, title, reason, against in (found["told"][n] for n in shown):
        print(f"- {language} | {title} | {reason} | {against}")
