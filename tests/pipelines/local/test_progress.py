"""What a run shows, and what its facts say, of how it ended."""

from __future__ import annotations

from pipelines.local.facts import RunFacts
from pipelines.local.progress import show_end
from tasteloop.evaluation.record import UnderstandingSummary

SUMMARY = UnderstandingSummary(kinds=20, passed=6, mean=0.417, weakest={"wish": 0.0})
END = RunFacts(
    outcome="promoted", reason="all is well", version="3", code=0, seconds=9.0, overhead=1.0
)


def test_the_end_of_a_run_says_what_the_model_understands() -> None:
    lines: list[str] = []

    show_end(END.model_copy(update={"understanding": SUMMARY}), lines.append)

    line = "  understanding: 6 of 20 kinds of questions passed, mean 0.42; weakest: wish 0.00"
    assert lines[2] == line


def test_the_end_of_a_run_without_questions_is_silent_about_them() -> None:
    lines: list[str] = []

    show_end(END, lines.append)

    assert not any("understanding" in line for line in lines)


def test_the_facts_give_understanding_as_json_and_read_it_back() -> None:
    facts = END.model_copy(update={"understanding": SUMMARY})

    written = facts.json_facts()

    assert written["understanding"] == {
        "kinds": 20,
        "passed": 6,
        "mean": 0.417,
        "weakest": {"wish": 0.0},
    }
    assert RunFacts.model_validate(written).understanding == SUMMARY
    assert RunFacts.model_validate({"understanding": "much"}).understanding is None
