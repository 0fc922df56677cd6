"""The rehearsal before a promotion: a real server on the candidate must answer as its trainer
did.
"""

from __future__ import annotations

import logging
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from serving.answering.predictor import Predictor
from serving.answering.tensors import from_v2, v2_input
from serving.client import Client
from tasteloop import files
from tasteloop.answers import SERVED_MODELS
from tasteloop.errors import TasteloopError

logger = logging.getLogger(__name__)

TOLERANCE = 1e-4
START_SECONDS = 180.0
STOP_SECONDS = 15.0
_LOG_TAIL = 2000  # characters
_SHOWN = 3  # differences in a reason


@dataclass(frozen=True)
class Rehearsal:
    """What a rehearsal found; `seconds` is the server's time from start to ready."""

    passed: bool
    reason: str
    digest: str = ""
    questions: int = 0
    seconds: float = 0.0


def rehearse(bundle: Path, out: Path, tolerance: float = TOLERANCE) -> Rehearsal:
    """Start `python -m serving` on a bundle, ask its golden questions and compare with the recorded
    answers.

    Every question is asked over V1, the first of each model over V2 too. Numbers must agree within
    `tolerance` (absolute, or relative above 1); labels, items and their order wherever the recorded
    numbers are further apart than that. On another processor than the trainer's the server may have
    chosen another
    runtime: then all its answers must be those recorded for one other precision. The server is
    always stopped. The outcome is written to `out/rehearsal.json`; whatever goes wrong is one.
    """
    try:
        outcome = _rehearse(bundle, tolerance)
    except TasteloopError as error:
        outcome = Rehearsal(False, str(error))
    # a candidate that breaks the rehearsal itself is refused like any other
    except Exception as error:
        logger.exception("the rehearsal of %s failed", bundle)
        outcome = Rehearsal(
            False, f"the rehearsal could not be carried out: {type(error).__name__}: {error}"
        )
    files.write_json(out / "rehearsal.json", asdict(outcome))
    return outcome


def _rehearse(bundle: Path, tolerance: float) -> Rehearsal:
    from tasteloop.bundle.manifest import verify

    digest: str = verify(bundle)
    golden = files.read_json(bundle / "golden.json")
    questions = golden["questions"]
    if not questions:
        return Rehearsal(
            False,
            f"{bundle / 'golden.json'} holds no questions, so nothing can be compared",
            digest,
        )
    started = time.monotonic()
    with serve(bundle) as client:
        seconds = time.monotonic() - started
        served = [
            _ask(client, question, index, questions) for index, question in enumerate(questions)
        ]
    if differences := _from_recorded(bundle, golden, served, tolerance):
        return Rehearsal(False, _differ(differences), digest, len(questions), seconds)
    reason = f"{len(questions)} golden answers served as recorded, within {tolerance:g}"
    return Rehearsal(True, reason, digest, len(questions), seconds)


def check(predictor: Predictor, bundle: Path, tolerance: float = TOLERANCE) -> None:
    """The rehearsal in this process, before a predictor is swapped in; it is warm afterwards.

    Raises:
        TasteloopError: an answer that differs from the recorded one, or none recorded.
    """
    golden = files.read_json(bundle / "golden.json")
    questions = golden["questions"]
    if not questions:
        raise TasteloopError(
            f"{bundle / 'golden.json'} holds no questions, so nothing can be compared"
        )
    served = [
        (predictor.predict(question["model"], [question["instance"]])[0], None)
        for question in questions
    ]
    if differences := _from_recorded(bundle, golden, served, tolerance):
        raise TasteloopError(_differ(differences))


def _differ(differences: Sequence[str]) -> str:
    more = f" (and {len(differences) - _SHOWN} more)" if len(differences) > _SHOWN else ""
    return f"served answers differ from the trainer's: {'; '.join(differences[:_SHOWN])}{more}"


@contextmanager
def serve(bundle: Path) -> Iterator[Client]:
    """A server of its own for a bundle, on free loopback ports, ready; stopped when the block ends.

    Raises:
        TasteloopError: it ended, or was not ready in time; with the end of its log.
    """
    with tempfile.TemporaryDirectory(prefix="tasteloop-") as folder:
        ready_file, log = Path(folder, "ready.json"), Path(folder, "log")
        command = [sys.executable, "-m", "serving", "--bundle", str(bundle.absolute())]
        command += [
            "--port",
            "0",
            "--grpc-port",
            "0",
            "--ready-file",
            str(ready_file),
            "--exit-with-parent",
        ]
        house = str(Path(__file__).parents[2])
        path = os.pathsep.join(filter(None, (house, os.environ.get("PYTHONPATH"))))
        with log.open("wb") as stream:
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=stream,
                stderr=stream,
                env={**os.environ, "PYTHONPATH": path},
            )
        try:
            _wait(process, ready_file, log)
            with Client(files.read_json(ready_file)["http"]) as client:
                yield client
        finally:
            _stop(process)


def _wait(process: subprocess.Popen[bytes], ready_file: Path, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not ready_file.exists():
        code = process.poll()
        if code is not None or time.monotonic() > deadline:
            what = (
                f"ended with {code}"
                if code is not None
                else f"was not ready within {START_SECONDS:.0f} s"
            )
            tail = log.read_text(errors="replace")[-_LOG_TAIL:].strip()
            raise TasteloopError(f"the server {what}: {tail or 'it logged nothing'}")
        time.sleep(0.05)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdin:
        process.stdin.close()


def _ask(
    client: Client, question: Mapping[str, Any], index: int, questions: Sequence[Mapping[str, Any]]
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """The answer over V1 and, to the first question of each model, over V2."""
    model, instance = question["model"], question["instance"]
    first = all(earlier["model"] != model for earlier in questions[:index])
    return client.predict(model, [instance])[0], _over_v2(
        client, model, instance
    ) if first else None


def _from_recorded(
    bundle: Path,
    golden: Mapping[str, Any],
    served: Sequence[tuple[Mapping[str, Any], Mapping[str, Any] | None]],
    tolerance: float,
) -> list[str]:
    """How the answers differ from the trainer's, unless all are those recorded for one other
    precision.
    """
    from tasteloop.bundle.card import BundleCard
    from tasteloop.runtime import engines

    questions = golden["questions"]
    recorded = {
        golden.get("precision", "fp32"): [q["answer"] for q in questions],
        **golden.get("others", {}),
    }
    # none: made before runtimes were chosen, by torch
    runtime = BundleCard.read(bundle).runtime
    differences, *others = [
        _differences(
            questions, answers, served, tolerance, engines.tolerance(precision, runtime, tolerance)
        )
        for precision, answers in recorded.items()
    ]
    return differences if all(others) else []


def _differences(
    questions: Sequence[Mapping[str, Any]],
    recorded: Sequence[Mapping[str, Any]],
    served: Sequence[tuple[Mapping[str, Any], Mapping[str, Any] | None]],
    exact: float,
    tolerance: float,
) -> list[str]:
    """With a tolerance above the exact one decisions are left out: a probability near a threshold
    may cross it.
    """
    found = []
    for index, (question, answer, answers) in enumerate(
        zip(questions, recorded, served, strict=True)
    ):
        model = question["model"]
        fields = SERVED_MODELS[model].fields
        left_out = [field.name for field in fields if field.is_decision and tolerance != exact]
        only_v1 = [field.name for field in fields if not field.in_v2]
        for over, told, expected in zip(
            ("", " over V2"), answers, (answer, _without(answer, *only_v1)), strict=True
        ):
            if told is not None:
                differences = compare(
                    model, _without(expected, *left_out), _without(told, *left_out), tolerance
                )
                found += [
                    f"question {index} ({model}){over}: {difference}" for difference in differences
                ]
    return found


def _over_v2(client: Client, model: str, instance: Mapping[str, Any]) -> dict[str, Any]:
    """An answer asked over V2, put back into the shape of V1's (without titles, which V2 does not
    carry).
    """
    response = client.infer(model, [v2_input(model, instance)])
    return from_v2(model, response["outputs"], 1)[0]


def _without(answer: Mapping[str, Any], *fields: str) -> dict[str, Any]:
    """An answer, or each entry of a ranked one, without fields."""
    return {
        key: [{k: v for k, v in entry.items() if k not in fields} for entry in value]
        if isinstance(value, list)
        else value
        for key, value in answer.items()
        if key not in fields
    }


def compare(
    model: str, recorded: Mapping[str, Any], served: Mapping[str, Any], tolerance: float
) -> list[str]:
    """How a served answer differs from the recorded one, in words; nothing where they agree.

    Ranked answers agree when, place by place, the numbers agree, and entry by entry too: entries
    may then change places only where their recorded numbers are about equal. An item that was not
    recorded must score about as the last one that was.
    """
    served_model = SERVED_MODELS[model]
    if served_model.ranking is None:
        return _compare_entry("", recorded, served, tolerance)
    key, name, number = served_model.ranking, served_model.label, served_model.number
    before, now = recorded[key], served[key]
    if len(before) != len(now):
        return [f"{len(now)} {key} instead of {len(before)}"]
    by_name = {entry[name]: entry for entry in before}
    differences = []
    for place, (old, new) in enumerate(zip(before, now, strict=True)):
        if not _close(old[number], new[number], tolerance):
            differences.append(f"{number} {new[number]} instead of {old[number]} in place {place}")
        elif new[name] in by_name:
            differences += _compare_entry(
                f"{name} {new[name]!r}: ", by_name[new[name]], new, tolerance
            )
        elif not served_model.is_catalogue or not _close(
            before[-1][number], new[number], tolerance
        ):
            differences.append(f"{name} {new[name]!r} instead of {old[name]!r} in place {place}")
    if len({entry[name] for entry in now}) != len(now):
        differences.append(f"a {name} twice")
    return differences


def _compare_entry(where: str, old: Any, new: Any, tolerance: float) -> list[str]:
    """Compare two JSON values: numbers within tolerance, all else equal."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        if old.keys() != new.keys():
            return [f"{where}fields {sorted(new)} instead of {sorted(old)}"]
        return [
            found
            for k in old
            for found in _compare_entry(f"{where}{k} ", old[k], new[k], tolerance)
        ]
    if isinstance(old, list) and isinstance(new, list):
        # reasons: by term, their order is their size
        if old and isinstance(old[0], Mapping) and "term" in old[0]:
            return _compare_entry(where, _by_term(old), _by_term(new), tolerance)
        if len(old) != len(new):
            return [f"{where}{len(new)} entries instead of {len(old)}"]
        return [
            found
            for a, b in zip(old, new, strict=True)
            for found in _compare_entry(where, a, b, tolerance)
        ]
    if _number(old) and _number(new):
        return [] if _close(old, new, tolerance) else [f"{where}{new} instead of {old}"]
    return [] if old == new else [f"{where}{new!r} instead of {old!r}"]


def _by_term(reasons: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {reason["term"]: reason["contribution"] for reason in reasons}


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _close(a: float, b: float, tolerance: float) -> bool:
    return math.isclose(a, b, rel_tol=tolerance, abs_tol=tolerance)
