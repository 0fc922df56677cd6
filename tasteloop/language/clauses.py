"""A text cut where what is said may change its sign: "comedy, not animation" wants one and refuses
the other.
"""

from __future__ import annotations

import re

# What a clause ends at, and is no part of it.
_ENDS = re.compile(r"[,;:.!?\n|()\"“”]+(?=\s|$)|\s[-–—]\s|[，。；：！？、（）]")

# A clause begins with these, in English where something stands before them.
_BEGINS = re.compile(
    r"\s+(?=(?:but|however|although|though|rather than|instead of|except|excluding|without|minus"
    r"|other than|apart from|aside from|as long as|unless|not|no|nor|never|less|and no|and not"
    r"|don'?t|do not|which (?:is|are|has|have)|(?:show|give|find|suggest|recommend) me)\b)",
    re.IGNORECASE,
)
_CHINESE_BEGINS = re.compile(r"(?<=.)(?=但|而不是|不过|除了|不要|不想|别|少[点一些])")

# After these a word that begins a clause belongs to what was said before it.
_KEEPS = re.compile(
    r"\b(?:anything|everything|all|nothing|something|any|none|one|else|whatever|anyone|is|are|was"
    r"|i'?m|am|be|it'?s|that'?s|have|has|had|do|does|did|will|would|can|could|should|if|but|and|or"
    r"|why|which|that|so|definitely|absolutely|please|just|really|probably|certainly|rather|i|we"
    r"|you|they|there|let'?s|say|says|don'?t|won'?t|not)$",
    re.IGNORECASE,
)
# Of two that are compared the second is refused.
_COMPARES = re.compile(
    r"\b(prefer|take|pick|choose|have|like|want|enjoy|watch|see)\b.+?"
    r"\s+(?=(?:over|to|more than|better than|rather than)\s+.+$)",
    re.IGNORECASE,
)
# A clause that only says no says it of the one before.
_BARE = re.compile(
    r"^(?:no|nope|never|not|no,? thanks|no thank you|please no|不要|不)$", re.IGNORECASE
)
# Words that mostly refuse what stands beside them, and turns of phrase with such a word that do
# not.
_REFUSES = re.compile(
    r"\b(?:no|not|none|nope|nah|never|nothing|without|except|excluding|exclude|besides|minus|less"
    r"|fewer|avoid(?:ing)?|skip(?:ping)?|hat(?:e|es|ed|ing)|dislik(?:e|es|ing)|detest|despise|loathe"
    r"|can'?t stand|can(?:no|')?t bear|block|hide|remove|drop|ban|stop|quit|enough|tired|sick|bor(?:ed?"
    r"|es|ing)|weary|fed up|over it|instead of|rather than|other than|apart from|aside from"
    r"|(?:anything|everything|all|anyone|whatever|any|else) but|leave (?:out|off|aside|away)"
    r"|(?:stay|keep|steer|far) (?:out|off|away|clear|from)|spare (?:me|us)|worst|awful|yuck|ugh)\b"
    r"|n't\b|[不别没]|讨厌|除了?|以外|少[点一些推]|拒绝|腻|烦|屏蔽|去掉",
    re.IGNORECASE,
)
_REFUSES_NOT = re.compile(
    r"\b(?:can'?t|cannot|couldn'?t|could not) (?:wait|get enough|have enough|stop|help|resist|go wrong"
    r"|live without|say no|beat|be happier|do without)|\bno (?:matter|doubt|idea|wonder|problem)\b"
    r"|\b(?:never|not) (?:be )?(?:tired|bored|enough|miss|skip|fails?|disappoint\w*|had a bad|too)\b"
    r"|\bnothing (?:but|better|beats|like a|compares)|\b(?:don'?t|do not|never|wouldn'?t|stop|not) "
    r"(?:mind|skip|hide|forget|miss|say no|leave out|remove|hiding)|\bwhy not\b|\bnot only\b"
    r"|\b(?:isn'?t|aren'?t) there|\b(?:don'?t|haven'?t) you (?:have|got)|\bnot against\b"
    r"|\bwho (?:doesn'?t|wouldn'?t)\b|百看不厌|不错",
    re.IGNORECASE,
)
_MOST = 12  # clauses of a text that are read, the last ones


def clauses(text: str) -> list[str]:
    """The clauses of a text, in order; at most 12, the last ones.

    >>> clauses("comedy, not animation")
    ['comedy', 'not animation']
    >>> clauses("I prefer westerns to musicals")
    ['I prefer westerns', 'to musicals']
    >>> clauses("anything but horror"), clauses("no horror")
    (['anything but horror'], ['no horror'])
    >>> clauses("想看喜剧，不要恐怖片")
    ['想看喜剧', '不要恐怖片']
    """
    found: list[str] = []
    for part in _ENDS.split(text):
        for clause in _cut(part.strip()):
            if found and _BARE.match(clause):
                found[-1] += f", {clause}"
            elif any(char.isalnum() for char in clause):
                found.append(clause)
    return found[-_MOST:]


def _cut(part: str) -> list[str]:
    """One part between marks, cut before the words that begin a clause."""
    cuts = [
        match.end() for match in _BEGINS.finditer(part) if not _KEEPS.search(part[: match.start()])
    ]
    cuts += [match.start() for match in _CHINESE_BEGINS.finditer(part)]
    compared = _COMPARES.search(part)
    if compared and re.search(r"\b(prefer|over|more than|better than|rather than)\b", part, re.I):
        cuts.append(compared.end())
    ends = [0, *sorted(set(cuts)), len(part)]
    return [part[begin:end].strip() for begin, end in zip(ends, ends[1:], strict=False)]


def cues(clause: str) -> tuple[bool, bool]:
    """Whether a clause holds a word that mostly refuses, and whether that is a turn of phrase that
    does not.

    >>> cues("no horror"), cues("I can't wait for horror"), cues("horror, please")
    ((True, False), (True, True), (False, False))
    """
    return bool(_REFUSES.search(clause)), bool(_REFUSES_NOT.search(clause))
