"""How served answers differ from those that the trainer recorded with the bundle."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from tasteloop.answers import SERVED_MODELS

Json = Mapping[str, Any]
_REASONS = "reasons "
# An answer over V1, and the same over V2 where it was asked too.
ServedAnswer = tuple[Json, Json | None]


def find_differences(
    questions: Sequence[Json],
    recorded: Sequence[Json],
    served: Sequence[ServedAnswer],
    exact: float,
    tolerance: float,
) -> list[str]:
    """The differences of all answers, each with its question's number.

    Args:
        exact: the tolerance within which decisions must be equal too; with a larger one they are
            left out, since a probability near a threshold may cross it.
    """
    differences = []
    for index, (question, answer, (over_v1, over_v2)) in enumerate(
        zip(questions, recorded, served, strict=True)
    ):
        model = question["model"]
        fields = SERVED_MODELS[model].fields
        left_out = [field.name for field in fields if field.is_decision and tolerance != exact]
        only_v1 = [field.name for field in fields if not field.in_v2]
        for protocol, response, expected in (
            ("", over_v1, answer),
            (" over V2", over_v2, without_fields(answer, *only_v1)),
        ):
            if response is None:
                continue
            of_answer = compare(
                model,
                without_fields(expected, *left_out),
                without_fields(response, *left_out),
                tolerance,
            )
            differences += [f"question {index} ({model}){protocol}: {each}" for each in of_answer]
    return differences


def without_fields(answer: Json, *fields: str) -> dict[str, Any]:
    """An answer, or each entry of a ranked one, without fields."""
    reduced: dict[str, Any] = {}
    for key, value in answer.items():
        if key in fields:
            continue
        if isinstance(value, list):
            value = [{k: v for k, v in entry.items() if k not in fields} for entry in value]
        reduced[key] = value
    return reduced


def compare(model: str, recorded: Json, served: Json, tolerance: float) -> list[str]:
    """How a served answer differs from the recorded one, in words; nothing where they agree.

    Ranked answers agree when, rank by rank, the numbers agree, and entry by entry too: entries
    may then change ranks only where their recorded numbers are about equal. An item that was not
    recorded must score about as the last one that was.

    >>> recorded = {"sentiment": "positive", "probability": 0.75}
    >>> compare("sentiment", recorded, {"sentiment": "positive", "probability": 0.8}, 1e-4)
    ['probability 0.8 instead of 0.75']
    """
    served_model = SERVED_MODELS[model]
    # what tells numbers in words: of two that are about equal it may name the other one
    words = [field.name for field in served_model.fields if field.is_words]
    recorded, served = without_fields(recorded, *words), without_fields(served, *words)
    if served_model.ranking is None:
        return _compare_values("", recorded, served, tolerance)
    key, name, number = served_model.ranking, served_model.label, served_model.number
    before, now = recorded[key], served[key]
    if len(before) != len(now):
        return [f"{len(now)} {key} instead of {len(before)}"]
    by_name = {entry[name]: entry for entry in before}
    differences = []
    for rank, (old, new) in enumerate(zip(before, now, strict=True)):
        if not _are_close(old[number], new[number], tolerance):
            differences.append(f"{number} {new[number]} instead of {old[number]} in place {rank}")
        elif new[name] in by_name:
            differences += _compare_values(
                f"{name} {new[name]!r}: ", by_name[new[name]], new, tolerance
            )
        elif not served_model.is_catalogue or not _are_close(
            before[-1][number], new[number], tolerance
        ):
            differences.append(f"{name} {new[name]!r} instead of {old[name]!r} in place {rank}")
    if len({entry[name] for entry in now}) != len(now):
        differences.append(f"a {name} twice")
    return differences


def _compare_values(path: str, old: Any, new: Any, tolerance: float) -> list[str]:
    """Compare two JSON values: numbers within tolerance, all else equal.

    Args:
        path: begins each difference.
    """
    differences: list[str] = []
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        if old.keys() != new.keys():
            return [f"{path}fields {sorted(new)} instead of {sorted(old)}"]
        for key in old:
            differences += _compare_values(f"{path}{key} ", old[key], new[key], tolerance)
        return differences
    if isinstance(old, list) and isinstance(new, list):
        # reasons are compared by term: their order is their size, and so is that of their parts
        if path.endswith(_REASONS):
            return _compare_values(
                path, _contributions_by_term(old), _contributions_by_term(new), tolerance
            )
        if len(old) != len(new):
            return [f"{path}{len(new)} entries instead of {len(old)}"]
        for old_entry, new_entry in zip(old, new, strict=True):
            differences += _compare_values(path, old_entry, new_entry, tolerance)
        return differences
    if _is_number(old) and _is_number(new):
        return [] if _are_close(old, new, tolerance) else [f"{path}{new} instead of {old}"]
    return [] if old == new else [f"{path}{new!r} instead of {old!r}"]


def _contributions_by_term(reasons: Sequence[Json]) -> dict[str, Any]:
    """What each term adds; a bundle from before reasons had words lists the terms themselves."""
    by_term: dict[str, Any] = {}
    for reason in reasons:
        if "term" in reason:
            by_term[reason["term"]] = reason["contribution"]
        else:
            by_term |= reason["terms"]
    return by_term


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _are_close(a: float, b: float, tolerance: float) -> bool:
    return math.isclose(a, b, rel_tol=tolerance, abs_tol=tolerance)
