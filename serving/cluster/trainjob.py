"""The fine-tuning as a TrainJob of Kubeflow Trainer: asked for, awaited, its model taken.

The job's pods run `tasteloop.encoder.worker`. A job is named by the run and a number: a step that
was lost finds the job that it began, and a step that is tried again after a failed job begins the
next, which carries on from the checkpoint.
"""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Mapping
from itertools import count
from pathlib import Path
from typing import Any

from tasteloop import storage
from tasteloop.encoder.worker import MODEL, SNAPSHOTS
from tasteloop.errors import TasteloopError

log = logging.getLogger(__name__)

GROUP, VERSION, PLURAL = "trainer.kubeflow.org", "v1alpha1", "trainjobs"
RUN = "tasteloop/run"  # a label
SLACK = 600  # seconds that a step waits beyond its job's own deadline
_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_LOOK = 5.0  # seconds between two looks


def run(template: str, snapshots: Path, settings: str, model: Path, place: str) -> None:
    """Fine-tune in a TrainJob: what a step does on a cluster where the profile asks for several
    GPUs or nodes.

    Args:
        template: the TrainJob as JSON, without a name.
        settings: the training section as JSON.
        place: what the job's pods and this one both see: a directory on a volume or a URL; its last
            part names the run.

    Raises:
        TasteloopError: refused, failed (with the condition's message), too late, or it left no
            model.
    """
    from serving.cluster.inference_service import connect

    try:
        namespace = _NAMESPACE.read_text().strip()
    except OSError:
        raise TasteloopError(
            "a TrainJob is asked for by a step in a pod with a service account; elsewhere set cluster.finetune.gpu and "
            "cluster.finetune.nodes to 1"
        ) from None
    if not storage.there(f"{place}/{SNAPSHOTS}"):
        storage.send(snapshots, f"{place}/{SNAPSHOTS}")
    jobs = Jobs(connect(), namespace)
    job = json.loads(template)
    name = jobs.submit(job, place, settings)
    jobs.wait(name, job["spec"]["activeDeadlineSeconds"] + SLACK)
    if not storage.fetch(f"{place}/{MODEL}", model):
        raise TasteloopError(
            f"TrainJob {name} is complete, but there is no model at {place}/{MODEL}: do its pods see that place, and "
            "was its image made of the same commit?"
        )
    # on the volume the run's logs stay
    for done in (place,) if storage.remote(place) else (f"{place}/{SNAPSHOTS}", f"{place}/{MODEL}"):
        storage.discard(done)


def complete(template: Mapping[str, Any], name: str, place: str, settings: str) -> dict[str, Any]:
    """The TrainJob of that name, its workers told where to work and how to train."""
    trainer = {**template["spec"]["trainer"], "args": ["--place", place, "--settings", settings]}
    metadata = template["metadata"]
    labels = {**metadata.get("labels", {}), RUN: _run(place)}
    return {
        **template,
        "metadata": {**metadata, "name": name, "labels": labels},
        "spec": {**template["spec"], "trainer": trainer},
    }


def _run(place: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", place.rstrip("/").rpartition("/")[2].lower()).strip("-")[:40]


class Jobs:
    """TrainJobs of a namespace; every method raises TasteloopError for what the cluster refuses,
    with what to do.
    """

    def __init__(self, api: Any, namespace: str) -> None:
        self._api, self._namespace = api, namespace

    def submit(self, template: Mapping[str, Any], place: str, settings: str) -> str:
        """The name of the run's job that is under way or has left its model, or of the next one,
        which this begins.
        """
        for number in count():
            name = f"tasteloop-{_run(place)}-{number}"
            found = self.read(name)
            if found is None:
                self._create(complete(template, name, place, settings))
                log.info("TrainJob %s/%s is asked for", self._namespace, name)
                return name
            if not _failure(found) and (
                not _is(found, "Complete") or storage.there(f"{place}/{MODEL}")
            ):
                log.info(
                    "TrainJob %s/%s of an earlier try is carried on with", self._namespace, name
                )
                return name
        raise AssertionError

    def wait(self, name: str, seconds: float, look: float = _LOOK) -> None:
        """Until the job is complete."""
        deadline, said = time.monotonic() + seconds, ""
        while True:
            try:
                found = self.read(name)
                if found is None:
                    raise TasteloopError(
                        f"TrainJob {self._namespace}/{name} is gone: someone deleted it"
                    )
                if failure := _failure(found):
                    raise TasteloopError(
                        f"TrainJob {self._namespace}/{name} failed: {failure}; its pods' own words: `kubectl logs -n "
                        f"{self._namespace} -l jobset.sigs.k8s.io/jobset-name={name} --all-containers --prefix`. "
                        "The step tried again begins the next job, from the last checkpoint"
                    )
                if _is(found, "Complete"):
                    return
                now = _words(found)
            except _Lost as error:
                now = str(error)
            if now != said:
                said = now
                log.info("TrainJob %s/%s: %s", self._namespace, name, now)
            if time.monotonic() > deadline:
                raise TasteloopError(
                    f"TrainJob {self._namespace}/{name} was not complete within {seconds:.0f} s: {said}; look at it "
                    f"with `kubectl describe trainjob -n {self._namespace} {name}` (cluster.finetune.timeout: its time)"
                )
            time.sleep(look)

    def read(self, name: str) -> dict[str, Any] | None:
        """The object as it is; None where there is none."""
        found: dict[str, Any] | None = self._call(
            "get", lambda api, where: api.get_namespaced_custom_object(*where, name), name
        )
        return found

    def _create(self, job: Mapping[str, Any]) -> None:
        """Created, after a dry run has shown that the server keeps all of it."""
        from serving.cluster.inference_service import missing

        def create(**options: str) -> Any:
            return self._call(
                "create",
                lambda api, where: api.create_namespaced_custom_object(*where, job, **options),
            )

        if lost := missing(job["spec"], create(dry_run="All")["spec"], "spec"):
            raise TasteloopError(
                f"this cluster's Trainer would drop {lost} without a word: install Kubeflow Trainer 2.2 or newer, "
                "which knows runtimePatches"
            )
        create()

    def _call(self, verb: str, ask: Any, name: str | None = None) -> Any:
        from kubernetes.client import ApiException, CustomObjectsApi
        from urllib3.exceptions import HTTPError

        from serving.cluster.inference_service import said

        try:
            return ask(CustomObjectsApi(self._api), (GROUP, VERSION, self._namespace, PLURAL))
        except ApiException as error:
            told = said(error)
            message = told.get("message") or error.reason
            if error.status == 404 and name and (told.get("details") or {}).get("name") == name:
                return None
            if error.status == 404:
                raise TasteloopError(
                    f"this cluster has no {PLURAL}.{GROUP}: install Kubeflow Trainer, or set cluster.finetune.gpu and "
                    f"cluster.finetune.nodes to 1 ({message})"
                ) from None
            if error.status in (401, 403):
                raise TasteloopError(
                    f"the step may not {verb} {PLURAL} in {self._namespace}: {message}; "
                    "infra/k8s/components/trainer has the role"
                ) from None
            if error.status in (400, 422):
                raise TasteloopError(f"the cluster refuses the TrainJob: {message}") from None
            if error.status < 500 and error.status != 429:
                raise TasteloopError(f"the cluster answered {error.status}: {message}") from None
            raise _Lost(f"the cluster answered {error.status}: {message}") from None
        except (HTTPError, OSError) as error:
            raise _Lost(f"the connection to the cluster was lost or refused ({error})") from None


class _Lost(TasteloopError):
    """No answer, or none that says anything."""


def _conditions(job: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [
        c for c in (job.get("status") or {}).get("conditions") or [] if c.get("status") == "True"
    ]


def _is(job: Mapping[str, Any], kind: str) -> bool:
    return any(c["type"] == kind for c in _conditions(job))


def _failure(job: Mapping[str, Any]) -> str | None:
    failed = next((c for c in _conditions(job) if c["type"] == "Failed"), None)
    if failed is None:
        return None
    return f"{failed.get('reason') or 'no reason'}: {failed.get('message') or 'no message'}"


def _words(job: Mapping[str, Any]) -> str:
    """What is to be said of a job that is under way."""
    words = [f"{c['type']}: {c.get('message') or c.get('reason')}" for c in _conditions(job)]
    for child in (job.get("status") or {}).get("jobsStatus") or []:
        counts = ", ".join(
            f"{child[k]} {k}" for k in ("active", "ready", "succeeded", "failed") if child.get(k)
        )
        words.append(f"{child['name']} {counts or 'waits'}")
    return "; ".join(words) or "the Trainer has not seen it yet"
