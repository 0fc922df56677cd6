"""`tasteloop step`: one step of the pipeline by itself, its options read from its shell's
signature.
"""

from __future__ import annotations

import argparse
import inspect
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from kfp import dsl
from kfp.dsl.types import type_annotations

from pipelines.graphs.step import OUTPUT, Step, section_json
from pipelines.graphs.training import STEPS
from pipelines.local.facts import Outputs
from pipelines.settings import Settings, load_settings
from tasteloop.errors import TasteloopError

# Prints the results of a step, as JSON where the second argument is true.
Emit = Callable[[Outputs, bool], None]


def main(name: str | None, arguments: Sequence[str], emit: Emit) -> int:
    """Run what `tasteloop step NAME ARGUMENTS` asks for; returns the exit code.

    Raises:
        TasteloopError: there is no step of that name, or it refuses its input.
    """
    if name is None or name in ("-h", "--help"):
        sys.stdout.write(usage() + "\n")
        return 0
    steps = {step.name: step for step in STEPS}
    if name not in steps:
        raise TasteloopError(f"no step {name!r}; known: {', '.join(steps)}")
    exit_code, results = run(steps[name], arguments)
    emit(results, "--json" in arguments)
    return exit_code


def usage() -> str:
    """The steps, as `tasteloop step` lists them."""
    width = max(len(step.name) for step in STEPS)
    lines = [f"  {step.name:<{width}}  {step.summary}" for step in STEPS]
    return "\n".join(["steps (tasteloop step NAME --help tells each one's options):", *lines])


def run(step: Step, arguments: Sequence[str]) -> tuple[int, Outputs]:
    """Run a step on directories; returns the exit code and its results, artifacts as paths."""
    options = _parser(step).parse_args(arguments)

    # 1. its inputs, from the options and the settings
    inputs: dict[str, object] = {}
    results: dict[str, object] = {}
    for parameter in inspect.signature(step.function).parameters.values():
        name, annotation = parameter.name, parameter.annotation
        if type_annotations.is_artifact_wrapped_in_Output(annotation):
            path = Path(options.out) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            inputs[name] = _artifact(annotation, name, path)
            results[name] = str(path)
        elif type_annotations.is_artifact_wrapped_in_Input(annotation):
            inputs[name] = _artifact(annotation, name, Path(getattr(options, name)))
        elif name == "settings":
            inputs[name] = _settings(step, load_settings(options.profile, options.set))
        elif name == "data":
            inputs[name] = section_json(load_settings(options.profile, options.set), "data")
        else:
            inputs[name] = getattr(options, name)

    # 2. its work
    results |= _plain_results(step, step.function(**inputs))

    # 3. its answer
    if step.refusal is not None and not results[str(step.answer)]:
        return step.refusal.exit_code, results
    return 0, results


def _parser(step: Step) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        f"tasteloop step {step.name}",
        description=inspect.getdoc(step.function),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    outputs = []
    for parameter in inspect.signature(step.function).parameters.values():
        annotation = parameter.annotation
        option = f"--{parameter.name.replace('_', '-')}"
        if type_annotations.is_artifact_wrapped_in_Output(annotation):
            outputs.append(parameter.name)
        elif type_annotations.is_artifact_wrapped_in_Input(annotation):
            parser.add_argument(
                option, required=True, metavar="PATH", help=f"the {parameter.name} to read"
            )
        elif parameter.name == "settings":
            parser.add_argument(
                "--profile", default="local", help="a profile's name or a YAML file (local)"
            )
            parser.add_argument(
                "--set",
                action="append",
                default=[],
                metavar="KEY=VALUE",
                help=f"a setting instead of the profile's, such as {step.section or 'training'}.KEY=VALUE",
            )
        elif parameter.name != "data":  # a section of the settings, too
            required = parameter.default is inspect.Parameter.empty
            default = None if required else parameter.default
            described = "(required)" if required else f"({default or 'none'})"
            parser.add_argument(
                option, required=required, default=default, metavar="TEXT", help=described
            )
    if outputs:
        parser.add_argument(
            "--out",
            required=True,
            metavar="DIR",
            help=f"where {', '.join(outputs)} will be written",
        )
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    return parser


def _artifact(annotation: object, name: str, path: Path) -> dsl.Artifact:
    artifact = type_annotations.strip_Input_or_Output_marker(annotation)
    return artifact(name=name, uri=str(path.absolute()), metadata={})


def _settings(step: Step, settings: Settings) -> str:
    """The step's section, or all settings where it has none."""
    return section_json(settings, step.section) if step.section else settings.model_dump_json()


def _plain_results(step: Step, returned: Any) -> dict[str, object]:
    """What the shell returned, by name: its answer, a reason, a version."""
    if returned is None:
        return {}
    fields = getattr(inspect.signature(step.function).return_annotation, "_fields", None)
    if not fields:
        return {"version": returned}
    results: dict[str, object] = dict(zip(fields, returned, strict=True))
    if OUTPUT in results and step.answer:
        return {step.answer: results.pop(OUTPUT), **results}
    return results
