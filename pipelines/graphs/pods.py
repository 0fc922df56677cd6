"""What the pod of a task requests of a Kubernetes cluster: resources, volumes, secrets."""

from __future__ import annotations

from kfp import dsl

from pipelines.settings import ClusterSettings, StepSettings, TrainingStepSettings, secret

_LABEL, _STEP = "app.kubernetes.io/name", "tasteloop-step"
"""By this label network policies know our steps from other pods of runs (infra/k8s)."""
_RETRIED_FOR = f"{365 * 24 * 3600}s"
"""A year, so that the number of retries alone ends them. kfp's default is an hour, and Argo counts
it from the start of the first try: a try that failed after an hour had no retry (pipelines#14245).
"""


def apply_kubernetes_settings(
    task: dsl.PipelineTask, step_settings: StepSettings, cluster: ClusterSettings
) -> None:
    """Write a step's and the cluster's settings into a task of a graph."""
    from kfp import kubernetes

    # 1. resources, time and tries
    task.set_cpu_request(step_settings.cpu).set_memory_request(step_settings.memory)
    task.set_memory_limit(step_settings.memory_limit or step_settings.memory)
    if step_settings.cpu_limit:
        task.set_cpu_limit(step_settings.cpu_limit)
    if isinstance(step_settings, TrainingStepSettings) and step_settings.gpu:
        task.set_accelerator_type(step_settings.accelerator)
        task.set_accelerator_limit(step_settings.gpu)
    if step_settings.retries:
        task.set_retry(step_settings.retries, f"{step_settings.backoff}s", 2.0, _RETRIED_FOR)
    kubernetes.set_timeout(task, step_settings.timeout)

    # 2. nodes, user and label; that no proxy of a mesh is injected is Pipelines' own doing
    kubernetes.add_pod_label(task, _LABEL, _STEP)
    for label, value in step_settings.node_selector.items():
        kubernetes.add_node_selector(task, label, value)
    for toleration in step_settings.tolerations:
        kubernetes.add_toleration(task, **toleration.model_dump())
    kubernetes.set_security_context(
        task, run_as_user=cluster.user, run_as_group=cluster.user, run_as_non_root=True
    )  # kfp drops all capabilities and forbids privilege escalation by itself

    # 3. volume, environment and secrets
    if cluster.volume:
        kubernetes.mount_pvc(task, cluster.volume, cluster.mount)
    else:
        kubernetes.empty_dir_mount(task, "home", cluster.mount)
    for variable, directory in cluster.places.items():
        task.set_env_variable(variable, directory)
    if cluster.tracking:
        task.set_env_variable("MLFLOW_TRACKING_URI", cluster.tracking)
    for variable, reference in cluster.secrets.items():
        name, key = secret(reference)
        kubernetes.use_secret_as_env(task, name, {key: variable})
    if cluster.pull_secrets:
        kubernetes.set_image_pull_secrets(task, list(cluster.pull_secrets))
