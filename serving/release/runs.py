"""The run of a version in MLflow: its settings as parameters, its evaluation as metrics."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from serving.release.mlflow_store import MODEL
from serving.release.versions import DIGEST_TAG, KEY_TAG
from tasteloop.evaluation.record import Evaluation

if TYPE_CHECKING:
    from mlflow import MlflowClient

_BATCH = 100  # parameters that MLflow takes a call
_LONGEST_PARAMETER = 6000  # characters, as MLflow allows


def fail_unfinished_runs(client: MlflowClient, key: str) -> None:
    """Mark the runs failed that a killed process left while it recorded the same."""
    unfinished = f"tags.`{KEY_TAG}` = '{key}' AND attributes.status = 'RUNNING'"
    for run in client.search_runs([_experiment_id(client)], unfinished):
        client.set_terminated(run.info.run_id, "FAILED")


def log_run(
    client: MlflowClient,
    tags: Mapping[str, str],
    evaluation: Evaluation,
    settings: Mapping[str, Any],
) -> tuple[str, str]:
    """A new run's id and artifact URI, its parameters and metrics logged.

    Args:
        tags: of the run; the evaluation's lineage is added.
        settings: nested.
    """
    from mlflow.entities import Metric, Param

    lineage = {f"lineage.{name}": str(value) for name, value in evaluation.lineage.facts()}
    run = client.create_run(
        _experiment_id(client), tags={**tags, **lineage}, run_name=tags[DIGEST_TAG][:12]
    )
    now = int(time.time() * 1000)
    metrics = [Metric(name, value, now, 0) for name, value in _metrics(evaluation)]
    parameters = [Param(name, value) for name, value in _parameters(settings)]
    for start in range(0, max(len(metrics), len(parameters)), _BATCH):
        end = start + _BATCH
        client.log_batch(
            run.info.run_id, metrics[start:end], parameters[start:end], synchronous=True
        )
    return run.info.run_id, str(run.info.artifact_uri)


def _experiment_id(client: MlflowClient) -> str:
    experiment = client.get_experiment_by_name(MODEL)
    assert experiment is not None  # `mlflow_store.connect` made it
    return str(experiment.experiment_id)


def _metrics(evaluation: Evaluation) -> Iterator[tuple[str, float]]:
    """Each metric with its interval, those of the baselines and the differences from them too."""
    groups = {"": evaluation.metrics}
    for name, metrics in evaluation.baselines.items():
        groups[f"baseline.{name}."] = metrics
    for name, metrics in evaluation.differences.items():
        groups[f"difference.{name}."] = metrics
    for prefix, metrics in groups.items():
        for name, interval in metrics.items():
            ends = {"": interval.value, ".low": interval.low, ".high": interval.high}
            for suffix, number in ends.items():
                if number is not None:
                    yield _mlflow_name(f"{prefix}{name}{suffix}"), number


def _parameters(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _parameters(value, f"{prefix}{name}.")
        else:
            text = value if isinstance(value, str) else json.dumps(value, default=str)
            yield _mlflow_name(f"{prefix}{name}"), text[:_LONGEST_PARAMETER]


def _mlflow_name(name: str) -> str:
    """As MLflow allows: `@` becomes `_at_`, any other character it refuses (the `=` of a slice)
    `_`.
    """
    return re.sub(r"[^\w .:/-]", "_", name.replace("@", "_at_"))
