"""The fine-tuning as a TrainJob of Kubeflow Trainer: submit it, wait for it, fetch its model.

The job's pods run `tasteloop.encoder.worker`. A job is named by the run and a number: a step that
was lost finds the job that it began, and a step that is tried again after a failed job begins the
next one, which resumes from the checkpoint.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from serving.cluster.api import (
    Condition,
    ConnectionLost,
    KubernetesObject,
    Refusal,
    Resource,
    ResourceClient,
    call,
    connect,
    first_dropped_field,
    read_conditions,
)
from tasteloop import storage
from tasteloop.encoder.worker import MODEL, SNAPSHOTS
from tasteloop.errors import TasteloopError

logger = logging.getLogger(__name__)

TRAIN_JOBS = Resource("trainer.kubeflow.org", "v1alpha1", "trainjobs")
RUN = "tasteloop/run"  # a label
SLACK = 600  # seconds that a step waits beyond its job's own deadline
_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_INTERVAL = 5.0  # seconds between two reads of a job that is waited for
_NAME_LENGTH = 63 - len("-node-0-999-abcde")  # JobSet names pods so, and a name has 63 characters
_COUNTS = ("active", "ready", "succeeded", "failed")  # pods of a child job, as Trainer counts them


def run(template: str, snapshots: Path, settings: str, model: Path, directory: str) -> None:
    """Fine-tune in a TrainJob: what a step does on a cluster where the profile requests several
    GPUs or nodes.

    Args:
        template: the TrainJob as JSON, without a name.
        settings: the training section as JSON.
        directory: a path on a volume, or a URL, that the job's pods and this one both reach; its
            last part names the run.

    Raises:
        TasteloopError: the job was refused, failed (with the condition's message), took too long,
            or left no model.
    """
    try:
        namespace = _NAMESPACE.read_text().strip()
    except OSError:
        raise TasteloopError(
            "a TrainJob is asked for by a step in a pod with a service account; elsewhere set cluster.finetune.gpu and "
            "cluster.finetune.nodes to 1"
        ) from None
    snapshots_copy, model_copy = f"{directory}/{SNAPSHOTS}", f"{directory}/{MODEL}"

    # 1. the snapshots, where an earlier try has not sent them
    if not storage.exists(snapshots_copy):
        storage.send(snapshots, snapshots_copy)

    # 2. the job
    jobs = Jobs(connect(), namespace)
    job = json.loads(template)
    name = jobs.submit(job, directory, settings)
    jobs.wait(name, job["spec"]["activeDeadlineSeconds"] + SLACK)

    # 3. its model; on a volume the directory stays, since it holds the run's logs
    if not storage.fetch(model_copy, model):
        raise TasteloopError(
            f"TrainJob {name} is complete, but there is no model at {model_copy}: do its pods see that place, and "
            "was its image made of the same commit?"
        )
    if storage.is_remote(directory):
        storage.discard(directory)
    else:
        storage.discard(snapshots_copy)
        storage.discard(model_copy)


def complete_job(
    template: Mapping[str, Any], name: str, directory: str, settings: str
) -> KubernetesObject:
    """The TrainJob of that name; its workers learn from their arguments where to work and how to
    train.
    """
    arguments = ["--place", directory, "--settings", settings]
    trainer = {**template["spec"]["trainer"], "args": arguments}
    metadata = template["metadata"]
    labels = {**metadata.get("labels", {}), RUN: _run_label(directory)}
    return {
        **template,
        "metadata": {**metadata, "name": name, "labels": labels},
        "spec": {**template["spec"], "trainer": trainer},
    }


def _run_label(directory: str) -> str:
    """The run that the directory names, in the characters that a label may have."""
    name = directory.rstrip("/").rpartition("/")[2]
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40]


def _job_name(directory: str, number: int) -> str:
    """The name of the run's job of that number, short enough for the names that JobSet makes of it.
    Trainer says of a longer one in an event alone that it cannot start it.
    """
    run = directory.rstrip("/").rpartition("/")[2]
    name = f"tasteloop-{_run_label(directory)}-{number}"
    if len(name) <= _NAME_LENGTH and len(run) <= 40:
        return name
    end = f"-{hashlib.sha256(run.encode()).hexdigest()[:8]}-{number}"
    return f"tasteloop-{_run_label(directory)}"[: _NAME_LENGTH - len(end)].rstrip("-") + end


@dataclass(frozen=True)
class JobStatus:
    """What Trainer's controller has written about a job.

    Attributes:
        conditions: those that are true.
        children: the jobs that it is made of, each with the counts of its pods, such as
            "node 2 active".
    """

    conditions: tuple[Condition, ...] = ()
    children: tuple[str, ...] = ()

    @classmethod
    def read(cls, job: Mapping[str, Any]) -> JobStatus:
        """From a TrainJob as the API has it."""
        conditions = tuple(entry for entry in read_conditions(job) if entry.status == "True")
        children = []
        for child in (job.get("status") or {}).get("jobsStatus") or []:
            counts = [f"{child[name]} {name}" for name in _COUNTS if child.get(name)]
            children.append(f"{child['name']} {', '.join(counts) or 'waits'}")
        return cls(conditions, tuple(children))

    @property
    def is_complete(self) -> bool:
        return any(condition.type == "Complete" for condition in self.conditions)

    @property
    def failure(self) -> str | None:
        """Why the job failed; None where it did not."""
        for condition in self.conditions:
            if condition.type == "Failed":
                reason, message = condition.reason, condition.message
                return f"{reason or 'no reason'}: {message or 'no message'}"
        return None

    def describe(self) -> str:
        """The state of a job that is under way, in words."""
        words = [f"{entry.type}: {entry.message or entry.reason}" for entry in self.conditions]
        return "; ".join([*words, *self.children]) or "the Trainer has not seen it yet"


class Jobs(ResourceClient):
    """TrainJobs of a namespace.

    Every method raises TasteloopError for what the cluster refuses, with what to do.
    """

    def __init__(self, api: Any, namespace: str) -> None:
        super().__init__(api, TRAIN_JOBS, namespace)

    def submit(self, template: Mapping[str, Any], directory: str, settings: str) -> str:
        """Begin the run's next job, unless one is under way or has left its model; returns the
        job's name.
        """
        for number in count():
            name = _job_name(directory, number)
            job = self.read(name)
            if job is None:
                self._create(complete_job(template, name, directory, settings))
                logger.info("TrainJob %s/%s is asked for", self._namespace, name)
                return name
            status = JobStatus.read(job)
            if status.failure:
                continue
            if not status.is_complete or storage.exists(f"{directory}/{MODEL}"):
                logger.info(
                    "TrainJob %s/%s of an earlier try is carried on with", self._namespace, name
                )
                return name
        raise AssertionError

    def wait(self, name: str, seconds: float, interval: float = _INTERVAL) -> None:
        """Wait until the job is complete; read it every `interval` seconds."""
        label = f"TrainJob {self._namespace}/{name}"
        deadline = time.monotonic() + seconds
        reported = ""
        while True:
            try:
                job = self.read(name)
                if job is None:
                    raise TasteloopError(f"{label} is gone: someone deleted it")
                status = JobStatus.read(job)
                if status.failure:
                    raise TasteloopError(
                        f"{label} failed: {status.failure}; its pods' own words: `kubectl logs -n "
                        f"{self._namespace} -l jobset.sigs.k8s.io/jobset-name={name} --all-containers --prefix`. "
                        "The step tried again begins the next job, from the last checkpoint"
                    )
                if status.is_complete:
                    return
                state = status.describe()
            except ConnectionLost as error:
                state = str(error)
            if state != reported:
                reported = state
                logger.info("TrainJob %s/%s: %s", self._namespace, name, state)
            if time.monotonic() > deadline:
                raise TasteloopError(
                    f"{label} was not complete within {seconds:.0f} s: {reported}; look at it "
                    f"with `kubectl describe trainjob -n {self._namespace} {name}` (cluster.finetune.timeout: its time)"
                )
            time.sleep(interval)

    def read(self, name: str) -> KubernetesObject | None:
        """The object as it is; None where there is none."""
        try:
            return call(self._api, "GET", f"{self._path}/{name}")
        except Refusal as refusal:
            if refusal.status == 404 and refusal.name == name:
                return None
            raise self._explain(refusal, "get") from None

    def _create(self, job: Mapping[str, Any]) -> None:
        """Create a job, after a dry run has shown that the server stores all of it."""
        stored = self._call("POST", self._path, "create", [("dryRun", "All")], job)
        dropped = first_dropped_field(job["spec"], stored["spec"], "spec")
        if dropped:
            raise TasteloopError(
                f"this cluster's Trainer would drop {dropped} without a word: install Kubeflow Trainer 2.2 or newer, "
                "which knows runtimePatches"
            )
        self._call("POST", self._path, "create", body=job)

    def _explain(self, refusal: Refusal, verb: str) -> TasteloopError:
        status, message = refusal.status, refusal.message
        if status == 404:
            return TasteloopError(
                f"this cluster has no {TRAIN_JOBS.full_name}: install Kubeflow Trainer, or set cluster.finetune.gpu "
                f"and cluster.finetune.nodes to 1 ({message})"
            )
        if status in (401, 403):
            return TasteloopError(
                f"the step may not {verb} {TRAIN_JOBS.plural} in {self._namespace}: {message}; "
                "infra/k8s/components/trainer has the role"
            )
        if status in (400, 422):
            return TasteloopError(f"the cluster refuses the TrainJob: {message}")
        if status < 500 and status != 429:
            return TasteloopError(f"the cluster answered {status}: {message}")
        return ConnectionLost(f"the cluster answered {status}: {message}")
