"""The serving image on a cluster: an InferenceService whose releases are deployed, tried, promoted
and rolled back.

What the service is meant to be is kept in a ConfigMap (`serving.cluster.state`), and every change
begins there, under the version that was read: of two promoters the slower one is refused. The
InferenceService and our own Service are made of it. A dry run comes first, and what the server
would store is compared with the request: otherwise a field that an older KServe does not know would
vanish without a word.

A command is a sequence of steps, each of which is safe for itself: pods before their share of the
requests, the requests away before the pods. A step is begun when the one before is seen to be done.
A command that was cut off, or that does not wait, goes on when it is given again.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from serving.cluster.api import (
    ConnectionLost,
    KubernetesObject,
    Refusal,
    Resource,
    ResourceClient,
    call,
    first_dropped_field,
)
from serving.cluster.legacy import adopt_service
from serving.cluster.manifest import (
    CONFIG_MAPS,
    INFERENCE_SERVICES,
    MANAGED_BY,
    MANAGER,
    SERVICES,
    ServiceSettings,
    build_config_map,
    build_front,
    build_inference_service,
    build_pod,
    build_state,
    check_settings,
    config_map_name,
    dump_settings,
    front_name,
    workload_name,
)
from serving.cluster.readiness import (
    View,
    describe_pending,
    describe_routes,
    is_as_requested,
    is_front_as_requested,
)
from serving.cluster.state import Release, Releases, Slot, State
from tasteloop.errors import TasteloopError

logger = logging.getLogger(__name__)

DEPLOYMENTS = Resource("apps", "v1", "deployments")
KNATIVE_SERVICES = Resource("serving.knative.dev", "v1", "services")
HTTP_ROUTES = Resource("gateway.networking.k8s.io", "v1", "httproutes")
ENDPOINTS = Resource("", "v1", "endpoints")

_RETRY = 2.0  # seconds between two reads of an object that is waited for
_READS_AFTER_LOSS = 5  # of an object, where the answer to a change was lost
_TRIES = 10  # of a change that the controller's own writes overtook


class Moved(TasteloopError):
    """Someone else changed the service between reading and writing it."""


class _Absent(TasteloopError):
    """There is no such object."""


class _Overtaken(Moved):
    """The object was written between reading and writing it, be it by a controller."""


class _Step(NamedTuple):
    """A change of the state.

    Attributes:
        is_last: of the command.
        needs: says what is still to be done before this step may begin; None: it may at any time.
    """

    state: State
    is_last: bool = True
    needs: Callable[[ServiceSettings, View], str | None] | None = None


class Service(ResourceClient):
    """One InferenceService on the cluster that `api` reaches.

    Every method raises TasteloopError for what the cluster refuses or does not answer, with what to
    do. Those that change something take `wait`, the seconds in which it shall be done and seen to
    be done, and return the releases. With 0 they do the first step and do not look; given again,
    they go on.

    Args:
        api: a `kubernetes.client.ApiClient`; `api.connect()` makes one.
        settings: those that shall differ from the service's, or from the defaults where there is no
            service yet.
    """

    def __init__(
        self, api: Any, name: str = "tasteloop", namespace: str = "tasteloop", **settings: Any
    ) -> None:
        super().__init__(api, INFERENCE_SERVICES, namespace)
        self._name = name
        self._own_path = f"{self._path}/{name}"
        self._label = f"InferenceService {namespace}/{name}"
        self._changed_settings = settings
        self._check({**settings})  # a wrong setting is refused here, before the cluster is called

    def read(self) -> KubernetesObject | None:
        """The InferenceService as it is; None where there is none."""
        try:
            return self._call("GET", self._own_path, "get")
        except _Absent:
            return None

    def releases(self) -> Releases:
        """The releases that the service is meant to hold."""
        state = self._look().state
        if state is None:
            raise TasteloopError(
                f"there is no {self._label}; make it with `tasteloop cluster deploy`"
            )
        return state.releases

    def pending(self) -> str | None:
        """What is still to be done, in words; None where all is as it is meant to be."""
        return self._describe(describe_pending)

    def deploy(
        self, release: Release, wait: float = 0, say: Callable[[str], None] = logger.info
    ) -> Releases:
        """Make a release the stable one at once: the first, or one that needs no trial. It is
        rolled through the slot of the one before.
        """

        def plan(view: View) -> _Step:
            now = view.state
            settings = self._merge_settings(now)
            if now is None:
                return _Step(build_state(settings, release))
            self._refuse_second_trial(now)
            pod = build_pod(settings, release)
            if ("logger" in now.stable.pod) != ("logger" in pod):
                raise TasteloopError(
                    "the journal cannot be switched on or off by a deployment: KServe would ask pods on its agent's "
                    "port that have no agent; do it with `tasteloop cluster canary --set journal=…` and promote that"
                )
            slot = Slot(now.stable.name, release, pod)
            before = now.before if now.stable.release == release else now.stable
            annotations = now.annotations if slot == now.stable else {}
            return _Step(
                replace(
                    now.end_trial(),  # one that Knative was told to forget
                    settings=dump_settings(settings),
                    stable=slot,
                    before=before,
                    annotations=annotations,
                )
            )

        return self._run("deploy", plan, wait, say)

    def canary(
        self,
        release: Release,
        percent: int,
        wait: float = 0,
        say: Callable[[str], None] = logger.info,
    ) -> Releases:
        """Send a share of the requests to a release; the same release again changes its share. Its
        pods come before the requests.
        """
        if not 0 <= percent <= 100:
            raise TasteloopError(f"a share of {percent} percent: give one from 0 to 100")

        def plan(view: View) -> _Step:
            now = view.state
            if now is None:
                raise TasteloopError(
                    f"there is no stable release to try {release.name} beside: deploy one"
                )
            settings = self._merge_settings(now)
            if now.tried is None or now.tried.release != release:
                self._refuse_second_trial(now)
                self._refuse_same_release(now.stable.release, release)
            if settings.mode == "Knative":
                tried = Slot(now.stable.name, release, build_pod(settings, release))
                return _Step(replace(now, tried=tried, percent=percent))
            self._refuse_unrouted(view)
            strength = now.strength or max(settings.replicas, view.count_pods(now.stable))
            pods = max(math.ceil(strength * percent / 100), 1)
            if now.tried is None:
                tried = Slot(now.free_slot(), release, build_pod(settings, release))
                begun = replace(now, tried=tried, percent=0, pods=pods, strength=strength)
                begun = replace(begun, settings=dump_settings(settings))
                return _Step(begun, is_last=percent == 0)
            if self._changed_settings:
                tried = Slot(now.tried.name, release, build_pod(settings, release))
                now = replace(now, tried=tried, settings=dump_settings(settings))
            if now.pods < pods:
                return _Step(replace(now, pods=pods), is_last=False)
            if now.percent != percent:
                shared = replace(now, percent=percent, front="")
                needs = describe_pending if percent > now.percent else None
                return _Step(shared, is_last=now.pods == pods, needs=needs)
            return _Step(replace(now, pods=pods, front=""), needs=describe_routes)

        return self._run("canary", plan, wait, say)

    def promote(
        self, version: str, wait: float = 0, say: Callable[[str], None] = logger.info
    ) -> Releases:
        """Make the release that is tried the stable one; `version` says which the caller means. Its
        pods are brought to the strength of the stable ones, then it gets all requests, and only
        then KServe deletes the others.
        """

        def plan(view: View) -> _Step:
            now = view.state
            if now and now.tried is None and now.stable.release.version == version:
                return _Step(now)  # a promotion that was cut off, tried again
            if now is None or now.tried is None:
                raise TasteloopError(
                    f"v{version} is not tried here; `tasteloop cluster status` tells what is"
                )
            if now.tried.release.version != version:
                raise TasteloopError(
                    f"{now.tried.release.name} is tried here, not v{version}: someone began another canary"
                )
            promoted = replace(now.end_trial(), stable=now.tried, before=now.stable)
            if self._merge_settings(now).mode == "Knative":
                return _Step(promoted)
            pods = max(now.strength, view.count_pods(now.stable))
            if now.pods < pods:
                return _Step(replace(now, pods=pods), is_last=False)
            if now.percent < 100:
                return _Step(replace(now, percent=100), is_last=False, needs=describe_pending)
            if now.front != now.tried.name:
                to_front = replace(now, front=now.tried.name)
                return _Step(to_front, is_last=False, needs=describe_pending)
            return _Step(promoted, needs=describe_pending)

        return self._run("promote", plan, wait, say)

    def rollback(self, wait: float = 0, say: Callable[[str], None] = logger.info) -> Releases:
        """End a canary; without one, roll the release before through the stable slot again."""
        ends_trial = False

        def plan(view: View) -> _Step:
            nonlocal ends_trial
            now = view.state
            if now and ends_trial and now.tried is None:
                return _Step(now)
            is_knative = bool(now) and self._merge_settings(now).mode == "Knative"
            ended = now and (now.tried is None or is_knative)
            if now and ended and now.command == "rollback" and not self._is_applied(view):
                return _Step(now)  # a rollback that was cut off, tried again
            if now is None or not (now.tried or now.before):
                raise TasteloopError(
                    "there is nothing to go back to: no canary, and no release before this one"
                )
            if now.tried and is_knative:
                # no share for the newest revision: Knative goes on with the one before, whose pods
                # still run
                pinned = replace(now, percent=0) if now.percent else now.end_trial()
                return _Step(pinned)
            if now.tried:
                ends_trial = True
                if now.percent or now.front:
                    # the requests first: KServe deletes a canary before it changes the route
                    return _Step(replace(now, percent=0, front=""), is_last=False)
                return _Step(now.end_trial(), needs=describe_routes)
            assert now.before is not None  # checked above
            slot = replace(now.before, name=now.stable.name)
            return _Step(replace(now, stable=slot, before=None, annotations={}))

        return self._run("rollback", plan, wait, say)

    def wait(self, seconds: float, say: Callable[[str], None] = logger.info) -> None:
        """Wait until the controllers have done what the state says: the pods are ready, and the
        requests are shared as requested.
        """
        self._wait(describe_pending, time.monotonic() + seconds, seconds, say)

    def _run(
        self,
        command: str,
        plan: Callable[[View], _Step],
        wait: float,
        say: Callable[[str], None],
    ) -> Releases:
        """Do the steps that `plan` makes of what the cluster holds, until the last one is done."""
        deadline = time.monotonic() + wait
        was_cut_off = False
        while True:
            view = self._look()
            step = plan(view)
            if step.needs and view.state and not was_cut_off and not self._is_applied(view):
                # a command was cut off between the state and what is made of it
                was_cut_off = True
                self._write(view, view.state)
                continue
            if step.state != view.state:
                step = step._replace(state=replace(step.state, command=command))
            if step.needs and step.state != view.state:
                assert view.state is not None  # only a first deployment begins without
                if wait:
                    self._wait(step.needs, deadline, wait, say)
                elif pending := step.needs(self._check(view.state.settings), view):
                    say(f"not done: {pending}; the same command again goes on")
                    return view.state.releases
            self._write(view, step.state)
            if step.is_last or not wait:
                break
        if wait:
            self._wait(describe_pending, deadline, wait, say)
        elif not step.is_last:
            say("this is begun and not done: the same command again goes on")
        return step.state.releases

    def _wait(
        self,
        describe: Callable[[ServiceSettings, View], str | None],
        deadline: float,
        seconds: float,
        say: Callable[[str], None],
    ) -> None:
        reported = "nothing was seen of it yet"
        while True:
            try:
                pending = self._describe(describe)
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
                    f"describe inferenceservice,deployment -n {self._namespace}`; the same command again goes on, "
                    "and `tasteloop cluster rollback` takes it back"
                )
            time.sleep(min(_RETRY, seconds / 10))

    def _describe(self, describe: Callable[[ServiceSettings, View], str | None]) -> str | None:
        view = self._look()
        if view.service is None or view.state is None:
            return f"there is no {self._label}"
        return describe(self._check(view.state.settings), view)

    def _look(self) -> View:
        """What the cluster holds of the service.

        Raises:
            TasteloopError: an InferenceService of that name, or what lies beside it, was not made
                by us.
        """
        service = self.read()
        config_map = self._get(CONFIG_MAPS, config_map_name(self._name))
        front = self._get(SERVICES, front_name(self._name))
        for kind, found in (("ConfigMap", config_map), ("Service", front)):
            if found and (found["metadata"].get("labels") or {}).get(MANAGED_BY) != MANAGER:
                raise TasteloopError(
                    f"the {kind} {found['metadata']['name']} was not made by tasteloop, which would write over it; "
                    "choose another --name"
                )
        if service is None:  # a state without a service is what was left of a deleted one
            return View(config_map=config_map, front=front)
        state = State.read(config_map) if config_map else adopt_service(service)
        if state is None:
            raise TasteloopError(
                f"{self._label} was not made by tasteloop (no ConfigMap {config_map_name(self._name)}); "
                "choose another name"
            )
        is_knative = state.settings["mode"] == "Knative"
        workloads = {}
        for slot in (state.stable, state.tried):
            if slot and slot.name not in workloads:
                resource = KNATIVE_SERVICES if is_knative else DEPLOYMENTS
                found = self._get(resource, workload_name(self._name, slot.name))
                if found:
                    workloads[slot.name] = found
        if is_knative:
            return View(service, state, config_map, workloads)
        routes = [self._get(HTTP_ROUTES, name) for name in self._route_names()]
        return View(
            service,
            state,
            config_map,
            workloads,
            tuple(route for route in routes if route),
            front,
            self._get(ENDPOINTS, front_name(self._name)),
        )

    def _route_names(self) -> tuple[str, str]:
        """Of KServe's HTTPRoutes: the predictor's, which v0.20 named by the slot, and the
        service's.
        """
        return f"{self._name}-predictor", self._name

    def _get(self, resource: Resource, name: str) -> KubernetesObject | None:
        """An object beside the InferenceService; None where there is none, or no such kind."""
        try:
            return call(self._api, "GET", f"{resource.path(self._namespace)}/{name}")
        except Refusal as refusal:
            if refusal.status == 404:
                return None
            raise self._explain(refusal, "get") from None

    def _is_applied(self, view: View) -> bool:
        """Whether the InferenceService and our own Service are what the recorded state says."""
        assert view.state is not None and view.service is not None
        settings = self._check(view.state.settings)
        if not is_as_requested(build_inference_service(settings, view.state), view.service):
            return False
        if settings.mode == "Knative":  # it has no Service of ours
            return True
        front = build_front(settings, view.state, view.service)
        return view.front is not None and is_front_as_requested(front, view.front)

    def _check(self, settings: Mapping[str, Any]) -> ServiceSettings:
        return check_settings(self._name, self._namespace, **settings)

    def _merge_settings(self, state: State | None) -> ServiceSettings:
        """The settings of the service, if there is one, with those that this client changes."""
        settings = state.settings if state else {}
        merged = self._check({**settings, **self._changed_settings})
        if state and merged.mode != settings["mode"]:
            raise TasteloopError(
                f"{self._label} is in mode {settings['mode']}, not {merged.mode}; KServe does not change "
                "the mode of a service: give the same, or delete it first"
            )
        return merged

    def _refuse_second_trial(self, now: State) -> None:
        # in Knative mode, one that is tried with 0 percent was rolled back
        if now.tried and (now.percent or now.settings["mode"] == "Standard"):
            raise TasteloopError(
                f"{now.tried.release.name} is tried with {now.percent} percent: promote it or roll it back first"
            )

    def _refuse_same_release(self, stable: Release, release: Release) -> None:
        if stable.version == release.version:
            raise TasteloopError(
                f"{release.name} is the stable release already; with another image, deploy it"
            )
        if stable.uri == release.uri:
            raise TasteloopError(
                f"the bundle of {release.name} lies where that of {stable.name} does ({release.uri}): KServe promotes "
                "no canary with the same; deploy it"
            )

    def _refuse_unrouted(self, view: View) -> None:
        """Refuse a canary on a KServe that would start it and send it nothing."""
        of_predictor, of_service = self._route_names()
        names = {route["metadata"]["name"] for route in view.routes}
        if of_predictor in names:
            return
        if of_service in names:
            raise TasteloopError(
                f"this cluster's KServe is 0.20 or older (it has no HTTPRoute {of_predictor}): it starts the pods of a "
                "canary and sends them no request; upgrade KServe, or deploy without a trial"
            )
        raise TasteloopError(
            f"KServe leads to {self._label} by no HTTPRoute, and nothing else shares requests with a canary: enable "
            "the Gateway API in KServe's configuration (ingress.enableGatewayApi), or deploy without a trial; after a "
            "first deployment the route comes when its pods are ready"
        )

    def _write(self, view: View, state: State) -> None:
        """Make the cluster's objects what the state says, where they are not."""
        settings = self._check(state.settings)
        requested = build_inference_service(settings, state)
        service = view.service

        # 1. the InferenceService as the server would store it
        must_apply = service is None or not is_as_requested(requested, service)
        if must_apply:
            if service is not None:
                _set_version(requested, self._take_over_updates(service))
            self._refuse_dropped_field(
                requested, self._apply_newest(requested, view.config_map, dry=True)
            )

        # 2. the state: who has written it last decides what is made of it
        config_map = view.config_map
        if config_map is None or view.state != state:
            config_map = self._write_state(build_config_map(settings, state, service), view)

        # 3. the InferenceService
        if must_apply:
            try:
                service = self._apply_newest(requested, config_map)
            except ConnectionLost as error:  # it may have arrived: the object shows whether it did
                service = self._read_after_loss(self.read, error)
                if service is None or not is_as_requested(requested, service):
                    raise TasteloopError(
                        f"{error}; what was asked is recorded, and the InferenceService was not changed: the same "
                        "command again does it"
                    ) from None

        # 4. our own Service; in Knative mode KServe's name outlives everything
        assert service is not None
        if settings.mode == "Standard":
            self._write_front(build_front(settings, state, service), view.front)

    def _write_state(self, requested: KubernetesObject, view: View) -> KubernetesObject:
        """Write the ConfigMap under the version that was read; returns it as it is stored."""
        path = CONFIG_MAPS.path(self._namespace)
        own_path = f"{path}/{requested['metadata']['name']}"
        try:
            if view.config_map is None:
                return self._call("POST", path, "create", body=requested)
            _set_version(requested, view.config_map)
            return self._call("PUT", own_path, "update", body=requested)
        except ConnectionLost as error:
            name = requested["metadata"]["name"]
            present = self._read_after_loss(lambda: self._get(CONFIG_MAPS, name), error)
            if present is None or present["data"] != requested["data"]:
                raise TasteloopError(
                    f"{error}; nothing was changed: the same command again does it"
                ) from None
            return present

    def _write_front(self, requested: KubernetesObject, present: KubernetesObject | None) -> None:
        path = SERVICES.path(self._namespace)
        if present is None:
            self._call("POST", path, "create", body=requested)
        elif not is_front_as_requested(requested, present):
            metadata = {**present["metadata"], **requested["metadata"]}
            spec = {**present["spec"], **requested["spec"]}
            changed = {**present, "metadata": metadata, "spec": spec}
            self._call("PUT", f"{path}/{metadata['name']}", "update", body=changed)

    def _apply_newest(
        self, requested: KubernetesObject, config_map: KubernetesObject | None, dry: bool = False
    ) -> KubernetesObject:
        """Apply the InferenceService, as often as a controller's own writes overtake it; but not
        when the state has become another one.
        """
        for attempt in range(_TRIES):
            try:
                return self._apply(requested, dry)
            except _Overtaken:
                is_new = "resourceVersion" not in requested["metadata"]
                now = self._get(CONFIG_MAPS, config_map_name(self._name))
                has_moved = _version(now) != _version(config_map)
                if is_new or has_moved or attempt == _TRIES - 1:
                    raise
            service = self.read()
            if service is None:
                raise TasteloopError(f"{self._label} was deleted meanwhile")
            _set_version(requested, service)
        raise AssertionError

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
        try:
            return self._call("PATCH", self._own_path, "patch", body=patch)
        except _Overtaken:
            present = self.read()
            if present is None:
                raise TasteloopError(f"{self._label} was deleted meanwhile") from None
            return self._take_over_updates(present)

    def _read_after_loss(
        self, read: Callable[[], KubernetesObject | None], lost: ConnectionLost
    ) -> KubernetesObject | None:
        """The object after a change whose answer was lost.

        Raises:
            TasteloopError: it cannot be read either.
        """
        for attempt in range(_READS_AFTER_LOSS):
            if attempt:
                time.sleep(_RETRY / 4)
            try:
                return read()
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
                "upgrade KServe and its CRDs"
            )

    def _explain(self, refusal: Refusal, verb: str) -> TasteloopError:
        message, kind = refusal.message, refusal.kind or INFERENCE_SERVICES.plural
        # first, since a namespace may bear the service's name, as it does by default
        if refusal.status == 404 and refusal.kind == "namespaces":
            return TasteloopError(
                f"there is no namespace {self._namespace}; docs/cluster.md says how it is made"
            )
        if refusal.status == 404 and refusal.name == self._name:
            return _Absent(message)
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
                f"whoever asks may not {verb} {kind} in {self._namespace}: {message}; "
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
            return _Overtaken(
                f"{self._label} was changed by someone else meanwhile: see `tasteloop cluster status`"
            )
        if refusal.status in (400, 422):
            return TasteloopError(f"the cluster refuses the manifest: {message}")
        if refusal.status == 429 or refusal.status >= 500:  # it may have been done all the same
            return ConnectionLost(f"the cluster answered {refusal.status}: {message}")
        return TasteloopError(f"the cluster answered {refusal.status}: {message}")


def _version(kubernetes_object: Mapping[str, Any] | None) -> str | None:
    return kubernetes_object["metadata"]["resourceVersion"] if kubernetes_object else None


def _set_version(requested: KubernetesObject, present: KubernetesObject) -> None:
    """Let a write be refused where the object is no longer the one that was read."""
    requested["metadata"]["resourceVersion"] = _version(present)
