"""The evaluation's record: what was written is read, and written again, without a change."""

from __future__ import annotations

import json
import math
from copy import deepcopy
from typing import Any

import pytest

from tasteloop.evaluation.record import Evaluation
from tests.support import samples


def test_reading_and_writing_changes_nothing() -> None:
    written = samples.evaluation()

    again = json.loads(json.dumps(Evaluation.parse(written).json()))

    lineage = {"source": None, "reviews_source": None, "interests": None} | written["lineage"]
    champion = written["champion"] | {"version": "6", "tasks": []}
    assert again == written | {"lineage": lineage, "champion": champion}


def test_readers_ask_the_record_by_name() -> None:
    evaluation = Evaluation.parse(samples.evaluation() | {"old": {"metrics": {}}})

    assert evaluation.metric("recommend.ndcg@10").value == 0.2633
    assert evaluation.baseline("ease", "recommend.ndcg@10").value == 0.2307
    assert evaluation.difference("champion", "sentiment.accuracy").value == -0.0008
    assert evaluation.other("champion")["sentiment.accuracy"].value == 0.8559
    assert evaluation.metric("recommend.mrr").fault == "is missing"
    assert [part.name for part in evaluation.slices][:2] == ["users=cold", "users=warm"]
    assert evaluation.per_label[0].label == "Drama"
    assert evaluation.confusion["sentiment"] == ((1085, 196), (175, 1106))
    assert evaluation.examples[0].recommendations[0].reasons[0].term == "interest: Drama"
    assert evaluation.old is not None and evaluation.old.metrics == {}


def test_a_file_may_say_nothing_of_a_champion_or_that_there_was_none() -> None:
    silent, first = Evaluation.parse({}), Evaluation.parse({"champion": None})

    assert (silent.says_champion, silent.champion) == (False, None)
    assert (first.says_champion, first.champion) == (True, None)
    assert Evaluation.parse({"champion": 3}).champion is not None


def test_the_lineage_keeps_what_another_version_wrote() -> None:
    lineage = Evaluation.parse({"lineage": {"bundle": "3f2a", "seed": 7}}).lineage

    assert dict(lineage.facts()) == {"bundle": "3f2a", "seed": 7}
    assert Evaluation.parse({"lineage": {"bundle": 3}}).lineage.bundle is None


@pytest.mark.parametrize("broken", [None, math.nan, math.inf, "x", [], [[]], {}, -1, True])
def test_no_shape_stops_the_reader(broken: Any) -> None:
    def replaced(value: Any) -> list[Any]:
        """The value with each of its parts, at any depth, replaced by the broken one."""
        keys = value.keys() if isinstance(value, dict) else range(len(value))
        variants = []
        for key in list(keys)[:3]:
            parts = replaced(value[key]) if isinstance(value[key], dict | list) else []
            for part in [broken, *parts]:
                variant = value.copy()
                variant[key] = part
                variants.append(variant)
        return variants

    for variant in [broken, *replaced(deepcopy(samples.evaluation()))]:
        json.dumps(Evaluation.parse(variant).json(), allow_nan=False)


def test_understanding_in_a_line_counts_the_kinds_that_were_judged() -> None:
    shares = {"wish": 0.02, "title": 0.9, "hated": 0.5, "noise": 1.0, "strength": 0.3}
    shares |= {"refusal": 0.5, "foreign": None}
    evaluation = Evaluation.parse(
        {
            "metrics": {"understanding": {"value": 0.6}}
            | {f"understanding.{kind}": {"value": share} for kind, share in shares.items()},
            "understanding": [{"kind": kind} for kind in [*shares, "statement"]],
        }
    )

    summary = evaluation.understanding_summary()

    assert str(summary) == (
        "understanding: 2 of 6 kinds of questions passed, mean 0.60; weakest: wish 0.02, strength 0.30, hated 0.50"
    )


def test_a_model_that_was_not_asked_has_no_understanding() -> None:
    assert Evaluation.parse({"understanding": [{"kind": "wish"}]}).understanding_summary() is None
