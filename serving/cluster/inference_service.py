"""The serving image on a cluster: an InferenceService that is applied, tried, promoted and taken
back.

The object is the only state: its annotation `tasteloop/releases` says which release is stable,
which is tried and which was stable before; another holds the settings. Every change reads the
object, makes the next one and applies it on the server's side under the version that was read, so
of two promoters one is told that it lost. What the server would keep is compared with what was
asked, in a dry run first: a field that an older KServe does not know would vanish without a word
otherwise.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

from serving.cluster.api import ConnectionLost, Refusal, call, first_dropped_field
from serving.cluster.manifest import (
    GROUP,
    MANAGER,
    MODE,
    PLURAL,
    RELEASES,
    SETTINGS,
    VERSION,
    Release,
    Releases,
    ServiceSettings,
    manifest,
    settings,
)
from serving.cluster.readiness import unready
from tasteloop.errors import TasteloopError

logger = logging.getLogger(__name__)

_RETRY = 2.0  # seconds between two looks


class Moved(TasteloopError):
    """Someone else changed the object between reading and writing it."""


class _Absent(TasteloopError):
    """There is no such object."""


class Service:
    """One InferenceService on the cluster that `api` reaches.

    Every method raises TasteloopError for what the cluster refuses or does not answer, with what to
    do.

    Args:
        api: a `kubernetes.client.ApiClient`; `api.connect()` makes one.
        settings: what is to be other than the object says, or than the default where there is none.
    """

    def __init__(
        self, api: Any, name: str = "tasteloop", namespace: str = "tasteloop", **settings: Any
    ) -> None:
        self._api, self._name, self._namespace, self._given = api, name, namespace, settings
        self._path = f"/apis/{GROUP}/{VERSION}/namespaces/{namespace}/{PLURAL}"
        self._mode = self._settings().mode  # and a wrong setting is told before anything is asked

    def read(self) -> dict[str, Any] | None:
        """The object as it is; None where there is none."""
        try:
            return self._call("GET", f"{self._path}/{self._name}", "read")
        except _Absent:
            return None

    def releases(self) -> Releases:
        """What it is made of."""
        found = self.read()
        if found is None:
            raise TasteloopError(
                f"there is no {self._called}; make it with `tasteloop cluster deploy`"
            )
        return self._of(found)

    def pending(self) -> str | None:
        """What KServe has still to do, in words; None where it has done what the object says."""
        found = self.read()
        return unready(found) if found else f"there is no {self._called}"

    def deploy(self, release: Release) -> Releases:
        """Make a release the stable one at once: the first, or one that needs no trial."""

        def change(now: Releases | None) -> Releases:
            if now is None:
                return Releases(release)
            self._not_trying(now)
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
                self._not_trying(now)
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
                # pins the revision before, whose pods are there
                return Releases(now.stable, now.tried, 0, now.before)
            if now.tried:
                return Releases(now.stable, before=now.before)
            return Releases(now.before)  # type: ignore[arg-type]  # there is one: asked above

        return self._change(change)

    def wait(self, seconds: float, say: Callable[[str], None] = logger.info) -> None:
        """Until the controller has done what the object says: pods ready, the share of the requests
        as asked.
        """
        deadline = time.monotonic() + seconds
        waiting = "nothing was seen of it yet"
        while True:
            try:
                found = self.read()
                if found is None:
                    raise TasteloopError(f"{self._called} is gone")
                now = unready(found)
            except ConnectionLost as error:
                now = str(error)
            if now is None:
                return
            if now != waiting:
                waiting = now
                say(f"{self._called}: {waiting}")
            if time.monotonic() > deadline:
                raise TasteloopError(
                    f"{self._called} was not ready within {seconds:.0f} s: {waiting}; look at it with `kubectl "
                    f"describe inferenceservice -n {self._namespace} {self._name}`"
                )
            time.sleep(min(_RETRY, seconds / 10))

    @property
    def _called(self) -> str:
        return f"InferenceService {self._namespace}/{self._name}"

    def _of(self, found: Mapping[str, Any]) -> Releases:
        annotations = found["metadata"].get("annotations", {})
        if RELEASES not in annotations:
            raise TasteloopError(
                f"{self._called} was not made by tasteloop (no annotation {RELEASES}); choose another name"
            )
        self._mode = annotations.get(MODE)
        if self._mode != self._given.get("mode", self._mode):
            raise TasteloopError(
                f"{self._called} is in mode {self._mode}, not {self._given['mode']}; KServe does not change "
                "the mode of a service: give the same, or delete it first"
            )
        return Releases.read(annotations[RELEASES])

    def _settings(self, found: Mapping[str, Any] | None = None) -> ServiceSettings:
        annotations = found["metadata"]["annotations"] if found else {}
        kept = {**json.loads(annotations[SETTINGS]), "mode": annotations[MODE]} if found else {}
        return settings(self._name, self._namespace, **{**kept, **self._given})

    def _not_trying(self, now: Releases) -> None:
        # Knative's at 0 was rolled back
        if now.tried and (now.percent or self._mode == "Standard"):
            raise TasteloopError(
                f"{now.tried.name} is tried with {now.percent} percent: promote it or roll it back first"
            )

    def _change(self, change: Callable[[Releases | None], Releases]) -> Releases:
        found = self.read()
        releases = change(self._of(found) if found else None)
        wanted = manifest(self._settings(found), releases)
        if found:
            wanted["metadata"]["resourceVersion"] = self._owned(found)["metadata"][
                "resourceVersion"
            ]
        self._kept(wanted, self._apply(wanted, dry=True))
        try:
            self._apply(wanted)
        except ConnectionLost as error:  # it may have arrived: the object tells
            after = self._after(error)
            if (
                after is None
                or after["metadata"].get("annotations", {}).get(RELEASES) != releases.write()
            ):
                raise TasteloopError(
                    f"{error}; nothing was changed: the same command again does it"
                ) from None
        return releases

    def _owned(self, found: dict[str, Any]) -> dict[str, Any]:
        """What a create left us with as an update becomes an apply's: else no later apply could
        take a field away.
        """
        metadata = found["metadata"]
        fields = metadata.get("managedFields", [])
        ours = [
            f
            for f in fields
            if (f["manager"], f["operation"]) == (MANAGER, "Update") and "subresource" not in f
        ]
        if not ours:
            return found
        fields = [{**f, "operation": "Apply"} if f in ours else f for f in fields]
        change = [
            {"op": "replace", "path": "/metadata/managedFields", "value": fields},
            {
                "op": "replace",
                "path": "/metadata/resourceVersion",
                "value": metadata["resourceVersion"],
            },
        ]
        return self._call("PATCH", f"{self._path}/{self._name}", "patch", body=change)

    def _after(self, lost: Exception) -> dict[str, Any] | None:
        for left in reversed(range(5)):
            try:
                return self.read()
            except ConnectionLost:
                if not left:
                    raise TasteloopError(
                        f"{lost}; whether the change arrived is not known: see `tasteloop cluster status` later"
                    ) from None
                time.sleep(_RETRY / 4)
        raise AssertionError

    def _apply(self, wanted: Mapping[str, Any], dry: bool = False) -> dict[str, Any]:
        query = [("fieldManager", MANAGER), *([("dryRun", "All")] if dry else [])]
        place = f"{self._path}/{self._name}"
        try:
            # an apply would change one that appeared meanwhile
            if "resourceVersion" not in wanted["metadata"]:
                return self._call("POST", self._path, "create", query, wanted)
            return self._call("PATCH", place, "patch", query, wanted)
        except _Absent:
            raise TasteloopError(f"{self._called} was deleted meanwhile") from None

    def _kept(self, wanted: Mapping[str, Any], kept: Mapping[str, Any]) -> None:
        dropped = first_dropped_field(wanted["spec"], kept["spec"], "spec")
        if dropped:
            raise TasteloopError(
                f"this cluster's KServe would drop {dropped} without a word; spec.canary is known from KServe 0.20 on: "
                "upgrade KServe and its CRDs, or use --mode Knative"
            )

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
        message = error.message
        if error.status == 404 and error.name == self._name:
            return _Absent(message)
        if error.status == 404 and error.kind == "namespaces":
            return TasteloopError(
                f"there is no namespace {self._namespace}; docs/cluster.md says how it is made"
            )
        if error.status == 404:
            return TasteloopError(
                f"this cluster has no {PLURAL}.{GROUP}: install KServe with its CRDs ({message})"
            )
        if error.status == 401:
            return TasteloopError(
                "the cluster does not know who asks; log in again (kubectl auth whoami tells)"
            )
        if error.status == 403:
            return TasteloopError(
                f"whoever asks may not {verb} {PLURAL} in {self._namespace}: {message}; "
                "infra/k8s/base/rbac.yaml has the role tasteloop-promoter"
            )
        if error.status == 409 and any(
            cause.reason == "FieldManagerConflict" for cause in error.causes
        ):
            fields = ", ".join(str(cause.field) for cause in error.causes)
            return TasteloopError(
                f"someone else manages a part of {self._called} ({fields}): {message}"
            )
        if error.status == 409:
            return Moved(
                f"{self._called} was changed by someone else meanwhile: see `tasteloop cluster status`"
            )
        if error.status in (400, 422):
            return TasteloopError(f"the cluster refuses the manifest: {message}")
        return TasteloopError(f"the cluster answered {error.status}: {message}")
