"""A retraining: the training pipeline on a data window, with what it begins with and what it must
not forget.

The pipeline's own gate decides: its test window is the newest part of the data, and the champion is
measured on the same rows. Besides, the new model is compared with the champion on earlier data, on
users that both were kept from.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from rich.text import Text

from pipelines.local import runner
from pipelines.loop.contracts import Retraining
from pipelines.loop.data_window import write_window
from pipelines.loop.provenance import find_provenance
from pipelines.settings import Settings
from serving.release import registry
from tasteloop.bundle.card import BundleCard
from tasteloop.bundle.names import MODELS_DIRECTORY
from tasteloop.datasets.ingest import INGEST_FILE
from tasteloop.errors import TasteloopError
from tasteloop.evaluation.record import CHAMPION, EVALUATION_FILE, Evaluation
from tasteloop.files import read_json
from tasteloop.home import Home
from validation.gate.gates import FORGETTING
from validation.monitor.decision import Result
from validation.monitor.entries import RetrainingResult

# what a run's outcome is to the ledger
RESULTS: dict[str, Result] = {
    "promoted": "promoted",
    "unchanged": "unchanged",
    "rejected": "rejected",
    "refused": "refused",
    "rehearsal failed": "failed",
}


def retrain(retraining: Retraining) -> RetrainingResult:
    """Run the training pipeline on a data window; after a kill the same `retraining.run` carries on
    from what is there.

    Raises:
        TasteloopError: the champion's data is no longer here.
    """
    # 1. the champion and what it was made from
    digest = retraining.champion
    version = next((v.version for v in registry.versions() if v.digest == digest), None)
    made_from = find_provenance(digest)
    if version is None or made_from is None:
        raise TasteloopError(
            f"the champion {digest[:12]} was not trained under {Home.current()}, or its artifacts were removed: there "
            "is no data to retrain on; train here with `tasteloop run`"
        )

    # 2. the data window, unless an earlier attempt has written it
    data = Home.current().retrainings / retraining.run / "data"
    if not (data / INGEST_FILE).is_file():
        live = registry.pointer()
        if live is None or live[1] != digest:
            return RetrainingResult(
                result="unchanged",
                reason="another version was promoted meanwhile; its own drift will tell",
            )
        write_window(
            made_from.base_dataset,
            made_from.snapshots,
            retraining.source(0),
            retraining.until,
            retraining.settings.retraining,
            data,
        )

    # 3. the training pipeline on it
    settings = settings_of_run(
        retraining.settings, data, made_from.snapshots, registry.find(version).path
    )
    facts = runner.run(settings, _print_to_stderr)

    # 4. what came of it
    result, new_version = RESULTS[facts.outcome], facts.version
    live = registry.pointer()
    if result == "unchanged" and live is not None and live[1] != digest:
        # this run had promoted it before it was killed
        result, new_version = "promoted", live[0]
    further: dict[str, Any] = {}
    if new_version:
        further["version"] = new_version
    forgetting = _read_forgetting(facts.id)
    if forgetting:
        further["forgetting"] = forgetting
    return RetrainingResult(
        result=result,
        reason=facts.reason,
        training_run=facts.id,
        data=read_json(data / INGEST_FILE)["window"],
        **further,
    )


def settings_of_run(
    settings: Settings, data: Path, old_snapshots: Path, champion: Path
) -> Settings:
    """The settings of the training run: the profile's, on the data window, with what is compared on
    earlier data.

    Args:
        old_snapshots: those of the champion, on which the gate asks what was forgotten.
        champion: the champion's bundle, whose encoder a warm start begins with, and whose
            discovered interests go on.
    """
    rules, card = settings.retraining, BundleCard.read(champion)
    encoder = settings.training.encoder
    if rules.warm_start:
        encoder = str(champion / MODELS_DIRECTORY / card.reading_model)
    interests = settings.prepare.interests
    if card.interests == "discovered":
        interests = interests.model_copy(update={"continues": champion})
    sections: dict[str, dict[str, Any]] = {
        "ingest": {"behaviour": str(data), "max_users": None},
        "prepare": {"interests": interests},
        "training": {"encoder": encoder},
        "evaluation": {"old": old_snapshots},
        "gate": {"forgetting": rules.forgetting},
    }
    changed = {}
    for name, values in sections.items():
        changed[name] = getattr(settings, name).model_copy(update=values)
    return settings.model_copy(update=changed)


def _read_forgetting(run_id: str) -> dict[str, float | None]:
    """A run's differences to the champion on earlier data, by metric; none where it measured
    none.
    """
    path = Home.current().run(run_id) / EVALUATION_FILE
    evaluation = Evaluation.read(path) if path.is_file() else Evaluation()
    if evaluation.old is None:
        return {}
    differences = evaluation.old.differences.get(CHAMPION, {})
    return {name: differences[name].value for name in FORGETTING if name in differences}


def _print_to_stderr(line: str) -> None:
    """A line of a run, without its markup. It is not logged: kfp makes the root logger write to
    where these lines come from.
    """
    print(Text.from_markup(line).plain, file=sys.stderr, flush=True)
