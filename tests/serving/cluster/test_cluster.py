"""The InferenceService as it is made and as it is read; tests/cluster holds it against a real API
server.
"""

from __future__ import annotations

import json
from copy import deepcopy

import pytest

from serving.cluster.manifest import (
    MODE,
    RELEASES,
    Release,
    Releases,
    ServiceSettings,
    build_inference_service,
    check_settings,
    parse_options,
    resolve_release,
)
from serving.cluster.readiness import describe_pending
from tasteloop.errors import TasteloopError

ONE, TWO = (
    Release(v, f"s3://models/{v}", v * 64, f"registry.example/serving@sha256:{v * 64}")
    for v in "12"
)


def build(releases: Releases, **options) -> dict:
    return build_inference_service(check_settings("tasteloop", "tasteloop", **options), releases)


def ready(service: dict, **status) -> dict:
    """The object as a controller that has done everything leaves it."""
    service = deepcopy(service)
    service["metadata"]["generation"] = 3
    service["status"] = {
        "observedGeneration": 3,
        "deploymentMode": service["metadata"]["annotations"][MODE],
        "conditions": [{"type": "Ready", "status": "True"}],
        **status,
    }
    return service


def test_releases_survive_a_round_trip():
    for releases in (Releases(ONE), Releases(ONE, TWO, 10), Releases(TWO, before=ONE)):
        assert Releases.read(releases.write()) == releases
        assert Releases.read(build(releases)["metadata"]["annotations"][RELEASES]) == releases


def test_a_promotion_in_standard_mode_leaves_the_pods_of_the_canary_as_they_are():
    tried, promoted = build(Releases(ONE, TWO, 10)), build(Releases(TWO, before=ONE))
    (canary,) = tried["spec"]["canary"]
    assert canary["trafficPercent"] == 10 and "canary" not in promoted["spec"]
    assert canary["predictor"].items() <= promoted["spec"]["predictor"].items()
    # and those of the stable one
    assert tried["spec"]["predictor"] == build(Releases(ONE))["spec"]["predictor"]
    # KServe refuses them there
    assert not {"minReplicas", "maxReplicas", "scaleMetric"} & canary["predictor"].keys()


def test_a_canary_in_knative_mode_is_the_next_revision_with_its_share():
    tried = build(Releases(ONE, TWO, 10), mode="Knative")
    assert "canary" not in tried["spec"]
    assert tried["spec"]["predictor"]["canaryTrafficPercent"] == 10
    assert tried["spec"]["predictor"]["containers"][0]["image"] == TWO.image
    assert len(tried["spec"]["predictor"]["containers"][0]["ports"]) == 1
    assert (
        "canaryTrafficPercent"
        not in build(Releases(TWO, before=ONE), mode="Knative")["spec"]["predictor"]
    )


def test_the_server_understands_its_arguments_and_gets_its_token_from_a_secret():
    from serving.__main__ import _arguments

    (container,) = build(Releases(ONE))["spec"]["predictor"]["containers"]
    arguments = _arguments(container["args"])
    assert (arguments.bundle, arguments.version, arguments.host, arguments.without_token) == (
        "/mnt/models",
        "1",
        "0.0.0.0",
        False,
    )
    (token,) = [e for e in container["env"] if e["name"] == "TASTELOOP_API_TOKEN"]
    assert token == {
        "name": "TASTELOOP_API_TOKEN",
        "valueFrom": {"secretKeyRef": {"name": "tasteloop", "key": "api-token"}},
    }
    (container,) = build(Releases(ONE), token=None)["spec"]["predictor"]["containers"]
    assert _arguments(container["args"]).without_token


def test_probes_ask_what_is_answered_without_a_token_and_a_pod_has_time_to_end():
    from serving.__main__ import _arguments
    from serving.http.access import OPEN

    predictor = build(Releases(ONE))["spec"]["predictor"]
    (container,) = predictor["containers"]
    probes = [
        container[f"{kind}Probe"]["httpGet"]["path"]
        for kind in ("startup", "readiness", "liveness")
    ]
    assert set(probes) <= OPEN
    arguments = _arguments(container["args"])
    assert predictor["terminationGracePeriodSeconds"] > arguments.linger + arguments.grace


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("replica=3", "unknown setting 'replica' of the service; known: name"),
        ("replicas=0", "replicas = 0"),
        ("mode=Serverless", "Standard"),
        ("journal=collector:8082", "journal = 'collector:8082'"),
        ("replicas", "not of the form"),
    ],
)
def test_a_wrong_setting_is_named(option, message):
    with pytest.raises(TasteloopError) as caught:
        check_settings("tasteloop", "tasteloop", **parse_options([option]))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "uri", ["file:///home/me/mlartifacts/1", "mlflow-artifacts:/1", "/mnt/bundle"]
)
def test_a_bundle_that_kserve_cannot_fetch_is_refused(uri):
    with pytest.raises(TasteloopError, match="KServe cannot fetch version 1"):
        resolve_release("1", "image", uri, "0" * 64)


def test_what_mlflow_proxies_is_found_in_its_store(monkeypatch):
    monkeypatch.setattr(
        "serving.release.registry.source",
        lambda version: ("mlflow-artifacts:/1/run/artifacts/bundle", "d"),
    )
    assert (
        resolve_release("1", "i", store="s3://b/mlflow/").uri
        == "s3://b/mlflow/1/run/artifacts/bundle"
    )
    with pytest.raises(TasteloopError, match="--store"):
        resolve_release("1", "i")


def test_where_and_which_belong_together():
    with pytest.raises(TasteloopError, match="belong together"):
        resolve_release("1", "image", "s3://models/1")


def test_a_service_that_is_done_waits_for_nothing():
    assert describe_pending(ready(build(Releases(ONE)))) is None
    canary = build(Releases(ONE, TWO, 10))
    seen = [{"name": "v2", "ready": True, "trafficPercent": 10}]
    assert describe_pending(ready(canary, canaryStatuses=seen)) is None
    traffic = [{"latestRevision": True, "percent": 10}, {"revisionName": "x-00001", "percent": 90}]
    knative = build(Releases(ONE, TWO, 10), mode="Knative")
    assert describe_pending(ready(knative, components={"predictor": {"traffic": traffic}})) is None


@pytest.mark.parametrize(
    ("status", "message"),
    [
        ({"observedGeneration": 2}, "not seen the change"),
        ({"conditions": []}, "Ready is Unknown"),
        ({"conditions": [{"type": "Ready", "status": None}, {}]}, "Ready is None"),
        (
            {"conditions": [{"type": "Ready", "status": "False", "message": "no node"}]},
            "Ready is False: no node",
        ),
        ({"canaryStatuses": []}, "canary v2 is not ready"),
        (
            {"canaryStatuses": [{"name": "v2", "ready": False, "trafficPercent": 10}]},
            "canary v2 is not ready",
        ),
        (
            {"canaryStatuses": [{"name": "v2", "ready": True, "trafficPercent": 50}]},
            "gets 50 percent, not 10",
        ),
    ],
)
def test_what_is_still_to_be_done_is_said(status, message):
    waiting = describe_pending(ready(build(Releases(ONE, TWO, 10)), **status))
    assert waiting is not None and message in waiting


def test_a_knative_split_that_is_not_the_one_asked_for_is_not_ready():
    knative = build(Releases(ONE, TWO, 10), mode="Knative")
    assert describe_pending(ready(knative)) == "the newest revision gets 0 percent, not 10"


def test_a_mode_that_the_cluster_does_not_offer_and_a_model_that_does_not_load_end_the_wait():
    with pytest.raises(TasteloopError, match="in mode Knative, not Standard"):
        describe_pending(ready(build(Releases(ONE)), deploymentMode="Knative"))
    failed = {
        "transitionStatus": "BlockedByFailedLoad",
        "lastFailureInfo": {"reason": "ModelLoadFailed", "message": "x"},
    }
    with pytest.raises(TasteloopError, match="cannot be loaded: ModelLoadFailed x"):
        describe_pending(ready(build(Releases(ONE)), modelStatus=failed))


def test_annotations_hold_no_secret():
    text = json.dumps(build(Releases(ONE))["metadata"]["annotations"])
    assert "api-token" not in text


def test_histories_of_several_pods_are_in_valkey_and_sqlite_is_refused() -> None:
    releases = Releases(Release("3", "s3://bundles/3", "d" * 64, "image@sha256:1"))

    service = build_inference_service(
        ServiceSettings(histories="valkey://histories:6379"), releases
    )

    [container] = service["spec"]["predictor"]["containers"]
    arguments = container["args"]
    assert arguments[arguments.index("--histories") + 1] == "valkey://histories:6379"
    secrets = {one["name"]: one.get("valueFrom") for one in container["env"]}
    assert secrets["TASTELOOP_PSEUDONYM_KEY"]["secretKeyRef"]["name"] == "tasteloop-histories"
    for own in ("on", "/data/histories"):
        with pytest.raises(TasteloopError, match="keep them in Valkey"):
            ServiceSettings(histories=own)
