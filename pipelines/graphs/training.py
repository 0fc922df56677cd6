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
from collections.abc import Callable
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
from pipelines.graphs.trainjob import manifest
from pipelines.settings import ClusterSettings, Settings, StepSettings, TrainingStepSettings, secret
from serving.cluster.trainjob import SLACK

NAME = "tasteloop-training"
ANSWER = "Output"  # kfp's local runner takes a condition on any other output for false
STEPS = (
    ingest,
    validate,
    prepare,
    finetune,
    fit_recommender,
    champion,
    evaluate,
    gate,
    record,
    rehearse,
    promote,
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
    # here the code runs as it is, so no commit is named
    reference = image() if settings.cluster else IMAGE

    def run(component: BaseComponent, cached: bool = True, **inputs: Any) -> dsl.PipelineTask:
        task = component(**inputs).set_container_image(reference).set_caching_options(cached)
        if settings.cluster:
            _place(task, component, settings.cluster)
        return task

    def section(name: str) -> str:
        return str(getattr(settings, name).model_dump_json())

    source = sha256(section("ingest").encode()).hexdigest()[:16]

    engine = section("data")
    root = settings.cluster.root if settings.cluster else None
    # where a cluster's fine-tuning keeps its checkpoints and trains, if not in the step
    elsewhere: dict[str, str] = {}
    if settings.cluster and settings.cluster.checkpoints:
        elsewhere["store"] = settings.cluster.checkpoints
    if settings.cluster and settings.cluster.finetune.together:
        elsewhere["trainjob"] = json.dumps(manifest(settings.cluster, reference))

    @dsl.pipeline(name=NAME, pipeline_root=root, description=(__doc__ or "").partition("\n")[0])
    def graph():  # no annotation: kfp would read it
        ingested = run(
            ingest,
            cached=not settings.cluster,
            settings=section("ingest"),
            fingerprint=fingerprint,
            data=engine,
        )
        dataset = ingested.outputs["dataset"]
        validated = run(
            validate,
            cached=False,
            dataset=dataset,
            settings=section("validation"),
            source=source,
            data=engine,
        )

        with dsl.If(validated.outputs[ANSWER] == True, name="data accepted"):  # noqa: E712  (a kfp expression)
            prepared = run(prepare, dataset=dataset, settings=section("prepare"), data=engine)
            snapshots = prepared.outputs["snapshots"]
            tuned = run(
                finetune,
                snapshots=snapshots,
                settings=section("training"),
                checkpoints=checkpoints,
                **elsewhere,  # type: ignore[arg-type]
            )
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
                            dataset=dataset,
                            snapshots=snapshots,
                            version=version,
                            settings=section("watch"),
                            champion=live.outputs["digest"],
                        )

    return graph


HEAVY = (ingest, validate, prepare, fit_recommender, evaluate, rehearse)


def _place(task: dsl.PipelineTask, component: BaseComponent, cluster: ClusterSettings) -> None:
    asked: StepSettings = cluster.heavy if component in HEAVY else cluster.light
    if component is finetune:
        asked = cluster.finetune
        if asked.together:  # the TrainJob's pods compute; the step waits for them
            waits = {
                "retries": asked.retries,
                "backoff": asked.backoff,
                "timeout": asked.timeout + 2 * SLACK,
            }
            asked = cluster.light.model_copy(update=waits)
    place(task, asked, cluster)


def place(task: dsl.PipelineTask, asked: StepSettings, cluster: ClusterSettings) -> None:
    """Say what a step's pod asks of the cluster, and what it finds there."""
    from kfp import kubernetes

    task.set_cpu_request(asked.cpu).set_memory_request(asked.memory)
    task.set_memory_limit(asked.memory_limit or asked.memory)
    if asked.cpu_limit:
        task.set_cpu_limit(asked.cpu_limit)
    if isinstance(asked, TrainingStepSettings) and asked.gpu:
        task.set_accelerator_type(asked.accelerator).set_accelerator_limit(asked.gpu)
    if asked.retries:
        task.set_retry(asked.retries, f"{asked.backoff}s", 2.0)
    kubernetes.set_timeout(task, asked.timeout)
    for label, value in asked.node_selector.items():
        kubernetes.add_node_selector(task, label, value)
    for toleration in asked.tolerations:
        kubernetes.add_toleration(task, **toleration.model_dump())
    kubernetes.set_security_context(
        task, run_as_user=cluster.user, run_as_group=cluster.user, run_as_non_root=True
    )  # kfp drops all capabilities and forbids privilege escalation by itself
    if cluster.volume:
        kubernetes.mount_pvc(task, cluster.volume, cluster.mount)
    else:
        kubernetes.empty_dir_mount(task, "home", cluster.mount)
    for variable, place_ in cluster.places.items():
        task.set_env_variable(variable, place_)
    if cluster.tracking:
        task.set_env_variable("MLFLOW_TRACKING_URI", cluster.tracking)
    for variable, reference in cluster.secrets.items():
        name, key = secret(reference)
        kubernetes.use_secret_as_env(task, name, {key: variable})
    if cluster.pull_secrets:
        kubernetes.set_image_pull_secrets(task, list(cluster.pull_secrets))


def compile_to(
    settings: Settings, path: Path, graph: Callable[[Settings], BaseComponent] = training
) -> None:
    """Write a graph as IR YAML, which a Kubeflow Pipelines server runs; needs no torch."""
    write(graph(settings), path)


def write(graph: BaseComponent, path: Path) -> None:
    """`compile_to` of a graph that is made already."""
    path.parent.mkdir(parents=True, exist_ok=True)
    compiler.Compiler().compile(graph, str(path))
