"""The serving image on a cluster: an InferenceService whose releases are deployed, tried, promoted
and rolled back.

The object is the only state: its annotation `tasteloop/releases` says which release is stable,
which is tried and which was stable before; another holds the settings. Every change reads the
object, builds the next one and applies it on the server's side under the version that was read, so
of two promoters the slower one is refused. A dry run comes first, and what the server would store
is compared with the request: otherwise a field that an older KServe does not know would vanish
without a word.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

from serving.cluster.api import (
    ConnectionLost,
    KubernetesObject,
    Refusal,
    ResourceClient,
    first_dropped_field,
)
from serving.cluster.manifest import (
    INFERENCE_SERVICES,
    MANAGER,
    MODE,
    RELEASES,
    SETTINGS,
    Release,
    Releases,
    ServiceSettings,
    build_inference_service,
    check_settings,
)
from serving.cluster.readiness import describe_pending
from tasteloop.errors import TasteloopError

logger = logging.getLogger(__name__)

_RETRY = 2.0  # seconds between two reads of an object that is waited for
_READS_AFTER_LOSS = 5  # of an object, where the answer to a change was lost


class Moved(TasteloopError):
    """Someone else changed the object between reading and writing it."""


class _Absent(TasteloopError):
    """There is no such object."""


class Service(ResourceClient):
    """One InferenceService on the cluster that `api` reaches.

    Every method raises TasteloopError for what the cluster refuses or does not answer, with what to
    do.

    Args:
        api: a `kubernetes.client.ApiClient`; `api.connect()` makes one.
        settings: those that shall differ from the object's, or from the defaults where there is no
            object yet.
    """

    def __init__(
        self, api: Any, name: str = "tasteloop", namespace: str = "tasteloop", **settings: Any
    ) -> None:
        super().__init__(api, INFERENCE_SERVICES, namespace)
        self._name = name
        self._own_path = f"{self._path}/{name}"
        self._label = f"InferenceService {namespace}/{name}"
        self._changed_settings = settings
        # a wrong setting is refused here, before the cluster is called
        self._mode: str | None = self._merge_settings(None).mode

    def read(self) -> KubernetesObject | None:
        """The object as it is; None where there is none."""
        try:
            return self._call("GET", self._own_path, "read")
        except _Absent:
            return None

    def releases(self) -> Releases:
        """The releases that the object holds."""
        service = self.read()
        if service is None:
            raise TasteloopError(
                f"there is no {self._label}; make it with `tasteloop cluster deploy`"
            )
        return self._read_releases(service)

    def pending(self) -> str | None:
        """What KServe has still to do, in words; None where it has done what the object says."""
        service = self.read()
        return describe_pending(service) if service else f"there is no {self._label}"

    def deploy(self, release: Release) -> Releases:
        """Make a release the stable one at once: the first, or one that needs no trial."""

        def change(now: Releases | None) -> Releases:
            if now is None:
                return Releases(release)
            self._refuse_second_trial(now)
            return now if now.stable == release else Releases(release, before=now.stable)

        return self._change(change)

    def canary(self, release: Release, percent: int) -> Releases:
        """Send a share of the requests to a release; the same release again changes its share."""
        if not 0 <= percent <= 100:
            raise TasteloopError(f"a share of {percent} percent: give one from 0 to 100")

        def change(now: Releases | None) -> Releases:
            if now is None:
                raise TasteloopError(
                    f"there is no stable release to try {release.name} beside: deploy one"
                )
            if now.tried != release:
                self._refuse_second_trial(now)
            if now.stable.version == release.version:  # its Deployment would bear the same name
                raise TasteloopError(
                    f"{release.name} is the stable release already; with another image, deploy it"
                )
            return Releases(now.stable, release, percent, now.before)

        return self._change(change)

    def promote(self, version: str) -> Releases:
        """Make the release that is tried the stable one; `version` says which the caller means."""

        def change(now: Releases | None) -> Releases:
            if now and now.tried is None and now.stable.version == version:
                return now  # a promotion that was cut off, tried again
            if now is None or now.tried is None:
                raise TasteloopError(
                    f"v{version} is not tried here; `tasteloop cluster status` tells what is"
                )
            if now.tried.version != version:
                raise TasteloopError(
                    f"{now.tried.name} is tried here, not v{version}: someone began another canary"
                )
            return Releases(now.tried, before=now.stable)

        return self._change(change)

    def rollback(self) -> Releases:
        """End a canary; without one, make the release before the stable one again."""

        def change(now: Releases | None) -> Releases:
            if now is None or not (now.tried or now.before):
                raise TasteloopError(
                    "there is nothing to go back to: no canary, and no release before this one"
                )
            if now.tried and self._mode == "Knative" and now.percent:
                # no share for the newest revision: Knative goes on with the one before, whose pods
                # still run
                return Releases(now.stable, now.tried, 0, now.before)
            if now.tried:
                return Releases(now.stable, before=now.before)
            assert now.before is not None  # checked above
            return Releases(now.before)

        return self._change(change)

    def wait(self, seconds: float, say: Callable[[str], None] = logger.info) -> None:
        """Wait until the controller has done what the object says: the pods are ready, and the
        requests are shared as requested.
        """
        deadline = time.monotonic() + seconds
        reported = "nothing was seen of it yet"
        while True:
            try:
                service = self.read()
                if service is None:
                    raise TasteloopError(f"{self._label} is gone")
                pending = describe_pending(service)
            except ConnectionLost as error:
                pending = str(error)
            if pending is None:
                return
            if pending != reported:
                reported = pending
                say(f"{self._label}: {reported}")
            if time.monotonic() > deadline:
                raise TasteloopError(
                    f"{self._label} was not ready within {seconds:.0f} s: {reported}; look at it with `kubectl "
                    f"describe inferenceservice -n {self._namespace} {self._name}`"
                )
            time.sleep(min(_RETRY, seconds / 10))

    def _read_releases(self, service: Mapping[str, Any]) -> Releases:
        """The releases of an object that we made; its mode becomes this client's."""
        annotations = service["metadata"].get("annotations", {})
        if RELEASES not in annotations:
            raise TasteloopError(
                f"{self._label} was not made by tasteloop (no annotation {RELEASES}); choose another name"
            )
        self._mode = annotations.get(MODE)
        requested_mode = self._changed_settings.get("mode", self._mode)
        if self._mode != requested_mode:
            raise TasteloopError(
                f"{self._label} is in mode {self._mode}, not {requested_mode}; KServe does not change "
                "the mode of a service: give the same, or delete it first"
            )
        return Releases.read(annotations[RELEASES])

    def _merge_settings(self, service: Mapping[str, Any] | None) -> ServiceSettings:
        """The settings of the object, if there is one, with those that this client changes."""
        settings: dict[str, Any] = {}
        if service is not None:
            annotations = service["metadata"]["annotations"]
            settings = {**json.loads(annotations[SETTINGS]), "mode": annotations[MODE]}
        settings |= self._changed_settings
        return check_settings(self._name, self._namespace, **settings)

    def _refuse_second_trial(self, now: Releases) -> None:
        # in Knative mode, one that is tried with 0 percent was rolled back
        if now.tried and (now.percent or self._mode == "Standard"):
            raise TasteloopError(
                f"{now.tried.name} is tried with {now.percent} percent: promote it or roll it back first"
            )

    def _change(self, change: Callable[[Releases | None], Releases]) -> Releases:
        """Apply the releases that `change` makes of the present ones (None where there is no
        object); returns them.
        """
        # 1. the next object, under the version that was read
        service = self.read()
        releases = change(self._read_releases(service) if service else None)
        requested = build_inference_service(self._merge_settings(service), releases)
        if service:
            applied = self._take_over_updates(service)
            requested["metadata"]["resourceVersion"] = applied["metadata"]["resourceVersion"]

        # 2. what the server would store of it
        self._refuse_dropped_field(requested, self._apply(requested, dry=True))

        # 3. the change
        try:
            self._apply(requested)
        except ConnectionLost as error:  # it may have arrived: the object shows whether it did
            present = self._read_after_loss(error)
            annotations = present["metadata"].get("annotations", {}) if present else {}
            if annotations.get(RELEASES) != releases.write():
                raise TasteloopError(
                    f"{error}; nothing was changed: the same command again does it"
                ) from None
        return releases

    def _take_over_updates(self, service: KubernetesObject) -> KubernetesObject:
        """Make an apply's fields of those that our create left as an update's; returns the object
        after that.

        A later apply can take a field away only where an apply set it.
        """
        metadata = service["metadata"]
        entries = []
        has_changed = False
        for entry in metadata.get("managedFields", []):
            is_ours = (entry["manager"], entry["operation"]) == (MANAGER, "Update")
            if is_ours and "subresource" not in entry:
                entry = {**entry, "operation": "Apply"}
                has_changed = True
            entries.append(entry)
        if not has_changed:
            return service
        version = metadata["resourceVersion"]
        patch = [
            {"op": "replace", "path": "/metadata/managedFields", "value": entries},
            {"op": "replace", "path": "/metadata/resourceVersion", "value": version},
        ]
        return self._call("PATCH", self._own_path, "patch", body=patch)

    def _read_after_loss(self, lost: ConnectionLost) -> KubernetesObject | None:
        """The object after a change whose answer was lost.

        Raises:
            TasteloopError: it cannot be read either.
        """
        for attempt in range(_READS_AFTER_LOSS):
            if attempt:
                time.sleep(_RETRY / 4)
            try:
                return self.read()
            except ConnectionLost:
                continue
        raise TasteloopError(
            f"{lost}; whether the change arrived is not known: see `tasteloop cluster status` later"
        ) from None

    def _apply(self, requested: Mapping[str, Any], dry: bool = False) -> KubernetesObject:
        query = [("fieldManager", MANAGER)]
        if dry:
            query.append(("dryRun", "All"))
        try:
            # A create, since an apply would change an object that appeared meanwhile.
            if "resourceVersion" not in requested["metadata"]:
                return self._call("POST", self._path, "create", query, requested)
            return self._call("PATCH", self._own_path, "patch", query, requested)
        except _Absent:
            raise TasteloopError(f"{self._label} was deleted meanwhile") from None

    def _refuse_dropped_field(
        self, requested: Mapping[str, Any], stored: Mapping[str, Any]
    ) -> None:
        dropped = first_dropped_field(requested["spec"], stored["spec"], "spec")
        if dropped:
            raise TasteloopError(
                f"this cluster's KServe would drop {dropped} without a word; spec.canary is known from KServe 0.20 on: "
                "upgrade KServe and its CRDs, or use --mode Knative"
            )

    def _explain(self, refusal: Refusal, verb: str) -> TasteloopError:
        message = refusal.message
        if refusal.status == 404 and refusal.name == self._name:
            return _Absent(message)
        if refusal.status == 404 and refusal.kind == "namespaces":
            return TasteloopError(
                f"there is no namespace {self._namespace}; docs/cluster.md says how it is made"
            )
        if refusal.status == 404:
            return TasteloopError(
                f"this cluster has no {INFERENCE_SERVICES.full_name}: install KServe with its CRDs ({message})"
            )
        if refusal.status == 401:
            return TasteloopError(
                "the cluster does not know who asks; log in again (kubectl auth whoami tells)"
            )
        if refusal.status == 403:
            return TasteloopError(
                f"whoever asks may not {verb} {INFERENCE_SERVICES.plural} in {self._namespace}: {message}; "
                "infra/k8s/base/rbac.yaml has the role tasteloop-promoter"
            )
        if refusal.status == 409 and any(
            cause.reason == "FieldManagerConflict" for cause in refusal.causes
        ):
            fields = ", ".join(str(cause.field) for cause in refusal.causes)
            return TasteloopError(
                f"someone else manages a part of {self._label} ({fields}): {message}"
            )
        if refusal.status == 409:
            return Moved(
                f"{self._label} was changed by someone else meanwhile: see `tasteloop cluster status`"
            )
        if refusal.status in (400, 422):
            return TasteloopError(f"the cluster refuses the manifest: {message}")
        return TasteloopError(f"the cluster answered {refusal.status}: {message}")
