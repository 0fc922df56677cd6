"""What both protocols' gates ask before they let a request in: is there room, and who answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from serving.answering.batching import Batcher, QueueFull
from serving.answering.live import Live
from serving.answering.models import Models
from serving.http.access import OPEN, Access
from serving.observe.observer import Observer
from serving.settings import ServerSettings

# ends of what is answered from the queue
_ASKING = (":predict", ":explain", "/infer", "/ModelInfer")


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
        """What it yields takes so many bytes, until the context ends.

        Raises:
            QueueFull: (what it yields) they are more than there are; none of them is taken.
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
        settings: of the server; access: who may ask it.
        observer: told of every request once it was answered.
        repository: the models, less those that were taken out of service.
        answers: bytes of the answers that callers have not taken yet.
        draining: SIGTERM came: not ready any more, but what comes is still answered.
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
        """Whether there is somebody to compute."""
        return self._batcher.alive

    @property
    def ready(self) -> bool:
        """Warm, and not on its way out."""
        return not self.draining and self.alive

    async def require(self, model: str) -> None:
        """Raises ModelNotFound for one that is not there, or was taken out of service."""
        if not await self.repository.is_model_ready(model):
            raise self.repository.not_found(model)

    @contextmanager
    def under_way(self) -> Iterator[Callable[[int], None]]:
        """One request more. What it yields takes so many bytes for its body until it ends, or
        raises QueueFull.
        """
        self._under_way += 1
        try:
            with self._bodies.share() as hold:
                yield hold
        finally:
            self._under_way -= 1

    def admit(self, path: str) -> None:
        """Before a body is read: raises QueueFull where too many requests are under way, or where
        the queue would refuse whatever is asked, or where the answers that nobody takes leave no
        room. Probes always pass.
        """
        if path not in OPEN and (self._under_way > self.settings.requests or self.answers.is_spent):
            raise QueueFull(1.0)
        if path.endswith(_ASKING):
            self._batcher.admit()
