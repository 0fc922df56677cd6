"""Loading and unloading of models, for the admin alone."""

from __future__ import annotations

from typing import Any

from kserve.protocol.model_repository_extension import ModelRepositoryExtension

from serving.answering.call import CALL
from serving.answering.models import Models
from serving.http.access import Access


class Repository(ModelRepositoryExtension):  # type: ignore[misc]
    """Where the handlers of all protocols load and unload models. It checks for the admin itself,
    so that no route leads past the check.
    """

    def __init__(self, models: Models, access: Access) -> None:
        super().__init__(models)
        self._models = models
        self._access = access

    async def load(self, model_name: str) -> dict[str, Any]:
        self._access.require_admin(CALL.get().is_admin)
        self._models.load(model_name)
        return {"name": model_name, "load": True}

    async def unload(self, model_name: str) -> dict[str, Any]:
        self._access.require_admin(CALL.get().is_admin)
        self._models.unload(model_name)
        return {"name": model_name, "unload": True}
