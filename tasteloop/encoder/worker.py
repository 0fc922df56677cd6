"""One of the processes that fine-tune together: `torchrun -m tasteloop.encoder.worker --place PLACE
--settings JSON`.

PLACE is a directory that all processes see, or the URL of an object store. It holds the snapshots
that they read, and gets their checkpoints and the model, so that any of them may be lost and begin
again.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import tempfile
from pathlib import Path

from tasteloop import process, storage
from tasteloop.words import first_paragraph

SNAPSHOTS, MODEL, CHECKPOINTS = "snapshots", "model", "checkpoints"  # in PLACE


def work(directory: str, settings: str) -> None:
    """Train with the other processes; the first of them writes the model.

    Args:
        directory: PLACE.
        settings: the training section as JSON.

    Raises:
        TasteloopError: no snapshots there, or what `finetune` raises.
    """
    from tasteloop.encoder.settings import TrainingSettings
    from tasteloop.encoder.training import finetune
    from tasteloop.errors import TasteloopError

    if storage.exists(f"{directory}/{MODEL}"):
        return  # this process was lost after the model was complete
    with tempfile.TemporaryDirectory(prefix="tasteloop-") as scratch:
        snapshots, model = Path(scratch, SNAPSHOTS), Path(scratch, MODEL)
        if not storage.fetch(f"{directory}/{SNAPSHOTS}", snapshots):
            raise TasteloopError(
                f"no snapshots at {directory}/{SNAPSHOTS}; whoever starts the workers puts them there"
            )
        checked = TrainingSettings.model_validate_json(settings)
        if storage.is_remote(directory):
            finetune(
                snapshots, checked, model, Path(scratch, CHECKPOINTS), f"{directory}/{CHECKPOINTS}"
            )
            if model.is_dir():
                storage.send(model, f"{directory}/{MODEL}")
        else:
            finetune(snapshots, checked, Path(directory, MODEL), Path(directory, CHECKPOINTS))
    _leave_together()


def _leave_together() -> None:
    """Wait until the first process has written the model: if it were lost before, all processes
    must be there to begin again.
    """
    import torch

    if torch.distributed.is_initialized():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()


def main() -> None:
    from torch.distributed.elastic.multiprocessing.errors import record

    process.begin()
    parser = argparse.ArgumentParser(
        "tasteloop.encoder.worker",
        description=first_paragraph(__doc__),
    )
    parser.add_argument("--place", required=True)
    parser.add_argument("--settings", required=True)
    options = parser.parse_args()
    first = os.environ.get("RANK", "0") == "0"
    logging.basicConfig(
        level=logging.INFO if first else logging.WARNING, format="%(message)s", stream=sys.stdout
    )
    # torchrun's report then names the error that came first
    record(work)(options.place, options.settings)


if __name__ == "__main__":
    main()
