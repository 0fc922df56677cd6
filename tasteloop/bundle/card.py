"""The card: what a bundle says of itself, in card.json.

It is read once, into a `BundleCard`. Keys that a later version of the code has written are left
aside; those that answering needs are checked. What earlier versions did not write yet is optional.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from tasteloop.bundle.manifest import read_bounded_json
from tasteloop.bundle.names import CARD_FILE
from tasteloop.errors import TasteloopError


class Calibration(BaseModel, frozen=True):
    """How logits become probabilities and decisions (`tasteloop.encoder.calibration`).

    Attributes:
        slope, intercept: of the encoder's logits; habit_slope: of the habits' log-odds, None where
            there are no habits.
        thresholds: [outputs] from which probability on an output is predicted.
        confident_from: the confidence from which on a statement is sure; None where none is.
    """

    slope: float
    habit_slope: float | None = None
    intercept: float
    thresholds: tuple[float, ...]
    confident_from: float | None = None


class TaskCard(BaseModel, frozen=True):
    """A task that the bundle was trained for.

    Attributes:
        model: the model whose head answers.
        quality: average precision on the validation window.
        bag_of_words: the weight of the bag of words' log-odds beside the logits; None without one.
        familiar: the shares of known words from which on a text counts at all, and fully
            (`tasteloop.encoder.bag_of_words.trust`); None: every text counts fully.
        See `Calibration` for the others.
    """

    model: str
    slope: float
    habit_slope: float | None = None
    intercept: float
    thresholds: tuple[float, ...]
    confident_from: float | None = None
    quality: float = 0.0
    bag_of_words: float | None = None
    familiar: tuple[float, float] | None = None

    @property
    def calibration(self) -> Calibration:
        return Calibration(
            slope=self.slope,
            habit_slope=self.habit_slope,
            intercept=self.intercept,
            thresholds=self.thresholds,
            confident_from=self.confident_from,
        )


class RuntimeCandidate(BaseModel, frozen=True):
    """A runtime as it was measured where the bundle was made.

    Attributes:
        texts_per_second: by shape, `batch x tokens`.
        difference: the largest of a probability from the trainer's.
        metrics: by task, as far as it was judged; good: whether it is as good as the trainer.
    """

    texts_per_second: dict[str, float]
    difference: float = 0.0
    metrics: dict[str, float] = {}
    good: bool


class RuntimeCard(BaseModel, frozen=True):
    """Which runtime was chosen for the bundle, on which processor, and among which.

    Attributes:
        tolerance: how far a task's metric may lie below the trainer's.
        trainer: by task, the trainer's own metric.
    """

    chosen: str
    processor: str
    threads: int = 1
    tolerance: float = 0.0
    trainer: dict[str, float] = {}
    candidates: dict[str, RuntimeCandidate]


class RecommenderCard(BaseModel, frozen=True):
    """What ranks beside the arrays of the recommender.

    Attributes:
        weights, new_weights: (a, b) of λ by term; of items that nobody had met.
        decay: of a history event by its rank from the newest.
        als: weight of an event and regularisation of the factors.
        regularisation, half_life, shrinkage: what the validation window chose of the settings.
    """

    weights: dict[str, tuple[float, float]]
    new_weights: dict[str, tuple[float, float]] = {}
    decay: float
    als: tuple[int | float, int | float]
    regularisation: int | float | None = None
    half_life: int | float | None = None
    shrinkage: int | float | None = None
    settings: dict[str, Any] = {}


class BundleCard(BaseModel, frozen=True):
    """What a bundle says of itself.

    Attributes:
        labels: the K interests, none where none is answered.
        interests: where these are from: labels (the catalogue's), discovered, completed (the
            catalogue's, of some items inferred), or none.
        tasks: by name, each with its calibration; models: by name, what each was trained for.
        answers: the served models.
        text: settings of the behaviour text, as `TextSettings` reads them.
        encoder: the name that it was fetched by; code: version of the code that made the bundle.
        data: hash of the data set; source: where it came from.
        settings: of the steps that made it; snapshots, reviews: how many there were by split.
        validation: measures of the validation window by name.
        runtime: None before runtimes were measured; recommender: None while a bundle is being made.

    >>> card = BundleCard.parse(
    ...     {"labels": [], "tasks": {}, "models": {"encoder": {"tasks": []}}, "text": {}}
    ... )
    >>> card.reading_model
    'encoder'
    >>> BundleCard.parse({"labels": []})
    Traceback (most recent call last):
        ...
    tasteloop.errors.TasteloopError: card.json: tasks: Field required; train the bundle again
    """

    name: str = "tasteloop"
    labels: tuple[str, ...]
    interests: str = "labels"
    tasks: dict[str, TaskCard]
    models: dict[str, dict[str, Any]]
    answers: tuple[str, ...] = ()
    text: dict[str, Any]
    review_max_tokens: int = 128
    encoder: str = ""
    data: str = ""
    source: str = ""
    code: str = ""
    settings: dict[str, Any] = {}
    snapshots: dict[str, Any] = {}
    reviews: dict[str, Any] = {}
    validation: dict[str, float] = {}
    runtime: RuntimeCard | None = None
    recommender: RecommenderCard | None = None

    @classmethod
    def read(cls, directory: Path) -> BundleCard:
        """The card of a bundle.

        Raises:
            TasteloopError: it has none, or one that lacks what answering needs.
        """
        return cls.parse(read_bounded_json(directory / CARD_FILE), str(directory / CARD_FILE))

    @classmethod
    def parse(cls, raw: object, name: str = CARD_FILE) -> BundleCard:
        """The card of what card.json holds; `name` is what an error calls the file.

        Raises:
            TasteloopError: something that answering needs is missing or of another type.
        """
        try:
            return cls.model_validate(raw)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(map(str, first["loc"]))
            reason = f"{where}: {first['msg']}" if where else first["msg"]
            raise TasteloopError(f"{name}: {reason}; train the bundle again") from None

    def json_value(self) -> dict[str, Any]:
        """What card.json holds: what was measured or set, nothing that was left out."""
        return self.model_dump(exclude_unset=True)

    @property
    def reading_model(self) -> str:
        """Which of the models reads behaviour and items: the first, which has interests where any
        has them.
        """
        return next(iter(self.models))

    def require_recommender(self) -> RecommenderCard:
        """The recommender's part.

        Raises:
            TasteloopError: the card has none.
        """
        if self.recommender is None:
            raise TasteloopError(
                "the card has no recommender; `tasteloop step recommender` fits one"
            )
        return self.recommender
