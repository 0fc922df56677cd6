"""The compiled graph on a Kubeflow Pipelines server: a version of the pipeline, a run of it, a
schedule.

A version is named by what it holds, so the same graph is uploaded once; a schedule is replaced when
it, or what it runs, has changed. Who may: the SDK's own ways, which are a host with a token file
(`KF_PIPELINES_SA_TOKEN_PATH`), the address in `KF_PIPELINES_ENDPOINT`, the pod's service account,
or kubectl's configuration.
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
_FINAL = (
    "SUCCEEDED",
    "FAILED",
    "SKIPPED",
    "CANCELED",
)  # the SDK's own wait never ends on the last
_KINDS: dict[int, tuple[Any, str]] = {  # how Python has a parameter's type, and how JSON writes it
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
class Server:
    """Where to submit: `host` (none: the SDK finds one), `namespace` of a multi-user
    installation.
    """

    host: str | None = None
    namespace: str | None = None


def submit(
    settings: Settings,
    server: Server,
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
        TasteloopError: settings for one machine, a server that cannot be reached, does not let us
            in or refuses.
    """
    if not settings.cluster:
        raise TasteloopError(
            f"profile {settings.profile!r} is for one machine; submit with --profile cluster, or a file of your "
            "own that has a section `cluster`"
        )
    schedule = _schedule(cron) if cron else None
    graph, name = graph_of(pipeline)(settings), f"tasteloop-{pipeline}"
    given = _check_arguments(graph, pipeline, arguments or {})
    if server.host:
        check_address(server.host, "--host")
    with (
        tempfile.TemporaryDirectory(prefix="tasteloop-") as folder,
        _told(server),
        redirect_stdout(sys.stderr),
    ):
        package = Path(folder) / f"{name}.yaml"
        write_graph(graph, package)
        client = _client(server)
        told = _version(client, server, name, package)
        say(
            f"pipeline {name}, version {told['version']}{'' if told.pop('new') else ' (is there already)'}"
        )
        made = client.create_experiment(experiment, namespace=server.namespace)
        told["experiment"] = made.experiment_id
        where = {
            "experiment_id": made.experiment_id,
            "pipeline_id": told["pipeline"],
            "version_id": told["version_id"],
            "service_account": settings.cluster.service_account,
            "params": given,
        }
        if schedule:
            return {
                **told,
                **_recur(client, server, f"{name} in {experiment}", schedule, where, say),
            }
        run = client.run_pipeline(
            job_name=told["version"], pipeline_root=settings.cluster.root, **where
        )
        say(f"run {run.run_id}")
        told |= {"run": run.run_id, "state": run.state or "PENDING"}
        if server.host:
            told["page"] = f"{server.host.rstrip('/')}/#/runs/details/{run.run_id}"
        return told if wait is None else {**told, **_wait(client, run.run_id, wait, say)}


def arguments(pairs: Sequence[str]) -> dict[str, str]:
    """Parameters of a pipeline from KEY=VALUE, values as they were written."""
    split = [pair.partition("=") for pair in pairs]
    for pair, (key, _, value) in zip(pairs, split, strict=True):
        if not (key and value):
            raise TasteloopError(f"--argument {pair!r} is not of the form KEY=VALUE")
    if len(keys := [key for key, _, _ in split]) != len(set(keys)):
        raise TasteloopError(f"--argument {max(keys, key=keys.count)} is there twice; give it once")
    return {key: value for key, _, value in split}


def _schedule(cron: str) -> str:
    """Kubeflow's six fields: seconds first."""
    fields = cron.split()
    if len(fields) not in (5, 6) or not all(_FIELD.fullmatch(field) for field in fields):
        raise TasteloopError(
            f"--cron {cron!r}: give five fields (minute hour day month weekday) or six beginning with the second; "
            "every night at two is '0 2 * * *'"
        )
    return " ".join(fields if len(fields) == 6 else ["0", *fields])


def _client(server: Server) -> kfp.Client:
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)  # of its own retries
    given = (
        {"credentials": ServiceAccountTokenVolumeCredentials()}
        if server.host and os.environ.get(TOKEN)
        else {}
    )
    return _Client(host=server.host, namespace=server.namespace or "kubeflow", **given)


class _Client(kfp.Client):
    def get_kfp_healthz(self, sleep_duration: int = 0) -> kfp_server_api.V2beta1GetHealthzResponse:
        """Once: the SDK asks a server that refuses five times, seconds apart, with a traceback
        each.
        """
        return self.healthzs.healthz_service_get_healthz()


def _check_arguments(
    graph: BaseComponent, pipeline: str, given: Mapping[str, Any]
) -> dict[str, Any]:
    """The arguments by the names and types of the pipeline's parameters; text is read as the
    parameter's type.
    """
    parameters = graph.pipeline_spec.root.input_definitions.parameters
    if unknown := sorted(given.keys() - parameters.keys()):
        raise TasteloopError(
            f"the pipeline {pipeline} has no parameter {unknown[0]!r}; it has {', '.join(parameters) or 'none'}"
        )
    if missing := [
        name for name, p in parameters.items() if name not in given and not p.is_optional
    ]:
        raise TasteloopError(
            f"the pipeline {pipeline} needs {missing[0]}: --argument {missing[0]}=..."
        )
    return {
        name: read_argument(name, value, parameters[name].parameter_type)
        for name, value in given.items()
    }


def read_argument(name: str, value: Any, parameter_type: int) -> Any:
    """A value of the parameter's type; text is read as JSON writes that type, and is kept as it is
    for a string.
    """
    kind, described = _KINDS[parameter_type]
    if isinstance(value, str) and kind is not str:
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise TasteloopError(f"--argument {name}={value[:40]}: {name} is {described}") from None
    fits = isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
    # neither NaN nor infinity is less
    if not fits or (isinstance(value, int | float) and not abs(value) < 2**63):
        raise TasteloopError(f"--argument {name}={value!r:.40}: {name} is {described}")
    return value


def _version(client: kfp.Client, server: Server, title: str, package: Path) -> dict[str, Any]:
    """The pipeline and its version of this content, uploaded where it is not there yet."""
    # the generated client, because the SDK's upload names a pipeline's first version by the
    # pipeline
    found = client.list_pipelines(filter=_named(title), namespace=server.namespace).pipelines or []
    pipeline = (
        found[0]
        if found
        else client.pipelines.pipeline_service_create_pipeline(
            pipeline=kfp_server_api.V2beta1Pipeline(
                name=title, display_name=title, namespace=server.namespace
            )
        )
    )
    name = f"{title}-{sha256(package.read_bytes()).hexdigest()[:12]}"
    versions = client.list_pipeline_versions(
        pipeline.pipeline_id, filter=_named(name)
    ).pipeline_versions
    version = (
        versions[0]
        if versions
        else client.upload_pipeline_version(
            str(package), pipeline_version_name=name, pipeline_id=pipeline.pipeline_id
        )
    )
    return {
        "pipeline": pipeline.pipeline_id,
        "version": name,
        "version_id": version.pipeline_version_id,
        "new": not versions,
    }


def _recur(
    client: kfp.Client, server: Server, name: str, schedule: str, where: dict[str, Any], say: Say
) -> dict[str, Any]:
    """One schedule of that name: the old one is deleted after the new one is there."""
    before = (
        client.list_recurring_runs(
            experiment_id=where["experiment_id"], namespace=server.namespace, filter=_named(name)
        ).recurring_runs
        or []
    )
    for old in before:
        reference = old.pipeline_version_reference
        given = (old.runtime_config and old.runtime_config.parameters) or {}
        same = (
            reference
            and reference.pipeline_version_id == where["version_id"]
            and given == where["params"]
        )
        if same and old.trigger.cron_schedule and old.trigger.cron_schedule.cron == schedule:
            say(f"schedule {old.recurring_run_id} is there already")
            return {"schedule": old.recurring_run_id, "cron": schedule}
    made = client.create_recurring_run(
        job_name=name, cron_expression=schedule, max_concurrency=1, no_catchup=True, **where
    )
    say(f"schedule {made.recurring_run_id}: {schedule}")
    for old in before:
        client.delete_recurring_run(old.recurring_run_id)
        say(f"schedule {old.recurring_run_id} is deleted")
    return {"schedule": made.recurring_run_id, "cron": schedule}


def _wait(client: kfp.Client, run_id: str, seconds: float, say: Say) -> dict[str, Any]:
    state = ""
    while True:
        run = client.get_run(run_id)
        if run.state and run.state != state:
            state = run.state
            say(state.lower())
        if state in _FINAL:
            why = {"error": run.error.message} if run.error and run.error.message else {}
            return {"state": state, **why}
        time.sleep(seconds)


def _named(name: str) -> str:
    return json.dumps(
        {"predicates": [{"operation": "EQUALS", "key": "display_name", "stringValue": name}]}
    )


@contextmanager
def _told(server: Server) -> Iterator[None]:
    """A server's refusal, or its silence, as one sentence."""
    place = server.host or os.environ.get("KF_PIPELINES_ENDPOINT") or "the server that kfp found"
    try:
        yield
    except kfp_server_api.ApiException as error:
        raise TasteloopError(f"{place}: {_refusal(error)}") from None
    except (urllib3.exceptions.HTTPError, TimeoutError) as error:
        reason = getattr(error, "reason", None) or error
        raise TasteloopError(
            f"{place} does not answer ({reason}); give --host, such as http://127.0.0.1:8888 after "
            "`kubectl port-forward -n kubeflow svc/ml-pipeline 8888`"
        ) from None
    except OSError as error:
        raise TasteloopError(f"{TOKEN}: {error}") from None


def _refusal(error: kfp_server_api.ApiException) -> str:
    body = (
        error.body.decode(errors="replace") if isinstance(error.body, bytes) else error.body or ""
    )
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
