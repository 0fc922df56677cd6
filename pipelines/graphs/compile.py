"""The graphs by name: training, and the two that run a champion's life on a cluster.

    monitoring    one step, a pass of the monitor: what has come beside the reference, a decision,
    and what follows scoring       one step, the champion's answers for every user of a file in the
    object store

Neither is taken from a cache: both depend on which version is live.
"""

# annotations stay objects here: kfp reads those of a pipeline's parameters
from collections.abc import Callable

from kfp import dsl
from kfp.dsl.base_component import BaseComponent

from components.image import IMAGE, image
from components.monitor import monitor
from components.score import score
from pipelines.alerts import WEBHOOK
from pipelines.graphs.training import place, training
from pipelines.settings import ClusterSettings, Settings, StepSettings, secret
from tasteloop.errors import TasteloopError


def monitoring(settings: Settings) -> BaseComponent:
    """One pass of the monitor with a retraining's settings; what is decided runs in its pod.

    Raises:
        TasteloopError: the settings hold the webhook's address, which whoever may read the graph
            would read.
    """
    cluster = settings.cluster
    if settings.alerts.webhook:
        raise TasteloopError(
            "alerts.webhook would be readable in the graph; put the address into a Secret and name that, such as "
            "--set cluster.webhook=tasteloop/webhook"
        )
    alone = settings.model_copy(update={"cluster": None})  # to the pass its pod is the machine

    @dsl.pipeline(
        name="tasteloop-monitoring",
        pipeline_root=cluster and cluster.root,
        description=_first(monitoring),
    )
    def graph():  # no annotation: kfp would read it
        given: dict[str, object] = {"settings": alone.model_dump_json()}
        if cluster and cluster.incoming:
            given["events"] = _imported(cluster.incoming)
        task = _run(monitor, cluster, cluster.monitor if cluster else None, **given)
        if cluster is None:
            return
        from kfp import kubernetes

        if cluster.journal:
            kubernetes.mount_pvc(task, cluster.journal, f"{cluster.mount}/home/journal")
        if cluster.webhook:
            name, key = secret(cluster.webhook)
            kubernetes.use_secret_as_env(task, name, {key: WEBHOOK}, optional=True)

    return graph


def scoring(settings: Settings) -> BaseComponent:
    """The champion's answers for a file of events; parameters: events (a URI), model, k."""
    cluster = settings.cluster

    @dsl.pipeline(
        name="tasteloop-scoring",
        pipeline_root=cluster and cluster.root,
        description=_first(scoring),
    )
    def graph(events: str, model: str = "interests", k: int = 0):
        _run(
            score,
            cluster,
            cluster.heavy if cluster else None,
            events=_imported(events),
            model=model,
            k=k,
        )

    return graph


GRAPHS: dict[str, Callable[[Settings], BaseComponent]] = {
    "training": training,
    "monitoring": monitoring,
    "scoring": scoring,
}


def graph_of(name: str) -> Callable[[Settings], BaseComponent]:
    """Raises TasteloopError where there is none of that name."""
    if name not in GRAPHS:
        raise TasteloopError(f"no pipeline {name!r}; known: {', '.join(GRAPHS)}")
    return GRAPHS[name]


def _run(
    component: BaseComponent,
    cluster: ClusterSettings | None,
    asked: StepSettings | None,
    **inputs: object,
) -> dsl.PipelineTask:
    task = (
        component(**inputs)
        .set_container_image(image() if cluster else IMAGE)
        .set_caching_options(False)
    )
    if cluster and asked:
        place(task, asked, cluster)
    return task


def _imported(uri: object) -> object:
    """What lies at a URI now, not what lay there when it was first read."""
    read = dsl.importer(artifact_uri=uri, artifact_class=dsl.Dataset, reimport=True)
    return read.set_caching_options(False).output


def _first(function: Callable[..., object]) -> str:
    return (function.__doc__ or "").partition("\n")[0]
