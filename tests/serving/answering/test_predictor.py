"""The laws of `serving.answering.predictor`: V2 is a typed view of V1, and only the caller's
mistakes are refused.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from serving.answering.predictor import Predictor
from serving.answering.tensors import Tensor
from serving.settings import Limits
from tasteloop.errors import TasteloopError

LABELS = ["comedy", "drama", "war"]
NOBODY = '{"events": []}'
LIMITS = Limits(instances=3, rows=100, characters=10, events=2)


class Session:
    """Answers of the right shape from nothing: `runtime.Session` without a model."""

    labels = LABELS
    digest = "d" * 64

    def __init__(self, has_sentiment: bool = True) -> None:
        self.models = ("interests", "recommend") + (("sentiment",) if has_sentiment else ())

    def compute(self, model: str, questions: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [getattr(self, model)(question) for question in questions]

    def sentiment(self, instance: dict[str, Any]) -> dict[str, Any]:
        return {
            "sentiment": "positive",
            "probability": len(instance["text"]) / 10,
            "confident": True,
        }

    def interests(self, instance: dict[str, Any]) -> dict[str, Any]:
        return {
            "interests": [
                {"label": label, "probability": p, "predicted": p > 0.4, "confident": p > 0.6}
                for label, p in zip(LABELS, (0.75, 0.5, 0.25), strict=True)
            ]
        }

    def recommend(self, instance: dict[str, Any]) -> dict[str, Any]:
        entries = [
            {
                "item": str(i),
                "title": f"Title {i}",
                "score": 1 / i,
                "reason": f"Because of {i}.",
                "reasons": [{"kind": "taste", "contribution": 1 / i}],
                **({"against": f"Against {i}."} if instance.get("against") else {}),
            }
            for i in range(1, min(instance["k"] or 10, 4) + 1)
        ]
        return {"recommendations": entries}


@pytest.fixture
def predictor() -> Predictor:
    return Predictor(Session(), "7")  # type: ignore[arg-type]


def text(*elements: str | bytes) -> Tensor:
    return Tensor("text", "BYTES", (len(elements),), list(elements))


def events(*elements: str | bytes) -> Tensor:
    return Tensor("events", "BYTES", (len(elements),), list(elements))


def by_name(tensors: list[Tensor]) -> dict[str, Tensor]:
    return {tensor.name: tensor for tensor in tensors}


def test_v1_answers_in_order(predictor: Predictor) -> None:
    answers = predictor.predict("sentiment", [{"text": "ab"}, {"text": "abcd"}])
    assert [answer["probability"] for answer in answers] == [0.2, 0.4]


def test_v2_sentiment_is_the_v1_answer_typed(predictor: Predictor) -> None:
    outputs = by_name(predictor.infer("sentiment", [text("ab", "äöü".encode())], {}))
    assert outputs["probability"].data.dtype == np.float32
    assert outputs["probability"].data.tolist() == pytest.approx([0.2, 0.3])
    assert outputs["sentiment"].data.tolist() == ["positive", "positive"]


def test_v2_interests(predictor: Predictor) -> None:
    outputs = by_name(predictor.infer("interests", [events(NOBODY, NOBODY)], {}))
    assert {name: tensor.shape for name, tensor in outputs.items()} == dict.fromkeys(
        ("label", "probability", "predicted", "confident"), (2, 3)
    )
    assert outputs["label"].data[1].tolist() == LABELS
    assert outputs["predicted"].data.dtype == np.bool_
    assert outputs["predicted"].data[0].tolist() == [True, True, False]
    assert outputs["confident"].data[0].tolist() == [True, False, False]


def test_v2_recommend_pads_short_rows(predictor: Predictor) -> None:
    outputs = by_name(
        predictor.infer("recommend", [events('{"events": [], "k": 1}', NOBODY)], {"k": 3})
    )
    assert outputs["item"].data.tolist() == [["1", "", ""], ["1", "2", "3"]]
    assert outputs["score"].data[0].tolist() == [1.0, 0.0, 0.0]
    assert outputs["reasons"].data[0].tolist() == [
        '[{"kind":"taste","contribution":1.0}]',
        "[]",
        "[]",
    ]
    assert outputs["reason"].data[0].tolist() == ["Because of 1.", "", ""]
    assert outputs["against"].data[1].tolist() == ["", "", ""]


def test_v2_tells_what_speaks_against_where_that_is_asked(predictor: Predictor) -> None:
    asked = {"k": 1, "against": True, "language": "zh"}
    tensors = predictor.infer("recommend", [events(NOBODY)], asked)
    assert by_name(tensors)["against"].data.tolist() == [["Against 1."]]


def test_v2_recommend_is_no_wider_than_the_catalogue(predictor: Predictor) -> None:
    outputs = by_name(predictor.infer("recommend", [events(NOBODY)], {"k": 100}))
    assert outputs["item"].shape == (1, 4)


@pytest.mark.parametrize("model", ["interests", "recommend", "sentiment"])
def test_metadata_is_true(predictor: Predictor, model: str) -> None:
    [declared] = predictor.inputs(model)
    tensor = text("a", "b") if model == "sentiment" else events(NOBODY, NOBODY)
    assert (declared["name"], declared["datatype"]) == (tensor.name, tensor.datatype)
    outputs = predictor.infer(model, [tensor], {})
    assert [(o.name, o.datatype) for o in outputs] == [
        (o["name"], o["datatype"]) for o in predictor.outputs(model)
    ]
    for output, metadata in zip(outputs, predictor.outputs(model), strict=True):
        assert output.data.shape == output.shape
        assert len(output.shape) == len(metadata["shape"])
        assert all(
            size in (-1, actual)
            for size, actual in zip(metadata["shape"], output.shape, strict=True)
        )


def test_a_bundle_without_sentiment_does_not_offer_it() -> None:
    predictor = Predictor(Session(has_sentiment=False), "7")  # type: ignore[arg-type]
    assert predictor.models == ("interests", "recommend")
    with pytest.raises(TasteloopError, match="known: interests, recommend"):
        predictor.predict("sentiment", [{"text": "a"}])


@pytest.mark.parametrize(
    ("instances", "message"),
    [
        (None, '"instances" is null; it must be a list'),
        ({"text": "a"}, '"instances" is an object'),
        ([], '"instances" is empty'),
        ([{"text": "a"}, "b"], r"instances\[1\] is a string; it must be a JSON object"),
        ([{"text": "a"}] * (257), "at most 256"),
    ],
)
def test_bad_v1_instances(predictor: Predictor, instances: object, message: str) -> None:
    with pytest.raises(TasteloopError, match=message):
        predictor.predict("sentiment", instances)


@pytest.mark.parametrize(
    ("model", "instances", "message"),
    [
        ("sentiment", [{"text": "a"}] * 4, "4 instances in one request; send at most 3"),
        (
            "sentiment",
            [{"text": "a"}, {"text": "a" * 11}],
            r"instances\[1\].text: 11 characters; send at most 10",
        ),
        (
            "recommend",
            [{"events": [{"kind": "view"}] * 3}],
            r"3 events in one history; send the last 2",
        ),
        (
            "recommend",
            [{"events": [{"kind": "search", "text": "a" * 11}]}],
            r"events\[0\].text: 11 characters",
        ),
        (
            "recommend",
            [{"events": [{"kind": "view", "item": "a" * 11}]}],
            r"events\[0\].item: 11 characters",
        ),
        (
            "recommend",
            [{"events": [], "k": 101}],
            "1 instances with k up to 101 are 101 answer rows; send at most 100",
        ),
        (
            "recommend",
            [{"events": [], "k": 34}, {"events": []}, {"events": []}],
            "102 answer rows; send at most 100",
        ),
        (
            "interests",
            [{"events": [], "k": 51}] * 2,
            "102 answer rows; send at most 100 in one request: fewer inst",
        ),
    ],
)
def test_limits(model: str, instances: list[dict[str, Any]], message: str) -> None:
    small = Predictor(Session(), "7", LIMITS)  # type: ignore[arg-type]
    with pytest.raises(TasteloopError, match=message):
        small.predict(model, instances)


def test_the_widest_row_counts_for_all_over_v2_too() -> None:
    small = Predictor(Session(), "7", LIMITS)  # type: ignore[arg-type]
    tensor = events('{"events": [], "k": 60}', NOBODY)
    with pytest.raises(TasteloopError, match="120 answer rows; send at most 100"):
        small.infer("recommend", [tensor], {})
    with pytest.raises(TasteloopError, match="150 answer rows"):
        small.infer("recommend", [events(NOBODY, NOBODY)], {"k": 75})


def test_an_explanation_has_fewer_rows() -> None:
    small = Predictor(Session(), "7", LIMITS)  # type: ignore[arg-type]
    assert small.questions("recommend", [{"events": [], "k": 2}], explain=True)
    with pytest.raises(TasteloopError, match="3 explained rows; send at most 2"):
        small.questions("recommend", [{"events": [], "k": 3}], explain=True)


def test_ordinary_requests_are_within_the_limits(predictor: Predictor) -> None:
    assert predictor.questions("recommend", [{"events": [], "k": 1000}])
    for model in ("recommend", "interests"):
        assert predictor.questions(model, [{"events": []}] * 256)
        assert predictor.questions(model, [{"events": []}] * 8, explain=True)


BAD_TENSORS: list[tuple[str, list[Tensor], dict[str, Any], str]] = [
    ("sentiment", [], {}, r"one input tensor named 'text'; got \[\]"),
    ("sentiment", [events("{}")], {}, "named 'text'"),
    ("interests", [events("{}"), events("{}")], {}, "one input tensor"),
    ("sentiment", [Tensor("text", "FP32", (1,), [1.0])], {}, "datatype FP32; it must be BYTES"),
    ("sentiment", [Tensor("text", "BYTES", (-5,), ["a"])], {}, r"shape \[-5\]; it must be \[n\]"),
    ("sentiment", [Tensor("text", "BYTES", (0,), [])], {}, "n at least 1"),
    ("sentiment", [Tensor("text", "BYTES", (), ["a"])], {}, r"shape \[\]"),
    ("sentiment", [Tensor("text", "BYTES", (1, 1), [["a"]])], {}, r"shape \[1, 1\]"),
    ("sentiment", [Tensor("text", "BYTES", (2,), ["a"])], {}, r"shape \[2\] and 1 elements"),
    ("sentiment", [text("a", b"\xff")], {}, "element 1 of input 'text' is not UTF-8"),
    ("sentiment", [text("\ud800")], {}, "element 0 of input 'text' is not UTF-8"),
    (
        "sentiment",
        [Tensor("text", "BYTES", (1,), [3])],
        {},
        "element 0 .* is a number; it must be a string",
    ),
    ("sentiment", [text("a")], {"k": 3}, "unknown parameter 'k' for sentiment; known: language"),
    (
        "recommend",
        [events("{}")],
        {"top": 3},
        "unknown parameter 'top' for recommend; known: against, k, language",
    ),
    ("recommend", [events("[")], {}, r"instances\[0\] is not JSON"),
    ("recommend", [events('{"k": NaN}')], {}, r"instances\[0\] is not JSON"),
    ("recommend", [events('{"events": [{"text": "\\ud800"}]}')], {}, r"instances\[0\] is not JSON"),
    ("recommend", [events("[" * 100_000)], {}, r"instances\[0\] is not JSON"),
    ("recommend", [events("{}", "[]")], {}, r"instances\[1\] is a list; it must be an object"),
]


@pytest.mark.parametrize(("model", "inputs", "parameters", "message"), BAD_TENSORS)
def test_bad_v2_tensors(
    predictor: Predictor, model: str, inputs: list[Tensor], parameters: dict[str, Any], message: str
) -> None:
    with pytest.raises(TasteloopError, match=message):
        predictor.infer(model, inputs, parameters)


def test_a_batch_is_whole_under_threads(predictor: Predictor) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(8) as threads:
        requests = [[{"text": "x" * n}] * 3 for n in range(1, 40)]
        for instances, answers in zip(
            requests,
            threads.map(lambda i: predictor.predict("sentiment", i), requests),
            strict=True,
        ):
            assert {a["probability"] for a in answers} == {len(instances[0]["text"]) / 10}
