"""A sentence says what its numbers say: nothing else, and the largest of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.explain.checker import Checker, coverage, explained_numbers, net_of
from tasteloop.answers import LANGUAGES
from tasteloop.behaviour.events import Event
from tasteloop.behaviour.items import Catalogue
from tasteloop.behaviour.kinds import DECLARED
from tasteloop.behaviour.text import TextSettings
from tasteloop.errors import TasteloopError
from tasteloop.recommender.folding import FoldedHistories
from tasteloop.recommender.ideas import COMPANY, IDEAS, Idea
from tasteloop.recommender.recommend import ASKED, IDEA_OF_TERM, TERMS
from tasteloop.runtime.explain import explain
from tasteloop.runtime.questions import Question, parse
from tasteloop.runtime.reasons import Part, Reason
from tasteloop.runtime.sentences import LONGEST, Teller, quoted
from tasteloop.runtime.session import Session

ANSWERS = 1000
ACTS = [kind.word for kind in DECLARED if kind.word not in ("search", "review", "rate")]
SAID = (
    "good comedy",
    "war drama",
    "no crime please",
    "i1",
    "film i7",
    "no comedy, but war",
    "title 7",
    "title 12",
)


def weights_of(n: int) -> dict[str, tuple[float, float]]:
    """λ of every sign, of which some take back what others say."""
    rng = np.random.default_rng(n)
    drawn = dict(zip(TERMS, rng.normal(0, 0.4, (len(TERMS), 2)).tolist(), strict=True))
    weights = {name: (a, b / 4) for name, (a, b) in drawn.items()}
    weights |= {"nearby": (3.0, 0.1), "nearby_whole": (-2.9, 0.1), "opinion": (0.4, 0.0)}
    asked = {
        "asked_labels": 2.5,
        "asked_text": 0.4,
        "asked_titles": 3.0,
        "asked_kin": 1.5,
        "refused": 1.0,
    }
    return weights | {name: (value, 0.0) for name, value in asked.items()}


def history(rng: np.random.Generator) -> list[dict[str, Any]]:
    """Up to a dozen acts of any kind, sometimes with a text among them, sometimes none."""
    events: list[dict[str, Any]] = []
    for item in rng.choice(42, rng.integers(0, 13), replace=False):
        if rng.random() < 0.6:
            events.append({"kind": "rate", "item": f"i{item}", "value": rng.integers(0, 5) / 4})
        else:
            events.append({"kind": str(rng.choice(ACTS)), "item": f"i{item}"})
    for said in rng.choice(SAID, rng.integers(0, 3) if rng.random() < 0.5 else 0, replace=False):
        at = int(rng.integers(0, len(events) + 1))
        events.insert(at, {"kind": "search", "text": str(said)})
    return events


@pytest.fixture(scope="module")
def session(tiny_bundle: Path) -> Session:
    session = Session.load(tiny_bundle)
    assert session.listens, "it reads what is asked for"
    return session


def retuned(session: Session, n: int) -> None:
    """Other λ, and another few items that nobody has met."""
    assert session.recommender is not None
    rng = np.random.default_rng(100 + n)
    new = np.sort(rng.choice(40, 5, replace=False)).astype(np.int32)
    session.recommender = replace(
        session.recommender, weights=weights_of(n), new=new, new_weights=weights_of(50 + n)
    )


Told = tuple[Question, dict[str, Any]]


@pytest.fixture(scope="module")
def thousand(session: Session) -> Iterator[list[tuple[Checker, Told]]]:
    """Explained answers of ten models to 1,000 questions."""
    rng = np.random.default_rng(0)
    before, told = session.recommender, []
    for model in range(10):
        retuned(session, model)
        instances = [
            {
                "events": history(rng),
                "k": 1,
                "language": LANGUAGES[n % 2],
                "against": True,
            }
            for n in range(ANSWERS // 10)
        ]
        checker = Checker(session)
        for question in parse("recommend", instances):
            [explanation] = explain(session, "recommend", [question])
            [entry] = explanation["recommendations"]
            told.append((checker, (question, entry)))
        # the checker asks the model only for interests, which do not depend on λ
    yield told
    session.recommender = before


def test_no_sentence_of_1000_answers_contradicts_its_numbers(
    thousand: list[tuple[Checker, Told]],
) -> None:
    problems = []
    kinds: Counter[str] = Counter()
    for checker, (question, entry) in thousand:
        for side, sentence in (("for", entry["reason"]), ("against", entry["against"])):
            found = checker.problems(question, entry, sentence, side)
            problems += [f"{sentence} {each}" for each in found]
            kinds.update(f"{side} {kind}" for kind in checker.kinds(question, sentence, side))
        assert explained_numbers(entry) < 1e-3

    assert len(thousand) == ANSWERS
    assert problems == []
    # every kind was told, for and against, or nothing was checked of it
    for idea in IDEAS:
        assert kinds[f"against {idea.name}"] >= 5, idea.name
        if idea.name != "refused":
            assert kinds[f"for {idea.name}"] >= 5, idea.name


def test_the_largest_parts_cover_what_speaks_for_an_answer(
    thousand: list[tuple[Checker, Told]],
) -> None:
    shares = [
        share
        for checker, (question, entry) in thousand
        if (share := coverage(question, entry, entry["reason"], checker)) is not None
    ]

    assert len(shares) > 0.9 * ANSWERS
    assert np.mean(np.array(shares) >= 0.8) >= 0.9


def mutate(sentence: str, rng: np.random.Generator, titles: list[str], language: str) -> str:
    """A sentence with one thing in it changed."""
    inner = sentence.split("“")
    if len(inner) > 1 and rng.random() < 0.5:
        at = int(rng.integers(1, len(inner)))
        _, _, rest = inner[at].partition("”")
        inner[at] = f"{rng.choice(titles)}”{rest}"
        return "“".join(inner)
    swaps = {
        "en": [
            ("liked ", "disliked "),
            ("also chose this", "rather chose other things"),
            ("more popular than", "less known than"),
            ("is like", "is unlike"),
            ("goes with", "has little to do with"),
            ("lean towards", "seldom choose"),
            ("comes close to", "is far from"),
            ("; and ", "; and it is more popular than average at the moment; and "),
        ],
        "zh": [
            ("喜欢", "不喜欢"),
            ("也选择了这一个", "多半选择了别的"),
            ("更受欢迎", "不如一般内容为人所知"),
            ("相似", "不同"),
            ("相合", "关系不大"),
            ("偏爱的", "很少选择的"),
            ("与此接近", "与此相去甚远"),
        ],
    }[language]
    old, new = swaps[int(rng.integers(0, len(swaps)))]
    return sentence.replace(old, new, 1)


def test_a_sentence_with_a_fault_in_it_is_found(thousand: list[tuple[Checker, Told]]) -> None:
    rng = np.random.default_rng(1)
    missed, planted = [], 0
    for checker, (question, entry) in thousand:
        titles = [title for title in checker.session.catalogue.titles if title]
        changed = mutate(entry["reason"], rng, titles, question["language"])
        if changed == entry["reason"]:
            continue
        planted += 1
        if not checker.problems(question, entry, changed, "for"):
            missed.append((entry["reason"], changed))

    assert planted > 300
    assert missed == []


@pytest.mark.parametrize(
    "fault", ["another's", "the other side's", "numbers turned", "a term more", "nothing"]
)
def test_a_sentence_is_that_of_its_own_numbers(
    thousand: list[tuple[Checker, Told]], fault: str
) -> None:
    missed, planted = [], 0
    for n, (checker, (question, entry)) in enumerate(thousand):
        sentence = entry["reason"]
        if fault == "another's":
            other = thousand[(n + 2) % ANSWERS][1][1]["reason"]
            if other == sentence or "“" not in other:
                continue
            sentence = other
        elif fault == "the other side's":
            words = {"en": ("Against it: ", "Because "), "zh": ("不利之处：", "因为")}
            old, new = words[question["language"]]
            if not entry["against"].startswith(old):
                continue
            sentence = entry["against"].replace(old, new)
        elif fault == "numbers turned":
            if not any(net_of(entry).values()):
                continue
            turned = [
                {
                    **term,
                    "contribution": -term["contribution"],
                    "parts": [{**p, "contribution": -p["contribution"]} for p in term["parts"]],
                }
                for term in entry["terms"]
            ]
            entry = {**entry, "terms": turned}
        elif fault == "a term more":
            larger = 3 * sum(abs(net) for net in net_of(entry).values()) + 1
            told = checker.kinds(question, sentence, "for")
            if "taste" in told:
                continue
            entry = {
                **entry,
                "terms": [
                    {**term, "contribution": larger} if term["term"] == "taste" else term
                    for term in entry["terms"]
                ],
            }
        else:
            empty = {
                "en": "Hardly anything that we know speaks for it; it is the best of what is left.",
                "zh": "几乎没有什么特别支持它；它只是剩下内容中最好的。",
            }[question["language"]]
            if sentence == empty:
                continue
            sentence = empty
        planted += 1
        if not checker.problems(question, entry, sentence, "for"):
            missed.append((entry["reason"], sentence))

    assert planted > 200
    # the sentence of another answer may be as true of this one
    assert len(missed) <= (0.03 * planted if fault == "another's" else 0), missed[:5]


def test_an_answer_says_what_its_explanation_says(session: Session) -> None:
    rng = np.random.default_rng(3)
    instances = [{"events": history(rng), "k": 4, "against": True} for _ in range(25)]
    answers = session.answer("recommend", instances)
    explained = explain(session, "recommend", parse("recommend", instances))
    plain = session.answer("recommend", [{**i, "against": False} for i in instances])

    for answer, explanation, without in zip(answers, explained, plain, strict=True):
        for entry, told, other in zip(
            answer["recommendations"],
            explanation["recommendations"],
            without["recommendations"],
            strict=True,
        ):
            assert (entry["reason"], entry["against"]) == (told["reason"], told["against"])
            assert entry["reason"] == other["reason"] and "against" not in other
            assert sum(r["contribution"] for r in entry["reasons"]) == pytest.approx(
                entry["score"], abs=1e-5
            )
            for reason in entry["reasons"]:
                assert list(reason) == ["kind", "contribution", "terms", "what", "more"]
                assert reason["contribution"] == pytest.approx(sum(reason["terms"].values()))
            of_terms = {t["term"]: t["contribution"] for t in told["terms"]}
            assert {k: v for r in entry["reasons"] for k, v in r["terms"].items()} == pytest.approx(
                of_terms, abs=1e-4
            )


def test_terms_that_cancel_are_told_as_the_one_thing_they_mean(session: Session) -> None:
    before = session.recommender
    retuned(session, 0)
    events = [{"kind": "rate", "item": f"i{n}", "value": 1.0} for n in (3, 7, 11)]
    [answer] = session.answer("recommend", [{"events": events, "k": 5}])
    session.recommender = before

    cancelled = 0
    for entry in answer["recommendations"]:
        [company] = [r for r in entry["reasons"] if r["kind"] == "company"]
        terms = company["terms"]
        cancelled += terms["nearby"] * terms["nearby_whole"] < 0
        assert company["contribution"] == pytest.approx(sum(terms.values()))
        assert entry["reason"].count("people who chose") <= 1
    assert cancelled


@pytest.mark.parametrize("term", ["collaborative", "nearby", "nearby_whole", "spectral", "opinion"])
def test_an_acts_part_is_what_the_term_lacks_without_it(session: Session, term: str) -> None:
    """Before it is standardised: what a term that is linear in the acts loses with one of them."""
    recommender = session.recommender
    assert recommender is not None
    recommender = replace(recommender, weights=dict.fromkeys(TERMS, (1.0, 0.0)), new_weights={})
    rng = np.random.default_rng(5)
    acts = (rng.random((1, 40)) < 0.3).astype(np.float32) * rng.random((1, 40)).astype(np.float32)
    folded = FoldedHistories.decayed(acts, acts, acts, np.array([12]))
    interests = np.zeros((1, len(session.labels)), np.float32)
    everything = np.arange(40)

    def plain(folded: FoldedHistories) -> np.ndarray[Any, Any]:
        """The term before it is standardised, over the deviation that it has with all acts."""
        scores = recommender.score_terms(folded, interests)
        own: Any = scores.terms[term]
        deviation = 1.0 if term == "opinion" else 1 / own.scale[0, 0]
        raw = scores.standardised()[term][0] * deviation
        return np.asarray(raw, np.float64), deviation  # type: ignore[return-value]

    parts = recommender.score_terms(folded, interests).explain(0, everything)[term]
    (whole, deviation) = plain(folded)
    for source, contribution in zip(parts.sources, parts.contributions, strict=True):
        fewer = acts.copy()
        fewer[0, source] = 0
        left, _ = plain(FoldedHistories.decayed(fewer, fewer, fewer, np.array([12])))
        np.testing.assert_allclose(contribution, (whole - left) / deviation, atol=2e-4)
    assert len(parts.sources) == np.count_nonzero(acts)


def test_foreign_text_is_short_printable_and_in_quotes() -> None:
    hostile = 'x</script><script>alert("1")</script>\x00\x1b[31m\u202eevil\n' + "y" * 500
    shown = quoted(hostile)
    assert len(shown) <= LONGEST + 2 and shown.endswith("…”")
    assert shown[1:-1].isprintable() and "\u202e" not in shown and "\x00" not in shown
    assert quoted("a” and “b") == "“a' and 'b”"
    assert quoted("{n} {0.__class__}") == "“{n} {0.__class__}”"

    catalogue = Catalogue(["a"], [hostile], [["{x}"]], [None])
    event = Event("rate", "a", value=1.0)
    reason = Reason(COMPANY, 1.0, {"nearby": 1.0}, (Part(1.0, "for", 0, item="a"),))
    for language in LANGUAGES:
        teller = Teller([event], catalogue, TextSettings(), language)
        sentence = teller.speaks_for([reason])
        assert shown in sentence and sentence.isprintable()


def test_a_term_is_declared_with_words_in_every_language() -> None:
    assert set(IDEA_OF_TERM) == {*TERMS, *ASKED}
    assert {idea.name for idea in IDEA_OF_TERM.values()} == {idea.name for idea in IDEAS}
    with pytest.raises(TasteloopError, match="has no words: give it clauses"):
        Idea("mood", "acts", {})
    with pytest.raises(TasteloopError, match="'mood' has no words for 'for' in 'zh'"):
        Idea("mood", "acts", {"for": {"en": "you {acts}"}})
    with pytest.raises(TasteloopError, match=r"does not say \{labels\} for 'for' in 'zh'"):
        Idea("mood", "labels", {"for": {"en": "of {labels}", "zh": "心情"}})


@pytest.mark.parametrize("kind", DECLARED, ids=lambda kind: kind.word)
def test_every_kind_of_act_can_be_told(kind: Any) -> None:
    catalogue = Catalogue(["a"], ["Alien"], [[]], [None])
    for value in (None, 0.0, 0.5, 1.0):
        event = Event(kind.word, "a", value=value)
        for language in LANGUAGES:
            told = Teller([event], catalogue, TextSettings(), language).act(event, "“Alien”")
            assert "“Alien”" in told and "{" not in told and len(told) > len("“Alien”")


def test_an_interest_says_which_acts_moved_it_and_by_how_much(session: Session) -> None:
    events = [
        {"kind": "rate", "item": "i3", "value": 1.0},
        {"kind": "rate", "item": "i8", "value": 0.0},
        {"kind": "search", "text": "good comedy"},
        *({"kind": "click", "item": f"i{n}"} for n in range(20, 24)),
    ]
    for language, word in (("en", "points"), ("zh", "个百分点")):
        question = parse("interests", [{"events": events, "k": 2, "language": language}])
        [found] = explain(session, "interests", question)
        for entry in found["interests"]:
            percents = [f"{100 * entry[name]:.1f}%" for name in ("probability", "baseline")]
            assert all(percent in entry["reason"] for percent in percents)
            largest = [part for part in entry["parts"] if len(part["events"]) == 1][:3]
            for part in largest:
                assert f"{100 * part['contribution']:+.1f}" in entry["reason"]
            assert entry["reason"].count(word) == 4, "three acts, and the others together"
            total = sum(entry["log_odds"].values())
            assert 1 / (1 + np.exp(-total)) == pytest.approx(entry["probability"], abs=1e-5)
    [nobody] = explain(session, "interests", parse("interests", [{"events": [], "k": 1}]))
    assert "as of everybody whom we do not know yet" in nobody["interests"][0]["reason"]


def test_a_sentiment_says_what_it_would_be_without_its_words(session: Session) -> None:
    text = "a good film, not bad"
    [found] = explain(session, "sentiment", parse("sentiment", [{"text": text}]))
    [answer] = session.answer("sentiment", [{"text": text}])
    assert {name: found[name] for name in answer} == answer
    assert sorted(w["word"] for w in found["words"]) == ["a", "bad", "film", "good", "not"]
    sizes = [abs(word["contribution"]) for word in found["words"]]
    assert sizes == sorted(sizes, reverse=True)
    for word in found["words"]:
        start, end = word["start"], word["start"] + len(word["word"])
        [without] = session.sentiment([text[:start] + text[end:]])
        assert answer["probability"] - word["contribution"] == pytest.approx(without, abs=1e-6)
        if abs(word["contribution"]) >= 0.01 and word in found["words"][:3]:
            assert f"“{word['word']}”" in found["reason"]
            assert f"{100 * float(without):.1f}%" in found["reason"]
    [chinese] = explain(
        session, "sentiment", parse("sentiment", [{"text": "好", "language": "zh"}])
    )
    assert chinese["reason"].startswith("判断为")


@pytest.mark.parametrize(
    ("instance", "said"),
    [
        ({"language": "fr"}, r"instances\[0\].language: one of en, zh is expected, not 'fr'"),
        ({"against": 1}, r"instances\[0\].against: true or false is expected, not 1"),
        ({"languages": "en"}, "unknown key 'languages'"),
    ],
)
def test_a_language_that_is_not_there_is_refused(instance: dict[str, Any], said: str) -> None:
    with pytest.raises(TasteloopError, match=said):
        parse("recommend", [{"events": [], **instance}])
