"""A text cut where what is said may change its sign: "comedy, not animation" wants one and refuses
the other.
"""

from __future__ import annotations

import re

# What a clause ends at, and is no part of it. In "1,000" and "3.5" nothing ends.
_ENDS = re.compile(r"[,;:.!?\n|()\"“”]+(?=\s|$)|[,;!?]+(?=[^\W\d])|\s[-–—]\s|[，。；：！？、（）]")

# A clause begins with these, in English where something stands before them. "Horror never bored
# me", "musicals don't interest me" and "horror not again" go on with what was said.
_BEGINS = re.compile(
    r"\s+(?=(?:but|however|although|though|rather than|instead of|except|excluding|without|minus"
    r"|other than|apart from|aside from|as long as|unless|nor|less|free (?:of|from)|with no"
    r"|no(?! (?:go|point|pleasure|fun|joy)\b)"
    r"|not(?! (?:for (?:me|us)|my|our|again|today|tonight|now|any ?more|worth)\b)"
    r"|never(?! (?:\w+ed|was|were|is|are|will|would|had|has|did|does|got|gets?|lets?|made|makes?"
    r"|felt|grew|grows?|fails?|disappoints?|bores?|tires?|goes)\b)"
    r"|and (?:no|not|hide|skip|avoid|remove|exclude|drop|block|ban|leave out)"
    r"|(?:don'?t|do not)(?! (?:do (?:it|anything)|work|interest|appeal|excite|amuse|move|speak|grab"
    r"|click|suit|fit|entertain|thrill|bore|disappoint|get old|let (?:me|us) down)\b)"
    r"|which (?:is|are|has|have)|that (?:has|have) no|(?:show|give|find|suggest|recommend) me)\b)",
    re.IGNORECASE,
)
_CHINESE_BEGINS = re.compile(
    r"(?<=.)(?=但|而不是|不过(?!瘾)|除了|不要|不想|不喜欢|不看(?!了|$)|讨厌|别(?![的人墅致])|少[点一些]"
    r"|最好[不别没]|千万[不别]|请[不别])"
)

# After these a word that begins a clause belongs to what was said before it.
_KEEPS = re.compile(
    r"\b(?:anything|everything|all|nothing|something|any|none|one|else|whatever|anyone|is|are|was"
    r"|i'?m|am|be|it'?s|that'?s|have|has|had|do|does|did|will|would|can|could|should|must|may|might"
    r"|if|but|and|or|why|which|that|so|definitely|absolutely|please|pls|kindly|just|really|probably"
    r"|certainly|surely|strictly|simply|preferably|ideally|hopefully|rather|sooner|i|we|you|they"
    r"|there|let'?s|say|says|don'?t|won'?t|not|no|\w+'(?:d|ll|ve|re|s)|of|for|in|at|by|under|the|an?"
    r"|with|to|hell|hard|big|care|dare|always|only|ever|never|sorry|thanks|thank you|impossible"
    r"|(?:any|every|all) (?:genres?|kinds?|sorts?|types?|films?|movies?|things?|topics?))$"
    r"|^(?:(?:i|we)(?:'d| would)? )?prefer$",
    re.IGNORECASE,
)
# "I can't live without horror", "a day without horror".
_WITHOUT = re.compile(r"without\b", re.IGNORECASE)
_KEEPS_WITHOUT = re.compile(
    r"\b(?:live|lost|bored|empty|off|go|manage)$"
    r"|\b(?:can'?t|cannot|can not|couldn'?t|could not|never|won'?t)(?: \w+)?"
    r" (?:live|do|go|imagine|have|survive|be|sleep|spend|get|leave)\b"
    r"|\bno .*\bcomplete$|^(?:(?:not )?an?|not one|no) (?:\w+ )?(?:day|week|weekend|night|evening)$",
    re.IGNORECASE,
)
# "我也|不想看", "孩子|不喜欢", "特|别喜欢" and "要|不要" are no ends of a clause either.
_CHINESE_KEEPS = re.compile(
    r"(?:[我你他她们谁也都就请但是要想看能来从天最很真更超不多至减婆公子妈爸友人家特级类性区分个差告离]"
    r"|千万|根本|真的|实在|绝对|一定|完全|最好|非常|特别|麻烦|可以|今晚|现在|暂时|再好|不过)$"
)
# Of two that are compared the second is refused; "I prefer not to see horror" compares none.
_COMPARES = re.compile(
    r"\b(prefer|take|pick|choose|have|like|want|enjoy|watch|see)\b.+?\s+(?=(?:over"
    r"|to(?! (?:see|watch|have|be|avoid|skip|not|get|find)\b)|more than|better than|rather than)"
    r"\s+.+$)",
    re.IGNORECASE,
)
# A clause that only says no says it of the one before.
_BARE = re.compile(
    r"^(?:no|nope|never|not|no,? thanks|no thank you|please no|not for (?:me|us)|not again|not today"
    r"|not tonight|not now|not any ?more|not my thing|never again|no way|no chance|hard pass"
    r"|please stop|please don'?t|stop it|enough already|不要|不|不了|不用了|不行|免了|算了)$",
    re.IGNORECASE,
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
    r"|n't\b|[不没]|(?<![特级类性区分个差告离])别(?![的人墅致])|讨厌|除了?|以外|少[点一些推]|拒绝|腻|(?<!麻)烦|屏蔽|去掉",
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
# "有没有", "能不能", "要不要": a question, which refuses nothing.
_WHETHER = re.compile(r"([\u4e00-\u9fff])[不没]\1")
_MOST = 12  # clauses of a text that are read, the last ones
# Characters of a text that are cut, the last ones, and before a word that may begin a clause those
# that decide whether it does: so the time grows with a text's length, and not with its square.
_LAST, _BEFORE = 4000, 80


def clauses(text: str) -> list[str]:
    """The clauses of a text, in order; at most 12, the last ones, of its last 4,000 characters.

    >>> clauses("comedy, not animation")
    ['comedy', 'not animation']
    >>> clauses("I prefer westerns to musicals")
    ['I prefer westerns', 'to musicals']
    >>> clauses("anything but horror"), clauses("no horror")
    (['anything but horror'], ['no horror'])
    >>> clauses("想看喜剧，不要恐怖片"), clauses("特别想看喜剧")
    (['想看喜剧', '不要恐怖片'], ['特别想看喜剧'])
    >>> clauses("horror never interested me"), clauses("thrillers never horror")
    (['horror never interested me'], ['thrillers', 'never horror'])
    >>> clauses("I can't live without horror"), clauses("a comedy without romance")
    (["I can't live without horror"], ['a comedy', 'without romance'])
    """
    found: list[str] = []
    for part in _ENDS.split(text[-_LAST:]):
        for clause in _cut(part.strip()):
            if found and _BARE.match(clause):
                found[-1] += f", {clause}"
            elif any(char.isalnum() for char in clause):
                found.append(clause)
    return found[-_MOST:]


def _cut(part: str) -> list[str]:
    """One part between marks, cut before the words that begin a clause."""
    cuts = [m.end() for m in _BEGINS.finditer(part) if not _goes_on(part, m.start(), m.end())]
    cuts += [
        match.start()
        for match in _CHINESE_BEGINS.finditer(part)
        if not _ends_with(_CHINESE_KEEPS, part, match.start())
    ]
    compared = _COMPARES.search(part)
    if compared and re.search(r"\b(prefer|over|more than|better than|rather than)\b", part, re.I):
        cuts.append(compared.end())
    ends = [0, *sorted(set(cuts)), len(part)]
    return [part[begin:end].strip() for begin, end in zip(ends, ends[1:], strict=False)]


def _goes_on(part: str, end: int, begin: int) -> bool:
    """Whether what begins as a clause does belongs to what was said before it, up to `end`."""
    if _ends_with(_KEEPS, part, end):
        return True
    return bool(_WITHOUT.match(part, begin) and _ends_with(_KEEPS_WITHOUT, part, end))


def _ends_with(pattern: re.Pattern[str], part: str, end: int) -> bool:
    """Whether a pattern that ends with `$` is found in the last characters before `end`."""
    return pattern.search(part, max(0, end - _BEFORE), end) is not None


def cues(clause: str) -> tuple[bool, bool]:
    """Whether a clause holds a word that mostly refuses, and whether that is a turn of phrase that
    does not.

    >>> cues("no horror"), cues("I can't wait for horror"), cues("horror, please")
    ((True, False), (True, True), (False, False))
    >>> cues("有没有恐怖片"), cues("没有恐怖片"), cues("特别喜欢恐怖片")
    ((False, False), (True, False), (False, False))
    """
    said = _WHETHER.sub("", clause)
    return bool(_REFUSES.search(said)), bool(_REFUSES_NOT.search(said))
