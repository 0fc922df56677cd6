"""What the gates of both protocols check before a request enters: is there room, who answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from serving.answering.batching import Batcher, QueueFull
from serving.answering.live import Live
from serving.answering.models import Models
from serving.http.access import OPEN, Access
from serving.observe.observer import Observer
from serving.settings import ServerSettings

# How the paths of questions end, which are answered from the queue.
_QUESTIONS = (":predict", ":explain", "/infer", "/ModelInfer")


class Budget:
    """Bytes of memory that requests share."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._used = 0

    @property
    def is_spent(self) -> bool:
        return self._used >= self._most

    @contextmanager
    def share(self) -> Iterator[Callable[[int], None]]:
        """Yields a function that takes so many bytes of the budget; they return to it when the
        context ends.

        Raises:
            QueueFull: the function was called for more bytes than are left; it takes none of them.
        """
        taken = 0

        def take(size: int) -> None:
            nonlocal taken
            if self._used + size > self._most:
                raise QueueFull(1.0)
            taken += size
            self._used += size

        try:
            yield take
        finally:
            self._used -= taken


class Admission:
    """The state of one server that its gates share.

    Attributes:
        settings: of the server.
        access: who may ask it.
        observer: notes every request after it was answered.
        repository: the models, without those that were taken out of service.
        answers: the memory for answers that callers have not taken yet.
        draining: SIGTERM came. The server is not ready any more, but still answers what comes.
    """

    def __init__(
        self, settings: ServerSettings, access: Access, batcher: Batcher, observer: Observer
    ) -> None:
        self.settings = settings
        self.access = access
        self.observer = observer
        self.repository = Models(batcher)
        self.answers = Budget(settings.answers)
        self.draining = False
        self._batcher = batcher
        self._under_way = 0
        self._bodies = Budget(settings.bodies)

    @property
    def live(self) -> Live:
        return self._batcher.live

    @property
    def models(self) -> tuple[str, ...]:
        return self.live.current.models

    @property
    def alive(self) -> bool:
        """Whether the compute thread runs."""
        return self._batcher.alive

    @property
    def ready(self) -> bool:
        """Whether the models are warm and the server does not stop."""
        return not self.draining and self.alive

    async def require(self, model: str) -> None:
        """Check that a model answers.

        Raises:
            ModelNotFound: there is no such model, or it was taken out of service.
        """
        if not await self.repository.is_model_ready(model):
            raise self.repository.not_found(model)

    @contextmanager
    def under_way(self) -> Iterator[Callable[[int], None]]:
        """Count one more request while the context lasts. Yields a function that takes so many
        bytes for its body, or raises QueueFull.
        """
        self._under_way += 1
        try:
            with self._bodies.share() as hold:
                yield hold
        finally:
            self._under_way -= 1

    def admit(self, path: str) -> None:
        """Let a request enter, before its body is read. Probes always pass.

        Raises:
            QueueFull: too many requests are under way, or the answers that callers have not taken
                leave no room, or the queue would refuse any question.
        """
        is_crowded = self._under_way > self.settings.requests or self.answers.is_spent
        if path not in OPEN and is_crowded:
            raise QueueFull(1.0)
        if path.endswith(_QUESTIONS):
            self._batcher.admit()
