"""Rollouts against stand-ins that behave as KServe's and Knative's controllers do, in memory;
tests/cluster runs the same stand-ins on a real API server.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from serving.cluster import inference_service
from serving.cluster.inference_service import Service
from serving.cluster.manifest import Release
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
        self.world = World(config)
        monkeypatch.setattr(inference_service, "time", self.world.clock)
        self.service = Service(
            self.world.client, namespace="default", **{"replicas": REPLICAS, **settings}
        )

    def run(self, command: str, *arguments: Any) -> None:
        """As the command line does it: the change, then the waiting."""
        service = Service(self.world.client, namespace="default")
        if self.service.read() is None:
            service = self.service
        getattr(service, command)(*arguments)
        service.wait(100, lambda line: None)

    def watch(self) -> None:
        """From now on no request may be lost."""
        self.world.watcher.needed = REPLICAS

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
        assert self.world.watcher.lost == []
        assert self.world.watcher.thin == []


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Cluster]:
    def make_cluster(config: Config | None = None, **settings: Any) -> Cluster:
        return Cluster(monkeypatch, config, **settings)

    return make_cluster


@pytest.mark.xfail(strict=True, reason="deploy over renames the predictor: KServe deletes first")
@pytest.mark.parametrize("gateway", [True, False])
def test_a_deploy_over_a_living_service_loses_no_request(make, gateway):
    cluster = make(Config(gateway=gateway))
    cluster.run("deploy", ONE)
    cluster.watch()

    cluster.run("deploy", TWO)
    cluster.settle()

    cluster.check()
    assert cluster.serving() == {TWO.image: REPLICAS}


@pytest.mark.xfail(
    strict=True, reason="the believed generation is the child's: it says ready early"
)
def test_a_command_returns_when_every_pod_is_of_its_release(make):
    cluster = make()
    cluster.run("deploy", ONE)
    cluster.run("deploy", TWO)
    assert cluster.serving() == {TWO.image: REPLICAS}


@pytest.mark.xfail(strict=True, reason="state in annotations is copied into every pod template")
def test_a_canary_and_its_share_restart_no_pod(make):
    cluster = make()
    cluster.run("deploy", ONE)
    for percent in (10, 50, 100):
        cluster.run("canary", TWO, percent)
        cluster.settle()
    assert [len(history) for history in cluster.world.templates.values()] == [1, 1]


@pytest.mark.xfail(strict=True, reason="a canary of ten percent is promoted with its one pod")
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


@pytest.mark.xfail(strict=True, reason="the share is believed: canaryStatuses repeat what is asked")
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


@pytest.mark.xfail(strict=True, reason="limits are defaulted for the predictor alone")
def test_both_slots_have_requests_and_limits(make):
    cluster = make()
    cluster.run("deploy", ONE)
    cluster.run("canary", TWO, 50)
    pods = cluster.world.api.list("v1", "pods")
    resources = [pod["spec"]["containers"][0]["resources"] for pod in pods]
    assert all(one == resources[0] for one in resources)
    assert {"cpu", "memory"} == resources[0]["requests"].keys() == resources[0]["limits"].keys()


@pytest.mark.xfail(strict=True, reason="1000m comes back as 1, which is taken for a dropped field")
@pytest.mark.parametrize("cpu", ["1000m", 2, "0.5"])
def test_quantities_are_compared_as_quantities_and_a_number_is_one(make, cpu):
    cluster = make(cpu=cpu, memory="1024Mi")
    cluster.run("deploy", ONE)
    assert cluster.serving() == {ONE.image: REPLICAS}


@pytest.mark.xfail(
    strict=True, reason="Knative refuses the pod's grace period and security context"
)
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


@pytest.mark.xfail(strict=True, reason="the release before is gone when the new one never starts")
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


@pytest.mark.xfail(
    strict=True, reason="KServe's Service bears the version's name, and goes with it"
)
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
