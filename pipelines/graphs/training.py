"""The training pipeline: from behaviour to a gated, rehearsed, promoted model.

1. Ingest behaviour and reviews: cleaned, pseudonymised, rejected rows kept aside.
2. Validate the data set; an error ends the run here.
3. Prepare snapshots by global time.
4. Fine-tune the encoder and the heads that the data can teach: on a GPU where the settings ask for
   one, in a TrainJob where they ask for more.
5. Fit the recommender and close the bundle.
6. Look up the champion to compare with.
7. Evaluate the bundle beside the baselines and the champion.
8. Gate: decide, with reasons.
9. Record a new bundle, whatever the verdict.
10. Rehearse one that passed: a real server must give the trainer's answers.
11. Promote it, its reference for monitoring saved.
"""

from __future__ import annotations

import json
from hashlib import sha256
from typing import Any

from kfp import dsl
from kfp.dsl.base_component import BaseComponent

from components.champion import champion
from components.evaluate import evaluate
from components.finetune import finetune
from components.fit_recommender import fit_recommender
from components.gate import gate
from components.image import image
from components.ingest import ingest
from components.prepare import prepare
from components.promote import promote
from components.record import record
from components.rehearse import rehearse
from components.validate import validate
from pipelines.graphs.step import OUTPUT, Refusal, Step, section_json
from pipelines.graphs.trainjob import build_trainjob
from pipelines.settings import Settings
from tasteloop.words import first_paragraph

NAME = "tasteloop-training"

# A step is cached unless it decides, or reads or changes what is not among its inputs: volumes that
# were accepted, the registry, a server.
INGEST = Step(ingest, section="ingest", size="heavy", caching="on one machine")
VALIDATE = Step(
    validate,
    section="validation",
    size="heavy",
    answer="passed",
    refusal=Refusal("refused", exit_code=4),
)
PREPARE = Step(prepare, section="prepare", size="heavy", caching="always")
FINETUNE = Step(finetune, section="training", size="finetune", caching="always")
FIT_RECOMMENDER = Step(fit_recommender, section="recommender", size="heavy", caching="always")
CHAMPION = Step(champion, answer="changed")
EVALUATE = Step(evaluate, section="evaluation", size="heavy", caching="always")
GATE = Step(gate, section="gate", answer="promote", refusal=Refusal("rejected", exit_code=3))
RECORD = Step(record)
REHEARSE = Step(
    rehearse,
    size="heavy",
    answer="passed",
    refusal=Refusal("rehearsal failed", exit_code=1),
)
PROMOTE = Step(promote, section="watch")

STEPS = (
    INGEST,
    VALIDATE,
    PREPARE,
    FINETUNE,
    FIT_RECOMMENDER,
    CHAMPION,
    EVALUATE,
    GATE,
    RECORD,
    REHEARSE,
    PROMOTE,
)


def training(
    settings: Settings, fingerprint: str = "", checkpoints: str = dsl.PIPELINE_JOB_ID_PLACEHOLDER
) -> BaseComponent:
    """The graph for these settings.

    `fingerprint` tells the local cache what the settings do not say; on a cluster, where nobody can
    know it when the graph is compiled, ingest always runs. `checkpoints` names the directory from
    which a killed fine-tuning resumes; by default it is the run's own, so that only its own retries
    do.
    """
    source = sha256(section_json(settings, "ingest").encode()).hexdigest()[:16]
    root = settings.cluster.root if settings.cluster else None

    @dsl.pipeline(name=NAME, pipeline_root=root, description=first_paragraph(__doc__))
    def graph():  # no annotation: kfp would read it
        ingested = INGEST.task(settings, fingerprint=fingerprint)
        dataset = ingested.outputs["dataset"]
        validated = VALIDATE.task(settings, dataset=dataset, source=source)

        with dsl.If(validated.outputs[OUTPUT] == True, name="data accepted"):  # noqa: E712  (a kfp expression)
            prepared = PREPARE.task(settings, dataset=dataset)
            snapshots = prepared.outputs["snapshots"]
            tuned = FINETUNE.task(
                settings,
                snapshots=snapshots,
                checkpoints=checkpoints,
                **_cluster_inputs(settings),
            )
            fitted = FIT_RECOMMENDER.task(
                settings, model=tuned.outputs["model"], snapshots=snapshots
            )
            bundle = fitted.outputs["bundle"]

            live = CHAMPION.task(settings, bundle=bundle)
            evaluated = EVALUATE.task(
                settings, bundle=bundle, snapshots=snapshots, champion=live.outputs["version"]
            )
            evaluation = evaluated.outputs["evaluation"]
            decided = GATE.task(settings, evaluation=evaluation)

            with dsl.If(live.outputs[OUTPUT] == True, name="bundle is new"):  # noqa: E712
                recorded = RECORD.task(
                    settings,
                    bundle=bundle,
                    evaluation=evaluation,
                    verdict=decided.outputs["verdict"],
                    settings=json.dumps(settings.of_training()),
                )
                with dsl.If(decided.outputs[OUTPUT] == True, name="gate passed"):  # noqa: E712
                    version = recorded.output
                    rehearsed = REHEARSE.task(settings, bundle=bundle, version=version)
                    with dsl.If(rehearsed.outputs[OUTPUT] == True, name="rehearsal passed"):  # noqa: E712
                        PROMOTE.task(
                            settings,
                            bundle=bundle,
                            dataset=dataset,
                            snapshots=snapshots,
                            version=version,
                            champion=live.outputs["digest"],
                        )

    return graph


def _cluster_inputs(settings: Settings) -> dict[str, Any]:
    """Inputs of fine-tuning on a cluster: the store of its checkpoints, and the TrainJob in which
    it trains; empty where the step does both itself.
    """
    inputs: dict[str, Any] = {}
    if settings.cluster and settings.cluster.checkpoints:
        inputs["store"] = settings.cluster.checkpoints
    if settings.cluster and settings.cluster.finetune.together:
        inputs["trainjob"] = json.dumps(build_trainjob(settings.cluster, image()))
    return inputs
