"""Which predictor answers: the one place where it is looked up, and where it is exchanged."""

from __future__ import annotations

from typing import Any

from serving.answering.call import Call
from serving.answering.predictor import Predictor
from serving.answering.users import route, take_users
from serving.histories.service import HistoryService
from serving.journal.answered import Answered
from serving.journal.tokens import FeedbackTokens, new_answer_id
from serving.journal.writer import Journal


class Live:
    """The predictor in use.

    `current` is one reference, and assigning it is one step: each batch is computed by the old
    predictor or by the new one. The compute thread calls `pick` when it takes a batch, so a swap
    waits for nothing, and nothing waits for a swap.

    Args:
        journal: where answers go; None for none.
        key: of the users' pseudonyms; without one users are left out, and answers get no feedback.

    Attributes:
        histories: what questions about a user are answered from; None where callers send it all.
    """

    def __init__(
        self, predictor: Predictor, journal: Journal | None = None, key: bytes | None = None
    ) -> None:
        self.current = predictor
        self.journal = journal
        self.histories: HistoryService | None = None
        self._key = key
        self._tokens = None if key is None else FeedbackTokens(key)

    def admit(self, call: Call, instances: object) -> object:
        """Note on the call its users' pseudonyms, the canary's route and the answer's id; returns
        the V1 instances without their users.

        Raises:
            TasteloopError: a user that is no string of the allowed length.
        """
        instances, call.users = take_users(instances, self._key)
        call.route = route(call.id, instances, call.users)
        if self._tokens is not None and not call.explain:
            call.answer = new_answer_id()
        return instances

    def allow_feedback(self, call: Call) -> None:
        """Put on a call that was answered the token that feedback on it must show."""
        if self._tokens is not None and call.answer is not None:
            call.feedback_token = self._tokens.issue(call.id, call.answer)

    def swap(self, predictor: Predictor) -> Predictor:
        """Let `predictor` answer from the next batch on; returns the one before."""
        before, self.current = self.current, predictor
        return before

    @property
    def serving(self) -> tuple[Predictor, ...]:
        """Every predictor that `pick` may return, beginning with that of most calls."""
        return (self.current,)

    def pick(self, call: Call) -> Predictor | None:
        """Which predictor answers a call; None where none has its model, or the version that it
        names.

        This is called when a call comes and again when its batch is taken, so it must be cheap. The
        result for one call is the same as long as nothing was swapped. Calls with one model and one
        predictor are computed together.
        """
        for predictor in self.serving:
            if call.model in predictor.models and call.version in (None, predictor.version):
                return predictor
        return None

    def instead(self, call: Call, predictor: Predictor, error: Exception) -> Predictor | None:
        """Which other predictor answers a call whose computation failed; None: none, and the call
        fails. Called in the compute thread.
        """
        return None

    def on_answer(self, answered: Answered) -> None:
        """Note an answer after it was handed over. Called in the compute thread."""
        if self.journal is not None:
            self.journal.answered(answered)

    def status(self) -> dict[str, Any]:
        """Which version answers, and the state of the journal, as JSON."""
        return {
            "version": self.current.version,
            "digest": self.current.digest,
            "journal": self.journal.status() if self.journal else None,
        }
