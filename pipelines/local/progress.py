"""What a run shows while its steps work: a line for each step, and the steps' own lines."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import IO

from components.step import EVENTS, MARK
from pipelines.local.facts import Outputs, RunFacts, StepFacts
from tasteloop.redaction import redact

LOG_FILE = "log.txt"

Say = Callable[[str], None]  # gets a line for the console, in rich's markup


class Progress(io.TextIOBase):
    """Stands in for stdout while kfp runs: all goes to the log, the steps' own lines to the console
    as well.

    `steps` maps a step's name to its last event, in the order in which the steps ran.
    """

    def __init__(self, directory: Path, say: Say) -> None:
        self.directory, self.say = directory, say
        self.steps: dict[str, StepFacts] = {}
        self._log: IO[str] = (directory / LOG_FILE).open("w", encoding="utf-8")
        (directory / EVENTS).touch()
        self._events: IO[str] = (directory / EVENTS).open(encoding="utf-8")
        self._running = ""
        self._line = ""

    def write(self, text: str) -> int:
        *lines, self._line = (self._line + text).split("\n")
        # whole lines: what comes in parts would hide a secret's end
        for line in map(redact, lines):
            self._log.write(f"{line}\n")
            if line.lstrip().startswith(MARK):
                self._read_events()
            elif self._running and line.strip():
                self.say(f"    [dim]{escape(line.removeprefix('    ').rstrip())}[/]")
        return len(text)

    def flush(self) -> None:
        if not self._log.closed:
            self._read_events()
            self._log.flush()

    def close(self) -> None:
        super().close()  # which flushes
        self._log.write(redact(self._line))
        self._log.close()
        self._events.close()

    def reuse(self, name: str, outputs: Outputs) -> None:
        """Note that a step's earlier result is used again."""
        self._read_events()
        self.steps[name] = StepFacts(
            step=name, event="finished", outputs=dict(outputs), reused=True
        )
        self.say(f"[green]=[/] {name}: nothing changed, result used again")

    def _read_events(self) -> None:
        for line in self._events:
            step = StepFacts.model_validate({**json.loads(line), "reused": False})
            self.steps[step.step] = step
            self._running = step.step if step.event == "started" else ""
            match step.event:
                case "started":
                    self.say(f"[cyan]>[/] {step.step}")
                case "finished":
                    peak = f", {step.peak_bytes / 2**30:.2f} GiB" if step.peak_bytes else ""
                    self.say(f"[green]✓[/] {step.step}: {step.seconds:.1f} s{peak}")
                case _:
                    self.say(f"[red]✗[/] {step.step}: {step.seconds:.1f} s")


def escape(text: str) -> str:
    """Text that rich shows as it is."""
    return text.replace("[", r"\[")


def show_end(facts: RunFacts, say: Say) -> None:
    """The end of a run in a few lines: what happened, why, and what to do next."""
    version = f", version {facts.version}" if facts.version else ""
    colour = "green" if facts.code == 0 else "red"
    say(f"[bold {colour}]{facts.outcome}[/]{version}")
    for reason in facts.reason.split("; "):
        say(f"  {escape(reason)}")
    if facts.understanding is not None:
        say(f"  {facts.understanding}")
    say(
        f"[dim]{facts.seconds:.1f} s, of which {facts.overhead:.1f} s were not the steps' own work[/]"
    )
    if facts.outcome == "promoted":
        say("next: tasteloop serve, tasteloop report")
    else:
        say("more: tasteloop report")
