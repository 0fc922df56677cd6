"""The last look at a page before it is written: nothing on it can run, or load, or is left open.

Templates escape what they are given, so this finds mistakes in the templates themselves.
"""

from __future__ import annotations

from html.parser import HTMLParser

from validation.markup.elements import ATTRIBUTE, STYLE, TAG, TARGET, VOID

_FRAME = ("html", "head", "body", "meta", "style")
_META = ("charset", "name", "content", "http-equiv")


def check_page(text: str) -> str:
    """The page itself.

    Raises:
        ValueError: an element or attribute that could run or load something, or an element that
            is not closed.
    """
    parser = _Check()
    parser.feed(text)
    parser.close()
    if parser.open:
        raise ValueError(f"<{parser.open[-1]}> is not closed")
    return text


class _Check(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if not TAG.fullmatch(tag) and tag not in _FRAME:
            raise ValueError(f"element {tag!r} is not in this kit; known: {TAG.pattern}")
        for name, value in attrs:
            name = "viewBox" if name == "viewbox" else name
            if not (ATTRIBUTE.fullmatch(name) or (tag == "meta" and name in _META)):
                raise ValueError(f"attribute {name!r} of <{tag}> is not in this kit")
            if name == "href" and not TARGET.fullmatch(value or ""):
                raise ValueError(f"a page links only to itself and to pages beside it: {value!r}")
            if name == "style" and not STYLE.fullmatch(value or ""):
                raise ValueError(f"a style attribute only sets a number, not {value!r}")
        if tag != "meta" and not VOID.fullmatch(tag):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            raise ValueError(f"</{tag}> closes an element that is not open")
