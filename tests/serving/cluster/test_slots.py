"""Rollouts against stand-ins that behave as KServe's and Knative's controllers do, in memory;
tests/cluster runs the same stand-ins on a real API server.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import pytest

from serving.cluster import inference_service
from serving.cluster.api import ApiStatus, ConnectionLost, Refusal, call
from serving.cluster.inference_service import Moved, Service
from serving.cluster.legacy import RELEASES, SETTINGS
from serving.cluster.manifest import MODE, build_pod, check_settings, dump_settings
from serving.cluster.state import Release, Releases
from tasteloop.errors import TasteloopError
from tests.support.cluster.kserve import Config
from tests.support.cluster.world import BROKEN, World

ONE, TWO, THREE = (
    Release(v, f"s3://models/{v}", v * 64, f"registry.example/serving@sha256:{v * 64}")
    for v in "123"
)
NEVER = Release("4", "s3://models/4", "4" * 64, f"registry.example/{BROKEN}")
REPLICAS = 3


class Cluster:
    """A service on a cluster in memory, and what its clients see."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, config: Config | None, **settings: Any
    ) -> None:
        self.world, self.said = World(config), list[str]()
        monkeypatch.setattr(inference_service, "time", self.world.clock)
        self.service = Service(
            self.world.client, namespace="default", **{"replicas": REPLICAS, **settings}
        )

    def run(self, command: str, *arguments: Any) -> None:
        """As the command line does it: the change, then the waiting."""
        service = Service(self.world.client, namespace="default")
        if self.service.read() is None:
            service = self.service
        getattr(service, command)(*arguments, wait=100, say=self.said.append)

    def watch(self) -> None:
        """From now on no request may be lost."""
        self.world.watcher.needed = REPLICAS

    def make_as_before(self, release: Release, **settings: Any) -> None:
        """The service as the release of tasteloop before slots made it."""
        known = {"stable": asdict(release), "tried": None, "percent": 0, "before": None}
        asked = dump_settings(check_settings("tasteloop", "default", **settings))
        del asked["mode"], asked["cpu_limit"]
        pod = build_pod(check_settings("tasteloop", "default", **settings), release)
        pod["containers"][0]["resources"]["limits"].pop("cpu")  # KServe filled it in
        scaling = {
            "minReplicas": REPLICAS,
            "maxReplicas": 6,
            "scaleMetric": "cpu",
            "scaleTarget": 70,
        }
        body = {
            "apiVersion": "serving.kserve.io/v1beta1",
            "kind": "InferenceService",
            "metadata": {
                "name": "tasteloop",
                "labels": {
                    "app.kubernetes.io/name": "tasteloop",
                    "app.kubernetes.io/managed-by": "tasteloop",
                },
                "annotations": {
                    MODE: "Standard",
                    RELEASES: json.dumps(known),
                    SETTINGS: json.dumps({**asked, "replicas": REPLICAS}),
                },
            },
            "spec": {"predictor": {**pod, "name": release.name, **scaling}},
        }
        path = self.world.api.path("serving.kserve.io/v1beta1", "inferenceservices")
        call(self.world.client, "POST", path, [("fieldManager", "tasteloop")], body)
        self.settle()

    def settle(self) -> None:
        for _ in range(20):
            self.world.move()

    def serving(self) -> dict[str, int]:
        """How many pods of each image are ready."""
        images: dict[str, int] = {}
        for pod in self.world.api.list("v1", "pods"):
            image = pod["spec"]["containers"][0]["image"]
            images[image] = images.get(image, 0) + 1
        return images

    def check(self) -> None:
        assert self.world.watcher.looks
        assert self.world.watcher.lost == []
        assert self.world.watcher.thin == []


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Cluster]:
    def make_cluster(config: Config | None = None, **settings: Any) -> Cluster:
        return Cluster(monkeypatch, config, **settings)

    return make_cluster


@pytest.mark.parametrize("gateway", [True, False])
def test_a_deploy_over_a_living_service_loses_no_request(make, gateway):
    cluster = make(Config(gateway=gateway))
    cluster.run("deploy", ONE)
    cluster.watch()

    cluster.run("deploy", TWO)
    cluster.settle()

    cluster.check()
    assert cluster.serving() == {TWO.image: REPLICAS}


def test_a_command_returns_when_every_pod_is_of_its_release(make):
    cluster = make()
    cluster.run("deploy", ONE)
    cluster.run("deploy", TWO)
    assert cluster.serving() == {TWO.image: REPLICAS}


def test_a_canary_and_its_share_restart_no_pod(make):
    cluster = make()
    cluster.run("deploy", ONE)
    for percent in (10, 50, 100):
        cluster.run("canary", TWO, percent)
        cluster.settle()
    assert [len(history) for history in cluster.world.templates.values()] == [1, 1]


def test_capacity_is_never_below_the_stable_ones(make):
    cluster = make()
    cluster.run("deploy", ONE)
    cluster.watch()
    for percent in (10, 50, 100):
        cluster.run("canary", TWO, percent)
    cluster.run("rollback")
    cluster.run("canary", TWO, 10)
    cluster.run("promote", "2")
    cluster.settle()
    cluster.check()
    assert cluster.serving() == {TWO.image: REPLICAS}


@pytest.mark.parametrize(
    ("config", "named"),
    [(Config(gateway=False), "Gateway API"), (Config(release="0.20.0"), "0.20")],
)
def test_a_kserve_that_routes_no_canary_is_named_and_the_canary_refused(make, config, named):
    cluster = make(config)
    cluster.run("deploy", ONE)
    with pytest.raises(TasteloopError, match=named):
        cluster.run("canary", TWO, 10)
    cluster.settle()
    assert cluster.serving() == {ONE.image: REPLICAS}


def test_both_slots_have_requests_and_limits(make):
    cluster = make()
    cluster.run("deploy", ONE)
    cluster.run("canary", TWO, 50)
    pods = cluster.world.api.list("v1", "pods")
    resources = [pod["spec"]["containers"][0]["resources"] for pod in pods]
    assert all(one == resources[0] for one in resources)
    assert {"cpu", "memory"} == resources[0]["requests"].keys() == resources[0]["limits"].keys()


@pytest.mark.parametrize("cpu", ["1000m", 2, "0.5"])
def test_quantities_are_compared_as_quantities_and_a_number_is_one(make, cpu):
    cluster = make(cpu=cpu, memory="1024Mi")
    cluster.run("deploy", ONE)
    assert cluster.serving() == {ONE.image: REPLICAS}


def test_a_service_in_knative_mode_starts_and_its_canary_gets_its_share(make):
    cluster = make(mode="Knative")
    cluster.run("deploy", ONE)
    cluster.run("canary", TWO, 10)
    (service,) = cluster.world.api.list("serving.knative.dev/v1", "services")
    shares = {t["revisionName"][-1]: t["percent"] for t in service["status"]["traffic"]}
    assert shares == {"1": 90, "2": 10}
    cluster.run("promote", "2")
    (service,) = cluster.world.api.list("serving.knative.dev/v1", "services")
    assert [t["percent"] for t in service["status"]["traffic"]] == [100]


def test_a_version_whose_pods_never_start_costs_nothing(make):
    cluster = make()
    cluster.run("deploy", ONE)
    cluster.watch()
    with pytest.raises(TasteloopError, match="not ready within"):
        cluster.run("deploy", NEVER)
    cluster.run("rollback")
    with pytest.raises(TasteloopError, match="not ready within"):
        cluster.run("canary", NEVER, 50)
    cluster.run("rollback")
    cluster.settle()
    cluster.check()
    assert cluster.serving() == {ONE.image: REPLICAS}


def test_one_service_outlives_promotions(make):
    cluster = make()
    cluster.run("deploy", ONE)
    name = cluster.world.watcher.front
    address = cluster.world.api.get("v1", "services", name)
    assert address is not None
    cluster.run("canary", TWO, 10)
    cluster.run("promote", "2")
    cluster.run("deploy", THREE)
    assert (
        cluster.world.api.get("v1", "services", name)["metadata"]["uid"]
        == address["metadata"]["uid"]
    )


def test_pods_are_restarted_only_where_their_template_changed(make):
    cluster = make()
    cluster.run("deploy", ONE)
    cluster.watch()
    for percent in (10, 50, 100):
        cluster.run("canary", TWO, percent)
    cluster.run("promote", "2")
    templates = cluster.world.templates
    assert {name: len(history) for name, history in templates.items()} == {
        "tasteloop-a-predictor": 1,
        "tasteloop-b-predictor": 1,
    }
    cluster.run("deploy", THREE)
    cluster.run("rollback")
    cluster.settle()
    first, second, third = templates["tasteloop-b-predictor"]
    assert first == third != second  # what a rollback rolls is the pod that was
    assert len(templates["tasteloop-a-predictor"]) == 1
    cluster.check()


def test_a_promoted_canary_has_as_many_pods_as_the_load_had_asked_for(make):
    cluster = make()
    cluster.run("deploy", ONE)
    cluster.world.load["tasteloop-a-predictor"] = 5
    cluster.settle()
    cluster.run("canary", TWO, 50)
    assert cluster.serving() == {ONE.image: 5, TWO.image: 3}
    cluster.world.watcher.needed = 5
    cluster.world.load["tasteloop-b-predictor"] = 5
    cluster.run("promote", "2")
    cluster.settle()
    cluster.check()
    assert cluster.serving() == {TWO.image: 5}


def test_a_service_of_the_release_before_is_taken_over_and_no_pod_restarts_for_it(make):
    cluster = make()
    cluster.make_as_before(ONE)
    cluster.watch()
    assert Service(cluster.world.client, namespace="default").releases() == Releases(ONE)

    cluster.run("canary", TWO, 10)
    cluster.run("rollback")
    assert len(cluster.world.templates["tasteloop-v1-predictor"]) == 1
    cluster.run("canary", TWO, 50)
    cluster.run("promote", "2")
    cluster.settle()

    cluster.check()
    histories = {name: len(history) for name, history in cluster.world.templates.items()}
    assert histories == {"tasteloop-v1-predictor": 1, "tasteloop-a-predictor": 1}
    assert cluster.serving() == {TWO.image: REPLICAS}


def test_a_deploy_over_a_service_of_the_release_before_keeps_its_slot(make):
    cluster = make()
    cluster.make_as_before(ONE)
    cluster.watch()
    cluster.run("deploy", TWO)
    cluster.settle()
    cluster.check()
    assert cluster.serving() == {TWO.image: REPLICAS}
    service = cluster.service.read()
    assert service["spec"]["predictor"]["name"] == "v1"
    assert service["metadata"]["annotations"] == {MODE: "Standard"}
    cluster.run("rollback")
    assert cluster.serving() == {ONE.image: REPLICAS}


def test_a_command_that_does_not_wait_takes_one_safe_step_and_goes_on_when_given_again(make):
    cluster = make()
    cluster.run("deploy", ONE)
    cluster.watch()
    service = Service(cluster.world.client, namespace="default")
    said: list[str] = []
    assert service.canary(TWO, 50, say=said.append) == Releases(ONE, TWO, 0)
    assert service.canary(TWO, 50, say=said.append) == Releases(ONE, TWO, 0)
    assert "not done: there is no Deployment tasteloop-b-predictor yet" in said[-1]
    cluster.settle()
    assert service.canary(TWO, 50) == Releases(ONE, TWO, 50)
    for _ in range(4):
        cluster.settle()
        releases = service.promote("2")
    assert releases == Releases(TWO, before=ONE)
    cluster.settle()
    assert service.pending() is None
    cluster.check()


def test_a_controllers_own_writes_are_no_other_promoter(make):
    """KServe writes the status all the time, and each write makes a version of the object."""
    cluster = make()
    cluster.run("deploy", ONE)
    service = Service(cluster.world.client, namespace="default")
    apply = service._apply

    def apply_after_a_status(requested, dry=False):
        present = service.read()
        if "overtaken" not in present["status"]:
            present["status"]["overtaken"] = True
            path = "serving.kserve.io/v1beta1", "inferenceservices"
            cluster.world.api.update(*path, present, "/status")
        return apply(requested, dry)

    service._apply = apply_after_a_status
    assert service.deploy(TWO) == Releases(TWO, before=ONE)


def test_of_two_promoters_the_slower_one_changes_nothing(make):
    cluster = make()
    cluster.run("deploy", ONE)
    cluster.run("canary", TWO, 10)
    slower = Service(cluster.world.client, namespace="default")
    write = slower._write

    def write_too_late(view, state):
        cluster.run("rollback")
        write(view, state)

    slower._write = write_too_late
    with pytest.raises(Moved):
        slower.promote("2")
    cluster.settle()
    assert slower.releases() == Releases(ONE)
    assert slower.pending() is None


def test_a_canary_with_the_stable_ones_bundle_is_refused_since_kserve_would_not_promote_it(make):
    cluster = make()
    cluster.run("deploy", ONE)
    same = Release("2", ONE.uri, ONE.digest, TWO.image)
    with pytest.raises(TasteloopError, match="KServe promotes no canary with the same"):
        cluster.run("canary", same, 10)


def test_the_journal_is_switched_on_by_a_canary_and_then_our_service_asks_the_agent(make):
    cluster = make()
    cluster.run("deploy", ONE)
    journal = {"journal": "http://tasteloop-journal:8082"}
    service = Service(cluster.world.client, namespace="default", **journal)
    with pytest.raises(TasteloopError, match="cannot be switched on or off by a deployment"):
        service.deploy(TWO)
    service.canary(TWO, 10, wait=100)
    cluster.run("promote", "2")
    front = cluster.world.api.get("v1", "services", "tasteloop-serving")
    assert front["spec"]["ports"][0]["targetPort"] == 9081
    assert front["spec"]["selector"] == {"app": "isvc.tasteloop-b-predictor"}


def test_a_setting_of_a_canary_is_the_canaries_and_the_next_deployments(make):
    cluster = make()
    cluster.run("deploy", ONE)
    cluster.run("canary", TWO, 50)
    service = Service(cluster.world.client, namespace="default", memory="4Gi")
    service.canary(TWO, 50, wait=100)
    memory = {}
    for pod in cluster.world.api.list("v1", "pods"):
        (container,) = pod["spec"]["containers"]
        memory[container["image"]] = container["resources"]["limits"]["memory"]
    assert memory == {ONE.image: "2Gi", TWO.image: "4Gi"}


def test_a_foreign_service_of_that_name_is_left_alone(make):
    cluster = make()
    body = {"metadata": {"name": "tasteloop"}, "spec": {"predictor": {"minReplicas": 1}}}
    cluster.world.api.create("serving.kserve.io/v1beta1", "inferenceservices", body)
    with pytest.raises(TasteloopError, match="was not made by tasteloop"):
        cluster.run("deploy", ONE)


def test_a_service_that_was_deleted_is_made_anew_whatever_state_it_left(make):
    cluster = make()
    cluster.run("deploy", ONE)
    cluster.world.api.delete("serving.kserve.io/v1beta1", "inferenceservices", "tasteloop")
    with pytest.raises(TasteloopError, match="there is no InferenceService"):
        cluster.service.releases()
    assert cluster.service.deploy(TWO) == Releases(TWO)


def test_a_rollback_in_knative_mode_pins_the_revision_before_and_then_forgets_the_canary(make):
    cluster = make(mode="Knative")
    cluster.run("deploy", ONE)
    cluster.run("canary", TWO, 10)
    service = Service(cluster.world.client, namespace="default")
    assert service.rollback(wait=100) == Releases(ONE, TWO, 0)
    (knative,) = cluster.world.api.list("serving.knative.dev/v1", "services")
    assert [t["percent"] for t in knative["status"]["traffic"]] == [0, 100]
    assert service.rollback(wait=100) == Releases(ONE)
    (knative,) = cluster.world.api.list("serving.knative.dev/v1", "services")
    assert knative["spec"]["template"]["spec"]["containers"][0]["image"] == ONE.image
    cluster.run("canary", TWO, 10)
    service.rollback(wait=100)
    assert service.deploy(THREE, wait=100) == Releases(THREE, before=ONE)  # the canary is forgotten
    with pytest.raises(TasteloopError, match="is in mode Knative, not Standard"):
        Service(cluster.world.client, namespace="default", mode="Standard").deploy(TWO)


WRITES = {
    "canary": 2,
    "promote": 6,
    "rollback": 4,
}  # of the ConfigMap, KServe's object, our Service
ENDS = {
    "canary": Releases(ONE, TWO, 10),
    "promote": Releases(TWO, before=ONE),
    "rollback": Releases(ONE),
}


@pytest.mark.parametrize(
    ("command", "written"), [(c, n) for c, count in WRITES.items() for n in range(count)]
)
def test_a_command_that_was_cut_off_between_two_writes_goes_on_when_given_again(
    make, command, written
):
    cluster = make()
    cluster.run("deploy", ONE)
    if command != "canary":
        cluster.run("canary", TWO, 10)
    arguments = {"canary": (TWO, 10), "promote": ("2",), "rollback": ()}[command]
    service = Service(cluster.world.client, namespace="default")
    send, left = service._call, [written]

    def send_until(method, path, verb, query=None, body=None):
        if method != "GET" and ("dryRun", "All") not in (query or []):
            if not left[0]:
                raise KeyboardInterrupt
            left[0] -= 1
        return send(method, path, verb, query, body)

    service._call = send_until
    with pytest.raises(KeyboardInterrupt):
        getattr(service, command)(*arguments, wait=100)
    cluster.settle()
    cluster.watch()

    cluster.run(command, *arguments)

    assert service.releases() == ENDS[command]
    assert service.pending() is None
    cluster.settle()
    cluster.check()


@pytest.mark.parametrize(
    ("setting", "given", "trace"),
    [("traces", "http://otlp:4318/v1/traces", "--traces"), ("account", "mine", "mine")],
)
def test_a_setting_that_is_taken_away_is_taken_from_the_pods(make, setting, given, trace):
    cluster = make(**{setting: given})
    cluster.run("deploy", ONE)
    assert trace in json.dumps(cluster.world.api.list("v1", "pods"))
    service = Service(cluster.world.client, namespace="default", **{setting: None})

    service.deploy(ONE, wait=100)
    cluster.settle()

    assert trace not in json.dumps(cluster.world.api.list("v1", "pods"))


@pytest.mark.parametrize("kind", ["configmaps", "services"])
def test_what_somebody_else_named_so_is_not_written_over(make, kind):
    cluster = make()
    name = {"configmaps": "tasteloop-releases", "services": "tasteloop-serving"}[kind]
    body = {"metadata": {"name": name}, "spec": {"selector": {"app": "theirs"}}, "data": {"a": "b"}}
    cluster.world.api.create("v1", kind, body)
    with pytest.raises(TasteloopError, match=f"{name} was not made by tasteloop"):
        cluster.service.deploy(ONE)
    assert cluster.world.api.get("v1", kind, name)["data"] == {"a": "b"}


@pytest.mark.parametrize("text", ["[]", "{", '{"settings": {}, "stable": null, "from": "later"}'])
def test_a_state_that_cannot_be_read_is_an_error_that_names_it(make, text):
    cluster = make()
    cluster.run("deploy", ONE)
    config_map = cluster.world.api.get("v1", "configmaps", "tasteloop-releases")
    config_map["data"] = {"state.json": text}
    cluster.world.api.update("v1", "configmaps", config_map)
    with pytest.raises(TasteloopError, match="tasteloop-releases holds no state"):
        cluster.service.releases()


def test_a_server_in_trouble_ends_no_waiting(make):
    cluster = make()
    service, get = cluster.service, cluster.service._get
    troubles = [Refusal(503, "busy", ApiStatus())] * 3

    def get_in_trouble(resource, name):
        if troubles and cluster.world.clock.now:
            raise service._explain(troubles.pop(), "get")
        return get(resource, name)

    service._get = get_in_trouble
    service.deploy(ONE, wait=100, say=cluster.said.append)
    assert not troubles and any("answered 503" in line for line in cluster.said)
    assert isinstance(service._explain(Refusal(429, "slow", ApiStatus()), "get"), ConnectionLost)


def test_a_missing_namespace_that_bears_the_services_name_is_said(make):
    body = {"message": "no", "details": {"name": "tasteloop", "kind": "namespaces"}}
    refusal = Refusal(404, "Not Found", ApiStatus.parse(json.dumps(body)))
    assert "there is no namespace" in str(make().service._explain(refusal, "create"))


@pytest.mark.parametrize(
    ("setting", "address"),
    [
        ("histories", "valkey://:hidden@cache:6379"),
        ("traces", "https://me:hidden@otlp/v1/traces"),
        ("journal", "http://hidden@collector:8082"),
    ],
)
def test_a_password_in_an_address_is_refused_and_not_repeated(make, setting, address):
    with pytest.raises(TasteloopError, match="names a user or a password") as caught:
        make(**{setting: address})
    assert "hidden" not in str(caught.value)
