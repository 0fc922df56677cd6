"""The monitoring pipeline: one step, a pass of the monitor and what follows from its decision.

It compares new behaviour and answers with the champion's reference. It never uses an earlier
result, because it depends on which version is live.
"""

# annotations stay objects here: kfp reads those of a pipeline's parameters

from kfp import dsl
from kfp.dsl.base_component import BaseComponent

from components.monitor import monitor
from pipelines.alerts import WEBHOOK
from pipelines.graphs.step import Step, read_now
from pipelines.settings import ClusterSettings, Settings, secret
from tasteloop.errors import TasteloopError
from tasteloop.words import first_paragraph

MONITOR = Step(monitor, size="monitor")


def monitoring(settings: Settings) -> BaseComponent:
    """One pass of the monitor with a retraining's settings; what is decided runs in its pod.

    Raises:
        TasteloopError: the settings hold the webhook's address, which everybody who may read the
            graph could read.
    """
    cluster = settings.cluster
    if settings.alerts.webhook:
        raise TasteloopError(
            "alerts.webhook would be readable in the graph; put the address into a Secret and name that, such as "
            "--set cluster.webhook=tasteloop/webhook"
        )
    # the pass runs on the one machine that its pod is
    settings_of_pass = settings.model_copy(update={"cluster": None})
    description = first_paragraph(monitoring.__doc__)

    @dsl.pipeline(
        name="tasteloop-monitoring",
        pipeline_root=cluster and cluster.root,
        description=description,
    )
    def graph():  # no annotation: kfp would read it
        inputs: dict[str, object] = {"settings": settings_of_pass.model_dump_json()}
        if cluster and cluster.incoming:
            inputs["events"] = read_now(cluster.incoming)
        task = MONITOR.task(settings, **inputs)
        if cluster:
            _add_journal_and_webhook(task, cluster)

    return graph


def _add_journal_and_webhook(task: dsl.PipelineTask, cluster: ClusterSettings) -> None:
    from kfp import kubernetes

    if cluster.journal:
        kubernetes.mount_pvc(task, cluster.journal, f"{cluster.mount}/home/journal")
    if cluster.webhook:
        name, key = secret(cluster.webhook)
        kubernetes.use_secret_as_env(task, name, {key: WEBHOOK}, optional=True)
