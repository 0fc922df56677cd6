"""The served models: what each one is asked, what it answers, and what its data must hold.

A served model is declared here, once. The session, the server, the journal, the OpenAPI document,
the rehearsal, the canary, the offline scores and `tasteloop ask` read the declaration; how the
answer is computed stands in `tasteloop.runtime.session`. docs/extending.md adds one step by step.

Which models a bundle answers follows from its data: `recommend` needs behaviour alone, `interests`
needs labels on the items, and `sentiment` needs reviews.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

INTERESTS, RECOMMEND, SENTIMENT = "interests", "recommend", "sentiment"

INTENT = "intent"
"""A head that nobody asks: what a clause does, which `interests` and `recommend` listen to
(`tasteloop.language`)."""

K = 10  # items that are recommended where the question does not say how many
MOST_K = 1000

LANGUAGES = ("en", "zh")
"""In which an answer's reasons can be told; the first where the question does not say."""

Answer = dict[str, Any]
"""An answer as a server sends it, in JSON: {"interests": [..]}, {"recommendations": [..]} or
{"sentiment", ..}."""

BYTES, FP32, BOOL = "BYTES", "FP32", "BOOL"
"""Datatypes of the Open Inference Protocol (V2) that answers have."""

PREDICTED, CONFIDENT = "predicted", "confident"
"""Fields of an entry that say whether it is predicted, and whether that is sure."""


@dataclass(frozen=True)
class Input:
    """What a model is asked about.

    Attributes:
        field: the field of an instance that must be there; V2's input tensor bears the same name.
        options: the fields that may stand beside it.
        schema: what the OpenAPI document calls such an instance.
        is_text: an element of V2's tensor is the text itself; else it is the instance as JSON.
    """

    field: str
    options: tuple[str, ...]
    schema: str
    is_text: bool = False

    @property
    def fields(self) -> tuple[str, ...]:
        """Every field that an instance may have."""
        return (self.field, *self.options)


HISTORY = Input("events", ("k", "language", "against"), "History")
"""What a user did, how many entries are wanted, in which language their reasons are told, and
whether what spoke against each is told too: {"events": [...], "k": 10, "language": "en", "against":
false}.
"""
TEXT = Input("text", ("language",), "Text", is_text=True)
"""What a user wrote, and in which language it is explained: {"text": "...", "language": "en"}."""


@dataclass(frozen=True)
class Field:
    """One field of an entry. V2 carries it as an output tensor of the same name.

    Attributes:
        datatype: `BYTES`, `FP32` or `BOOL`.
        padding: fills up a row of V2 that is shorter than the widest of its request; the field that
            names an entry is padded with "", which no entry bears.
        in_v2: whether V2 carries it.
        is_json: it is a list, which V2 carries as JSON text.
        is_decision: it follows from whether a probability reaches a threshold. Near the threshold
            another runtime, whose numbers differ in a last digit, may decide otherwise.
        is_words: it tells in words what other fields say in numbers; it is not compared.
        is_optional: it is there only where the question asks for it.
    """

    name: str
    datatype: str
    padding: Any
    in_v2: bool = True
    is_json: bool = False
    is_decision: bool = False
    is_words: bool = False
    is_optional: bool = False


@dataclass(frozen=True)
class ServedModel:
    """The declaration of one served model.

    An answer is a ranked list of entries, best first, as {"recommendations": [{"item": ...}, ...]},
    or it is one entry itself, as {"sentiment": "positive", ...}.

    >>> SERVED_MODELS[RECOMMEND].numbers({"recommendations": [{"item": "50", "score": 1.5}]})
    {'50': 1.5}
    >>> [column.name for column in SERVED_MODELS[SENTIMENT].columns]
    ['sentiment', 'probability', 'confident']

    Attributes:
        name: what callers ask for.
        input: what they ask it about.
        fields: of an entry, in the order in which they are answered.
        label: the field that names an entry: what the journal keeps as `names`.
        number: the field that ranks it: what the journal keeps as `numbers`.
        ranking: the key of the list of entries; None where an answer is one entry.
        default_k: how many entries are answered where the question does not say; None: all.
        is_catalogue: entries are named after items of the catalogue, of which an answer has few;
            else every answer has the same few names.
        is_explained: whether `explain` takes it.
        needs: what the data must hold for the model to learn it with a head of its own: `labels` or
            `reviews`; None where it has no head, so that every bundle answers it.
        absent: why a bundle may lack it, in words.
    """

    name: str
    input: Input
    fields: tuple[Field, ...]
    label: str
    number: str
    ranking: str | None = None
    default_k: int | None = None
    is_catalogue: bool = False
    is_explained: bool = False
    needs: str | None = None
    absent: str = ""

    @property
    def columns(self) -> tuple[Field, ...]:
        """V2's output tensors."""
        return tuple(field for field in self.fields if field.in_v2)

    @property
    def key(self) -> str:
        """The key by which an answer of this model is told from those of the others."""
        return self.ranking or self.label

    @property
    def has_head(self) -> bool:
        """Whether it is trained."""
        return self.needs is not None

    def has(self, field: str) -> bool:
        """Whether an entry has a field of this name."""
        return any(one.name == field for one in self.fields)

    def entries(self, answer: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        """The entries of an answer, best first."""
        return [answer] if self.ranking is None else answer[self.ranking]

    def numbers(self, answer: Mapping[str, Any]) -> dict[str, float]:
        """The names of an answer's entries with their numbers, best first."""
        return {entry[self.label]: entry[self.number] for entry in self.entries(answer)}


SERVED_MODELS = {
    model.name: model
    for model in (
        ServedModel(
            name=INTERESTS,
            input=HISTORY,
            ranking="interests",
            fields=(
                Field("label", BYTES, ""),
                Field("probability", FP32, 0.0),
                Field(PREDICTED, BOOL, False, is_decision=True),
                Field(CONFIDENT, BOOL, False, is_decision=True),
            ),
            label="label",
            number="probability",
            is_explained=True,
            needs="labels",
            absent="the items of its data carry no labels, or training.tasks leaves interests out",
        ),
        ServedModel(
            name=RECOMMEND,
            input=HISTORY,
            ranking="recommendations",
            fields=(
                Field("item", BYTES, ""),
                Field("title", BYTES, "", in_v2=False),
                Field("score", FP32, 0.0),
                Field("reason", BYTES, "", is_words=True),
                Field("reasons", BYTES, "[]", is_json=True),
                Field("against", BYTES, "", is_words=True, is_optional=True),
            ),
            label="item",
            number="score",
            default_k=K,
            is_catalogue=True,
            is_explained=True,
        ),
        ServedModel(
            name=SENTIMENT,
            input=TEXT,
            fields=(
                Field("sentiment", BYTES, "", is_decision=True),
                Field("probability", FP32, 0.0),
                Field(CONFIDENT, BOOL, False, is_decision=True),
            ),
            label="sentiment",
            number="probability",
            is_explained=True,
            needs="reviews",
            absent="its data has no reviews (ingest.reviews), or training.tasks leaves sentiment out",
        ),
    )
}
"""Every served model by its name, in the order in which they are listed."""


def tasks_of_data(labels: Collection[str], reviews: bool) -> tuple[str, ...]:
    """The models that a data set can teach.

    Args:
        labels: those that can be learned: some training snapshots have them and others do not.
        reviews: whether there are any.
    """
    holds = {None: True, "labels": bool(labels), "reviews": reviews}
    return tuple(name for name, model in SERVED_MODELS.items() if holds[model.needs])


def tasks_of_model(trained: Collection[str]) -> tuple[str, ...]:
    """The models that a bundle answers which has a head for each of `trained`."""
    return tuple(
        name for name, model in SERVED_MODELS.items() if not model.has_head or name in trained
    )


def model_of(answer: Mapping[str, Any]) -> str | None:
    """Which model gives an answer of this shape; None where none does."""
    for name, model in SERVED_MODELS.items():
        if model.key in answer:
            return name
    return None


def explained_models() -> tuple[str, ...]:
    """The models that `explain` takes."""
    return tuple(name for name, model in SERVED_MODELS.items() if model.is_explained)


def why_absent(name: str) -> str:
    """A sentence for whoever asks a bundle for a model that it does not have."""
    return f"this model has no {name}: {SERVED_MODELS[name].absent}"
