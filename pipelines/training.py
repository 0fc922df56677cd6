"""The training pipeline: from behaviour to a gated, rehearsed, promoted model.

1. Ingest behaviour and reviews: cleaned, pseudonymised, rejected rows kept aside.
2. Validate the data set; an error ends the run here.
3. Prepare snapshots by global time.
4. Fine-tune the encoder and its two heads, on a GPU where the settings ask for one.
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
from pathlib import Path
from typing import Any

from kfp import compiler, dsl
from kfp.dsl.base_component import BaseComponent

from components.champion import champion
from components.evaluate import evaluate
from components.finetune import finetune
from components.fit_recommender import fit_recommender
from components.gate import gate
from components.image import IMAGE, image
from components.ingest import ingest
from components.prepare import prepare
from components.promote import promote
from components.record import record
from components.rehearse import rehearse
from components.validate import validate
from pipelines.settings import ClusterSettings, Settings

NAME = "tasteloop-training"
ANSWER = "Output"  # kfp's local runner takes a condition on any other output for false
STEPS = (
    ingest, validate, prepare, finetune, fit_recommender, champion, evaluate, gate, record, rehearse, promote,
)  # fmt: skip


def training(settings: Settings, fingerprint: str = "", checkpoints: str = "cluster") -> BaseComponent:
    """The graph for these settings.

    `fingerprint` tells the local cache what the settings do not say; on a cluster, where nobody can know it
    when the graph is compiled, ingest always runs. `checkpoints` names the directory from which a killed
    fine-tuning resumes.
    """
    reference = image() if settings.cluster else IMAGE  # here the code runs as it is, so no commit is named

    def run(component: BaseComponent, cached: bool = True, **inputs: Any) -> dsl.PipelineTask:
        return component(**inputs).set_container_image(reference).set_caching_options(cached)

    def section(name: str) -> str:
        return getattr(settings, name).model_dump_json()

    source = sha256(section("ingest").encode()).hexdigest()[:16]

    @dsl.pipeline(name=NAME, description=(__doc__ or "").partition("\n")[0])
    def graph():  # no annotation: kfp would read it
        data = run(ingest, cached=not settings.cluster, settings=section("ingest"), fingerprint=fingerprint)
        dataset = data.outputs["dataset"]
        validated = run(validate, cached=False, dataset=dataset, settings=section("validation"), source=source)

        with dsl.If(validated.outputs[ANSWER] == True, name="data accepted"):  # noqa: E712  (a kfp expression)
            prepared = run(prepare, dataset=dataset, settings=section("prepare"))
            snapshots = prepared.outputs["snapshots"]
            tuned = run(finetune, snapshots=snapshots, settings=section("training"), checkpoints=checkpoints)
            if settings.cluster:
                _place(tuned, settings.cluster)
            fitted = run(
                fit_recommender,
                model=tuned.outputs["model"],
                snapshots=snapshots,
                settings=section("recommender"),
            )
            bundle = fitted.outputs["bundle"]

            live = run(champion, cached=False, bundle=bundle)
            evaluated = run(
                evaluate,
                bundle=bundle,
                snapshots=snapshots,
                settings=section("evaluation"),
                champion=live.outputs["version"],
            )
            evaluation = evaluated.outputs["evaluation"]
            decided = run(gate, cached=False, evaluation=evaluation, settings=section("gate"))

            with dsl.If(live.outputs[ANSWER] == True, name="bundle is new"):  # noqa: E712
                recorded = run(
                    record,
                    cached=False,
                    bundle=bundle,
                    evaluation=evaluation,
                    verdict=decided.outputs["verdict"],
                    settings=json.dumps(settings.of_training()),
                )
                with dsl.If(decided.outputs[ANSWER] == True, name="gate passed"):  # noqa: E712
                    version = recorded.output
                    rehearsed = run(rehearse, cached=False, bundle=bundle, version=version)
                    with dsl.If(rehearsed.outputs[ANSWER] == True, name="rehearsal passed"):  # noqa: E712
                        run(
                            promote,
                            cached=False,
                            bundle=bundle,
                            snapshots=snapshots,
                            version=version,
                            settings=section("watch"),
                            champion=live.outputs["digest"],
                        )

    return graph


def _place(task: dsl.PipelineTask, cluster: ClusterSettings) -> None:
    task.set_cpu_request(cluster.cpu).set_memory_request(cluster.memory).set_memory_limit(cluster.memory)
    if cluster.gpu:
        task.set_accelerator_type(cluster.accelerator).set_accelerator_limit(cluster.gpu)


def compile_to(settings: Settings, path: Path) -> None:
    """Write the graph as IR YAML, which a Kubeflow Pipelines server runs; needs no torch."""
    path.parent.mkdir(parents=True, exist_ok=True)
    compiler.Compiler().compile(training(settings), str(path))
