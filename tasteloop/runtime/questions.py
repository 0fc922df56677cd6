"""An instance of a request as a question: checked and typed, before any bundle is asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from reprlib import repr as _shown
from typing import Any

from tasteloop.answers import LANGUAGES, MOST_K, SERVED_MODELS
from tasteloop.behaviour.events import Event
from tasteloop.behaviour.times import whole
from tasteloop.errors import TasteloopError

# What `parse` makes of an instance: {"events": [Event, ..], "k": int | None, "language": str,
# "against": bool}, or {"text": str, "language": str}.
# Whoever knows more of the user than the events say adds {EXCEPTIONS: Exceptions}.
Question = Mapping[str, Any]

EXCEPTIONS = "exceptions"


@dataclass(frozen=True)
class Exceptions:
    """Items that a question treats otherwise than its events say.

    Attributes:
        left_out: they are not recommended either.
        repeatable: they may be recommended although an event consumed them.
    """

    left_out: frozenset[str] = frozenset()
    repeatable: frozenset[str] = frozenset()


def with_exceptions(
    questions: Sequence[Question], exceptions: Sequence[Exceptions | None]
) -> list[Question]:
    """Questions with what else is known of their users; None: nothing."""
    return [
        question if exception is None else {**question, EXCEPTIONS: exception}
        for question, exception in zip(questions, exceptions, strict=True)
    ]


def parse(model: str, instances: Sequence[Any]) -> list[Question]:
    """Instances as the questions that `Session.compute` takes; no bundle is needed for that.

    >>> parse("sentiment", [{"text": "a warm film"}])
    [{'text': 'a warm film', 'language': 'en'}]
    >>> [question] = parse("recommend", [{"events": [{"kind": "click", "item": "50"}], "k": 3}])
    >>> question["events"][0].item, question["k"]
    ('50', 3)

    Args:
        model: a served model (`tasteloop.answers.SERVED_MODELS`).
        instances: {"events": [...], "k": 10} or {"text": "..."}, see `Event.parse`; `k` is how many
            to answer with, by default 10 items and all interests; `language` is one of `LANGUAGES`;
            with `against` it is told what speaks against a recommendation.

    Returns:
        {"events": a list of `Event`, "k": a number or None, "language", "against"}, or {"text": a
        text that is not blank, "language"}.

    Raises:
        TasteloopError: an unknown model, or a bad instance, by its index.
    """
    if model not in SERVED_MODELS:
        raise TasteloopError(f"unknown model {model!r}; known: {', '.join(SERVED_MODELS)}")
    return [_parse(model, instance, f"instances[{n}]") for n, instance in enumerate(instances)]


def _parse(model: str, instance: Any, where: str) -> Question:
    if not isinstance(instance, Mapping):
        raise TasteloopError(f"{where}: an instance is an object, not {type(instance).__name__}")
    declared = SERVED_MODELS[model].input
    for key in instance:
        if key not in declared.fields:
            known = ", ".join(declared.fields)
            raise TasteloopError(f"{where}: unknown key {key!r}; known: {known}")
    if declared.field not in instance:
        raise TasteloopError(f"{where}: {declared.field!r} is missing")
    return _parse_text(instance, where) if declared.is_text else _parse_history(instance, where)


def _parse_text(instance: Mapping[str, Any], where: str) -> Question:
    text = instance["text"]
    if not isinstance(text, str) or not text.strip():
        raise TasteloopError(f"{where}.text: a string that is not blank is expected")
    return {"text": text, "language": _language(instance, where)}


def _language(instance: Mapping[str, Any], where: str) -> str:
    language = instance.get("language")
    if language is None:
        return LANGUAGES[0]
    if language not in LANGUAGES:
        known = ", ".join(LANGUAGES)
        raise TasteloopError(
            f"{where}.language: one of {known} is expected, not {_shown(language)}"
        )
    return str(language)


def _parse_history(instance: Mapping[str, Any], where: str) -> Question:
    events = instance["events"]
    if not isinstance(events, list):
        raise TasteloopError(f"{where}.events: a list is expected, not {type(events).__name__}")
    requested = instance.get("k")
    k = whole(requested)
    if requested is not None and (k is None or not 1 <= k <= MOST_K):
        raise TasteloopError(
            f"{where}.k: a whole number from 1 to {MOST_K} is expected, not {requested!r}"
        )
    against = instance.get("against")
    if against is not None and not isinstance(against, bool):
        raise TasteloopError(f"{where}.against: true or false is expected, not {_shown(against)}")
    return {
        "events": [Event.parse(event, f"{where}.events[{n}]") for n, event in enumerate(events)],
        "k": k,
        "language": _language(instance, where),
        "against": bool(against),
    }
