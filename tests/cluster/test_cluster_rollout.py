"""Rollouts against a real API server with KServe's CRDs: what it keeps, what it refuses, and who
wins; and whole rollouts with the stand-in for KServe's controller and webhooks beside it.
"""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from serving.cluster import inference_service
from serving.cluster.api import connect
from serving.cluster.inference_service import HTTP_ROUTES, Moved, Service
from serving.cluster.legacy import RELEASES, SETTINGS
from serving.cluster.manifest import (
    INFERENCE_SERVICES,
    MANAGER,
    MODE,
    build_pod,
    check_settings,
    dump_settings,
)
from serving.cluster.state import Release, Releases
from tasteloop.errors import TasteloopError
from tests.support.cluster.accounts import make_account
from tests.support.cluster.kserve import Api, Config
from tests.support.cluster.world import BROKEN, Running

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(600),
    pytest.mark.usefixtures("kserve"),
]

ONE, TWO, THREE = (
    Release(v, f"s3://models/{v}", v * 64, f"registry.example/serving@sha256:{v * 64}")
    for v in "123"
)
NEVER = Release("4", "s3://models/4", "4" * 64, f"registry.example/{BROKEN}")
CRD = INFERENCE_SERVICES.full_name
PLURAL = INFERENCE_SERVICES.plural
REPLICAS = 3


@pytest.fixture
def service(api: Any, namespace: str) -> Service:
    return Service(api, namespace=namespace, account=None)


@pytest.fixture
def routed(api: Any, namespace: str) -> None:
    """The route that KServe has made of a service with slot `a`; nothing runs that changes it."""
    rules = [{"backendRefs": [{"name": "tasteloop-a-predictor"}]}]
    body = {
        "apiVersion": HTTP_ROUTES.api_version,
        "kind": "HTTPRoute",
        "metadata": {"name": "tasteloop-predictor"},
        "spec": {"rules": rules},
    }
    Api(api, namespace).create(HTTP_ROUTES.api_version, HTTP_ROUTES.plural, body)


@pytest.fixture
def running(
    api: Any, namespace: str, kserve: Config, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Running]:
    monkeypatch.setattr(inference_service, "_RETRY", 0.3)
    with Running(connect(), namespace, kserve) as controllers:
        yield controllers


def spec(service: Service) -> dict[str, Any]:
    present = service.read()
    assert present is not None
    return present["spec"]


def count_templates(running: Running) -> dict[str, int]:
    """How many pod templates each Deployment has had: its ReplicaSets."""
    counts: dict[str, int] = {}
    for replica_set in running.api.list("apps/v1", "replicasets"):
        name = replica_set["metadata"]["ownerReferences"][0]["name"]
        counts[name] = counts.get(name, 0) + 1
    return counts


def test_a_whole_life_loses_no_request_and_restarts_what_changed_alone(
    api, namespace, running, say
):
    began = time.monotonic()
    service = Service(api, namespace=namespace, account=None, replicas=REPLICAS, cpu="1000m")
    service.deploy(ONE, 60)
    service = Service(api, namespace=namespace)
    running.watcher.needed = REPLICAS

    for percent in (10, 50, 100):
        assert service.canary(TWO, percent, 60) == Releases(ONE, TWO, percent)
    assert count_templates(running) == {"tasteloop-a-predictor": 1, "tasteloop-b-predictor": 1}
    assert service.promote("2", 60) == Releases(TWO, before=ONE)
    assert service.deploy(THREE, 60) == Releases(THREE, before=TWO)
    assert service.rollback(60) == Releases(TWO)
    with pytest.raises(TasteloopError, match="not ready within"):
        service.deploy(NEVER, 5)
    service.rollback(60)

    assert running.watcher.lost == running.watcher.thin == running.errors == []
    assert running.watcher.looks > 10
    # v2, v3 and the one that never starts; back is the template that was
    assert count_templates(running)["tasteloop-b-predictor"] == 3
    say(f"{running.watcher.looks} looks in {time.monotonic() - began:.0f} s, none lost")


def test_a_service_of_the_release_before_is_taken_over_without_an_outage(
    api, namespace, service, running
):
    settings = check_settings("tasteloop", namespace, account=None, replicas=REPLICAS)
    asked = dump_settings(settings)
    del asked["mode"], asked["cpu_limit"]
    known = {"stable": asdict(ONE), "tried": None, "percent": 0, "before": None}
    labels = {"app.kubernetes.io/name": "tasteloop", "app.kubernetes.io/managed-by": "tasteloop"}
    annotations = {
        MODE: "Standard",
        RELEASES: json.dumps(known),
        SETTINGS: json.dumps(asked),
    }
    scaling = {"minReplicas": REPLICAS, "maxReplicas": 6, "scaleMetric": "cpu", "scaleTarget": 70}
    theirs = {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": "tasteloop", "labels": labels, "annotations": annotations},
        "spec": {"predictor": {**build_pod(settings, ONE), "name": "v1", **scaling}},
    }
    path = INFERENCE_SERVICES.path(namespace)
    service._call("POST", path, "create", [("fieldManager", MANAGER)], theirs)
    deadline = time.monotonic() + 60
    while running.watcher.ready_pods("tasteloop-v1-predictor") < REPLICAS:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    while not Api(api, namespace).get("gateway.networking.k8s.io/v1", "httproutes", "tasteloop"):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    running.watcher.needed = REPLICAS

    service = Service(api, namespace=namespace)
    assert service.canary(TWO, 50, 60) == Releases(ONE, TWO, 50)
    assert count_templates(running) == {"tasteloop-v1-predictor": 1, "tasteloop-a-predictor": 1}
    assert service.promote("2", 60) == Releases(TWO, before=ONE)
    assert service.deploy(THREE, 60) == Releases(THREE, before=TWO)

    assert running.watcher.lost == running.watcher.thin == running.errors == []
    assert service.read()["metadata"]["annotations"] == {MODE: "Standard"}


def test_a_canary_leaves_the_stable_slot_alone_and_no_trace_when_rolled_back(service, routed):
    assert service.read() is None
    assert service.deploy(ONE) == Releases(ONE)
    before = spec(service)
    assert service.canary(TWO, 10) == Releases(ONE, TWO, 0)  # its pods come before its share
    (canary,) = spec(service)["canary"]
    assert canary["trafficPercent"] == 0 and canary["predictor"]["name"] == "b"
    assert spec(service)["predictor"]["containers"] == before["predictor"]["containers"]
    with pytest.raises(TasteloopError, match="v2 is tried with 0 percent"):
        service.canary(THREE, 10)
    with pytest.raises(TasteloopError, match="v2 is tried here, not v3"):
        service.promote("3")
    assert service.rollback() == Releases(ONE)
    assert spec(service) == before  # what an apply leaves out is taken away
    with pytest.raises(TasteloopError, match="nothing to go back to"):
        service.rollback()


def test_a_deployment_and_its_rollback_keep_the_slot(service):
    service.deploy(ONE)
    first = spec(service)["predictor"]
    assert service.deploy(TWO) == Releases(TWO, before=ONE)
    assert spec(service)["predictor"]["name"] == first["name"] == "a"
    assert service.rollback() == Releases(ONE)
    assert spec(service)["predictor"] == first


def test_in_knative_mode_the_share_is_the_predictors(api, namespace):
    service = Service(api, namespace=namespace, mode="Knative")
    service.deploy(ONE)
    service.canary(TWO, 10)
    assert "canary" not in spec(service)
    assert spec(service)["predictor"]["canaryTrafficPercent"] == 10
    # the revision before is pinned, its pods are there
    assert service.rollback() == Releases(ONE, TWO, 0)
    assert spec(service)["predictor"]["canaryTrafficPercent"] == 0
    service.canary(THREE, 5)
    service.promote("3")
    assert "canaryTrafficPercent" not in spec(service)["predictor"]
    with pytest.raises(TasteloopError, match="is in mode Knative, not Standard"):
        Service(api, namespace=namespace, mode="Standard").deploy(ONE)


def test_settings_stay_with_the_service_and_one_can_be_changed(api, namespace, routed):
    Service(api, namespace=namespace, replicas=3, cpu="500m").deploy(ONE)
    Service(api, namespace=namespace, memory="4Gi").deploy(ONE)
    Service(api, namespace=namespace).canary(TWO, 1)
    predictor, (canary,) = (
        spec(Service(api, namespace=namespace))[k] for k in ("predictor", "canary")
    )
    assert predictor["minReplicas"] - canary["predictor"]["minReplicas"] == 3
    for one in (predictor, canary["predictor"]):
        resources = {"cpu": "500m", "memory": "4Gi"}
        assert one["containers"][0]["resources"] == {"requests": resources, "limits": resources}


def test_all_of_it_is_managed_by_us_as_applied(service, routed):
    service.deploy(ONE)
    service.canary(TWO, 10)
    present = service.read()
    assert present is not None
    entries = present["metadata"]["managedFields"]
    ours = {(entry["manager"], entry["operation"]) for entry in entries}
    assert ours == {(MANAGER, "Apply")}


def test_the_server_refuses_a_wrong_manifest_and_nothing_is_recorded(api, namespace):
    nobody = 2**70  # no number of a user that Kubernetes can hold
    with pytest.raises(TasteloopError, match="refuses the manifest"):
        Service(api, namespace=namespace, user=nobody).deploy(ONE)
    service = Service(api, namespace=namespace)
    assert service.read() is None
    service.deploy(ONE)
    with pytest.raises(TasteloopError, match="refuses the manifest"):
        Service(api, namespace=namespace, user=nobody).deploy(TWO)
    assert service.releases() == Releases(ONE)


def between(service: Service, what: Callable[[], Any]) -> None:
    """Let something happen once between this service's reading and its writing."""
    check = service._refuse_dropped_field
    results: list[Any] = []

    def check_and_let_happen(*arguments: Any) -> None:
        check(*arguments)
        if not results:
            results.append(what())

    service._refuse_dropped_field = check_and_let_happen  # type: ignore[method-assign]


def test_of_two_promoters_one_is_told_that_it_lost(api, namespace, service, routed):
    other = Service(api, namespace=namespace)
    service.deploy(ONE)
    service.canary(TWO, 10)
    between(service, other.rollback)
    with pytest.raises(Moved, match="changed by someone else meanwhile"):
        service.canary(TWO, 100)
    assert service.releases() == Releases(ONE)  # the other's word stands
    assert "canary" not in spec(service)


def test_of_two_that_make_it_at_once_one_is_told_that_it_lost(api, namespace, service):
    other = Service(api, namespace=namespace)
    between(service, lambda: other.deploy(TWO))
    with pytest.raises(Moved):
        service.deploy(ONE)
    assert service.releases() == Releases(TWO)


def test_of_many_canaries_at_once_exactly_one_begins(api, namespace, kubeconfig, routed):
    Service(api, namespace=namespace).deploy(ONE)
    ends: list[str] = []
    start = threading.Barrier(6)

    def begin(n: int) -> None:
        service = Service(connect(), namespace=namespace)
        start.wait()
        try:
            service.canary(Release(str(n), f"s3://models/{n}", "0" * 64, "image"), 10)
            ends.append("began")
        except TasteloopError as error:
            ends.append(str(error))

    threads = [threading.Thread(target=begin, args=(n,)) for n in range(2, 8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ends.count("began") == 1, ends
    assert all("meanwhile" in end or "is tried" in end for end in ends if end != "began")


def test_someone_elses_field_is_not_taken_over(api, namespace, service, routed):
    service.deploy(ONE)
    service.canary(TWO, 10)
    theirs = {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": "tasteloop", "namespace": namespace},
        "spec": {"predictor": {"minReplicas": 5}},
    }
    path = f"{INFERENCE_SERVICES.path(namespace)}/tasteloop"
    service._call(
        "PATCH", path, "patch", [("fieldManager", "autoscaler"), ("force", "true")], theirs
    )
    with pytest.raises(TasteloopError, match="someone else manages a part of .*minReplicas"):
        service.canary(TWO, 100)


class Proxy:
    """Passes bytes to the API server until it is told to cut: the request before it arrives, or the
    answer to it.
    """

    def __init__(self, host: str, port: int) -> None:
        self.target, self.cut = (host, port), ""
        self.listener = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self) -> None:
        while True:
            try:
                near, _ = self.listener.accept()
            except OSError:
                return
            far = socket.create_connection(self.target)
            for source, sink, what in ((near, far, "request"), (far, near, "answer")):
                threading.Thread(target=self.pump, args=(source, sink, what), daemon=True).start()

    def pump(self, source: socket.socket, sink: socket.socket, what: str) -> None:
        try:
            while data := source.recv(65536):
                if self.cut == what:
                    break
                sink.sendall(data)
        except OSError:
            pass
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@contextmanager
def through_a_proxy(
    kubeconfig: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Proxy, Any]]:
    config = yaml.safe_load(kubeconfig.read_text())
    cluster = config["clusters"][0]["cluster"]
    real = urlsplit(cluster["server"])
    proxy = Proxy(str(real.hostname), int(real.port or 443))
    cluster["server"] = f"https://127.0.0.1:{proxy.listener.getsockname()[1]}"
    (folder / "kubeconfig").write_text(yaml.safe_dump(config))
    monkeypatch.setenv("KUBECONFIG", str(folder / "kubeconfig"))
    try:
        yield proxy, connect()
    finally:
        proxy.listener.close()


@pytest.mark.parametrize("cut", ["request", "answer"])
def test_a_connection_that_is_lost_midway_is_either_done_or_not_and_is_told(
    kubeconfig, namespace, tmp_path, monkeypatch, service, routed, cut
):
    service.deploy(THREE)
    service.deploy(ONE)
    service.canary(TWO, 10)
    with through_a_proxy(kubeconfig, tmp_path, monkeypatch) as (proxy, api):
        cutting = Service(api, namespace=namespace)
        apply = cutting._apply

        def applied(wanted: Any, dry: bool = False) -> Any:
            proxy.cut = "" if dry else cut
            try:
                return apply(wanted, dry)
            finally:
                proxy.cut = ""

        monkeypatch.setattr(cutting, "_apply", applied)
        if cut == "answer":  # it arrived: the object says so
            assert cutting.rollback() == Releases(ONE, before=THREE)
        else:
            with pytest.raises(TasteloopError, match="was not changed: the same command again"):
                cutting.rollback()
            assert "canary" in spec(service)
            # what was asked is recorded, and done before anything else is
            assert service.rollback() == Releases(ONE, before=THREE)
        assert "canary" not in spec(service)
        assert service.rollback() == Releases(THREE)


def test_a_server_that_is_not_there_is_one_sentence(kubeconfig, tmp_path, monkeypatch):
    with through_a_proxy(kubeconfig, tmp_path, monkeypatch) as (proxy, api):
        # a thread that waits to accept would keep a closed one open
        proxy.listener.shutdown(socket.SHUT_RDWR)
        with pytest.raises(TasteloopError, match="was lost or refused"):
            Service(api).releases()


def test_the_promoters_role_suffices_for_all_and_the_monitors_for_looking(api, namespace, routed):
    promoter = Service(make_account(api, namespace, "tasteloop-promoter"), namespace=namespace)
    promoter.deploy(ONE)
    promoter.canary(TWO, 10)
    promoter.rollback()
    promoter.deploy(TWO)
    promoter.rollback()
    monitor = Service(make_account(api, namespace, "tasteloop-monitor"), namespace=namespace)
    assert monitor.releases() == Releases(ONE)
    assert "there is no Deployment" in monitor.pending()
    with pytest.raises(TasteloopError, match=f"may not patch {PLURAL}.*tasteloop-promoter"):
        monitor.canary(TWO, 10)
    with pytest.raises(TasteloopError, match=f"may not get {PLURAL}"):
        Service(make_account(api, namespace, "tasteloop-serving"), namespace=namespace).releases()
    with pytest.raises(TasteloopError, match="may not get"):  # a promoter of this service only
        Service(promoter._api, "other", namespace).releases()


def test_a_token_that_is_not_known_and_a_namespace_that_is_not_there(api, namespace):
    from kubernetes import client

    configuration = client.Configuration()
    configuration.host, configuration.verify_ssl = api.configuration.host, False
    configuration.api_key = {"authorization": "Bearer nobody"}
    with pytest.raises(TasteloopError, match="does not know who asks"):
        Service(client.ApiClient(configuration), namespace=namespace).releases()
    with pytest.raises(TasteloopError, match="there is no namespace nowhere"):
        Service(api, namespace="nowhere").deploy(ONE)


def test_a_foreign_service_of_that_name_is_left_alone(api, namespace, service):
    theirs = {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": "tasteloop"},
        "spec": {"predictor": {"minReplicas": 1}},
    }
    service._call("POST", INFERENCE_SERVICES.path(namespace), "create", body=theirs)
    with pytest.raises(TasteloopError, match="was not made by tasteloop"):
        service.deploy(ONE)


@contextmanager
def another_crd(api: Any, change: Callable[[dict[str, Any]], Any]) -> Iterator[None]:
    """KServe's CRD changed, or taken away where `change` is None; put back afterwards."""
    import time

    from kubernetes.client import ApiextensionsV1Api

    extensions = ApiextensionsV1Api(api)
    path = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{CRD}"
    original = Service(api)._call("GET", path, "read")
    changed = json.loads(json.dumps(original))
    change(changed)
    service = Service(api)
    service._call("PUT", path, "update", body=changed)
    time.sleep(3)  # the server takes a new schema into use when it gets to it
    try:
        yield
    finally:
        present = extensions.read_custom_resource_definition(CRD)
        original["metadata"]["resourceVersion"] = present.metadata.resource_version
        service._call("PUT", path, "update", body=original)
        time.sleep(3)


def test_a_field_that_an_older_kserve_would_drop_is_not_ignored(api, namespace, service, routed):
    def without(crd: dict[str, Any]) -> None:
        del crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"][
            "properties"
        ]["canary"]

    service.deploy(ONE)
    with another_crd(api, without):
        with pytest.raises(TasteloopError, match=r"would drop spec\.canary without a word"):
            service.canary(TWO, 10)
        assert service.releases() == Releases(ONE)
    service.canary(TWO, 10)


def test_a_cluster_without_kserve_is_told(api, namespace, service):
    def unserved(crd: dict[str, Any]) -> None:
        for version in crd["spec"]["versions"]:
            version["served"] = False

    with (
        another_crd(api, unserved),
        pytest.raises(TasteloopError, match="install KServe with its CRDs"),
    ):
        service.deploy(ONE)
