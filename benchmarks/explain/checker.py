"""Whether a sentence about a recommendation agrees with the numbers behind it.

Nothing here is taken from what makes the sentences: the sentence is read back with patterns of its
own, the terms are grouped by a table of its own, and what is claimed of the user, the item and
everybody is looked up in the events, the catalogue and the arrays of the recommender. The
contributions come from `:explain`, whose parts add up to the score.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tasteloop.runtime.session import Session

GROUPS = {
    "company": "collaborative factors_liked factors_seen spectral nearby nearby_whole asked_kin",
    "alike": "content opinion",
    "taste": "interest taste",
    "popularity": "popularity",
    "asked": "asked_labels asked_text asked_titles",
    "refused": "refused",
}
CLOSE = 2e-4  # numbers of single precision that were added up in two ways
ENOUGH, SMALL, WHOLE = 0.85, 0.02, 0.95
MARK = re.compile(r"“([^“”]*)”")
PLACE = re.compile(r"‹(\d+)›")

NAMED = "named"  # in a text, and not acted on
# what each verb stands for: kind, and of graded kinds high, middling, low
VERBS = {
    "en": {
        "liked": "rate+ review+ like",
        "tried": "rate= review=",
        "disliked": "rate- review- dislike",
        "viewed": "view",
        "clicked": "click",
        "shared": "share",
        "bought": "purchase",
        "saved": "save",
        "put": "cart",
        "removed": "remove",
        "commented on": "comment",
        "followed": "follow",
        "finished": "play+",
        "played": "play= play",
        "abandoned": "play-",
        "skipped": "skip",
        "hid": "hide",
        "reported": "report",
        "rated": "rate",
        "reviewed": "review",
        "searched for": "search",
        "asked for": NAMED,
    },
    "zh": {
        "喜欢": "rate+ review+ like",
        "试过": "rate= review=",
        "不喜欢": "rate- review- dislike",
        "看过": "view",
        "点开过": "click",
        "分享了": "share",
        "购买了": "purchase",
        "收藏了": "save",
        "把": "cart",
        "移除了": "remove",
        "评论过": "comment review",
        "关注了": "follow",
        "播放完": "play+",
        "播放过": "play= play",
        "中途放弃了": "play-",
        "跳过了": "skip",
        "隐藏了": "hide",
        "举报了": "report",
        "评价过": "rate",
        "搜索了": "search",
        "提到了": NAMED,
    },
}
FRAMES = {
    "en": {"for": r"Because (.*)\.", "against": r"Against it: (.*)\."},
    "zh": {"for": r"因为(.*)。", "against": r"不利之处：(.*)。"},
}
EMPTY = {
    "en": {
        "for": "Hardly anything that we know speaks for it; it is the best of what is left.",
        "against": "Hardly anything speaks against it.",
    },
    "zh": {
        "for": "几乎没有什么特别支持它；它只是剩下内容中最好的。",
        "against": "几乎没有什么不利于它。",
    },
}
_MORE_EN = r"(?:, and (?P<more>\d+) more of your choices? says? so too)?"
_MORE_ZH = r"(?:，你的另外(?P<more>\d+)个选择也这样表明)?"
_SEARCHES_EN = r"(?:, and (?P<more>\d+) more of your searche?s? says? so too)?"
_SEARCHES_ZH = r"(?:，你的另外(?P<more>\d+)次搜索也这样表明)?"
_LABELS_EN = r"(?:, and (?P<more>\d+) more labels? says? so too)?"
_LABELS_ZH = r"(?:，另外(?P<more>\d+)个标签也这样表明)?"
_LEANS = {
    "en": {
        "often": "which you lean towards",
        "seldom": "which you seldom choose",
        "expected": "which we expect of you before we know your choices",
        "unexpected": "which we do not expect of you before we know your choices",
    },
    "zh": {
        "often": "你偏爱的",
        "seldom": "你很少选择的",
        "expected": "，在了解你的选择之前，这是我们对你的预期",
        "unexpected": "，在了解你的选择之前，我们没有预期你会选它",
    },
}
_GOES = {
    "en": {"goes": "goes with", "lacks": "has little to do with"},
    "zh": {"goes": "相合", "lacks": "关系不大"},
}
_ENDS = {
    "en": {
        "for": "also chose this",
        "against": "rather chose other things",
        "new for": "chose things described like this new one",
        "new against": "rather chose things unlike this new one",
    },
    "zh": {
        "for": "也选择了这一个",
        "against": "多半选择了别的",
        "new for": "也选择了与这个新内容相近的",
        "new against": "多半选择了与这个新内容不同的",
    },
}


def _taste_zh(who: str, leans: str, goes: str) -> str:
    if who in ("often", "seldom"):
        return f"它与{leans}(?P<labels>.+){goes}{_LABELS_ZH}"
    return f"它与(?P<labels>.+){goes}{leans}{_LABELS_ZH}"


CLAUSES: dict[str, list[tuple[str, str, str]]] = {
    "en": [
        *(
            ("company", way, rf"you (?P<acts>.+), and people who chose \w+ {end}{_MORE_EN}")
            for way, end in _ENDS["en"].items()
        ),
        ("alike", "like", rf"it is like (?P<titles>.+), which you (?P<verb>.+?){_MORE_EN}"),
        ("alike", "unlike", rf"it is unlike (?P<titles>.+), which you (?P<verb>.+?){_MORE_EN}"),
        *(
            ("taste", f"{who} {how}", rf"it {goes} (?P<labels>.+), {leans}{_LABELS_EN}")
            for who, leans in _LEANS["en"].items()
            for how, goes in _GOES["en"].items()
        ),
        ("popularity", "more", "it is more popular than average at the moment"),
        ("popularity", "less", "it is less known than average at the moment"),
        (
            "popularity",
            "new more",
            "it is new, and things described like it are more popular than average",
        ),
        (
            "popularity",
            "new less",
            "it is new, and things described like it are less known than average",
        ),
        ("asked", "label", rf"you (?P<said>.+), and it is (?P<labels>.+?){_SEARCHES_EN}"),
        ("asked", "title", rf"you (?P<said>.+), which sounds like its title{_SEARCHES_EN}"),
        (
            "asked",
            "near",
            rf"you (?P<said>.+), and its description comes close to that{_SEARCHES_EN}",
        ),
        ("asked", "far", rf"you (?P<said>.+), and its description is far from that{_SEARCHES_EN}"),
        ("refused", "title", rf"you (?P<said>.+), which turns down its title{_SEARCHES_EN}"),
        (
            "refused",
            "label",
            rf"it is (?P<labels>.+), which you may have turned down when you (?P<said>.+?){_SEARCHES_EN}",
        ),
    ],
    "zh": [
        *(
            ("company", way, rf"你(?P<acts>.+)，而选择过它们?的人{end}{_MORE_ZH}")
            for way, end in _ENDS["zh"].items()
        ),
        ("alike", "like", rf"它与(?P<titles>.+)相似，而你(?P<verb>.+?){_MORE_ZH}"),
        ("alike", "unlike", rf"它与(?P<titles>.+)不同，而你(?P<verb>.+?){_MORE_ZH}"),
        *(
            ("taste", f"{who} {how}", _taste_zh(who, leans, goes))
            for who, leans in _LEANS["zh"].items()
            for how, goes in _GOES["zh"].items()
        ),
        ("popularity", "more", "它目前比一般内容更受欢迎"),
        ("popularity", "less", "它目前不如一般内容为人所知"),
        ("popularity", "new more", "它是新内容，与它相近的内容比一般更受欢迎"),
        ("popularity", "new less", "它是新内容，与它相近的内容不如一般为人所知"),
        ("asked", "label", rf"你(?P<said>.+)，而它属于(?P<labels>.+?){_SEARCHES_ZH}"),
        ("asked", "title", rf"你(?P<said>.+)，这与它的名字相符{_SEARCHES_ZH}"),
        ("asked", "near", rf"你(?P<said>.+)，而它的介绍与此接近{_SEARCHES_ZH}"),
        ("asked", "far", rf"你(?P<said>.+)，而它的介绍与此相去甚远{_SEARCHES_ZH}"),
        ("refused", "title", rf"你(?P<said>.+)，这是在拒绝它{_SEARCHES_ZH}"),
        (
            "refused",
            "label",
            rf"它属于(?P<labels>.+)，而你(?P<said>.+)，这可能是在拒绝它{_SEARCHES_ZH}",
        ),
    ],
}
_JOINTS = re.compile(
    r"^(?: and |, |，还|，|、|和| in the cart(?: and |, )?|放进了购物车(?:，还|，)?)*"
)


@dataclass(frozen=True)
class Claim:
    """One clause, read back.

    Attributes:
        kind, way: what it claims; acts: titles with their verbs; labels, said: what it names.
        more: how many parts it counts without a name.
    """

    kind: str
    way: str
    acts: tuple[tuple[str, str], ...] = ()
    labels: tuple[str, ...] = ()
    said: tuple[str, ...] = ()
    more: int = 0


def read(sentence: str, language: str, side: str) -> list[Claim]:
    """The claims of a sentence; none of one that says that there is hardly anything to say.

    Raises:
        ValueError: it is no such sentence.
    """
    if sentence == EMPTY[language][side]:
        return []
    names = MARK.findall(sentence)
    bare = MARK.sub(lambda _, n=iter(range(len(names))): f"‹{next(n)}›", sentence)
    framed = re.fullmatch(FRAMES[language][side], bare)
    if framed is None:
        raise ValueError(f"no sentence {side}: {sentence}")
    clauses = re.split("; and |; " if language == "en" else "；", framed[1])
    return [_claim(clause, names, language) for clause in clauses]


def _claim(clause: str, names: Sequence[str], language: str) -> Claim:
    for kind, way, pattern in CLAUSES[language]:
        found = re.fullmatch(pattern, clause)
        if found is None:
            continue
        groups = found.groupdict()
        acts = _acts(groups.get("acts") or "", names, language)
        if groups.get("verb"):
            verb = groups["verb"].removesuffix(" in the cart")
            verb = "把" if verb.startswith("把") else verb.removesuffix("它们").removesuffix("它")
            acts = tuple((verb, names[int(n)]) for n in PLACE.findall(groups["titles"]))
        return Claim(
            kind,
            way,
            acts,
            tuple(names[int(n)] for n in PLACE.findall(groups.get("labels") or "")),
            tuple(names[int(n)] for n in PLACE.findall(groups.get("said") or "")),
            int(groups.get("more") or 0),
        )
    raise ValueError(f"no clause: {clause}")


def _acts(text: str, names: Sequence[str], language: str) -> tuple[tuple[str, str], ...]:
    """Titles with the verb that stands before each, or before those it stands in a row with."""
    found, verb, end = [], "", 0
    for place in PLACE.finditer(text):
        before = _JOINTS.sub("", text[end : place.start()]).strip()
        verb = before or verb
        found.append((verb, names[int(place[1])]))
        end = place.end()
    return tuple(found)


class Checker:
    """Checks explained recommendations of one session."""

    def __init__(self, session: Session) -> None:
        self.session = session
        recommender = session.recommender
        assert recommender is not None, "a sealed bundle has a recommender"
        self.recommender = recommender
        self.new = set(recommender.new.tolist())

    def problems(
        self, question: Mapping[str, Any], entry: Mapping[str, Any], sentence: str, side: str
    ) -> list[str]:
        """What a sentence says that its numbers do not.

        Args:
            question: as `parse` made it; entry: of `:explain`, with the parts of every term.
            side: whether the sentence says what speaks "for" the item, or "against" it.
        """
        try:
            claims = read(sentence, question["language"], side)
        except ValueError as error:
            return [str(error)]
        sign = 1 if side == "for" else -1
        found = self._nets(entry, claims, sign)
        for kind in dict.fromkeys(claim.kind for claim in claims):
            own = [claim for claim in claims if claim.kind == kind]
            found += self._kind(kind, own, question, entry, sign)
        return found

    def kinds(self, question: Mapping[str, Any], sentence: str, side: str) -> list[str]:
        """The kinds of reasons that a sentence tells, largest first."""
        claims = read(sentence, question["language"], side)
        return list(dict.fromkeys(claim.kind for claim in claims))

    # --- which kinds are told

    def _nets(self, entry: Mapping[str, Any], claims: Sequence[Claim], sign: int) -> list[str]:
        nets = {kind: sign * net for kind, net in net_of(entry).items()}
        kinds = [claim.kind for claim in claims]
        told = list(dict.fromkeys(kinds))
        least = SMALL * sum(map(abs, nets.values()))
        found = [
            f"{kind} is told, and adds {sign * nets.get(kind, 0.0):+.4f}"
            for kind in told
            if nets.get(kind, 0.0) <= 0
        ]
        if sorted(kinds, key=told.index) != kinds or kinds.count("popularity") > 1:
            found.append("a reason is told in two places")
        sizes = [nets.get(kind, 0.0) for kind in told]
        if any(later > earlier + CLOSE for earlier, later in zip(sizes, sizes[1:], strict=False)):
            found.append("a smaller reason stands before a larger one")
        for kind, net in nets.items():
            if kind not in told and net > min(sizes, default=least) + CLOSE:
                found.append(f"{kind} is not told, and adds {sign * net:+.4f}")
        mass = sum(max(net, 0.0) for net in nets.values())
        left = [net for kind, net in nets.items() if kind not in told and net > least + CLOSE]
        if left and sum(sizes) < ENOUGH * mass - CLOSE:
            found.append(f"told is {sum(sizes):.4f} of {mass:.4f}")
        return found

    # --- what is told of one kind

    def _kind(
        self,
        kind: str,
        claims: Sequence[Claim],
        question: Mapping[str, Any],
        entry: Mapping[str, Any],
        sign: int,
    ) -> list[str]:
        item = self.session.catalogue.index[entry["item"]]
        if kind == "popularity":
            return self._popularity(claims, item)
        values = {key: sign * value for key, value in self._values(kind, entry).items()}
        named, found = self._named(kind, claims, question, values)
        for key in named:
            if values.get(key, 0.0) <= 0:
                found.append(f"{kind}: {key} is told, and adds {sign * values.get(key, 0.0):+.4f}")
        told = sorted((values.get(key, 0.0) for key in named), reverse=True)
        rest = sorted((v for key, v in values.items() if key not in named and v > 0), reverse=True)
        if rest and (not told or rest[0] > told[-1] + CLOSE):
            found.append(f"{kind}: a larger part is not named")
        more = claims[-1].more
        if any(claim.more for claim in claims[:-1]):
            found.append(f"{kind}: counted twice")
        mass = sum(max(value, 0.0) for value in values.values())
        counted = sum(told) + sum(rest[:more])
        if more > len(rest):
            found.append(f"{kind}: {more} more are told, there are {len(rest)}")
        if counted < WHOLE * mass - CLOSE:
            found.append(f"{kind}: parts told make {counted:.4f} of {mass:.4f}")
        if 0 < more <= len(rest) and counted - rest[more - 1] > WHOLE * mass + CLOSE:
            found.append(f"{kind}: more parts are counted than are needed")
        for claim in claims:
            if kind == "company" and claim.way.endswith("for") != (sign > 0):
                found.append(f"company: {claim.way} speaks for the other side")
            found += self._way(claim, question, entry, item)
        return found

    def _values(self, kind: str, entry: Mapping[str, Any]) -> dict[str, float]:
        """What each item, label or text adds through all terms of a kind."""
        values: dict[str, float] = defaultdict(float)
        for term in entry["terms"]:
            if term["term"] not in GROUPS[kind].split():
                continue
            for part in term["parts"]:
                if kind in ("company", "alike"):
                    key = str(part["item"])
                else:
                    key = str(part["event"]) if kind in ("asked", "refused") else part["label"]
                values[key] += part["contribution"]
        return values

    def _named(
        self,
        kind: str,
        claims: Sequence[Claim],
        question: Mapping[str, Any],
        values: Mapping[str, float],
    ) -> tuple[list[str], list[str]]:
        """The keys of the parts that are named, and what is wrong with the names. Where a name may
        be one of several, such as two films of one title, it is the one that adds most.
        """
        named: list[str] = []
        found: list[str] = []

        def choose(keys: Sequence[str], wrong: str) -> None:
            left = [key for key in keys if key not in named]
            if left:
                named.append(max(left, key=lambda key: values.get(key, 0.0)))
            else:
                found.append(wrong)

        events, language = question["events"], question["language"]
        for claim in claims:
            for label in claim.labels if kind == "taste" else ():
                choose([label], f"taste: {label!r} twice")
            for verb, title in claim.acts:
                done = [
                    str(e.item)
                    for e in events
                    if e.item
                    and _same(self._title(e.item), title)
                    and self._is_verb(e, verb, language)
                ]
                if VERBS[language].get(verb) == NAMED:
                    text = self.session.text
                    acted = {
                        e.item
                        for e in events
                        if e.is_act and e.opinion(text.positive, text.negative) >= 0
                    }
                    done = [
                        key for key in values if key not in acted and _same(self._title(key), title)
                    ]
                choose(done, f"{kind}: nobody {verb} {title!r}")
            for text in claim.said:
                places = [
                    str(n)
                    for n, e in enumerate(events)
                    if e.item is None and e.text and _same(e.text, text)
                ]
                choose(places, f"{kind}: nobody said {text!r}")
        return named, found

    def _title(self, item: str) -> str:
        position = self.session.catalogue.index.get(item)
        return item if position is None else self.session.catalogue.titles[position]

    def _is_verb(self, event: Any, verb: str, language: str) -> bool:
        meant = VERBS[language].get(verb, "").split()
        grade = ""
        if event.value is not None:
            high, low = self.session.text.positive, self.session.text.negative
            grade = "+" if event.value >= high - 1e-6 else "-" if event.value < low else "="
        return event.kind in meant or event.kind + grade in meant

    # --- what is claimed of the item, the user and everybody

    def _popularity(self, claims: Sequence[Claim], item: int) -> list[str]:
        popularity = self.recommender.popularity
        is_more, is_new = popularity[item] > popularity.mean(), item in self.new
        meant = ("new " if is_new else "") + ("more" if is_more else "less")
        return [f"popularity: {c.way}, it is {meant}" for c in claims if c.way != meant]

    def _way(
        self, claim: Claim, question: Mapping[str, Any], entry: Mapping[str, Any], item: int
    ) -> list[str]:
        if claim.kind == "company" and claim.way.startswith("new") != (item in self.new):
            return [f"company: {claim.way}, and the item is new: {item in self.new}"]
        if claim.kind == "alike":
            return [
                p
                for act in claim.acts
                for p in self._alike(act[1], claim.way, question, entry, item)
            ]
        if claim.kind == "taste":
            return [
                p
                for label in claim.labels
                for p in self._taste(label, claim.way, question, entry, item)
            ]
        if claim.kind in ("asked", "refused"):
            return self._said(claim, question, entry, item)
        return []

    def _said(
        self, claim: Claim, question: Mapping[str, Any], entry: Mapping[str, Any], item: int
    ) -> list[str]:
        """What a text is claimed to say is a part of it with the sign of its whole."""
        found = []
        own = self.session.catalogue.labels[item]
        parts = [
            (term["term"], part, question["events"][part["event"]].text)
            for term in entry["terms"]
            if term["term"] in GROUPS[claim.kind].split()
            for part in term["parts"]
        ]
        sign = -1 if claim.kind == "refused" or claim.way == "far" else 1
        for text in claim.said:
            of_text = [(name, part) for name, part, said in parts if _same(said, text)]
            if claim.way == "label":
                for label in claim.labels:
                    says = [p["contribution"] for _, p in of_text if p.get("label") == label]
                    if label not in own or not any(sign * value > 0 for value in says):
                        found.append(f"{claim.kind}: {text!r} is not about {label!r}")
                continue
            term = "asked_text" if claim.way in ("near", "far") else f"{claim.kind}_titles"
            if claim.kind == "refused":
                term = "refused"
            says = [
                part["contribution"]
                for name, part in of_text
                if name == term and "label" not in part
            ]
            if not any(sign * value > 0 for value in says):
                found.append(f"{claim.kind}: {text!r} is not {claim.way}")
        return found

    def _alike(
        self, title: str, way: str, question: Mapping[str, Any], entry: Mapping[str, Any], item: int
    ) -> list[str]:
        """Likeness by the arrays: cosines of texts above their mean, or labels in common."""
        index = self.session.catalogue.index
        others = [
            index[e.item]
            for e in question["events"]
            if e.item in index and _same(self._title(e.item), title)
        ]
        r = self.recommender
        for other in others:
            parts = {
                t["term"]: sum(
                    p["contribution"]
                    for p in t["parts"]
                    if p["item"] == self.session.catalogue.items[other]
                )
                for t in entry["terms"]
                if t["term"] in ("content", "opinion")
            }
            cosines = r.vectors @ r.vectors[other]
            if max(parts, key=lambda name: abs(parts[name])) == "content":
                is_like = bool(cosines[item] > cosines.mean())
            else:
                is_like = bool(r.kin[other] @ r.kin[item] > 0)
            if is_like == (way == "like"):
                return []
        return [f"alike: {title!r} is not {way}"]

    def _taste(
        self, label: str, way: str, question: Mapping[str, Any], entry: Mapping[str, Any], item: int
    ) -> list[str]:
        """What the user leans towards by their own counts, or by the model's probability; what the
        item goes with by its labels, or by what followed on the label.
        """
        session, r = self.session, self.recommender
        if label not in (*session.labels, *session.catalogue.label_names):
            return [f"taste: there is no label {label!r}"]
        parts = {
            t["term"]: sum(p["contribution"] for p in t["parts"] if p.get("label") == label)
            for t in entry["terms"]
            if t["term"] in ("interest", "taste")
        }
        larger = max(parts, key=lambda name: abs(parts[name]))
        if larger == "taste":
            k = session.catalogue.label_names.index(label)
            seen = sorted(self._seen(question))
            share = (r.membership[seen, k].sum() + 5 * r.label_share[k]) / (len(seen) + 5)
            leans = share - max(r.label_share[k], 1e-4)
            goes = r.membership[item, k] - r.membership[:, k].mean()
        else:
            k = session.labels.index(label)
            leans = session.interests([question["events"]])[0, k] - r.label_mean[k]
            goes = r.ties[k, item] - r.ties[k].mean()
        known = bool(self._seen(question))
        who = ("often", "seldom") if known else ("expected", "unexpected")
        found = []
        if abs(leans) > 1e-5 and way.split()[0] != who[int(leans < 0)]:
            found.append(f"taste: {way} of {label!r}, and the user leans by {leans:+.4f}")
        if abs(goes) > 1e-7 and way.split()[1] != ("goes" if goes > 0 else "lacks"):
            found.append(f"taste: {way} of {label!r}, and the item goes with it by {goes:+.4f}")
        return found

    def _seen(self, question: Mapping[str, Any]) -> set[int]:
        """Items that some act does not reject."""
        text, index = self.session.text, self.session.catalogue.index
        return {
            index[e.item]
            for e in question["events"]
            if e.item in index and e.is_act and e.opinion(text.positive, text.negative) >= 0
        }


def net_of(entry: Mapping[str, Any]) -> dict[str, float]:
    """What each kind of reason adds up to, from the terms."""
    terms = {term["term"]: term["contribution"] for term in entry["terms"]}
    return {
        kind: sum(terms[name] for name in names.split() if name in terms)
        for kind, names in GROUPS.items()
        if any(name in terms for name in names.split())
    }


def coverage(
    question: Mapping[str, Any],
    entry: Mapping[str, Any],
    sentence: str,
    checker: Checker,
    counted: bool = True,
) -> float | None:
    """The share of the score's positive mass that a sentence covers; None where there is no mass.

    The positive mass is the sum of the kinds that add something, each by its net. A kind that is
    told covers its net as far as its parts that are named (and counted) make up its positive parts.
    """
    nets = net_of(entry)
    mass = sum(max(net, 0.0) for net in nets.values())
    if mass <= 0:
        return None
    covered = 0.0
    claims = read(sentence, question["language"], "for")
    for kind in dict.fromkeys(claim.kind for claim in claims):
        own = [claim for claim in claims if claim.kind == kind]
        values = checker._values(kind, entry)
        positive = sum(max(value, 0.0) for value in values.values())
        if kind == "popularity" or positive <= 0:
            covered += nets[kind]
            continue
        named, _ = checker._named(kind, own, question, values)
        told = sum(max(values.get(key, 0.0), 0.0) for key in named)
        rest = sorted((v for key, v in values.items() if key not in named and v > 0), reverse=True)
        told += sum(rest[: own[-1].more]) if counted else 0.0
        covered += nets[kind] * min(told / positive, 1.0)
    return covered / mass


def _same(text: str, shown: str) -> bool:
    """Whether a text is what a sentence shows of it."""
    plain = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    plain = plain.replace("“", "'").replace("”", "'")
    if shown.endswith("…") and not plain.endswith("…"):
        return plain.startswith(shown[:-1].rstrip())
    return plain == shown


def explained_numbers(entry: Mapping[str, Any]) -> float:
    """How far the parts of the terms, and the reasons, are from adding up to the score."""
    of_reasons = sum(reason["contribution"] for reason in entry["reasons"])
    worst = abs(of_reasons - entry["score"])
    for term in entry["terms"]:
        if term["parts"]:
            total = sum(part["contribution"] for part in term["parts"])
            worst = max(worst, abs(total - term["contribution"]))
    return float(np.float64(worst))
