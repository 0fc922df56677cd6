"""The rehearsal before a promotion: a real server on the candidate must answer as its trainer
did.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from serving.answering.predictor import Predictor
from serving.answering.tensors import from_v2, v2_input
from serving.client import Client
from serving.release.answer_comparison import Json, ServedAnswer, find_differences
from tasteloop import files
from tasteloop.bundle.card import BundleCard
from tasteloop.bundle.manifest import verify
from tasteloop.errors import TasteloopError
from tasteloop.verdicts import REHEARSAL_FILE, Rehearsal

logger = logging.getLogger(__name__)

TOLERANCE = 1e-4
START_SECONDS = 180.0
STOP_SECONDS = 15.0
_LOG_TAIL = 2000  # characters
_SHOWN_DIFFERENCES = 3  # in a reason


def rehearse(bundle: Path, out: Path, tolerance: float = TOLERANCE) -> Rehearsal:
    """Start `python -m serving` on a bundle, ask its golden questions and compare with the recorded
    answers.

    Every question is asked over V1, the first of each model over V2 too. Numbers must agree within
    `tolerance` (absolute, or relative above 1); labels, items and their order wherever the recorded
    numbers are further apart than that. On another processor than the trainer's the server may have
    chosen another runtime: then all its answers must be those recorded for one other precision. The
    server is always stopped. The outcome is written to `out/rehearsal.json`; whatever goes wrong is
    an outcome too.
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
    files.write_json(out / REHEARSAL_FILE, outcome.json())
    return outcome


def _rehearse(bundle: Path, tolerance: float) -> Rehearsal:
    digest = verify(bundle)
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
        served = _ask_all(client, questions)
    differences = _differences_from_recorded(bundle, golden, served, tolerance)
    if differences:
        return Rehearsal(False, _summarise(differences), digest, len(questions), seconds)
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
    served: list[ServedAnswer] = []
    for question in questions:
        answers = predictor.predict(question["model"], [question["instance"]])
        served.append((answers[0], None))
    differences = _differences_from_recorded(bundle, golden, served, tolerance)
    if differences:
        raise TasteloopError(_summarise(differences))


def _summarise(differences: Sequence[str]) -> str:
    more = (
        f" (and {len(differences) - _SHOWN_DIFFERENCES} more)"
        if len(differences) > _SHOWN_DIFFERENCES
        else ""
    )
    return f"served answers differ from the trainer's: {'; '.join(differences[:_SHOWN_DIFFERENCES])}{more}"


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
            _wait_until_ready(process, ready_file, log)
            with Client(files.read_json(ready_file)["http"]) as client:
                yield client
        finally:
            _stop(process)


def _wait_until_ready(process: subprocess.Popen[bytes], ready_file: Path, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not ready_file.exists():
        code = process.poll()
        if code is not None or time.monotonic() > deadline:
            failure = (
                f"ended with {code}"
                if code is not None
                else f"was not ready within {START_SECONDS:.0f} s"
            )
            tail = log.read_text(errors="replace")[-_LOG_TAIL:].strip()
            raise TasteloopError(f"the server {failure}: {tail or 'it logged nothing'}")
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


def _ask_all(client: Client, questions: Sequence[Json]) -> list[ServedAnswer]:
    """Each question's answer over V1 and, to the first question of each model, over V2."""
    served: list[ServedAnswer] = []
    models = set()
    for question in questions:
        model, instance = question["model"], question["instance"]
        answer = client.predict(model, [instance])[0]
        over_v2 = None if model in models else _ask_over_v2(client, model, instance)
        models.add(model)
        served.append((answer, over_v2))
    return served


def _ask_over_v2(client: Client, model: str, instance: Mapping[str, Any]) -> dict[str, Any]:
    """An answer asked over V2, put back into the shape of V1's (without titles, which V2 does not
    carry).
    """
    response = client.infer(model, [v2_input(model, instance)])
    return from_v2(model, response["outputs"], 1)[0]


def _differences_from_recorded(
    bundle: Path, golden: Json, served: Sequence[ServedAnswer], tolerance: float
) -> list[str]:
    """How the answers differ from the trainer's, unless all are those recorded for one other
    precision.
    """
    from tasteloop.runtime import choice

    questions = golden["questions"]
    recorded = {
        golden.get("precision", "fp32"): [question["answer"] for question in questions],
        **golden.get("others", {}),
    }
    # None: the card was made before runtimes were chosen, by torch.
    runtime = BundleCard.read(bundle).runtime
    of_the_trainer, *of_others = [
        find_differences(
            questions,
            answers,
            served,
            exact=tolerance,
            tolerance=choice.tolerance(precision, runtime, tolerance),
        )
        for precision, answers in recorded.items()
    ]
    served_as_another = any(not differences for differences in of_others)
    return [] if served_as_another else of_the_trainer
