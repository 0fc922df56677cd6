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

from serving.cluster.api import ConnectionLost, Refusal, call, connect, first_dropped_field
from tasteloop import storage
from tasteloop.encoder.worker import MODEL, SNAPSHOTS
from tasteloop.errors import TasteloopError

logger = logging.getLogger(__name__)

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
        self._path = f"/apis/{GROUP}/{VERSION}/namespaces/{namespace}/{PLURAL}"

    def submit(self, template: Mapping[str, Any], place: str, settings: str) -> str:
        """The name of the run's job that is under way or has left its model, or of the next one,
        which this begins.
        """
        for number in count():
            name = f"tasteloop-{_run(place)}-{number}"
            found = self.read(name)
            if found is None:
                self._create(complete(template, name, place, settings))
                logger.info("TrainJob %s/%s is asked for", self._namespace, name)
                return name
            if not _failure(found) and (
                not _is(found, "Complete") or storage.there(f"{place}/{MODEL}")
            ):
                logger.info(
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
            except ConnectionLost as error:
                now = str(error)
            if now != said:
                said = now
                logger.info("TrainJob %s/%s: %s", self._namespace, name, now)
            if time.monotonic() > deadline:
                raise TasteloopError(
                    f"TrainJob {self._namespace}/{name} was not complete within {seconds:.0f} s: {said}; look at it "
                    f"with `kubectl describe trainjob -n {self._namespace} {name}` (cluster.finetune.timeout: its time)"
                )
            time.sleep(look)

    def read(self, name: str) -> dict[str, Any] | None:
        """The object as it is; None where there is none."""
        try:
            return call(self._api, "GET", f"{self._path}/{name}")
        except Refusal as refusal:
            if refusal.status == 404 and refusal.name == name:
                return None
            raise self._explain(refusal, "get") from None

    def _create(self, job: Mapping[str, Any]) -> None:
        """Created, after a dry run has shown that the server keeps all of it."""
        kept = self._call("POST", self._path, "create", [("dryRun", "All")], job)
        dropped = first_dropped_field(job["spec"], kept["spec"], "spec")
        if dropped:
            raise TasteloopError(
                f"this cluster's Trainer would drop {dropped} without a word: install Kubeflow Trainer 2.2 or newer, "
                "which knows runtimePatches"
            )
        self._call("POST", self._path, "create", body=job)

    def _call(
        self,
        method: str,
        path: str,
        verb: str,
        query: list[tuple[str, str]] | None = None,
        body: Any = None,
    ) -> dict[str, Any]:
        try:
            return call(self._api, method, path, query, body)
        except Refusal as refusal:
            raise self._explain(refusal, verb) from None

    def _explain(self, error: Refusal, verb: str) -> TasteloopError:
        """A refusal with what to do about it."""
        if error.status == 404:
            return TasteloopError(
                f"this cluster has no {PLURAL}.{GROUP}: install Kubeflow Trainer, or set cluster.finetune.gpu and "
                f"cluster.finetune.nodes to 1 ({error.message})"
            )
        if error.status in (401, 403):
            return TasteloopError(
                f"the step may not {verb} {PLURAL} in {self._namespace}: {error.message}; "
                "infra/k8s/components/trainer has the role"
            )
        if error.status in (400, 422):
            return TasteloopError(f"the cluster refuses the TrainJob: {error.message}")
        if error.status < 500 and error.status != 429:
            return TasteloopError(f"the cluster answered {error.status}: {error.message}")
        return ConnectionLost(f"the cluster answered {error.status}: {error.message}")


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
