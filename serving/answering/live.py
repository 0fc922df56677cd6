"""Which predictor answers: the one place where it is found, and where it is exchanged."""

from __future__ import annotations

from typing import Any

from serving.answering.call import Call
from serving.answering.predictor import Predictor
from serving.answering.users import route, take_users
from serving.journal.answered import Answered
from serving.journal.tokens import FeedbackTokens, new_answer_id
from serving.journal.writer import Journal


class Live:
    """The predictor in use.

    `current` is one reference, and assigning it is one step: a batch has the old predictor or the
    new one, whole. The compute thread asks `pick` as it takes a batch, so a swap waits for nobody
    and nobody for it.

    Args:
        journal: where answers go; None for none.
        key: of the users' pseudonyms; without one users are left out, and no feedback can be told
            of answers.
    """

    def __init__(
        self, predictor: Predictor, journal: Journal | None = None, key: bytes | None = None
    ) -> None:
        self.current = predictor
        self.journal = journal
        self._key = key
        self._tokens = None if key is None else FeedbackTokens(key)

    def admit(self, call: Call, instances: object) -> object:
        """V1 instances without their users, whose pseudonyms are noted on the call, as are the
        canary's route and the answer's id.

        Raises:
            TasteloopError: a user that is none.
        """
        kept, call.users = take_users(instances, self._key)
        call.route = route(call.id, kept, call.users)
        if self._tokens is not None and not call.explain:
            call.answer = new_answer_id()
        return kept

    def let_caller_tell(self, call: Call) -> None:
        """Give a call that was answered the token that feedback on it must show."""
        if self._tokens is not None and call.answer is not None:
            call.feedback_token = self._tokens.issue(call.id, call.answer)

    def swap(self, predictor: Predictor) -> Predictor:
        """The next batch is answered by `predictor`; returns the one before."""
        before, self.current = self.current, predictor
        return before

    @property
    def serving(self) -> tuple[Predictor, ...]:
        """Every predictor that `pick` may give, the one for most calls first."""
        return (self.current,)

    def pick(self, call: Call) -> Predictor | None:
        """Who answers a call; None where nobody has its model, or the version that it names.

        Asked when a call comes and again when its batch is taken: cheap, and the same for one call
        as long as nothing was swapped. Calls with one model and one predictor are computed
        together.
        """
        for predictor in self.serving:
            if call.model in predictor.models and call.version in (None, predictor.version):
                return predictor
        return None

    def instead(self, call: Call, predictor: Predictor, error: Exception) -> Predictor | None:
        """Who answers a call whose computation failed; None: nobody, the call fails. In the compute
        thread.
        """
        return None

    def on_answer(self, answered: Answered) -> None:
        """Told of every answer after it was handed over; in the compute thread."""
        if self.journal is not None:
            self.journal.answered(answered)

    def status(self) -> dict[str, Any]:
        """What answers, and how the journal is."""
        return {
            "version": self.current.version,
            "digest": self.current.digest,
            "journal": self.journal.status() if self.journal else None,
        }
