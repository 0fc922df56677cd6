"""The processes that train together."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tasteloop.errors import TasteloopError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Workers:
    """The processes that train together (torchrun); one where there are no others."""

    rank: int = 0
    size: int = 1
    device: str = "cpu"

    @classmethod
    def join(cls) -> Workers:
        """Join torchrun's process group where its variables are set; CUDA where there is a GPU."""
        import torch
        from torch import distributed
        from torch.distributed.rendezvous import rendezvous

        size, local = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("LOCAL_RANK", 0))
        device = f"cuda:{local}" if torch.cuda.is_available() else "cpu"
        if device != "cpu":
            torch.cuda.set_device(local)  # what NCCL gathers goes through it
        if size > 1 and not distributed.is_initialized():
            store, rank, _ = next(rendezvous("env://"))
            # torchrun's store outlives a restart, with the addresses of those that are gone in it:
            # pytorch#135712
            attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
            store = distributed.PrefixStore(f"attempt {attempt}", store)  # type: ignore[attr-defined]
            distributed.init_process_group(
                "nccl" if device != "cpu" else "gloo", store=store, rank=rank, world_size=size
            )
        return cls(int(os.environ.get("RANK", 0)), size, device)

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """The sum over all processes, in place; the values themselves where there is one."""
        import torch

        if self.size > 1:
            torch.distributed.all_reduce(values)
        return values

    def agree(self, position: tuple[str, int, int]) -> None:
        """Raises TasteloopError where not all carry on from the same position: each would wait for
        the others for ever.
        """
        import torch

        if self.size == 1:
            return
        positions: list[Any] = [None] * self.size
        torch.distributed.all_gather_object(positions, position)
        if len(set(positions)) > 1:
            listed = ", ".join(
                f"{rank}: epoch {p[1] + 1}, step {p[2]}" for rank, p in enumerate(positions)
            )
            raise TasteloopError(
                f"the workers found different checkpoints or data ({listed}); their checkpoints must be where all of "
                "them look: a volume that every node mounts (ReadWriteMany), or an object store (cluster.checkpoints)"
            )
