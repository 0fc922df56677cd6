"""The interests of a catalogue: its own labels, completed where that is proven, or discovered."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tasteloop.behaviour.events import ITEM, USER
from tasteloop.behaviour.interests import CatalogueInterests, InterestSettings
from tasteloop.behaviour.items import Catalogue
from tasteloop.bundle.names import ITEMS_FILE
from tasteloop.errors import TasteloopError
from tasteloop.interests import groups as g
from tasteloop.interests.names import names_of
from tasteloop.interests.vectors import Matrix, behaviour_vectors, joined, text_vectors

if TYPE_CHECKING:
    import polars as pl

log = logging.getLogger(__name__)

_LEAST_ITEMS = 30  # with words: of fewer, groups are single items
_WITH_WORDS = 0.5  # share of items with a title or text, below which nothing can be named
_COVERED = 0.9  # share of labelled items from which a catalogue is complete as it is
_PRECISE = 0.8  # what the lower bound of a completion's precision must reach
_SURE = 0.95  # one-sided
_LEAST_LABELLED = 20  # items that bear a label before it is inferred of others
_MOST_LABELS = 100  # that are inferred, the most frequent: each takes six logistic regressions
_MOST_FITTED = 20_000  # labelled items that a completion is fitted on, evenly drawn
_FOLDS = 5
_EXAMPLES = 3  # titles of an interest in the record


@dataclass(frozen=True)
class Material:
    """What interests are discovered of.

    Attributes:
        events: USER and ITEM of the training window's positive acts; settings: as asked.
    """

    catalogue: Catalogue
    events: pl.LazyFrame
    settings: InterestSettings

    @cached_property
    def pairs(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """[m] users from 0 and [m] positions of items, of the events; each pair once."""
        return user_item_numbers(self.events, self.catalogue)

    @cached_property
    def texts(self) -> list[str]:
        """The title and the text of each item, blank where it has neither. An item that is titled
        by its id has no title.
        """
        c = self.catalogue
        return [
            " ".join(part for part in ("" if title == item else title, text) if part)
            for item, title, text in zip(c.items, c.titles, c.texts, strict=True)
        ]

    @cached_property
    def has_words(self) -> NDArray[np.bool_]:
        return np.array([bool(text.strip()) for text in self.texts], np.bool_)

    @cached_property
    def _behaviour(self) -> tuple[Matrix, NDArray[np.int64]]:
        return behaviour_vectors(*self.pairs, len(self.catalogue))

    @property
    def taken(self) -> NDArray[np.int64]:
        """[J] users who took an item."""
        return self._behaviour[1]

    @cached_property
    def vectors(self) -> Matrix:
        """[J, f] of length 1, or 0 of an item with neither behaviour nor words.

        Raises:
            TasteloopError: no such encoder is here, nor can be fetched.
        """
        behaviour, taken = self._behaviour
        texts = None
        if self.settings.encoder is not None:
            try:
                texts = text_vectors(self.texts, self.settings.encoder)
            except TasteloopError as error:
                raise TasteloopError(
                    f"interests are found with an encoder of titles and texts: {error}; or set "
                    "prepare.interests.encoder to a directory or, for behaviour alone, to null, or "
                    "prepare.interests.source to labels"
                ) from error
        return joined(behaviour, taken, texts, self.settings.behaviour_share)


def find_interests(
    catalogue: Catalogue, events: pl.LazyFrame, settings: InterestSettings
) -> CatalogueInterests:
    """The interests of every item of a catalogue (`tasteloop.behaviour.interests.Discover`).

    Args:
        events: USER and ITEM of positive acts before the validation window: nothing later is seen.
            They are not read where the catalogue's labels stay as they are.

    Raises:
        TasteloopError: interests shall be discovered and cannot be, the encoder cannot be had, or
            the version that they shall go on from has none.
    """
    material = Material(catalogue, events, settings)
    labelled = np.array([bool(labels) for labels in catalogue.labels], np.bool_)
    if settings.source == "discovered" or (settings.source == "auto" and not labelled.any()):
        lack = _lack(material)
        if lack is None:
            return _discover(material)
        if settings.source == "discovered":
            raise TasteloopError(
                f"no interests can be discovered: {lack}; set interests.source=labels"
            )
        log.info("no interests are discovered: %s", lack)
        return _as_it_came(catalogue, "none")
    if settings.complete and settings.source == "auto" and labelled.mean() < _COVERED:
        return _complete(material, labelled)
    return _as_it_came(catalogue, "labels")


def _as_it_came(
    catalogue: Catalogue, origin: Any, record: dict[str, Any] | None = None
) -> CatalogueInterests:
    return CatalogueInterests(
        catalogue.labels, origin, [False] * len(catalogue), {"origin": origin, **(record or {})}
    )


def user_item_numbers(
    events: pl.LazyFrame, catalogue: Catalogue
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """[m] users from 0, and positions of items; each pair once."""
    import polars as pl

    pairs = events.select(USER, ITEM).unique().collect(engine="streaming").sort(USER, ITEM)
    users = pairs[USER].rank("dense").cast(pl.Int64) - 1
    items = pairs[ITEM].cast(pl.Enum(catalogue.items)).to_physical()
    return users.to_numpy().astype(np.int64), items.to_numpy().astype(np.int64)


# --- discovered


def _lack(material: Material) -> str | None:
    """Why nothing can be discovered; None where it can."""
    with_words = int(material.has_words.sum())
    if with_words < _LEAST_ITEMS or with_words < _WITH_WORDS * len(material.catalogue):
        return (
            f"{with_words} of {len(material.catalogue)} items have a title or a text, and at least "
            f"{_LEAST_ITEMS}, and half of all, must"
        )
    if np.unique(material.vectors, axis=0).shape[0] <= g.count_for(0):
        return "the items do not differ in behaviour or words"
    return None


def _discover(material: Material) -> CatalogueInterests:
    """Groups of the items that have a vector, named, and matched to the last version's."""
    catalogue, settings = material.catalogue, material.settings
    placed = np.flatnonzero(material.vectors.any(1))
    vectors = material.vectors[placed]
    texts = [material.texts[j] for j in placed.tolist()]
    titles = [catalogue.titles[j] for j in placed.tolist()]
    taken = material.taken[placed]

    # 1. the groups, from those of the last version where there is one
    before: g.Groups | None = None
    old_names: list[str] = []
    if settings.continues is not None:
        name_of = _names_of_version(settings.continues)
        before, old_names = g.positions_before(
            [catalogue.items[j] for j in placed.tolist()], name_of
        )
        if (before < 0).all():
            before = None  # no item of then is left
    count = settings.count or g.count_for(len(placed))
    groups = g.group(vectors, count, settings.seed, before)
    again = g.group(vectors, count, settings.seed + 1, before)

    # 2. their names: an interest that goes on keeps its own
    titled = np.array([titles[n] != catalogue.items[j] for n, j in enumerate(placed.tolist())])
    names = names_of(texts, groups, np.where(titled, taken, -1), titles, reserved=old_names)
    pairs = {} if before is None else g.overlaps(groups, before)
    for new, (old, _) in pairs.items():
        names[new] = old_names[old]

    # 3. what is said of them
    labels: list[list[str]] = [[] for _ in range(len(catalogue))]
    for j, k in zip(placed.tolist(), groups.tolist(), strict=True):
        labels[j] = [names[k]]
    record = {
        "origin": "discovered",
        "seed_agreement": round(adjusted_rand(groups, again), 4),
        "interests": [
            _describe(names[k], np.flatnonzero(groups == k), titles, taken, pairs.get(k))
            for k in range(int(groups.max()) + 1)
        ],
    }
    if before is not None:
        kept = before >= 0
        record["version_agreement"] = round(adjusted_rand(groups[kept], before[kept]), 4)
        record["ended"] = sorted(set(old_names) - {old_names[old] for old, _ in pairs.values()})
    log.info("discovered %d interests of %d items: %s", len(names), len(placed), ", ".join(names))
    return CatalogueInterests(labels, "discovered", [bool(each) for each in labels], record)


def _describe(
    name: str,
    members: NDArray[np.int64],
    titles: list[str],
    taken: NDArray[np.int64],
    goes_on: tuple[int, float] | None,
) -> dict[str, Any]:
    most = members[np.argsort(-taken[members], kind="stable")][:_EXAMPLES]
    described = {
        "name": name,
        "items": len(members),
        "examples": [titles[j] for j in most.tolist()],
    }
    return described | ({"overlap": goes_on[1]} if goes_on else {})


def _names_of_version(directory: Path) -> dict[str, str]:
    """Item -> its interest in a bundle, or in snapshots: the first of its labels."""
    path = directory / ITEMS_FILE
    if not path.is_file():
        raise TasteloopError(
            f"no items table {path}; name a bundle or snapshots in prepare.interests.continues, or null"
        )
    last = Catalogue.read(path)
    return {item: labels[0] for item, labels in zip(last.items, last.labels, strict=True) if labels}


def adjusted_rand(one: NDArray[np.int64], other: NDArray[np.int64]) -> float:
    """How far two groupings agree: 1 the same, 0 by chance (Hubert & Arabie 1985, equation 5)."""
    from sklearn.metrics import adjusted_rand_score

    return float(adjusted_rand_score(one, other))


# --- completed


@dataclass(frozen=True)
class Completion:
    """What was inferred, and how it did on items whose labels are known.

    Attributes:
        probabilities: [unlabelled items, K]; threshold: from which a label is inferred, None where
            no threshold is precise enough.
        precision, low: of held-out items at the threshold that others chose, and its one-sided 95%
            lower bound (Clopper & Pearson 1934); inferred: held-out labels that it is a share of.
    """

    names: list[str]
    probabilities: Matrix
    threshold: float | None
    precision: float
    low: float
    inferred: int

    @property
    def is_proven(self) -> bool:
        return self.threshold is not None and self.low >= _PRECISE


def complete_labels(
    vectors: Matrix, catalogue: Catalogue, known: NDArray[np.int64], unknown: NDArray[np.int64]
) -> Completion:
    """Labels of unknown items by those of known ones with near vectors.

    A logistic regression for each label, cross-fitted in five folds, gives each known item
    probabilities that its own labels had no part in. The threshold is the least at which the lower
    bound of precision on one half of the known items reaches 0.8; whether it does on the other half
    decides. Labels that fewer than 20 known items bear are not inferred, and of more than 100 the
    most frequent are.

    Args:
        vectors: [J, f]. known, unknown: positions of items.
    """
    if len(known) > _MOST_FITTED:
        known = known[:: -(-len(known) // _MOST_FITTED)]
    membership = catalogue.membership(catalogue.label_names)
    support = membership[known].sum(0)
    common = np.flatnonzero((support >= _LEAST_LABELLED) & (support < len(known)))
    common = np.sort(common[np.argsort(-support[common], kind="stable")][:_MOST_LABELS])
    names = [catalogue.label_names[k] for k in common.tolist()]
    truth = membership[np.ix_(known, common)]

    # 1. probabilities of the known items, each by the other folds
    fold = np.random.default_rng(0).permutation(len(known)) % _FOLDS
    own = np.zeros_like(truth)
    for f in range(_FOLDS):
        own[fold == f] = _probabilities(
            vectors[known[fold != f]], truth[fold != f], vectors[known[fold == f]]
        )

    # 2. the threshold by one half, its precision by the other
    chooses = np.random.default_rng(1).permutation(len(known)) % 2 == 0
    threshold = next(
        (
            float(t)
            for t in np.linspace(0.5, 0.99, 50).round(2)
            if _precision(own[chooses] >= t, truth[chooses])[1] >= _PRECISE
        ),
        None,
    )
    if threshold is None:
        return Completion(
            names, np.zeros((len(unknown), len(names)), np.float32), None, 0.0, 0.0, 0
        )
    precision, low, inferred = _precision(own[~chooses] >= threshold, truth[~chooses])

    # 3. the unknown items, by all known ones
    probabilities = _probabilities(vectors[known], truth, vectors[unknown])
    return Completion(names, probabilities, threshold, precision, low, inferred)


def _precision(predicted: NDArray[np.bool_], truth: Matrix) -> tuple[float, float, int]:
    """Precision of predicted labels, its lower bound, and how many there are."""
    from scipy.stats import beta

    count, hits = int(predicted.sum()), int(truth[predicted].sum())
    if not hits:
        return 0.0, 0.0, count
    return hits / count, float(beta.ppf(1 - _SURE, hits, count - hits + 1)), count


def _probabilities(x: Matrix, truth: Matrix, asked: Matrix) -> Matrix:
    """[asked, K] by a logistic regression for each label."""
    from sklearn.linear_model import LogisticRegression

    out = np.zeros((len(asked), truth.shape[1]), np.float32)
    for k in range(truth.shape[1]):
        if 0 < truth[:, k].sum() < len(truth) and len(asked):
            fitted = LogisticRegression(C=10.0, max_iter=300).fit(x, truth[:, k])
            out[:, k] = fitted.predict_proba(asked)[:, 1]
    return out


def _complete(material: Material, labelled: NDArray[np.bool_]) -> CatalogueInterests:
    """The catalogue's labels, and those inferred of items without, where that is proven."""
    catalogue = material.catalogue
    if max(Counter(name for each in catalogue.labels for name in each).values()) < _LEAST_LABELLED:
        return _as_it_came(catalogue, "labels")
    try:
        has_vector = material.vectors.any(1)
    except TasteloopError as error:
        # what the catalogue says is enough for a run
        log.warning("no labels are inferred of items that have none: %s", error)
        return _as_it_came(catalogue, "labels")
    known, unknown = np.flatnonzero(labelled), np.flatnonzero(~labelled & has_vector)
    completion = complete_labels(material.vectors, catalogue, known, unknown)
    record = {
        "labelled": int(labelled.sum()),
        "of": len(catalogue),
        "threshold": completion.threshold,
        "precision": round(completion.precision, 4),
        "precision_low": round(completion.low, 4),
        "held_out": completion.inferred,
    }
    if not completion.is_proven:
        log.info(
            "the labels of %d of %d items are left as they are: on held-out items what would be inferred "
            "is not proven to be right in %g of the cases (lower bound %.3f)",
            len(known),
            len(catalogue),
            _PRECISE,
            completion.low,
        )
        return _as_it_came(catalogue, "labels", {"completion": record})
    labels = [list(each) for each in catalogue.labels]
    for row, j in enumerate(unknown.tolist()):
        beyond = np.flatnonzero(completion.probabilities[row] >= completion.threshold)
        labels[j] = [completion.names[k] for k in beyond.tolist()]
    inferred = [bool(now) and not was for now, was in zip(labels, catalogue.labels, strict=True)]
    record["inferred"] = sum(inferred)
    log.info("inferred labels of %d items, precision %.3f", sum(inferred), completion.precision)
    completed = replace(catalogue, labels=labels)
    return CatalogueInterests(
        completed.labels, "completed", inferred, {"origin": "completed", "completion": record}
    )
