"""YAML as its version 1.2 reads it, bounded in everything that a hostile file can make large.

PyYAML reads version 1.1, where `on`, `no` and `12:30` are not the words that were written: they are
a truth, a falsehood and 750 seconds. The core schema of version 1.2 has `true`, `false`, `null`,
integers (also `0o17` and `0x1f`) and floats; all else is text.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

# characters, aliases written out: a second of reading; our own files have 5,000
LONGEST = 64 * 1024
DEEPEST = 64  # levels: ours have six, and PyYAML reads level by level on the interpreter's stack
# no setting means more, and what is computed with them has 64 bits
_INTEGERS = range(-(2**63), 2**63)

_TAG = "tag:yaml.org,2002:"
_NULL, _TRUTH, _INTEGER, _FLOAT, _TEXT = (
    _TAG + name for name in ("null", "bool", "int", "float", "str")
)
_SCALARS = {  # how each is written; what is none of them is text
    _NULL: re.compile(r"(?:~|null|Null|NULL|)"),
    _TRUTH: re.compile(r"(?:true|True|TRUE|false|False|FALSE)"),
    _INTEGER: re.compile(r"(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)"),
    _FLOAT: re.compile(
        r"(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))"
    ),
    f"{_TAG}merge": re.compile("<<"),
}


def parse_yaml(text: str, words: bool = False) -> Any:
    """One document, as Python's own types.

    Args:
        words: keys, and all scalars but null, stay the text that was written, so that the id `007`
            is not 7.

    Raises:
        ValueError: it is not YAML, repeats a key, or is longer, deeper or has larger integers than
            is allowed.
    """
    if len(text) > LONGEST:
        raise ValueError(f"{len(text)} characters; {LONGEST} are allowed")
    try:
        return yaml.load(text, Loader=_Words if words else _Core)  # both are SafeLoaders
    except yaml.YAMLError as error:
        raise ValueError(_explain(error)) from None


def _explain(error: yaml.YAMLError) -> str:
    if not isinstance(error, yaml.MarkedYAMLError):
        return " ".join(str(error).split())
    mark = error.problem_mark or error.context_mark
    at = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
    context = (
        "" if not error.context or error.context.startswith("while ") else f"{error.context}, "
    )
    return f"{context}{error.problem}{at}"


def _refusal(at: Any, problem: str) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=at.start_mark)


class _Core(yaml.SafeLoader):
    """Reads a document by the core schema."""

    words = False
    scalars = _SCALARS

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0
        self._length = 0  # of what was read, aliases written out
        self._lengths: dict[str | None, int] = {}  # the same of what each anchor names

    def resolve(self, kind: type[yaml.Node], value: Any, implicit: Any) -> Any:
        """The tag of a node that has none: PyYAML asks this for every one."""
        if kind is yaml.ScalarNode and implicit[0]:  # written without quotes
            return next(
                (tag for tag, written in self.scalars.items() if written.fullmatch(value)), _TEXT
            )
        return super().resolve(kind, value, (False, False))  # type: ignore[no-untyped-call]

    def compose_node(self, parent: yaml.Node | None, index: Any) -> Any:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent):
            if event.anchor in self.anchors and event.anchor not in self._lengths:
                raise _refusal(event, f"the alias *{event.anchor} is part of what it stands for")
            self._lengthen(event, self._lengths.get(event.anchor, 0))
            return super().compose_node(parent, index)
        if self._depth == DEEPEST:
            raise _refusal(event, f"nested deeper than {DEEPEST} levels")
        before = self._length
        self._lengthen(event, 1 + len(event.value) if isinstance(event, yaml.ScalarEvent) else 1)
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        if event.anchor is not None:
            self._lengths[event.anchor] = self._length - before
        return node

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        keys = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise _refusal(key, "a key is a word, not a list or a mapping")
            if self.words and key.tag == _NULL:
                key.tag = _TEXT
            if (key.tag, key.value) in keys:
                raise _refusal(
                    key, f"the key {key.value[:40]!r} for the second time in one mapping"
                )
            keys.add((key.tag, key.value))
        return node

    def _lengthen(self, event: yaml.Event, characters: int) -> None:
        self._length += characters
        if self._length > LONGEST:
            raise _refusal(event, f"longer than {LONGEST} characters with its aliases written out")

    def construct_core_scalar(self, node: yaml.ScalarNode) -> Any:
        text, kind = self.construct_scalar(node), node.tag
        if not _SCALARS[kind].fullmatch(text):  # of a tag that was written, as in `!!int ten`
            raise _refusal(node, f"{text[:40]!r} is no {kind.removeprefix(_TAG)}")
        if kind == _NULL:
            return None
        if kind == _TRUTH:
            return text.lower() == "true"
        if kind == _FLOAT:
            return float(re.sub(r"\.(inf|nan)$", r"\1", text.lower()))
        # digits are counted first: Python itself refuses to convert more than 4,300
        number = int(text, 0 if text[:2] in ("0o", "0x") else 10) if len(text) <= 100 else None
        if number is None or number not in _INTEGERS:
            raise _refusal(node, f"an integer of {len(text)} digits, beyond 64 bits")
        return number


class _Words(_Core):
    """Reads every scalar but null as text."""

    words = True
    scalars = {tag: written for tag, written in _SCALARS.items() if tag in (_NULL, f"{_TAG}merge")}


# Nothing else is made: no date, set, or binary, whose converters fail on odd text with errors of
# their own.
_Core.yaml_constructors = {
    **dict.fromkeys((_NULL, _TRUTH, _INTEGER, _FLOAT), _Core.construct_core_scalar),
    **{
        tag: yaml.SafeLoader.yaml_constructors[tag]
        for tag in (_TEXT, f"{_TAG}seq", f"{_TAG}map", None)
    },
}
