"""Single elements as values, for what stands inside a template: plots, times, phrases with links.

Markup is a type. `tag` escapes every child and every attribute that is not `Safe`, and only this
module makes `Safe` values, so a film named `</script><script>` is text wherever it appears. Joining
or formatting a `Safe` with ordinary string operations gives a plain `str` again, which is escaped
when it is used: forgetting is harmless. Templates take a `Safe` as markup, and all else as text.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable
from typing import TypeAlias

VOID = re.compile("br|hr|col")
TAG = re.compile(
    "a|article|b|bdi|blockquote|br|caption|code|col|colgroup|dd|details|div|dl|dt|em|figcaption|figure|footer|"
    "h[1-4]|header|hr|i|li|main|nav|ol|p|pre|section|small|span|strong|sub|summary|sup|table|tbody|td|tfoot|th|"
    "thead|time|tr|ul|svg|g|title|desc|line|polyline|polygon|path|rect|circle|text"
)
ATTRIBUTE = re.compile(
    "class|id|style|href|lang|dir|scope|colspan|rowspan|role|tabindex|open|datetime|title|(aria|data)-[a-z-]+|"
    "width|height|viewBox|x[12]?|y[12]?|cx|cy|r|d|points|transform|fill|stroke(-[a-z]+)?|text-anchor"
)
# a page links only to itself and to pages beside it
TARGET = re.compile(r"#.*|(\.\./)*([\w-][\w.-]*/)*[\w-][\w.-]*\.(html|json)(#[\w.-]*)?", re.A)
STYLE = re.compile(r"--[a-z]+:[0-9.]+")
CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


class Safe(str):
    """Markup made by this module; everything else is text."""

    __slots__ = ()

    def __html__(self) -> str:
        """What a template writes for it."""
        return str(self)


# Safe, several of them, None (nothing), or any value, whose text is escaped
Child: TypeAlias = object


def visible(value: object) -> str:
    """The text of a value with control characters as U+FFFD."""
    return CONTROL.sub("�", str(value))


def escape(value: object) -> Safe:
    """The text of any value as inert HTML, also in quoted attributes; control characters become
    U+FFFD.

    >>> escape("</script>")
    '&lt;/script&gt;'
    """
    return value if isinstance(value, Safe) else Safe(html.escape(visible(value)))


def join(children: Iterable[Child], between: str = "") -> Safe:
    """Several children one after the other."""
    return Safe(escape(between).join(_child(child) for child in children))


def tag(name: str, *children: Child, **attributes: object) -> Safe:
    """One element. `class_` means class and `aria_label` aria-label; None or False leaves an
    attribute out.

    Raises:
        ValueError: an element or attribute that could run or load something.
    """
    if not TAG.fullmatch(name):
        raise ValueError(f"element {name!r} is not in this kit; known: {TAG.pattern}")
    parts = [name]
    for key, value in attributes.items():
        key = key.rstrip("_").replace("_", "-")
        if not ATTRIBUTE.fullmatch(key):
            raise ValueError(f"attribute {key!r} is not in this kit; known: {ATTRIBUTE.pattern}")
        if key == "href" and not TARGET.fullmatch(str(value)):
            raise ValueError(
                f"a page links only to itself and to pages beside it: '#…', 'a/b.html', not {value!r}"
            )
        if key == "style" and not STYLE.fullmatch(str(value)):
            raise ValueError(f"a style attribute only sets a number, '--share:0.5', not {value!r}")
        if value is None or value is False:
            continue
        parts.append(key if value is True else f'{key}="{html.escape(visible(value))}"')
    opening = "<" + " ".join(parts) + ">"
    return Safe(opening if VOID.fullmatch(name) else f"{opening}{join(children)}</{name}>")


def _child(child: Child) -> str:
    if child is None:
        return ""
    if isinstance(child, list | tuple | map | filter) or hasattr(child, "__next__"):
        return join(child)  # type: ignore[arg-type]
    if hasattr(child, "__html__"):  # of a template's macro
        return str(child.__html__())
    return escape(child)
