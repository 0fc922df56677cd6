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

from pipelines.graphs.training import ANSWER, STEPS
from pipelines.local.runner import EXIT
from pipelines.settings import Settings, load

_SECTIONS = {  # the section of the settings that a step gets; record gets all of them
    "ingest": "ingest",
    "validate": "validation",
    "prepare": "prepare",
    "finetune": "training",
    "fit-recommender": "recommender",
    "evaluate": "evaluation",
    "gate": "gate",
    "promote": "watch",
}
_ANSWERS = {"validate": "passed", "champion": "changed", "gate": "promote", "rehearse": "passed"}
_REFUSALS = {
    "validate": EXIT["refused"],
    "gate": EXIT["rejected"],
    "rehearse": EXIT["rehearsal failed"],
}


def names() -> dict[str, str]:
    """Every step with the first line of what it does."""
    return {
        step.name: (step.python_func.__doc__ or "").strip().partition("\n")[0] for step in STEPS
    }


def run(name: str, arguments: Sequence[str]) -> tuple[int, dict[str, Any]]:
    """Run a step on directories; returns the exit code and its results, artifacts as paths."""
    function = next(step.python_func for step in STEPS if step.name == name)
    options = _parser(name, function).parse_args(arguments)
    given: dict[str, Any] = {}
    made: dict[str, Any] = {}
    for parameter in inspect.signature(function).parameters.values():
        kind = parameter.annotation
        if type_annotations.is_artifact_wrapped_in_Output(kind):
            path = Path(options.out) / parameter.name
            path.parent.mkdir(parents=True, exist_ok=True)
            given[parameter.name] = _artifact(kind, parameter.name, path)
            made[parameter.name] = str(path)
        elif type_annotations.is_artifact_wrapped_in_Input(kind):
            path = Path(getattr(options, parameter.name))
            given[parameter.name] = _artifact(kind, parameter.name, path)
        elif parameter.name == "settings":
            given["settings"] = _section(name, load(options.profile, options.set))
        elif parameter.name == "data":
            given["data"] = load(options.profile, options.set).data.model_dump_json()
        else:
            given[parameter.name] = getattr(options, parameter.name)
    result = function(**given)
    made |= _results(name, function, result)
    refused = name in _REFUSALS and not made[_ANSWERS[name]]
    return (_REFUSALS[name] if refused else 0), made


def _parser(name: str, function: Callable[..., Any]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        f"tasteloop step {name}",
        description=inspect.getdoc(function),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    outputs = []
    for parameter in inspect.signature(function).parameters.values():
        kind, option = parameter.annotation, f"--{parameter.name.replace('_', '-')}"
        if type_annotations.is_artifact_wrapped_in_Output(kind):
            outputs.append(parameter.name)
        elif type_annotations.is_artifact_wrapped_in_Input(kind):
            parser.add_argument(
                option, required=True, metavar="PATH", help=f"the {parameter.name} to read"
            )
        elif parameter.name == "settings":
            section = _SECTIONS.get(name)
            parser.add_argument(
                "--profile", default="local", help="a profile's name or a YAML file (local)"
            )
            parser.add_argument(
                "--set",
                action="append",
                default=[],
                metavar="KEY=VALUE",
                help=f"a setting instead of the profile's, such as {section or 'training'}.KEY=VALUE",
            )
        elif parameter.name != "data":  # a section of the settings, too
            required = parameter.default is inspect.Parameter.empty
            default = None if required else parameter.default
            shown = f"({default or 'none'})" if not required else "(required)"
            parser.add_argument(
                option, required=required, default=default, metavar="TEXT", help=shown
            )
    if outputs:
        there = ", ".join(outputs)
        parser.add_argument(
            "--out", required=True, metavar="DIR", help=f"where {there} will be written"
        )
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    return parser


def _artifact(annotation: Any, name: str, path: Path) -> dsl.Artifact:
    kind = type_annotations.strip_Input_or_Output_marker(annotation)
    return kind(name=name, uri=str(path.absolute()), metadata={})


def _section(name: str, settings: Settings) -> str:
    section = _SECTIONS.get(name)
    return str((getattr(settings, section) if section else settings).model_dump_json())


def _results(name: str, function: Callable[..., Any], result: Any) -> dict[str, Any]:
    if result is None:
        return {}
    fields = getattr(inspect.signature(function).return_annotation, "_fields", None)
    if not fields:
        return {"version": result}
    return {_ANSWERS[name] if k == ANSWER else k: v for k, v in zip(fields, result, strict=True)}


def usage() -> str:
    """The steps, as `tasteloop step` lists them."""
    width = max(map(len, names()))
    lines = [f"  {name:<{width}}  {what}" for name, what in names().items()]
    return "\n".join(["steps (tasteloop step NAME --help tells each one's options):", *lines])


def main(
    name: str | None, arguments: Sequence[str], emit: Callable[[dict[str, Any], bool], None]
) -> int:
    if name is None or name in ("-h", "--help"):
        sys.stdout.write(usage() + "\n")
        return 0
    if name not in names():
        from tasteloop.errors import TasteloopError

        raise TasteloopError(f"no step {name!r}; known: {', '.join(names())}")
    code, results = run(name, arguments)
    emit(results, "--json" in arguments)
    return code
