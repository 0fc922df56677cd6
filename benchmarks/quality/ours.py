"""Ours: the recommender of `tasteloop.recommender`, without an encoder, with one as it was
published, and with the one of a bundle, each with λ fitted here; and a bundle as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.quality.content import item_texts, text_vectors
from benchmarks.quality.linear import events_of
from benchmarks.quality.method import Method, Scorer, Settings
from benchmarks.quality.tasks import Matrix, Past, Rows, Task
from tasteloop.behaviour.items import Catalogue
from tasteloop.behaviour.snapshots import FUTURE, TRAIN, Snapshots
from tasteloop.behaviour.text import TextSettings
from tasteloop.errors import TasteloopError
from tasteloop.recommender import fitting, folding, recommend, tuning, weights

Interests = Callable[[Rows], Matrix]
# Of a catalogue: what terms are fitted on beside the past, and the interests of rows [n, K]
Ground = Callable[[Catalogue], tuple[fitting.FittingData, Interests]]

WITHOUT_NEARBY = fitting.RecommenderSettings(nearby_reach=0)


@dataclass(frozen=True)
class Tasteloop:
    """The one place where the benchmark knows `tasteloop.recommender.recommend`."""

    recommender: recommend.Recommender
    interests: Interests

    def scores(self, rows: Rows) -> Matrix:
        folded = _fold(rows, self.recommender.decay)
        return self.recommender.score_terms(folded, self.interests(rows)).scores()


def ours(
    name: str, about: str, ground: Ground, options: fitting.RecommenderSettings | None = None
) -> Method:
    """`tasteloop.recommender` with λ fitted on the validation rows."""
    chosen = options or fitting.RecommenderSettings()

    def fit(past: Past, settings: Settings) -> Scorer:
        tuned = fitting.TunedSettings(
            **{name: value for name, value in settings.items() if name != "seed"}
        )
        data, interests = ground(past.catalogue)
        return Tasteloop(fitting.fit_terms(events_of(past), data, chosen, tuned), interests)

    def learn(task: Task) -> tuple[dict[str, Any], float]:
        """What the pipeline chooses on the validation window, λ included; its nDCG@10 is
        cross-fitted.
        """
        data, interests = ground(task.catalogue)

        def ask(rows: Rows, known: Matrix) -> weights.ValidationRows:
            return weights.ValidationRows(_Histories(rows), known, rows.relevant, rows.group)

        # everybody's interests in earlier windows, as the encoder was trained on their rows
        everybody = data.truth.mean(0)
        earlier = (
            (events_of(past), ask(rows, np.tile(everybody, (len(rows), 1))))
            for past, rows in task.earlier
        )
        asked = ask(task.validation, interests(task.validation))
        tuned = tuning.tune(events_of(task.tune), data, asked, chosen, earlier)
        return asdict(tuned), tuned.ndcg

    search = ({name: _several(value) for name, value in chosen},)
    return Method(name, about, fit, search, learn=learn, package="implicit", ordered=True)


def _several(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


@dataclass(frozen=True)
class _Histories:
    """The rows' histories as `folding.Histories`."""

    rows: Rows

    @property
    def shape(self) -> tuple[int, int]:
        return self.rows.shape

    @property
    def length(self) -> NDArray[np.int64]:
        return np.array([len(history) for history in self.rows.histories], np.int64)

    def fold(self, decay: float, rows: slice) -> folding.FoldedHistories:
        return _fold(self.rows.take(rows), decay)

    def hidden(self, rows: slice) -> NDArray[np.bool_]:
        return self.rows.take(rows).hidden


def _fold(rows: Rows, decay: float) -> folding.FoldedHistories:
    length = np.array([len(history) for history in rows.histories])
    return folding.FoldedHistories.decayed(
        rows.matrix("liked", decay), rows.matrix("unrejected", decay), rows.opinions(), length
    )


# --- what an encoder adds


def published(encoder: str = "") -> Ground:
    """The vectors of item texts by an encoder as it was published, zeros without one. Without a
    fine-tuned model nothing is known of interests, and that term is 0.
    """

    def ground(catalogue: Catalogue) -> tuple[fitting.FittingData, Interests]:
        vectors = np.zeros((len(catalogue), 1), np.float32)
        if encoder:
            vectors = text_vectors(item_texts(catalogue, False), encoder)
        labels, truth = catalogue.label_names[:1], np.zeros((1, 1), np.float32)
        future = fitting.mark_futures([[]], len(catalogue))
        data = fitting.FittingData(vectors, catalogue, labels, truth, future, TextSettings())
        return data, lambda rows: np.zeros((len(rows), 1), np.float32)

    return ground


def fine_tuned(directory: Path, snapshots: Path) -> Ground:
    """The vectors and interests of a bundle's encoder; terms and λ are fitted here."""

    def ground(catalogue: Catalogue) -> tuple[fitting.FittingData, Interests]:
        session = _session(directory, catalogue)
        data = replace(Snapshots.read(snapshots), labels=list(session.card.labels))
        train = data.split(TRAIN)
        fitting_data = fitting.FittingData(
            session.item_vectors()[_positions(session, catalogue)],
            catalogue,
            data.labels,
            data.truth(train),
            fitting.mark_futures(train[FUTURE], len(catalogue)),
            data.text,
        )
        return fitting_data, lambda rows: session.interests(rows.event_lists(catalogue))

    return ground


def of_bundle(directory: Path, snapshots: Path) -> tuple[Method, ...]:
    """A bundle's recommender with λ fitted here: all terms, those without what stood near, and the
    bundle as it is.
    """
    ground = fine_tuned(directory, snapshots)
    refitted = (
        ours("tasteloop-encoder", "ours, all terms: with the bundle's encoder", ground),
        ours(
            "tasteloop-encoder-no-nearby",
            "all terms but the two of what stood near, λ fitted without them",
            ground,
            WITHOUT_NEARBY,
        ),
    )
    return (*(replace(method, protocols=("time",)) for method in refitted), bundle(directory))


@dataclass(frozen=True)
class Bundle:
    """A bundle's own ranking, with the encoder's terms."""

    session: Any
    catalogue: Catalogue

    def scores(self, rows: Rows) -> Matrix:
        histories = rows.event_lists(self.catalogue)
        theirs = _positions(self.session, self.catalogue)
        out = np.empty(rows.shape, np.float32)
        interests = self.session.interests(histories)
        for start in range(0, len(rows), 256):
            part = slice(start, start + 256)
            out[part] = self.session.score_terms(histories[part], interests[part]).scores()[
                :, theirs
            ]
        return out


def bundle(directory: Path) -> Method:
    """A bundle as the pipeline made it, fitted on what came before the test window and chosen on
    the validation one.
    """

    def fit(past: Past, settings: Settings) -> Scorer:
        return Bundle(_session(directory, past.catalogue), past.catalogue)

    about = "the whole recommender of a bundle, its settings as the pipeline chose them"
    return Method(
        "tasteloop-bundle", about, fit, protocols=("time",), ordered=True, validated=False
    )


def _session(directory: Path, catalogue: Catalogue) -> Any:
    """The bundle's session.

    Raises:
        TasteloopError: it does not know all items.
    """
    from tasteloop.runtime.session import Session

    session = Session.load(directory)
    if absent := [item for item in catalogue.items if item not in session.catalogue.index]:
        raise TasteloopError(
            f"the bundle {directory} does not know {len(absent)} of the benchmark's items; make one of the same "
            "data with `tasteloop run`"
        )
    return session


def _positions(session: Any, catalogue: Catalogue) -> NDArray[np.int64]:
    """[J] where each item stands in the bundle's own catalogue."""
    return np.array([session.catalogue.index[item] for item in catalogue.items], np.int64)
