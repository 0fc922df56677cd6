"""The bounds of the rules that a data set must satisfy."""

from __future__ import annotations

from datetime import date
from typing import Annotated

from pydantic import BaseModel, Field, model_validator

from tasteloop.behaviour.kinds import KINDS

Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Range = tuple[Share, Share]


class ValidationSettings(BaseModel, frozen=True, extra="forbid"):
    """Bounds of the rules; shares lie in [0, 1].

    Args:
        min_events, min_users, min_items, min_reviews, min_positive_events: the least a model can be
            learned from.
        min_labels: interest labels with support: carried by at least `min_label_items` items, and
            not by all of them; not asked where no item carries a label.
        max_unlisted: error above this share of events whose item is not in the catalogue; any is a
            warning.
        max_duplicates: error above this share of exact duplicates; any is a warning.
        max_untitled, max_unlabelled: error above this share of items without title or labels; any
            is a warning.
        max_rejected: error above this share of rows that ingest removed; a warning above a fifth of
            it.
        max_lost: warning above this share of a kind's rows, or of the reviews, that one rule of the
            cleaning removed.
        max_uncatalogued: error above this share of events whose item the source's own catalogue
            lacks; a warning above a tenth of it. Old behaviour outlives the products that it is
            about, so some are usual; of most of the events, the ids of the two files do not mean
            the same things.
        max_valueless: error above this share of ratings without a value; any is a warning.
        max_unreadable: error above this share of searches, or of texts about items, that nobody can
            read (empty, without a letter or digit, or with damaged characters); a warning above a
            fifth of it.
        max_foreign: warning above this share of texts whose letters are mostly of scripts in which
            the catalogue is not written: the model reads nothing in them.
        max_long, search_characters: warning above the share `max_long` of searches that are longer
            than so many characters, as texts of another column would be.
        kind_shares: bounds of a kind's share of events, such as {"purchase": [0.001, 0.2]}.
        sentiment_balance: bounds of the share of positive reviews.
        positive_threshold: value from which a rating is positive, as in
            `tasteloop.behaviour.events.positive`.
        earliest, future_hours: no event lies before this day or further than this in the future.
        max_age_days: the newest event may not be older; None for historical data.
        volume: bounds of events, users, items and reviews against the last accepted data set; fewer
            is an error, more a warning.
        pseudonyms: user ids must be pseudonyms, so that no raw id goes further.
    """

    min_events: Annotated[int, Field(ge=1)] = 100
    min_users: Annotated[int, Field(ge=2)] = 10
    min_items: Annotated[int, Field(ge=2)] = 10
    min_reviews: Annotated[int, Field(ge=2)] = 50
    min_positive_events: Annotated[int, Field(ge=1)] = 20
    min_labels: Annotated[int, Field(ge=2)] = 2
    min_label_items: Annotated[int, Field(ge=1)] = 1
    max_unlisted: Share = 0.1
    max_duplicates: Share = 0.01
    max_untitled: Share = 0.05
    max_unlabelled: Share = 0.5
    max_rejected: Share = 0.5
    max_lost: Share = 0.5
    max_uncatalogued: Share = 0.5
    max_valueless: Share = 0.05
    max_unreadable: Share = 0.5
    max_foreign: Share = 0.5
    max_long: Share = 0.1
    search_characters: Annotated[int, Field(ge=1)] = 200
    kind_shares: dict[str, Range] = {}
    sentiment_balance: Range = (0.1, 0.9)
    positive_threshold: Share = 0.7
    earliest: date = date(1990, 1, 1)
    future_hours: Annotated[float, Field(ge=0)] = 24.0
    max_age_days: Annotated[float, Field(gt=0)] | None = None
    volume: tuple[Annotated[float, Field(ge=0)], Annotated[float, Field(ge=1)]] = (0.5, 3.0)
    pseudonyms: bool = True

    @model_validator(mode="after")
    def _consistent(self) -> ValidationSettings:
        if unknown := sorted(set(self.kind_shares) - set(KINDS)):
            raise ValueError(f"kind_shares names {unknown[0]!r}; known kinds: {', '.join(KINDS)}")
        for name, (low, high) in {
            **self.kind_shares,
            "sentiment_balance": self.sentiment_balance,
        }.items():
            if low > high:
                raise ValueError(f"{name}: the lower bound {low} lies above the upper bound {high}")
        return self
