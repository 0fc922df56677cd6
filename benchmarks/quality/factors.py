"""Peers with factors of users and items, of the package `implicit`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.quality.method import Scorer, Settings
from benchmarks.quality.tasks import Feedback, Matrix, Past, Rows


@dataclass(frozen=True)
class FoldedIn:
    """iALS: a history's factors are solved for with the items' held."""

    model: Any
    feedback: Feedback

    def scores(self, rows: Rows) -> Matrix:
        from scipy.sparse import csr_matrix

        histories = csr_matrix(rows.sparse(self.feedback))
        users = self.model.recalculate_user(np.arange(len(rows)), histories)
        return np.asarray(users @ self.model.item_factors.T, np.float32)


def ials(past: Past, settings: Settings) -> Scorer:
    from implicit.cpu.als import AlternatingLeastSquares
    from scipy.sparse import csr_matrix

    feedback = settings["feedback"]
    model = AlternatingLeastSquares(
        factors=settings["factors"],
        regularization=settings["regularisation"],
        alpha=settings["alpha"],
        iterations=settings["iterations"],
        random_state=settings["seed"],
    )
    model.fit(csr_matrix(past.matrix(feedback)), show_progress=False)
    return FoldedIn(model, feedback)


@dataclass(frozen=True)
class Pairwise:
    """BPR: a known user's own factors; for a history that was not fitted, factors that minimise the
    same pairwise loss over pairs drawn with the history's items first, the items' factors held.
    """

    items: Matrix
    users: Matrix
    feedback: Feedback
    regularisation: float
    seed: int
    pairs: int = 512
    steps: int = 60

    def scores(self, rows: Rows) -> Matrix:
        liked = rows.matrix(self.feedback) > 0
        out = np.zeros(liked.shape, np.float32)
        random = np.random.default_rng(self.seed)
        for row in range(len(rows)):
            if rows.user[row] >= 0:
                user = self.users[rows.user[row]]
            else:
                user = self._folded(np.flatnonzero(liked[row]), liked[row], random)
            out[row] = self.items @ user
        return out

    def _folded(self, mine: Any, liked: Any, random: np.random.Generator) -> Matrix:
        user = np.zeros(self.items.shape[1], np.float32)
        user[-1] = 1  # implicit keeps the item's bias there
        if not len(mine):
            return user
        others = random.integers(0, len(liked), self.pairs)
        gap = self.items[random.choice(mine, self.pairs)] - self.items[others]
        gap = gap[~liked[others]]
        for _ in range(self.steps):
            wrong = 1 / (1 + np.exp(gap @ user))
            step = wrong @ gap / len(gap) - self.regularisation * user
            user[:-1] += 2.0 * step[:-1]
        return user


def bpr(past: Past, settings: Settings) -> Scorer:
    from implicit.cpu.bpr import BayesianPersonalizedRanking
    from scipy.sparse import csr_matrix

    feedback = settings["feedback"]
    model = BayesianPersonalizedRanking(
        factors=settings["factors"],
        learning_rate=settings["rate"],
        regularization=settings["regularisation"],
        iterations=settings["iterations"],
        random_state=settings["seed"],
        num_threads=1,  # with more, threads write over each other and no seed repeats a run
    )
    model.fit(csr_matrix(past.matrix(feedback)), show_progress=False)
    return Pairwise(
        model.item_factors,
        model.user_factors,
        feedback,
        settings["regularisation"],
        settings["seed"],
    )
