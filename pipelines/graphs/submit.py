"""Submit a graph to a Kubeflow Pipelines server: as a version of its pipeline, and as a run or a
schedule.

A version is named by its content, so the same graph is uploaded once. A schedule is replaced when
it, or what it runs, has changed. The SDK finds the server and the credentials: a host with a token
file (`KF_PIPELINES_SA_TOKEN_PATH`), the address in `KF_PIPELINES_ENDPOINT`, the pod's service
account, or kubectl's configuration.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import kfp
import kfp_server_api
import urllib3
from kfp.client.set_volume_credentials import ServiceAccountTokenVolumeCredentials
from kfp.dsl.base_component import BaseComponent
from kfp.pipeline_spec.pipeline_spec_pb2 import ParameterType

from pipelines.graphs.compile import graph_of, write_graph
from pipelines.settings import Settings
from serving.client import check_address
from tasteloop.errors import TasteloopError

TOKEN = "KF_PIPELINES_SA_TOKEN_PATH"
# States in which a run has ended; the SDK's own wait never ends on the last.
_FINAL = ("SUCCEEDED", "FAILED", "SKIPPED", "CANCELED")
# by a parameter's type: its type in Python, and how it is written as JSON
_KINDS: dict[int, tuple[Any, str]] = {
    ParameterType.STRING: (str, "text"),
    ParameterType.NUMBER_INTEGER: (int, "a whole number of 64 bits, such as 10"),
    ParameterType.NUMBER_DOUBLE: (int | float, "a number, such as 0.5"),
    ParameterType.BOOLEAN: (bool, "true or false"),
    ParameterType.LIST: (list, 'a list as JSON, such as ["a", "b"]'),
    ParameterType.STRUCT: (dict, 'an object as JSON, such as {"a": 1}'),
}
_FIELD = re.compile(r"[0-9*?/,A-Z-]+", re.IGNORECASE)

Say = Callable[[str], None]


@dataclass(frozen=True)
class PipelineServer:
    """Where to submit.

    Attributes:
        host: its address; None: the SDK finds one.
        namespace: of a multi-user installation.
    """

    host: str | None = None
    namespace: str | None = None


def submit(
    settings: Settings,
    server: PipelineServer,
    experiment: str,
    cron: str | None = None,
    wait: float | None = None,
    say: Say = lambda _: None,
    pipeline: str = "training",
    arguments: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Upload a graph, and run it once or (with `cron`) on a schedule; returns ids, state and links.

    Args:
        pipeline: of `pipelines.graphs.compile.GRAPHS`; `arguments` are its parameters, each of its
            type or as text.
        cron: five fields (minute, hour, day, month, weekday), or six beginning with the second.
        wait: seconds between two looks at the run until it has ended; None: don't wait.

    Raises:
        TasteloopError: the settings are for one machine, or the server cannot be reached, does not
            accept the credentials, or refuses the graph.
    """
    if not settings.cluster:
        raise TasteloopError(
            f"profile {settings.profile!r} is for one machine; submit with --profile cluster, or a file of your "
            "own that has a section `cluster`"
        )
    # 1. what can be wrong without a server
    schedule = _schedule(cron) if cron else None
    graph, name = graph_of(pipeline)(settings), f"tasteloop-{pipeline}"
    parameters = _check_arguments(graph, pipeline, arguments or {})
    if server.host:
        check_address(server.host, "--host")

    with (
        tempfile.TemporaryDirectory(prefix="tasteloop-") as folder,
        translate_api_errors(server),
        redirect_stdout(sys.stderr),
    ):
        # 2. the graph as a version of the pipeline, and the experiment
        package = Path(folder) / f"{name}.yaml"
        write_graph(graph, package)
        client = _client(server)
        version = upload_pipeline_version(client, server, name, package)
        say(
            f"pipeline {name}, version {version.name}{'' if version.is_new else ' (is there already)'}"
        )
        group = client.create_experiment(experiment, namespace=server.namespace)
        submitted: dict[str, Any] = {
            "pipeline": version.pipeline_id,
            "version": version.name,
            "version_id": version.version_id,
            "experiment": group.experiment_id,
        }
        job = {
            "experiment_id": group.experiment_id,
            "pipeline_id": version.pipeline_id,
            "version_id": version.version_id,
            "service_account": settings.cluster.service_account,
            "params": parameters,
        }

        # 3. a schedule, or a run
        if schedule:
            return {
                **submitted,
                **_replace_schedule(client, server, f"{name} in {experiment}", schedule, job, say),
            }
        run = client.run_pipeline(job_name=version.name, pipeline_root=settings.cluster.root, **job)
        say(f"run {run.run_id}")
        submitted |= {"run": run.run_id, "state": run.state or "PENDING"}
        if server.host:
            submitted["page"] = f"{server.host.rstrip('/')}/#/runs/details/{run.run_id}"
        if wait is None:
            return submitted
        return {**submitted, **_wait(client, run.run_id, wait, say)}


def arguments(pairs: Sequence[str]) -> dict[str, str]:
    """Parameters of a pipeline from KEY=VALUE; the values stay text.

    >>> arguments(["events=s3://bucket/events.parquet", "k=5"])
    {'events': 's3://bucket/events.parquet', 'k': '5'}
    """
    values: dict[str, str] = {}
    for pair in pairs:
        key, _, value = pair.partition("=")
        if not (key and value):
            raise TasteloopError(f"--argument {pair!r} is not of the form KEY=VALUE")
        if key in values:
            raise TasteloopError(f"--argument {key} is there twice; give it once")
        values[key] = value
    return values


def _schedule(cron: str) -> str:
    """A schedule in Kubeflow's six fields, of which the first is the second."""
    fields = cron.split()
    if len(fields) not in (5, 6) or not all(_FIELD.fullmatch(field) for field in fields):
        raise TasteloopError(
            f"--cron {cron!r}: give five fields (minute hour day month weekday) or six beginning with the second; "
            "every night at two is '0 2 * * *'"
        )
    return " ".join(fields if len(fields) == 6 else ["0", *fields])


def _client(server: PipelineServer) -> kfp.Client:
    # urllib3 warns of each of its retries
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)
    options: dict[str, Any] = {}
    if server.host and os.environ.get(TOKEN):
        options["credentials"] = ServiceAccountTokenVolumeCredentials()
    return _Client(host=server.host, namespace=server.namespace or "kubeflow", **options)


class _Client(kfp.Client):
    def get_kfp_healthz(self, sleep_duration: int = 0) -> kfp_server_api.V2beta1GetHealthzResponse:
        """Ask once. The SDK asks a server that refuses five times, seconds apart, and prints a
        traceback each time.
        """
        return self.healthzs.healthz_service_get_healthz()


def _check_arguments(
    graph: BaseComponent, pipeline: str, values: Mapping[str, Any]
) -> dict[str, Any]:
    """The arguments, each with the type of its parameter; text is read as that type.

    Raises:
        TasteloopError: an unknown parameter, one that is missing, or a value of another type.
    """
    parameters = graph.pipeline_spec.root.input_definitions.parameters
    unknown = sorted(values.keys() - parameters.keys())
    if unknown:
        raise TasteloopError(
            f"the pipeline {pipeline} has no parameter {unknown[0]!r}; it has {', '.join(parameters) or 'none'}"
        )
    for name, parameter in parameters.items():
        if name not in values and not parameter.is_optional:
            raise TasteloopError(f"the pipeline {pipeline} needs {name}: --argument {name}=...")
    return {
        name: read_argument(name, value, parameters[name].parameter_type)
        for name, value in values.items()
    }


def read_argument(name: str, value: Any, parameter_type: int) -> Any:
    """A value of the parameter's type. Text is read as JSON, except for a parameter that is text.

    Raises:
        TasteloopError: the value has another type.
    """
    kind, described = _KINDS[parameter_type]
    if isinstance(value, str) and kind is not str:
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise TasteloopError(f"--argument {name}={value[:40]}: {name} is {described}") from None
    fits = isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
    # NaN and infinity are not less than any number, so they are refused, too
    if not fits or (isinstance(value, int | float) and not abs(value) < 2**63):
        raise TasteloopError(f"--argument {name}={value!r:.40}: {name} is {described}")
    return value


@dataclass(frozen=True)
class PipelineVersion:
    """A graph on a server: a version of a pipeline, named by its content."""

    pipeline_id: str
    version_id: str
    name: str
    is_new: bool


def upload_pipeline_version(
    client: kfp.Client, server: PipelineServer, pipeline_name: str, package: Path
) -> PipelineVersion:
    """The pipeline's version with the content of a package; it is uploaded where the server does
    not have it yet.
    """
    # 1. the pipeline; by the generated client, because the SDK's upload names a pipeline's first
    # version by the pipeline
    pipelines = client.list_pipelines(
        filter=_name_filter(pipeline_name), namespace=server.namespace
    ).pipelines
    if pipelines:
        pipeline = pipelines[0]
    else:
        pipeline = client.pipelines.pipeline_service_create_pipeline(
            pipeline=kfp_server_api.V2beta1Pipeline(
                name=pipeline_name, display_name=pipeline_name, namespace=server.namespace
            )
        )

    # 2. its version
    name = f"{pipeline_name}-{sha256(package.read_bytes()).hexdigest()[:12]}"
    versions = client.list_pipeline_versions(
        pipeline.pipeline_id, filter=_name_filter(name)
    ).pipeline_versions
    if versions:
        version = versions[0]
    else:
        version = client.upload_pipeline_version(
            str(package), pipeline_version_name=name, pipeline_id=pipeline.pipeline_id
        )
    return PipelineVersion(
        pipeline.pipeline_id, version.pipeline_version_id, name, is_new=not versions
    )


def _replace_schedule(
    client: kfp.Client,
    server: PipelineServer,
    name: str,
    schedule: str,
    job: dict[str, Any],
    say: Say,
) -> dict[str, Any]:
    """Make the only schedule of that name; an old one is deleted after the new one was created."""
    response = client.list_recurring_runs(
        experiment_id=job["experiment_id"],
        namespace=server.namespace,
        filter=_name_filter(name),
    )
    existing = response.recurring_runs or []
    for old in existing:
        if _is_same_schedule(old, schedule, job):
            say(f"schedule {old.recurring_run_id} is there already")
            return {"schedule": old.recurring_run_id, "cron": schedule}
    new = client.create_recurring_run(
        job_name=name, cron_expression=schedule, max_concurrency=1, no_catchup=True, **job
    )
    say(f"schedule {new.recurring_run_id}: {schedule}")
    for old in existing:
        client.delete_recurring_run(old.recurring_run_id)
        say(f"schedule {old.recurring_run_id} is deleted")
    return {"schedule": new.recurring_run_id, "cron": schedule}


def _is_same_schedule(
    existing: kfp_server_api.V2beta1RecurringRun, schedule: str, job: dict[str, Any]
) -> bool:
    """Whether a schedule runs the same version with the same parameters at the same times."""
    version = existing.pipeline_version_reference
    parameters = (existing.runtime_config and existing.runtime_config.parameters) or {}
    cron = existing.trigger.cron_schedule
    return bool(
        version
        and version.pipeline_version_id == job["version_id"]
        and parameters == job["params"]
        and cron
        and cron.cron == schedule
    )


def _wait(client: kfp.Client, run_id: str, seconds: float, say: Say) -> dict[str, Any]:
    """Wait until a run has ended; returns its state, and its error where it has one."""
    state = ""
    while True:
        run = client.get_run(run_id)
        if run.state and run.state != state:
            state = run.state
            say(state.lower())
        if state in _FINAL:
            error = {"error": run.error.message} if run.error and run.error.message else {}
            return {"state": state, **error}
        time.sleep(seconds)


def _name_filter(name: str) -> str:
    """The API's filter for what has that name."""
    return json.dumps(
        {"predicates": [{"operation": "EQUALS", "key": "display_name", "stringValue": name}]}
    )


@contextmanager
def translate_api_errors(server: PipelineServer) -> Iterator[None]:
    """Turn the refusal of a server, or no answer at all, into a TasteloopError of one sentence."""
    address = server.host or os.environ.get("KF_PIPELINES_ENDPOINT") or "the server that kfp found"
    try:
        yield
    except kfp_server_api.ApiException as error:
        raise TasteloopError(f"{address}: {_refusal(error)}") from None
    except (urllib3.exceptions.HTTPError, TimeoutError) as error:
        reason = getattr(error, "reason", None) or error
        raise TasteloopError(
            f"{address} does not answer ({reason}); give --host, such as http://127.0.0.1:8888 after "
            "`kubectl port-forward -n kubeflow svc/ml-pipeline 8888`"
        ) from None
    except OSError as error:
        raise TasteloopError(f"{TOKEN}: {error}") from None


def _refusal(error: kfp_server_api.ApiException) -> str:
    """A refusal's status and message, with what to do about it."""
    body = error.body or ""
    if isinstance(body, bytes):
        body = body.decode(errors="replace")
    try:
        message = str(json.loads(body).get("message") or body)
    except (ValueError, AttributeError):
        message = body
    message = message.strip()[:500] or error.reason
    hints = {
        401: f"it does not know who asks; name a file with a token in {TOKEN}",
        403: "whoever asks may not; choose a --namespace of yours, or ask for the role kubeflow-pipelines-edit there",
        404: "is this a Kubeflow Pipelines 2 server? Its API is under /apis/v2beta1",
    }
    hint = f"; {hints[error.status]}" if error.status in hints else ""
    return f"{error.status} {message}{hint}" if error.status else f"{message}"
