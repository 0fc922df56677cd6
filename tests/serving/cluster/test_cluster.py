"""The InferenceService as it is made and as it is read; tests/cluster holds it against a real API
server.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from serving.cluster.manifest import (
    ServiceSettings,
    build_config_map,
    build_front,
    build_inference_service,
    build_pod,
    build_state,
    check_settings,
    parse_options,
    resolve_release,
    workload_name,
)
from serving.cluster.readiness import View, describe_pending
from serving.cluster.state import Release, Slot, State
from tasteloop.errors import TasteloopError

ONE, TWO, THREE = (
    Release(v, f"s3://models/{v}", v * 64, f"registry.example/serving@sha256:{v * 64}")
    for v in "123"
)
SETTINGS = check_settings("tasteloop", "tasteloop")


def build(release: Release, **options) -> dict:
    settings = check_settings("tasteloop", "tasteloop", **options)
    return build_inference_service(settings, build_state(settings, release))


def make_state(release=None, tried=None, percent=0, settings=None) -> State:
    settings = settings or SETTINGS
    state = build_state(settings, release or ONE)
    if tried is None:
        return state
    slot = Slot("b", tried, build_pod(settings, tried))
    return replace(state, tried=slot, percent=percent, pods=1, strength=settings.replicas)


def test_a_state_survives_a_round_trip():
    state = make_state(tried=TWO, percent=10)
    for one in (state, state.end_trial(), replace(state, before=state.tried, front="b")):
        config_map = build_config_map(SETTINGS, one, None)
        assert State.read(config_map) == one


def test_a_canary_leaves_the_stable_slot_alone_and_is_promoted_as_it_is():
    stable, tried = make_state(), make_state(tried=TWO, percent=10)
    promoted = replace(tried.end_trial(), stable=tried.tried)
    first, second, third = (build_inference_service(SETTINGS, s) for s in (stable, tried, promoted))
    (canary,) = second["spec"]["canary"]
    assert canary["trafficPercent"] == 10 and "canary" not in third["spec"]
    pods = [without_replicas(one["spec"]["predictor"]) for one in (first, second, third)]
    assert pods[0] == pods[1]
    assert without_replicas(canary["predictor"]).items() <= pods[2].items()
    # KServe refuses them there
    assert not {"maxReplicas", "scaleMetric", "scaleTarget"} & canary["predictor"].keys()
    # it takes the canary's pods from the stable one's least, which keeps its strength
    least = second["spec"]["predictor"]["minReplicas"] - canary["predictor"]["minReplicas"]
    assert least == first["spec"]["predictor"]["minReplicas"]


def without_replicas(predictor):
    return {k: v for k, v in predictor.items() if k not in ("minReplicas", "maxReplicas")}


def test_what_changes_at_each_command_is_in_no_annotation_and_no_label():
    documents = [
        build_inference_service(SETTINGS, state)
        for state in (make_state(), make_state(tried=TWO, percent=10), make_state(THREE))
    ]
    metadata = [document["metadata"] for document in documents]
    assert metadata[0] == metadata[1] == metadata[2]


def test_in_knative_mode_the_predictor_keeps_its_name_and_has_nothing_that_knative_refuses():
    settings = check_settings("tasteloop", "tasteloop", mode="Knative")
    state = make_state(tried=TWO, percent=10, settings=settings)
    tried = build_inference_service(settings, replace(state, tried=replace(state.tried, name="a")))
    predictor = tried["spec"]["predictor"]
    assert "canary" not in tried["spec"] and predictor["canaryTrafficPercent"] == 10
    assert predictor["name"] == "a"
    assert predictor["containers"][0]["image"] == TWO.image
    assert len(predictor["containers"][0]["ports"]) == 1
    assert not {"terminationGracePeriodSeconds", "securityContext"} & predictor.keys()
    context = predictor["containers"][0]["securityContext"]
    assert context["runAsNonRoot"] and context["seccompProfile"] == {"type": "RuntimeDefault"}


def test_our_service_asks_kserves_agent_where_there_is_a_journal():
    for journal, port in ((None, 8080), ("http://tasteloop-journal:8082", 9081)):
        settings = check_settings("tasteloop", "tasteloop", journal=journal)
        state = build_state(settings, ONE)
        front = build_front(settings, state, {"metadata": {"name": "tasteloop", "uid": "0"}})
        assert front["spec"]["ports"][0]["targetPort"] == port
        assert front["spec"]["selector"] == {"app": "isvc.tasteloop-a-predictor"}


def test_the_server_understands_its_arguments_and_gets_its_token_from_a_secret():
    from serving.__main__ import _arguments

    (container,) = build(ONE)["spec"]["predictor"]["containers"]
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
    (container,) = build(ONE, token=None)["spec"]["predictor"]["containers"]
    assert _arguments(container["args"]).without_token


def test_probes_ask_what_is_answered_without_a_token_and_a_pod_has_time_to_end():
    from serving.__main__ import _arguments
    from serving.http.access import OPEN

    predictor = build(ONE)["spec"]["predictor"]
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
        ("cpu=lots", "cpu = 'lots'"),
        ("memory=-1", "memory = -1"),
        ("cpu=true", "cpu = True"),
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


def make_view(state: State, **changes) -> View:
    """What the cluster holds of a service when the controllers have done everything."""
    service = build_inference_service(SETTINGS, state)
    service["metadata"] |= {"uid": "0", "generation": 3}
    service["status"] = {
        "deploymentMode": "Standard",
        "conditions": [{"type": "Ready", "status": "True"}],
    }
    workloads, shares = {}, {state.stable.name: 100 - state.percent}
    if state.tried:
        shares[state.tried.name] = state.percent
    for slot in filter(None, (state.stable, state.tried)):
        pods = state.pods if slot is state.tried else SETTINGS.replicas
        counts = dict.fromkeys(("replicas", "updatedReplicas", "availableReplicas"), pods)
        workloads[slot.name] = {
            "metadata": {"generation": 7},
            "spec": {"replicas": pods, "template": {"spec": slot.pod}},
            "status": {"observedGeneration": 7, **counts},
        }
    names = {name: workload_name("tasteloop", name) for name in shares}
    backends = [{"name": names[name], "weight": share} for name, share in shares.items()]
    route = {"metadata": {"name": "tasteloop"}, "spec": {"rules": [{"backendRefs": backends}]}}
    pod = {"targetRef": {"name": f"{names[state.front_slot.name]}-5c7-x"}}
    view = View(
        service,
        state,
        workloads=workloads,
        routes=(route,),
        front=build_front(SETTINGS, state, service),
        endpoints={"subsets": [{"addresses": [pod]}]},
    )
    return replace(view, **changes)


def test_a_service_that_is_done_waits_for_nothing():
    for state in (make_state(), make_state(tried=TWO, percent=10)):
        assert describe_pending(SETTINGS, make_view(state)) is None


TRIED = make_state(tried=TWO, percent=10)
OTHER = make_view(make_state(tried=THREE, percent=10))


def change_deployment(slot: str, part: str, **values) -> dict:
    workloads = dict(make_view(TRIED).workloads)
    workloads[slot] = {**workloads[slot], part: {**workloads[slot][part], **values}}
    return {"workloads": workloads}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"service": OTHER.service}, "not as the recorded state says"),
        ({"workloads": {}}, "there is no Deployment tasteloop-a-predictor yet"),
        (
            {"workloads": OTHER.workloads},
            "tasteloop-b-predictor is not v2 yet (containers[0].image)",
        ),
        (change_deployment("a", "status", observedGeneration=6), "was not seen yet"),
        (change_deployment("a", "spec", replicas=1), "has 1 pods, not 2"),
        (change_deployment("a", "status", availableReplicas=1), "1 are available"),
        (change_deployment("b", "status", updatedReplicas=0), "0 of 1 pods"),
        (change_deployment("a", "status", replicas=3), "tasteloop-a-predictor are v1"),
        ({"routes": ()}, "no HTTPRoute leads to the canary"),
        ({"routes": make_view(make_state()).routes}, "sends 100 percent to tasteloop-a-predictor"),
        ({"front": None}, "Service tasteloop-serving is not as"),
        ({"endpoints": None}, "does not lead to the pods of tasteloop-a-predictor yet"),
        (
            {"endpoints": {"subsets": [{"addresses": [{"targetRef": {"name": "other-1"}}]}]}},
            "does not lead to the pods",
        ),
    ],
)
def test_what_is_still_to_be_done_is_said_by_the_truth(changes, message):
    pending = describe_pending(SETTINGS, make_view(TRIED, **changes))
    assert pending is not None and message in pending


@pytest.mark.parametrize(
    ("conditions", "message"),
    [
        ([], "has said nothing"),
        ([{"type": "Ready", "status": "False", "message": "no node"}], "Ready is False: no node"),
        ([{"type": "Ready", "status": None}, {}], "Ready is None"),
    ],
)
def test_what_kserve_says_counts_too(conditions, message):
    view = make_view(make_state())
    view.service["status"]["conditions"] = conditions
    assert message in describe_pending(SETTINGS, view)


def test_a_canaries_share_that_kserve_repeats_is_not_believed():
    view = make_view(TRIED, routes=make_view(make_state()).routes)
    view.service["status"]["canaryStatuses"] = [{"name": "b", "ready": True, "trafficPercent": 10}]
    pending = describe_pending(SETTINGS, view)
    assert pending is not None and "not 90 percent to tasteloop-a-predictor, 10" in pending


def test_a_model_that_does_not_load_is_said_while_its_pods_are_awaited():
    view = make_view(TRIED, **change_deployment("b", "status", availableReplicas=0))
    failure = {"reason": "ModelLoadFailed", "message": "x"}
    view.service["status"]["modelStatus"] = {
        "transitionStatus": "BlockedByFailedLoad",
        "lastFailureInfo": failure,
    }
    assert "cannot be loaded: ModelLoadFailed x" in describe_pending(SETTINGS, view)


def test_a_mode_that_the_cluster_does_not_offer_ends_the_wait():
    view = make_view(make_state())
    view.service["status"]["deploymentMode"] = "Knative"
    with pytest.raises(TasteloopError, match="in mode Knative, not Standard"):
        describe_pending(SETTINGS, view)


def test_the_state_holds_the_name_of_a_secret_and_no_value():
    env = TRIED.stable.pod["containers"][0]["env"]
    (token,) = [variable for variable in env if "TOKEN" in variable["name"]]
    assert token.keys() == {"name", "valueFrom"}


def test_histories_of_several_pods_are_in_valkey_and_sqlite_is_refused() -> None:
    release = Release("3", "s3://bundles/3", "d" * 64, "image@sha256:1")

    service = build(release, histories="valkey://histories:6379")

    [container] = service["spec"]["predictor"]["containers"]
    arguments = container["args"]
    assert arguments[arguments.index("--histories") + 1] == "valkey://histories:6379"
    secrets = {one["name"]: one.get("valueFrom") for one in container["env"]}
    assert secrets["TASTELOOP_PSEUDONYM_KEY"]["secretKeyRef"]["name"] == "tasteloop-histories"
    for own in ("on", "/data/histories"):
        with pytest.raises(TasteloopError, match="keep them in Valkey"):
            ServiceSettings(histories=own)
